//! Dedicated connections and spares.

use super::*;

#[test]
fn a_dedicated_connection_serves_the_next_session_once_it_is_given_back() {
    run(async {
        let world = World::new().await;
        let (one, two) = (Rc::new(Recorder::default()), Rc::new(Recorder::default()));
        let owner: Rc<Recorder> = Rc::clone(&one);
        let link = world.local.dedicated(&key(), owner);
        push(&link, &one, 0, "GET a", InFlight::Read);
        let mut peer = world.accept(&MASTER).await;
        peer.request().await;
        peer.say("+A\r\n").await;
        one.events(1).await;
        world.local.give_back(&link);
        let owner: Rc<Recorder> = Rc::clone(&two);
        let again = world.local.dedicated(&key(), owner);
        assert!(Rc::ptr_eq(&link, &again));
        drop(peer);
        assert_eq!(two.events(1).await, ["ended"]);
        assert_eq!(one.events.borrow().len(), 1, "it is no longer concerned");
    });
}

#[test]
fn spares_are_dialled_while_all_is_well_and_one_that_fails_troubles_nobody() {
    run(async {
        let world = World::new().await;
        let local = &world.local;
        local.tend_spares();
        assert_eq!(local.idle_count(), 0);
        local.shared.set_mode(Mode::Healthy);
        local.tend_spares();
        for _ in 0..2 {
            let mut peer = world.accept_silently().await;
            peer.request().await;
            peer.say("-ERR max number of clients reached\r\n").await;
        }
        while local.idle_count() > 0 {
            tokio::task::yield_now().await;
        }
        let fresh = Rc::new(Recorder::default());
        let owner: Rc<Recorder> = Rc::clone(&fresh);
        let link = local.dedicated(&key(), owner);
        push(&link, &fresh, 0, "GET a", InFlight::Read);
        let mut peer = world.accept(&MASTER).await;
        assert_eq!(peer.request().await, "GET a");
        local.tend_spares();
        assert_eq!(world.on_file(), 1);
        assert_eq!(world.sign(), None);
        assert!(local.dial_not_before().is_none());
    });
}

#[test]
fn a_session_takes_over_a_spare_and_hears_of_its_end() {
    run(async {
        let world = World::new().await;
        world.local.shared.set_mode(Mode::Healthy);
        world.local.tend_spares();
        let (one, two) = (world.accept(&MASTER).await, world.accept(&MASTER).await);
        while world.on_file() < 2 {
            tokio::task::yield_now().await;
        }
        let recorder = Rc::new(Recorder::default());
        let owner: Rc<Recorder> = Rc::clone(&recorder);
        let link = world.local.dedicated_fresh(&key(), owner);
        assert_eq!(link.state(), LinkState::Up);
        drop((one, two));
        assert_eq!(recorder.events(1).await, ["ended"]);
        while world.on_file() > 0 {
            tokio::task::yield_now().await;
        }
        let owner: Rc<Recorder> = Rc::clone(&recorder);
        let next = world.local.dedicated_fresh(&key(), owner);
        assert_eq!(next.state(), LinkState::Dialling, "the other spare is gone, too");
    });
}

#[test]
fn an_altered_connection_serves_nobody_else() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let owner: Rc<Recorder> = Rc::clone(&one);
        let link = world.local.dedicated(&key(), owner);
        push(&link, &one, 0, "SELECT 5", InFlight::Read);
        let mut peer = world.accept(&MASTER).await;
        peer.request().await;
        peer.say("+OK\r\n").await;
        one.events(1).await;
        link.alter();
        world.local.give_back(&link);
        peer.read_end_of_file().await;
    });
}

#[test]
fn an_abandoned_connection_is_closed_and_forgets_its_owner() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let owner: Rc<Recorder> = Rc::clone(&one);
        let link = world.local.dedicated(&key(), owner);
        push(&link, &one, 0, "GET a", InFlight::Read);
        let mut peer = world.accept(&MASTER).await;
        peer.request().await;
        peer.say("+A\r\n").await;
        one.events(1).await;
        link.abandon();
        peer.read_end_of_file().await;
        drop(peer);
        while link.state() != LinkState::Dead || Rc::strong_count(&link) > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(Rc::strong_count(&one), 1, "nobody holds the session any more");
        assert_eq!(world.on_file(), 0);
    });
}

#[test]
fn a_connection_that_is_reset_stays_on_file_until_the_fence_has_a_proof() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "SET a 1", InFlight::Write);
        let mut peer = world.accept(&MASTER).await;
        peer.request().await;
        socket2::SockRef::from(&peer.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(peer);
        assert_eq!(one.events(1).await, ["lost 0 SET a 1 Uncertain"]);
        assert_eq!(lane.state(), LinkState::Dead);
        assert_eq!(world.on_file(), 1);
    });
}
