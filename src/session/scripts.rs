//! Scripts that a session gives to the upstream: noted when they are sent, kept when it has taken them.

use std::time::Instant;

use super::Session;
use super::route::Ask;
use super::task::Task;
use crate::command::Name;

/// Of one session, in flight; more are not noted.
const NOTED_MAX: usize = 512;

/// A request whose reply says whether the upstream has a script now.
#[derive(Debug)]
pub(super) struct Noted {
    seq: u64,
    change: ScriptChange,
}

#[derive(Debug)]
enum ScriptChange {
    Text(Vec<u8>),
    Flush,
}

impl Task {
    pub(super) fn note_script(&self, ask: &Ask<'_>, seq: u64) {
        let request = &ask.request;
        let text = match ask.name() {
            Some(Name::Eval | Name::EvalRo) => Some(request.arg(1)),
            Some(Name::ScriptLoad) => Some(request.arg(2)),
            Some(Name::ScriptFlush) => None,
            Some(_) | None => return,
        };
        let scripts = &self.session.local.shared.scripts;
        match text {
            Some(text) if scripts.has(text, Instant::now()) => return,
            Some(_) => {}
            None => scripts.flush_sent(Instant::now()),
        }
        let mut noted = self.session.scripts_noted.borrow_mut();
        // One that came back is sent again.
        noted.retain(|noted| noted.seq != seq);
        if noted.len() < NOTED_MAX {
            let change = text.map_or(ScriptChange::Flush, |text| ScriptChange::Text(text.to_vec()));
            noted.push(Noted { seq, change });
        }
    }
}

impl Session {
    /// The reply to a request, or its first piece.
    #[inline]
    pub(super) fn note_reply(&self, seq: u64, reply: &[u8]) {
        if !self.scripts_noted.borrow().is_empty() {
            self.script_answered(seq, reply);
        }
    }

    #[cold]
    fn script_answered(&self, seq: u64, reply: &[u8]) {
        let mut noted = self.scripts_noted.borrow_mut();
        let Some(at) = noted.iter().position(|noted| noted.seq == seq) else {
            // Those that were lost have no reply.
            if self.in_flight.get() <= 1 {
                noted.clear();
            }
            return;
        };
        let scripts = &self.local.shared.scripts;
        match noted.swap_remove(at).change {
            ScriptChange::Text(text) if is_taken(reply) => scripts.keep(&text),
            ScriptChange::Flush if reply == b"+OK\r\n" => scripts.forget(),
            ScriptChange::Text(_) | ScriptChange::Flush => {}
        }
    }
}

/// Whether the upstream has the script that it answered so: it may end with an error and be known all the same.
fn is_taken(reply: &[u8]) -> bool {
    const REFUSALS: [&[u8]; 7] = [
        b"-NOPERM",
        b"-NOAUTH",
        b"-ERR wrong number of arguments",
        b"-ERR Error compiling script",
        // Shebang options, flags and engines that it does not know.
        b"-ERR Un",
        b"-BUSY",
        // What a transaction is answered with that was refused.
        b"-EXECABORT",
    ];
    !REFUSALS.iter().any(|refusal| reply.starts_with(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_fails_is_known_and_one_that_is_refused_is_not() {
        for reply in [
            "+QUEUED\r\n",
            ":1\r\n",
            "$40\r\n",
            "-ERR user_script:1: no\r\n",
            "-WRONGTYPE of a key\r\n",
        ] {
            assert!(is_taken(reply.as_bytes()), "{reply}");
        }
        for reply in [
            "-NOPERM User bob has no permissions to run the 'eval' command\r\n",
            "-NOAUTH Authentication required.\r\n",
            "-ERR wrong number of arguments for 'eval' command\r\n",
            "-ERR Error compiling script (new function): user_script:1: '=' expected\r\n",
            "-ERR Unknown lua shebang option: a\r\n",
            "-BUSY Redis is busy running a script.\r\n",
        ] {
            assert!(!is_taken(reply.as_bytes()), "{reply}");
        }
    }
}
