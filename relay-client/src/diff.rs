//! Compares what a second handler answers with what the first one did: status, body, time.
//!
//! Pure. JSON is compared by value (the order of keys does not count, arrays go by position), anything else byte for
//! byte. Invariants: at most [`MAX_DIFFERENCES`] are named, each with short texts.

use std::{str::FromStr, time::Duration};

use relay_program::{api::ShadowDiff, cassette::CassetteEvent};
use serde_json::Value;

use crate::{play::shot::Shot, tap::micros};

const MAX_DIFFERENCES: usize = 100;
/// Characters of a value that are shown.
const MAX_SHOWN: usize = 120;
/// An answer is slower where it takes twice as long, and so much longer at least.
const SLOWER: Duration = Duration::from_millis(100);

/// A place in JSON whose value does not count (RFC 6901); `*` stands for any one name or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ignored(Vec<String>);

impl FromStr for Ignored {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/');
        let rest = rest.ok_or_else(|| format!("{text:?} is no place in JSON; write it as /data/created"))?;
        Ok(Self(rest.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect()))
    }
}

impl Ignored {
    fn is(&self, path: &[String]) -> bool {
        self.0.len() == path.len() && self.0.iter().zip(path).all(|(own, name)| own == "*" || own == name)
    }
}

/// What the second handler made of an event. `took` is how long the first one needed, where that is known.
pub(crate) fn compare(event: &CassetteEvent, took: Option<Duration>, shot: &Shot, ignored: &[Ignored]) -> ShadowDiff {
    let recorded = event.expect.as_ref();
    let mut differences = Vec::new();
    let cut = shot.truncated || recorded.is_some_and(|recorded| recorded.truncated);
    if let Some(recorded) = recorded {
        bodies(&recorded.body.0, &shot.body, cut, ignored, &mut differences);
    }
    let is_slower = |took: Duration| shot.took > took * 2 && shot.took > took + SLOWER;
    let verdict = match (recorded, shot.status) {
        (_, None) => "unanswered",
        (Some(recorded), Some(status)) if recorded.status != status => "status",
        (Some(_), _) if !differences.is_empty() => "body",
        (Some(_), _) if took.is_some_and(is_slower) => "slower",
        (Some(_), _) => "same",
        (None, _) => "not_recorded",
    };
    ShadowDiff {
        event_id: event.id.clone(),
        endpoint: event.endpoint.clone(),
        event_type: event.event_type.clone(),
        method: event.method.clone(),
        target: event.target.clone(),
        verdict: verdict.to_owned(),
        recorded_status: recorded.map(|recorded| recorded.status),
        recorded_size: recorded.map(|recorded| recorded.body.0.len() as u64),
        recorded_us: took.map(micros),
        status: shot.status,
        size: shot.size,
        took_us: micros(shot.took),
        error: shot.error.clone(),
        differences,
        ..ShadowDiff::default()
    }
}

fn bodies(recorded: &[u8], got: &[u8], cut: bool, ignored: &[Ignored], out: &mut Vec<String>) {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    if let (false, Some(old), Some(new)) = (cut, json(recorded), json(got)) {
        values(Some(&old), Some(&new), &mut Vec::new(), ignored, out);
        return;
    }
    // Of what was cut off only the beginnings can be compared.
    let least = if cut { recorded.len().min(got.len()) } else { recorded.len().max(got.len()) };
    let at = (0..least).find(|at| recorded.get(*at) != got.get(*at));
    if let Some(at) = at {
        out.push(format!("byte {at} of {} and {}", recorded.len(), got.len()));
    }
}

fn values(
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    ignored: &[Ignored],
    out: &mut Vec<String>,
) {
    if old == new || out.len() >= MAX_DIFFERENCES || ignored.iter().any(|one| one.is(path)) {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                path.push(name.clone());
                values(old.get(name), new.get(name), path, ignored, out);
                path.pop();
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                path.push(at.to_string());
                values(old.get(at), new.get(at), path, ignored, out);
                path.pop();
            }
        }
        _ => {
            let place: String =
                path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect();
            out.push(format!("{}: {} -> {}", shortened(&place), shown(old), shown(new)));
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| shortened(&value.to_string()))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use relay_program::cassette::{Base64Bytes, CassetteAnswer};

    use super::*;

    fn verdict(recorded: (u16, &str), got: (u16, &str), ignore: &[&str]) -> (String, Vec<String>) {
        let expect = CassetteAnswer { status: recorded.0, body: Base64Bytes(recorded.1.into()), ..Default::default() };
        let event = CassetteEvent { expect: Some(expect), ..CassetteEvent::default() };
        let took = Duration::from_millis(30);
        let shot = Shot { status: Some(got.0), body: got.1.as_bytes().to_vec().into(), took, ..Shot::default() };
        let ignored: Vec<Ignored> = ignore.iter().map(|text| text.parse().unwrap()).collect();
        let diff = compare(&event, Some(took), &shot, &ignored);
        (diff.verdict, diff.differences)
    }

    #[test]
    fn json_is_compared_by_value_and_places_can_be_left_out() {
        let old = r#"{"a":1,"list":[{"id":1,"at":5},{"id":2,"at":6}],"gone":true}"#;
        let new = r#"{"list":[{"at":7,"id":1},{"id":3,"at":8}],"a":1,"new/~":"x"}"#;
        assert_eq!(
            verdict((200, old), (200, r#" {"gone":true,"list":[{"at":5,"id":1},{"id":2,"at":6}],"a":1}"#), &[]).0,
            "same"
        );
        let (word, differences) = verdict((200, old), (200, new), &["/list/*/at"]);
        assert_eq!(word, "body");
        assert_eq!(differences, ["/gone: true -> nothing", "/list/1/id: 2 -> 3", "/new~1~0: nothing -> \"x\""]);
        assert_eq!(verdict((200, old), (500, old), &[]).0, "status");
        assert_eq!(
            verdict((200, "plain"), (200, "plane"), &[]),
            ("body".to_owned(), vec!["byte 3 of 5 and 5".to_owned()])
        );
        let many: String = (0..5000).map(|number| format!("{number},")).collect();
        let list = |first: &str| format!("[{first}{}0]", many);
        assert_eq!(verdict((200, &list("")), (200, &list("9,")), &[]).1.len(), MAX_DIFFERENCES);
        assert!("data".parse::<Ignored>().is_err());
    }

    #[test]
    fn slower_is_what_takes_twice_as_long_and_can_be_felt() {
        let event =
            CassetteEvent { expect: Some(CassetteAnswer { status: 200, ..Default::default() }), ..Default::default() };
        let verdict = |old, new| {
            let shot = Shot { status: Some(200), took: Duration::from_millis(new), ..Shot::default() };
            compare(&event, Some(Duration::from_millis(old)), &shot, &[]).verdict
        };
        assert_eq!(
            (verdict(10, 90), verdict(10, 120), verdict(200, 350), verdict(200, 450)),
            ("same".into(), "slower".into(), "same".into(), "slower".into())
        );
    }
}
