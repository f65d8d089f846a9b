//! The same conversation with Redis and through tideover, compared byte for byte.

use super::{Client, DEADLINE, Durability, RedisServer, Settings, Tideover, shown};

/// A Redis to talk to directly, and one of its own behind tideover, so that the conversations do not disturb each other.
#[derive(Debug)]
pub struct Pair {
    pub direct: RedisServer,
    pub behind: RedisServer,
    pub proxy: Tideover,
}

impl Pair {
    pub fn start() -> Self {
        Self::start_with(&[], &Settings::default())
    }

    /// With more options for both servers, as on redis-server's command line.
    pub fn start_with(options: &[&str], settings: &Settings) -> Self {
        let direct = RedisServer::start_with(Durability::Memory, options);
        let behind = RedisServer::start_with(Durability::Memory, options);
        let proxy = Tideover::start_with(&behind, settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        Self { direct, behind, proxy }
    }

    /// Holds the same conversation with both and compares what came back.
    #[track_caller]
    pub fn check(&self, what: &str, converse: impl Fn(&dyn Fn() -> Client) -> Vec<u8>) {
        let expected = converse(&|| self.direct.client());
        let got = converse(&|| self.proxy.client());
        assert_same(what, &expected, &got);
    }

    /// One line is one command, words split at blanks.
    #[track_caller]
    pub fn check_script(&self, connect: impl Fn(Client) -> Client, script: &str) {
        let mut direct = connect(self.direct.client());
        let mut through = connect(self.proxy.client());
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let args: Vec<&str> = line.split_whitespace().collect();
            assert_same(line, &direct.call(&args), &through.call(&args));
        }
    }
}

#[track_caller]
pub fn assert_same(what: &str, expected: &[u8], got: &[u8]) {
    assert!(
        expected == got,
        "{what}\n  redis answers {}\n  tideover answers {}",
        shown(expected),
        shown(got)
    );
}
