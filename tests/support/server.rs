//! A real redis-server that can be killed, frozen, restarted and emptied.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::{Client, DEADLINE, Port, wait_until};

/// Whether what the server acknowledged is there after a SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Memory,
    /// `appendonly yes`, `appendfsync always`: nothing acknowledged is ever lost.
    AppendOnly,
}

#[derive(Debug)]
pub struct RedisServer {
    port: Port,
    dir: TempDir,
    options: Vec<String>,
    process: Option<Process>,
}

impl RedisServer {
    pub fn start(durability: Durability) -> Self {
        let mut server = Self::absent(durability);
        server.restart();
        server
    }

    /// With more options, as on redis-server's command line: `&["--maxmemory", "1mb"]`.
    pub fn start_with(durability: Durability, options: &[&str]) -> Self {
        let mut server = Self::absent(durability);
        server.add_options(options);
        server.restart();
        server
    }

    /// More options from the next start on.
    pub fn add_options(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(ToString::to_string));
    }

    /// A port where no server runs yet; `restart` starts one.
    pub fn absent(durability: Durability) -> Self {
        let options = match durability {
            Durability::Memory => ["--appendonly", "no"].as_slice(),
            Durability::AppendOnly => ["--appendonly", "yes", "--appendfsync", "always"].as_slice(),
        };
        Self {
            port: Port::reserve(),
            dir: TempDir::new().unwrap(),
            options: options.iter().map(ToString::to_string).collect(),
            process: None,
        }
    }

    pub fn address(&self) -> String {
        self.port.address()
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGSTOP: the kernel still accepts connections and bytes, nobody answers.
    pub fn stop(&self) {
        self.process.as_ref().expect("the server runs").signal(Signal::STOP);
    }

    pub fn cont(&self) {
        self.process.as_ref().expect("the server runs").signal(Signal::CONT);
    }

    /// On the same port with the same files; a running server is killed first.
    pub fn restart(&mut self) {
        self.launch();
        wait_until(DEADLINE, "redis-server answers PONG", || self.answers());
    }

    /// On the same port, everything forgotten.
    pub fn restart_empty(&mut self) {
        self.kill();
        self.dir = TempDir::new().unwrap();
        self.restart();
    }

    /// Its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Cuts a transaction off the AOF of which a SIGKILL left the beginning, as `redis-check-aof` advises. By itself redis-server cuts such
    /// a tail behind its last whole command and not before its MULTI: with the next EXEC in the file, at the next start, the first half is
    /// executed after all.
    fn mend(&self) {
        let Ok(files) = std::fs::read_dir(self.dir.path().join("appendonlydir")) else {
            return;
        };
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_none_or(|extension| extension != "manifest") {
                continue;
            }
            let mut child = Command::new("redis-check-aof")
                .arg("--fix")
                .arg(file)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-check-aof comes with redis-server");
            // It asks only where there is something to cut.
            let _ = child.stdin.take().unwrap().write_all(b"y\n");
            child.wait().unwrap();
        }
    }

    /// Starts the process and does not wait until it answers (it may be LOADING for long).
    pub fn launch(&mut self) {
        self.kill();
        self.mend();
        let log = File::create(self.dir.path().join("redis.log")).unwrap();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.number().to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--enable-debug-command", "yes", "--dir"])
            .arg(self.dir.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed (`make test` installs it)");
        self.process = Some(Process::new(child));
    }

    fn answers(&mut self) -> bool {
        if let Some(status) = self.process.as_mut().and_then(Process::exited) {
            let log = std::fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default();
            panic!("redis-server ended with {status}:\n{log}");
        }
        let Ok(mut client) = Client::try_connect(&self.address(), Duration::from_secs(1)) else {
            return false;
        };
        client.send(&["PING"]);
        client
            .try_reply()
            .is_ok_and(|reply| reply == b"+PONG\r\n" || reply.starts_with(b"-NOAUTH "))
    }
}
