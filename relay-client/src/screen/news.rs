//! What reaches the view, and what it does there. Pure.

use bytes::Bytes;
use jiff::Timestamp;
use relay_program::event::{EventDetail, EventSummary};

use super::{
    head::{HeadFigures, LinkNow},
    known::Part,
    sheet::Sheet,
    state::ScreenView,
    wish::Wish,
};
use crate::report::{self, AgentState};

pub(super) enum News {
    /// What the agent reports, and how the outputs without a view print it.
    Reported {
        event: report::Event,
        line: Option<String>,
    },
    /// Rows that changed, of the question that is followed.
    Rows(Vec<EventSummary>),
    /// A page of the list: its rows, and where the next one begins.
    Page {
        q: String,
        rows: Vec<EventSummary>,
        next: Option<String>,
    },
    Detail(Box<EventDetail>),
    Body {
        id: String,
        part: Part,
        bytes: Bytes,
    },
    /// What was asked for of an event will not come.
    Missing {
        id: String,
        part: Option<Part>,
        why: String,
    },
    /// All of an event as a file to edit.
    Editable {
        id: String,
        file: Vec<u8>,
    },
    /// A text that was asked for.
    Text {
        title: String,
        text: String,
    },
    Curl(String),
    Said(String),
    /// Whether the relay tells what changes.
    Live(bool),
    /// The list may have holes: it is asked for anew.
    Resync,
    Link(Option<u64>),
    Figures(HeadFigures),
    Logged(String),
    /// The agent is at its end: the view goes.
    End,
}

impl ScreenView {
    pub(super) fn handle_news(&mut self, news: News, now: Timestamp) {
        match news {
            News::Reported { event, line } => self.reported(&event, line),
            News::Rows(rows) => {
                for row in rows {
                    self.find.relay_found(&row.id);
                    self.rows.told(row);
                }
                self.stale = true;
            }
            News::Page { q, rows, next } => {
                if q != self.find.question() {
                    return; // Something else is searched for by now.
                }
                (self.next_page, self.asking_page, self.stale) = (next, false, true);
                for row in rows {
                    self.find.relay_found(&row.id);
                    self.rows.told(row);
                }
            }
            News::Detail(detail) => {
                self.rows.told(detail.summary.clone());
                self.known.take_detail(*detail);
                self.stale = true;
            }
            News::Body { id, part, bytes } => {
                self.known.take_body(&id, part, &bytes);
                self.stale = true;
            }
            News::Missing { id, part, why } => {
                self.known.came(&id, part);
                self.note = why;
            }
            News::Editable { id, file } => self.wish(Wish::Edit { id, file }),
            News::Text { title, text } => {
                self.sheet = Some(Sheet::new(title, text.lines().map(str::to_owned).collect()));
            }
            News::Curl(text) => {
                let lines = text.lines().map(str::to_owned).collect();
                self.sheet = Some(Sheet::new("curl, copied", lines));
                self.wish(Wish::Copy { bytes: text.into_bytes(), what: "curl".to_owned() });
            }
            News::Said(text) => {
                self.asking_page = false;
                self.note = text;
            }
            News::Live(true) => self.head.live = Some(Ok(now)),
            News::Live(false) if matches!(self.head.live, Some(Ok(_))) => self.head.live = Some(Err(now)),
            News::Live(false) => {}
            News::Resync => self.ask_anew(),
            News::Link(us) => self.head.link_us = us,
            News::Figures(figures) => self.head.figures = Some(figures),
            News::Logged(text) => {
                self.note.clone_from(&text);
                self.tally.logged(text);
            }
            News::End => {}
        }
    }

    fn reported(&mut self, event: &report::Event, line: Option<String>) {
        match event {
            report::Event::Exchange(exchange) => {
                self.tally.count(exchange);
                let agent = self.agent.clone();
                self.rows.saw(exchange, &agent);
                self.stale = true;
            }
            report::Event::Refused(notice) => {
                self.rows.refused(notice);
                self.stale = true;
            }
            report::Event::State { time, state } => self.stands(state, *time),
            report::Event::Warning { message, .. } => {
                self.note = format!("warning: {message}");
                self.tally.logged(self.note.clone());
                line.into_iter().for_each(|line| self.tally.warning(line));
                return;
            }
            _ => {}
        }
        line.into_iter().for_each(|line| self.tally.line(line));
    }

    fn stands(&mut self, state: &AgentState, time: Timestamp) {
        match state {
            AgentState::Connecting { .. } => self.head.link = LinkNow::Connecting,
            AgentState::Ready { endpoints } => {
                self.head.endpoints = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
                self.head.link = LinkNow::Ready { since: time };
                self.ask_anew();
            }
            AgentState::Reconnecting { why, .. } | AgentState::Refused { why, .. } => {
                self.head.link = LinkNow::Lost { why: why.clone() };
            }
            AgentState::Draining => self.head.link = LinkNow::Draining,
            AgentState::Backlog { line, .. } => self.note = format!("backlog: {line}"),
            AgentState::Standby { endpoint } => {
                self.note = format!("standing by for {endpoint}: another agent is active");
            }
            AgentState::Active { endpoint } => {
                self.note = format!("active for {endpoint}: webhooks come to this agent now");
            }
            AgentState::Copy { endpoint } => self.note = format!("copies only for {endpoint}: another agent answers"),
            AgentState::Reloaded => self.note = "changed settings were taken over".to_owned(),
            AgentState::Inspect { address, key, .. } => {
                self.page = key.as_ref().map(|key| format!("{address}#key={}", key.reveal()));
            }
            AgentState::Replaying { .. } | AgentState::Replayed { .. } | AgentState::Health { .. } => {}
        }
    }
}
