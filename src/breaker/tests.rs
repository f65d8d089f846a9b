use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Ok(u64, u64),
    Fail(u64),
    Hard(HardSign, u64),
    Silence(u64),
    Probe(u64),
    ProbeFailed(u64, f64),
    ProbeOk,
    CaughtUp,
    ReplayFailed(u64, f64),
}
use Event::{CaughtUp, Fail, Hard, Ok, ProbeFailed, ProbeOk, ReplayFailed, Silence};

const UP: [Event; 3] = [Event::Probe(0), ProbeOk, CaughtUp];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Applies an event; says what became of the state.
fn apply(breaker: &mut Breaker, event: Event) -> Option<Transition> {
    let trouble = Trouble::Soft(Failure::Reset);
    match event {
        Ok(n, at) => {
            breaker.successes(n, ms(at));
            None
        }
        Fail(at) => breaker.failure(Failure::Reset, ms(at)),
        Hard(sign, at) => breaker.hard(sign, ms(at)),
        Silence(at) => breaker.silence(ms(at)),
        Event::Probe(at) => {
            let _ = breaker.probe_started(ms(at));
            None
        }
        ProbeFailed(at, unit) => breaker.probe_failed(trouble, ms(at), unit),
        ProbeOk => breaker.probe_succeeded(),
        CaughtUp => breaker.caught_up(),
        ReplayFailed(at, unit) => breaker.replay_failed(trouble, ms(at), unit),
    }
}

fn letter(state: State) -> &'static str {
    match state {
        State::Closed => "C",
        State::Open => "O",
        State::HalfOpen => "H",
    }
}

/// One word per event after `UP`: the state, or `from->to:reason`.
fn check(events: &[Event], expected: &str) {
    let mut breaker = Breaker::new(Settings::default(), Duration::ZERO);
    for event in UP {
        apply(&mut breaker, event);
    }
    assert_eq!(breaker.mode(), Mode::Healthy);
    let words: Vec<String> = events
        .iter()
        .map(|event| match apply(&mut breaker, *event) {
            None => letter(breaker.state()).to_owned(),
            Some(Transition { from, to, reason }) => {
                assert_eq!(to, breaker.state());
                format!("{}->{}:{}", letter(from), letter(to), reason.label())
            }
        })
        .collect();
    assert_eq!(words.join(" "), expected, "{events:?}");
}

#[test]
fn consecutive_failures_trip() {
    let fails = [Fail(0), Fail(10), Fail(20), Fail(30), Fail(40), Fail(50)];
    check(&fails, "C C C C C->O:consecutive_failures O");
    check(
        &[
            Fail(0),
            Fail(1),
            Fail(2),
            Fail(3),
            Ok(1, 4),
            Fail(5),
            Fail(6),
            Fail(7),
            Fail(8),
            Ok(0, 8),
            Fail(9),
        ],
        "C C C C C C C C C C C->O:consecutive_failures",
    );
}

#[test]
fn a_failure_rate_of_half_trips_once_there_are_twenty_outcomes() {
    let mut events = Vec::new();
    for at in 0..10 {
        events.extend([Ok(1, at * 100), Fail(at * 100)]);
    }
    check(&events, &format!("{}C->O:failure_rate", "C ".repeat(19)));
    // The same failures, spread so that the first are out of the window.
    let events: Vec<Event> = events
        .into_iter()
        .map(|event| match event {
            Ok(n, at) => Ok(n, at * 20),
            Fail(at) => Fail(at * 20),
            other => other,
        })
        .collect();
    check(&events, "C ".repeat(20).trim_end());
}

#[test]
fn hard_signs_and_silence_trip_at_once() {
    check(&[Hard(HardSign::ConnectionRefused, 0)], "C->O:connection_refused");
    check(&[Hard(HardSign::Loading, 0)], "C->O:loading");
    check(&[Hard(HardSign::Demoted, 0)], "C->O:demoted");
    check(&[Silence(0), Silence(1)], "C->O:silence O");
}

#[test]
fn recovery_goes_through_half_open() {
    check(
        &[Silence(0), Event::Probe(100), ProbeOk, CaughtUp],
        "C->O:silence O O->H:probe_succeeded H->C:caught_up",
    );
}

#[test]
fn a_failed_replay_opens_again() {
    check(
        &[Silence(0), Event::Probe(100), ProbeOk, ReplayFailed(120, 0.5), CaughtUp],
        "C->O:silence O O->H:probe_succeeded H->O:replay_failed O",
    );
    check(
        &[
            Silence(0),
            Event::Probe(100),
            ProbeOk,
            Hard(HardSign::ConnectionRefused, 120),
        ],
        "C->O:silence O O->H:probe_succeeded H->O:connection_refused",
    );
}

#[test]
fn what_arrives_late_changes_nothing() {
    check(
        &[
            Silence(0),
            Ok(9, 1),
            Fail(2),
            Hard(HardSign::Loading, 3),
            ProbeOk,
            CaughtUp,
            ReplayFailed(6, 0.0),
        ],
        "C->O:silence O O O O O O",
    );
    // The fence kills old connections: their ends are no news of the server.
    let events = [
        Silence(0),
        Event::Probe(100),
        ProbeOk,
        Fail(111),
        Fail(112),
        Fail(113),
        Fail(114),
        Fail(115),
    ];
    check(&events, "C->O:silence O O->H:probe_succeeded H H H H H");
    check(&[CaughtUp, ProbeOk, ReplayFailed(0, 0.0)], "C C C");
}

#[test]
fn the_window_starts_afresh_after_recovery() {
    let mut events = vec![
        Fail(0),
        Fail(0),
        Fail(0),
        Fail(0),
        Silence(0),
        Event::Probe(100),
        ProbeOk,
        CaughtUp,
    ];
    events.extend([Fail(101), Fail(102), Fail(103), Fail(104)]);
    check(
        &events,
        "C C C C C->O:silence O O->H:probe_succeeded H->C:caught_up C C C C",
    );
}

#[test]
fn the_first_probe_is_due_at_once_and_decides() {
    let mut breaker = Breaker::new(Settings::default(), ms(7));
    assert_eq!((breaker.state(), breaker.mode()), (State::Open, Mode::Down));
    assert!(breaker.probe_due(ms(7)));
    assert!(!breaker.has_decided());
    assert_eq!(breaker.probe_started(ms(7)), ProbeStart::Admitted);
    assert_eq!(breaker.mode(), Mode::Probing);
    assert_eq!(breaker.probe_started(ms(8)), ProbeStart::Refused);
    assert_eq!(breaker.next_probe_at(), None);
    breaker.probe_failed(Trouble::Hard(HardSign::ConnectionRefused), ms(10), 1.0);
    assert!(breaker.has_decided());
    assert_eq!(breaker.last_trouble().map(Trouble::label), Some("connection_refused"));
    assert_eq!(breaker.next_probe_at(), Some(ms(210)));
}

#[test]
fn waits_between_probes_double_and_start_over_after_recovery() {
    let mut breaker = Breaker::new(Settings::default(), Duration::ZERO);
    for event in UP {
        apply(&mut breaker, event);
    }
    let mut waits = Vec::new();
    let mut now = ms(1000);
    breaker.silence(now);
    for _ in 0..6 {
        let at = breaker.next_probe_at().unwrap();
        waits.push((at - now).as_millis());
        now = at;
        assert_eq!(breaker.probe_started(now), ProbeStart::Admitted);
        breaker.probe_failed(Trouble::Silence, now, 1.0);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
    now = breaker.next_probe_at().unwrap();
    assert_eq!(breaker.probe_started(now), ProbeStart::Admitted);
    breaker.probe_succeeded();
    breaker.replay_failed(Trouble::Silence, now, 1.0);
    assert_eq!(
        breaker.next_probe_at(),
        Some(now + ms(1000)),
        "a failed replay does not start over"
    );
    now = breaker.next_probe_at().unwrap();
    assert_eq!(breaker.probe_started(now), ProbeStart::Admitted);
    breaker.probe_succeeded();
    breaker.caught_up();
    assert_eq!(breaker.last_trouble(), None);
    breaker.silence(now);
    assert_eq!(breaker.next_probe_at(), Some(now + ms(100)));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u64..20, Just(0)).prop_map(|(n, at)| Ok(n, at)),
        Just(Fail(0)),
        Just(Hard(HardSign::Loading, 0)),
        Just(Silence(0)),
        Just(Event::Probe(0)),
        (0.0..1.0).prop_map(|unit| ProbeFailed(0, unit)),
        Just(ProbeOk),
        Just(CaughtUp),
        (0.0..1.0).prop_map(|unit| ReplayFailed(0, unit)),
    ]
}

fn at(event: Event, now: u64) -> Event {
    match event {
        Ok(n, _) => Ok(n, now),
        Fail(_) => Fail(now),
        Hard(sign, _) => Hard(sign, now),
        Silence(_) => Silence(now),
        Event::Probe(_) => Event::Probe(now),
        ProbeFailed(_, unit) => ProbeFailed(now, unit),
        ProbeOk => ProbeOk,
        CaughtUp => CaughtUp,
        ReplayFailed(_, unit) => ReplayFailed(now, unit),
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_way_out_of_open_is_a_probe_in_its_time(
        threshold in 1_u32..8,
        steps in prop::collection::vec((0_u64..400, any_event()), 1..200),
    ) {
        let settings = Settings { failure_threshold: NonZeroU32::new(threshold).unwrap(), ..Settings::default() };
        let wait_max = settings.recovery_timeout_max;
        let mut breaker = Breaker::new(settings, Duration::ZERO);
        let mut now = 0;
        for (wait, event) in steps {
            now += wait;
            let (mode, due) = (breaker.mode(), breaker.next_probe_at());
            let from = breaker.state();
            let transition = apply(&mut breaker, at(event, now));
            let to = breaker.state();
            match transition {
                Some(transition) => prop_assert_eq!((transition.from, transition.to), (from, to)),
                None => prop_assert_eq!(from, to),
            }
            let lawful = match (from, to) {
                (State::Open, State::HalfOpen) => mode == Mode::Probing,
                (State::Open, State::Closed) | (State::Closed, State::HalfOpen) => false,
                _ => true,
            };
            prop_assert!(lawful, "{:?} -> {:?} in {:?}", from, to, mode);
            if mode != Mode::Probing && breaker.mode() == Mode::Probing {
                prop_assert!(due.is_some_and(|due| due <= ms(now)), "probed before its time");
            }
            if mode != Mode::Down && let Some(next) = breaker.next_probe_at() {
                prop_assert!(ms(now) <= next && next <= ms(now) + wait_max, "{:?}", next);
            }
        }
    }
}
