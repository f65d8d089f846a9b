//! The command line: arguments in, exit code out.

mod args;
mod client;
mod demo;
mod stopped;
mod table;
mod verbs;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

pub use args::{
    AdminArgs, AtArgs, Cli, Command, DeadLettersArgs, DeadLettersVerb, QueueArgs, QueueVerb, RunArgs, StatusArgs,
};

use crate::config::{self, Outside, Settings};

/// Runs what the process's arguments ask for. Wrong usage exits 2, a wrong configuration 78.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => dispatch(cli),
        Err(error) => {
            // Help and version go to standard output and exit 0.
            let printed = error.print();
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            ExitCode::from(if printed.is_ok() { code } else { code.max(1) })
        }
    }
}

fn dispatch(cli: Cli) -> ExitCode {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => load(args).map_or_else(|code| code, run),
        Command::Check(args) => load(args).map_or_else(|code| code, |settings| check(&settings)),
        Command::Status(args) => verbs::status(args),
        Command::Queue(args) => verbs::queue(&args),
        Command::DeadLetters(args) => verbs::dead_letters(&args),
        Command::Demo => demo::demo(),
    }
}

/// The settings, or the exit code once all faults are on standard error.
fn load(args: RunArgs) -> Result<Settings, ExitCode> {
    let env = |name: &str| std::env::var(name).ok();
    let read = |path: &Path| std::fs::read_to_string(path);
    config::load(&args.into(), Outside { env: &env, read: &read }).map_err(|error| {
        say(&error.to_string());
        ExitCode::from(error.exit_code())
    })
}

fn check(settings: &Settings) -> ExitCode {
    match io::stdout().write_all(config::effective(settings).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("cannot print: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(settings: Settings) -> ExitCode {
    crate::server::run(&settings)
}

/// To standard error; when even that is closed there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
