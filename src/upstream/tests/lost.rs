//! What requests are told whose replies do not come, or come from an upstream that is not to be used.

use super::*;

/// The replies to `pushed` are never given: what is each of them told?
fn check_lost(pushed: &'static [(&'static str, InFlight)], expected: &'static [&'static str]) {
    run(async move {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        for (seq, (words, class)) in pushed.iter().enumerate() {
            push(&lane, &one, seq as u64, words, *class);
        }
        let mut peer = world.accept(&MASTER).await;
        for (words, _) in pushed {
            assert_eq!(peer.request().await, *words);
        }
        drop(peer);
        assert_eq!(one.events(expected.len()).await, expected);
        assert_eq!(world.sign(), Some(Sign::Reset));
        assert_eq!(lane.state(), LinkState::Dead);
        assert_eq!(one.events.borrow().len(), expected.len(), "each once");
    });
}

#[test]
fn a_read_lost_behind_a_write_is_sent_again_and_the_write_is_uncertain() {
    check_lost(
        &[("SET b 1", InFlight::Write), ("GET a", InFlight::Read)],
        &["lost 0 SET b 1 Uncertain", "lost 1 GET a Again"],
    );
}

#[test]
fn a_read_lost_before_a_write_is_answered_for_it_may_not_overtake() {
    check_lost(
        &[("GET a", InFlight::Read), ("SET b 1", InFlight::Write)],
        &["lost 0 GET a Neutral", "lost 1 SET b 1 Uncertain"],
    );
}

#[test]
fn a_read_is_sent_again_once() {
    check_lost(
        &[("GET a", InFlight::ReadAgain), ("GET b", InFlight::Read)],
        &["lost 0 GET a Neutral", "lost 1 GET b Again"],
    );
}

#[test]
fn the_write_of_another_session_keeps_no_read_from_being_sent_again() {
    run(async {
        let world = World::new().await;
        let (one, two) = (Rc::new(Recorder::default()), Rc::new(Recorder::default()));
        let lane = world.lane();
        push(&lane, &one, 0, "GET a", InFlight::Read);
        push(&lane, &two, 0, "SET b 1", InFlight::Write);
        let mut peer = world.accept(&MASTER).await;
        peer.request().await;
        peer.request().await;
        drop(peer);
        assert_eq!(one.events(1).await, ["lost 0 GET a Again"]);
        assert_eq!(two.events(1).await, ["lost 0 SET b 1 Uncertain"]);
    });
}

#[test]
fn a_reply_cut_in_the_middle_is_lost_and_what_came_before_is_not() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "GET a", InFlight::Read);
        push(&lane, &one, 1, "GET b", InFlight::Read);
        let mut peer = world.accept(&MASTER).await;
        peer.request().await;
        peer.request().await;
        peer.say("$1\r\nA\r\n$9\r\nhal").await;
        drop(peer);
        assert_eq!(
            one.events(3).await,
            ["End 0 $1 A", "Part 1 $9 hal", "lost 1 GET b Again"]
        );
    });
}

#[test]
fn a_reply_that_comes_in_single_bytes_is_one_reply() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "LRANGE l 0 -1", InFlight::Read);
        push(&lane, &one, 1, "GET b", InFlight::Read);
        let mut peer = world.accept(&MASTER).await;
        peer.request().await;
        peer.request().await;
        for byte in [
            "*", "2", "\r", "\n", ":", "1", "\r", "\n", ":", "2", "\r", "\n", "+B\r\n",
        ] {
            peer.say(byte).await;
            // Lets the driver read each by itself.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        loop {
            let events = one.events.borrow().clone();
            if events.iter().any(|event| event == "End 1 +B") {
                let first = events.iter().filter(|event| event.starts_with("End 0")).count();
                assert_eq!(first, 1, "{events:?}");
                return;
            }
            one.events(events.len() + 1).await;
        }
    });
}

/// `reply` to a SET, by an upstream of `role`.
fn check_sign(role: &'static str, reply: &'static str, expected: &'static str, sign: Option<Sign>) {
    run(async move {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "SET a 1", InFlight::Write);
        push(&lane, &one, 1, "GET a", InFlight::Read);
        let mut peer = world.accept(&Redis { role, ..MASTER }).await;
        peer.request().await;
        peer.request().await;
        peer.say(&format!("{reply}\r\n$1\r\nA\r\n")).await;
        assert_eq!(one.events(2).await, [expected, "End 1 $1 A"], "{role} {reply}");
        assert_eq!(world.sign(), sign, "{role} {reply}");
        assert_eq!(lane.state(), LinkState::Up);
    });
}

#[test]
fn errors_of_an_upstream_that_is_not_to_be_used_are_not_passed_on() {
    let back = "not_executed 0 SET a 1 Write";
    check_sign("master", "-LOADING Redis is loading", back, Some(Sign::Loading));
    check_sign("master", "-READONLY You can't write", back, Some(Sign::Demoted));
    check_sign("master", "-MASTERDOWN Link", back, Some(Sign::MasterDown));
    check_sign("master", "-CLUSTERDOWN Hash slot", back, Some(Sign::ClusterDown));
    check_sign("slave", "-LOADING Redis is loading", back, Some(Sign::Loading));
}

#[test]
fn errors_of_the_command_pass_and_so_does_readonly_of_a_known_replica() {
    check_sign("slave", "-READONLY You can't", "End 0 -READONLY You can't", None);
    check_sign("master", "-WRONGTYPE wrong", "End 0 -WRONGTYPE wrong", None);
    check_sign("master", "-LOADINGS x", "End 0 -LOADINGS x", None);
    check_sign("master", "+LOADING x", "End 0 +LOADING x", None);
}

#[test]
fn a_refused_dial_denies_every_request_and_says_why() {
    run(async {
        let world = World::new().await;
        let one = Rc::new(Recorder::default());
        let lane = world.lane();
        push(&lane, &one, 0, "SET a 1", InFlight::Write);
        push(&lane, &one, 1, "GET a", InFlight::Read);
        let _peer = world
            .accept(&Redis {
                select: "-ERR DB index is out of range",
                ..MASTER
            })
            .await;
        assert_eq!(
            one.events(2).await,
            [
                "denied 0 ERR DB index is out of range",
                "denied 1 ERR DB index is out of range"
            ]
        );
        assert_eq!(lane.refusal().as_deref(), Some("ERR DB index is out of range"));
        assert_eq!((lane.state(), world.on_file()), (LinkState::Dead, 0));
        assert!(!Rc::ptr_eq(&lane, &world.lane()), "the next one is dialled anew");
    });
}

#[test]
fn a_dial_that_finds_nobody_takes_back_and_tells_the_health_owner() {
    run(async {
        let World {
            local,
            listener,
            signs,
            _dir,
            ..
        } = World::new().await;
        drop(listener);
        let one = Rc::new(Recorder::default());
        let lane = local.lane(&key());
        push(&lane, &one, 0, "SET a 1", InFlight::Write);
        assert_eq!(one.events(1).await, ["taken_back 0 SET a 1 Write"]);
        assert_eq!(signs.borrow_mut().try_recv().ok(), Some(Sign::ConnectionRefused));
    });
}
