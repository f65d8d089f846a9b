//! The way between tideover and Redis: it can hold what is on it, end, lead nowhere, or lead to another server. It knows bytes only.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::support::{Port, RedisServer};

/// Whether what a connection carries towards Redis gets there, its end too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    Free,
    Held,
    /// The connection is over: nothing gets there any more.
    Ended,
}

/// Whether the answer to an EXEC comes back, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exec {
    Answered,
    Unanswered,
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    passage: Mutex<Passage>,
    changed: Condvar,
    is_mute: AtomicBool,
}

impl Connection {
    fn set(&self, passage: Passage) {
        *self.passage.lock().unwrap() = passage;
        self.changed.notify_all();
    }

    /// Waits while the passage is held; false at its end.
    fn may_pass(&self) -> bool {
        let passage = self.passage.lock().unwrap();
        let passage = self
            .changed
            .wait_while(passage, |passage| *passage == Passage::Held)
            .unwrap();
        *passage == Passage::Free
    }

    fn end(&self) {
        self.set(Passage::Ended);
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// Client to server.
    fn upward(&self, state: &State) {
        let (mut from, mut to) = (&self.client, &self.server);
        let mut buffer = vec![0; 64 << 10];
        loop {
            // Held is what was read before, too, and the end, orderly or not.
            let read = from.read(&mut buffer).unwrap_or(0);
            if !self.may_pass() {
                return;
            }
            let has_exec = buffer[..read].windows(8).any(|window| window == b"$4\r\nEXEC");
            if has_exec && *state.exec.lock().unwrap() == Exec::Unanswered {
                self.is_mute.store(true, Ordering::SeqCst);
            }
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                let _ = self.server.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    /// Server to client.
    fn downward(&self) {
        let (mut from, mut to) = (&self.server, &self.client);
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read) = from.read(&mut buffer) {
            if read == 0 {
                break;
            }
            if !self.is_mute.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = self.client.shutdown(Shutdown::Write);
    }
}

#[derive(Debug)]
struct State {
    /// Where new connections lead; nowhere: they end at once.
    target: Mutex<Option<String>>,
    is_over: AtomicBool,
    exec: Mutex<Exec>,
    connections: Mutex<Vec<Arc<Connection>>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Way {
    port: Port,
    state: Arc<State>,
}

impl Way {
    pub(crate) fn to(redis: &RedisServer) -> Self {
        let port = Port::reserve();
        let listener = TcpListener::bind(port.address()).unwrap();
        let state = Arc::new(State {
            target: Mutex::new(Some(redis.address())),
            is_over: AtomicBool::new(false),
            exec: Mutex::new(Exec::Answered),
            connections: Mutex::default(),
        });
        let here = Arc::clone(&state);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if here.is_over.load(Ordering::SeqCst) {
                    return;
                }
                accept(&here, client);
            }
        });
        Self { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// What present connections send from now on gets to Redis only when it is released, their end too. New ones are free.
    pub(crate) fn hold(&self) {
        for connection in self.state.connections.lock().unwrap().iter() {
            connection.set(Passage::Held);
        }
    }

    /// Whether a present connection has been reset by its client since this was last asked.
    pub(crate) fn take_reset(&self) -> bool {
        let connections = self.state.connections.lock().unwrap();
        let resets = connections
            .iter()
            .filter(|connection| connection.client.take_error().unwrap().is_some());
        resets.count() > 0
    }

    pub(crate) fn release(&self) {
        for connection in self.state.connections.lock().unwrap().iter() {
            connection.set(Passage::Free);
        }
    }

    pub(crate) fn set_exec(&self, exec: Exec) {
        *self.state.exec.lock().unwrap() = exec;
    }

    /// New connections end at once, and the present ones now.
    pub(crate) fn close(&self) {
        *self.state.target.lock().unwrap() = None;
        self.cut();
    }

    /// New connections lead there; the present ones stay.
    pub(crate) fn lead_to(&self, redis: &RedisServer) {
        *self.state.target.lock().unwrap() = Some(redis.address());
    }

    /// Ends the present connections, on both sides.
    pub(crate) fn cut(&self) {
        for connection in self.state.connections.lock().unwrap().drain(..) {
            connection.end();
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        self.close();
        // The acceptor looks only when somebody comes.
        drop(TcpStream::connect(self.port.address()));
    }
}

fn accept(state: &Arc<State>, client: TcpStream) {
    // Locked until the connection is listed, so that whoever closes the way afterwards ends it.
    let target = state.target.lock().unwrap();
    let Some(server) = target.as_ref().and_then(|target| TcpStream::connect(target).ok()) else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let connection = Arc::new(Connection {
        client,
        server,
        passage: Mutex::new(Passage::Free),
        changed: Condvar::new(),
        is_mute: AtomicBool::new(false),
    });
    state.connections.lock().unwrap().push(Arc::clone(&connection));
    let (other, state) = (Arc::clone(&connection), Arc::clone(state));
    std::thread::spawn(move || connection.upward(&state));
    std::thread::spawn(move || other.downward());
}
