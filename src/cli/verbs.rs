//! `status`, `queue` and `dead-letters`: what they ask, of a running tideover or of a stopped one's data directory, and how they
//! show the answer.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use hyper::Method;
use serde_json::Value;

use super::client::{Client, VerbError};
use super::stopped::Stopped;
use super::{AtArgs, DeadLettersArgs, DeadLettersVerb, QueueArgs, QueueVerb, StatusArgs, say, table};
use crate::admin::route::{Verb, Which};
use crate::config::{self, Flags, Outside};
use crate::replay::Rate;

pub(super) fn status(args: StatusArgs) -> ExitCode {
    let client = Client::new(args.admin.address);
    finish(client.json(Method::GET, "/status").and_then(|status| {
        if args.json {
            let mut text = serde_json::to_string_pretty(&status).unwrap_or_default();
            text.push('\n');
            print(&text)
        } else {
            print(&table::status(&status))
        }
    }))
}

pub(super) fn queue(args: &QueueArgs) -> ExitCode {
    let asked = Asked::find(&args.at, args.upstream.as_deref());
    finish(asked.and_then(|asked| queue_verb(&asked, &args.verb)))
}

fn queue_verb(asked: &Asked, verb: &QueueVerb) -> Result<(), VerbError> {
    let name = &asked.name;
    match verb {
        QueueVerb::Status => print(&table::queue(&asked.json(Verb::QueueStatus)?)),
        QueueVerb::Peek { count } => {
            let records_max = *count as usize;
            print(&table::records(&asked.text(Verb::Peek { records_max })?))
        }
        QueueVerb::Export => {
            let mut out = BufWriter::new(io::stdout().lock());
            asked.fetch(Verb::Export, &mut out)?;
            out.flush()?;
            if let Some(what) = table::exported(&asked.json(Verb::QueueStatus)?) {
                say(&format!("{name}: {what}"));
            }
            Ok(())
        }
        QueueVerb::Pause => {
            asked.json(Verb::Pause)?;
            print(&format!("{name}: replay is paused, also after a restart\n"))
        }
        QueueVerb::Resume => {
            asked.json(Verb::Resume)?;
            print(&format!("{name}: replay goes on\n"))
        }
        QueueVerb::Rate { max } => {
            asked.json(Verb::Rate(*max))?;
            let text = match max {
                Rate::Configured => "as configured".to_owned(),
                Rate::Unlimited => "not limited, also after a restart".to_owned(),
                Rate::Limited(max) => format!("at most {max} records/s, also after a restart"),
            };
            print(&format!("{name}: replay is {text}\n"))
        }
        QueueVerb::Drop => {
            let dropped = asked.json(Verb::DropBacklog)?;
            print(&format!("{name}: {} records dropped\n", dropped["dropped_records"]))
        }
    }
}

pub(super) fn dead_letters(args: &DeadLettersArgs) -> ExitCode {
    let asked = Asked::find(&args.at, args.upstream.as_deref());
    finish(asked.and_then(|asked| letters_verb(&asked, args.verb)))
}

fn letters_verb(asked: &Asked, verb: DeadLettersVerb) -> Result<(), VerbError> {
    let name = &asked.name;
    let which = |sequence: Option<u64>| sequence.map_or(Which::All, Which::One);
    match verb {
        DeadLettersVerb::List => print(&table::letters(&asked.text(Verb::Letters)?)),
        DeadLettersVerb::Show { sequence } => {
            let letter = asked.json(Verb::Letter { seq: sequence })?;
            print(&table::letter(&letter))
        }
        DeadLettersVerb::Retry { sequence } => {
            let done = asked.json(Verb::Retry(which(sequence)))?;
            print(&format!("{name}: {} put behind the backlog again\n", done["retried"]))
        }
        DeadLettersVerb::Drop { sequence } => {
            let done = asked.json(Verb::DropLetters(which(sequence)))?;
            print(&format!("{name}: {} dropped\n", done["dropped"]))
        }
    }
}

/// The upstream that a verb is about, and who is asked.
#[derive(Debug)]
struct Asked {
    name: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Running(Client),
    Stopped(Stopped),
}

impl Asked {
    fn find(at: &AtArgs, named: Option<&str>) -> Result<Self, VerbError> {
        if let Some(data_dir) = &at.data_dir {
            let (stopped, name) = Stopped::find(data_dir, named)?;
            let place = Place::Stopped(stopped);
            return Ok(Self { name, place });
        }
        let client = Client::new(at.admin.address);
        let status = client.json(Method::GET, "/status").map_err(name_the_other_way)?;
        let upstreams = status["upstreams"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names: Vec<String> = upstreams
            .iter()
            .filter_map(|upstream| upstream["name"].as_str().map(str::to_owned))
            .collect();
        Ok(Self {
            name: choose(&names, named)?,
            place: Place::Running(client),
        })
    }

    fn fetch(&self, verb: Verb, sink: &mut dyn Write) -> Result<(), VerbError> {
        match &self.place {
            Place::Stopped(stopped) => stopped.answer(verb, sink),
            Place::Running(client) => {
                let (method, path) = verb.request(&self.name);
                client.fetch(method, &path, sink)
            }
        }
    }

    fn text(&self, verb: Verb) -> Result<String, VerbError> {
        let mut answer = Vec::new();
        self.fetch(verb, &mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn json(&self, verb: Verb) -> Result<Value, VerbError> {
        let answer = self.text(verb)?;
        serde_json::from_str(&answer).map_err(|error| VerbError::Refused(format!("an answer that is no JSON: {error}")))
    }
}

/// The upstream that is meant: the one named, or the only one.
pub(super) fn choose(names: &[String], named: Option<&str>) -> Result<String, VerbError> {
    match (named, names) {
        (Some(named), names) if names.iter().any(|name| name == named) => Ok(named.to_owned()),
        (Some(named), names) => Err(VerbError::Refused(format!(
            "no upstream is named {named}; there are: {}",
            names.join(", ")
        ))),
        (None, [only]) => Ok(only.clone()),
        (None, names) => Err(VerbError::Usage(format!(
            "--upstream must say which of: {}",
            names.join(", ")
        ))),
    }
}

/// A tideover that does not run can be asked in its data directory.
fn name_the_other_way(error: VerbError) -> VerbError {
    match error {
        VerbError::Absent { .. } => {
            let outside = Outside {
                env: &|name| std::env::var(name).ok(),
                read: &|path| std::fs::read_to_string(path),
            };
            let data_dir = config::load(&Flags::default(), outside)
                .map_or_else(|_| "DIR".to_owned(), |settings| settings.data_dir.display().to_string());
            VerbError::Refused(format!(
                "{error}\n  if it is stopped: the same with --data-dir {data_dir}"
            ))
        }
        VerbError::Broken { .. } | VerbError::Refused(_) | VerbError::Usage(_) | VerbError::Output(_) => error,
    }
}

fn print(text: &str) -> Result<(), VerbError> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn finish(outcome: Result<(), VerbError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // `tideover queue export | head` has what it wanted.
        Err(VerbError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("tideover: {error}"));
            match error {
                VerbError::Usage(_) => ExitCode::from(2),
                VerbError::Absent { .. } | VerbError::Broken { .. } | VerbError::Refused(_) | VerbError::Output(_) => {
                    ExitCode::FAILURE
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_upstream_need_not_be_named() {
        let one = ["a".to_owned()];
        let two = ["a".to_owned(), "b".to_owned()];
        assert_eq!(choose(&one, None).unwrap(), "a");
        assert_eq!(choose(&two, Some("b")).unwrap(), "b");
        for (names, named) in [(&one[..], Some("b")), (&two, None), (&two, Some("a/b"))] {
            let error = choose(names, named).unwrap_err();
            assert!(error.to_string().contains('a'), "{error}");
            assert_eq!(matches!(error, VerbError::Usage(_)), named.is_none());
        }
    }
}
