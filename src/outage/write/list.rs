//! List writes: they depend on the list they meet.

use super::parse::integer;
use super::refusal::ArgumentError;
use super::{Outcome, WriteContext, verbatim, verbatim_ok};
use crate::command::Spec;
use crate::outage::effect::EffectKind;
use crate::resp::Request;

/// `LPUSH|RPUSH key element [element …]`: acknowledged with the elements pushed, as onto an empty list.
pub(super) fn push<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    verbatim(EffectKind::Relative, request, request.len() - 2)
}

/// `LTRIM key start stop`
pub(super) fn trim<'a>(_: &'static Spec, request: &Request<'a>, _: &mut WriteContext<'_>) -> Outcome<'a> {
    for index in [2, 3] {
        integer(request.arg(index)).ok_or(ArgumentError::NotInteger)?;
    }
    verbatim_ok(EffectKind::Relative, request)
}
