//! No room for another connection: at Redis, or at tideover itself.

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::support::load;
use crate::support::{
    Client, DEADLINE, Direction, Durability, RedisServer, Settings, Tideover, Wire, await_down, bulk, wait_until,
};
use crate::{load_through, reasons};

#[test]
fn a_redis_that_is_full_when_it_comes_back_is_down_until_it_has_room() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let place = RedisServer::absent(Durability::Memory);
    let wire = Wire::start(&place, &redis);
    let proxy = Tideover::healthy(&place);
    let mut client = proxy.client();
    redis.kill();
    await_down(&proxy);
    assert_eq!(client.call(&["SET", "k", "v"]), b"+OK\r\n");
    wire.hold(&[Direction::ToRedis]);
    redis.add_options(&["--maxclients", "2"]);
    redis.restart();
    let mut others: Vec<Client> = Vec::new();
    wait_until(DEADLINE, "a full Redis", || {
        let mut other = redis.client();
        let is_in = other.try_call(&["PING"]).is_ok_and(|reply| reply == b"+PONG\r\n");
        if is_in {
            others.push(other);
        }
        others.len() == 2
    });
    wire.heal();
    wait_until(DEADLINE, "the reason in /status", || {
        let status = proxy.status();
        status["last_error"]
            .as_str()
            .is_some_and(|text| text.contains("max number of clients"))
    });
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
    assert_eq!(client.call(&["SET", "other", "v"]), b"+OK\r\n");
    assert_eq!(others[0].call(&["CONFIG", "SET", "maxclients", "100"]), b"+OK\r\n");
    proxy.wait_for_recovery();
    assert_eq!(
        client.call(&["MGET", "k", "other"]),
        [b"*2\r\n".to_vec(), bulk("v"), bulk("v")].concat()
    );
}

/// Everybody is sent away, and others take the places.
#[test]
fn every_write_is_accounted_for_when_redis_takes_none_of_our_connections_any_more() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut direct = redis.client();
    let full = std::cell::RefCell::new(redis.client());
    let settings = Settings::default();
    let attempts = load_through(
        &proxy,
        &settings,
        &["max_clients", "consecutive_failures", "failure_rate"],
        || {
            let mut full = full.borrow_mut();
            assert_eq!(full.call(&["CONFIG", "SET", "maxclients", "1"]), b"+OK\r\n");
            full.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        },
        || {
            let reply = full.borrow_mut().call(&["CONFIG", "SET", "maxclients", "1000"]);
            assert_eq!(reply, b"+OK\r\n");
        },
    );
    assert!(direct.try_call(&["PING"]).is_err(), "it was sent away, too");
    load::assert_applied(&mut redis.client(), &attempts);
}

#[test]
fn a_lack_of_file_descriptors_here_is_no_outage_of_redis() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let mut proxy = Tideover::healthy(&redis);
    let (mut connected, mut other) = (proxy.client(), proxy.client());
    assert_eq!(connected.call(&["SET", "k", "v"]), b"+OK\r\n");
    assert_eq!(other.call(&["GET", "k"]), bulk("v"));
    let id = Pid::from_raw(i32::try_from(proxy.process().id()).unwrap());
    let set = |current| {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(4096),
        };
        prlimit(id, Resource::Nofile, limit).unwrap();
    };
    // Fewer than it has: none can be added.
    set(8);
    let refused = other.call(&["SELECT", "3"]);
    assert!(
        refused.starts_with(b"-UNAVAILABLE "),
        "{}",
        crate::support::shown(&refused)
    );
    assert_eq!(connected.call(&["GET", "k"]), bulk("v"));
    set(4096);
    assert_eq!(other.call(&["SELECT", "3"]), b"+OK\r\n");
    assert_eq!(other.call(&["GET", "k"]), b"$-1\r\n");
    assert_eq!(reasons(&proxy), [""; 0]);
}

/// They are all accepted before one of them is served.
#[test]
fn of_many_clients_at_once_no_more_are_served_than_may_be() {
    const MAX: usize = 5;
    let redis = RedisServer::start(Durability::Memory);
    for workers in [1, 2] {
        let settings = Settings {
            workers,
            top: format!("[limits]\nclients = {MAX}"),
            ..Settings::default()
        };
        let mut proxy = Tideover::start_with(&redis, &settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        wait_until(DEADLINE, "nobody is served", || proxy.status()["clients"] == 0);
        proxy.process().signal(Signal::STOP);
        let mut clients: Vec<Client> = (0..60).map(|_| proxy.client()).collect();
        proxy.process().signal(Signal::CONT);
        let is_served = |client: &mut Client| client.try_call(&["PING"]).is_ok_and(|reply| reply == b"+PONG\r\n");
        let served = clients.iter_mut().map(is_served).filter(|served| *served).count();
        assert_eq!(served, MAX, "{workers} workers");
    }
}
