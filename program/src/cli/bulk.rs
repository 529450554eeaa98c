//! An action on all events that a query finds: counted, asked about, begun, and watched to its end.

use std::{thread::sleep, time::Duration};

use clap::Args;
use http::Method;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    Failure,
    api::{BulkProgress, EventCount},
    http1::encoded,
    terminal,
};

/// How long between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(300);

/// On how many events.
#[derive(Debug, Args)]
pub struct BulkWhat {
    /// All kept ones that this query finds, such as 'endpoint:pay is:dead since:1d'; says how many, and asks first
    #[arg(short, long = "query", value_name = "QUERY")]
    pub q: Option<String>,
    /// No more than so many of them
    #[arg(long, value_name = "N", requires = "q")]
    pub at_most: Option<u64>,
    /// Says how many they are, and does nothing
    #[arg(long, requires = "q")]
    pub dry_run: bool,
    /// Does it without asking
    #[arg(long, requires = "q")]
    pub yes: bool,
}

/// What the relay is asked: a method, a path behind the API's base, and a body.
pub type BulkQuestion = (Method, String, Option<Value>);

impl BulkWhat {
    /// Has `action` done to them, and waits for its end. `ask` brings a question to the relay.
    pub fn run(
        &self,
        action: &str,
        mut ask: impl FnMut(BulkQuestion) -> Result<Value, Failure>,
    ) -> Result<(), Failure> {
        let asked = json!({ "action": action, "q": self.q, "at_most": self.at_most });
        let count = ask((Method::POST, "bulk?dry_run=true".to_owned(), Some(asked.clone())))?;
        let EventCount { at_least, exact, .. } = EventCount::deserialize(&count)?;
        if !self.agreed(action, at_least, exact, "")? {
            return Ok(());
        }
        let begun = ask((Method::POST, "bulk".to_owned(), Some(asked)))?;
        let mut far = BulkProgress::deserialize(&begun)?;
        terminal::note(&format!("{} has begun at the relay; `event stop {}` ends it there", far.action, far.id));
        let mut told = None;
        while !far.finished {
            sleep(LOOK);
            let look = ask((Method::GET, format!("bulks/{}", encoded(&far.id)), None))?;
            far = BulkProgress::deserialize(&look)?;
            if told != Some(far.done + far.skipped) {
                told = Some(far.done + far.skipped);
                terminal::note(&words(&far));
            }
        }
        terminal::line(&words(&far))
    }

    /// Whether to go on with so many events. The answer to a dry run is printed here.
    pub fn agreed(&self, action: &str, count: u64, exact: bool, whom: &str) -> Result<bool, Failure> {
        let of = format!("{}{count} {}", if exact { "" } else { "at least " }, events(count));
        if self.dry_run {
            return terminal::line(&of).map(|()| false);
        }
        if count == 0 {
            return Err(Failure::NotFound(format!("no kept event that this query finds can be had for `{action}`")));
        }
        if self.yes {
            return Ok(true);
        }
        let agreed = terminal::confirm(&format!("{action} {of}{whom}? [y/N] "));
        agreed.ok_or_else(|| {
            Failure::Usage(format!(
                "this would {action} {of}{whom}, and nobody can be asked; add --yes, or see --dry-run"
            ))
        })
    }
}

/// Ends an action where it stands.
pub fn stop(id: &str, ask: impl FnOnce(BulkQuestion) -> Result<Value, Failure>) -> Result<(), Failure> {
    let far = ask((Method::DELETE, format!("bulks/{}", encoded(id)), None))?;
    terminal::line(&words(&BulkProgress::deserialize(&far)?))
}

fn events(count: u64) -> &'static str {
    if count == 1 { "event" } else { "events" }
}

fn words(far: &BulkProgress) -> String {
    let BulkProgress { action, of, done, skipped, .. } = far;
    let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
    let skipped = if *skipped > 0 { format!(", {skipped} passed over") } else { String::new() };
    format!("{action}: {done}{of}{skipped}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(q: &str) -> BulkWhat {
        BulkWhat { q: Some(q.to_owned()), at_most: Some(9), dry_run: false, yes: true }
    }

    #[test]
    fn it_is_counted_begun_and_watched_to_its_end() {
        let mut asked = Vec::new();
        let done = what("is:dead").run("replay", |(method, path, body)| {
            asked.push(format!("{method} {path} {}", body.unwrap_or_default()));
            Ok(match asked.len() {
                1 => json!({ "at_least": 2, "exact": true }),
                2 => json!({ "id": "hook_1", "action": "replay", "of": 2 }),
                3 => json!({ "id": "hook_1", "action": "replay", "of": 2, "done": 1 }),
                _ => json!({ "id": "hook_1", "action": "replay", "of": 2, "done": 2, "finished": true }),
            })
        });
        assert!(done.is_ok(), "{done:?}");
        let body = r#"{"action":"replay","at_most":9,"q":"is:dead"}"#;
        let expected = [
            format!("POST bulk?dry_run=true {body}"),
            format!("POST bulk {body}"),
            "GET bulks/hook_1 null".to_owned(),
            "GET bulks/hook_1 null".to_owned(),
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn nothing_begins_where_there_is_nothing_or_only_a_look_is_wanted() {
        let counted = |what: &BulkWhat, count: u64| {
            let mut asked = 0;
            let done = what.run("replay", |_| {
                asked += 1;
                Ok(json!({ "at_least": count, "exact": true }))
            });
            (asked, done.map_err(|error| error.exit_code()))
        };
        assert_eq!(counted(&what("x"), 0), (1, Err(4)));
        assert_eq!(counted(&BulkWhat { dry_run: true, ..what("x") }, 3), (1, Ok(())));
    }
}
