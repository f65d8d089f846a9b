//! `status`, `queue` and `dead-letters`: what they ask of a running tideover and how they show the answer.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use hyper::Method;
use serde_json::Value;

use super::client::{Client, ClientError};
use super::{AdminArgs, DeadLettersArgs, DeadLettersVerb, QueueArgs, QueueVerb, StatusArgs, say, table};

pub(super) fn status(args: StatusArgs) -> ExitCode {
    let client = client(args.admin);
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
    let client = client(args.admin);
    finish(name(client, args.upstream.as_deref()).and_then(|name| queue_verb(client, &name, args.verb)))
}

fn queue_verb(client: Client, name: &str, verb: QueueVerb) -> Result<(), ClientError> {
    let path = |rest: &str| format!("/upstreams/{name}/queue{rest}");
    match verb {
        QueueVerb::Status => print(&table::queue(&client.json(Method::GET, &path(""))?)),
        QueueVerb::Peek { count } => {
            let lines = text(client, &path(&format!("/peek?count={count}")))?;
            print(&table::records(&lines))
        }
        QueueVerb::Export => {
            let mut out = BufWriter::new(io::stdout().lock());
            client.fetch(Method::GET, &path("/export"), &mut out)?;
            Ok(out.flush()?)
        }
        QueueVerb::Pause => {
            client.json(Method::POST, &path("/pause"))?;
            print(&format!("{name}: replay is paused\n"))
        }
        QueueVerb::Resume => {
            client.json(Method::POST, &path("/resume"))?;
            print(&format!("{name}: replay goes on\n"))
        }
        QueueVerb::Drop => {
            let dropped = client.json(Method::POST, &path("/drop"))?;
            print(&format!("{name}: {} records dropped\n", dropped["dropped_records"]))
        }
    }
}

pub(super) fn dead_letters(args: &DeadLettersArgs) -> ExitCode {
    let client = client(args.admin);
    finish(name(client, args.upstream.as_deref()).and_then(|name| letters_verb(client, &name, args.verb)))
}

fn letters_verb(client: Client, name: &str, verb: DeadLettersVerb) -> Result<(), ClientError> {
    let path = |rest: &str| format!("/upstreams/{name}/dead-letters{rest}");
    let which = |sequence: Option<u64>| sequence.map(|sequence| format!("/{sequence}")).unwrap_or_default();
    match verb {
        DeadLettersVerb::List => print(&table::letters(&text(client, &path(""))?)),
        DeadLettersVerb::Show { sequence } => {
            let letter = client.json(Method::GET, &path(&format!("/{sequence}")))?;
            print(&table::letter(&letter))
        }
        DeadLettersVerb::Retry { sequence } => {
            let done = client.json(Method::POST, &path(&(which(sequence) + "/retry")))?;
            print(&format!("{name}: {} put behind the backlog again\n", done["retried"]))
        }
        DeadLettersVerb::Drop { sequence } => {
            let done = client.json(Method::POST, &path(&(which(sequence) + "/drop")))?;
            print(&format!("{name}: {} dropped\n", done["dropped"]))
        }
    }
}

fn client(admin: AdminArgs) -> Client {
    Client::new(admin.address)
}

/// The upstream that is meant: the one named, or the only one.
fn name(client: Client, named: Option<&str>) -> Result<String, ClientError> {
    let status = client.json(Method::GET, "/status")?;
    choose(&status, named).map_err(ClientError::Refused)
}

fn choose(status: &Value, named: Option<&str>) -> Result<String, String> {
    let upstreams = status["upstreams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = upstreams
        .iter()
        .filter_map(|upstream| upstream["name"].as_str())
        .collect();
    match (named, names.as_slice()) {
        (Some(named), names) if names.contains(&named) => Ok(named.to_owned()),
        (Some(named), names) => Err(format!("no upstream is named {named}; there are: {}", names.join(", "))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => Err(format!("--upstream must say which of: {}", names.join(", "))),
    }
}

fn text(client: Client, path: &str) -> Result<String, ClientError> {
    let mut answer = Vec::new();
    client.fetch(Method::GET, path, &mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn print(text: &str) -> Result<(), ClientError> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn finish(outcome: Result<(), ClientError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // `tideover queue export | head` has what it wanted.
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("tideover: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_only_upstream_need_not_be_named() {
        let one = json!({"upstreams": [{"name": "a"}]});
        let two = json!({"upstreams": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(choose(&one, None), Ok("a".to_owned()));
        assert_eq!(choose(&two, Some("b")), Ok("b".to_owned()));
        for (status, named) in [(&one, Some("b")), (&two, None), (&two, Some("a/b"))] {
            let error = choose(status, named).unwrap_err();
            assert!(error.contains('a'), "{error}");
        }
    }
}
