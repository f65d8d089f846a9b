//! What people asked of replay, kept in the data directory: who paused it before a restart must not be surprised after it.
//!
//! ```text
//! data_dir/NAME/replay-wishes     "paused\n" and "rate_max 500\n" or "rate_max off\n", as far as wished; else no file
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const NAME: &str = "replay-wishes";

/// Whether replay goes on by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    #[default]
    Running,
    /// `queue pause`
    Paused,
}

/// How fast replay may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// `replay.rate_max` of the configuration.
    #[default]
    Configured,
    /// As fast as the upstream takes it, whatever the configuration says.
    Unlimited,
    /// Records per second.
    Limited(NonZeroU32),
}

impl Rate {
    /// Records per second, given the configuration's.
    #[must_use]
    pub fn max(self, configured: Option<NonZeroU32>) -> Option<NonZeroU32> {
        match self {
            Self::Configured => configured,
            Self::Unlimited => None,
            Self::Limited(rate_max) => Some(rate_max),
        }
    }
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub pause: Pause,
    pub rate: Rate,
}

impl Wishes {
    fn parse(text: &str) -> Option<Self> {
        let mut wishes = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                None if line == "paused" => wishes.pause = Pause::Paused,
                Some(("rate_max", "off")) => wishes.rate = Rate::Unlimited,
                Some(("rate_max", rate_max)) => wishes.rate = Rate::Limited(rate_max.parse().ok()?),
                None | Some(_) => return None,
            }
        }
        Some(wishes)
    }

    fn text(self) -> String {
        let pause = match self.pause {
            Pause::Running => "",
            Pause::Paused => "paused\n",
        };
        let rate = match self.rate {
            Rate::Configured => String::new(),
            Rate::Unlimited => "rate_max off\n".to_owned(),
            Rate::Limited(rate_max) => format!("rate_max {rate_max}\n"),
        };
        pause.to_owned() + &rate
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Kept {
    dir: PathBuf,
}

impl Kept {
    /// In the upstream's part of the data directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// # Errors
    /// The file cannot be read, or says nothing that is known.
    pub fn load(&self) -> io::Result<Wishes> {
        match fs::read_to_string(self.dir.join(NAME)) {
            Ok(text) => Wishes::parse(&text).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{NAME} says nothing that is known"))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Wishes::default()),
            Err(error) => Err(error),
        }
    }

    /// Durably.
    ///
    /// # Errors
    /// The old wishes stand, or the new ones.
    pub fn save(&self, wishes: Wishes) -> io::Result<()> {
        let path = self.dir.join(NAME);
        if wishes == Wishes::default() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        } else {
            let temporary = path.with_extension("tmp");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(wishes.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
        }
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_outlive_the_process_and_leave_no_file_when_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path());
        let limited = Rate::Limited(NonZeroU32::new(500).unwrap());
        for pause in [Pause::Paused, Pause::Running] {
            for rate in [limited, Rate::Unlimited, Rate::Configured] {
                let wishes = Wishes { pause, rate };
                kept.save(wishes).unwrap();
                assert_eq!(kept.load().unwrap(), wishes);
            }
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_says_something_else_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["nonsense\n", "rate_max 0\n", "paused\nrate_max x\n"] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert!(Kept::new(dir.path()).load().is_err(), "{text}");
        }
    }
}
