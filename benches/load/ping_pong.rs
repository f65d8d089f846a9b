//! Pairs of clients, each blocked in a BLPOP until the other pushes.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::connection::{Connection, Greeting, Matched, Progress};
use crate::drive::{Clock, Game, Start};
use crate::failure::Failure;
use crate::poll::Poll;
use crate::requests::request;
use crate::tally::Tally;

/// Longer than a run.
const BLOCK_SECONDS: &str = "600";
const PUSHED: &[u8] = b":1\r\n";
const RECEIVED_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// Has the ball, and is free to push it.
    Nothing,
    /// The reply to its LPUSH.
    Pushed,
    Ball,
}

/// The clients of pair n are number 2n and 2n + 1.
#[derive(Debug)]
struct Client {
    connection: Connection,
    matched: Matched,
    awaits: Awaits,
    pop: Vec<u8>,
    /// Into the other's list.
    push: Vec<u8>,
    ball: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct PingPong {
    clients: Vec<Client>,
    /// Of the hop under way, for each pair.
    intended_ns: Vec<u64>,
    /// Those who have a ball whose other half waits for it.
    free: VecDeque<usize>,
    received: Vec<u8>,
    poll: Poll,
}

impl PingPong {
    pub(crate) fn new(address: SocketAddr, clients: usize) -> Result<Self, Failure> {
        if clients == 0 || !clients.is_multiple_of(2) {
            return Err(Failure::Argument("clients play in pairs".into()));
        }
        let poll = Poll::new()?;
        let list = |token: usize| format!("ping-pong:{}:{token}", std::process::id());
        let client = |token: usize| -> Result<Client, Failure> {
            let (own, others) = (list(token), list(token ^ 1));
            let mut client = Client {
                connection: Connection::open(address, token, Greeting::PING, &poll)?,
                matched: Matched::default(),
                awaits: Awaits::Nothing,
                pop: request(&["BLPOP", &own, BLOCK_SECONDS]),
                push: request(&["LPUSH", &others, "o"]),
                ball: [
                    b"*2\r\n".as_slice(),
                    format!("${}\r\n{own}\r\n$1\r\no\r\n", own.len()).as_bytes(),
                ]
                .concat(),
            };
            if token % 2 == 1 {
                client.wait_for_ball(&poll)?;
            }
            Ok(client)
        };
        Ok(Self {
            clients: (0..clients).map(client).collect::<Result<_, _>>()?,
            intended_ns: vec![0; clients / 2],
            free: (0..clients).step_by(2).collect(),
            received: vec![0; RECEIVED_BYTES_MAX],
            poll,
        })
    }
}

impl Client {
    fn wait_for_ball(&mut self, poll: &Poll) -> Result<(), Failure> {
        self.awaits = Awaits::Ball;
        self.connection.send(&self.pop, poll)
    }
}

impl Game for PingPong {
    fn counted_per_start(&self) -> f64 {
        1.0
    }

    fn poll(&mut self) -> &mut Poll {
        &mut self.poll
    }

    fn start(&mut self, intended_ns: u64) -> Result<Start, Failure> {
        let Some(token) = self.free.pop_front() else {
            return Ok(Start::NobodyIsFree);
        };
        let client = &mut self.clients[token];
        self.intended_ns[token / 2] = intended_ns;
        client.awaits = Awaits::Pushed;
        client.connection.send(&client.push, &self.poll)?;
        Ok(Start::Started)
    }

    fn ready(&mut self, token: usize, clock: Clock, tally: &mut Tally) -> Result<(), Failure> {
        let client = &mut self.clients[token];
        client.connection.send_rest(&self.poll)?;
        let mut input = client.connection.receive(&mut self.received)?;
        let mut moved = false;
        while !input.is_empty() {
            let expected = match client.awaits {
                Awaits::Pushed => PUSHED,
                Awaits::Ball => &client.ball,
                Awaits::Nothing => return Matched::default().take(&mut input, b"\0").map(|_| ()),
            };
            if client.matched.take(&mut input, expected)? == Progress::Part {
                break;
            }
            moved = true;
            if client.awaits == Awaits::Pushed {
                client.wait_for_ball(&self.poll)?;
            } else {
                client.awaits = Awaits::Nothing;
                tally.answered(self.intended_ns[token / 2], clock.now_ns(), 1);
            }
        }
        if !moved {
            return Ok(());
        }
        // One has the ball and the other waits for it: the next hop may begin.
        let pair = [token & !1, token | 1];
        let awaits = pair.map(|one| self.clients[one].awaits);
        match awaits {
            [Awaits::Nothing, Awaits::Ball] => self.free.push_back(pair[0]),
            [Awaits::Ball, Awaits::Nothing] => self.free.push_back(pair[1]),
            _ => {}
        }
        Ok(())
    }

    fn under_way(&self) -> usize {
        self.intended_ns.len() - self.free.len()
    }
}
