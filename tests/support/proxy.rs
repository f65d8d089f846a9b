//! The built binary with its own files, ports and configuration.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::process::Process;
use super::{Client, DEADLINE, Port, RedisServer, wait_until};

/// What the tests vary; everything is quicker than the defaults, so that an outage takes a second and not ten.
#[derive(Debug, Clone)]
pub struct Settings {
    pub workers: u16,
    pub connect_timeout: Duration,
    pub command_timeout: Duration,
    pub hold_timeout: Duration,
    pub shutdown_timeout: Duration,
    pub fsync: &'static str,
    /// Instead of the server's own.
    pub url: Option<String>,
    /// Instead of a free port; whatever it is, `address` stays that port's.
    pub listen: Option<String>,
    /// One of another proxy's instead of its own.
    pub data_dir: Option<PathBuf>,
    /// TOML at the top.
    pub top: String,
    /// TOML in the upstream's own table.
    pub own: String,
    /// TOML after the last table of the upstream, such as `[[upstream.rule]]`.
    pub more: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 2,
            connect_timeout: Duration::from_millis(500),
            command_timeout: Duration::from_millis(500),
            hold_timeout: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(5),
            fsync: "everysec",
            url: None,
            listen: None,
            data_dir: None,
            top: String::new(),
            own: String::new(),
            more: String::new(),
        }
    }
}

#[derive(Debug)]
pub struct Tideover {
    listen: Port,
    admin: Port,
    dir: TempDir,
    process: Option<Process>,
}

impl Tideover {
    /// In front of `redis`, with the test settings, once it listens.
    pub fn start(redis: &RedisServer) -> Self {
        Self::start_with(redis, &Settings::default())
    }

    pub fn start_with(redis: &RedisServer, settings: &Settings) -> Self {
        let mut proxy = Self::prepare(redis, settings);
        proxy.launch();
        proxy.wait_until_listening();
        proxy
    }

    /// In front of `redis` and `healthy`.
    pub fn healthy(redis: &RedisServer) -> Self {
        let proxy = Self::start(redis);
        proxy.wait_for_mode("healthy", DEADLINE);
        proxy
    }

    /// Files and ports, no process.
    pub fn prepare(redis: &RedisServer, settings: &Settings) -> Self {
        let proxy = Self {
            listen: Port::reserve(),
            admin: Port::reserve(),
            dir: TempDir::new().unwrap(),
            process: None,
        };
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let toml = format!(
            r#"data_dir = "{data}"
admin = "{admin}"
workers = {workers}
shutdown_timeout = "{shutdown}"
{top}

[log]
format = "text"
level = "debug"

[[upstream]]
name = "main"
listen = "{listen}"
url = "{url}"
hold_timeout = "{hold}"
{own}

[upstream.breaker]
failure_threshold = 5
recovery_timeout = "50ms"
recovery_timeout_max = "200ms"

[upstream.timeouts]
connect = "{connect}"
command = "{command}"

[upstream.queue]
fsync = "{fsync}"

[upstream.replay]
start_delay_max = "20ms"

{more}
"#,
            data = settings.data_dir.clone().unwrap_or_else(|| proxy.data_dir()).display(),
            admin = proxy.admin.address(),
            workers = settings.workers,
            shutdown = millis(settings.shutdown_timeout),
            listen = settings.listen.clone().unwrap_or_else(|| proxy.listen.address()),
            url = settings.url.clone().unwrap_or_else(|| redis.url()),
            hold = millis(settings.hold_timeout),
            connect = millis(settings.connect_timeout),
            command = millis(settings.command_timeout),
            fsync = settings.fsync,
            top = settings.top,
            own = settings.own,
            more = settings.more,
        );
        std::fs::write(proxy.config(), toml).unwrap();
        proxy
    }

    pub fn binary() -> PathBuf {
        let built = || env!("CARGO_BIN_EXE_tideover").into();
        std::env::var_os("TIDEOVER_TEST_BINARY").map_or_else(built, PathBuf::from)
    }

    /// Everything of this proxy: configuration, log and data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("tideover.toml")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn address(&self) -> String {
        self.listen.address()
    }

    pub fn admin_address(&self) -> String {
        self.admin.address()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.address())
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("tideover runs")
    }

    /// Starts the process and waits for nothing.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new(Self::binary())
            .args(["run", "--config"])
            .arg(self.config())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {}: {error}", Self::binary().display()));
        self.process = Some(Process::new(child));
    }

    pub fn wait_until_listening(&mut self) {
        let address = self.address();
        wait_until(DEADLINE, "tideover listens", || {
            if let Some(status) = self.process().exited() {
                panic!("tideover ended with {status} before it listened");
            }
            TcpStream::connect(&address).is_ok()
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// With the same data directory and ports.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        self.wait_until_listening();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.process().signal(Signal::TERM);
        self.process().wait_for_exit(deadline)
    }

    /// A subcommand that talks to this proxy, run to its end.
    pub fn run_cli(&self, args: &[&str]) -> Output {
        let output = Command::new(Self::binary())
            .args(args)
            .env("TIDEOVER_ADMIN", self.admin_address())
            .output();
        output.expect("the binary starts")
    }

    /// (status code, body) of a request to the admin address; headers are `Name: value` lines.
    pub fn http(&self, method: &str, path: &str, headers: &[&str]) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin_address())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n{more}\r\n",
            self.admin_address()
        );
        stream.write_all(request.as_bytes())?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        let response = String::from_utf8_lossy(&response).into_owned();
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| std::io::Error::other(format!("not HTTP: {head}")))?;
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunked(body)
        } else {
            body.to_owned()
        };
        Ok((code, body))
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.http("GET", path, &[])
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub fn try_status(&self) -> Option<Value> {
        let (code, body) = self.http("GET", "/status", &[]).ok()?;
        if code == 200 {
            serde_json::from_str(&body).ok()
        } else {
            None
        }
    }

    /// The only upstream's part of `/status`.
    pub fn status(&self) -> Value {
        let mut status = self.try_status().expect("/status answers JSON");
        status["upstreams"][0].take()
    }

    pub fn mode(&self) -> String {
        self.try_status()
            .and_then(|status| status["upstreams"][0]["mode"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Records of the backlog.
    pub fn backlog(&self) -> u64 {
        self.status()["queue"]["records"]
            .as_u64()
            .expect("queue.records is a count")
    }

    pub fn dead_letters(&self) -> u64 {
        self.status()["dead_letters"].as_u64().expect("dead_letters is a count")
    }

    /// `down` is met by `probing` too: it is down with a probe under way.
    #[track_caller]
    pub fn wait_for_mode(&self, wanted: &str, deadline: Duration) {
        wait_until(deadline, &format!("mode {wanted}"), || {
            let mode = self.mode();
            mode == wanted || (wanted == "down" && mode == "probing")
        });
    }

    /// Healthy again with nothing left to replay.
    #[track_caller]
    pub fn wait_for_recovery(&self) {
        self.wait_for_mode("healthy", DEADLINE);
        assert_eq!(self.backlog(), 0, "healthy with a backlog");
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("tideover.log")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Drop for Tideover {
    fn drop(&mut self) {
        if std::thread::panicking() {
            const LINES_MAX: usize = 200;
            let text = self.log_text();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(LINES_MAX);
            eprintln!(
                "--- tideover's log, last {LINES_MAX} lines ---\n{}\n---",
                lines[from..].join("\n")
            );
        }
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// Whether a directory has anything in it.
pub fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}
