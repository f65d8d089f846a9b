//! The keys of a request, by the table's rules.

use super::{KeySpec, Name, Spec};
use crate::resp::Request;

/// Calls `f` with every key of the request, in the order of the rules (destinations of SORT and GEORADIUS last). A malformed request yields fewer keys.
/// The keys that SORT … BY and GET reach through patterns cannot be told and are left out.
pub fn for_each_key<'a>(spec: &Spec, request: &Request<'a>, mut f: impl FnMut(&'a [u8])) {
    for rule in spec.keys {
        match *rule {
            KeySpec::Range(first, last, step) => range(request, first, last, step, |key| {
                // MIGRATE … "" … KEYS a b: the empty one is a placeholder.
                if spec.id != Name::Migrate || !key.is_empty() {
                    f(key);
                }
            }),
            KeySpec::Counted(count_at, first, step) => {
                let count = number(request.arg(count_at)).min(request.len());
                for key in request.args_from(first).step_by(step.max(1)).take(count) {
                    f(key);
                }
            }
            KeySpec::After(word, from, last, step) => {
                if let Some(at) = position(request, word, from) {
                    let last = if last < 0 {
                        last
                    } else {
                        last.saturating_add_unsigned(at + 1)
                    };
                    range(request, at + 1, last, step, &mut f);
                }
            }
            KeySpec::Streams(word, from) => {
                if let Some(at) = position(request, word, from.cast_signed()) {
                    let rest = request.args_from(at + 1);
                    for key in rest.clone().take(rest.len() / 2) {
                        f(key);
                    }
                }
            }
            KeySpec::Unknown => {}
        }
    }
    if spec.id == Name::Sort
        && let Some(destination) = sort_destination(request)
    {
        f(destination);
    }
}

/// Where a SORT is told to store its result. Patterns behind BY and GET are not taken for the keyword.
#[must_use]
pub fn sort_destination<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    let mut at = 2;
    let mut destination = None;
    while let Some(word) = request.get(at) {
        at += if word.eq_ignore_ascii_case(b"LIMIT") {
            3
        } else if word.eq_ignore_ascii_case(b"GET") || word.eq_ignore_ascii_case(b"BY") {
            2
        } else if word.eq_ignore_ascii_case(b"STORE") {
            destination = request.get(at + 1).or(destination);
            2
        } else {
            1
        };
    }
    destination
}

pub(super) fn range<'a>(request: &Request<'a>, first: usize, last: isize, step: usize, mut f: impl FnMut(&'a [u8])) {
    let last = if last < 0 {
        request.len().checked_add_signed(last)
    } else {
        Some(last.unsigned_abs())
    };
    let Some(count) = last.and_then(|last| (last + 1).checked_sub(first)) else {
        return;
    };
    for key in request.args_from(first).take(count).step_by(step.max(1)) {
        f(key);
    }
}

/// Where a keyword with something behind it stands, searched as Redis does.
fn position(request: &Request<'_>, word: &str, from: isize) -> Option<usize> {
    let is_word = |at: &usize| request.arg(*at).eq_ignore_ascii_case(word.as_bytes());
    let end = request.len().saturating_sub(1);
    if from < 0 {
        let start = request.len().checked_add_signed(from)?;
        (1..=start).rev().find(is_word)
    } else {
        (from.unsigned_abs()..end).find(is_word)
    }
}

/// A number of keys; what is none counts as 0.
fn number(digits: &[u8]) -> usize {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{TABLE, lookup};
    use crate::resp::request::OwnedRequest;
    use proptest::prelude::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let args: Vec<&str> = line
            .split(' ')
            .map(|word| if word == "\"\"" { "" } else { word })
            .collect();
        let owned = OwnedRequest::new(&args);
        let request = owned.as_request();
        let mut keys = Vec::new();
        for_each_key(lookup(&request).unwrap(), &request, |key| {
            keys.push(String::from_utf8_lossy(key).into_owned());
        });
        assert_eq!(keys, expected, "{line}");
    }

    #[test]
    fn keys_stand_where_redis_finds_them() {
        check("GET a", &["a"]);
        check("PING", &[]);
        check("MGET a b c", &["a", "b", "c"]);
        check("MSET a 1 b 2", &["a", "b"]);
        check("BLPOP a b 0", &["a", "b"]);
        check("BITOP AND d a b", &["d", "a", "b"]);
        check("LCS a b LEN", &["a", "b"]);
        check("PFMERGE d", &["d"]);
        check("PFMERGE d a b", &["d", "a", "b"]);
        check("OBJECT ENCODING a", &["a"]);
        check("ZUNIONSTORE d 2 a b WEIGHTS 1 2", &["d", "a", "b"]);
        check("EVAL return 2 a b c", &["a", "b"]);
        check("EVAL return 0 a", &[]);
        check("BLMPOP 0 2 a b LEFT", &["a", "b"]);
        check("MSETEX 2 a 1 b 2 EX 3", &["a", "b"]);
        check("XREAD COUNT 2 STREAMS a b 0 0", &["a", "b"]);
        check("XREADGROUP GROUP STREAMS c STREAMS a >", &["a"]);
        check("GEORADIUS a 1 2 3 km", &["a"]);
        check("GEORADIUS a 1 2 3 km COUNT 1 STORE d", &["a", "d"]);
        check("GEORADIUS a 1 2 3 km storedist d ASC", &["a", "d"]);
        check("GEORADIUSBYMEMBER a m 3 km STORE d", &["a", "d"]);
        check("MIGRATE h 1 a 0 5", &["a"]);
        check("MIGRATE h 1 \"\" 0 5 COPY KEYS a b", &["a", "b"]);
        check("MIGRATE h 1 \"\" 0 5 KEYS a", &["a"]);
        check("SORT a", &["a"]);
        check("SORT a BY w GET STORE LIMIT 0 1 STORE d", &["a", "d"]);
    }

    #[test]
    fn malformed_requests_yield_fewer_keys() {
        check("GET", &[]);
        check("BLPOP a", &[]);
        check("EVAL return x a", &[]);
        check("EVAL return -1 a", &[]);
        check("EVAL return 9 a", &["a"]);
        check("EVAL return 99999999999999999999 a", &[]);
        check("XREAD STREAMS", &[]);
        check("XREAD STREAMS a", &[]);
        check("XREAD COUNT 1", &[]);
        check("MIGRATE h", &[]);
        check("GEORADIUS a 1 2 3 km STORE", &["a"]);
        check("SORT a STORE", &["a"]);
    }

    proptest! {
        #[test]
        fn no_request_panics(row in 0..TABLE.len(), args in prop::collection::vec("STORE|KEYS|STREAMS|GET|LIMIT|-?[0-9]{1,20}|[a-z]{0,3}", 0..9)) {
            let mut words: Vec<&str> = TABLE[row].name.split(' ').collect();
            words.extend(args.iter().map(String::as_str));
            let owned = OwnedRequest::new(&words);
            let request = owned.as_request();
            let mut count = 0;
            for_each_key(&TABLE[row], &request, |_| count += 1);
            prop_assert!(count <= 2 * request.len());
        }
    }
}
