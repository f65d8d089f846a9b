//! A Redis that goes and comes, again and again. For long: `make flapping`.

use std::time::Duration;

use crate::support::load::{self, Load};
use crate::support::{Durability, RedisServer, Settings, Tideover};
use crate::{CLIENTS, transitions, wait_max};

const FLAPS: u64 = 6;
const PERIOD_MS: u64 = 600;

fn number_of(variable: &str, or_else: u64) -> u64 {
    std::env::var(variable).map_or(or_else, |text| text.parse().expect("a number"))
}

#[test]
fn every_write_is_accounted_for_when_redis_flaps() {
    let flaps = number_of("FLAPS", FLAPS);
    let half = Duration::from_millis(number_of("FLAP_PERIOD_MS", PERIOD_MS) / 2);
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let settings = Settings::default();
    let proxy = Tideover::healthy(&redis);
    let load = Load::start(&proxy.address(), CLIENTS);
    load.wait_for_more(20);
    for _ in 0..flaps {
        redis.kill();
        // Time is what is tested: nothing tells how far it is.
        std::thread::sleep(half);
        redis.restart();
        std::thread::sleep(half);
    }
    proxy.wait_for_mode("healthy", crate::support::DEADLINE);
    load.wait_for_more(20);
    let attempts = load.finish();
    proxy.wait_for_recovery();
    load::assert_none_lost(&attempts);
    load::assert_answered_within(&attempts, wait_max(&settings));
    load::assert_uncertain_at_most(&attempts, usize::try_from(flaps).unwrap());
    load::assert_applied(&mut redis.client(), &attempts);
    assert_eq!(proxy.dead_letters(), 0);
    let changes = transitions(&proxy);
    let opened: u64 = changes
        .iter()
        .filter(|(change, _)| change.contains("->open:"))
        .map(|(_, count)| count)
        .sum();
    // Once for each failure of Redis, and once for a catching up that it cuts short.
    assert!(1 <= opened && opened <= 2 * flaps, "{changes:?}");
}
