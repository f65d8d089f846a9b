//! Refusals: `-UNAVAILABLE`, what was not done, and why. The word `may` never stands in them: nothing was sent anywhere.

use crate::resp::write;

/// Longest name of an unknown command that is repeated in a reply, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// `-UNAVAILABLE INCR was not applied: upstream "main" is down`, for writes. `name` holds no line break.
pub fn not_applied(out: &mut Vec<u8>, name: &str, upstream_name: &str) {
    write::error(
        out,
        &format!("UNAVAILABLE {name} was not applied: upstream \"{upstream_name}\" is down"),
    );
}

/// `-UNAVAILABLE SET was not applied: …`, for a whole-value write to a key that a read was told is not there. `name` holds no line break.
pub fn not_applied_unseen(out: &mut Vec<u8>, name: &str, upstream_name: &str) {
    write::error(
        out,
        &format!(
            "UNAVAILABLE {name} was not applied: upstream \"{upstream_name}\" is down, and what the key holds there was not seen"
        ),
    );
}

/// `-UNAVAILABLE EVAL_RO was not executed: upstream "main" is down`, for everything else. `name` holds no line break.
pub fn not_executed(out: &mut Vec<u8>, name: &str, upstream_name: &str) {
    write::error(
        out,
        &format!("UNAVAILABLE {name} was not executed: upstream \"{upstream_name}\" is down"),
    );
}

/// An unknown command's name as it can stand in a reply: upper case, bounded, anything unprintable as `?`.
pub(super) fn printable(name: &[u8]) -> String {
    name.iter()
        .take(NAME_BYTES_MAX)
        .map(|byte| {
            if byte.is_ascii_graphic() {
                byte.to_ascii_uppercase().into()
            } else {
                '?'
            }
        })
        .collect()
}
