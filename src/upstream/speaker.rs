//! Who may have worded an error reply: the server, or somebody who can make it say anything.

/// Whose words an error may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    Server,
    /// `redis.error_reply`, or an error of a command that it called.
    Script,
    /// DEBUG, which answers also while Redis is loading: DEBUG ERROR says what it was told to say.
    Client,
}

/// Whose words an error in answer to `request` may be; of a streamed request nothing is kept.
pub(super) fn speaker(request: &[u8]) -> Speaker {
    const SCRIPTS: [&[u8]; 6] = [b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO", b"FCALL", b"FCALL_RO"];
    let name = request.split(|byte| *byte == b'\n').nth(2).unwrap_or_default();
    let name = name.strip_suffix(b"\r").unwrap_or(name);
    if name.eq_ignore_ascii_case(b"DEBUG") {
        Speaker::Client
    } else if request.is_empty() || SCRIPTS.iter().any(|script| name.eq_ignore_ascii_case(script)) {
        Speaker::Script
    } else {
        Speaker::Server
    }
}

#[cfg(test)]
mod tests {
    use super::super::dial::command;
    use super::*;

    #[test]
    fn scripts_and_debug_say_what_they_like() {
        let of = |args: &[&str]| speaker(&command(args));
        assert_eq!(of(&["GET", "EVAL"]), Speaker::Server);
        assert_eq!(of(&["evalsha", "x", "0"]), Speaker::Script);
        assert_eq!(of(&["FCALL_RO", "x", "0"]), Speaker::Script);
        assert_eq!(of(&["debug", "ERROR", "LOADING x"]), Speaker::Client);
        assert_eq!(speaker(b""), Speaker::Script);
    }
}
