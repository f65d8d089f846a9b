//! What is open on a connection behind a transaction, as far as answers tell: whether it may serve somebody else.

use super::link::{InFlight, Link, LinkKind, Slot};
use super::said::value_of;
use super::shared::Shared;
use crate::resp::reply::Kind;

/// What an EXEC that is refused (a script runs, a right is gone) leaves on its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusedExec {
    /// No transaction: Redis since 6.2 (its pull request 7390), and Valkey.
    Discards,
    /// Perhaps one that is still open.
    #[default]
    NotKnown,
}

impl RefusedExec {
    /// What INFO's section `server` says of it. A server of another kind has a version of its own there, beside that of the Redis it is like.
    pub(super) fn of(info: &str) -> Self {
        const OWN: [&str; 3] = ["redis_version", "valkey_version", "gcc_version"];
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        if fields.any(|(field, _)| field.ends_with("_version") && !OWN.contains(&field)) {
            return Self::NotKnown;
        }
        let version = value_of(info, "redis_version:", '\n').unwrap_or_default();
        let mut numbers = version.split('.').map_while(|number| number.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(6), Some(2_u32..)) | (Some(7_u32..), _) => Self::Discards,
            _ => Self::NotKnown,
        }
    }
}

/// Whether a dedicated connection is what its key says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Altered {
    #[default]
    No,
    /// A transaction may be open on it, or a key watched, without its session's knowledge: until the next one has ended.
    Perhaps,
    /// It may be something else by now, or carry state of its session.
    Yes,
}

/// What an answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// MULTI, WATCH, DISCARD or UNWATCH may be what was refused: only Redis knows what is open.
    Refused,
    /// Neither a transaction nor a watched key is left.
    Ended,
    /// EXEC was refused, and its transaction may still be open.
    LeftOpen,
}

impl Told {
    /// By the answer to `request`, which is of `class`, behind one of class `before`. Pure.
    fn by(before: InFlight, class: InFlight, request: &[u8], reply: &[u8], kind: Kind) -> Self {
        let is_error = kind == Kind::Error;
        match (before, class) {
            (_, InFlight::Queued) if is_error => Self::Refused,
            (_, InFlight::Queued) if request.eq_ignore_ascii_case(b"*1\r\n$7\r\nDISCARD\r\n") => Self::Ended,
            (InFlight::Queued, InFlight::Write) if is_error && is_exec(request) && leaves_open(reply) => Self::LeftOpen,
            (InFlight::Queued, InFlight::Write)
                if request.eq_ignore_ascii_case(b"*1\r\n$4\r\nEXEC\r\n") && !is_without_multi(reply) =>
            {
                Self::Ended
            }
            (_, _) => Self::Nothing,
        }
    }
}

impl Altered {
    fn after(self, told: Told) -> Self {
        match (self, told) {
            (Self::Yes, _) => Self::Yes,
            (_, Told::Refused | Told::LeftOpen) => Self::Perhaps,
            (_, Told::Ended) => Self::No,
            (_, Told::Nothing) => self,
        }
    }
}

/// Whatever stands behind the name; what is sent inline may be one.
fn is_exec(request: &[u8]) -> bool {
    const NAME: &[u8] = b"$4\r\nEXEC\r\n";
    let Some(rest) = request.strip_prefix(b"*") else {
        return true;
    };
    let count_len = rest.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let args = rest.get(count_len..).unwrap_or_default();
    args.get(..NAME.len())
        .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

/// Watched keys stay watched.
fn is_without_multi(error: &[u8]) -> bool {
    error.starts_with(b"-ERR EXEC without MULTI")
}

/// Whether behind this error, which answers the EXEC of a transaction, that may still be open. A node of a cluster discards one that it sends elsewhere
/// (Redis's `processCommand`), and says nothing of that.
fn leaves_open(error: &[u8]) -> bool {
    const DISCARDED: [&[u8]; 7] = [
        b"-EXECABORT ",
        b"-MOVED ",
        b"-ASK ",
        b"-CROSSSLOT ",
        b"-TRYAGAIN ",
        b"-CLUSTERDOWN ",
        b"-REDIRECT ",
    ];
    !is_without_multi(error) && !DISCARDED.iter().any(|start| error.starts_with(start))
}

impl Link {
    /// Takes note of what the answer to `slot` tells, behind one of class `before`. Whether it is a lane that must end: nobody else is to be answered
    /// from inside a transaction. On a dedicated connection its own session may go on.
    #[inline]
    pub(super) fn is_left_open(&self, before: InFlight, slot: &Slot, reply: &[u8], kind: Kind) -> bool {
        if before != InFlight::Queued && slot.class != InFlight::Queued {
            return false;
        }
        let told = Told::by(before, slot.class, self.out.borrow().request(slot), reply, kind);
        match self.kind {
            LinkKind::Lane => told == Told::LeftOpen,
            LinkKind::Dedicated => {
                self.altered.set(self.altered.get().after(told));
                false
            }
        }
    }

    /// Whether this reply, which answers a SUBSCRIBE or nothing at all, says that a transaction is open which the session takes for ended: DISCARD or
    /// EXEC was refused. The session would wait for a confirmation that does not come.
    pub(super) fn is_found_in_transaction(&self, reply: &[u8]) -> bool {
        reply == b"+QUEUED\r\n" && self.kind == LinkKind::Dedicated && self.slots.borrow().is_empty()
    }

    /// Something was said on it that makes it of no use to anybody but its session.
    pub fn alter(&self) {
        self.altered.set(Altered::Yes);
    }
}

/// An EXEC was refused on a lane, which ends for that: what stands behind it is judged as lost.
#[cold]
pub(super) fn exec_left_open(shared: &Shared) {
    shared.learned.doubt_exec();
    tracing::warn!(
        upstream = shared.target.name,
        "EXEC was refused, and its transaction may still be open: the connection ends"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_servers_known_to_discard_a_refused_transaction_it_is_said() {
        for (info, expected) in [
            (
                "# Server\r\nredis_version:7.0.15\r\ngcc_version:12.2.0\r\n",
                RefusedExec::Discards,
            ),
            ("redis_version:6.2.0\r\n", RefusedExec::Discards),
            (
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n",
                RefusedExec::Discards,
            ),
            ("redis_version:255.255.255\r\n", RefusedExec::Discards),
            ("redis_version:6.0.20\r\n", RefusedExec::NotKnown),
            (
                "redis_version:7.4.0\r\ndragonfly_version:df-v1.30\r\n",
                RefusedExec::NotKnown,
            ),
            ("garnet_version:1.0\r\nredis_version:7.4.3\r\n", RefusedExec::NotKnown),
            ("redis_version:unstable\r\n", RefusedExec::NotKnown),
            ("", RefusedExec::NotKnown),
        ] {
            assert_eq!(RefusedExec::of(info), expected, "{info}");
        }
    }

    #[test]
    fn a_connection_is_itself_again_when_a_transaction_has_ended_on_it() {
        use InFlight::{Queued, Write};
        let exec = "*1\r\n$4\r\nexec\r\n";
        let discard = "*1\r\n$7\r\nDISCARD\r\n";
        let other = "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
        for (before, class, request, reply, expected) in [
            (Queued, Queued, other, "-OOM command not allowed\r\n", Told::Refused),
            (Queued, Queued, other, "+QUEUED\r\n", Told::Nothing),
            (Write, Queued, "*1\r\n$5\r\nMULTI\r\n", "+OK\r\n", Told::Nothing),
            (Queued, Queued, discard, "+OK\r\n", Told::Ended),
            (Queued, Queued, discard, "-ERR DISCARD without MULTI\r\n", Told::Refused),
            (Queued, Write, exec, "*1\r\n:1\r\n", Told::Ended),
            (Queued, Write, exec, "$-1\r\n", Told::Ended),
            (Queued, Write, exec, "-EXECABORT Transaction discarded\r\n", Told::Ended),
            (Queued, Write, exec, "-CROSSSLOT Keys in request\r\n", Told::Ended),
            (Queued, Write, exec, "-MOVED 3999 127.0.0.1:6381\r\n", Told::Ended),
            (Queued, Write, exec, "-ERR EXEC without MULTI\r\n", Told::Nothing),
            (Queued, Write, exec, "-ERR unknown command 'exec'\r\n", Told::LeftOpen),
            (Queued, Write, exec, "-BUSY Redis is busy\r\n", Told::LeftOpen),
            (Queued, Write, "EXEC\r\n", "*0\r\n", Told::Nothing),
            (Queued, Write, other, ":1\r\n", Told::Nothing),
            (Queued, Write, other, "-WRONGTYPE Operation\r\n", Told::Nothing),
            (
                Queued,
                Write,
                "*2\r\n$4\r\nExec\r\n$1\r\nn\r\n",
                "-ERR wrong number\r\n",
                Told::LeftOpen,
            ),
            (Queued, Write, "EXEC n\r\n", "-ERR wrong number\r\n", Told::LeftOpen),
            (Write, Write, exec, "*0\r\n", Told::Nothing),
        ] {
            let kind = if reply.starts_with('-') {
                Kind::Error
            } else {
                Kind::Value
            };
            let told = Told::by(before, class, request.as_bytes(), reply.as_bytes(), kind);
            assert_eq!(told, expected, "{request:?} {reply:?}");
        }
        for (altered, told, expected) in [
            (Altered::No, Told::Refused, Altered::Perhaps),
            (Altered::No, Told::LeftOpen, Altered::Perhaps),
            (Altered::Perhaps, Told::Nothing, Altered::Perhaps),
            (Altered::Perhaps, Told::Ended, Altered::No),
            (Altered::Yes, Told::Ended, Altered::Yes),
            (Altered::Yes, Told::Refused, Altered::Yes),
        ] {
            assert_eq!(altered.after(told), expected, "{altered:?} {told:?}");
        }
    }
}
