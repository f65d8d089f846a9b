//! `tideover demo`: a real redis-server is killed and restarted under load, behind this same executable. What clients were told is
//! compared with what is in Redis at the end.

mod check;
mod load;
mod processes;
mod resp;
mod show;

use std::io;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::client::Client;
use super::say;
use check::Findings;
use load::{History, Keys, Load};
use processes::Stage;
use resp::{Answer, Connection};
use show::{Moment, Show, Style, Summary};

/// Between two lines; replay is quick, so that one looks more closely.
const LINE_INTERVAL: Duration = Duration::from_millis(250);
const REPLAY_LINE_INTERVAL: Duration = Duration::from_millis(100);
/// Until a process answers, and until a backlog is gone.
const PATIENCE: Duration = Duration::from_secs(20);
const BEFORE: Duration = Duration::from_secs(2);
const OUTAGE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(2);
/// Exit code after SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

const INTRODUCTION: &str = "\
tideover demo, 8 seconds: 4 clients, and a redis-server that dies and comes back.
  1. Redis is well: traffic flows through.
  2. redis-server is killed: reads get neutral answers, writes are kept on disk.
  3. redis-server is started again: the backlog is replayed, in order.
  4. Redis is well: traffic flows through, over the same client connections.
  5. Every answer that the clients got is compared with what is in Redis.
";

/// Exits 0 only if every acknowledged write is in Redis once and in order.
pub(super) fn demo() -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("demo: no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match until_interrupted().await {
            Ok(Some(true)) => ExitCode::SUCCESS,
            Ok(Some(false)) => ExitCode::FAILURE,
            Ok(None) => ExitCode::from(INTERRUPTED),
            Err(error) => {
                say(&format!("demo: {error}"));
                ExitCode::FAILURE
            }
        }
    })
}

/// Whether the check holds; nothing when it was interrupted. Processes and files are gone at the return, whatever happened.
async fn until_interrupted() -> Result<Option<bool>, String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut stage = Stage::new().map_err(|error| format!("no place for it: {error}"))?;
    let outcome = tokio::select! {
        outcome = Story::tell(&mut stage) => Some(outcome),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    match outcome {
        None => Ok(None),
        Some(Ok(holds)) => Ok(Some(holds)),
        Some(Err(Failure::Output(error))) => Err(format!("cannot print: {error}")),
        Some(Err(Failure::Stage(why))) => Err(format!("{why}{}", stage.logs())),
    }
}

struct Story<'a> {
    stage: &'a mut Stage,
    client: Client,
    show: Show,
    load: Load,
    begin: Instant,
    /// At the last line.
    commands: u64,
    line_at: Instant,
}

/// Why the demo could not be shown to its end.
enum Failure {
    /// Nobody sees it.
    Output(io::Error),
    /// A process or a client did not do its part.
    Stage(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Stage(why)
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self::Stage(why.to_owned())
    }
}

impl<'a> Story<'a> {
    async fn tell(stage: &'a mut Stage) -> Result<bool, Failure> {
        let show = Show::new(Style::of_stdout());
        let client = Client::new(stage.admin);
        stage.start_redis()?;
        wait(stage, "redis-server answers", async |stage| {
            is_answering(stage.upstream)
        })
        .await?;
        stage.start_tideover()?;
        let is_healthy = async |_: &mut Stage| mode(status(client).await.as_ref()) == "healthy";
        wait(stage, "tideover is healthy", is_healthy).await?;
        show.say(&format!(
            "{INTRODUCTION}\n4 clients -> tideover {} -> redis-server {}",
            stage.listen, stage.upstream
        ))?;
        let load = Load::start(stage.listen).map_err(|error| format!("no clients: {error}"))?;
        let begin = Instant::now();
        let mut story = Self {
            stage,
            client,
            show,
            load,
            begin,
            commands: 0,
            line_at: begin,
        };
        story.outage().await?;
        story.verdict().await
    }

    async fn outage(&mut self) -> Result<(), Failure> {
        self.phase("1. Redis is well: traffic flows through")?;
        self.show.heading()?;
        self.lines(BEFORE).await?;
        self.phase("2. redis-server is killed (SIGKILL): neutral reads, queued writes")?;
        self.stage.kill_redis().await?;
        self.lines(OUTAGE).await?;
        self.phase("3. redis-server is started again: the queued writes are replayed, in order")?;
        self.stage.start_redis()?;
        let deadline = Instant::now() + PATIENCE;
        while !self
            .line(REPLAY_LINE_INTERVAL)
            .await?
            .is_some_and(|status| is_caught_up(&status))
        {
            if Instant::now() > deadline {
                return Err(format!("tideover did not catch up within {} s", PATIENCE.as_secs()).into());
            }
        }
        self.phase("4. Redis is well: traffic flows through, nobody was restarted")?;
        self.lines(AFTER).await
    }

    fn phase(&self, text: &str) -> Result<(), Failure> {
        Ok(self.show.phase(text)?)
    }

    async fn lines(&mut self, how_long: Duration) -> Result<(), Failure> {
        let end = Instant::now() + how_long;
        while Instant::now() + LINE_INTERVAL / 2 < end {
            self.line(LINE_INTERVAL).await?;
        }
        Ok(())
    }

    /// One line, so long after the one before.
    async fn line(&mut self, interval: Duration) -> Result<Option<Value>, Failure> {
        sleep(interval.saturating_sub(self.line_at.elapsed())).await;
        let status = status(self.client).await;
        let counters = &self.load.counters;
        let commands = counters.commands.load(Relaxed);
        let elapsed_ms = u64::try_from(self.line_at.elapsed().as_millis()).unwrap_or(1).max(1);
        let moment = Moment {
            at: self.begin.elapsed(),
            state: String::new(),
            mode: String::new(),
            commands_per_s: commands.saturating_sub(self.commands) * 1000 / elapsed_ms,
            neutral: counters.neutral.load(Relaxed),
            queued: 0,
            replayed: 0,
            backlog: 0,
        };
        self.line_at = Instant::now();
        self.commands = commands;
        self.show.moment(&moment.with_status(status.as_ref()))?;
        match self.stage.ended() {
            Some(why) => Err(why.into()),
            None => Ok(status),
        }
    }

    async fn verdict(self) -> Result<bool, Failure> {
        self.phase("5. What clients were told, compared with what is in Redis")?;
        let Self {
            stage,
            client,
            show,
            load,
            ..
        } = self;
        let counters = std::sync::Arc::clone(&load.counters);
        let histories = load.stop().ok_or("a client of the demo panicked")?;
        wait(stage, "nothing is left to replay", async |_| {
            status(client).await.is_some_and(|status| is_caught_up(&status))
        })
        .await?;
        let status = status(client).await.ok_or("tideover says no status")?;
        let mut redis = Connection::open(stage.upstream).map_err(|error| format!("redis-server: {error}"))?;
        let mut findings = Findings::default();
        for history in &histories {
            findings.add(compare(&mut redis, history).map_err(|error| format!("redis-server: {error}"))?);
        }
        let summary = Summary::new(&counters, &status, findings);
        show.result(&summary)?;
        Ok(summary.holds())
    }
}

/// What is wrong with the keys of one client.
fn compare(redis: &mut Connection, history: &History) -> io::Result<Findings> {
    let keys = Keys::of(history.client);
    let list = items(redis.call(&["LRANGE", &keys.list, "0", "-1"])?)?;
    let pushed: Vec<u64> = list.iter().map(number).collect::<io::Result<_>>()?;
    let entries = items(redis.call(&["XRANGE", &keys.stream, "-", "+"])?)?;
    let added: Vec<u64> = entries.iter().map(entry).collect::<io::Result<_>>()?;
    let value = match redis.call(&["GET", &keys.value])? {
        Answer::Bulk(None) => None,
        answer => Some(number(&answer)?),
    };
    let mut findings = check::sequence(&history.pushes, &pushed);
    findings.add(check::sequence(&history.adds, &added));
    findings.add(check::last(&history.sets, value));
    Ok(findings)
}

fn unexpected(answer: &Answer) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected: {answer:?}"))
}

fn items(answer: Answer) -> io::Result<Vec<Answer>> {
    match answer {
        Answer::Array(items) => Ok(items),
        Answer::Status(_) | Answer::Error(_) | Answer::Integer(_) | Answer::Bulk(_) => Err(unexpected(&answer)),
    }
}

fn number(answer: &Answer) -> io::Result<u64> {
    let number = match answer {
        Answer::Bulk(Some(text)) => text.parse().ok(),
        Answer::Bulk(None) | Answer::Status(_) | Answer::Error(_) | Answer::Integer(_) | Answer::Array(_) => None,
    };
    number.ok_or_else(|| unexpected(answer))
}

/// The value in `[id, [field, value]]`.
fn entry(answer: &Answer) -> io::Result<u64> {
    if let Answer::Array(parts) = answer
        && let [_, Answer::Array(fields)] = parts.as_slice()
        && let [_, value] = fields.as_slice()
    {
        return number(value);
    }
    Err(unexpected(answer))
}

async fn status(client: Client) -> Option<Value> {
    let mut answer = Vec::new();
    client.converse(Method::GET, "/status", &mut answer).await.ok()?;
    serde_json::from_slice(&answer).ok()
}

fn mode(status: Option<&Value>) -> &str {
    status
        .and_then(|status| status["upstreams"][0]["mode"].as_str())
        .unwrap_or_default()
}

fn is_caught_up(status: &Value) -> bool {
    mode(Some(status)) == "healthy" && status["upstreams"][0]["queue"]["records"] == 0
}

fn is_answering(address: std::net::SocketAddr) -> bool {
    let answer = Connection::open(address).and_then(|mut redis| redis.call(&["PING"]));
    matches!(answer, Ok(Answer::Status(text)) if text == "PONG")
}

async fn wait(stage: &mut Stage, what: &str, condition: impl AsyncFn(&mut Stage) -> bool) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !condition(stage).await {
        if let Some(why) = stage.ended() {
            return Err(why);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {} s in vain until {what}", PATIENCE.as_secs()));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
