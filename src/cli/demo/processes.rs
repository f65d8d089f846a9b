//! The demo's redis-server and tideover, their directory and ports. All of it goes when it is dropped.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

const NO_REDIS: &str = "redis-server is not on the PATH. To get it: apt install redis-server, dnf install redis, \
                        apk add redis, or brew install redis";

/// A directory of our own, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new() -> io::Result<Self> {
        let name = format!("tideover-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left then lies in the system's directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Three addresses on this host that were free a moment ago.
pub(super) fn free_addresses() -> io::Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = [listen()?, listen()?, listen()?];
    let [a, b, c] = &held;
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}

/// The processes end before their directory goes: fields are dropped in order.
#[derive(Debug)]
pub(super) struct Stage {
    redis: Option<Child>,
    tideover: Option<Child>,
    dir: Dir,
    pub(super) upstream: SocketAddr,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Stage {
    pub(super) fn new() -> io::Result<Self> {
        let [upstream, listen, admin] = free_addresses()?;
        Ok(Self {
            redis: None,
            tideover: None,
            dir: Dir::new()?,
            upstream,
            listen,
            admin,
        })
    }

    /// Starts redis-server with what it has on disk: every write is synced before it is answered.
    pub(super) fn start_redis(&mut self) -> Result<(), String> {
        let dir = self.make_dir("redis")?;
        let port = self.upstream.port().to_string();
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--daemonize",
            "no",
        ]);
        command.args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--loglevel",
            "warning",
        ]);
        command.arg("--dir").arg(dir);
        let started = self.spawn(command, "redis.log").map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NO_REDIS.to_owned(),
            _ => format!("redis-server does not start: {error}"),
        })?;
        self.redis = Some(started);
        Ok(())
    }

    /// SIGKILL.
    pub(super) async fn kill_redis(&mut self) -> Result<(), String> {
        match self.redis.take() {
            Some(mut redis) => redis
                .kill()
                .await
                .map_err(|error| format!("redis-server cannot be killed: {error}")),
            None => Ok(()),
        }
    }

    /// This same executable, with all that is not said here left at its default.
    pub(super) fn start_tideover(&mut self) -> Result<(), String> {
        let data = self.dir.path().join("data");
        let config = self.dir.path().join("tideover.toml");
        // Paths under the system's temporary directory may hold anything.
        let data = toml::Value::String(data.to_string_lossy().into_owned());
        let text = format!(
            "data_dir = {data}\nadmin = \"{}\"\n[[upstream]]\nname = \"demo\"\nlisten = \"{}\"\nurl = \"redis://{}\"\n",
            self.admin, self.listen, self.upstream
        );
        let executable = fs::write(&config, text).and_then(|()| std::env::current_exe());
        let executable = executable.map_err(|error| format!("tideover cannot be prepared: {error}"))?;
        let mut command = Command::new(executable);
        command.args([OsStr::new("run"), OsStr::new("--config"), config.as_os_str()]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEOVER_") {
                command.env_remove(name);
            }
        }
        let started = self.spawn(command, "tideover.log");
        self.tideover = Some(started.map_err(|error| format!("tideover does not start: {error}"))?);
        Ok(())
    }

    /// Why a process that should run does not.
    pub(super) fn ended(&mut self) -> Option<String> {
        for (name, child) in [("redis-server", &mut self.redis), ("tideover", &mut self.tideover)] {
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                return Some(format!("{name} has ended: {status}"));
            }
        }
        None
    }

    /// The ends of both logs, for a demo that went wrong.
    pub(super) fn logs(&self) -> String {
        const LINES_MAX: usize = 15;
        let mut text = String::new();
        for name in ["redis.log", "tideover.log"] {
            let log = fs::read(self.dir.path().join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines.get(lines.len().saturating_sub(LINES_MAX)..).unwrap_or_default();
            text.push_str(&format!("--- end of {name}\n{}\n", shown.join("\n")));
        }
        text
    }

    fn make_dir(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.dir.path().join(name);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map(|()| path)
            .map_err(|error| format!("no directory for {name}: {error}"))
    }

    fn spawn(&self, mut command: Command, log: &str) -> io::Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(log))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The terminal's Ctrl-C is for us: we end them.
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in [&mut self.tideover, &mut self.redis].into_iter().flatten() {
            // It may have ended by itself.
            let _ = child.start_kill();
        }
        // They must be gone before their directory is, or they write into it again.
        for child in [&mut self.tideover, &mut self.redis].into_iter().flatten() {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
            while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_ours_alone_and_goes_with_its_contents() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Dir::new().unwrap();
        let path = dir.path().to_owned();
        fs::write(path.join("x"), "y").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn addresses_differ() {
        let [a, b, c] = free_addresses().unwrap();
        assert!(a != b && b != c && a != c);
    }
}
