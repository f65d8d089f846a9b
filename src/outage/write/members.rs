//! Counting arguments that name the same thing once.

use std::collections::HashSet;
use std::hash::Hash;

use super::{Outcome, WriteContext, verbatim};
use crate::command::Spec;
use crate::outage::effect::EffectKind;
use crate::resp::Request;

/// Up to here comparing is cheaper than hashing.
const COMPARED_MAX: usize = 8;

/// `SADD|SREM|HDEL|ZREM key member [member …]`
pub(super) fn distinct_members<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    verbatim(EffectKind::Absolute, request, distinct(request.args_from(2)))
}

pub(super) fn distinct<T: Eq + Hash>(items: impl ExactSizeIterator<Item = T> + Clone) -> usize {
    let len = items.len();
    if len > COMPARED_MAX {
        return items.collect::<HashSet<_>>().len();
    }
    let mut count = 0;
    let mut rest = items;
    while let Some(item) = rest.next() {
        if rest.clone().all(|later| later != item) {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_counted_alike() {
        for len in 0..40_u32 {
            for modulus in 1..12 {
                let items = (0..len).map(|n| n % modulus).collect::<Vec<_>>();
                assert_eq!(distinct(items.iter()), len.min(modulus) as usize, "{items:?}");
            }
        }
    }
}
