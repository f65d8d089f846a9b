//! A redis-server, a journal with its owner and a replay, without a proxy around them.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tideover::journal::owner::{Batch, OwnerHandle, OwnerStatus, Payloads, Reply, Settled, Unsent, spawn};
use tideover::journal::{DeadLetter, DiskStorage, Fsync, Journal, SEGMENT_BYTES_MAX, Settings as JournalSettings};
use tideover::outage::effect::{Effect, EffectKind};
use tideover::outage::payload::{Origin, encode};
use tideover::replay::{Controls, Outcome, Replay, Settings};
use tideover::resp::Protocol;
use tideover::upstream::clock::{mono_ms, wall_ms};
use tideover::upstream::connections::ConnectionFile;
use tideover::upstream::dial::{Conversation, Dialled, Facts, Handshake, Opener, command, connect_bare, dial};
use tideover::upstream::known::Known;
use tideover::upstream::settings::{Address, Timeouts};
use tideover::upstream::shared::{Shared, Target};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::yield_now();
    }
}

pub(crate) struct Server {
    child: Child,
    pub port: u16,
    dir: tempfile::TempDir,
    args: Vec<String>,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let child = launch(port, dir.path(), &args);
        Self { child, port, dir, args }
    }

    /// Kills it and starts another on the same port and directory.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = launch(self.port, self.dir.path(), &self.args);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The reply to one command on a connection of its own, as text.
    pub(crate) fn ask(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        // At an end of file Redis throws away what is not sent yet; after QUIT it does not.
        stream.write_all(&command(&words(text))).unwrap();
        stream.write_all(&command(&["QUIT"])).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply.strip_suffix("+OK\r\n").unwrap().to_owned()
    }

    /// The elements of a list.
    pub(crate) fn list(&self, db: u32, key: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(&command(&["SELECT", &db.to_string()])).unwrap();
        stream.write_all(&command(&["LRANGE", key, "0", "-1"])).unwrap();
        stream.write_all(&command(&["QUIT"])).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let reply = reply.strip_suffix("+OK\r\n").unwrap();
        reply.lines().skip(3).step_by(2).map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, dir: &Path, args: &[String]) -> Child {
    let child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ])
        .arg(dir)
        .args(args)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    wait_until("redis-server is up", || {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
            return false;
        };
        stream.write_all(b"PING\r\n").unwrap();
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).is_ok() && &reply == b"+PONG\r\n"
    });
    child
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The kind that the outage room would give.
fn kind(text: &str) -> EffectKind {
    match text.split(' ').next() {
        Some("RPUSH" | "XADD" | "LTRIM") => EffectKind::Relative,
        _ => EffectKind::Absolute,
    }
}

pub(crate) fn payload(db: u32, identity: &str, commands: &[&str], out: &mut Vec<u8>) {
    let effects: Vec<Effect<'_>> = commands
        .iter()
        .map(|text| Effect {
            kind: kind(text),
            command: command(&words(text)).into(),
            deadline: None,
        })
        .collect();
    let origin = Origin {
        db,
        identity: identity.as_bytes(),
    };
    encode(origin, &effects, out);
}

pub(crate) fn ask<T: Send + 'static>(request: impl FnOnce(Reply<T>) -> Result<(), Unsent>) -> T {
    let (sender, receiver) = sync_channel(1);
    request(Box::new(move |answer| drop(sender.send(answer)))).unwrap();
    receiver.recv_timeout(PATIENCE).unwrap()
}

pub(crate) struct Rig {
    pub dir: tempfile::TempDir,
    pub owner: OwnerHandle,
    pub shared: Arc<Shared>,
    pub controls: Arc<Controls>,
    pub replay: Replay,
    pub port: u16,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub(crate) fn new(port: u16) -> Self {
        Self::open(tempfile::tempdir().unwrap(), port, Settings::default())
    }

    pub(crate) fn open(dir: tempfile::TempDir, port: u16, settings: Settings) -> Self {
        let journal_settings = JournalSettings {
            fsync: Fsync::No,
            bytes_max: 1 << 30,
            segment_bytes_max: SEGMENT_BYTES_MAX,
        };
        let storage = DiskStorage::new(dir.path().join("journal")).unwrap();
        let mut id = [7; 16];
        fastrand::fill(&mut id);
        let (journal, _) = Journal::open(storage, journal_settings, id, wall_ms()).unwrap();
        let (owner, _thread) = spawn(journal, Fsync::No, Vec::new()).unwrap();
        let target = Target {
            name: "main".into(),
            address: Address::Tcp {
                host: "127.0.0.1".into(),
                port,
            },
            db: 0,
            credentials: None,
            password_file: None,
            timeouts: Timeouts {
                connect: Duration::from_secs(1),
                command: Duration::from_secs(2),
            },
            hold_timeout: Duration::from_millis(100),
        };
        let connections = ConnectionFile::open(&dir.path().join("connections")).unwrap();
        let known = Known::open(&dir.path().join("known"), [7; 16]).unwrap();
        let (shared, _signs) = Shared::new(target, connections, known, owner.generation_counter(), 0);
        let controls = Arc::new(Controls::default());
        let replay = Replay::new(Arc::clone(&shared), owner.clone(), settings, Arc::clone(&controls));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            dir,
            owner,
            shared,
            controls,
            replay,
            port,
            runtime,
        }
    }

    /// Ends the journal's owner as a stop does, and opens everything again.
    pub(crate) fn reopen(self) -> Self {
        let port = self.port;
        Self::open(self.close(), port, Settings::default())
    }

    /// As [`Self::reopen`], with the queue file of the previous version, of which these were all incarnations.
    pub(crate) fn reopen_unnamed(self, ordinals: &[u64]) -> Self {
        let port = self.port;
        let dir = self.close();
        let queue = dir.path().join("journal/queue");
        let queue_id = std::fs::read(&queue).unwrap()[16..32].to_vec();
        let numbers = [&[ordinals[ordinals.len() - 1], 0], ordinals].concat();
        let body = [
            queue_id,
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        ]
        .concat();
        let mut file = b"TIDEQUEU".to_vec();
        file.extend_from_slice(&1_u32.to_le_bytes());
        file.extend_from_slice(&(body.len() as u32).to_le_bytes());
        file.extend_from_slice(&body);
        file.extend_from_slice(&crc32fast::hash(&file).to_le_bytes());
        std::fs::write(&queue, file).unwrap();
        Self::open(dir, port, Settings::default())
    }

    /// The journal's directory as it is now, elsewhere.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let (from, to) = [&self.dir, &copy].map(|dir| dir.path().join("journal")).into();
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        copy
    }

    pub(crate) fn close(self) -> tempfile::TempDir {
        ask(|reply| self.owner.shutdown(reply));
        self.dir
    }

    pub(crate) fn append(&self, payloads: Payloads) {
        let (sender, receiver) = sync_channel(1);
        let batch = Batch {
            generation: self.owner.generation(),
            payloads,
            wall_ms: wall_ms(),
            mono_ms: mono_ms(),
            done: Box::new(move |settled, _| drop(sender.send(settled))),
        };
        self.owner.append(batch).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Settled::Acknowledged);
    }

    /// One record per command.
    pub(crate) fn journal(&self, db: u32, commands: &[&str]) {
        let mut payloads = Payloads::default();
        for command in commands {
            payloads.push_with(|out| payload(db, "", &[command], out));
        }
        self.append(payloads);
    }

    pub(crate) fn transaction(&self, db: u32, commands: &[&str]) {
        let mut payloads = Payloads::default();
        payloads.push_with(|out| payload(db, "", commands, out));
        self.append(payloads);
    }

    pub(crate) async fn dial(&self) -> Dialled {
        self.dial_port(self.port).await
    }

    async fn dial_port(&self, port: u16) -> Dialled {
        let target = Target {
            address: Address::Tcp {
                host: "127.0.0.1".into(),
                port,
            },
            ..self.shared.target.clone()
        };
        let handshake = Handshake {
            opener: Opener::Itself,
            credentials: None,
            protocol: Protocol::Resp2,
            db: 0,
        };
        dial(&target, &handshake).await.unwrap()
    }

    pub(crate) fn recover(&mut self) -> Outcome {
        self.recover_through(self.port)
    }

    /// As `recover`, on a connection to another port than the upstream's.
    pub(crate) fn recover_through(&mut self, port: u16) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let Dialled {
                reader,
                writer,
                connection,
                facts,
            } = self.dial_port(port).await;
            let facts_here = facts.clone();
            let conversation = Conversation::from(Dialled {
                reader,
                writer,
                connection,
                facts,
            });
            self.replay.recover(conversation, &facts_here).await
        })
    }

    /// Recovers for so long, and gives up then.
    pub(crate) fn recover_for(&mut self, limit: Duration) -> Option<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let dialled = self.dial_port(self.port).await;
            let facts = dialled.facts.clone();
            let recovery = self.replay.recover(Conversation::from(dialled), &facts);
            tokio::time::timeout(limit, recovery).await.ok()
        })
    }

    /// As `recover_for`, on a connection on which nobody has authenticated.
    pub(crate) fn recover_bare_for(&mut self, limit: Duration) -> Option<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let conversation = connect_bare(&self.shared.target).await.unwrap();
            let facts = Facts::default();
            let recovery = self.replay.recover(conversation, &facts);
            tokio::time::timeout(limit, recovery).await.ok()
        })
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn trip(&self) {
        ask(|reply| self.owner.trip(reply));
    }

    pub(crate) fn status(&self) -> OwnerStatus {
        ask(|reply| self.owner.status(reply))
    }

    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        ask(|reply| self.owner.dead_letters(0, 1000, reply)).unwrap()
    }

    /// Reason and error of each dead letter.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.letters().into_iter().map(|letter| letter.reason).collect()
    }

    pub(crate) fn marker_key(&self) -> String {
        format!("tideover:{}:replayed", self.owner.queue_id())
    }
}

/// Passes bytes on, until the EXEC of that number has been answered: the answer is swallowed and the connection ended.
pub(crate) fn swallow_answer_to_exec(server_port: u16, number: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        // Until the last connection is refused, the port stays taken.
        while let Ok((client, _)) = listener.accept() {
            let seen = Arc::clone(&seen);
            if seen.load(Ordering::SeqCst) < number {
                std::thread::spawn(move || relay(&client, server_port, &seen, number));
            }
        }
    });
    port
}

/// One connection, until `number` EXECs have been sent on all of them together.
fn relay(client: &TcpStream, server_port: u16, seen: &Arc<AtomicU64>, number: u64) {
    let server = TcpStream::connect(("127.0.0.1", server_port)).unwrap();
    let upward = {
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let seen = Arc::clone(seen);
        move || {
            let mut all = Vec::new();
            let mut counted = 0;
            let mut buffer = [0; 1 << 16];
            while let Ok(read) = from.read(&mut buffer) {
                if read == 0 {
                    break;
                }
                all.extend_from_slice(&buffer[..read]);
                let execs = all.windows(8).filter(|window| window == b"$4\r\nEXEC").count() as u64;
                seen.fetch_add(execs - counted, Ordering::SeqCst);
                counted = execs;
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
        }
    };
    let upward = std::thread::spawn(upward);
    let (mut from, mut to) = (server, client.try_clone().unwrap());
    let mut buffer = [0; 1 << 16];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || seen.load(Ordering::SeqCst) >= number {
            break;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    upward.join().unwrap();
}
