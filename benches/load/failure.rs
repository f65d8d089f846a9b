//! What makes a run worthless.

use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{doing}: {source}")]
    Io { doing: &'static str, source: io::Error },
    #[error("the server closed a connection")]
    Closed,
    #[error("wrong reply: {got:?}, where {expected:?} was expected")]
    WrongReply { got: String, expected: String },
    #[error("{0} without an answer at the end")]
    Unanswered(usize),
    #[error("{0}")]
    Argument(String),
}

impl Failure {
    /// For `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            doing,
            source: source.into(),
        }
    }
}
