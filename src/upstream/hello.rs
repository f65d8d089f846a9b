//! What the upstream's HELLO says, kept to be said again to clients, in the protocol that they speak.

use redis_protocol::resp3::types::{OwnedFrame, Resp3Frame};

use crate::resp::{Protocol, write};

/// The fields of HELLO's reply, in the upstream's order. Its shape: <https://redis.io/docs/latest/commands/hello/>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    fields: Vec<(String, OwnedFrame)>,
}

impl Hello {
    /// Of a reply in RESP2: one in RESP3 is a map, whose order is lost in decoding.
    pub(super) fn of(reply: &OwnedFrame) -> Self {
        let OwnedFrame::Array { data, .. } = reply else {
            return Self::default();
        };
        let fields = data
            .chunks_exact(2)
            .filter_map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].clone())));
        Self {
            fields: fields.collect(),
        }
    }

    /// The reply for a client; nothing where the upstream has not said it.
    #[must_use]
    pub fn reply(&self, protocol: Protocol, client_id: i64) -> Option<Vec<u8>> {
        if self.fields.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        write::map(&mut out, protocol, self.fields.len());
        for (name, said) in &self.fields {
            write::bulk(&mut out, name.as_bytes());
            match (name.as_str(), said) {
                ("proto", _) => write::integer(&mut out, i64::from(protocol.number())),
                ("id", _) => write::integer(&mut out, client_id),
                ("modules", OwnedFrame::Array { data, .. }) => {
                    write::array(&mut out, data.len());
                    for module in data {
                        pairs(&mut out, protocol, module);
                    }
                }
                (_, said) => value(&mut out, protocol, said),
            }
        }
        Some(out)
    }
}

/// An array of RESP2 that is a map in RESP3.
fn pairs(out: &mut Vec<u8>, protocol: Protocol, frame: &OwnedFrame) {
    let OwnedFrame::Array { data, .. } = frame else {
        return value(out, protocol, frame);
    };
    write::map(out, protocol, data.len() / 2);
    for part in data.chunks_exact(2).flatten() {
        value(out, protocol, part);
    }
}

fn value(out: &mut Vec<u8>, protocol: Protocol, frame: &OwnedFrame) {
    match frame {
        OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. } => write::bulk(out, data),
        OwnedFrame::Number { data, .. } => write::integer(out, *data),
        OwnedFrame::Array { data, .. } => {
            write::array(out, data.len());
            for part in data {
                value(out, protocol, part);
            }
        }
        _ => write::null(out, protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::dial;

    fn check(said: &str, protocol: Protocol, expected: &str) {
        let hello = Hello::of(&dial::value(said.as_bytes()).unwrap());
        let reply = hello.reply(protocol, 7).unwrap();
        assert_eq!(String::from_utf8(reply).unwrap(), expected);
    }

    #[test]
    fn a_hello_is_said_again_in_the_clients_protocol_with_its_id() {
        let head = "$6\r\nserver\r\n$6\r\nvalkey\r\n$5\r\nproto\r\n";
        let module = "$4\r\nname\r\n$2\r\nbf\r\n$3\r\nver\r\n:20\r\n$4\r\nargs\r\n*1\r\n$1\r\nx\r\n";
        let said = format!("*8\r\n{head}:2\r\n$2\r\nid\r\n:99\r\n$7\r\nmodules\r\n*1\r\n*6\r\n{module}");
        let rest = "$2\r\nid\r\n:7\r\n$7\r\nmodules\r\n*1\r\n";
        check(
            &said,
            Protocol::Resp2,
            &format!("*8\r\n{head}:2\r\n{rest}*6\r\n{module}"),
        );
        check(
            &said,
            Protocol::Resp3,
            &format!("%4\r\n{head}:3\r\n{rest}%3\r\n{module}"),
        );
    }

    #[test]
    fn what_was_not_said_is_not_said_again() {
        assert_eq!(Hello::default().reply(Protocol::Resp2, 1), None);
        let refused = dial::value(b"-NOPERM no\r\n").unwrap();
        assert_eq!(Hello::of(&refused).reply(Protocol::Resp3, 1), None);
    }
}
