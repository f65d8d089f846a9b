//! A wire between tideover and a Redis, which can lose its signal without ending a connection, or become slow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::RedisServer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToRedis,
    FromRedis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// What is sent arrives so much later.
    After(Duration),
    /// What is sent is on its way until the flow is another one, and arrives then, whether or not its sender is still there.
    Held,
}

#[derive(Debug)]
struct Line {
    flow: Mutex<Flow>,
    changed: Condvar,
}

impl Line {
    fn new() -> Self {
        Self {
            flow: Mutex::new(Flow::After(Duration::ZERO)),
            changed: Condvar::new(),
        }
    }

    fn set(&self, flow: Flow) {
        *self.flow.lock().unwrap() = flow;
        self.changed.notify_all();
    }

    /// Waits until what was sent at `sent_at` arrives.
    fn arrive(&self, sent_at: Instant) {
        let mut flow = self.flow.lock().unwrap();
        loop {
            flow = match *flow {
                Flow::Held => self.changed.wait(flow).unwrap(),
                Flow::After(latency) => match latency.checked_sub(sent_at.elapsed()) {
                    None | Some(Duration::ZERO) => return,
                    Some(left) => self.changed.wait_timeout(flow, left).unwrap().0,
                },
            };
        }
    }
}

/// On their way at once, in one direction of one connection.
const PACKETS_MAX: usize = 64 << 10;

/// Both directions, for some connections.
#[derive(Debug, Clone)]
struct Lines {
    to_redis: Arc<Line>,
    from_redis: Arc<Line>,
}

impl Lines {
    fn new() -> Self {
        Self {
            to_redis: Arc::new(Line::new()),
            from_redis: Arc::new(Line::new()),
        }
    }

    fn of(&self, direction: Direction) -> &Line {
        match direction {
            Direction::ToRedis => &self.to_redis,
            Direction::FromRedis => &self.from_redis,
        }
    }
}

/// See the module. Its threads end with its connections.
#[derive(Debug)]
pub struct Wire {
    /// The last ones are those of connections to come.
    lines: Arc<Mutex<Vec<Lines>>>,
}

impl Wire {
    /// Listens where `place` does not run, and is connected to `redis`.
    pub fn start(place: &RedisServer, redis: &RedisServer) -> Self {
        let listener = TcpListener::bind(place.address()).unwrap();
        let wire = Self {
            lines: Arc::new(Mutex::new(vec![Lines::new()])),
        };
        let (lines, redis) = (wire.lines.clone(), redis.address());
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let current = lines.lock().unwrap().last().unwrap().clone();
                let redis = redis.clone();
                std::thread::spawn(move || {
                    // Redis has no connection before something arrives.
                    current.to_redis.arrive(Instant::now());
                    // A Redis that is not there is one that ends the connection.
                    let Ok(far) = TcpStream::connect(&redis) else { return };
                    join(&near, &far, &current.to_redis);
                    join(&far, &near, &current.from_redis);
                });
            }
        });
        wire
    }

    /// Nothing arrives any more in these directions, and nobody is told.
    pub fn hold(&self, directions: &[Direction]) {
        for lines in self.lines.lock().unwrap().iter() {
            for direction in directions {
                lines.of(*direction).set(Flow::Held);
            }
        }
    }

    /// As [`Wire::hold`], but connections that are made from now on have a way of their own.
    pub fn strand(&self, directions: &[Direction]) {
        self.hold(directions);
        self.lines.lock().unwrap().push(Lines::new());
    }

    /// Everything arrives, also what has been sent meanwhile.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
    }

    /// Every reply arrives so much later.
    pub fn delay(&self, latency: Duration) {
        for lines in self.lines.lock().unwrap().iter() {
            lines.to_redis.set(Flow::After(Duration::ZERO));
            lines.from_redis.set(Flow::After(latency));
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.heal();
    }
}

fn join(from: &TcpStream, to: &TcpStream, line: &Arc<Line>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let line = Arc::clone(line);
    let (sender, receiver): (SyncSender<(Instant, Vec<u8>)>, Receiver<_>) = sync_channel(PACKETS_MAX);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        // The end and a reset arrive behind what was sent before, as the end.
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now(), buffer[..read].to_vec())).is_err() {
                return;
            }
        }
        let _ = sender.send((Instant::now(), Vec::new()));
    });
    std::thread::spawn(move || {
        while let Ok((sent_at, bytes)) = receiver.recv() {
            line.arrive(sent_at);
            if bytes.is_empty() {
                let _ = to.shutdown(Shutdown::Write);
            } else if to.write_all(&bytes).is_err() {
                return;
            }
        }
    });
}
