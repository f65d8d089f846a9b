//! A Redis that can be cut off from tideover while it goes on for others, and programs on both sides.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use tideover::command::{for_each_key, lookup};
use tideover::config::{self, Flags, Outside};
use tideover::outage::rules::{RuleSettings, Rules};
use tideover::resp::request::OwnedRequest;

use crate::support::{
    Client, DEADLINE, Durability, RedisServer, Relay, Settings, Tideover, Verdict, error_text, shown, wait_until,
};

/// Where the presets are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// The rules of a preset as they stand in its file, comments and all.
pub(crate) fn rules_of(preset: &str) -> String {
    let text = std::fs::read_to_string(folder().join(preset)).unwrap();
    let start = text.find("[[upstream.rule]]").expect("a preset has rules");
    text[start..].to_owned()
}

pub(crate) fn settings_of(path: &Path) -> config::Settings {
    let flags = Flags {
        config: Some(path.to_owned()),
        ..Flags::default()
    };
    let read = |path: &Path| -> io::Result<String> { std::fs::read_to_string(path) };
    let outside = Outside {
        env: &|_| None,
        read: &read,
    };
    config::load(&flags, outside).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[derive(Debug)]
pub(crate) struct World {
    redis: RedisServer,
    /// Where tideover believes Redis to be.
    place: RedisServer,
    relay: Option<Relay>,
    proxy: Tideover,
    preset: Option<String>,
    /// What programs sent through tideover while Redis was cut off.
    said: RefCell<Vec<Vec<String>>>,
}

impl World {
    /// With the rules of this file of `config/`, or none; `healthy`.
    pub(crate) fn start(preset: Option<&str>) -> Self {
        let redis = RedisServer::start(Durability::Memory);
        let place = RedisServer::absent(Durability::Memory);
        let relay = Relay::start(&place, &redis, |_| Verdict::Pass);
        let settings = Settings {
            workers: 1,
            more: preset.map(rules_of).unwrap_or_default(),
            ..Settings::default()
        };
        let proxy = Tideover::start_with(&place, &settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        Self {
            redis,
            place,
            relay: Some(relay),
            proxy,
            preset: preset.map(str::to_owned),
            said: RefCell::default(),
        }
    }

    /// A program that talks to tideover.
    pub(crate) fn program(&self) -> Program<'_> {
        Program {
            client: self.proxy.client(),
            world: self,
        }
    }

    /// A program elsewhere, with a Redis that never fails.
    pub(crate) fn elsewhere(&self) -> Elsewhere {
        Elsewhere(self.redis.client())
    }

    /// The outage begins.
    pub(crate) fn cut(&mut self) {
        self.relay = None;
        // Noticed at once when somebody asks.
        self.proxy.client().call(&["GET", "anything"]);
        self.proxy.wait_for_mode("down", DEADLINE);
        let address = self.place.address();
        wait_until(DEADLINE, "the relay is gone", || {
            std::net::TcpStream::connect(&address).is_err()
        });
    }

    /// The outage is over and everything is replayed.
    pub(crate) fn mend(&mut self) {
        self.relay = Some(Relay::start(&self.place, &self.redis, |_| Verdict::Pass));
        self.proxy.wait_for_recovery();
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        self.proxy.dead_letters()
    }

    /// Rules that are the first match of nothing that was sent during the outage.
    pub(crate) fn rules_without_a_command(&self) -> Vec<RuleSettings> {
        let preset = self.preset.as_deref().expect("a preset");
        let settings = settings_of(&folder().join(preset));
        let mut rules: Vec<RuleSettings> = settings.upstreams[0].rules.settings().to_vec();
        let alone = |rule: &RuleSettings| Rules::new(vec![rule.clone()]).unwrap();
        let all: Vec<Rules> = rules.iter().map(alone).collect();
        let used: Vec<usize> = self
            .said
            .borrow()
            .iter()
            .filter_map(|args| all.iter().position(|rule| matches(rule, args)))
            .collect();
        let mut at = 0..;
        rules.retain(|_| !used.contains(&at.next().unwrap()));
        rules
    }
}

fn matches(rules: &Rules, args: &[String]) -> bool {
    let request = OwnedRequest::new(args);
    let request = request.as_request();
    let Some(spec) = lookup(&request) else { return false };
    let mut keys = Vec::new();
    for_each_key(spec, &request, |key| keys.push(key));
    rules.first_match(spec.id, keys.into_iter()).is_some()
}

/// An error reply. Client libraries raise it, and the program does not go on with what it was about to do.
#[derive(Debug)]
pub(crate) struct Raised;

/// A connection of a program whose library raises errors.
#[derive(Debug)]
pub(crate) struct Program<'w> {
    client: Client,
    world: &'w World,
}

impl Program<'_> {
    /// Words split at blanks.
    ///
    /// # Panics
    /// At errors that are not tideover's own: the story is told wrong.
    #[track_caller]
    pub(crate) fn call(&mut self, line: &str) -> Result<Reply, Raised> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let reply = self.client.call(&args);
        if self.world.relay.is_none() {
            self.world.said.borrow_mut().push(args);
        }
        match error_text(&reply) {
            Some(text) if text.starts_with("UNAVAILABLE ") => Err(Raised),
            Some(text) => panic!("{line} answered {text}"),
            None => Ok(Reply(reply)),
        }
    }

    /// MULTI, these, EXEC, as a pipeline of redis-py is.
    #[track_caller]
    pub(crate) fn transaction(&mut self, lines: &[&str]) -> Result<Reply, Raised> {
        self.call("MULTI")?;
        for line in lines {
            self.call(line)?;
        }
        self.call("EXEC")
    }
}

/// A connection that goes past tideover.
#[derive(Debug)]
pub(crate) struct Elsewhere(Client);

impl Elsewhere {
    #[track_caller]
    pub(crate) fn call(&mut self, line: &str) -> Reply {
        let args: Vec<&str> = line.split_whitespace().collect();
        let reply = self.0.call(&args);
        assert_eq!(error_text(&reply), None, "{line}");
        Reply(reply)
    }

    /// The string at a key, or nothing.
    #[track_caller]
    pub(crate) fn get(&mut self, key: &str) -> Option<String> {
        let reply = self.call(&format!("GET {key}"));
        (!reply.is_nothing()).then(|| reply.text())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply(Vec<u8>);

impl Reply {
    /// Null, or an empty array.
    pub(crate) fn is_nothing(&self) -> bool {
        [b"$-1\r\n".as_slice(), b"*-1\r\n", b"*0\r\n"].contains(&self.0.as_slice())
    }

    #[track_caller]
    pub(crate) fn integer(&self) -> i64 {
        crate::support::integer(&self.0)
    }

    /// Whether it is `:1`: "it was you".
    pub(crate) fn is_one(&self) -> bool {
        self.0 == b":1\r\n"
    }

    /// A bulk string's payload.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        let shown = shown(&self.0);
        let (_, payload) = shown.split_once("\\r\\n").unwrap();
        payload.trim_end_matches("\\r\\n").to_owned()
    }
}
