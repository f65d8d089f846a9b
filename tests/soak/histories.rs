//! The check on made-up histories: one that finds nothing wrong anywhere proves nothing.

use super::history::{Deed, Found, Kind, Operation, Outcome, Place, violations};

fn place(kind: Kind) -> Place {
    Place {
        db: 0,
        kind,
        name: "x".to_owned(),
    }
}

/// Of client 0 unless the number is 100 or more; one after the other in time.
fn operation(number: u64, outcome: Outcome, deeds: &[(Kind, Deed)]) -> Operation {
    Operation {
        client: usize::from(number >= 100),
        number,
        sent_us: number % 100 * 10,
        settled_us: number % 100 * 10 + 5,
        outcome,
        deeds: deeds.iter().map(|(kind, deed)| (place(*kind), *deed)).collect(),
    }
}

fn refused() -> Outcome {
    Outcome::Refused("UNAVAILABLE".to_owned())
}

/// `expected` is a part of the only violation; empty for none.
#[track_caller]
fn check(operations: &[Operation], found: &[(Kind, &[&str])], expected: &str) {
    let found: Found = found
        .iter()
        .map(|(kind, values)| (place(*kind), values.iter().map(ToString::to_string).collect()))
        .collect();
    let seen = violations(operations, &found);
    match expected {
        "" => assert!(seen.is_empty(), "{seen:?}"),
        _ => assert!(seen.len() == 1 && seen[0].contains(expected), "{expected}: {seen:?}"),
    }
}

#[test]
fn lost_repeated_refused_invented_and_reordered_appends_are_found() {
    use Outcome::{Acknowledged, Lost, Uncertain};
    for kind in [Kind::List, Kind::Stream] {
        let append = |number, outcome| operation(number, outcome, &[(kind, Deed::Append)]);
        let all = [
            append(1, Acknowledged),
            append(2, Uncertain),
            append(3, refused()),
            append(4, Lost),
            append(105, Acknowledged),
        ];
        for (values, expected) in [
            (["0-1", "1-105"].as_slice(), ""),
            (&["0-1", "0-2", "0-4", "1-105"], ""),
            (&["0-1", "0-2"], "lost: 1-105"),
            (&["0-1", "0-1", "1-105"], "there 2 times: 0-1"),
            (&["0-1", "0-4", "0-4", "1-105"], "there 2 times: 0-4"),
            (&["0-1", "0-3", "1-105"], "refused, but there"),
            (&["0-1", "1-105", "9-9"], "invented: 9-9"),
            (&["0-2", "0-1", "1-105"], "0-2 sent"),
            (&["0-1", "1-105", "0-4"], "stands before"),
        ] {
            check(&all, &[(kind, values)], expected);
        }
    }
}

#[test]
fn concurrent_appends_of_two_clients_may_stand_in_either_order() {
    let append = |number| operation(number, Outcome::Acknowledged, &[(Kind::List, Deed::Append)]);
    let mut other = append(101);
    other.sent_us += 3;
    for values in [["0-1", "1-101"], ["1-101", "0-1"]] {
        check(&[append(1), other.clone()], &[(Kind::List, &values)], "");
    }
}

#[test]
fn members_that_are_lost_or_were_refused_are_found() {
    let add = |number, outcome| operation(number, outcome, &[(Kind::Set, Deed::Add)]);
    let all = [add(1, Outcome::Acknowledged), add(2, refused())];
    check(&all, &[(Kind::Set, &["0-1"])], "");
    check(&all, &[], "lost: 0-1");
    check(&all, &[(Kind::Set, &["0-1", "0-2"])], "refused, but there");
}

#[test]
fn a_value_that_is_not_the_last_is_found() {
    use Outcome::{Acknowledged, Lost, Uncertain};
    for kind in [Kind::String, Kind::Field] {
        let assign = |number, outcome| operation(number, outcome, &[(kind, Deed::Assign)]);
        let erase = |number, outcome| operation(number, outcome, &[(kind, Deed::Erase)]);
        let all = [
            assign(1, Acknowledged),
            assign(2, Uncertain),
            assign(3, Acknowledged),
            assign(4, Lost),
            assign(5, refused()),
        ];
        for (value, expected) in [
            ("0-3", ""),
            ("0-4", ""),
            ("0-1", "stands there after 0-3"),
            ("0-2", "stands there after 0-3"),
            ("0-5", "refused, but there"),
            ("7-7", "invented"),
        ] {
            check(&all, &[(kind, &[value])], expected);
        }
        check(&all, &[], "lost: 0-3");
        let erased = [assign(1, Acknowledged), erase(2, Acknowledged)];
        check(&erased, &[], "");
        check(&erased, &[(kind, &["0-1"])], "stands there after 0-2");
        let not_erased = [assign(1, Acknowledged), erase(2, refused())];
        check(&not_erased, &[], "lost: 0-1");
        let perhaps = [assign(1, Acknowledged), erase(2, Uncertain)];
        check(&perhaps, &[], "");
        check(&perhaps, &[(kind, &["0-1"])], "");
        let before = [erase(1, Acknowledged), assign(102, Acknowledged)];
        check(&before, &[], "lost: 1-102");
    }
}

#[test]
fn a_torn_transaction_is_found() {
    let all = [operation(
        1,
        Outcome::Uncertain,
        &[(Kind::List, Deed::Append), (Kind::Set, Deed::Add)],
    )];
    check(&all, &[], "");
    check(&all, &[(Kind::List, &["0-1"]), (Kind::Set, &["0-1"])], "");
    check(&all, &[(Kind::List, &["0-1"])], "torn transaction");
}
