//! What an error reply means: for the breaker, for the client it would go to, and for a record that is replayed.
//!
//! Error replies count by what they mean, not by being errors: WRONGTYPE is the answer of a healthy server. Prefixes as in
//! Redis 7 and Valkey 8 (server.c, `createSharedObjects` and `processCommand`).

use super::reason::{Failure, HardSign};

/// Why the server, as a whole, did not execute a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unavailable {
    Loading,
    /// Of a master that became a replica, or of an upstream that was one from the start.
    Readonly,
    Masterdown,
    Clusterdown,
    /// A blocked command woken because its master became a replica.
    Unblocked,
}

/// Why a server that is otherwise well did not execute a command now, though it may later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transient {
    Busy,
    Oom,
    Misconf,
    Noreplicas,
    Tryagain,
    MaxClients,
}

/// An error reply by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Not executed, and nothing else would be either.
    NotExecuted(Unavailable),
    /// Not executed; the same command may succeed later.
    Transient(Transient),
    /// NOAUTH or WRONGPASS: who asks is not known.
    Identity,
    /// DENIED: protected mode.
    ProtectedMode,
    /// NOPERM: who asks may not do this.
    Permission,
    /// MOVED, ASK or REDIRECT: another server has it.
    Redirected,
    /// BUSYGROUP: what was asked for is there already.
    AlreadyThere,
    /// XADD with an ID that is not above the stream's last.
    XaddIdTooSmall,
    /// EXECABORT after an error at queueing time: nothing of the transaction was executed. That error's class decides, not this one.
    Discarded,
    /// `ERR Protocol error`: we sent what is not RESP, or the two sides are out of step.
    Protocol,
    /// Any other: the command itself is at fault.
    Application,
}

/// Whether the upstream was a master when first reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamRole {
    Master,
    Replica,
}

/// What a reply tells the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerEffect {
    Success,
    Failure(Failure),
    Hard(HardSign),
}

/// What the client gets that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientEffect {
    PassOn,
    /// The reply is not passed on: the command was not executed and is answered as when down.
    AnswerAsDown,
}

/// What becomes of a record that drew this reply at replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayEffect {
    /// Stop, reopen the breaker, and try the same record again after its backoff.
    Retry,
    /// Redis answers but does not take the record now: wait and try it again, without an outage of our own making.
    Stall,
    /// This record will never succeed: keep it aside and go on.
    DeadLetter,
    /// No record of this identity can succeed until a person or a client changes something: wait and say so.
    Halt,
    /// What the record wanted is so already.
    Done,
}

impl ErrorClass {
    /// Classifies the text of an error reply, from its code on (`WRONGTYPE Operation against …`), with or without its line end.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        const BECAUSE: &[u8] = b"EXECABORT Transaction discarded because of: ";
        match text.strip_prefix(BECAUSE) {
            Some(cause) => Self::of_cause(cause),
            None => Self::of_cause(text),
        }
    }

    fn of_cause(text: &[u8]) -> Self {
        let code_len = text
            .iter()
            .position(|byte| b" \r\n".contains(byte))
            .unwrap_or(text.len());
        let (code, rest) = text.split_at(code_len);
        match code {
            b"LOADING" => Self::NotExecuted(Unavailable::Loading),
            b"READONLY" => Self::NotExecuted(Unavailable::Readonly),
            b"MASTERDOWN" => Self::NotExecuted(Unavailable::Masterdown),
            b"CLUSTERDOWN" => Self::NotExecuted(Unavailable::Clusterdown),
            b"UNBLOCKED" if rest.starts_with(b" force unblock") => Self::NotExecuted(Unavailable::Unblocked),
            b"BUSY" => Self::Transient(Transient::Busy),
            b"OOM" => Self::Transient(Transient::Oom),
            b"MISCONF" => Self::Transient(Transient::Misconf),
            b"NOREPLICAS" => Self::Transient(Transient::Noreplicas),
            b"TRYAGAIN" => Self::Transient(Transient::Tryagain),
            b"NOAUTH" | b"WRONGPASS" => Self::Identity,
            b"DENIED" => Self::ProtectedMode,
            b"NOPERM" => Self::Permission,
            b"MOVED" | b"ASK" | b"REDIRECT" => Self::Redirected,
            b"BUSYGROUP" => Self::AlreadyThere,
            b"EXECABORT" => Self::Discarded,
            b"ERR" if rest.starts_with(b" max number of clients") => Self::Transient(Transient::MaxClients),
            b"ERR" if rest.starts_with(b" Protocol error") => Self::Protocol,
            b"ERR" if rest.starts_with(b" The ID specified in XADD is equal or smaller") => Self::XaddIdTooSmall,
            _ => Self::Application,
        }
    }

    #[must_use]
    pub fn breaker_effect(self, role: UpstreamRole) -> BreakerEffect {
        match self {
            Self::NotExecuted(Unavailable::Loading) => BreakerEffect::Hard(HardSign::Loading),
            Self::NotExecuted(Unavailable::Masterdown) => BreakerEffect::Hard(HardSign::Masterdown),
            Self::NotExecuted(Unavailable::Clusterdown) => BreakerEffect::Hard(HardSign::Clusterdown),
            Self::NotExecuted(Unavailable::Readonly | Unavailable::Unblocked) => match role {
                UpstreamRole::Master => BreakerEffect::Hard(HardSign::Demoted),
                UpstreamRole::Replica => BreakerEffect::Success,
            },
            Self::Transient(Transient::Busy) => BreakerEffect::Failure(Failure::Busy),
            Self::Transient(Transient::MaxClients) => BreakerEffect::Failure(Failure::MaxClients),
            // A full disk or memory hides behind a queue until it is too late: reads go on, writes are told.
            Self::Transient(Transient::Oom | Transient::Misconf | Transient::Noreplicas | Transient::Tryagain) => {
                BreakerEffect::Success
            }
            Self::ProtectedMode => BreakerEffect::Failure(Failure::Denied),
            Self::Protocol => BreakerEffect::Failure(Failure::Protocol),
            Self::Identity
            | Self::Permission
            | Self::Redirected
            | Self::AlreadyThere
            | Self::XaddIdTooSmall
            | Self::Discarded
            | Self::Application => BreakerEffect::Success,
        }
    }

    #[must_use]
    pub fn client_effect(self, role: UpstreamRole) -> ClientEffect {
        match self {
            Self::NotExecuted(Unavailable::Loading | Unavailable::Masterdown | Unavailable::Clusterdown) => {
                ClientEffect::AnswerAsDown
            }
            Self::NotExecuted(Unavailable::Readonly | Unavailable::Unblocked) => match role {
                UpstreamRole::Master => ClientEffect::AnswerAsDown,
                UpstreamRole::Replica => ClientEffect::PassOn,
            },
            Self::Transient(_)
            | Self::Identity
            | Self::ProtectedMode
            | Self::Permission
            | Self::Redirected
            | Self::AlreadyThere
            | Self::XaddIdTooSmall
            | Self::Discarded
            | Self::Protocol
            | Self::Application => ClientEffect::PassOn,
        }
    }

    #[must_use]
    pub fn replay_effect(self) -> ReplayEffect {
        match self {
            // After a protocol error the connection is gone; the marker says how far it got.
            Self::NotExecuted(_)
            | Self::Transient(Transient::Busy | Transient::MaxClients)
            | Self::Redirected
            | Self::Protocol => ReplayEffect::Retry,
            Self::Transient(Transient::Oom | Transient::Misconf | Transient::Noreplicas | Transient::Tryagain)
            | Self::Discarded => ReplayEffect::Stall,
            Self::Identity | Self::ProtectedMode => ReplayEffect::Halt,
            Self::AlreadyThere => ReplayEffect::Done,
            Self::Permission | Self::XaddIdTooSmall | Self::Application => ReplayEffect::DeadLetter,
        }
    }
}

/// Whether an error that means "not executed" is worded as by Redis and Valkey. A script may return any text, after it has written.
#[must_use]
pub fn is_said_by_servers(text: &[u8]) -> bool {
    const LOADING: &[u8] = b" is loading the dataset in memory";
    const BEGINNINGS: [&[u8]; 5] = [
        b"READONLY You can't write against a read only replica",
        b"READONLY Can not run script with write flag on readonly replica",
        b"MASTERDOWN Link with MASTER is down",
        b"CLUSTERDOWN The cluster is down",
        b"CLUSTERDOWN Hash slot not served",
    ];
    let is_loading = text.starts_with(b"LOADING ") && text.windows(LOADING.len()).any(|part| part == LOADING);
    is_loading || BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `breaker client replay`, for an upstream that was a master when first reached.
    fn check(text: &str, expected: &str) {
        let class = ErrorClass::of(text.as_bytes());
        let breaker = match class.breaker_effect(UpstreamRole::Master) {
            BreakerEffect::Success => "ok",
            BreakerEffect::Failure(failure) => failure.label(),
            BreakerEffect::Hard(sign) => &format!("!{}", sign.label()),
        };
        let client = match class.client_effect(UpstreamRole::Master) {
            ClientEffect::PassOn => "pass",
            ClientEffect::AnswerAsDown => "as_down",
        };
        let replay = match class.replay_effect() {
            ReplayEffect::Retry => "retry",
            ReplayEffect::Stall => "stall",
            ReplayEffect::DeadLetter => "dead",
            ReplayEffect::Halt => "halt",
            ReplayEffect::Done => "done",
        };
        assert_eq!(format!("{breaker} {client} {replay}"), expected, "{text}");
    }

    fn check_all(table: &[(&str, &str)]) {
        for (text, expected) in table {
            check(text, expected);
            check(&format!("{text}\r\n"), expected);
        }
    }

    #[test]
    fn replies_of_a_server_that_cannot_execute_now() {
        check_all(&[
            (
                "LOADING Redis is loading the dataset in memory",
                "!loading as_down retry",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "!demoted as_down retry",
            ),
            (
                "READONLY Can not run script with write flag on readonly replica",
                "!demoted as_down retry",
            ),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                "!masterdown as_down retry",
            ),
            ("CLUSTERDOWN The cluster is down", "!clusterdown as_down retry"),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                "!demoted as_down retry",
            ),
            ("UNBLOCKED client unblocked via CLIENT UNBLOCK", "ok pass dead"),
            (
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                "busy pass retry",
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "ok pass stall",
            ),
            (
                "MISCONF Errors writing to the AOF file: No space left on device",
                "ok pass stall",
            ),
            ("NOREPLICAS Not enough good replicas to write.", "ok pass stall"),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                "ok pass stall",
            ),
            ("ERR max number of clients reached", "max_clients pass retry"),
            (
                "ERR max number of clients + cluster connections reached",
                "max_clients pass retry",
            ),
            ("DENIED Redis is running in protected mode because", "denied pass halt"),
        ]);
    }

    #[test]
    fn replies_about_who_asks_or_what_was_asked() {
        check_all(&[
            ("NOAUTH Authentication required.", "ok pass halt"),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                "ok pass halt",
            ),
            (
                "NOPERM this user has no permissions to run the 'set' command",
                "ok pass dead",
            ),
            ("MOVED 1 127.0.0.1:7001", "ok pass retry"),
            ("ASK 1 127.0.0.1:7001", "ok pass retry"),
            ("BUSYGROUP Consumer Group name already exists", "ok pass done"),
            ("BUSYKEY Target key name already exists.", "ok pass dead"),
            (
                "ERR The ID specified in XADD is equal or smaller than the target stream top item",
                "ok pass dead",
            ),
            ("ERR Protocol error: invalid multibulk length", "protocol pass retry"),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                "ok pass dead",
            ),
            ("ERR value is not an integer or out of range", "ok pass dead"),
            ("NOSCRIPT No matching script. Please use EVAL.", "ok pass dead"),
            ("CROSSSLOT Keys in request don't hash to the same slot", "ok pass dead"),
            ("LOADINGX not ours", "ok pass dead"),
            ("", "ok pass dead"),
        ]);
    }

    #[test]
    fn a_script_is_believed_in_the_words_of_a_server_only() {
        for text in [
            "LOADING Redis is loading the dataset in memory",
            "LOADING Valkey is loading the dataset in memory",
            "READONLY You can't write against a read only replica. script: 5c6, on @user_script:1.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        ] {
            assert!(is_said_by_servers(text.as_bytes()), "{text}");
        }
        for text in ["LOADING my cache", "READONLY account", "CLUSTERDOWN", "ERR other"] {
            assert!(!is_said_by_servers(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn an_aborted_transaction_is_what_aborted_it() {
        let because = "EXECABORT Transaction discarded because of: ";
        check(&format!("{because}LOADING Redis is loading"), "!loading as_down retry");
        check(&format!("{because}READONLY You can't write"), "!demoted as_down retry");
        check(&format!("{because}OOM command not allowed"), "ok pass stall");
        check(&format!("{because}{because}LOADING x"), "ok pass stall");
        check(
            "EXECABORT Transaction discarded because of previous errors.",
            "ok pass stall",
        );
    }

    #[test]
    fn an_upstream_that_always_was_a_replica_is_healthy_as_one() {
        let class = ErrorClass::of(b"READONLY You can't write against a read only replica.");
        assert_eq!(class.breaker_effect(UpstreamRole::Replica), BreakerEffect::Success);
        assert_eq!(class.client_effect(UpstreamRole::Replica), ClientEffect::PassOn);
        let class = ErrorClass::of(b"LOADING Redis is loading the dataset in memory");
        assert_eq!(
            class.breaker_effect(UpstreamRole::Replica),
            BreakerEffect::Hard(HardSign::Loading)
        );
    }
}
