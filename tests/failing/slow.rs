//! Slow is not down, as long as it is not as slow as silence; and then it is down, not down and up.

use std::time::{Duration, Instant};

use crate::support::load::{self, Load};
use crate::support::{DEADLINE, Durability, RedisServer, Settings, Tideover, Wire, bulk, wait_until};
use crate::{CLIENTS, reasons, transitions, wait_max};

const COMMAND_TIMEOUT: Duration = Duration::from_millis(800);

fn settings() -> Settings {
    Settings {
        // Longer than silence, so that a slow upstream can be reached.
        connect_timeout: Duration::from_secs(2),
        command_timeout: COMMAND_TIMEOUT,
        ..Settings::default()
    }
}

#[test]
fn a_slow_redis_is_not_down() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let place = RedisServer::absent(Durability::Memory);
    let wire = Wire::start(&place, &redis);
    let proxy = Tideover::start_with(&place, &settings());
    proxy.wait_for_mode("healthy", DEADLINE);
    let load = Load::start(&proxy.address(), CLIENTS);
    load.wait_for_more(20);
    for latency_ms in [100, 300] {
        wire.delay(Duration::from_millis(latency_ms));
        load.wait_for_more(4);
    }
    wire.heal();
    load.wait_for_more(20);
    let attempts = load.finish();
    load::assert_none_lost(&attempts);
    load::assert_uncertain_at_most(&attempts, 0);
    load::assert_no_error_after(&attempts, attempts[0].sent);
    load::assert_answered_within(&attempts, wait_max(&settings()));
    load::assert_applied(&mut redis.client(), &attempts);
    assert_eq!(reasons(&proxy), [""; 0]);
}

#[test]
fn a_redis_slower_than_silence_is_down_once_and_not_again_and_again() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let place = RedisServer::absent(Durability::Memory);
    let wire = Wire::start(&place, &redis);
    let proxy = Tideover::start_with(&place, &settings());
    proxy.wait_for_mode("healthy", DEADLINE);
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "k", "up"]), b"+OK\r\n");
    wire.delay(COMMAND_TIMEOUT * 5 / 4);
    proxy.wait_for_mode("down", DEADLINE);
    let down_at = Instant::now();
    wait_until(DEADLINE, "three times the silence", || {
        assert_eq!(client.call(&["SET", "k", "down"]), b"+OK\r\n");
        assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
        down_at.elapsed() > COMMAND_TIMEOUT * 3
    });
    let changes = transitions(&proxy);
    let closed: u64 = changes
        .iter()
        .filter(|(change, _)| change.contains("->closed"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(
        (reasons(&proxy), closed),
        (vec!["silence".to_owned()], 1),
        "{changes:?}"
    );
    wire.heal();
    proxy.wait_for_recovery();
    assert_eq!(client.call(&["GET", "k"]), bulk("down"));
}
