//! Commands of modules and newer servers: what the upstream's COMMAND tells of them decides where they go and what their loss means.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation here is a failed test"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use support::relay::command_reply;
use support::{
    Client, DEADLINE, Durability, RedisServer, Relay, Settings, Tideover, Verdict, await_down, error_text, wait_until,
};

/// A Redis with a module, as far as tideover can tell.
struct World {
    _place: RedisServer,
    _redis: RedisServer,
    relay: Relay,
    proxy: Tideover,
}

fn verdict(args: &[String]) -> Verdict {
    let as_redis_has_it = |name: &str| {
        let mut args = args.to_vec();
        args[0] = name.into();
        Verdict::Instead(args)
    };
    match args[0].to_ascii_uppercase().as_str() {
        "COMMAND" => Verdict::Answer(command_reply(&[
            ("get", 2, "readonly fast", [1, 1, 1]),
            ("new.get", 2, "readonly module fast", [1, 1, 1]),
            ("new.set", 3, "write denyoom module fast", [1, 1, 1]),
            ("new.scan", 2, "readonly module", [1, 1, 1]),
            ("new.bget", 2, "readonly blocking", [1, 1, 1]),
            ("new.set_cut", 3, "write fast", [1, 1, 1]),
            ("new.get_cut", 2, "readonly fast", [1, 1, 1]),
        ])),
        "NEW.GET" | "NEW.SCAN" | "NEW.BGET" | "NEW.GET_CUT" => as_redis_has_it("GET"),
        "NEW.SET" => as_redis_has_it("SET"),
        "NEW.SET_CUT" => Verdict::Close,
        _ => Verdict::Pass,
    }
}

impl World {
    fn start(judge: impl Fn(&[String]) -> Verdict + Send + Sync + 'static) -> Self {
        let place = RedisServer::absent(Durability::Memory);
        let redis = RedisServer::start(Durability::Memory);
        let relay = Relay::start(&place, &redis, judge);
        let settings = Settings {
            workers: 1,
            more: "[[upstream.rule]]\nkeys = [\"cache:*\"]\nwhen_down = \"error\"\n".into(),
            ..Settings::default()
        };
        let proxy = Tideover::start_with(&place, &settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        wait_until(DEADLINE, "the upstream is asked for its commands", || {
            proxy.log_text().contains("asked for the upstream's commands")
        });
        Self {
            _place: place,
            _redis: redis,
            relay,
            proxy,
        }
    }
}

#[track_caller]
fn check(client: &mut Client, line: &str, expected: &str) {
    let args: Vec<&str> = line.split(' ').collect();
    let reply = client.call(&args);
    assert_eq!(String::from_utf8_lossy(&reply).trim_end(), expected, "{line}");
}

#[test]
fn a_command_that_cannot_block_shares_the_lane_and_others_do_not() {
    let world = World::start(verdict);
    let (mut one, mut two) = (world.proxy.client(), world.proxy.client());
    for client in [&mut one, &mut two] {
        check(client, "SET k v", "+OK");
        check(client, "new.set k w", "+OK");
        check(client, "NEW.GET k", "$1\r\nw");
    }
    let sets = world
        .relay
        .requests()
        .into_iter()
        .filter(|(_, request)| request == "SET k v");
    let lane: Vec<usize> = sets.map(|(connection, _)| connection).collect();
    assert_eq!(lane[0], lane[1]);
    let mut learned = world.relay.connections_of("new.set");
    learned.extend(world.relay.connections_of("NEW.GET"));
    assert_eq!(learned, [lane[0]; 4]);
    for name in ["NEW.SCAN", "NEW.BGET", "NEW.UNHEARD_OF"] {
        one.call(&[name, "k"]);
        assert_ne!(world.relay.connections_of(name), [lane[0]], "{name}");
    }
    check(
        &mut one,
        "NEW.UNHEARD_OF x",
        "-ERR unknown command 'NEW.UNHEARD_OF', with args beginning with: 'x'",
    );
}

#[test]
fn a_learned_read_that_is_lost_is_sent_again_and_a_learned_write_is_uncertain() {
    let is_cut = AtomicBool::new(false);
    let world = World::start(move |args| match args[0].as_str() {
        "NEW.GET_CUT" if !is_cut.swap(true, Ordering::SeqCst) => Verdict::Close,
        _ => verdict(args),
    });
    let mut client = world.proxy.client();
    check(&mut client, "SET k v", "+OK");
    check(&mut client, "NEW.GET_CUT k", "$1\r\nv");
    assert_eq!(world.relay.connections_of("NEW.GET_CUT").len(), 2);
    let text = error_text(&client.call(&["NEW.SET_CUT", "k", "v"])).unwrap();
    assert!(text.starts_with("UNAVAILABLE NEW.SET_CUT may or may not"), "{text}");
    assert_eq!(world.relay.connections_of("NEW.SET_CUT").len(), 1);
}

#[test]
fn while_down_learned_commands_are_refused_by_what_they_are() {
    let world = World::start(verdict);
    let mut client = world.proxy.client();
    world.relay.close();
    world.proxy.wait_for_mode("down", DEADLINE);
    let down = "upstream \"main\" is down";
    for (line, expected) in [
        ("NEW.SET k v", format!("-UNAVAILABLE NEW.SET was not applied: {down}")),
        ("new.get k", format!("-UNAVAILABLE NEW.GET was not executed: {down}")),
        ("NEW.GET", "-ERR wrong number of arguments for 'new.get' command".into()),
        (
            "NEW.UNHEARD_OF k",
            format!("-UNAVAILABLE NEW.UNHEARD_OF was not executed: {down}"),
        ),
        // By the rule for these keys.
        (
            "NEW.GET cache:1",
            format!("-UNAVAILABLE NEW.GET was not applied: {down}"),
        ),
        ("MULTI", "+OK".into()),
        (
            "NEW.SET k",
            "-ERR wrong number of arguments for 'new.set' command".into(),
        ),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.".into(),
        ),
    ] {
        check(&mut client, line, &expected);
    }
    assert_eq!(world.proxy.backlog(), 0);
}

#[test]
fn an_upstream_that_refuses_command_teaches_nothing_and_works() {
    let world_said = "COMMAND is not answered";
    let place = RedisServer::absent(Durability::Memory);
    let redis = RedisServer::start(Durability::Memory);
    let _relay = Relay::start(&place, &redis, |args| match args[0].as_str() {
        "COMMAND" => Verdict::Answer(b"-NOPERM this user has no permissions to run the 'command' command\r\n".to_vec()),
        _ => verdict(args),
    });
    let proxy = Tideover::healthy(&place);
    wait_until(DEADLINE, "it is said", || proxy.log_text().contains(world_said));
    let mut client = proxy.client();
    check(&mut client, "NEW.SET k v", "+OK");
    check(&mut client, "GET k", "$1\r\nv");
}

#[test]
fn a_real_redis_is_asked_again_after_a_recovery_and_a_module_command() {
    let mut redis = RedisServer::start(Durability::Memory);
    let proxy = Tideover::healthy(&redis);
    let asked = |times: usize| {
        wait_until(DEADLINE, "COMMAND was asked", || {
            proxy.log_text().matches("asked for the upstream's commands").count() == times
        });
    };
    asked(1);
    assert!(!proxy.log_text().contains("COMMAND is not answered"));
    assert!(proxy.client().call(&["MODULE", "LOAD", "/nowhere"]).starts_with(b"-"));
    asked(2);
    redis.kill();
    await_down(&proxy);
    redis.restart();
    proxy.wait_for_recovery();
    asked(3);
}
