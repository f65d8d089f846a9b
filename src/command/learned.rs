//! Commands that the table does not have (modules, newer servers), as the upstream's `COMMAND` tells of them. Pure: entries in, rows out.
//!
//! What is learned is used where it can do no harm:
//! - *Placement.* On a lane a command waits for those before it and keeps those behind it, so one goes there only when its flags make it
//!   impossible that it blocks or changes its connection: it says `readonly` or `write`, its first key stands at a fixed place (what a command
//!   without keys works on is the server, or the connection), and every flag of it is known here as harmless. That keeps `blocking`, `admin`,
//!   `pubsub`, `noscript`, `no_multi`, `movablekeys` (scripts, MIGRATE), and flags of servers to come, off the lanes.
//!   A module may block its client, authenticate it or change its database in any command and without saying so; what it says is
//!   `fast`, in constant or logarithmic time, which leaves no room for waiting. So a `module` command must say that, too.
//! - *Loss.* `readonly`, and neither `write` nor `may_replicate`: may be sent again.
//! - *While down.* Nothing is invented and nothing journaled, for nobody knows what its reply or its effect would be; only a wrong number of
//!   arguments is answered as Redis would.

use std::collections::HashMap;

use super::keys::range;
use super::{InFlight, Placement, by_name};
use crate::resp::Request;

/// Learned commands and subcommands there may be.
const LEARNED_MAX: usize = 4096;
/// Longest name of one, both words of a subcommand together.
const NAME_BYTES_MAX: usize = 128;

/// Flags of a command that may be on a lane; `module` only with `fast`.
const HARMLESS: [&str; 13] = [
    "write",
    "readonly",
    "denyoom",
    "fast",
    "stale",
    "loading",
    "random",
    "sort_for_script",
    "skip_slowlog",
    "no_async_loading",
    "no_mandatory_keys",
    "touches_arbitrary_keys",
    "module",
];

/// Further flags that leave no doubt that a command which reads or writes is about data, and not about its connection.
const DATA: [&str; 4] = ["blocking", "movablekeys", "may_replicate", "skip_monitor"];

/// One element of the reply to `COMMAND`, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// `json.get`, `client|kill`
    pub name: String,
    /// Exact, or a minimum when negative.
    pub arity: i64,
    pub flags: Vec<String>,
    /// Positions of the first and the last key (negative: from the end), and the step between keys. All 0 without keys.
    pub first_key: i64,
    pub last_key: i64,
    pub key_step: i64,
    pub subcommands: Vec<Entry>,
}

/// A learned command, or subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedCommand {
    /// Upper case, words separated by a space.
    pub name: String,
    pub placement: Placement,
    pub in_flight: InFlight,
    /// It says that it blocks.
    pub is_blocking: bool,
    /// It may leave its connection other than it found it.
    pub may_alter: bool,
    arity: i64,
    /// First, last, step, as in [`super::KeySpec::Range`].
    keys: Option<(usize, isize, usize)>,
    has_subcommands: bool,
}

impl LearnedCommand {
    fn new(name: String, entry: &Entry) -> Self {
        let has = |flag: &str| entry.flags.iter().any(|known| known == flag);
        let keys = match (usize::try_from(entry.first_key), isize::try_from(entry.last_key)) {
            (Ok(first), Ok(last)) if first > 0 => Some((first, last, usize::try_from(entry.key_step).unwrap_or(1))),
            (_, _) => None,
        };
        let is_of_data = |flag: &String| HARMLESS.contains(&flag.as_str()) || DATA.contains(&flag.as_str());
        let is_harmless = entry.flags.iter().all(|flag| HARMLESS.contains(&flag.as_str()));
        let on_lane =
            is_harmless && has("readonly") != has("write") && keys.is_some() && (has("fast") || !has("module"));
        Self {
            placement: if on_lane { Placement::Lane } else { Placement::Dedicated },
            in_flight: if has("readonly") && !has("write") && !has("may_replicate") {
                InFlight::Read
            } else {
                InFlight::Write
            },
            is_blocking: has("blocking"),
            may_alter: !entry.flags.iter().all(is_of_data) || !has("readonly") && !has("write"),
            arity: entry.arity,
            keys,
            has_subcommands: !entry.subcommands.is_empty(),
            name,
        }
    }

    /// Whether the number of arguments is one that Redis accepts.
    #[must_use]
    pub fn arity_ok(&self, request: &Request<'_>) -> bool {
        let len = request.len() as u64;
        if self.arity < 0 {
            len >= self.arity.unsigned_abs()
        } else {
            len == self.arity.unsigned_abs()
        }
    }

    /// Calls `f` with every key that stands at a fixed place.
    pub fn for_each_key<'a>(&self, request: &Request<'a>, f: impl FnMut(&'a [u8])) {
        if let Some((first, last, step)) = self.keys {
            range(request, first, last, step, f);
        }
    }
}

/// What an upstream knows and the table does not. Never changed: a newer one takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    commands: HashMap<String, LearnedCommand>,
    has_exec: bool,
}

impl Learned {
    /// Takes what the table does not have. Names that cannot be those of commands, and more than there may be, are left out.
    #[must_use]
    pub fn new(entries: &[Entry]) -> Self {
        let mut learned = Self::default();
        for entry in entries {
            learned.learn(&[&entry.name], entry);
            for subcommand in &entry.subcommands {
                // Redis before 7.0.2 names some without their container.
                let inner = subcommand
                    .name
                    .split_once('|')
                    .map_or(&*subcommand.name, |(_, inner)| inner);
                learned.learn(&[&entry.name, inner], subcommand);
            }
        }
        learned
    }

    fn learn(&mut self, words: &[&str], entry: &Entry) {
        let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
        let name = words.join(" ").to_ascii_uppercase();
        let is_new = name.len() <= NAME_BYTES_MAX && words.iter().all(is_word) && by_name(&name).is_none();
        if is_new && self.commands.len() < LEARNED_MAX {
            let command = LearnedCommand::new(name.clone(), entry);
            self.commands.insert(name, command);
        }
    }

    /// Takes note of what `COMMAND INFO exec` tells: `COMMAND` lists a command also where `rename-command` has taken it away.
    #[must_use]
    pub fn with_exec(self, told: &[Entry]) -> Self {
        let has_exec = told.iter().any(|entry| entry.name.eq_ignore_ascii_case("exec"));
        Self { has_exec, ..self }
    }

    /// Whether the upstream is known to have EXEC.
    #[must_use]
    pub fn has_exec(&self) -> bool {
        self.has_exec
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The row of a request that the table has none for, or only that of its container. As in the table, a container stands for itself where
    /// its subcommand is missing or unknown. Letter case does not matter.
    #[must_use]
    pub fn find(&self, request: &Request<'_>) -> Option<&LearnedCommand> {
        if self.is_empty() {
            return None;
        }
        let mut name = upper(request.arg(0), NAME_BYTES_MAX)?;
        let found = self.commands.get(&name);
        if found.is_some_and(|command| !command.has_subcommands) {
            return found;
        }
        let Some(word) = request.get(1).and_then(|word| upper(word, NAME_BYTES_MAX)) else {
            return found;
        };
        name.push(' ');
        name.push_str(&word);
        self.commands.get(&name).or(found)
    }
}

/// A word of a name in upper case; nothing for what is longer than any, or no text.
fn upper(word: &[u8], bytes_max: usize) -> Option<String> {
    if word.len() > bytes_max {
        return None;
    }
    std::str::from_utf8(word).ok().map(str::to_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::OwnedRequest;
    use proptest::prelude::*;

    fn entry(name: &str, arity: i64, flags: &str, keys: (i64, i64, i64)) -> Entry {
        Entry {
            name: name.into(),
            arity,
            flags: flags.split_whitespace().map(str::to_owned).collect(),
            first_key: keys.0,
            last_key: keys.1,
            key_step: keys.2,
            subcommands: Vec::new(),
        }
    }

    const ONE: (i64, i64, i64) = (1, 1, 1);
    const NONE: (i64, i64, i64) = (0, 0, 0);

    fn request(line: &str) -> OwnedRequest {
        OwnedRequest::new(&line.split(' ').collect::<Vec<_>>())
    }

    #[track_caller]
    fn check(flags: &str, keys: (i64, i64, i64), placement: Placement, in_flight: InFlight) {
        let learned = Learned::new(&[entry("new.one", 2, flags, keys)]);
        let request = request("NEW.ONE k");
        let found = learned.find(&request.as_request()).unwrap();
        assert_eq!((found.placement, found.in_flight), (placement, in_flight), "{flags}");
    }

    #[test]
    fn only_what_cannot_block_or_change_its_connection_goes_on_a_lane() {
        use InFlight::{Read, Write};
        use Placement::{Dedicated, Lane};
        check("readonly fast", ONE, Lane, Read);
        check("write denyoom", ONE, Lane, Write);
        check("write denyoom fast module", ONE, Lane, Write);
        check("readonly module fast", ONE, Lane, Read);
        check("readonly module", ONE, Dedicated, Read);
        check("write module", ONE, Dedicated, Write);
        check("readonly", NONE, Dedicated, Read);
        check("readonly movablekeys", ONE, Dedicated, Read);
        check("readonly noscript", ONE, Dedicated, Read);
        check("write blocking", ONE, Dedicated, Write);
        check("write no_multi", ONE, Dedicated, Write);
        check("admin readonly", ONE, Dedicated, Read);
        check("pubsub fast", ONE, Dedicated, Write);
        check("readonly write fast", ONE, Dedicated, Write);
        check("readonly may_replicate", ONE, Dedicated, Write);
        check("readonly flag_to_come", ONE, Dedicated, Read);
        check("", NONE, Dedicated, Write);
    }

    #[test]
    fn what_the_table_has_is_not_learned_again() {
        let mut client = entry("client", -2, "", NONE);
        client.subcommands = vec![
            entry("client|id", 2, "", NONE),
            entry("client|news", 2, "readonly", NONE),
        ];
        let learned = Learned::new(&[entry("get", 2, "readonly fast", ONE), client]);
        assert_eq!(learned.len(), 1);
        let find = |line: &str| {
            let request = request(line);
            learned.find(&request.as_request()).map(|found| found.name.clone())
        };
        assert_eq!(find("Client News").as_deref(), Some("CLIENT NEWS"));
        for line in ["GET k", "CLIENT", "CLIENT ID", "CLIENT OTHER", "NEWS", "GET news"] {
            assert_eq!(find(line), None, "{line}");
        }
    }

    #[test]
    fn a_learned_container_stands_for_itself_and_its_subcommands_for_themselves() {
        let mut container = entry("new", -2, "", NONE);
        container.subcommands = vec![
            entry("new|read", 3, "readonly", (2, 2, 1)),
            entry("write", -3, "write", (2, 2, 1)),
        ];
        let learned = Learned::new(&[container]);
        for (line, name) in [
            ("new", "NEW"),
            ("NEW other", "NEW"),
            ("new READ k", "NEW READ"),
            ("new write k", "NEW WRITE"),
        ] {
            let request = request(line);
            assert_eq!(learned.find(&request.as_request()).unwrap().name, name, "{line}");
        }
    }

    #[test]
    fn keys_and_arity_are_those_that_were_told() {
        let learned = Learned::new(&[entry("new.set", -3, "write", (1, -1, 2))]);
        let request = request("new.set a 1 b 2");
        let found = learned.find(&request.as_request()).unwrap();
        let mut keys = Vec::new();
        found.for_each_key(&request.as_request(), |key| keys.push(key.to_vec()));
        assert_eq!(keys, [b"a", b"b"]);
        let arity_ok = |line: &str| found.arity_ok(&self::request(line).as_request());
        assert!(arity_ok("new.set a 1") && !arity_ok("new.set a"));
    }

    #[test]
    fn names_that_are_none_and_more_than_there_may_be_are_left_out() {
        let many: Vec<Entry> = (0..LEARNED_MAX + 9)
            .map(|at| entry(&format!("many.{at}"), 1, "", NONE))
            .collect();
        assert_eq!(Learned::new(&many).len(), LEARNED_MAX);
        for name in [
            "",
            "two words",
            "line\nbreak",
            "\u{e9}",
            &"x".repeat(NAME_BYTES_MAX + 1),
        ] {
            assert!(Learned::new(&[entry(name, 1, "", NONE)]).is_empty(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_entry_makes_a_request_panic(
            names in prop::collection::vec("[a-c.|]{0,3}", 1..4),
            numbers in prop::array::uniform4(prop_oneof![-3..4_i64, Just(i64::MIN), Just(i64::MAX), any::<i64>()]),
            flags in prop::collection::vec("readonly|write|fast|module|x{0,2}", 0..4),
            args in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..6),
        ) {
            let entries: Vec<Entry> = names.iter().map(|name| Entry {
                name: name.clone(),
                arity: numbers[0],
                flags: flags.clone(),
                first_key: numbers[1],
                last_key: numbers[2],
                key_step: numbers[3],
                subcommands: vec![entry(name, numbers[0], "", NONE)],
            }).collect();
            let learned = Learned::new(&entries);
            let mut args = args;
            args[0] = names[0].to_ascii_uppercase().into_bytes();
            let request = OwnedRequest::new(&args);
            if let Some(found) = learned.find(&request.as_request()) {
                let mut count = 0;
                found.for_each_key(&request.as_request(), |_| count += 1);
                prop_assert!(count <= request.as_request().len());
                let _ = found.arity_ok(&request.as_request());
            }
        }
    }
}
