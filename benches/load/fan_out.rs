//! One client publishes, many others must each get every message, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::connection::{Connection, Greeting, Matched, Progress};
use crate::drive::{Clock, Game, Start};
use crate::failure::Failure;
use crate::poll::Poll;
use crate::requests::{DIGITS, request, write_digits};
use crate::tally::Tally;

/// At a fixed rate no more messages are on their way: Redis closes subscribers that fall far behind.
pub(crate) const ON_THEIR_WAY_MAX: usize = 256;
const RECEIVED_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
struct Subscriber {
    connection: Connection,
    matched: Matched,
    /// Number of the message that it awaits.
    next: u64,
}

#[derive(Debug)]
struct Message {
    intended_ns: u64,
    deliveries_left: usize,
}

#[derive(Debug)]
pub(crate) struct FanOut {
    publisher: Connection,
    publisher_matched: Matched,
    publish: Vec<u8>,
    publish_reply: Vec<u8>,
    /// Messages without a reply to their PUBLISH.
    unanswered: usize,
    subscribers: Vec<Subscriber>,
    message: Vec<u8>,
    /// In the order of their numbers, `first` being that of the first.
    on_their_way: VecDeque<Message>,
    first: u64,
    window: usize,
    received: Vec<u8>,
    poll: Poll,
}

impl FanOut {
    pub(crate) fn new(address: SocketAddr, subscribers: usize, window: usize) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let channel = format!("fan-out:{}", std::process::id());
        let head = |kind: &str| format!("*3\r\n${}\r\n{kind}\r\n${}\r\n{channel}\r\n", kind.len(), channel.len());
        let numbered = |kind: &str| format!("{}${DIGITS}\r\n{:0DIGITS$}\r\n", head(kind), 0).into_bytes();
        let subscribed = format!("{}:1\r\n", head("subscribe"));
        let greeting = Greeting {
            request: &request(&["SUBSCRIBE", &channel]),
            reply: subscribed.as_bytes(),
        };
        let subscribe = |token| {
            Ok(Subscriber {
                connection: Connection::open(address, token, greeting, &poll)?,
                matched: Matched::default(),
                next: 0,
            })
        };
        Ok(Self {
            publisher: Connection::open(address, subscribers, Greeting::PING, &poll)?,
            publisher_matched: Matched::default(),
            publish: numbered("PUBLISH"),
            publish_reply: format!(":{subscribers}\r\n").into_bytes(),
            unanswered: 0,
            subscribers: (0..subscribers).map(subscribe).collect::<Result<_, Failure>>()?,
            message: numbered("message"),
            on_their_way: VecDeque::with_capacity(window),
            first: 0,
            window,
            received: vec![0; RECEIVED_BYTES_MAX],
            poll,
        })
    }

    fn published(&mut self) -> Result<(), Failure> {
        self.publisher.send_rest(&self.poll)?;
        let mut input = self.publisher.receive(&mut self.received)?;
        while !input.is_empty() {
            if self.publisher_matched.take(&mut input, &self.publish_reply)? == Progress::Whole {
                self.unanswered -= 1;
            }
        }
        Ok(())
    }

    fn delivered(&mut self, token: usize, clock: Clock, tally: &mut Tally) -> Result<(), Failure> {
        let subscriber = &mut self.subscribers[token];
        let mut input = subscriber.connection.receive(&mut self.received)?;
        let now_ns = clock.now_ns();
        while !input.is_empty() {
            set_number(&mut self.message, subscriber.next);
            if subscriber.matched.take(&mut input, &self.message)? == Progress::Part {
                break;
            }
            let at = (subscriber.next - self.first) as usize;
            let Some(message) = self.on_their_way.get_mut(at) else {
                return Err(Failure::WrongReply {
                    got: "a message".into(),
                    expected: "nothing".into(),
                });
            };
            message.deliveries_left -= 1;
            tally.answered(message.intended_ns, now_ns, 1);
            subscriber.next += 1;
        }
        while self
            .on_their_way
            .front()
            .is_some_and(|message| message.deliveries_left == 0)
        {
            self.on_their_way.pop_front();
            self.first += 1;
        }
        Ok(())
    }
}

/// Both kinds of bytes end with it.
fn set_number(bytes: &mut [u8], number: u64) {
    let end = bytes.len() - "\r\n".len();
    write_digits(&mut bytes[end - DIGITS..end], number);
}

impl Game for FanOut {
    fn counted_per_start(&self) -> f64 {
        self.subscribers.len() as f64
    }

    fn poll(&mut self) -> &mut Poll {
        &mut self.poll
    }

    fn start(&mut self, intended_ns: u64) -> Result<Start, Failure> {
        if self.under_way() >= self.window {
            return Ok(Start::NobodyIsFree);
        }
        set_number(&mut self.publish, self.first + self.on_their_way.len() as u64);
        self.on_their_way.push_back(Message {
            intended_ns,
            deliveries_left: self.subscribers.len(),
        });
        self.unanswered += 1;
        self.publisher.send(&self.publish, &self.poll)?;
        Ok(Start::Started)
    }

    fn ready(&mut self, token: usize, clock: Clock, tally: &mut Tally) -> Result<(), Failure> {
        if token == self.subscribers.len() {
            self.published()
        } else {
            self.delivered(token, clock, tally)
        }
    }

    fn under_way(&self) -> usize {
        self.on_their_way.len().max(self.unanswered)
    }
}
