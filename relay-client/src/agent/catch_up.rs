//! `--since`: replays what the relay kept while nobody was here, to this process alone.
//!
//! It asks for a list, then for one event after another, in the order in which they came: never more than one at a
//! time, so that new webhooks have the rest of the handler's room. When a link is cut or a relay restarts, it waits,
//! and then goes on with the event at which it stopped.
//!
//! It does not trust the relay to come to an end: pages, ids and cursors have bounds, questions a pace, and it gives
//! up, with words, a list that goes round or on without anything in it.
//!
//! It leaves out what waited when this agent came, since that comes anyhow: everything that had not ended by then. Only
//! an agent that gets copies asks for that, too.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use jiff::Timestamp;
use relay_proto::{Offer, Welcome};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{offers::role, status::Status};
use crate::{
    backoff::Backoff,
    config::Config,
    link::{
        LinkError,
        api::{Api, ListPage, Listed, MAX_CURSOR_BYTES, Replay, Walk},
    },
    report::{AgentRole, AgentState, Reporter},
};

/// Events of one page.
const PAGE: usize = 200;
/// Ids that are held at a time, 4 MB at most; then it asks for more.
const MAX_BATCH: usize = 50_000;
/// Events that one `--since` has once more, all together.
const MAX_EVENTS: usize = 1_000_000;
/// Longest id of an event, in bytes.
const MAX_ID_BYTES: usize = 64;
/// Least time between two events: faster is nobody who calls a handler.
const PACE: Duration = Duration::from_millis(2);
/// Calls of the handler for one event whose end is not known.
const MAX_TRIES: u32 = 5;
/// How long it waits for the agent to be attached again before it asks all the same.
const ATTACHED: Duration = Duration::from_secs(30);

pub(super) struct CatchUp {
    config: Arc<Config>,
    /// As the relay calls it.
    endpoint: String,
    events: Vec<String>,
    copies: bool,
    since: Timestamp,
    /// When this agent came, by the relay's clock.
    until: Timestamp,
    reporter: Reporter,
    status: watch::Receiver<Status>,
}

/// What to do about a question that has no answer.
enum Trouble {
    Later(Option<Duration>),
    /// This event is not to be had.
    Skip,
    Never(String),
}

impl CatchUp {
    /// What the settings ask for, of the endpoint that was attached.
    pub(super) fn of(
        config: &Arc<Config>,
        welcome: &Welcome,
        offers: &[Offer],
        reporter: Reporter,
        status: watch::Receiver<Status>,
    ) -> Option<Self> {
        let since = config.since?;
        let (answer, offer) = welcome.endpoints.iter().zip(offers).next()?;
        let role = role(&answer.state).ok()?;
        Some(Self {
            config: Arc::clone(config),
            endpoint: answer.endpoint.clone(),
            events: offer.events.clone(),
            copies: role == AgentRole::Copy,
            since,
            // The epoch is the relay's clock in milliseconds.
            until: Timestamp::from_millisecond(i64::try_from(welcome.epoch).ok()?).ok()?,
            reporter,
            status,
        })
    }

    /// Asks for all of it and says so.
    pub(super) async fn run(mut self) {
        let config = Arc::clone(&self.config);
        let asked = match config.token.read() {
            Ok(token) => self.all(&mut Api::new(&config.way, token)).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = asked {
            self.reporter.warn(format!("what {} kept cannot be replayed: {why}", self.endpoint));
        }
    }

    /// The error is for people.
    async fn all(&mut self, api: &mut Api<'_>) -> Result<(), String> {
        let (mut after, mut count, mut failed) = (None, 0, 0);
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (ids, next) = self.batch(api, after).await?;
            if count + ids.len() > MAX_EVENTS {
                return Err(format!("there are more than {MAX_EVENTS} events; ask for a shorter time"));
            }
            let (endpoint, since) = (self.endpoint.clone(), self.since);
            self.reporter.state(AgentState::Replaying { endpoint, count: ids.len(), since, more: next.is_some() });
            for id in &ids {
                pace.tick().await;
                failed += usize::from(!self.replay(api, id).await?);
            }
            count += ids.len();
            after = next;
            if after.is_none() {
                break;
            }
        }
        if count > 0 {
            let (endpoint, since) = (self.endpoint.clone(), self.since);
            self.reporter.state(AgentState::Replayed { endpoint, count, failed, since });
        }
        Ok(())
    }

    /// The ids that come next, and where it goes on behind them. The error is for people.
    async fn batch(
        &mut self,
        api: &mut Api<'_>,
        mut after: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), String> {
        let (mut ids, mut backoff, mut walk) = (Vec::new(), Backoff::default(), Walk::default());
        loop {
            let before = ids.len();
            match self.page(api, &mut ids, after.clone()).await {
                Ok(next) => {
                    let pause = walk.step(after.as_deref(), next.as_deref(), ids.len() - before)?;
                    after = next;
                    if after.is_none() || ids.len() >= MAX_BATCH {
                        return Ok((ids, after));
                    }
                    sleep(pause).await;
                }
                Err(Trouble::Later(wait)) => self.wait(api, &mut backoff, wait).await?,
                Err(Trouble::Skip) => return Err(format!("no endpoint {} is open to this token", self.endpoint)),
                Err(Trouble::Never(why)) => return Err(why),
            }
        }
    }

    /// Takes the ids of a page; where the next one begins.
    async fn page(
        &self,
        api: &mut Api<'_>,
        ids: &mut Vec<String>,
        after: Option<String>,
    ) -> Result<Option<String>, Trouble> {
        let mut query = vec![
            ("endpoint", self.endpoint.clone()),
            ("since", self.since.to_string()),
            ("until", self.until.to_string()),
            ("oldest_first", "true".to_owned()),
            ("limit", PAGE.to_string()),
        ];
        if !self.events.is_empty() {
            query.push(("event_type", self.events.join(",")));
        }
        query.extend(after.map(|after| ("after", after)));
        let page = api.page(&query).await.map_err(|error| match error {
            LinkError::Protocol(why) => Trouble::Never(why),
            other => trouble(&other),
        })?;
        let (wanted, next) = checked(page).map_err(|why| Trouble::Never(why.to_owned()))?;
        let wanted = wanted.into_iter().filter(|event| is_wanted(event, self.until, self.copies));
        ids.extend(wanted.map(|event| event.id));
        Ok(next)
    }

    /// Has one event once more; whether the handler took it. The error is for people.
    async fn replay(&mut self, api: &mut Api<'_>, id: &str) -> Result<bool, String> {
        let (mut tries, mut backoff) = (0, Backoff::default());
        loop {
            let replay =
                Replay { agent: Some(&self.config.name), instance: Some(self.config.instance), signature: "auto" };
            let wait = match api.replay(id, replay).await.map_err(|error| trouble(&error)) {
                Ok(answer) if matches!(answer["outcome"].as_str(), Some("lost" | "not_called")) => {
                    tries += 1;
                    if tries == MAX_TRIES {
                        return Ok(false);
                    }
                    None
                }
                Ok(answer) => return Ok(answer["status"].as_u64().is_some_and(|status| (200..300).contains(&status))),
                Err(Trouble::Later(wait)) => wait,
                Err(Trouble::Skip) => return Ok(false),
                Err(Trouble::Never(why)) => return Err(why),
            };
            self.wait(api, &mut backoff, wait).await?;
        }
    }

    /// Waits, and then until the agent is attached again; reads the token anew, which may be another one by then.
    async fn wait(&mut self, api: &mut Api<'_>, backoff: &mut Backoff, asked: Option<Duration>) -> Result<(), String> {
        sleep(backoff.next(fastrand::f64(), asked)).await;
        // Without a sender the agent ends, and this with it.
        let _ = timeout(ATTACHED, self.status.wait_for(|status| status.missing().is_empty())).await;
        api.token = self.config.token.read().map_err(|error| error.to_string())?;
        Ok(())
    }
}

/// A page that is no more than what was asked for, and where the next one begins.
fn checked(page: ListPage) -> Result<(Vec<Listed>, Option<String>), &'static str> {
    let is_long = |text: &str, most: usize| text.len() > most || !text.bytes().all(|byte| byte.is_ascii_graphic());
    if page.events.len() > PAGE || page.next.as_ref().is_some_and(|next| is_long(next, MAX_CURSOR_BYTES)) {
        return Err("the relay's list is larger than what was asked for");
    }
    if page.events.iter().any(|event| is_long(&event.id, MAX_ID_BYTES)) {
        return Err("the relay's list has something in it that is no event's id");
    }
    Ok((page.events, page.next))
}

/// Whether an event does not come by itself.
fn is_wanted(event: &Listed, until: Timestamp, copies: bool) -> bool {
    let settled = event.settled_at.as_deref().map(str::parse::<Timestamp>);
    match settled {
        _ if event.state == "damaged" => false,
        Some(Ok(settled)) => settled < until,
        Some(Err(_)) => false,
        None => copies,
    }
}

fn trouble(error: &LinkError) -> Trouble {
    match error.refusal() {
        // Not the relay's word: a proxy whose relay is away, perhaps.
        Some((_, None)) => Trouble::Later(error.retry_after()),
        Some((StatusCode::NOT_FOUND, _)) => Trouble::Skip,
        Some((StatusCode::CONFLICT, code)) if code != Some("agent_not_attached") => Trouble::Skip,
        Some((StatusCode::UNPROCESSABLE_ENTITY, _)) => Trouble::Skip,
        _ if error.is_refusal() && !matches!(error.refusal(), Some((StatusCode::CONFLICT, _))) => {
            Trouble::Never(error.to_string())
        }
        _ => Trouble::Later(error.retry_after()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_by_itself_is_left_out() {
        let until: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let event = |state: &str, settled: Option<&str>| Listed {
            id: String::new(),
            state: state.to_owned(),
            settled_at: settled.map(str::to_owned),
        };
        let before = event("delivered", Some("2026-01-31T07:59:59.999Z"));
        let after = event("delivered", Some("2026-01-31T08:00:00Z"));
        let waits = event("pending", None);
        let of = |copies| [&before, &after, &waits].map(|event| is_wanted(event, until, copies));
        assert_eq!(of(false), [true, false, false]);
        assert_eq!(of(true), [true, false, true], "an agent that gets copies gets nothing of what waits");
        assert!(!is_wanted(&event("damaged", Some("2026-01-31T07:00:00Z")), until, true));
    }

    #[test]
    fn a_page_is_no_more_than_what_was_asked_for() {
        let page = |count: usize, id: &str, next: Option<&str>| {
            let event = || Listed { id: id.to_owned(), state: "delivered".to_owned(), settled_at: None };
            checked(ListPage { events: (0..count).map(|_| event()).collect(), next: next.map(str::to_owned) })
        };
        assert_eq!(page(PAGE, "hook_00000000000000000000000000000001", Some("cursor")).unwrap().0.len(), PAGE);
        assert!(page(PAGE + 1, "hook_1", None).is_err());
        assert!(page(1, &"x".repeat(MAX_ID_BYTES + 1), None).is_err());
        assert!(page(1, "hook_1\n", None).is_err());
        assert!(page(0, "", Some(&"x".repeat(MAX_CURSOR_BYTES + 1))).is_err());
        let many = format!(r#"{{"events":[{}],"next":null}}"#, vec![r#"{"id":""}"#; 2000].join(","));
        assert!(serde_json::from_str::<ListPage>(&many).is_err(), "it is not read to its end");
        let read: ListPage = serde_json::from_str(r#"{"events":[{"id":"a","size":1}],"next":"n"}"#).unwrap();
        assert_eq!((read.events[0].id.as_str(), read.next.as_deref()), ("a", Some("n")));
    }

    #[test]
    fn trouble_is_told_apart() {
        let refused = |status: u16, code: &str| LinkError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            code: Some(code.to_owned()),
            message: None,
            retry_after: None,
            server: None,
        };
        let kind = |error: LinkError| match trouble(&error) {
            Trouble::Later(_) => "later",
            Trouble::Skip => "skip",
            Trouble::Never(_) => "never",
        };
        assert_eq!(kind(refused(409, "agent_not_attached")), "later");
        assert_eq!(kind(refused(409, "wrong_state")), "skip");
        assert_eq!(kind(refused(404, "not_found")), "skip");
        assert_eq!(kind(refused(403, "may_not_read")), "never");
        assert_eq!(kind(refused(401, "unauthorized")), "never");
        assert_eq!(kind(refused(429, "too_many_guesses")), "later");
        assert_eq!(kind(refused(503, "busy")), "later");
        assert_eq!(kind(LinkError::Unreachable(String::new())), "later");
        for status in [401, 403, 404] {
            let LinkError::Refused { status, message, .. } = refused(status, "") else { unreachable!() };
            let proxy = LinkError::Refused { status, code: None, message, retry_after: None, server: None };
            assert_eq!(kind(proxy), "later", "{status} without a word of the relay's");
        }
    }
}
