//! CLIENT TRACKING: clients that cache drop everything when Redis is lost, and once more when they are tracked again.

use super::*;

const DROP_ALL_3: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";
const DROP_ALL_2: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n";

fn invalidated(key: &str) -> Vec<u8> {
    [b">2\r\n$10\r\ninvalidate\r\n*1\r\n".as_slice(), &bulk(key)].concat()
}

/// Says it, and reads past out-of-band frames to the answer.
fn call_between_pushes(client: &mut Client, line: &str) -> Vec<u8> {
    client.send(&line.split(' ').collect::<Vec<_>>());
    loop {
        let reply = client.reply();
        if reply[0] != b'>' {
            return reply;
        }
    }
}

#[test]
fn what_a_flush_says_to_those_who_cache_is_what_an_outage_says() {
    let redis = RedisServer::start(Durability::Memory);
    let mut client = redis.client().hello3();
    check(&mut client, "CLIENT TRACKING ON", b"+OK\r\n");
    let mut listener = redis.client();
    let id = String::from_utf8(listener.call(&["CLIENT", "ID"])).unwrap();
    listener.call(&["SUBSCRIBE", "__redis__:invalidate"]);
    let mut redirecting = redis.client();
    let line = format!("CLIENT TRACKING ON REDIRECT {}", id[1..].trim_end());
    check(&mut redirecting, &line, b"+OK\r\n");
    redis.client().call(&["FLUSHALL"]);
    assert_eq!(client.reply(), DROP_ALL_3);
    assert_eq!(listener.reply(), DROP_ALL_2);
}

#[test]
fn a_client_that_caches_is_told_to_drop_all_at_once_and_is_tracked_again() {
    for options in ["", " OPTOUT NOLOOP", " BCAST PREFIX user: PREFIX item:"] {
        let mut redis = RedisServer::start(Durability::AppendOnly);
        let proxy = Tideover::healthy(&redis);
        let mut client = proxy.client().hello3();
        check(&mut client, &format!("CLIENT TRACKING ON{options}"), b"+OK\r\n");
        let info = client.call(&["CLIENT", "TRACKINGINFO"]);
        check(&mut client, "GET user:1", b"_\r\n");
        check(&mut redis.client(), "SET user:1 a", b"+OK\r\n");
        assert_eq!(client.reply(), invalidated("user:1"));
        redis.kill();
        assert_eq!(client.reply(), DROP_ALL_3, "{options}");
        check(&mut client, "GET user:1", b"_\r\n");
        assert_eq!(client.call(&["CLIENT", "TRACKINGINFO"]), info, "{options}");
        redis.restart();
        assert_eq!(client.reply(), DROP_ALL_3, "{options}");
        proxy.wait_for_recovery();
        assert_eq!(client.call(&["CLIENT", "TRACKINGINFO"]), info, "{options}");
        check(&mut client, "GET user:1", &bulk("a"));
        check(&mut redis.client(), "SET user:1 b", b"+OK\r\n");
        assert_eq!(client.reply(), invalidated("user:1"), "{options}");
    }
}

#[test]
fn a_frozen_redis_is_news_for_who_caches() {
    let redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut client = proxy.client().hello3();
    check(&mut client, "CLIENT TRACKING ON", b"+OK\r\n");
    redis.stop();
    assert_eq!(client.reply(), DROP_ALL_3);
    redis.cont();
    assert_eq!(client.reply(), DROP_ALL_3);
}

#[test]
fn tracking_asked_for_while_down_begins_with_the_recovery() {
    let (mut redis, proxy) = down();
    let mut client = proxy.client().hello3();
    let redirect = client.call(&["CLIENT", "TRACKING", "ON", "REDIRECT", "7"]);
    assert!(error_text(&redirect).unwrap().starts_with("UNAVAILABLE "));
    let off = client.call(&["CLIENT", "TRACKINGINFO"]);
    check(&mut client, "CLIENT GETREDIR", b":-1\r\n");
    check(&mut client, "CLIENT TRACKING ON OPTIN", b"+OK\r\n");
    check(&mut client, "CLIENT CACHING YES", b"+OK\r\n");
    check(&mut client, "CLIENT GETREDIR", b":0\r\n");
    check(&mut client, "GET k", b"_\r\n");
    redis.restart();
    assert_eq!(client.reply(), DROP_ALL_3);
    proxy.wait_for_recovery();
    check(&mut client, "CLIENT CACHING YES", b"+OK\r\n");
    check(&mut client, "GET k", b"_\r\n");
    check(&mut redis.client(), "SET k 1", b"+OK\r\n");
    assert_eq!(client.reply(), invalidated("k"));
    check(&mut client, "CLIENT TRACKING OFF", b"+OK\r\n");
    assert_eq!(client.call(&["CLIENT", "TRACKINGINFO"]), off);
    // Nobody owes it anything any more.
    redis.kill();
    await_down(&proxy);
    check(&mut client, "PING", b"+PONG\r\n");
}

/// What the answers here are taken from: the same lines while down and to a live Redis.
#[test]
fn options_of_tracking_are_refused_as_by_redis() {
    let live = RedisServer::start(Durability::Memory);
    let (_gone, proxy) = down();
    for script in [
        "on PREFIX a|on OPTIN OPTOUT|on BCAST OPTIN|on foo|foo|off PREFIX|off PREFIX a|on REDIRECT x|on REDIRECT",
        "on BCAST PREFIX a PREFIX ab|on BCAST PREFIX a PREFIX a|on BCAST PREFIX a|on BCAST PREFIX ab|on|on BCAST|on BCAST PREFIX b",
        "on OPTIN|on OPTOUT|on BCAST|on OPTIN NOLOOP|on|on OPTOUT|off|on BCAST NOLOOP",
    ] {
        let (mut client, mut direct) = (proxy.client().hello3(), live.client().hello3());
        for options in script.split('|') {
            let line = format!("CLIENT TRACKING {options}");
            check(&mut client, &line, &direct.call(&line.split(' ').collect::<Vec<_>>()));
            for also in [
                "CLIENT TRACKINGINFO",
                "CLIENT CACHING x",
                "CLIENT CACHING YES",
                "CLIENT CACHING NO",
            ] {
                let (ours, theirs) = (
                    call_between_pushes(&mut client, also),
                    direct.call(&also.split(' ').collect::<Vec<_>>()),
                );
                // What CLIENT CACHING says is for the next command only, which is answered here.
                let is_alike = ours == theirs || String::from_utf8_lossy(&theirs).contains("caching-");
                assert!(is_alike, "{line}, {also}: {} {}", shown(&ours), shown(&theirs));
            }
        }
    }
}

#[test]
fn messages_of_a_redirection_are_dropped_with_it() {
    let mut redis = RedisServer::start(Durability::AppendOnly);
    let proxy = Tideover::healthy(&redis);
    let mut listener = proxy.client();
    let id = String::from_utf8(listener.call(&["CLIENT", "ID"])).unwrap();
    listener.call(&["SUBSCRIBE", "__redis__:invalidate"]);
    let mut redirecting = proxy.client();
    let line = format!("CLIENT TRACKING ON REDIRECT {}", id[1..].trim_end());
    check(&mut redirecting, &line, b"+OK\r\n");
    redis.kill();
    assert_eq!(listener.reply(), DROP_ALL_2);
    // The listener's connection is another one when Redis is back: who redirects to it has to begin anew.
    assert_eq!(redirecting.until_closed(), b"");
    redis.restart();
    assert_eq!(listener.reply(), DROP_ALL_2);
}
