//! The events at hand: a bounded number of rows, newest first by their ids.
//!
//! What this agent saw itself stands beside what the relay tells: the relay's word goes before the agent's, and of two
//! of the relay's the one with the higher `rev`. At the bound the oldest go.

use std::{collections::BTreeMap, sync::Arc};

use relay_program::event::EventSummary;

use crate::report::{Line, Notice, Outcome};

/// Rows that are held.
pub(super) const MAX_ROWS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Rows {
    by_id: BTreeMap<Arc<str>, Row>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub event: EventSummary,
    /// The relay told it.
    told: bool,
}

impl Rows {
    pub(super) fn get(&self, id: &str) -> Option<&EventSummary> {
        self.by_id.get(id).map(|row| &row.event)
    }

    /// What the relay is asked for where somebody acts on an event. Of a replay to this agent alone it knows nothing, but of
    /// what was replayed.
    pub(super) fn known_as<'a>(&'a self, id: &'a str) -> &'a str {
        let own = self.by_id.get(id).filter(|row| !row.told);
        own.and_then(|row| row.event.replay_of.as_deref()).unwrap_or(id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All of them, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (&Arc<str>, &EventSummary)> {
        self.by_id.iter().rev().map(|(id, row)| (id, &row.event))
    }

    /// Takes what the relay tells of an event.
    pub(super) fn told(&mut self, event: EventSummary) {
        if event.id.is_empty() {
            return;
        }
        match self.by_id.get_mut(event.id.as_str()) {
            Some(row) if row.told && row.event.rev > event.rev => {}
            Some(row) => *row = Row { event, told: true },
            None => self.insert(Row { event, told: true }),
        }
    }

    /// Takes what this agent saw of an event.
    pub(super) fn saw(&mut self, line: &Line, agent: &str) {
        let Some(id) = line.event_id.as_deref() else { return };
        let (state, status) = match &line.outcome {
            Outcome::Status(status @ ..300) => ("answered", Some(*status)),
            Outcome::Status(status) => ("rejected", Some(*status)),
            Outcome::Failed(_) | Outcome::Unmade(_) => ("failed", None),
        };
        let took_us = u64::try_from(line.duration.as_micros()).ok();
        if let Some(row) = self.by_id.get_mut(id) {
            // What becomes of a kept event is for the relay to say.
            let event = &mut row.event;
            if !row.told {
                event.state = state.to_owned();
                event.attempt_count += 1;
            }
            (event.status, event.took_us, event.agent) = (status, took_us, Some(agent.to_owned()));
            return;
        }
        let event = EventSummary {
            id: id.to_owned(),
            endpoint: line.endpoint.clone(),
            state: state.to_owned(),
            received_at: line.time.to_string(),
            method: line.method.clone(),
            target: line.path.clone(),
            size: line.bytes_in,
            attempt_count: 1,
            status,
            replay_of: line.replay_of.clone(),
            kind: "event".to_owned(),
            took_us,
            agent: Some(agent.to_owned()),
            ..EventSummary::default()
        };
        self.insert(Row { event, told: false });
    }

    /// Takes what the relay turned away.
    pub(super) fn refused(&mut self, notice: &Notice) {
        let Some(id) = notice.event_id.clone() else { return };
        if self.by_id.contains_key(id.as_str()) {
            return;
        }
        let event = EventSummary {
            id,
            endpoint: notice.endpoint.clone(),
            state: "refused".to_owned(),
            why: notice.code.clone(),
            received_at: notice.time.to_string(),
            event_type: Some(notice.code.clone()),
            status: Some(notice.status),
            kind: "refused".to_owned(),
            provider: Some(notice.provider.clone()),
            ..EventSummary::default()
        };
        self.insert(Row { event, told: false });
    }

    fn insert(&mut self, row: Row) {
        self.by_id.insert(row.event.id.as_str().into(), row);
        while self.by_id.len() > MAX_ROWS {
            self.by_id.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;

    fn line(id: &str, outcome: Outcome) -> Line {
        Line {
            time: Timestamp::UNIX_EPOCH,
            endpoint: "github".to_owned(),
            event_id: Some(id.to_owned()),
            method: "POST".to_owned(),
            path: "/".to_owned(),
            outcome,
            duration: Duration::from_millis(34),
            bytes_in: 5,
            bytes_out: 2,
            replay_of: None,
            note: None,
        }
    }

    #[test]
    fn the_relays_word_goes_before_the_agents() {
        let mut rows = Rows::default();
        rows.saw(&line("hook_1", Outcome::Status(500)), "laptop");
        assert_eq!(rows.get("hook_1").unwrap().state, "rejected");
        let told = |state: &str, rev| EventSummary {
            id: "hook_1".to_owned(),
            state: state.to_owned(),
            rev,
            ..EventSummary::default()
        };
        rows.told(told("pending", 7));
        rows.told(told("running", 6));
        assert_eq!(rows.get("hook_1").unwrap().state, "pending", "an older word came later");
        rows.saw(&line("hook_1", Outcome::Status(200)), "laptop");
        let row = rows.get("hook_1").unwrap();
        assert_eq!((row.state.as_str(), row.status), ("pending", Some(200)));
    }

    #[test]
    fn a_replay_that_the_relay_does_not_know_stands_for_what_was_replayed() {
        let mut rows = Rows::default();
        let replay = Line { replay_of: Some("hook_1".to_owned()), ..line("hook_2", Outcome::Status(200)) };
        rows.saw(&line("hook_1", Outcome::Status(200)), "laptop");
        rows.saw(&replay, "laptop");
        assert_eq!([rows.known_as("hook_1"), rows.known_as("hook_2"), rows.known_as("x")], ["hook_1", "hook_1", "x"]);
        rows.told(rows.get("hook_2").unwrap().clone());
        assert_eq!(rows.known_as("hook_2"), "hook_2", "a new event of its endpoint");
    }

    #[test]
    fn the_oldest_go_at_the_bound() {
        let mut rows = Rows::default();
        for number in 0..MAX_ROWS + 5 {
            rows.saw(&line(&format!("hook_{number:08}"), Outcome::Status(200)), "laptop");
        }
        assert_eq!((rows.len(), &**rows.newest_first().last().unwrap().0), (MAX_ROWS, "hook_00000005"));
    }
}
