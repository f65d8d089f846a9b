//! Asks the upstream for its commands, and keeps those that our table does not have for the workers to read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis_protocol::resp3::types::{OwnedFrame, Resp3Frame};
use tokio::time::timeout;

use super::dial::{Conversation, DialError, Handshake, command, dial_counted, error_text, value};
use super::shared::Shared;
use crate::command::{Entry, Learned};

/// Largest reply to `COMMAND` that is looked at; Redis 7 answers some 200 KiB.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// What was learned last. Workers look at the version and fetch what is new.
#[derive(Debug, Default)]
pub struct LearnedSlot {
    version: AtomicU64,
    learned: Mutex<Arc<Learned>>,
    is_wanted: AtomicBool,
    is_refusal_said: AtomicBool,
}

impl LearnedSlot {
    fn lock(&self) -> MutexGuard<'_, Arc<Learned>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever something else has been learned.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn get(&self) -> Arc<Learned> {
        Arc::clone(&self.lock())
    }

    /// `next` is made of what is known.
    fn set(&self, next: impl FnOnce(&Learned) -> Learned) {
        let mut learned = self.lock();
        *learned = Arc::new(next(&learned));
        drop(learned);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// An EXEC was answered as if there were none: so it is taken until the upstream has said otherwise.
    pub(super) fn doubt_exec(&self) {
        self.set(|known| known.clone().with_exec(&[]));
        self.want();
    }

    /// The upstream's commands may be others by now: the health owner asks for them.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed) && self.is_wanted.swap(false, Ordering::Relaxed)
    }
}

/// Asks on a connection of its own, so that a reply this large keeps nobody waiting, within `timeouts.connect` each for dialling and asking.
/// Without an answer what was known stays; an upstream that refuses has taught nothing.
pub(super) async fn learn(shared: Arc<Shared>) {
    let target = &shared.target;
    let credentials = target.own_credentials();
    let handshake = Handshake::in_own_name(credentials.as_ref(), 0);
    let Ok(dialled) = dial_counted(target, &handshake).await else {
        return;
    };
    let mut conversation = Conversation::from(dialled);
    let asked = [command(&["COMMAND"]), command(&["COMMAND", "INFO", "exec"])].concat();
    if conversation.send(&asked).await.is_err() {
        return;
    }
    let answers = async {
        let reply = conversation.next_reply(REPLY_BYTES_MAX).await?;
        Ok::<_, DialError>((reply, conversation.next_reply(REPLY_BYTES_MAX).await?))
    };
    let Ok(Ok((reply, exec))) = timeout(target.timeouts.connect, answers).await else {
        return;
    };
    let exec = entries(&exec).unwrap_or_default();
    let slot = &shared.learned;
    match entries(&reply) {
        Some(entries) => {
            let learned = Learned::new(&entries).with_exec(&exec);
            let commands = learned.len();
            slot.set(|_| learned);
            tracing::debug!(upstream = target.name, commands, "asked for the upstream's commands");
        }
        None => {
            slot.set(|_| Learned::default().with_exec(&exec));
            if !slot.is_refusal_said.swap(true, Ordering::Relaxed) {
                let reason = error_text(&reply).unwrap_or_else(|| "not understood".into());
                tracing::info!(
                    upstream = target.name,
                    reason,
                    "COMMAND is not answered: commands that tideover does not know take connections of their own"
                );
            }
        }
    }
}

/// The reply to `COMMAND`; nothing where it is none. Elements that are no commands are left out.
fn entries(reply: &[u8]) -> Option<Vec<Entry>> {
    match value(reply)? {
        OwnedFrame::Array { data, .. } => Some(data.iter().filter_map(entry).collect()),
        _ => None,
    }
}

/// Name, arity, flags, first key, last key, step; since Redis 7 also ACL categories, tips, key specifications, subcommands.
fn entry(frame: &OwnedFrame) -> Option<Entry> {
    let [name, arity, flags, first_key, last_key, key_step, more @ ..] = elements(frame)? else {
        return None;
    };
    Some(Entry {
        name: name.as_str()?.to_owned(),
        arity: integer(arity)?,
        flags: words(flags),
        first_key: integer(first_key)?,
        last_key: integer(last_key)?,
        key_step: integer(key_step)?,
        subcommands: more
            .get(3)
            .and_then(elements)
            .map_or_else(Vec::new, |entries| entries.iter().filter_map(entry).collect()),
    })
}

fn elements(frame: &OwnedFrame) -> Option<&[OwnedFrame]> {
    match frame {
        OwnedFrame::Array { data, .. } => Some(data),
        _ => None,
    }
}

fn words(frame: &OwnedFrame) -> Vec<String> {
    elements(frame)
        .unwrap_or_default()
        .iter()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

fn integer(frame: &OwnedFrame) -> Option<i64> {
    match frame {
        OwnedFrame::Number { data, .. } => Some(*data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "*7\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@read\r\n";

    #[test]
    fn entries_of_every_age_are_read_and_what_is_none_is_left_out() {
        let of_redis_7 = |name: &str, arity: i64, subcommands: &str| {
            let len = name.len();
            format!("*10\r\n${len}\r\n{name}\r\n:{arity}\r\n*0\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n*0\r\n{subcommands}")
        };
        let sub = of_redis_7("x|sub", -3, "*0\r\n");
        let container = of_redis_7("x", -2, &format!("*1\r\n{sub}"));
        let entries = entries(format!("*4\r\n{GET}*0\r\n:5\r\n{container}").as_bytes()).unwrap();
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["get", "x"]);
        assert_eq!(entries[0].flags, ["readonly", "fast"]);
        assert_eq!((entries[0].arity, entries[0].first_key, entries[0].key_step), (2, 1, 1));
        assert_eq!(entries[1].subcommands[0].name, "x|sub");
        assert_eq!(entries[1].subcommands[0].arity, -3);
    }

    #[test]
    fn an_error_and_a_nest_too_deep_are_no_entries() {
        assert_eq!(entries(b"-NOPERM this user has no permissions\r\n"), None);
        assert_eq!(entries("*1\r\n".repeat(100_000).as_bytes()), None);
        let deep = format!("{}:1\r\n", "*1\r\n".repeat(17));
        assert_eq!(entries(deep.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn garbage_is_no_panic(parts in prop::collection::vec(
            "\\*[0-9]{1,2}\r\n|\\*-1\r\n|\\$[0-3]\r\nab\r\n|\\$-1\r\n|:-?[0-9]{1,21}\r\n|\\+[a-z|]{0,3}\r\n|[%~,#_|(].{0,3}\r\n|\\PC{0,3}", 0..30)) {
            let entries = entries(parts.concat().as_bytes()).unwrap_or_default();
            prop_assert!(Learned::new(&entries).len() <= entries.len());
        }

        #[test]
        fn garbage_in_place_of_a_byte_is_no_panic(at in 0..GET.len(), byte: u8) {
            let mut bytes = format!("*1\r\n{GET}").into_bytes();
            bytes[4 + at] = byte;
            let entries = entries(&bytes).unwrap_or_default();
            prop_assert!(Learned::new(&entries).len() <= entries.len());
        }
    }
}
