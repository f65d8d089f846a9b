//! Neutral replies by family, with the errors that Redis gives for bad arguments, in its order of checks.

pub(super) mod bits;
pub(super) mod geo;
pub(super) mod keyspace;
pub(super) mod lists;
pub(super) mod parse;
pub(super) mod server;
pub(super) mod sets;
pub(super) mod streams;
pub(super) mod strings;
pub(super) mod zsets;

use std::borrow::Cow;

use crate::command::{self, Spec};
use crate::resp::{Protocol, Request, write};

pub(super) const SYNTAX: Fault = Fault::Redis(Cow::Borrowed("ERR syntax error"));
pub(super) const NOT_INTEGER: Fault = Fault::Redis(Cow::Borrowed("ERR value is not an integer or out of range"));

/// A request with what its answer depends on.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) spec: &'static Spec,
    pub(super) request: Request<'a>,
    pub(super) protocol: Protocol,
}

/// Why there is no neutral reply.
#[derive(Debug)]
pub(super) enum Fault {
    /// Redis itself refuses the arguments, with this text.
    Redis(Cow<'static, str>),
    /// A write that cannot be journaled.
    NotApplied,
    /// No answer would be true.
    NotExecuted,
}

impl Fault {
    pub(super) const fn redis(text: &'static str) -> Self {
        Self::Redis(Cow::Borrowed(text))
    }
}

impl<'a> Call<'a> {
    pub(super) fn arg(&self, index: usize) -> &'a [u8] {
        self.request.arg(index)
    }

    pub(super) fn len(&self) -> usize {
        self.request.len()
    }

    /// Whether an argument is a keyword, in any letter case.
    pub(super) fn is(&self, index: usize, word: &str) -> bool {
        self.arg(index).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Whether an argument is a keyword with at least `values` arguments behind it.
    pub(super) fn is_with(&self, index: usize, word: &str, values: usize) -> bool {
        self.is(index, word) && index + values < self.len()
    }

    /// `get|set` for a subcommand.
    pub(super) fn name_in_errors(&self) -> String {
        command::name_in_errors(self.spec.name)
    }
}

/// `-ERR wrong number of arguments for 'client|kill' command`; an EXEC says that it ended the transaction.
pub(super) fn wrong_arity(out: &mut Vec<u8>, spec: &Spec) {
    write::error(out, &command::wrong_arity(command::refusal_code(spec.id), spec.name));
}

/// The same of a command that the table does not have; its name in upper case, words separated by a space.
pub(super) fn wrong_arity_learned(out: &mut Vec<u8>, name: &str) {
    write::error(out, &command::wrong_arity("ERR", name));
}

/// `-ERR unknown subcommand 'FOO'. Try CLIENT HELP.`
pub(super) fn unknown_subcommand(call: &Call<'_>) -> Fault {
    let word = call.arg(1);
    let word = String::from_utf8_lossy(word.get(..128).unwrap_or(word)).replace(['\r', '\n'], " ");
    Fault::Redis(format!("ERR unknown subcommand '{word}'. Try {} HELP.", call.spec.name).into())
}
