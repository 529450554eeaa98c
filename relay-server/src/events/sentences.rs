//! What a code means for a person: one sentence that says what happened, and one that says what to do.
//!
//! Page, command lines and terminal show what stands here, and have no words of their own. Nothing here decides: a code
//! that is not known has no words. Codes stand for one thing where an event ends ([`of_why`]), for another where a request
//! is answered ([`of_failure`]), and for a third where an attempt does ([`of_outcome`]).
//!
//! Invariant: every code of the guide to answers has both sentences.

mod failures;

use std::time::Duration;

use jiff::SignedDuration;

pub(crate) use self::failures::of_failure;
use crate::store::{Attempt, Outcome, State, Summary};

/// What happened, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub sentence: &'static str,
    pub advice: &'static str,
}

const fn words(sentence: &'static str, advice: &'static str) -> Option<Words> {
    Some(Words { sentence, advice })
}

const NOTHING_TO_DO: &str = "Nothing to do.";
const REVIVE: &str = "Mend the handler, then revive the event: `relay-server dead revive ID`.";

/// Why an event stands where it does.
pub(crate) fn of_why(code: &str) -> Option<Words> {
    match code {
        "delivered" => words("The handler took it.", NOTHING_TO_DO),
        "answered" => words("The handler answered it, and the sender got that answer.", NOTHING_TO_DO),
        "rejected" => words(
            "The handler's answer was no success, and the sender got that answer.",
            "Look into the handler's log.",
        ),
        "answer_broken" => {
            words("The handler's answer broke off on its way to the sender.", "Look into the handler's log.")
        }
        "challenge_answered" => {
            words("The provider asked whether this address is yours, and the relay answered it.", NOTHING_TO_DO)
        }
        "attempt_running" => words(
            "An attempt is under way.",
            "Wait: the attempt ends by itself at the endpoint's `attempt_timeout` at the latest.",
        ),
        "waits_for_agent" => words(
            "It is kept and waits for an agent.",
            "Attach an agent to its endpoint, or resume the endpoint if it is paused.",
        ),
        "waits_for_retry" => words(
            "The last attempt failed, and the next one has its time.",
            "Nothing to do, or mend the handler before the next attempt.",
        ),
        "behind_another" => words(
            "An earlier event of the same order goes first.",
            "See what holds that one up: `relay-server event list --state pending`.",
        ),
        "handler_rejected" => words(
            "The handler's answer was no success, and the sender got that answer.",
            "If the handler was wrong, mend it and revive the event: `relay-server dead revive ID`.",
        ),
        "handler_gave_up" => words(
            "The handler answered with a status that means: stop trying.",
            "If it was wrong, mend it and revive the event; `give_up_on` of the endpoint names such statuses.",
        ),
        "handler_failed" => words("No attempts are left, and the last answer was no success.", REVIVE),
        "handler_timeout" => words(
            "No attempts are left, and in the last one the handler did not answer in time.",
            "Have the handler answer first and work later, or raise `attempt_timeout`; then revive the event.",
        ),
        "handler_unreachable" => words(
            "No attempts are left, and in the last one the handler could not be reached.",
            "Start the handler, look at the agent's target, then revive the event.",
        ),
        "handler_broken" => words("No attempts are left, and in the last one the handler's answer broke off.", REVIVE),
        "agent_lost" => words(
            "No attempts are left, and in the last one the agent was lost while the handler was at work.",
            "See why the agent went away (`relay-client doctor`), then revive the event.",
        ),
        "agent_absent" => words(
            "No agent came for it within `pending_retention`.",
            "Attach an agent to its endpoint, then revive the event.",
        ),
        "not_carriable" => words(
            "No agent can make this request at its handler: HTTP/1.1 has no form for it.",
            "Nothing helps but another request from its sender.",
        ),
        "relay_damaged" => words(
            "What is stored is not what was taken in.",
            "Look at the disk of the store; the sender has to send it again.",
        ),
        "relay_internal" => words("The relay failed.", "Look into the relay's log, then revive the event."),
        "dropped" => words("A person took it off the list of dead letters.", "Revive it if it is wanted after all."),
        "cancelled" => words("A person cancelled it.", "Revive it if it is wanted after all."),
        "skipped" => words(
            "It waited when an agent attached that wanted nothing of what waited.",
            "Revive it if it is wanted after all.",
        ),
        "unknown" => words("Why it ended is not on record.", "See its attempts."),
        _ => None,
    }
}

/// What explains a refusal, as a sentence.
pub(crate) fn of_finding(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    let rest = chars.as_str();
    let end = if rest.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{rest}{end}")
}

/// How an attempt ended.
pub(crate) const fn of_outcome(outcome: Outcome) -> Words {
    let (sentence, advice) = match outcome {
        Outcome::Answered => ("The handler answered.", NOTHING_TO_DO),
        Outcome::Timeout => ("The handler did not answer in time.", "Have it answer first and work later."),
        Outcome::Unreachable => {
            ("The handler could not be reached.", "Start the handler, and look at the agent's target.")
        }
        Outcome::Broken => ("The handler's answer broke off or was not HTTP.", "Look into the handler's log."),
        Outcome::Lost => {
            ("The agent was lost, or never told how the call ended.", "Look at the agent's log and its network.")
        }
        Outcome::NotCalled => ("The handler was not called, so the attempt does not count.", NOTHING_TO_DO),
        Outcome::NotCarriable => {
            ("No request to the handler can be made of it.", "Nothing helps but another request from its sender.")
        }
        Outcome::Cancelled => ("It was stopped.", NOTHING_TO_DO),
    };
    Words { sentence, advice }
}

/// Why a kept event stands where it does, with what its attempts say.
pub(super) fn sentence(event: &Summary, attempts: &[Attempt]) -> String {
    let general = of_why(event.why()).map_or("", |words| words.sentence);
    let Some(last) = attempts.last() else { return general.to_owned() };
    let told = told(attempts);
    match event.state {
        State::Delivered if attempts.len() == 1 => match &last.answer {
            Some(answer) => format!("The handler took it at the first attempt, with {}.", answer.status),
            None => general.to_owned(),
        },
        State::Delivered => format!("{told}."),
        State::Pending if event.why() == "waits_for_retry" => match event.due_at {
            Some(at) => format!("{told}; the next attempt is due at {at:.0}."),
            None => format!("{told}."),
        },
        State::Dead if matches!(event.why(), "handler_rejected" | "handler_gave_up") => {
            format!("{told}. {general}")
        }
        State::Dead if event.why() != "agent_absent" => format!("{told}; no attempts are left."),
        _ => general.to_owned(),
    }
}

/// What attempts came to: of two each, of more the last one.
fn told(attempts: &[Attempt]) -> String {
    let got = |attempt: &Attempt| match &attempt.answer {
        Some(answer) => format!("got {}", answer.status),
        None => match attempt.outcome {
            Outcome::Answered => "was answered".to_owned(),
            Outcome::Timeout => "had no answer in time".to_owned(),
            Outcome::Unreachable => "did not reach the handler".to_owned(),
            Outcome::Broken => "had an answer that broke off".to_owned(),
            Outcome::Lost => "lost its agent".to_owned(),
            Outcome::NotCalled => "was not made".to_owned(),
            Outcome::NotCarriable => "could not be made".to_owned(),
            Outcome::Cancelled => "was stopped".to_owned(),
        },
    };
    match attempts {
        [] => String::new(),
        [only] => format!("Attempt {} {}", only.number, got(only)),
        [first, last] => format!(
            "Attempt {} {}; attempt {}, {} later, {}",
            first.number,
            got(first),
            last.number,
            between(first, last),
            got(last)
        ),
        [first, .., last] => {
            format!("{} attempts within {}; the last one {}", last.number, between(first, last), got(last))
        }
    }
}

/// How long after one attempt another began, in its two largest units.
fn between(first: &Attempt, last: &Attempt) -> String {
    let passed = last.started_at.duration_since(first.started_at).max(SignedDuration::ZERO);
    let rounded = match passed.as_secs() {
        0..10 => SignedDuration::from_millis(i64::try_from(passed.as_millis() / 100 * 100).unwrap_or_default()),
        seconds @ 10..3600 => SignedDuration::from_secs(seconds),
        seconds => SignedDuration::from_secs(seconds / 60 * 60),
    };
    Duration::try_from(rounded).map_or_else(|_| String::new(), relay_program::config::show_duration)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use relay_proto::HeaderBlock;

    use super::*;
    use crate::{
        hops::Hops,
        store::{Answer, CODES_WITHOUT_REASON, Reason},
    };

    /// The codes in the first column of the tables below a heading.
    fn codes(beginning: &str) -> Vec<&'static str> {
        let guide = include_str!("../../../docs/answers.md");
        let section = guide.split("\n## ").find(|section| section.starts_with(beginning)).expect("a section");
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        rows.collect()
    }

    fn is_said(code: &str, words: Option<Words>) {
        let words = words.unwrap_or_else(|| panic!("{code} has no words"));
        for text in [words.sentence, words.advice] {
            assert!(
                text.ends_with('.') && text.starts_with(|first: char| first.is_uppercase() || first == '`'),
                "{code}: {text}"
            );
        }
    }

    #[test]
    fn every_code_has_a_sentence_and_an_advice() {
        let whys = codes("Why an event stands");
        assert!(whys.len() > 15);
        whys.iter().chain(&CODES_WITHOUT_REASON).for_each(|code| is_said(code, of_why(code)));
        Reason::ALL.iter().for_each(|reason| is_said(reason.code(), of_why(reason.code())));
        Outcome::ALL.iter().for_each(|outcome| is_said(outcome.code(), Some(of_outcome(*outcome))));
        let failures = [codes("Errors that senders get"), codes("Errors of verification")].concat();
        assert!(failures.len() > 45);
        failures.iter().for_each(|code| is_said(code, of_failure(code)));
        relay_schemes::Refusal::ALL.iter().for_each(|refusal| is_said(refusal.code(), of_failure(refusal.code())));
        assert_eq!((of_why("no_such_code"), of_failure("no_such_code")), (None, None));
    }

    fn attempt(number: u32, second: i64, status: Option<u16>) -> Attempt {
        let answer = |status| Answer { status, headers: HeaderBlock::new(), body: "".into(), truncated: false };
        Attempt {
            number,
            fence: number.into(),
            started_at: Timestamp::from_second(second).expect("a time"),
            duration: Duration::ZERO,
            outcome: if status.is_some() { Outcome::Answered } else { Outcome::Timeout },
            agent: None,
            answer: status.map(answer),
            resigned: false,
            sha256_in: None,
            hops: Hops::default(),
        }
    }

    #[test]
    fn attempts_are_told_in_a_sentence() {
        let two = [attempt(1, 0, Some(500)), attempt(2, 5, Some(201))];
        assert_eq!(told(&two), "Attempt 1 got 500; attempt 2, 5s later, got 201");
        let many = [attempt(1, 0, Some(500)), attempt(2, 9, None), attempt(8, 100_830, None)];
        assert_eq!(told(&many), "8 attempts within 28h; the last one had no answer in time");
        assert_eq!(told(&many[..1]), "Attempt 1 got 500");
    }
}
