//! What clients sent and were told, what is in Redis in the end, and what of it cannot be. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Display};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    List,
    Stream,
    Set,
    String,
    /// A field of the one hash.
    Field,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) db: u32,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// What an operation does to a place; its value is the operation's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// To the end of a list or stream.
    Append,
    /// To a set.
    Add,
    Assign,
    Erase,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    /// `may or may not have been applied`
    Uncertain,
    /// It must not have been applied.
    Refused(String),
    /// The connection ended under it.
    Lost,
}

/// One command, or one transaction.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    /// Ascending in the order in which the client sent.
    pub(crate) number: u64,
    /// Microseconds since the start: before it was sent, and when its reply or the end of the connection was seen.
    pub(crate) sent_us: u64,
    pub(crate) settled_us: u64,
    pub(crate) outcome: Outcome,
    pub(crate) deeds: Vec<(Place, Deed)>,
}

impl Operation {
    pub(crate) fn value(&self) -> String {
        format!("{}-{}", self.client, self.number)
    }

    /// Whether this one must have taken effect before `other`, if both did.
    fn precedes(&self, other: &Self) -> bool {
        if self.client == other.client {
            self.number < other.number
        } else {
            self.settled_us < other.sent_us
        }
    }
}

impl Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} sent {} settled {} {:?}",
            self.value(),
            self.sent_us,
            self.settled_us,
            self.outcome
        )?;
        for (place, deed) in &self.deeds {
            write!(out, " {deed:?} {}/{:?}/{}", place.db, place.kind, place.name)?;
        }
        Ok(())
    }
}

/// What stands at a place: all values of a list or stream in order, the members of a set, at most one value elsewhere.
pub(crate) type Found = BTreeMap<Place, Vec<String>>;

/// Everything that cannot be; empty for a history that keeps the promises.
pub(crate) fn violations(operations: &[Operation], found: &Found) -> Vec<String> {
    let by_value: HashMap<String, &Operation> = operations.iter().map(|one| (one.value(), one)).collect();
    let mut by_place: BTreeMap<&Place, Vec<(&Operation, Deed)>> = BTreeMap::new();
    for operation in operations {
        for (place, deed) in &operation.deeds {
            by_place.entry(place).or_default().push((operation, *deed));
        }
    }
    let mut out = Vec::new();
    for (place, deeds) in by_place {
        let values = found.get(place).map(Vec::as_slice).unwrap_or_default();
        let mut report = |text: String| out.push(format!("{}/{:?}/{}: {text}", place.db, place.kind, place.name));
        match place.kind {
            Kind::List | Kind::Stream => {
                check_presence(&deeds, values, &mut report);
                check_order(values, &by_value, &mut report);
            }
            Kind::Set => check_presence(&deeds, values, &mut report),
            Kind::String | Kind::Field => check_last(&deeds, values.first(), &mut report),
        }
    }
    check_atomicity(operations, found, &mut out);
    out
}

fn check_presence(deeds: &[(&Operation, Deed)], values: &[String], report: &mut impl FnMut(String)) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    for (operation, _) in deeds {
        let count = counts.remove(operation.value().as_str()).unwrap_or_default();
        match (&operation.outcome, count) {
            (Outcome::Acknowledged, 0) => report(format!("lost: {operation}")),
            (Outcome::Refused(_), 1..) => report(format!("refused, but there {count} times: {operation}")),
            (_, 2..) => report(format!("there {count} times: {operation}")),
            (Outcome::Acknowledged | Outcome::Uncertain | Outcome::Lost | Outcome::Refused(_), 0 | 1) => {}
        }
    }
    for value in counts.keys() {
        report(format!("invented: {value}"));
    }
}

fn check_order(values: &[String], by_value: &HashMap<String, &Operation>, report: &mut impl FnMut(String)) {
    let mut earliest: Option<&Operation> = None;
    let mut next_of_client: HashMap<usize, &Operation> = HashMap::new();
    for operation in values.iter().rev().filter_map(|value| by_value.get(value).copied()) {
        let of_client = next_of_client.get(&operation.client).copied();
        if let Some(later) = of_client
            .into_iter()
            .chain(earliest)
            .find(|later| later.precedes(operation))
        {
            report(format!("{operation} stands before {later}"));
        }
        next_of_client.insert(operation.client, operation);
        if earliest.is_none_or(|earliest| operation.settled_us < earliest.settled_us) {
            earliest = Some(operation);
        }
    }
}

fn check_last(deeds: &[(&Operation, Deed)], value: Option<&String>, report: &mut impl FnMut(String)) {
    let is_overwritten = |candidate: &Operation| {
        deeds
            .iter()
            .find(|(other, _)| other.outcome == Outcome::Acknowledged && candidate.precedes(other))
            .map(|(other, _)| *other)
    };
    let mut candidates = deeds.iter().filter(|(operation, deed)| match (deed, value) {
        (Deed::Assign, Some(value)) => operation.value() == *value,
        (Deed::Erase, None) => true,
        (Deed::Assign | Deed::Erase | Deed::Append | Deed::Add, _) => false,
    });
    let Some(value) = value else {
        let is_untouched = deeds.iter().all(|(one, _)| one.outcome != Outcome::Acknowledged);
        let is_erased = |one: &Operation| !matches!(one.outcome, Outcome::Refused(_)) && is_overwritten(one).is_none();
        if !is_untouched && !candidates.any(|(one, _)| is_erased(one)) {
            let last = deeds.iter().rev().find(|(one, _)| one.outcome == Outcome::Acknowledged);
            report(format!(
                "lost: {}",
                last.map(|(one, _)| one.to_string()).unwrap_or_default()
            ));
        }
        return;
    };
    match candidates.next() {
        None => report(format!("invented: {value}")),
        Some((one, _)) if matches!(one.outcome, Outcome::Refused(_)) => report(format!("refused, but there: {one}")),
        Some((one, _)) => {
            if let Some(other) = is_overwritten(one) {
                report(format!("{one} stands there after {other}"));
            }
        }
    }
}

/// A transaction's appends and additions are all there or none is.
fn check_atomicity(operations: &[Operation], found: &Found, out: &mut Vec<String>) {
    let sets: HashMap<&Place, BTreeSet<&String>> = found
        .iter()
        .map(|(place, values)| (place, values.iter().collect()))
        .collect();
    for operation in operations.iter().filter(|one| one.deeds.len() > 1) {
        let value = operation.value();
        let there: Vec<bool> = operation
            .deeds
            .iter()
            .filter(|(_, deed)| matches!(deed, Deed::Append | Deed::Add))
            .map(|(place, _)| sets.get(place).is_some_and(|values| values.contains(&value)))
            .collect();
        if there.windows(2).any(|pair| pair[0] != pair[1]) {
            out.push(format!("torn transaction: {operation}"));
        }
    }
}
