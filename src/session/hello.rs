//! HELLO: the protocol, an AUTH and a name in one command.

use super::handshake::Judgement;
use super::route::Ask;
use super::state::Admission;
use super::task::{Routed, Task};
use crate::resp::scan::integer;
use crate::resp::{Protocol, Request, write};
use crate::upstream::dial::command;
use crate::upstream::link::LinkKey;
use crate::upstream::settings::{Credentials, Identity, Secret};
use crate::upstream::stats::Route;

/// What is said while nothing is known of the upstream yet.
pub(super) const ASSUMED_VERSION: &str = "7.0.0";
/// Of Redis 7.2 and later.
const HELLO_REFUSAL: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";

/// What HELLO asks for.
struct Hello {
    protocol: Protocol,
    credentials: Option<Credentials>,
    name: Option<Vec<u8>>,
    /// The first option that is wrong, as Redis's error. Before Redis 7.2, what stands before it takes effect, and is refused first.
    fault: Option<String>,
}

impl Task {
    pub(super) fn hello(&mut self, ask: &Ask<'_>) -> Routed {
        if !self.session.is_settled() {
            return Routed::Park;
        }
        let hello = match parse_hello(&ask.request, self.state.key.protocol) {
            Ok(hello) => hello,
            Err(error) => return self.answer(ask, format!("-{error}\r\n").as_bytes(), Route::Local),
        };
        if let Some(fault) = hello.fault.as_ref().filter(|_| !self.is_before_7_2()) {
            return self.answer(ask, format!("-{fault}\r\n").as_bytes(), Route::Local);
        }
        let owes = self.state.admission == Admission::Owed
            || self.session.local.shared.password_owed() && self.state.key.identity == Identity::Url;
        let judgement = match hello.credentials {
            // The protocol changes only where nothing is wrong.
            Some(credentials) if hello.fault.is_some() => self.authenticate(credentials, self.state.key.protocol),
            Some(credentials) => self.authenticate(credentials, hello.protocol),
            None if hello.fault.is_some() => Judgement::Accepted,
            None if owes => Judgement::Refused(
                self.session
                    .local
                    .shared
                    .facts()
                    .hello_refusal
                    .unwrap_or_else(|| HELLO_REFUSAL.into()),
            ),
            None => {
                let key = LinkKey {
                    protocol: hello.protocol,
                    ..self.state.key.clone()
                };
                let judgement = self.judge(&key);
                if matches!(judgement, Judgement::Accepted) {
                    self.become_key(key);
                }
                judgement
            }
        };
        match judgement {
            Judgement::Pending => Routed::Park,
            Judgement::Refused(text) => self.answer(ask, format!("-{text}\r\n").as_bytes(), Route::Local),
            Judgement::Accepted => {
                if let Some(name) = hello.name {
                    self.tell_own_connection(&command(&[b"CLIENT".as_slice(), b"SETNAME", &name]));
                    self.state.name = (!name.is_empty()).then_some(name);
                }
                if let Some(fault) = hello.fault {
                    return self.answer(ask, format!("-{fault}\r\n").as_bytes(), Route::Local);
                }
                let reply = self.hello_reply();
                self.answer(ask, &reply, Route::Local)
            }
        }
    }

    fn hello_reply(&self) -> Vec<u8> {
        let hello = self.session.local.shared.facts().hello;
        let protocol = self.state.key.protocol;
        let id = i64::try_from(self.session.id).unwrap_or(i64::MAX);
        hello.reply(protocol, id).unwrap_or_else(|| assumed_reply(protocol, id))
    }
}

/// For an upstream that has not been reached yet.
fn assumed_reply(protocol: Protocol, client_id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, protocol, 7);
    for (name, value) in [("server", "redis"), ("version", ASSUMED_VERSION)] {
        write::bulk(&mut out, name.as_bytes());
        write::bulk(&mut out, value.as_bytes());
    }
    write::bulk(&mut out, b"proto");
    write::integer(&mut out, i64::from(protocol.number()));
    write::bulk(&mut out, b"id");
    write::integer(&mut out, client_id);
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        write::bulk(&mut out, name.as_bytes());
        write::bulk(&mut out, value.as_bytes());
    }
    write::bulk(&mut out, b"modules");
    write::array(&mut out, 0);
    out
}

/// Errors are Redis's own, without `-`.
fn parse_hello(request: &Request<'_>, protocol: Protocol) -> Result<Hello, String> {
    let mut hello = Hello {
        protocol,
        credentials: None,
        name: None,
        fault: None,
    };
    if let Some(version) = request.get(1) {
        hello.protocol = match integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err("NOPROTO unsupported protocol version".into()),
            None => return Err("ERR Protocol version is not an integer or out of range".into()),
        };
    }
    let mut at = 2;
    while let Some(option) = request.get(at) {
        let left = request.len() - at - 1;
        if option.eq_ignore_ascii_case(b"AUTH") && left >= 2 {
            let (user, password) = (request.arg(at + 1), request.arg(at + 2));
            hello.credentials = Some(Credentials {
                user: Some(String::from_utf8_lossy(user).into_owned()),
                password: Secret::new(password),
            });
            at += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && left >= 1 {
            let name = request.arg(at + 1);
            if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
                hello.fault = Some("ERR Client names cannot contain spaces, newlines or special characters.".into());
                break;
            }
            hello.name = Some(name.to_vec());
            at += 2;
        } else {
            let option = String::from_utf8_lossy(option);
            hello.fault = Some(format!("ERR Syntax error in HELLO option '{option}'").replace(['\r', '\n'], " "));
            break;
        }
    }
    Ok(hello)
}
