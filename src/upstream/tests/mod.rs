mod dedicated;
mod leaving;
mod lost;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::burst::{Sender, Uring};
use super::connections::ConnectionFile;
use super::known::Known;
use super::link::{Fate, Flush, InFlight, Link, LinkKey, LinkKind, LinkState, Piece, Recipient, Watched};
use super::local::Local;
use super::settings::{Address, Identity, Timeouts};
use super::shared::{Mode, Shared, Sign, Target};
use super::turn::Turn;
use crate::resp::Protocol;
use crate::resp::request::OwnedRequest;
use crate::resp::scan::{Limits, Scan, Scanner};

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(5);

/// Notes what it is told, as `verb seq text`; judges as a session does.
#[derive(Default)]
struct Recorder {
    events: RefCell<Vec<String>>,
    told: Notify,
    write_behind: Cell<bool>,
}

impl Recorder {
    fn note(&self, event: String) {
        self.events.borrow_mut().push(event);
        self.told.notify_one();
    }

    /// The first `count` events, once there are as many.
    async fn events(&self, count: usize) -> Vec<String> {
        while self.events.borrow().len() < count {
            let waited = timeout(HANG, self.told.notified()).await;
            assert!(waited.is_ok(), "only {:?}", self.events.borrow());
        }
        self.events.borrow().clone()
    }
}

fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.replace("\r\n", " ").trim_end().to_owned()
}

/// The arguments of a request, joined by blanks.
fn said(request: &[u8]) -> String {
    let mut scanner = Scanner::default();
    match scanner.scan(request, &Limits::default()) {
        Ok(Scan::Request { len }) => {
            let request = crate::resp::Request::new(&request[..len], scanner.spans());
            let args: Vec<String> = request.args_from(0).map(plain).collect();
            args.join(" ")
        }
        other => panic!("{other:?} for {}", request.escape_ascii()),
    }
}

impl Sender for Recorder {
    fn flush(&self) {}
}

impl Recipient for Recorder {
    fn reply(&self, seq: u64, bytes: &[u8], piece: Piece, _: InFlight) -> Flush {
        self.note(format!("{piece:?} {seq} {}", plain(bytes)));
        Flush::Wanted
    }
    fn push(&self, bytes: &[u8], _: Piece) -> Flush {
        self.note(format!("push {}", plain(bytes)));
        Flush::NotWanted
    }
    fn not_executed(&self, seq: u64, request: &[u8], class: InFlight) {
        self.note(format!("not_executed {seq} {} {class:?}", said(request)));
    }
    fn taken_back(&self, seq: u64, request: &[u8], class: InFlight) {
        self.note(format!("taken_back {seq} {} {class:?}", said(request)));
    }
    fn judge(&self, class: InFlight) -> Fate {
        match class {
            InFlight::Read if !self.write_behind.get() => Fate::Again,
            InFlight::Read | InFlight::ReadAgain => Fate::Neutral,
            InFlight::Write | InFlight::Queued => {
                self.write_behind.set(true);
                Fate::Uncertain
            }
        }
    }
    fn lost(&self, seq: u64, request: &[u8], _: InFlight, verdict: Fate) {
        self.note(format!("lost {seq} {} {verdict:?}", said(request)));
    }
    fn denied(&self, seq: u64, error: &str) {
        self.note(format!("denied {seq} {error}"));
    }
    fn ended(&self) {
        self.note("ended".into());
    }
    fn has_room(&self, _: LinkKind, _: &std::task::Waker) -> bool {
        true
    }
    fn give_up(&self) {}
}

/// One worker's upstream, and the place where the fake Redis listens.
struct World {
    local: Rc<Local>,
    listener: TcpListener,
    generation: Arc<AtomicU64>,
    confirmed: Rc<Cell<u64>>,
    signs: RefCell<mpsc::Receiver<Sign>>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(Uring::Off).await
    }

    async fn with(uring: Uring) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            name: "main".into(),
            address: Address::Tcp {
                host: "127.0.0.1".into(),
                port: listener.local_addr().unwrap().port(),
            },
            db: 1,
            credentials: None,
            password_file: None,
            timeouts: Timeouts {
                connect: HANG,
                command: HANG,
            },
            hold_timeout: HANG * 4,
        };
        let generation = Arc::new(AtomicU64::new(2));
        let (shared, signs) = Shared::new(
            target,
            ConnectionFile::open(&dir.path().join("connections")).unwrap(),
            Known::open(&dir.path().join("known"), [0; 16]).unwrap(),
            Arc::clone(&generation),
            1,
        );
        let confirmed = Rc::new(Cell::new(0));
        let confirm = Rc::clone(&confirmed);
        let confirm: Box<dyn Fn(u64)> = Box::new(move |generation| confirm.set(generation));
        Self {
            local: Local::new(shared, 0, Rc::new(Turn::new(uring)), confirm),
            listener,
            generation,
            confirmed,
            signs: RefCell::new(signs),
            _dir: dir,
        }
    }

    fn lane(&self) -> Rc<Link> {
        self.local.lane(&key())
    }

    fn move_to(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
        self.local.look();
    }

    /// The fake Redis takes a connection and answers its handshake.
    async fn accept(&self, redis: &Redis) -> Peer {
        let mut peer = self.accept_silently().await;
        for _ in 0..6 {
            let request = peer.request().await;
            let reply = redis.introduction(&request);
            peer.say(&reply).await;
        }
        peer
    }

    async fn accept_silently(&self) -> Peer {
        let (stream, _) = timeout(HANG, self.listener.accept()).await.unwrap().unwrap();
        Peer {
            stream,
            input: Vec::new(),
        }
    }

    fn on_file(&self) -> usize {
        self.local.shared.connections.count()
    }

    fn sign(&self) -> Option<Sign> {
        self.signs.borrow_mut().try_recv().ok()
    }
}

fn key() -> LinkKey {
    LinkKey {
        db: 1,
        identity: Identity::Url,
        protocol: Protocol::Resp2,
    }
}

struct Redis {
    role: &'static str,
    select: &'static str,
}

const MASTER: Redis = Redis {
    role: "master",
    select: "+OK",
};

impl Redis {
    fn introduction(&self, request: &str) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        match request {
            "HELLO 2" => format!("*2\r\n{}{}", bulk("role"), bulk(self.role)),
            "CLIENT INFO" => bulk("id=7 addr=127.0.0.1:40000 laddr=127.0.0.1:6379"),
            "PING" => "+PONG\r\n".into(),
            "INFO server" => bulk("# Server\r\nrun_id:aaaa\r\n"),
            "TIME" => format!("*2\r\n{}{}", bulk("1700000000"), bulk("0")),
            "SELECT 1" => format!("{}\r\n", self.select),
            other => panic!("{other} is no part of the handshake"),
        }
    }
}

/// The fake Redis's end of a connection.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Peer {
    async fn request(&mut self) -> String {
        loop {
            let mut scanner = Scanner::default();
            if let Ok(Scan::Request { len }) = scanner.scan(&self.input, &Limits::default()) {
                let request: Vec<u8> = self.input.drain(..len).collect();
                return said(&request);
            }
            let read = timeout(HANG, self.stream.read_buf(&mut self.input)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "end of file instead of a request");
        }
    }

    async fn say(&mut self, reply: &str) {
        self.stream.write_all(reply.as_bytes()).await.unwrap();
    }

    /// Waits for the end of what we send; nothing but that may come.
    async fn read_end_of_file(&mut self) {
        let read = timeout(HANG, self.stream.read_buf(&mut self.input)).await;
        assert_eq!(read.expect("no half-close").unwrap(), 0, "{}", plain(&self.input));
        assert!(self.input.is_empty());
    }
}

fn push(link: &Link, to: &Rc<Recorder>, seq: u64, words: &str, class: InFlight) {
    let args: Vec<&str> = words.split(' ').collect();
    let recipient: Rc<Recorder> = Rc::clone(to);
    link.push(
        recipient,
        seq,
        OwnedRequest::new(&args).as_request().frame(),
        class,
        Watched::Yes,
        0,
    );
}

fn run(test: impl Future<Output = ()> + 'static) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async { timeout(HANG * 4, test).await.expect("it hangs") });
}

#[test]
fn requests_of_many_share_a_lane_and_each_gets_its_own_replies_in_order() {
    run(async {
        let world = World::new().await;
        let (one, two) = (Rc::new(Recorder::default()), Rc::new(Recorder::default()));
        let lane = world.lane();
        assert!(Rc::ptr_eq(&lane, &world.lane()));
        push(&lane, &one, 0, "GET a", InFlight::Read);
        push(&lane, &two, 0, "GET b", InFlight::Read);
        push(&lane, &one, 1, "SET a 1", InFlight::Write);
        let mut peer = world.accept(&MASTER).await;
        for expected in ["GET a", "GET b", "SET a 1"] {
            assert_eq!(peer.request().await, expected);
        }
        peer.say("$1\r\nA\r\n$1\r\nB\r\n+O").await;
        peer.say("K\r\n").await;
        assert_eq!(one.events(2).await, ["End 0 $1 A", "End 1 +OK"]);
        assert_eq!(two.events(1).await, ["End 0 $1 B"]);
        assert_eq!(lane.client_id(), 7);
    });
}

#[test]
fn nothing_is_written_before_the_connection_is_on_file() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "SET a 1", InFlight::Write);
        let mut peer = world.accept_silently().await;
        for _ in 0..5 {
            let request = peer.request().await;
            peer.say(&MASTER.introduction(&request)).await;
        }
        assert_eq!(peer.request().await, "SELECT 1");
        // Six questions are all that it sends until they are answered.
        assert!(peer.input.is_empty());
        assert_eq!(world.on_file(), 0);
        assert_eq!(lane.state(), LinkState::Dialling);
        peer.say("+OK\r\n").await;
        assert_eq!(peer.request().await, "SET a 1");
        let entries = world.local.shared.connections.older_than(3);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].connection.client_id, 7);
        assert_eq!(entries[0].connection.address.as_deref(), Some("127.0.0.1:40000"));
        assert_eq!(entries[0].connection.run_id.as_deref(), Some("aaaa"));
    });
}

#[test]
fn a_new_generation_takes_back_what_was_not_sent_and_half_closes() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "SET a 1", InFlight::Write);
        let mut peer = world.accept(&MASTER).await;
        assert_eq!(peer.request().await, "SET a 1");
        push(&lane, &one, 1, "SET a 2", InFlight::Write);
        push(&lane, &one, 2, "GET a", InFlight::Read);
        world.move_to(3);
        assert_eq!(world.confirmed.get(), 3);
        assert_eq!(
            one.events(2).await,
            ["taken_back 1 SET a 2 Write", "taken_back 2 GET a Read"]
        );
        peer.read_end_of_file().await;
        // What was sent may still be answered.
        peer.say("+OK\r\n").await;
        assert_eq!(one.events(3).await[2], "End 0 +OK");
        assert_eq!(world.on_file(), 1, "not proven dead yet");
        drop(peer);
        while lane.state() != LinkState::Dead {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.on_file(), 0, "the end of file is the proof");
        assert_eq!(one.events.borrow().len(), 3);
        assert_eq!(world.sign(), None, "an orderly end is no trouble");
    });
}

#[test]
fn a_generation_that_moves_during_the_dial_takes_everything_back() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "SET a 1", InFlight::Write);
        let mut peer = world.accept_silently().await;
        assert_eq!(peer.request().await, "HELLO 2");
        world.move_to(3);
        assert_eq!(one.events(1).await, ["taken_back 0 SET a 1 Write"]);
        for request in ["HELLO 2", "CLIENT INFO", "PING", "INFO server", "TIME", "SELECT 1"] {
            peer.say(&MASTER.introduction(request)).await;
            if request != "SELECT 1" {
                peer.request().await;
            }
        }
        peer.read_end_of_file().await;
        assert_eq!(world.on_file(), 0);
        assert_eq!(one.events.borrow().len(), 1);
    });
}
