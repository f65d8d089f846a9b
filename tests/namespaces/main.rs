//! What takes a network and files of one's own: packets that are truly lost, and names that change. `make blackhole` gives both, as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod names;
mod network;
#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use network::{Network, Way};
use support::load::{self, Load};
use support::process::Process;
use support::{Client, DEADLINE, RedisServer, Settings, Tideover, wait_until};

const CLIENTS: usize = 4;
/// More than the longest pause between two retransmissions after an outage as short as these.
const RETRANSMITTED: Duration = Duration::from_secs(4);

/// A redis-server with its log, at any address, in any namespace.
pub(crate) struct Server {
    address: String,
    args: Vec<String>,
    process: Option<Process>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// `enter` is the command that runs another one in its namespace.
    pub(crate) fn start(host: &str, port: u16, enter: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut args = enter.to_vec();
        args.push("redis-server".to_owned());
        let path = dir.path().display().to_string();
        let options = format!(
            "--port {port} --bind {host} --protected-mode no --save @ --appendonly yes --appendfsync always --dir {path}"
        );
        args.extend(options.split(' ').map(|word| word.replace('@', "")));
        let mut server = Self {
            address: format!("{host}:{port}"),
            args,
            process: None,
            _dir: dir,
        };
        server.restart();
        server
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(&self.args[0]);
        let child = command
            .args(&self.args[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(Process::new(child.unwrap()));
        wait_until(DEADLINE, "redis-server answers PONG", || {
            let client = Client::try_connect(&self.address, Duration::from_secs(1));
            client.is_ok_and(|mut client| client.try_call(&["PING"]).is_ok_and(|reply| reply == b"+PONG\r\n"))
        });
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address)
    }
}

/// Not in the namespaces of the machine, which `NAMESPACES_OUTSIDE` names: what is changed here ends with this process.
pub(crate) fn assert_own_namespaces() {
    let outside = std::env::var("NAMESPACES_OUTSIDE").unwrap_or_default();
    for kind in ["net", "mnt"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let is_own = outside.contains(kind) && !outside.contains(&own.display().to_string());
        assert!(is_own, "to be run by `make blackhole`");
    }
}

/// Packets are lost for a while, and TCP sends again what was not acknowledged: nothing of it may be applied twice, or late.
#[track_caller]
fn check_load_through(lost: &[Way]) {
    assert_own_namespaces();
    let network = Network::new();
    let redis = Server::start(network.far_host(), 6379, &network.enter_far());
    let place = RedisServer::absent(support::Durability::Memory);
    let settings = Settings {
        url: Some(format!("redis://{}:6379", network.far_host())),
        ..Settings::default()
    };
    let proxy = Tideover::start_with(&place, &settings);
    proxy.wait_for_mode("healthy", DEADLINE);
    let load = Load::start(&proxy.address(), CLIENTS);
    load.wait_for_more(50);
    let failed_at = Instant::now();
    network.lose(lost);
    proxy.wait_for_mode("down", DEADLINE);
    load.wait_for_more(200);
    network.heal();
    let healed_at = Instant::now();
    proxy.wait_for_mode("healthy", DEADLINE);
    load.wait_for_more(50);
    wait_until(DEADLINE, "nothing is on its way any more", || {
        healed_at.elapsed() > RETRANSMITTED
    });
    let attempts = load.finish();
    proxy.wait_for_recovery();
    let bound = settings.command_timeout + settings.hold_timeout + Duration::from_secs(1);
    load::assert_none_lost(&attempts);
    load::assert_answered_within(&attempts, bound);
    load::assert_no_error_after(&attempts, failed_at + bound);
    load::assert_uncertain_at_most(&attempts, 1);
    load::assert_applied(&mut redis.client(), &attempts);
    assert_eq!(proxy.dead_letters(), 0);
}

#[test]
fn every_write_is_accounted_for_when_packets_are_lost_both_ways() {
    check_load_through(&[Way::ToRedis, Way::FromRedis]);
}

#[test]
fn every_write_is_accounted_for_when_requests_are_lost() {
    check_load_through(&[Way::ToRedis]);
}

#[test]
fn every_write_is_accounted_for_when_replies_are_lost() {
    check_load_through(&[Way::FromRedis]);
}
