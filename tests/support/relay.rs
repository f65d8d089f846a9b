//! Stands between tideover and a Redis: sees every request with the connection that it came on, and may answer in Redis's place.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Client, RedisServer};

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// Another request goes to Redis.
    Instead(Vec<String>),
    /// These bytes are the reply.
    Answer(Vec<u8>),
    /// The connection ends without a reply.
    Close,
    /// The connection ends behind these bytes.
    CloseAfter(Vec<u8>),
}

/// One request at a time per connection: a reply goes back before the next request is read.
#[derive(Debug)]
pub struct Relay {
    is_open: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(usize, String)>>>,
    streams: Arc<Mutex<BTreeMap<usize, TcpStream>>>,
    address: String,
}

impl Relay {
    /// Listens where `place` does not run, and passes on to `redis` what `judge` lets pass.
    pub fn start(
        place: &RedisServer,
        redis: &RedisServer,
        judge: impl Fn(&[String]) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(place.address()).unwrap();
        let relay = Self {
            is_open: Arc::new(AtomicBool::new(true)),
            seen: Arc::default(),
            streams: Arc::default(),
            address: place.address(),
        };
        let (is_open, seen, streams) = (relay.is_open.clone(), relay.seen.clone(), relay.streams.clone());
        let (redis, judge, next) = (redis.address(), Arc::new(judge), AtomicUsize::new(0));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if !is_open.load(Ordering::SeqCst) {
                    return;
                }
                let id = next.fetch_add(1, Ordering::Relaxed);
                streams.lock().unwrap().insert(id, stream.try_clone().unwrap());
                let (seen, streams, judge, redis) = (seen.clone(), streams.clone(), judge.clone(), redis.clone());
                std::thread::spawn(move || {
                    serve(id, &stream, &redis, &seen, &*judge);
                    let _ = stream.shutdown(Shutdown::Both);
                    streams.lock().unwrap().remove(&id);
                });
            }
        });
        relay
    }

    /// The connections that requests of this name came on, in order.
    pub fn connections_of(&self, name: &str) -> Vec<usize> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(_, request)| request.split(' ').next() == Some(name))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Every request with its connection, in order.
    pub fn requests(&self) -> Vec<(usize, String)> {
        self.seen.lock().unwrap().clone()
    }

    /// Nobody listens any more, and nobody is connected.
    pub fn close(&self) {
        if self.is_open.swap(false, Ordering::SeqCst) {
            // The acceptor looks only when somebody comes.
            drop(TcpStream::connect(&self.address));
            for stream in self.streams.lock().unwrap().values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(
    id: usize,
    stream: &TcpStream,
    redis: &str,
    seen: &Mutex<Vec<(usize, String)>>,
    judge: &dyn Fn(&[String]) -> Verdict,
) {
    let mut redis = Client::connect(redis);
    let mut input = BufReader::new(stream);
    let mut output = stream;
    while let Some(args) = request(&mut input) {
        seen.lock().unwrap().push((id, args.join(" ")));
        let reply = match judge(&args) {
            Verdict::Pass => redis.try_call(&args),
            Verdict::Instead(other) => redis.try_call(&other),
            Verdict::Answer(bytes) => Ok(bytes),
            Verdict::Close => return,
            Verdict::CloseAfter(bytes) => {
                let _ = output.write_all(&bytes);
                return;
            }
        };
        if reply.is_err() || output.write_all(&reply.unwrap()).is_err() {
            return;
        }
    }
}

fn request(input: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |input: &mut dyn BufRead| {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse::<usize>().ok()
    };
    let count = number(input)?;
    (0..count)
        .map(|_| {
            let mut bytes = vec![0; number(input)? + 2];
            input.read_exact(&mut bytes).ok()?;
            bytes.truncate(bytes.len() - 2);
            Some(String::from_utf8_lossy(&bytes).into_owned())
        })
        .collect()
}

/// A reply to COMMAND: name, arity, flags, first key, last key, step of each.
pub fn command_reply(entries: &[(&str, i64, &str, [i64; 3])]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", entries.len());
    for (name, arity, flags, keys) in entries {
        let flags: Vec<String> = flags.split_whitespace().map(|flag| format!("+{flag}\r\n")).collect();
        out += &format!("*6\r\n${}\r\n{name}\r\n:{arity}\r\n", name.len());
        out += &format!("*{}\r\n{}", flags.len(), flags.concat());
        for key in keys {
            out += &format!(":{key}\r\n");
        }
    }
    out.into_bytes()
}
