//! Requests on dedicated connections that leave at the end of the turn, together.

use super::*;

/// Larger than what the sockets between two processes take.
const REQUESTS: u64 = 6000;

struct One {
    link: Rc<Link>,
    session: Rc<Recorder>,
    peer: Peer,
}

impl One {
    async fn new(world: &World) -> Self {
        let session = Rc::new(Recorder::default());
        let owner: Rc<Recorder> = Rc::clone(&session);
        let link = world.local.dedicated(&key(), owner);
        let peer = world.accept(&MASTER).await;
        while link.state() != LinkState::Up {
            tokio::task::yield_now().await;
        }
        Self { link, session, peer }
    }

    fn ask(&self, world: &World, seq: u64, words: &str) {
        push(&self.link, &self.session, seq, words, InFlight::Write);
        world.local.write_dedicated(&self.link);
    }
}

/// A worker that may use io_uring, and has connections enough for a burst.
async fn several() -> (World, Vec<One>) {
    let world = World::with(Uring::Auto).await;
    tokio::task::spawn_local(Rc::clone(&world.local.turn).flush_each_turn());
    let mut several = Vec::new();
    for _ in 0..4 {
        several.push(One::new(&world).await);
    }
    (world, several)
}

/// The request of each is handed back, and has not reached Redis.
async fn check_taken_back(several: &mut [One]) {
    for one in several {
        assert_eq!(one.session.events(1).await, ["taken_back 0 LPUSH a 1 Write"]);
        one.peer.read_end_of_file().await;
    }
}

#[test]
fn requests_of_several_leave_at_the_end_of_each_turn() {
    run(async {
        let (world, mut several) = several().await;
        for seq in 0..3 {
            for one in &several {
                one.ask(&world, seq, "LPUSH a 1");
                one.ask(&world, seq, "LPUSH a 2");
                assert_eq!(one.link.out.borrow().has_unsent(), world.local.turn.is_bursting());
            }
            for one in &mut several {
                assert_eq!(one.peer.request().await, "LPUSH a 1");
                assert_eq!(one.peer.request().await, "LPUSH a 2");
                assert!(!one.link.out.borrow().has_unsent());
            }
        }
        several[0].ask(&world, 3, "LPUSH a 3");
        assert_eq!(
            several[0].peer.request().await,
            "LPUSH a 3",
            "one alone waits for nobody"
        );
    });
}

#[test]
fn what_waits_for_the_end_of_the_turn_is_taken_back_by_a_new_generation() {
    run(async {
        let (world, mut several) = several().await;
        if !world.local.turn.is_bursting() {
            return;
        }
        several.iter().for_each(|one| one.ask(&world, 0, "LPUSH a 1"));
        world.move_to(3);
        check_taken_back(&mut several).await;
    });
}

#[test]
fn nothing_leaves_once_the_generation_has_moved() {
    run(async {
        let (world, mut several) = several().await;
        for (number, one) in several.iter().enumerate() {
            if number == 2 {
                // As a trip does, whose bell has not been heard yet.
                world.generation.store(3, Ordering::Release);
            }
            one.ask(&world, 0, "LPUSH a 1");
        }
        check_taken_back(&mut several).await;
    });
}

#[test]
fn what_waits_for_the_end_of_the_turn_leaves_before_its_session_does() {
    run(async {
        let (world, mut several) = several().await;
        several.iter().for_each(|one| {
            one.ask(&world, 0, "LPUSH a 1");
            one.link.abandon();
        });
        for one in &mut several {
            assert_eq!(one.peer.request().await, "LPUSH a 1");
            one.peer.read_end_of_file().await;
        }
    });
}

#[test]
fn what_a_full_socket_does_not_take_follows_in_order() {
    run(async {
        let (world, mut several) = several().await;
        let value = "v".repeat(3000);
        for seq in 0..REQUESTS {
            several
                .iter()
                .for_each(|one| one.ask(&world, seq, &format!("LPUSH {seq} {value}")));
            tokio::task::yield_now().await;
        }
        assert!(several.iter().all(|one| one.link.out.borrow().has_unsent()));
        for one in &mut several {
            for seq in 0..REQUESTS {
                assert_eq!(one.peer.request().await, format!("LPUSH {seq} {value}"));
            }
        }
    });
}

#[test]
fn behind_a_burst_that_failed_nothing_is_sent_and_what_was_in_it_may_have_been() {
    run(async {
        let (world, mut several) = several().await;
        let one = several.remove(0);
        one.ask(&world, 0, "LPUSH a 1");
        one.link.sent_perhaps();
        assert!(!one.link.is_open());
        let mut peer = one.peer;
        peer.read_end_of_file().await;
        drop(peer);
        assert_eq!(one.session.events(2).await, ["lost 0 LPUSH a 1 Uncertain", "ended"]);
        assert_eq!(world.sign(), None, "Redis has done nothing");
    });
}
