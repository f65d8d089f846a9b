//! Clients that come over TLS, or over a unix socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use support::certificates::{Authority, Issued};
use support::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, command, shown};

struct World {
    redis: RedisServer,
    proxy: Tideover,
    authority: Authority,
    files: Issued,
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl World {
    /// With what else stands under `[upstream.listen_tls]`.
    fn new(more: impl FnOnce(&Authority) -> String) -> Self {
        let authority = Authority::new();
        let files = authority.local("listener");
        let redis = RedisServer::start(Durability::Memory);
        let settings = Settings {
            more: format!("[upstream.listen_tls]\n{}{}", files.toml(), more(&authority)),
            ..Settings::default()
        };
        let proxy = Tideover::start_with(&redis, &settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        Self {
            redis,
            proxy,
            authority,
            files,
        }
    }

    fn plain() -> Self {
        Self::new(|_| String::new())
    }

    fn config(&self, certificate: Option<&Issued>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.authority.ca()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(Issued { cert, key }) => {
                let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
                let key = PrivateKeyDer::from_pem_file(key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    fn connect_with(&self, certificate: Option<&Issued>) -> TlsStream {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(self.config(certificate)), name).unwrap();
        let socket = TcpStream::connect(self.proxy.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        StreamOwned::new(connection, socket)
    }

    fn connect(&self) -> TlsStream {
        self.connect_with(None)
    }

    fn clients(&self) -> u64 {
        self.proxy.status()["clients"].as_u64().unwrap()
    }

    fn redis_cli(&self, more: &[&str], args: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "localhost", "-p"])
            .arg(self.proxy.address().rsplit(':').next().unwrap())
            .args(["--tls", "--cacert"])
            .arg(self.authority.ca())
            .args(more)
            .args(args)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Sends `request` and reads as much as `expected` is long.
#[track_caller]
fn check(stream: &mut (impl Read + Write), request: &[u8], expected: &[u8]) {
    stream.write_all(request).unwrap();
    stream.flush().unwrap();
    expect(stream, expected);
}

#[track_caller]
fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(
        got == expected,
        "expected {}\n  answered {}",
        shown(expected),
        shown(&got)
    );
}

#[test]
fn redis_cli_works_over_tls() {
    let world = World::plain();
    assert_eq!(world.redis_cli(&[], &["SET", "k", "v"]), "OK\n");
    assert_eq!(world.redis_cli(&["-3"], &["GET", "k"]), "v\n");
}

#[test]
fn pipelines_large_values_and_push_messages_pass_over_tls() {
    let world = World::plain();
    let mut stream = world.connect();
    let requests: Vec<u8> = (0..10_000).flat_map(|_| command(&["INCR", "n"])).collect();
    let replies: String = (1..=10_000).map(|number| format!(":{number}\r\n")).collect();
    check(&mut stream, &requests, replies.as_bytes());
    let value: Vec<u8> = (0..20_u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    check(&mut stream, &command(&[b"SET".as_slice(), b"big", &value]), b"+OK\r\n");
    assert!(world.redis.client().call(&["GET", "big"]) == support::bulk(&value));
    check(&mut stream, &command(&["GET", "big"]), &support::bulk(&value));
    let mut subscriber = world.connect();
    check(
        &mut subscriber,
        &command(&["SUBSCRIBE", "c"]),
        b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
    );
    check(&mut stream, &command(&["PUBLISH", "c", "hello"]), b":1\r\n");
    expect(&mut subscriber, b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n");
    let mut blocked = world.connect();
    blocked.write_all(&command(&["BLPOP", "q", "0"])).unwrap();
    support::wait_for_blocked(&mut world.redis.client(), 1, DEADLINE);
    check(&mut stream, &command(&["RPUSH", "q", "x"]), b":1\r\n");
    expect(&mut blocked, b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n");
}

/// More than any buffer on the way holds.
#[test]
fn a_client_that_reads_late_gets_everything_over_tls() {
    let world = World::plain();
    let value = vec![b'x'; 1 << 20];
    assert_eq!(
        world.redis.client().call(&[b"SET".as_slice(), b"k", &value]),
        b"+OK\r\n"
    );
    let mut late = world.connect();
    late.write_all(&command(&["GET", "k"]).repeat(30)).unwrap();
    check(&mut world.connect(), &command(&["PING"]), b"+PONG\r\n");
    let reply = support::bulk(&value);
    for _ in 0..30 {
        expect(&mut late, &reply);
    }
}

#[test]
fn the_end_of_a_session_is_said_over_tls() {
    let world = World::plain();
    let mut stream = world.connect();
    check(&mut stream, &command(&["QUIT"]), b"+OK\r\n");
    // Without close_notify this is an error.
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn a_client_that_has_said_its_end_gets_its_replies_over_tls() {
    let world = World::plain();
    let mut stream = world.connect();
    stream.write_all(&command(&["INCR", "n"]).repeat(100)).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    assert!(replies.ends_with(b":99\r\n:100\r\n"), "{}", shown(&replies));
    support::wait_until(DEADLINE, "the client is gone", || world.clients() == 0);
}

#[test]
fn a_client_certificate_is_demanded_where_it_is_configured() {
    let world = World::new(|authority| format!("client_ca_file = {:?}\n", authority.ca()));
    let certificate = world.authority.local("client");
    check(
        &mut world.connect_with(Some(&certificate)),
        &command(&["PING"]),
        b"+PONG\r\n",
    );
    let stranger = Authority::new();
    let strange = stranger.local("client");
    for refused in [None, Some(&strange)] {
        let mut stream = world.connect_with(refused);
        let asked = stream.write_all(&command(&["PING"])).and_then(|()| stream.flush());
        let answered = asked.and_then(|()| stream.read_exact(&mut [0; 7]));
        assert!(answered.is_err(), "{refused:?}");
    }
    support::wait_until(DEADLINE, "only handshakes were cut off", || world.clients() == 0);
}

#[test]
fn a_client_without_tls_is_closed_and_others_are_not_disturbed() {
    let world = World::plain();
    let mut stream = world.connect();
    let mut plain = Client::connect(&world.proxy.address());
    plain.send(&["SET", "k", "v"]);
    plain.until_closed();
    check(&mut stream, &command(&["GET", "k"]), b"$-1\r\n");
    assert_eq!(world.clients(), 1);
}

#[test]
fn a_client_that_never_finishes_its_handshake_is_counted_and_holds_nobody_up() {
    let world = World::plain();
    let slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut socket = TcpStream::connect(world.proxy.address()).unwrap();
            socket.write_all(&[22, 3, 1, 2, 0]).unwrap();
            socket
        })
        .collect();
    support::wait_until(DEADLINE, "they are counted", || world.clients() == 20);
    check(&mut world.connect(), &command(&["PING"]), b"+PONG\r\n");
    for mut socket in slow {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // Closed after the time for a handshake, with a reset where our bytes were not read.
        assert!(matches!(socket.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
    support::wait_until(DEADLINE, "they are not counted any more", || world.clients() == 0);
}

#[test]
fn a_replaced_certificate_is_shown_to_the_next_client() {
    let world = World::plain();
    let shown_now = || {
        let mut stream = world.connect();
        check(&mut stream, &command(&["PING"]), b"+PONG\r\n");
        stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let mut kept = world.connect();
    check(&mut kept, &command(&["PING"]), b"+PONG\r\n");
    let other = world.authority.local("other");
    assert_ne!(shown_now(), CertificateDer::from_pem_file(&other.cert).unwrap());
    other.copy_over(&world.files);
    support::wait_until(DEADLINE, "the new certificate", || {
        shown_now() == CertificateDer::from_pem_file(&other.cert).unwrap()
    });
    check(&mut kept, &command(&["PING"]), b"+PONG\r\n");
}

fn over_unix(redis: &RedisServer, path: &Path) -> Tideover {
    let settings = Settings {
        listen: Some(format!("unix:{}", path.display())),
        url: Some(format!("unix://{}", redis.dir().join("redis.sock").display())),
        ..Settings::default()
    };
    let mut proxy = Tideover::prepare(redis, &settings);
    proxy.launch();
    proxy
}

#[test]
fn unix_sockets_work_on_both_sides_and_a_dead_one_is_replaced() {
    let mut redis = RedisServer::absent(Durability::Memory);
    redis.add_options(&["--unixsocket", "redis.sock"]);
    redis.restart();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tideover.sock");
    // Nobody listens on it any more.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut proxy = over_unix(&redis, &path);
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut stream = UnixStream::connect(&path).unwrap();
    check(&mut stream, &command(&["SET", "k", "v"]), b"+OK\r\n");

    let mut second = over_unix(&redis, &path);
    assert!(!second.process().wait_for_exit(DEADLINE).success());
    check(&mut stream, &command(&["GET", "k"]), b"$1\r\nv\r\n");
    check(
        &mut UnixStream::connect(&path).unwrap(),
        &command(&["PING"]),
        b"+PONG\r\n",
    );

    redis.kill();
    proxy.wait_for_mode("down", DEADLINE);
    check(&mut stream, &command(&["SET", "k", "w"]), b"+OK\r\n");
    redis.restart();
    proxy.wait_for_recovery();
    assert_eq!(redis.client().call(&["GET", "k"]), b"$1\r\nw\r\n");
    drop(stream);
    assert!(proxy.terminate(DEADLINE).success());
    assert!(!path.exists(), "the socket goes with its listener");
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let redis = RedisServer::absent(Durability::Memory);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    std::fs::write(&path, "precious").unwrap();
    let mut proxy = over_unix(&redis, &path);
    assert!(!proxy.process().wait_for_exit(DEADLINE).success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
