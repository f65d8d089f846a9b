//! Clients that ask and are answered.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::connection::{Connection, Greeting, Matched, Progress};
use crate::drive::{Clock, Game, Start};
use crate::failure::Failure;
use crate::poll::Poll;
use crate::requests::Requests;
use crate::sources::Sources;
use crate::tally::Tally;

const RECEIVED_BYTES_MAX: usize = 256 * 1024;

/// Whether clients keep their connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    Connected,
    ForOneAnswer,
}

#[derive(Debug)]
struct Client {
    connection: Option<Connection>,
    matched: Matched,
    /// Which batch is under way.
    which: usize,
    intended_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Asks {
    address: SocketAddr,
    sources: Sources,
    requests: Requests,
    stay: Stay,
    clients: Vec<Client>,
    /// The one that has been free for longest is next.
    free: VecDeque<usize>,
    received: Vec<u8>,
    poll: Poll,
}

impl Asks {
    pub(crate) fn new(address: SocketAddr, requests: Requests, clients: usize, stay: Stay) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let connect = |token| match stay {
            Stay::Connected => Connection::open(address, token, Greeting::of(token), &poll).map(Some),
            Stay::ForOneAnswer => Ok(None),
        };
        let client = |token| {
            connect(token).map(|connection| Client {
                connection,
                matched: Matched::default(),
                which: 0,
                intended_ns: 0,
            })
        };
        Ok(Self {
            address,
            sources: Sources::new(),
            requests,
            stay,
            clients: (0..clients).map(client).collect::<Result<_, _>>()?,
            free: (0..clients).collect(),
            received: vec![0; RECEIVED_BYTES_MAX],
            poll,
        })
    }
}

impl Game for Asks {
    fn counted_per_start(&self) -> f64 {
        self.requests.pipeline() as f64
    }

    fn poll(&mut self) -> &mut Poll {
        &mut self.poll
    }

    fn start(&mut self, intended_ns: u64) -> Result<Start, Failure> {
        let Some(token) = self.free.pop_front() else {
            return Ok(Start::NobodyIsFree);
        };
        let client = &mut self.clients[token];
        client.intended_ns = intended_ns;
        let connection = match client.connection.take() {
            Some(connection) => connection,
            None => Connection::knock(self.address, &mut self.sources, token, &self.poll)?,
        };
        let connection = client.connection.insert(connection);
        let (which, bytes) = self.requests.next();
        client.which = which;
        connection.send(bytes, &self.poll)?;
        Ok(Start::Started)
    }

    fn ready(&mut self, token: usize, clock: Clock, tally: &mut Tally) -> Result<(), Failure> {
        let client = &mut self.clients[token];
        let Some(connection) = &mut client.connection else {
            return Ok(());
        };
        connection.send_rest(&self.poll)?;
        let mut input = connection.receive(&mut self.received)?;
        if input.is_empty() {
            return Ok(());
        }
        if client.matched.take(&mut input, self.requests.reply(client.which))? == Progress::Part {
            return Ok(());
        }
        // Something unasked: nothing is expected, so anything is wrong.
        if !input.is_empty() {
            return Matched::default().take(&mut input, b"\0").map(|_| ());
        }
        tally.answered(client.intended_ns, clock.now_ns(), self.requests.pipeline());
        if self.stay == Stay::ForOneAnswer {
            client.connection = None;
        }
        self.free.push_back(token);
        Ok(())
    }

    fn under_way(&self) -> usize {
        self.clients.len() - self.free.len()
    }
}
