//! The command line as clap reads it. What the flags of `run` mean is for `config` to say.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::admin::route;
use crate::config::Flags;
use crate::replay::Rate;

/// A sidecar proxy that tides an application over a Redis outage.
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(name = "tideover", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Without a subcommand: `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve clients (what happens without a subcommand)
    Run(RunArgs),
    /// Validate the configuration and print what is in effect, passwords hidden
    Check(RunArgs),
    /// Say how a running tideover is
    Status(StatusArgs),
    /// Look at the journal of a tideover, running or stopped, or steer its replay
    Queue(QueueArgs),
    /// Look at the records that replay had to set aside, try them again or drop them
    DeadLetters(DeadLettersArgs),
    /// Start, kill and restart a real redis-server under load, and show what happens
    Demo,
}

/// Every flag can be given in the environment too; a flag stands above the environment, that above the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Configuration file (TOML) [env: TIDEOVER_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where clients connect: host:port or unix:/path [env: TIDEOVER_LISTEN] [default: 127.0.0.1:6380]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// The Redis behind: redis://[user:password@]host[:port][/db], rediss://… with TLS, or unix:///path[?db=N] [env: TIDEOVER_UPSTREAM] [default: redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Where the journals are [env: TIDEOVER_DATA_DIR] [default: ./tideover-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Metrics, health, status and the page for people [env: TIDEOVER_ADMIN] [default: 127.0.0.1:9122]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Threads that serve clients [env: TIDEOVER_WORKERS] [default: the cgroup's CPU limit, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// How log lines look, on standard error [env: TIDEOVER_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["text", "json"]))]
    pub log_format: Option<String>,
    /// Which log lines are written [env: TIDEOVER_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]))]
    pub log_level: Option<String>,
}

/// Where the running tideover is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct AdminArgs {
    /// The admin address of the running tideover
    #[arg(
        id = "admin_address",
        long = "admin",
        value_name = "ADDR",
        env = "TIDEOVER_ADMIN",
        default_value = "127.0.0.1:9122",
        global = true
    )]
    pub address: SocketAddr,
}

/// Who is asked: a running tideover, or the data directory of a stopped one.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct AtArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    /// The data directory of a stopped tideover, instead of a running one. (TIDEOVER_DATA_DIR says nothing here: it is there for
    /// the running one.)
    #[arg(id = "stopped_data_dir", long = "data-dir", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    /// As JSON, as `/status` says it
    #[arg(long, env = "TIDEOVER_JSON")]
    pub json: bool,
}

#[derive(Debug, PartialEq, Eq, Args)]
pub struct QueueArgs {
    #[command(flatten)]
    pub at: AtArgs,
    /// The upstream's name; may be left out when there is one only. (TIDEOVER_UPSTREAM is a URL, so this has no variable.)
    #[arg(id = "upstream_name", long = "upstream", value_name = "NAME", global = true)]
    pub upstream: Option<String>,
    #[command(subcommand)]
    pub verb: QueueVerb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum QueueVerb {
    /// How much is waiting, and since when
    Status,
    /// Show the oldest records
    Peek {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
    },
    /// Stop replaying until `resume`, also across restarts
    Pause,
    /// Go on replaying
    Resume,
    /// Bound how fast replay goes, also while it goes on
    Rate {
        /// Records per second; `off`: no bound; `configured`: what the configuration says
        #[arg(value_parser = rate)]
        max: Rate,
    },
    /// Write the backlog to standard output, as `redis-cli --pipe` takes it
    Export,
    /// Throw the backlog away
    Drop,
}

#[derive(Debug, PartialEq, Eq, Args)]
pub struct DeadLettersArgs {
    #[command(flatten)]
    pub at: AtArgs,
    /// The upstream's name; may be left out when there is one only. (TIDEOVER_UPSTREAM is a URL, so this has no variable.)
    #[arg(id = "upstream_name", long = "upstream", value_name = "NAME", global = true)]
    pub upstream: Option<String>,
    #[command(subcommand)]
    pub verb: DeadLettersVerb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum DeadLettersVerb {
    /// One line for each: sequence number, reason, command
    List,
    /// The whole record
    Show { sequence: u64 },
    /// Put one record (or all) behind the backlog again
    Retry { sequence: Option<u64> },
    /// Throw one record (or all) away
    Drop { sequence: Option<u64> },
}

fn rate(text: &str) -> Result<Rate, String> {
    route::rate(text).ok_or_else(|| "records per second, off, or configured".to_owned())
}

impl From<RunArgs> for Flags {
    fn from(args: RunArgs) -> Self {
        let RunArgs {
            config,
            listen,
            upstream,
            data_dir,
            admin,
            workers,
            log_format,
            log_level,
        } = args;
        Self {
            config,
            listen,
            upstream,
            data_dir,
            admin,
            workers: workers.map(|workers| workers.to_string()),
            log_format,
            log_level,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tideover").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_what_happens_without_a_subcommand() {
        let flags = "--listen h:1 --upstream redis://h --data-dir d --admin h:2 --workers 2 --log-format json --log-level debug";
        let bare = parse(flags).unwrap();
        assert_eq!(bare.command, None);
        let Some(Command::Run(named)) = parse(&format!("run {flags}")).unwrap().command else {
            panic!("not run");
        };
        assert_eq!(bare.run, named);
        assert_eq!(Flags::from(named).workers.as_deref(), Some("2"));
        assert_eq!(parse("").unwrap().run, RunArgs::default());
    }

    #[test]
    fn verbs_take_the_upstream_on_either_side() {
        for line in ["queue --upstream a pause", "queue pause --upstream a"] {
            let Some(Command::Queue(args)) = parse(line).unwrap().command else {
                panic!("{line}");
            };
            assert_eq!(
                (args.upstream.as_deref(), args.verb),
                (Some("a"), QueueVerb::Pause),
                "{line}"
            );
        }
        let Some(Command::DeadLetters(args)) = parse("dead-letters show 7").unwrap().command else {
            panic!("not dead-letters");
        };
        assert_eq!(args.verb, DeadLettersVerb::Show { sequence: 7 });
        let Some(Command::Status(args)) = parse("status --admin 127.0.0.1:1 --json").unwrap().command else {
            panic!("not status");
        };
        assert_eq!((args.admin.address.port(), args.json), (1, true));
    }

    #[test]
    fn wrong_usage_exits_2() {
        for line in [
            "--nonsense",
            "walk",
            "queue",
            "queue walk",
            "dead-letters show",
            "dead-letters show x",
            "queue rate",
            "queue rate 0",
            "queue rate fast",
            "run --workers 0",
            "run --workers x",
            "--log-format xml",
            "--log-level loud",
            "--listen",
            "--listen h:1 check",
            "status --admin x",
            "demo now",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
        assert_eq!(parse("--help").unwrap_err().exit_code(), 0);
    }
}
