//! `rediss://`: everything as without TLS, and certificate errors that say what is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use support::certificates::{Authority, Issued, Validity, redis_options};
use support::load::{self, Load};
use support::pair::assert_same;
use support::{
    Client, DEADLINE, Durability, Port, RedisServer, Settings, Tideover, array, bulk, command, error_text, integer,
};

/// A redis-server with a port for TLS, and one without for the test itself.
struct World {
    redis: RedisServer,
    port: Port,
    authority: Authority,
}

impl World {
    fn new(durability: Durability, issue: impl FnOnce(&Authority) -> Issued, auth_clients: &str) -> Self {
        let authority = Authority::new();
        let port = Port::reserve();
        let options = redis_options(&port, &issue(&authority), &authority.ca(), auth_clients);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Self {
            redis: RedisServer::start_with(durability, &options),
            port,
            authority,
        }
    }

    fn local(durability: Durability) -> Self {
        Self::new(durability, |authority| authority.local("server"), "no")
    }

    /// With what stands under `[upstream.tls]`.
    fn proxy_with(&self, url: String, tls: &str) -> Tideover {
        let settings = Settings {
            url: Some(url),
            more: tls.to_owned(),
            ..Settings::default()
        };
        Tideover::start_with(&self.redis, &settings)
    }

    fn proxy(&self, tls: &str) -> Tideover {
        let url = format!("rediss://localhost:{}", self.port.number());
        let tls = format!("[upstream.tls]\nca_file = {:?}\n{tls}", self.authority.ca());
        self.proxy_with(url, &tls)
    }

    fn healthy(&self) -> Tideover {
        let proxy = self.proxy("");
        proxy.wait_for_mode("healthy", DEADLINE);
        proxy
    }
}

/// The app is tided over, and everywhere it is said why.
#[track_caller]
fn assert_down(proxy: &Tideover, why: &str, result: &str) {
    support::wait_until(DEADLINE, why, || {
        proxy.status()["last_error"]
            .as_str()
            .is_some_and(|error| error.contains(why))
    });
    proxy.wait_for_mode("down", DEADLINE);
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
    let counted = format!("tideover_upstream_connects_total{{upstream=\"main\",result=\"{result}\"}} 0");
    let (_, metrics) = proxy.get("/metrics");
    assert!(
        metrics.contains(counted.trim_end_matches('0')) && !metrics.lines().any(|line| line == counted),
        "{result} is not counted in\n{metrics}"
    );
}

#[track_caller]
fn assert_logged(proxy: &Tideover, why: &str) {
    let log = proxy.log_text();
    let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains(why));
    assert_eq!(warnings.count(), 1, "{why} is not once in\n{log}");
}

#[test]
fn answers_are_the_same_bytes_over_tls() {
    let world = World::local(Durability::Memory);
    let direct = RedisServer::start(Durability::Memory);
    let proxy = world.healthy();
    let (mut expected, mut got) = (direct.client(), proxy.client());
    let script = "SET a 1\nINCR a\nGET nothing\nLPUSH a x\nHSET h f v\nHGETALL h\nSELECT 3\nDBSIZE\nSELECT 0\nMULTI\nINCR a\n\
                  LPUSH a x\nEXEC\nEVAL return{1,{2}} 0\nNOSUCH x\nBLPOP q 0.05\nXADD s 1-1 f v\nXRANGE s - +\nPUBLISH c m";
    for line in script.lines() {
        let args: Vec<&str> = line.split_whitespace().collect();
        assert_same(line, &expected.call(&args), &got.call(&args));
    }
    let (mut expected, mut got) = (direct.client().hello3(), proxy.client().hello3());
    assert_same(
        "HGETALL",
        &expected.call(&["HGETALL", "h"]),
        &got.call(&["HGETALL", "h"]),
    );
    assert!(
        proxy.status()["url"]
            .as_str()
            .unwrap()
            .starts_with("rediss://localhost:")
    );
}

#[test]
fn a_large_value_passes_both_ways_over_tls() {
    let world = World::local(Durability::Memory);
    let proxy = world.healthy();
    let value: Vec<u8> = (0..20_u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut client = proxy.client();
    assert_eq!(client.call(&[b"SET".as_slice(), b"big", &value]), b"+OK\r\n");
    assert!(client.call(&["GET", "big"]) == bulk(&value), "through tideover");
    assert!(world.redis.client().call(&["GET", "big"]) == bulk(&value), "directly");
}

#[test]
fn ten_thousand_pipelined_commands_keep_their_order_over_tls() {
    let world = World::local(Durability::Memory);
    let proxy = world.healthy();
    let mut client = proxy.client();
    let requests: Vec<u8> = (0..10_000).flat_map(|_| command(&["INCR", "n"])).collect();
    let mut sender = client.sender();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &requests).unwrap());
    for number in 1..=10_000 {
        assert_eq!(integer(&client.reply()), number);
    }
    writer.join().unwrap();
}

#[test]
fn blocking_commands_and_subscriptions_work_over_tls() {
    let world = World::local(Durability::Memory);
    let proxy = world.healthy();
    let mut blocked = proxy.client();
    blocked.send(&["BLPOP", "q", "0"]);
    let mut other = proxy.client();
    support::wait_for_blocked(&mut world.redis.client(), 1, DEADLINE);
    assert_eq!(other.call(&["RPUSH", "q", "x"]), b":1\r\n");
    assert_eq!(array(&blocked.reply()), ["q", "x"]);
    let mut subscriber = proxy.client();
    assert_eq!(array(&subscriber.call(&["SUBSCRIBE", "c"])), ["subscribe", "c"]);
    assert_eq!(other.call(&["PUBLISH", "c", "hello"]), b":1\r\n");
    assert_eq!(array(&subscriber.reply()), ["message", "c", "hello"]);
}

#[test]
fn a_server_of_tls_1_2_serves_and_refuses_as_well() {
    let mut world = World::new(Durability::Memory, |authority| authority.local("server"), "yes");
    world.redis.add_options(&["--tls-protocols", "TLSv1.2"]);
    world.redis.restart();
    let proxy = world.proxy("");
    assert_down(&proxy, "it wants a client certificate", "client_certificate");
    let proxy = world.proxy(&world.authority.local("client").toml());
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(proxy.client().call(&["PING"]), b"+PONG\r\n");
}

#[test]
fn a_client_certificate_is_given_where_one_is_demanded() {
    let world = World::new(Durability::Memory, |authority| authority.local("server"), "yes");
    let proxy = world.proxy(&world.authority.local("client").toml());
    proxy.wait_for_mode("healthy", DEADLINE);
    assert_eq!(proxy.client().call(&["PING"]), b"+PONG\r\n");
}

#[test]
fn without_a_client_certificate_it_is_said_that_one_is_wanted() {
    let world = World::new(Durability::Memory, |authority| authority.local("server"), "yes");
    let proxy = world.proxy("");
    assert_down(&proxy, "the server wants a client certificate", "client_certificate");
    assert_logged(&proxy, "the server wants a client certificate");
}

#[test]
fn a_client_certificate_that_is_refused_is_replaced_without_a_restart() {
    let world = World::new(Durability::Memory, |authority| authority.local("server"), "yes");
    let stranger = Authority::new();
    let files = stranger.local("client");
    let proxy = world.proxy(&files.toml());
    assert_down(
        &proxy,
        "the server refuses the client certificate",
        "client_certificate",
    );
    let good = world.authority.local("client");
    std::fs::copy(&good.cert, &files.cert).unwrap();
    support::wait_until(DEADLINE, "half a change is not taken", || {
        proxy.log_text().contains("is not the key to the certificate")
    });
    std::fs::copy(&good.key, &files.key).unwrap();
    proxy.wait_for_recovery();
    assert_eq!(proxy.client().call(&["GET", "k"]), bulk("v"));
}

#[test]
fn a_certificate_of_an_unknown_issuer_is_not_accepted() {
    let world = World::local(Durability::Memory);
    let url = format!("rediss://localhost:{}", world.port.number());
    let stranger = Authority::new();
    let proxy = world.proxy_with(url, &format!("[upstream.tls]\nca_file = {:?}\n", stranger.ca()));
    assert_down(&proxy, "unknown issuer", "certificate");
    assert_logged(&proxy, "unknown issuer");
}

#[test]
fn an_expired_certificate_is_not_accepted_and_its_date_is_said() {
    let issue = |authority: &Authority| authority.issue("server", &["localhost"], Validity::Expired);
    let world = World::new(Durability::Memory, issue, "no");
    let proxy = world.proxy("");
    assert_down(
        &proxy,
        "the server's certificate expired on 2020-01-02T00:00:00Z",
        "certificate",
    );
}

#[test]
fn a_certificate_for_another_name_is_not_accepted_unless_that_name_is_configured() {
    let issue = |authority: &Authority| authority.issue("server", &["redis.internal"], Validity::Valid);
    let world = World::new(Durability::Memory, issue, "no");
    let proxy = world.proxy("");
    assert_down(
        &proxy,
        "the server's certificate is not for localhost, but for redis.internal",
        "certificate",
    );
    let proxy = world.proxy("server_name = \"redis.internal\"\n");
    proxy.wait_for_mode("healthy", DEADLINE);
}

#[test]
fn the_configured_name_is_what_the_server_is_asked_for() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rediss://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        let accepted = loop {
            acceptor.read_tls(&mut socket).unwrap();
            if let Some(accepted) = acceptor.accept().ok().flatten() {
                break accepted;
            }
        };
        sender
            .send(accepted.client_hello().server_name().map(str::to_owned))
            .unwrap();
    });
    let tls = format!(
        "[upstream.tls]\nca_file = {:?}\nserver_name = \"redis.internal\"\n",
        authority.ca()
    );
    let settings = Settings {
        url: Some(url),
        more: tls,
        ..Settings::default()
    };
    let _proxy = Tideover::start_with(&RedisServer::absent(Durability::Memory), &settings);
    assert_eq!(
        receiver.recv_timeout(DEADLINE).unwrap().as_deref(),
        Some("redis.internal")
    );
}

#[test]
fn a_server_without_tls_behind_rediss_is_named_as_that() {
    let world = World::local(Durability::Memory);
    let url = format!("rediss://localhost:{}", world.redis.port());
    let tls = format!("[upstream.tls]\nca_file = {:?}\n", world.authority.ca());
    let proxy = world.proxy_with(url, &tls);
    support::wait_until(DEADLINE, "the server does not speak TLS", || {
        let status = proxy.status();
        status["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("speak TLS"))
    });
    assert_eq!(proxy.client().call(&["SET", "k", "v"]), b"+OK\r\n");
}

#[test]
fn a_server_with_tls_behind_redis_is_named_as_that() {
    let world = World::local(Durability::Memory);
    let proxy = world.proxy_with(format!("redis://localhost:{}", world.port.number()), "");
    support::wait_until(DEADLINE, "the server wants TLS", || {
        proxy.status()["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("rediss://"))
    });
    assert_eq!(proxy.client().call(&["SET", "k", "v"]), b"+OK\r\n");
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    Killed,
    Frozen,
}

/// As `every_write_is_accounted_for_…` without TLS.
fn check_load_through(failure: Failure) {
    const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);
    let mut world = World::local(Durability::AppendOnly);
    let settings = Settings {
        url: Some(format!("rediss://localhost:{}", world.port.number())),
        command_timeout: COMMAND_TIMEOUT,
        more: format!("[upstream.tls]\nca_file = {:?}\n", world.authority.ca()),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&world.redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let load = Load::start(&proxy.address(), 4);
    load.wait_for_more(100);
    match failure {
        Failure::Killed => world.redis.kill(),
        Failure::Frozen => world.redis.stop(),
    }
    proxy.wait_for_mode("down", DEADLINE);
    load.wait_for_more(200);
    assert_eq!(proxy.client().call(&["GET", "key:0:0"]), b"$-1\r\n");
    match failure {
        Failure::Killed => world.redis.restart(),
        Failure::Frozen => world.redis.cont(),
    }
    proxy.wait_for_mode("healthy", DEADLINE);
    load.wait_for_more(100);
    let attempts = load.finish();
    proxy.wait_for_recovery();
    load::assert_none_lost(&attempts);
    load::assert_uncertain_at_most(&attempts, 1);
    load::assert_applied(&mut world.redis.client(), &attempts);
    assert_eq!(proxy.dead_letters(), 0);
    let (_, metrics) = proxy.get("/metrics");
    let unfenced = metrics
        .lines()
        .find(|line| line.starts_with("tideover_unfenced_total{"));
    assert!(unfenced.is_none_or(|line| line.ends_with(" 0")), "{unfenced:?}");
}

#[test]
fn every_write_is_accounted_for_when_redis_is_killed_behind_tls() {
    check_load_through(Failure::Killed);
}

#[test]
fn every_write_is_accounted_for_when_redis_freezes_behind_tls() {
    check_load_through(Failure::Frozen);
}

/// Its half-closed connections are read to their end: what was sent is answered, and used.
#[test]
fn a_frozen_server_that_wakes_answers_what_was_sent_over_tls() {
    let world = World::local(Durability::Memory);
    let settings = Settings {
        url: Some(format!("rediss://localhost:{}", world.port.number())),
        hold_timeout: DEADLINE,
        more: format!("[upstream.tls]\nca_file = {:?}\n", world.authority.ca()),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&world.redis, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut client: Client = proxy.client();
    assert_eq!(client.call(&["SET", "n", "41"]), b"+OK\r\n");
    world.redis.stop();
    client.send(&["INCR", "n"]);
    proxy.wait_for_mode("down", DEADLINE);
    world.redis.cont();
    let reply = client.reply();
    assert_eq!(error_text(&reply), None);
    assert_eq!(integer(&reply), 42);
    proxy.wait_for_recovery();
    assert_eq!(world.redis.client().call(&["GET", "n"]), bulk("42"));
}
