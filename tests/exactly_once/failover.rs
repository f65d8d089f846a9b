//! §7: another server takes over, with all that was confirmed or without its tail.

use crate::support::{
    Client, DEADLINE, Durability, RedisServer, Settings, Tideover, array, bulk, check, error_text, integer, numbers,
    push, wait_until,
};
use crate::way::Way;
use crate::{SECOND, assert_list, letters, list, lose, slow};

/// A master and its replica behind one address, each of the two ways of its own.
struct Couple {
    master: RedisServer,
    replica: RedisServer,
    /// Between them.
    link: Way,
    /// What tideover takes for Redis.
    address: Way,
    proxy: Tideover,
}

/// May not ask the server who it is.
const HARDENED: [&str; 8] = ["--user", "app", "on", ">secret", "~*", "&*", "+@all", "-@dangerous"];

impl Couple {
    fn start() -> Self {
        Self::start_as("")
    }

    /// With the URL's credentials.
    fn start_as(credentials: &str) -> Self {
        let replication = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let options = [replication.as_slice(), &HARDENED].concat();
        let master = RedisServer::start_with(Durability::Memory, &options);
        let link = Way::to(&master);
        let replica = RedisServer::start_with(Durability::Memory, &options);
        let follow = format!("REPLICAOF 127.0.0.1 {}", link.port());
        check(&mut replica.client(), &follow, b"+OK\r\n");
        wait_until(DEADLINE, "the replica has everything", || says(&master, "state=online"));
        let address = Way::to(&master);
        let settings = Settings {
            url: Some(address.url().replace("://", &format!("://{credentials}"))),
            ..slow()
        };
        let proxy = Tideover::start_with(&master, &settings);
        proxy.wait_for_mode("healthy", DEADLINE);
        Self {
            master,
            replica,
            link,
            address,
            proxy,
        }
    }

    /// An outage of the address alone, and what is journaled in it.
    fn journal(&self, write: impl FnOnce(&mut Client)) {
        lose(&self.address, &self.proxy);
        write(&mut self.proxy.client());
    }

    fn be_back(&self) {
        self.address.lead_to(&self.master);
        self.proxy.wait_for_recovery();
    }

    /// What the master gets from now on the replica does not get.
    fn lose_replica(&self) {
        self.link.close();
        wait_until(DEADLINE, "the master has noticed", || {
            says(&self.master, "connected_slaves:0")
        });
    }

    /// The replica is the master from now on, behind the same address.
    fn fail_over(&mut self) {
        check(&mut self.replica.client(), "REPLICAOF NO ONE", b"+OK\r\n");
        self.address.lead_to(&self.replica);
        self.master.kill();
    }
}

fn says(redis: &RedisServer, what: &str) -> bool {
    String::from_utf8_lossy(&redis.client().call(&["INFO", "replication"])).contains(what)
}

#[test]
fn a_replica_that_has_everything_gets_nothing_twice() {
    let mut couple = Couple::start();
    couple.journal(|client| {
        push(client, 0..100);
        check(client, "SET a 1", b"+OK\r\n");
    });
    couple.be_back();
    assert_eq!(
        couple.proxy.status()["queue"]["retained_bytes"],
        0,
        "WAIT has confirmed it"
    );
    couple.journal(|client| push(client, 100..110));
    couple.fail_over();
    couple.proxy.wait_for_recovery();
    assert_list(&couple.replica, 0..110);
    assert_eq!(couple.proxy.dead_letters(), 0);
}

#[test]
fn a_replica_that_lost_the_tail_gets_again_what_is_absolute_once_others_have_written() {
    let mut couple = Couple::start();
    couple.journal(|client| push(client, 0..10));
    couple.be_back();
    couple.lose_replica();
    couple.journal(|client| {
        push(client, 10..15);
        check(client, "MSET a 1 b 1", b"+OK\r\n");
    });
    couple.be_back();
    assert_ne!(
        couple.proxy.status()["queue"]["retained_bytes"],
        0,
        "nobody has confirmed it"
    );
    check(&mut couple.proxy.client(), "SET b live", b"+OK\r\n");
    couple.journal(|client| push(client, 15..20));
    couple.fail_over();
    couple.proxy.wait_for_recovery();
    let expected = [numbers(0..10), numbers(15..20)].concat();
    assert_eq!(list(&couple.replica), expected, "a push is not done twice");
    check(
        &mut couple.replica.client(),
        "MGET a b",
        &[b"*2\r\n".to_vec(), bulk("1"), bulk("1")].concat(),
    );
    assert_eq!(letters(&couple.proxy).matches("lost_by_failover").count(), 5);
}

#[test]
fn a_replica_that_lost_the_tail_in_mid_replay_gets_it_all() {
    let mut couple = Couple::start();
    couple.lose_replica();
    couple.journal(|client| push(client, 0..SECOND));
    couple.address.lead_to(&couple.master);
    let mut direct = couple.master.client();
    wait_until(DEADLINE, "a part is replayed", || {
        integer(&direct.call(&["LLEN", "l"])) > 500
    });
    couple.fail_over();
    couple.address.cut();
    couple.proxy.wait_for_recovery();
    assert_list(&couple.replica, 0..SECOND);
    assert_eq!(couple.proxy.dead_letters(), 0, "nobody else has written");
}

/// Lanes that come to another server one by one would not trip the breaker by being reset.
#[test]
fn another_server_is_noticed_before_it_is_written_to() {
    let mut couple = Couple::start();
    couple.lose_replica();
    couple.journal(|client| {
        check(client, "SET a old", b"+OK\r\n");
        check(client, "SET c old", b"+OK\r\n");
    });
    couple.be_back();
    let mut clients: Vec<Client> = (0..20).map(|_| couple.proxy.client()).collect();
    for client in &mut clients {
        check(client, "GET c", &bulk("old"));
    }
    couple.fail_over();
    couple.address.cut();
    for (number, client) in clients.iter_mut().enumerate() {
        let reply = client.call(&["SET", if number == 0 { "a" } else { "b" }, "new"]);
        assert_eq!(error_text(&reply), None, "nothing was in flight");
    }
    couple.proxy.wait_for_recovery();
    check(
        &mut couple.replica.client(),
        "MGET a b c",
        &[b"*3\r\n".to_vec(), bulk("new"), bulk("new"), bulk("old")].concat(),
    );
}

/// It cannot be noticed there: what others wrote meanwhile must not be overwritten by what is older.
#[test]
fn a_server_that_does_not_say_who_it_is_gets_nothing_older_than_live_writes() {
    let mut couple = Couple::start_as("app:secret@");
    couple.lose_replica();
    check(&mut couple.proxy.client(), "SET b 0", b"+OK\r\n");
    couple.journal(|client| {
        check(client, "SET a old", b"+OK\r\n");
    });
    couple.be_back();
    check(
        &mut couple.replica.client(),
        "SET there 1",
        b"-READONLY You can't write against a read only replica.\r\n",
    );
    couple.fail_over();
    couple.address.cut();
    check(&mut couple.replica.client(), "SET there 1", b"+OK\r\n");
    let mut client = couple.proxy.client();
    wait_until(DEADLINE, "the new master is written to", || {
        client.call(&["SET", "a", "new"]) == b"+OK\r\n" && couple.proxy.mode() == "healthy"
    });
    couple.journal(|client| push(client, 0..10));
    couple.address.lead_to(&couple.replica);
    couple.proxy.wait_for_recovery();
    assert_list(&couple.replica, 0..10);
    check(&mut couple.replica.client(), "GET a", &bulk("new"));
}

#[test]
fn a_demoted_master_behind_the_same_address_is_not_written_to() {
    let mut couple = Couple::start();
    let mut client = couple.proxy.client();
    push(&mut client, 0..10);
    wait_until(DEADLINE, "the replica has everything", || {
        list(&couple.replica).len() == 10
    });
    check(&mut couple.replica.client(), "REPLICAOF NO ONE", b"+OK\r\n");
    let follow = format!("REPLICAOF 127.0.0.1 {}", couple.replica.port());
    check(&mut couple.master.client(), &follow, b"+OK\r\n");
    for number in 10..60 {
        push(&mut client, number..number + 1);
    }
    couple.proxy.wait_for_mode("down", DEADLINE);
    couple.address.lead_to(&couple.replica);
    couple.proxy.wait_for_recovery();
    assert_list(&couple.replica, 0..60);
    wait_until(DEADLINE, "the old master follows", || {
        array(&couple.master.client().call(&["LRANGE", "l", "0", "-1"])).len() == 60
    });
    couple.master.kill();
}
