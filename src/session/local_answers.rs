//! What a client asks about the server, or about itself, while the upstream is down: answered plausibly, as the upstream last said.

use super::hello::ASSUMED_VERSION;
use super::route::Ask;
use super::task::{Routed, Task};
use super::tracking::Tracking;
use crate::command::{Flags, KeySpec, Name, Spec, TABLE};
use crate::resp::{Request, write};
use crate::upstream::clock::wall_ms;
use crate::upstream::dial::Role;
use crate::upstream::stats::Route;

impl Task {
    /// Answers what needs no upstream, refuses the rest.
    pub(super) fn answer_locally(&mut self, ask: &Ask<'_>) -> Routed {
        if ask.name() == Some(Name::ClientTracking) {
            return self.track_down(ask);
        }
        match self.local_reply(ask.name(), &ask.request) {
            Some(reply) => self.answer(ask, &reply, Route::Local),
            None => self.refuse(ask),
        }
    }

    /// The reply to a command that needs no upstream.
    pub(super) fn local_reply(&self, name: Option<Name>, request: &Request<'_>) -> Option<Vec<u8>> {
        let protocol = self.state.key.protocol;
        let mut out = Vec::new();
        match name? {
            Name::Ping => match request.get(1) {
                None => write::simple(&mut out, "PONG"),
                Some(text) => write::bulk(&mut out, text),
            },
            Name::Echo => write::bulk(&mut out, request.arg(1)),
            Name::Time => time(&mut out),
            Name::Info => write::verbatim(&mut out, protocol, self.info().as_bytes()),
            Name::Role => {
                write::array(&mut out, 3);
                write::bulk(&mut out, b"master");
                write::integer(&mut out, 0);
                write::array(&mut out, 0);
            }
            Name::Readonly | Name::Readwrite | Name::Asking => cluster_disabled(&mut out),
            Name::ClientNoEvict | Name::ClientNoTouch | Name::ClientCapa => {
                write::simple(&mut out, "OK");
            }
            Name::ClientGetname => match &self.state.name {
                Some(name) => write::bulk(&mut out, name),
                None => write::null(&mut out, protocol),
            },
            Name::ClientId => write::integer(&mut out, i64::try_from(self.session.id).unwrap_or(i64::MAX)),
            Name::ClientGetredir => write::integer(&mut out, Tracking::redirect(self.state.tracking.as_ref())),
            Name::ClientCaching => Tracking::caching(self.state.tracking.as_ref(), request.arg(2), &mut out),
            Name::ClientTrackinginfo => Tracking::info(self.state.tracking.as_ref(), protocol, &mut out),
            Name::ClientInfo | Name::ClientList => write::verbatim(&mut out, protocol, self.client_line().as_bytes()),
            Name::AclWhoami => {
                let identity = &self.state.key.identity;
                let name = if identity.name().is_empty() {
                    "default"
                } else {
                    identity.name()
                };
                write::bulk(&mut out, name.as_bytes());
            }
            Name::ConfigGet => self.config_get(request, &mut out),
            Name::CommandCount => write::integer(&mut out, i64::try_from(commands().count()).unwrap_or(i64::MAX)),
            Name::Command => {
                write::array(&mut out, commands().count());
                commands().for_each(|spec| command_info(&mut out, spec));
            }
            Name::CommandList => {
                write::array(&mut out, commands().count());
                commands().for_each(|spec| write::bulk(&mut out, spec.name.to_ascii_lowercase().as_bytes()));
            }
            Name::CommandDocs => write::map(&mut out, protocol, 0),
            Name::CommandInfo => {
                let asked: Vec<&[u8]> = request.args_from(2).collect();
                write::array(&mut out, asked.len());
                for name in asked {
                    match commands().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name)) {
                        Some(spec) => command_info(&mut out, spec),
                        None => write::null_array(&mut out, protocol),
                    }
                }
            }
            Name::ClusterInfo
            | Name::ClusterKeyslot
            | Name::ClusterMyid
            | Name::ClusterMyshardid
            | Name::ClusterNodes
            | Name::ClusterShards
            | Name::ClusterSlots => cluster_disabled(&mut out),
            _ => return None,
        }
        Some(out)
    }

    /// As much of INFO as client libraries look at when they connect.
    fn info(&self) -> String {
        let shared = &self.session.local.shared;
        let facts = shared.facts();
        let versions = match (facts.versions.lines(), facts.version.as_str()) {
            ("", "") => format!("redis_version:{ASSUMED_VERSION}\r\n"),
            ("", version) => format!("redis_version:{version}\r\n"),
            (lines, _) => lines.to_owned(),
        };
        let mode = if facts.mode.is_empty() {
            "standalone"
        } else {
            &facts.mode
        };
        let role = if facts.role == Role::Replica { "slave" } else { "master" };
        format!(
            "# Server\r\n{versions}redis_mode:{mode}\r\nrun_id:{run_id}\r\n\r\n\
             # Clients\r\nconnected_clients:1\r\nmaxclients:10000\r\n\r\n\
             # Memory\r\nmaxmemory_policy:noeviction\r\n\r\n\
             # Persistence\r\nloading:0\r\nasync_loading:0\r\n\r\n\
             # Replication\r\nrole:{role}\r\nconnected_slaves:0\r\n\r\n\
             # Cluster\r\ncluster_enabled:0\r\n\r\n\
             # Tideover\r\ntideover_version:{own}\r\ntideover_upstream:{name}\r\ntideover_mode:{own_mode}\r\n",
            run_id = facts
                .run_id
                .as_deref()
                .unwrap_or("0000000000000000000000000000000000000000"),
            own = env!("CARGO_PKG_VERSION"),
            name = shared.target.name,
            own_mode = shared.mode().label(),
        )
    }

    fn client_line(&self) -> String {
        let text = |value: &Option<Vec<u8>>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
        format!(
            "id={} addr= laddr= fd=0 name={} db={} resp={} user={} lib-name={} lib-ver={}\n",
            self.session.id,
            text(&self.state.name),
            self.state.key.db,
            self.state.key.protocol.number(),
            if self.state.key.identity.name().is_empty() {
                "default"
            } else {
                self.state.key.identity.name()
            },
            text(&self.state.library_name),
            text(&self.state.library_version),
        )
    }

    /// The few settings that are known without asking.
    fn config_get(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        let databases = self.session.local.shared.facts().databases.to_string();
        let known = [
            ("databases", databases.as_str()),
            ("timeout", "0"),
            ("maxmemory-policy", "noeviction"),
        ];
        let asked: Vec<String> = request
            .args_from(2)
            .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
            .collect();
        let found: Vec<_> = known
            .iter()
            .filter(|(name, _)| asked.iter().any(|asked| asked == name))
            .collect();
        write::map(out, self.state.key.protocol, found.len());
        for (name, value) in found {
            write::bulk(out, name.as_bytes());
            write::bulk(out, value.as_bytes());
        }
    }
}

fn cluster_disabled(out: &mut Vec<u8>) {
    write::error(out, "ERR This instance has cluster support disabled");
}

fn time(out: &mut Vec<u8>) {
    let now_ms = wall_ms();
    write::array(out, 2);
    write::bulk(out, (now_ms / 1000).to_string().as_bytes());
    write::bulk(out, (now_ms % 1000 * 1000).to_string().as_bytes());
}

fn commands() -> impl Iterator<Item = &'static Spec> {
    TABLE.iter().filter(|spec| !spec.name.contains(' '))
}

/// As COMMAND INFO: name, arity, flags, first key, last key, step.
fn command_info(out: &mut Vec<u8>, spec: &Spec) {
    const FLAGS: [(Flags, &str); 8] = [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::BLOCKING, "blocking"),
        (Flags::FAST, "fast"),
    ];
    let (first, last, step) = match spec.keys.first() {
        Some(KeySpec::Range(first, last, step)) => (*first, *last, *step),
        Some(_) | None => (0, 0, 0),
    };
    write::array(out, 6);
    write::bulk(out, spec.name.to_ascii_lowercase().as_bytes());
    write::integer(out, i64::from(spec.arity));
    let flags: Vec<&str> = FLAGS
        .iter()
        .filter(|(flag, _)| spec.flags.contains(*flag))
        .map(|(_, name)| *name)
        .collect();
    write::array(out, flags.len());
    flags.iter().for_each(|name| write::simple(out, name));
    for number in [first as i64, last as i64, step as i64] {
        write::integer(out, number);
    }
}
