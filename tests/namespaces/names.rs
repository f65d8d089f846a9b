//! The host of the URL is a name that is not there yet, moves, vanishes, and whose server does not answer.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::network::run;
use crate::support::{DEADLINE, Durability, Port, RedisServer, Settings, Tideover, bulk, shown, wait_until};
use crate::{Server, assert_own_namespaces};

const NAME: &str = "redis.tideover.test";
/// Which names there are, and who is asked about others.
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// Files of our own in the place of the machine's, for this process and its children.
struct Names {
    dir: tempfile::TempDir,
}

impl Names {
    fn new() -> Self {
        let names = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for file in FILES {
            std::fs::write(names.own(file), "").unwrap();
            run(&format!("mount --bind {} {file}", names.own(file).display()));
        }
        std::fs::write(names.own("/etc/resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        names
    }

    fn own(&self, file: &str) -> PathBuf {
        self.dir.path().join(file.trim_start_matches("/etc/"))
    }

    fn set(&self, address: Option<&str>) {
        let line = address.map(|address| format!("{address} {NAME}\n")).unwrap_or_default();
        std::fs::write(self.own("/etc/hosts"), line).unwrap();
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for file in FILES {
            let _ = std::process::Command::new("umount").arg(file).status();
        }
    }
}

fn last_error_contains(proxy: &Tideover, text: &str) -> bool {
    proxy.status()["last_error"]
        .as_str()
        .is_some_and(|error| error.contains(text))
}

#[test]
fn a_name_is_resolved_again_at_every_dial() {
    assert_own_namespaces();
    run("ip link set lo up");
    let names = Names::new();
    let port = Port::reserve();
    let mut first = Server::start("127.0.0.1", port.number(), &[]);
    let mut second = Server::start("127.0.0.2", port.number(), &[]);
    let place = RedisServer::absent(Durability::Memory);
    let settings = Settings {
        url: Some(format!("redis://{NAME}:{}", port.number())),
        ..Settings::default()
    };
    let mut proxy = Tideover::start_with(&place, &settings);

    // Not there at the start.
    proxy.wait_for_mode("down", DEADLINE);
    wait_until(DEADLINE, "the reason in /status", || {
        last_error_contains(&proxy, "does not resolve")
    });
    let (mut client, mut other) = (proxy.client(), proxy.client());
    assert_eq!(client.call(&["SET", "k", "1"]), b"+OK\r\n");
    names.set(Some("127.0.0.1"));
    proxy.wait_for_recovery();
    assert_eq!(first.client().call(&["GET", "k"]), bulk("1"));

    // It moves while Redis is away.
    first.kill();
    proxy.wait_for_mode("down", DEADLINE);
    assert_eq!(client.call(&["SET", "k", "2"]), b"+OK\r\n");
    names.set(Some("127.0.0.2"));
    proxy.wait_for_recovery();
    assert_eq!(second.client().call(&["GET", "k"]), bulk("2"));

    // It vanishes: those that are connected are served.
    assert_eq!(client.call(&["GET", "k"]), bulk("2"));
    assert_eq!(other.call(&["GET", "k"]), bulk("2"));
    names.set(None);
    let refused = other.call(&["SELECT", "3"]);
    assert!(refused.starts_with(b"-UNAVAILABLE "), "{}", shown(&refused));
    assert_eq!(client.call(&["GET", "k"]), bulk("2"));
    assert_eq!(proxy.mode(), "healthy");
    second.kill();
    proxy.wait_for_mode("down", DEADLINE);
    second.restart();
    wait_until(DEADLINE, "the reason in /status", || {
        last_error_contains(&proxy, "does not resolve")
    });
    assert_eq!(client.call(&["SET", "k", "3"]), b"+OK\r\n");
    names.set(Some("127.0.0.2"));
    proxy.wait_for_recovery();
    assert_eq!(client.call(&["GET", "k"]), bulk("3"));

    // Its server does not answer: nobody waits for it, not even at the end.
    names.set(None);
    let silent = UdpSocket::bind("127.0.0.53:53").unwrap();
    second.kill();
    proxy.wait_for_mode("down", DEADLINE);
    wait_until(DEADLINE, "the reason in /status", || {
        last_error_contains(&proxy, "does not resolve")
    });
    let asked_at = Instant::now();
    for number in 0..100 {
        assert_eq!(client.call(&["SET", "k", &number.to_string()]), b"+OK\r\n");
    }
    assert!(asked_at.elapsed() < Duration::from_secs(2), "{:?}", asked_at.elapsed());
    let ended_at = Instant::now();
    assert_eq!(proxy.terminate(DEADLINE).code(), Some(0));
    assert!(
        ended_at.elapsed() < Duration::from_secs(4),
        "ended after {:?}",
        ended_at.elapsed()
    );
    drop(silent);
}
