//! What is expected of a handler's answers, and whether one is so.
//!
//! Pure. An answer that a fault makes wrong on purpose is expected to be a refusal.

use std::{str::FromStr, time::Duration};

use relay_program::cassette::CassetteEvent;

use super::shot::Shot;
use crate::config::check;

/// One expectation: `status=2xx`, `status=recorded`, `body=recorded` or `took<500ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    Status(Vec<Statuses>),
    RecordedStatus,
    RecordedBody,
    Took(Duration),
}

/// Statuses from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statuses {
    from: u16,
    to: u16,
}

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no expectation; write status=2xx, status=recorded, body=recorded or took<500ms");
        match (text.split_once('='), text.split_once('<')) {
            (Some(("status", "recorded")), _) => Ok(Self::RecordedStatus),
            (Some(("body", "recorded")), _) => Ok(Self::RecordedBody),
            (Some(("status", statuses)), _) => {
                let statuses = statuses.split(',').map(Statuses::read).collect::<Option<_>>();
                statuses.map(Self::Status).ok_or_else(wrong)
            }
            (_, Some(("took", limit))) => check::duration(limit).map(Self::Took),
            _ => Err(wrong()),
        }
    }
}

impl Statuses {
    fn read(text: &str) -> Option<Self> {
        let one = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
        if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
            return Some(Self { from: class * 100, to: class * 100 + 99 });
        }
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = (one(from)?, one(to)?);
        (from <= to).then_some(Self { from, to })
    }
}

impl std::fmt::Display for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.from, self.to) {
            (from, to) if from == to => write!(f, "{from}"),
            (from, to) if from % 100 == 0 && to == from + 99 => write!(f, "{}xx", from / 100),
            (from, to) => write!(f, "{from}-{to}"),
        }
    }
}

/// What is wrong with an answer, if anything is.
pub(crate) fn judge(
    expectations: &[Expectation],
    event: &CassetteEvent,
    refusal_expected: bool,
    shot: &Shot,
) -> Option<String> {
    let Some(status) = shot.status else { return Some(shot.error.clone().unwrap_or_default()) };
    let is_in = |all: &[Statuses]| all.iter().any(|one| (one.from..=one.to).contains(&status));
    if refusal_expected {
        let refused = is_in(&[Statuses { from: 400, to: 499 }]);
        return (!refused).then(|| format!("status {status}, though its signature does not match"));
    }
    expectations.iter().find_map(|expected| match expected {
        Expectation::Status(all) if !is_in(all) => {
            let all: Vec<_> = all.iter().map(Statuses::to_string).collect();
            Some(format!("status {status}, expected {}", all.join(",")))
        }
        Expectation::RecordedStatus => match &event.expect {
            Some(recorded) if recorded.status != status => {
                Some(format!("status {status}, recorded {}", recorded.status))
            }
            Some(_) => None,
            None if status >= 300 => Some(format!("status {status}, and none is recorded: expected 2xx")),
            None => None,
        },
        Expectation::RecordedBody => event.expect.as_ref().and_then(|recorded| {
            let body = recorded.body.0.as_slice();
            let same = if recorded.truncated || shot.truncated {
                let least = body.len().min(shot.body.len());
                body[..least] == shot.body[..least]
            } else {
                body == shot.body
            };
            (!same).then(|| format!("another body than the recorded one ({} and {} bytes)", shot.size, body.len()))
        }),
        Expectation::Took(limit) if shot.took > *limit => {
            Some(format!("took {} ms, expected less than {} ms", shot.took.as_millis(), limit.as_millis()))
        }
        Expectation::Status(_) | Expectation::Took(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use relay_program::cassette::{Base64Bytes, CassetteAnswer};

    use super::*;

    #[test]
    fn expectations_are_read_and_what_is_none_is_said() {
        for good in
            ["status=2xx", "status=200", "status=200,404,500-503", "status=recorded", "body=recorded", "took<1s"]
        {
            assert!(good.parse::<Expectation>().is_ok(), "{good}");
        }
        for wrong in
            ["", "status", "status=", "status=6xx", "status=99", "status=500-400", "body=x", "took<fast", "took=1s"]
        {
            assert!(wrong.parse::<Expectation>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_judged_by_all_of_them() {
        let shot = |status, body: &str| Shot {
            status: Some(status),
            body: body.as_bytes().to_vec().into(),
            size: body.len() as u64,
            took: Duration::from_millis(20),
            ..Shot::default()
        };
        let recorded = CassetteAnswer { status: 201, body: Base64Bytes(b"ok".to_vec()), ..CassetteAnswer::default() };
        let event = CassetteEvent { expect: Some(recorded), ..CassetteEvent::default() };
        let judge = |expected: &[&str], refusal, shot: &Shot| {
            let expected: Vec<Expectation> = expected.iter().map(|text| text.parse().unwrap()).collect();
            judge(&expected, &event, refusal, shot)
        };
        assert_eq!(
            judge(&["status=2xx", "status=recorded", "body=recorded", "took<1s"], false, &shot(201, "ok")),
            None
        );
        assert_eq!(judge(&["status=200,3xx"], false, &shot(201, "ok")).unwrap(), "status 201, expected 200,3xx");
        assert_eq!(judge(&["status=recorded"], false, &shot(200, "ok")).unwrap(), "status 200, recorded 201");
        assert!(judge(&["body=recorded"], false, &shot(201, "no")).unwrap().contains("another body"));
        assert!(judge(&["took<10ms"], false, &shot(201, "ok")).unwrap().contains("took 20 ms"));
        assert_eq!(judge(&["status=2xx"], true, &shot(401, "")), None, "the fault asks for it");
        assert!(judge(&[], true, &shot(200, "")).unwrap().contains("does not match"));
        let silent = Shot { error: Some("handler unreachable: refused".to_owned()), ..Shot::default() };
        assert!(judge(&[], false, &silent).unwrap().contains("unreachable"));
    }
}
