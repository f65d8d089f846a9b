//! Credentials that the upstream has accepted: what AUTH is judged by while it is down. Salted hashes, never the passwords.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::settings::Credentials;
use super::shared::PasswordOwed;
use super::small_file;

/// Identities remembered.
const KNOWN_MAX: usize = 1024;
/// Users whose credentials are kept in memory; of more, somebody's are forgotten, and what that user journals waits.
const LIVE_MAX: usize = 65_536;
const SALT_HEX_LEN: usize = 32;

/// See the module. The file: the salt in hex, then one hash in hex per line.
#[derive(Debug)]
pub struct Known {
    path: PathBuf,
    salt: String,
    hashes: Mutex<HashSet<String>>,
    /// Credentials of this process's sessions by user, in memory only: what journaled writes are replayed with.
    live: Mutex<HashMap<String, Credentials>>,
    /// Identities, by name, whose journaled writes wait for their credentials. Nothing of theirs is forwarded before those.
    waiting: Mutex<BTreeSet<String>>,
    /// One of them has been let in.
    is_freed: AtomicBool,
}

impl Known {
    /// Opens the file, or starts one with `fresh_salt`.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn open(path: &Path, fresh_salt: [u8; 16]) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut lines = text.lines();
        let salt = match lines.next() {
            Some(salt) if salt.len() == SALT_HEX_LEN => salt.to_owned(),
            Some(_) | None => hex(&fresh_salt),
        };
        let hashes = lines.map(str::to_owned).take(KNOWN_MAX).collect();
        Ok(Self {
            path: path.to_owned(),
            salt,
            hashes: Mutex::new(hashes),
            live: Mutex::default(),
            waiting: Mutex::default(),
            is_freed: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, credentials: &Credentials) -> String {
        let user = user_of(credentials);
        let mut hasher = Sha256::new();
        for part in [self.salt.as_bytes(), user.as_bytes(), credentials.password.expose()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hex(&hasher.finalize())
    }

    /// Whether the upstream asked a password of those who have none, when last heard.
    #[must_use]
    pub fn is_password_owed(&self) -> bool {
        self.owed_path().exists()
    }

    /// Remembers it beyond this process.
    pub fn remember_password_owed(&self, owed: PasswordOwed) {
        let path = self.owed_path();
        let done = match owed {
            PasswordOwed::Yes => fs::write(&path, b""),
            PasswordOwed::No if path.exists() => fs::remove_file(&path),
            PasswordOwed::No => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "whether the upstream asks a password could not be remembered for the next start");
        }
    }

    fn owed_path(&self) -> PathBuf {
        self.path.with_file_name("password-owed")
    }

    /// Whether the upstream accepted these, and did not refuse them since.
    #[must_use]
    pub fn accepts(&self, credentials: &Credentials) -> bool {
        self.lock().contains(&self.hash(credentials))
    }

    fn lock_live(&self) -> MutexGuard<'_, HashMap<String, Credentials>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers, in memory only, what a user authenticated with.
    pub fn keep_live(&self, credentials: &Credentials) {
        let mut live = self.lock_live();
        let user = user_of(credentials);
        if live.len() >= LIVE_MAX
            && !live.contains_key(user)
            && let Some(other) = live.keys().next().cloned()
        {
            live.remove(&other);
        }
        live.insert(user.to_owned(), credentials.clone());
    }

    fn lock_waiting(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whose journaled writes wait; to be called before anything of theirs could be forwarded.
    pub fn set_waiting(&self, names: BTreeSet<String>) {
        *self.lock_waiting() = names;
    }

    /// Whether journaled writes of this identity wait.
    #[must_use]
    pub fn waits(&self, name: &str) -> bool {
        self.lock_waiting().contains(name)
    }

    /// The upstream has let in somebody whose writes wait: they are to be replayed.
    pub fn free(&self) {
        self.is_freed.store(true, Ordering::Release);
    }

    /// Whether somebody was let in since the last call.
    #[must_use]
    pub fn take_freed(&self) -> bool {
        self.is_freed.swap(false, Ordering::AcqRel)
    }

    /// Anybody who authenticated in this process, the user `default` first.
    #[must_use]
    pub fn anybody(&self) -> Option<Credentials> {
        let live = self.lock_live();
        live.get("default").or_else(|| live.values().next()).cloned()
    }

    /// What this user last authenticated with in this process.
    #[must_use]
    pub fn live(&self, user: &str) -> Option<Credentials> {
        self.lock_live().get(user).cloned()
    }

    /// The upstream accepted these.
    pub fn accepted(&self, credentials: &Credentials) {
        self.keep_live(credentials);
        let mut hashes = self.lock();
        if hashes.len() < KNOWN_MAX && hashes.insert(self.hash(credentials)) {
            self.save(&hashes);
        }
    }

    /// The upstream refused these (WRONGPASS).
    pub fn refused(&self, credentials: &Credentials) {
        let mut live = self.lock_live();
        if live.get(user_of(credentials)) == Some(credentials) {
            live.remove(user_of(credentials));
        }
        drop(live);
        let mut hashes = self.lock();
        if hashes.remove(&self.hash(credentials)) {
            self.save(&hashes);
        }
    }

    fn save(&self, hashes: &HashSet<String>) {
        let mut text = format!("{}\n", self.salt);
        for hash in hashes {
            text.push_str(hash);
            text.push('\n');
        }
        if let Err(error) = small_file::replace(&self.path, text.as_bytes()) {
            tracing::warn!(%error, "accepted credentials could not be remembered for the next start");
        }
    }
}

fn user_of(credentials: &Credentials) -> &str {
    credentials.user.as_deref().unwrap_or("default")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::settings::Secret;
    use super::*;

    #[test]
    fn accepted_credentials_are_known_after_a_restart_until_they_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known");
        let alice = Credentials {
            user: Some("alice".into()),
            password: Secret::new("secret"),
        };
        let other = Credentials {
            user: Some("alices".into()),
            password: Secret::new("ecret"),
        };
        let known = Known::open(&path, [7; 16]).unwrap();
        assert!(!known.accepts(&alice));
        known.accepted(&alice);
        assert!(known.accepts(&alice) && !known.accepts(&other));
        assert!(!fs::read_to_string(&path).unwrap().contains("secret"));
        let known = Known::open(&path, [8; 16]).unwrap();
        assert!(known.accepts(&alice));
        known.refused(&alice);
        assert!(!Known::open(&path, [8; 16]).unwrap().accepts(&alice));
    }
}
