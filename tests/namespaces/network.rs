//! Two hosts with a router between them, which can lose what goes one way or the other.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::support::process::Process;
use crate::support::{DEADLINE, wait_until};

/// Which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToRedis,
    FromRedis,
}

/// The near host is this process's namespace.
pub(crate) struct Network {
    number: u8,
    router: Process,
    far: Process,
    far_host: String,
}

impl Network {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            number,
            router: namespace(),
            far: namespace(),
            far_host: format!("10.213.{number}.6"),
        };
        let (router, far) = (network.router.id(), network.far.id());
        let (near_link, far_link) = (format!("near{number}"), format!("far{number}"));
        run("ip link set lo up");
        run(&format!(
            "ip link add {near_link} type veth peer name near netns {router}"
        ));
        run(&format!("ip addr add 10.213.{number}.1/30 dev {near_link}"));
        run(&format!("ip link set {near_link} up"));
        network.on_router(&format!("ip link add far type veth peer name {far_link} netns {far}"));
        network.on_router(&format!("ip addr add 10.213.{number}.2/30 dev near"));
        network.on_router(&format!("ip addr add 10.213.{number}.5/30 dev far"));
        network.on_router("ip link set near up");
        network.on_router("ip link set far up");
        network.on_router("sysctl -qw net.ipv4.ip_forward=1");
        let on_far = |command: &str| run(&format!("nsenter -t {far} -n {command}"));
        on_far("ip link set lo up");
        on_far(&format!("ip addr add {}/30 dev {far_link}", network.far_host));
        on_far(&format!("ip link set {far_link} up"));
        on_far(&format!("ip route add default via 10.213.{number}.5"));
        run(&format!("ip route add 10.213.{number}.4/30 via 10.213.{number}.2"));
        network
    }

    fn on_router(&self, command: &str) {
        run(&format!("nsenter -t {} -n {command}", self.router.id()));
    }

    pub(crate) fn far_host(&self) -> &str {
        &self.far_host
    }

    /// The beginning of a command that runs another one on the far host.
    pub(crate) fn enter_far(&self) -> Vec<String> {
        ["nsenter", "-t", &self.far.id().to_string(), "-n"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Packets that go these ways are lost without a word.
    pub(crate) fn lose(&self, ways: &[Way]) {
        for way in ways {
            let from = match way {
                Way::ToRedis => "near",
                Way::FromRedis => "far",
            };
            self.on_router(&format!("ip rule add pref 10 iif {from} blackhole"));
        }
    }

    pub(crate) fn heal(&self) {
        self.on_router("ip rule flush");
        self.on_router("ip rule add pref 32766 lookup main");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["link", "del", &format!("near{}", self.number)])
            .status();
    }
}

/// Lives as long as its process.
fn namespace() -> Process {
    let child = Command::new("unshare")
        .args(["--net", "sleep", "1000"])
        .stdin(Stdio::null())
        .spawn();
    let process = Process::new(child.expect("util-linux has unshare"));
    let of = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/net")).ok();
    wait_until(DEADLINE, "a network namespace", || {
        of(&process.id().to_string()).is_some_and(|own| Some(own) != of("self"))
    });
    process
}

#[track_caller]
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "{command}");
}
