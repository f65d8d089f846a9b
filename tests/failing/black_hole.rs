//! Packets that do not arrive, while every connection stays open. With packets that are lost: `tests/namespaces`.

use std::time::{Duration, Instant};

use crate::support::load;
use crate::support::{DEADLINE, Direction, Durability, RedisServer, Settings, Tideover, Wire};
use crate::{load_through, reasons};

/// What is on its way in the dark arrives in the light, behind the reset of the connection that it was sent on.
#[track_caller]
fn check(directions: &[Direction]) {
    let redis = RedisServer::start(Durability::AppendOnly);
    let place = RedisServer::absent(Durability::Memory);
    let wire = Wire::start(&place, &redis);
    let settings = Settings::default();
    let proxy = Tideover::healthy(&place);
    let attempts = load_through(
        &proxy,
        &settings,
        &["silence"],
        || wire.hold(directions),
        || wire.heal(),
    );
    load::assert_applied(&mut redis.client(), &attempts);
}

#[test]
fn every_write_is_accounted_for_when_nothing_arrives_either_way() {
    check(&[Direction::ToRedis, Direction::FromRedis]);
}

#[test]
fn every_write_is_accounted_for_when_requests_do_not_arrive() {
    check(&[Direction::ToRedis]);
}

#[test]
fn every_write_is_accounted_for_when_replies_do_not_arrive() {
    check(&[Direction::FromRedis]);
}

#[test]
fn a_black_hole_is_noticed_while_nobody_asks_anything() {
    let redis = RedisServer::start(Durability::Memory);
    let place = RedisServer::absent(Durability::Memory);
    let wire = Wire::start(&place, &redis);
    let settings = Settings::default();
    let proxy = Tideover::healthy(&place);
    let held_at = Instant::now();
    wire.hold(&[Direction::FromRedis]);
    proxy.wait_for_mode("down", DEADLINE);
    // The next PING, its silence, and a second for the machine.
    let limit = Duration::from_secs(2) + settings.command_timeout;
    assert!(held_at.elapsed() < limit, "noticed after {:?}", held_at.elapsed());
    assert_eq!(reasons(&proxy), ["silence"]);
    wire.heal();
    proxy.wait_for_recovery();
}
