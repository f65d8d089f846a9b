//! What happens to redis-server and tideover, drawn from a seed.

use std::time::Duration;

use super::support::{Client, DEADLINE, Direction, RedisServer, Tideover, Wire};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Blow {
    RedisKilled {
        down: Duration,
    },
    RedisFrozen {
        frozen: Duration,
    },
    /// Frozen with unread commands, then killed: they never run.
    RedisFrozenAndKilled {
        frozen: Duration,
        down: Duration,
    },
    /// Killed and restarted again and again.
    RedisFlaps {
        times: u8,
    },
    RedisFreezesAgainAndAgain {
        times: u8,
    },
    /// Killed with a backlog, and again soon after it is back.
    RedisKilledInReplay {
        down: Duration,
        after: Duration,
    },
    RedisFrozenInReplay {
        down: Duration,
        after: Duration,
        frozen: Duration,
    },
    ConnectionsKilled {
        times: u8,
    },
    ProxyKilled {
        down: Duration,
    },
    /// SIGTERM, and a start when it has ended.
    ProxyTerminated,
    ProxyTerminatedInOutage {
        down: Duration,
    },
    ProxyTerminatedWhileRedisIsFrozen {
        before: Duration,
    },
    ProxyKilledInReplay {
        down: Duration,
        after: Duration,
    },
    BothKilled {
        between: Duration,
        down: Duration,
    },
    /// The other way round.
    BothKilledProxyFirst {
        between: Duration,
        down: Duration,
    },
    ProxyKilledWhileRedisIsFrozen {
        before: Duration,
        after: Duration,
    },
    /// Redis wakes while no proxy runs.
    RedisWakesWithoutProxy {
        before: Duration,
        down: Duration,
    },
    /// Nothing arrives, and no connection ends. What was sent arrives in the end.
    Cut {
        which: Cut,
        held: Duration,
    },
    ProxyKilledInCut {
        which: Cut,
        before: Duration,
        after: Duration,
    },
    /// As a cut, for the connections that are there: new ones are made at once. Shorter than clients may wait, since this wire acknowledges what
    /// it holds: the kernel's `TCP_USER_TIMEOUT`, which ends such connections, does not see it.
    Stranded {
        which: Cut,
        held: Duration,
    },
    /// Every reply is late.
    Slow {
        latency: Duration,
        slow: Duration,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    Both,
    ToRedis,
    FromRedis,
}

impl Cut {
    fn draw(random: &mut fastrand::Rng) -> Self {
        [Self::Both, Self::ToRedis, Self::FromRedis][random.usize(0..3)]
    }

    fn directions(self) -> &'static [Direction] {
        match self {
            Self::Both => &[Direction::ToRedis, Direction::FromRedis],
            Self::ToRedis => &[Direction::ToRedis],
            Self::FromRedis => &[Direction::FromRedis],
        }
    }
}

fn ms(random: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..=to))
}

impl Blow {
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..23) {
            0 => Self::RedisKilled {
                down: ms(random, 0, 1500),
            },
            1 => Self::RedisFrozen {
                frozen: ms(random, 100, 4000),
            },
            2 => Self::RedisFrozenAndKilled {
                frozen: ms(random, 50, 2000),
                down: ms(random, 0, 500),
            },
            3 => Self::RedisFlaps { times: random.u8(3..8) },
            4 => Self::RedisFreezesAgainAndAgain { times: random.u8(2..6) },
            5 => Self::RedisKilledInReplay {
                down: ms(random, 200, 1500),
                after: ms(random, 0, 150),
            },
            6 => Self::RedisFrozenInReplay {
                down: ms(random, 200, 1500),
                after: ms(random, 0, 150),
                frozen: ms(random, 100, 2500),
            },
            7 => Self::ConnectionsKilled { times: random.u8(1..6) },
            8 => Self::ProxyKilled {
                down: ms(random, 0, 300),
            },
            9 => Self::ProxyKilledInReplay {
                down: ms(random, 200, 1500),
                after: ms(random, 0, 150),
            },
            10 => Self::BothKilled {
                between: ms(random, 0, 800),
                down: ms(random, 0, 500),
            },
            11 => Self::BothKilledProxyFirst {
                between: ms(random, 0, 300),
                down: ms(random, 0, 500),
            },
            12 => Self::ProxyKilledWhileRedisIsFrozen {
                before: ms(random, 0, 1500),
                after: ms(random, 0, 1500),
            },
            13 => Self::ProxyTerminated,
            14 => Self::ProxyTerminatedInOutage {
                down: ms(random, 0, 1000),
            },
            15 => Self::ProxyTerminatedWhileRedisIsFrozen {
                before: ms(random, 0, 1000),
            },
            16 => Self::RedisWakesWithoutProxy {
                before: ms(random, 0, 1500),
                down: ms(random, 0, 300),
            },
            _ => Self::draw_of_network(random),
        }
    }

    fn draw_of_network(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..5) {
            0 => Self::Cut {
                which: Cut::draw(random),
                held: ms(random, 100, 5000),
            },
            1 => Self::ProxyKilledInCut {
                which: Cut::draw(random),
                before: ms(random, 0, 2500),
                after: ms(random, 0, 2500),
            },
            2 | 3 => Self::Stranded {
                which: Cut::draw(random),
                held: ms(random, 2000, 3400),
            },
            _ => Self::Slow {
                latency: ms(random, 5, 400),
                slow: ms(random, 200, 2000),
            },
        }
    }

    pub(crate) fn strike(self, redis: &mut RedisServer, proxy: &mut Tideover, wire: &Wire) {
        match self {
            Self::RedisKilled { down } => kill(redis, down),
            Self::RedisFrozen { frozen } => freeze(redis, frozen),
            Self::RedisFrozenAndKilled { frozen, down } => {
                redis.stop();
                std::thread::sleep(frozen);
                kill(redis, down);
            }
            Self::RedisFlaps { times } => {
                for _ in 0..times {
                    kill(redis, FLAP);
                    std::thread::sleep(FLAP);
                }
            }
            Self::RedisFreezesAgainAndAgain { times } => {
                for _ in 0..times {
                    freeze(redis, FLAP * 3);
                    std::thread::sleep(FLAP);
                }
            }
            Self::RedisKilledInReplay { down, after } => {
                kill(redis, down);
                std::thread::sleep(after);
                kill(redis, FLAP);
            }
            Self::RedisFrozenInReplay { down, after, frozen } => {
                kill(redis, down);
                std::thread::sleep(after);
                freeze(redis, frozen);
            }
            Self::ConnectionsKilled { times } => {
                for _ in 0..times {
                    if let Ok(mut client) = Client::try_connect(&redis.address(), DEADLINE) {
                        drop(client.try_call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]));
                    }
                    std::thread::sleep(FLAP);
                }
            }
            Self::Cut { which, held } => {
                wire.hold(which.directions());
                std::thread::sleep(held);
                wire.heal();
            }
            Self::ProxyKilledInCut { which, before, after } => {
                wire.hold(which.directions());
                std::thread::sleep(before);
                restart(proxy, Duration::ZERO);
                std::thread::sleep(after);
                wire.heal();
            }
            Self::Stranded { which, held } => {
                wire.strand(which.directions());
                std::thread::sleep(held);
                wire.heal();
            }
            Self::Slow { latency, slow } => {
                wire.delay(latency);
                std::thread::sleep(slow);
                wire.heal();
            }
            Self::ProxyKilled { .. }
            | Self::ProxyTerminated
            | Self::ProxyTerminatedInOutage { .. }
            | Self::ProxyTerminatedWhileRedisIsFrozen { .. }
            | Self::ProxyKilledInReplay { .. }
            | Self::BothKilled { .. }
            | Self::BothKilledProxyFirst { .. }
            | Self::ProxyKilledWhileRedisIsFrozen { .. }
            | Self::RedisWakesWithoutProxy { .. } => self.strike_proxy(redis, proxy),
        }
    }

    fn strike_proxy(self, redis: &mut RedisServer, proxy: &mut Tideover) {
        match self {
            Self::RedisKilled { .. }
            | Self::RedisFrozen { .. }
            | Self::RedisFrozenAndKilled { .. }
            | Self::RedisFlaps { .. }
            | Self::RedisFreezesAgainAndAgain { .. }
            | Self::RedisKilledInReplay { .. }
            | Self::RedisFrozenInReplay { .. }
            | Self::ConnectionsKilled { .. }
            | Self::Cut { .. }
            | Self::ProxyKilledInCut { .. }
            | Self::Stranded { .. }
            | Self::Slow { .. } => unreachable!("struck already"),
            Self::ProxyKilled { down } => restart(proxy, down),
            Self::ProxyTerminated => terminate(proxy),
            Self::ProxyTerminatedInOutage { down } => {
                redis.kill();
                std::thread::sleep(down);
                terminate(proxy);
                redis.restart();
            }
            Self::ProxyTerminatedWhileRedisIsFrozen { before } => {
                redis.stop();
                std::thread::sleep(before);
                terminate(proxy);
                redis.cont();
            }
            Self::ProxyKilledInReplay { down, after } => {
                kill(redis, down);
                std::thread::sleep(after);
                restart(proxy, Duration::ZERO);
            }
            Self::BothKilled { between, down } => {
                redis.kill();
                std::thread::sleep(between);
                restart(proxy, down);
                redis.restart();
            }
            Self::BothKilledProxyFirst { between, down } => {
                proxy.kill();
                std::thread::sleep(between);
                kill(redis, down);
                proxy.restart();
            }
            Self::ProxyKilledWhileRedisIsFrozen { before, after } => {
                redis.stop();
                std::thread::sleep(before);
                restart(proxy, Duration::ZERO);
                std::thread::sleep(after);
                redis.cont();
            }
            Self::RedisWakesWithoutProxy { before, down } => {
                redis.stop();
                std::thread::sleep(before);
                proxy.kill();
                redis.cont();
                std::thread::sleep(down);
                proxy.restart();
            }
        }
    }
}

const FLAP: Duration = Duration::from_millis(200);

fn kill(redis: &mut RedisServer, down: Duration) {
    redis.kill();
    std::thread::sleep(down);
    redis.restart();
}

fn freeze(redis: &RedisServer, frozen: Duration) {
    redis.stop();
    std::thread::sleep(frozen);
    redis.cont();
}

fn restart(proxy: &mut Tideover, down: Duration) {
    proxy.kill();
    std::thread::sleep(down);
    proxy.restart();
}

fn terminate(proxy: &mut Tideover) {
    let status = proxy.terminate(DEADLINE);
    assert_eq!(status.code(), Some(0), "tideover ended wrongly at SIGTERM");
    proxy.restart();
}
