//! What Redis refuses before it looks at who calls and with what: names that it does not know, wrong numbers of arguments.

use super::{Name, Spec, arity_ok, is_container};
use crate::resp::Request;

/// Bytes of a name, and of all arguments together, that an error repeats.
const REPEATED_BYTES_MAX: usize = 128;

/// The error line that Redis answers, nothing where the request is well formed so far. `spec` is its row: what the table does not have counts as
/// unknown.
#[must_use]
pub fn refused(spec: Option<&Spec>, request: &Request<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match spec {
        None => unknown_command(request, &mut out),
        Some(spec) if is_container(spec.id) && request.len() > 1 => {
            out.extend_from_slice(b"ERR unknown subcommand '");
            out.extend_from_slice(text(request.arg(1), REPEATED_BYTES_MAX));
            out.extend_from_slice(format!("'. Try {} HELP.", spec.name).as_bytes());
        }
        Some(spec) if !arity_ok(spec, request) => {
            out.extend_from_slice(wrong_arity(refusal_code(spec.id), spec.name).as_bytes());
        }
        Some(_) => return None,
    }
    for byte in &mut out {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    Some([b"-", out.as_slice(), b"\r\n"].concat())
}

/// What the error of a refused request begins with: an EXEC says that it ended the transaction.
#[must_use]
pub fn refusal_code(id: Name) -> &'static str {
    match id {
        Name::Exec => "EXECABORT Transaction discarded because of:",
        _ => "ERR",
    }
}

/// `ERR wrong number of arguments for 'client|kill' command`; for `name` see [`name_in_errors`].
#[must_use]
pub fn wrong_arity(code: &str, name: &str) -> String {
    let name = name_in_errors(name);
    format!("{code} wrong number of arguments for '{name}' command")
}

/// `client|kill`, from a name in upper case, words separated by a space.
#[must_use]
pub fn name_in_errors(name: &str) -> String {
    name.to_ascii_lowercase().replace(' ', "|")
}

fn unknown_command(request: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"ERR unknown command '");
    out.extend_from_slice(text(request.arg(0), REPEATED_BYTES_MAX));
    out.extend_from_slice(b"', with args beginning with: ");
    let start = out.len();
    for arg in request.args_from(1) {
        let Some(left) = REPEATED_BYTES_MAX
            .checked_sub(out.len() - start)
            .filter(|left| *left > 0)
        else {
            break;
        };
        out.push(b'\'');
        out.extend_from_slice(text(arg, left));
        out.extend_from_slice(b"' ");
    }
}

/// As C prints it: to the first NUL, at most `bytes_max`.
fn text(arg: &[u8], bytes_max: usize) -> &[u8] {
    let end = arg.iter().position(|byte| *byte == 0).unwrap_or(arg.len());
    arg.get(..end.min(bytes_max)).unwrap_or_default()
}
