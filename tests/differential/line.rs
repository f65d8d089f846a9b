//! One request of the data files, in its two written forms.

use tideover::command::{Spec, lookup};
use tideover::resp::Request;
use tideover::resp::request::OwnedRequest;
use tideover::resp::scan::{Limits, Scan, Scanner};

use crate::support;

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) args: Vec<Vec<u8>>,
    /// As typed into a terminal, without the line end.
    pub(crate) inline: Vec<u8>,
}

impl Line {
    /// Written as Redis reads an inline request: blanks, quotes, `\x00`.
    #[track_caller]
    pub(crate) fn typed(text: &str) -> Self {
        let bytes = format!("{text}\r\n").into_bytes();
        let mut scanner = Scanner::default();
        let Ok(Scan::Inline { .. }) = scanner.scan(&bytes, &Limits::default()) else {
            panic!("not an inline request: {text}");
        };
        let request = Request::new(scanner.inline(), scanner.spans());
        Self {
            args: request.args_from(0).map(<[u8]>::to_vec).collect(),
            inline: text.as_bytes().to_vec(),
        }
    }

    /// Its inline form has every word in quotes.
    pub(crate) fn of<A: AsRef<[u8]>>(args: &[A]) -> Self {
        let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_ref().to_vec()).collect();
        let quoted: Vec<Vec<u8>> = args.iter().map(|arg| quoted(arg)).collect();
        Self {
            inline: quoted.join(&b' '),
            args,
        }
    }

    /// In RESP.
    pub(crate) fn framed(&self) -> Vec<u8> {
        support::command(&self.args)
    }

    pub(crate) fn spec(&self) -> Option<&'static Spec> {
        lookup(&OwnedRequest::new(&self.args).as_request())
    }
}

fn quoted(arg: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for byte in arg {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out.push(b'"');
    out
}
