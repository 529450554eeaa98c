//! Schedules, statuses and circuits, each with the numbers that people read in the documentation.

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

#[test]
fn a_list_gives_each_wait_once_within_the_jitter_and_then_nothing() {
    let schedule = Schedule::default();
    assert_eq!(schedule.attempts(), 8);
    for (made, seconds) in (1..).zip([5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0]) {
        for (random, share) in [(0, 0.8), (u32::MAX / 2, 1.0), (u32::MAX, 1.2)] {
            let next = schedule.next(made, None, random, at(0)).expect("a next attempt");
            let wait = next.duration_since(at(0)).as_secs_f64();
            assert!((wait - seconds * share).abs() <= seconds * 0.011, "attempt {made}: {wait} s");
        }
    }
    assert_eq!(schedule.next(8, None, 0, at(0)), None);
    assert_eq!(schedule.next(0, None, 0, at(0)), None);
}

#[test]
fn exponential_waits_grow_to_the_longest_and_end() {
    let (first, longest) = (Duration::from_secs(2), Duration::from_secs(60));
    let schedule = Schedule::Exponential { first, factor: 3, longest, attempts: 100 };
    let waits: Vec<_> = (1..=5).map(|made| schedule.wait_after(made).expect("a wait").as_secs()).collect();
    assert_eq!(waits, [2, 6, 18, 54, 60]);
    assert_eq!(schedule.wait_after(99), Some(longest));
    assert_eq!(schedule.wait_after(100), None);
    let long = Schedule::List(vec![MAX_WAIT * 3]);
    assert_eq!(long.wait_after(1), Some(MAX_WAIT));
}

#[test]
fn a_handler_that_says_when_is_heard_within_bounds() {
    let schedule = Schedule::List(vec![Duration::from_secs(100)]);
    let wait = |asked| {
        let next = schedule.next(1, Some(Duration::from_secs(asked)), u32::MAX / 2, at(0)).expect("a next attempt");
        next.as_second()
    };
    assert_eq!(wait(500), 500);
    assert!((98..=100).contains(&wait(1)), "never sooner than the schedule");
    assert_eq!(wait(u64::MAX), 24 * 60 * 60);
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = at(1_445_412_480); // Wed, 21 Oct 2015 07:28:00 GMT
    assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
    assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
    assert_eq!(retry_after("99999999999999999999999", now), Some(MAX_WAIT));
    assert_eq!(retry_after("Wed, 21 Oct 2015 07:30:00 GMT", now), Some(Duration::from_secs(120)));
    assert_eq!(retry_after("Wed, 21 Oct 2015 07:00:00 GMT", now), Some(Duration::ZERO));
    for bad in ["", "-1", "soon", "1.5"] {
        assert_eq!(retry_after(bad, now), None, "{bad:?}");
    }
}

#[test]
fn a_status_means_one_thing_to_a_waiting_sender_and_another_after_the_ack() {
    let rule = StatusRule::default();
    for (status, waiting, acked) in [
        (200, Judgement::Success, Judgement::Success),
        (299, Judgement::Success, Judgement::Success),
        (302, Judgement::Final, Judgement::Again),
        (400, Judgement::Final, Judgement::Again),
        (404, Judgement::Final, Judgement::Again),
        (408, Judgement::Again, Judgement::Again),
        (410, Judgement::Final, Judgement::Final),
        (425, Judgement::Again, Judgement::Again),
        (429, Judgement::Again, Judgement::Again),
        (500, Judgement::Again, Judgement::Again),
        (599, Judgement::Again, Judgement::Again),
    ] {
        assert_eq!((rule.while_waiting(status), rule.after_ack(status)), (waiting, acked), "{status}");
    }
}

#[test]
fn a_failing_handler_is_called_at_the_schedule_and_no_oftener_than_it_has_attempts() {
    let (schedule, rule) = (Schedule::default(), StatusRule::default());
    let mut now = at(0);
    let mut made = 0;
    let died = loop {
        made += 1; // Counted before the call.
        assert_eq!(rule.after_ack(500), Judgement::Again);
        match schedule.next(made, None, u32::MAX, now) {
            Some(next) => now = next,
            None => break now,
        }
    };
    assert_eq!(made, 8);
    let planned = 5 + 300 + 1800 + 7200 + 18_000 + 36_000 + 36_000;
    assert_eq!(died.as_second(), planned * 12 / 10);
}

#[test]
fn a_circuit_opens_after_failures_in_a_row_and_one_probe_closes_it() {
    let rule = CircuitRule { failures: 3, pause: Duration::from_secs(10), longest: Duration::from_secs(15) };
    let mut circuit = Circuit::default();
    circuit.failed(false, &rule, at(0));
    circuit.failed(false, &rule, at(0));
    circuit.succeeded();
    circuit.failed(false, &rule, at(1));
    circuit.failed(false, &rule, at(1));
    assert_eq!(circuit.ask(at(1)), Gate::Pass, "a success in between begins the count again");
    circuit.failed(false, &rule, at(1));
    assert!(matches!(circuit.gate(at(1)), Gate::Wait(_)));
    assert_eq!(circuit.ask(at(5)), Gate::Wait(at(11)));
    circuit.failed(false, &rule, at(6));
    assert_eq!(circuit.ask(at(10)), Gate::Wait(at(11)), "an older attempt's end does not make the pause longer");
    assert_eq!(circuit.ask(at(11)), Gate::Probe);
    assert_eq!(circuit.ask(at(12)), Gate::Wait(at(11)), "one probe at a time");
    circuit.failed(true, &rule, at(12));
    assert_eq!(circuit.ask(at(26)), Gate::Wait(at(27)), "the pause doubles up to the longest");
    assert_eq!(circuit.ask(at(27)), Gate::Probe);
    circuit.probe_not_made();
    assert_eq!(circuit.ask(at(27)), Gate::Probe, "a probe that was not made is made by the next");
    circuit.succeeded();
    assert_eq!(circuit.ask(at(28)), Gate::Pass);
}
