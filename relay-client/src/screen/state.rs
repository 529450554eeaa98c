//! What the view holds, and how news and keys change it. Pure: news and keys in, wishes and a drawing out.
//!
//! Invariants: what is on screen does not move by itself unless the newest stands at the top; the selection is an
//! event, not a place; rows, details, bodies, marks and wishes are bounded.

use std::{collections::VecDeque, sync::Arc};

use jiff::tz::TimeZone;
use relay_program::event::{EventDetail, EventSummary};

use super::{
    body::Form,
    head::Head,
    known::{Known, Part},
    look::Look,
    rows::Rows,
    search::Find,
    sheet::Sheet,
    summary::Tally,
    wish::{Question, Wish},
};

/// Events that are marked.
const MAX_MARKS: usize = 2;
/// Wishes that wait; a person types no faster.
const MAX_WISHES: usize = 32;

/// Where keys go where both can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Pane {
    #[default]
    List,
    Detail,
}

/// What of an event is shown below its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Side {
    #[default]
    Request,
    Answer,
    Headers,
    Attempts,
}

pub(super) struct ScreenView {
    pub agent: String,
    pub look: Look,
    pub zone: TimeZone,
    pub head: Head,
    pub rows: Rows,
    pub find: Find,
    pub known: Known,
    pub tally: Tally,
    /// The rows that the search finds, the newest first.
    pub shown: Vec<Arc<str>>,
    pub stale: bool,
    pub selected: Option<Arc<str>>,
    /// The first row on screen; `None` while the newest stands there.
    pub top: Option<Arc<str>>,
    /// The newest row when it last did.
    pub seen: Option<Arc<str>>,
    pub paused: bool,
    pub whole: bool,
    pub pane: Pane,
    pub side: Side,
    pub form: Form,
    pub scroll: usize,
    /// The number of the attempt that is looked at; `None`: the last one.
    pub attempt: Option<u32>,
    pub marks: Vec<Arc<str>>,
    pub sheet: Option<Sheet>,
    pub note: String,
    pub after_g: bool,
    pub mouse: bool,
    /// Rows of the list, as it was last drawn.
    pub height: usize,
    /// How far the relay's list was followed: where it goes on.
    pub next_page: Option<String>,
    pub asking_page: bool,
    /// The address of this agent's page, with its key.
    pub page: Option<String>,
    wishes: VecDeque<Wish>,
}

impl ScreenView {
    pub(super) fn new(agent: String, host: String, look: Look, zone: TimeZone) -> Self {
        Self {
            agent,
            look,
            zone,
            head: Head { host, ..Head::default() },
            rows: Rows::default(),
            find: Find::default(),
            known: Known::default(),
            tally: Tally::default(),
            shown: Vec::new(),
            stale: false,
            selected: None,
            top: None,
            seen: None,
            paused: false,
            whole: false,
            pane: Pane::default(),
            side: Side::default(),
            form: Form::default(),
            scroll: 0,
            attempt: None,
            marks: Vec::new(),
            sheet: None,
            note: String::new(),
            after_g: false,
            mouse: false,
            height: 1,
            next_page: None,
            asking_page: false,
            page: None,
            wishes: VecDeque::new(),
        }
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        if self.wishes.len() < MAX_WISHES {
            self.wishes.push_back(wish);
        }
    }

    pub(super) fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// Makes the list anew where rows or the search changed, and asks for what the selection needs.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.stale) && !self.paused {
            let (find, known) = (&self.find, &self.known);
            let found = self.rows.newest_first().filter(|(id, event)| find.takes(event, known, id));
            self.shown = found.map(|(id, _)| Arc::clone(id)).collect();
        }
        if self.selected.as_ref().is_none_or(|id| self.place(id).is_none()) && !self.whole {
            // Without a choice of its own the selection is the newest.
            self.selected = None;
        }
        let part = self.part();
        let Some(event) = self.selected_id().and_then(|id| self.rows.get(id)) else { return };
        if let Some(question) = self.known.wanted(event, part) {
            self.wish(Wish::Ask(question));
        }
    }

    /// The place of a row in the list.
    pub(super) fn place(&self, id: &str) -> Option<usize> {
        // Ids fall from one row to the next.
        self.shown.binary_search_by(|other| id.cmp(other)).ok()
    }

    pub(super) fn selected_id(&self) -> Option<&Arc<str>> {
        self.selected.as_ref().or_else(|| self.shown.first())
    }

    pub(super) fn selected_row(&self) -> Option<&EventSummary> {
        self.rows.get(self.selected_id()?)
    }

    pub(super) fn detail(&self) -> Option<&EventDetail> {
        self.known.detail(self.selected_id()?)
    }

    /// The attempt that is looked at, of those that are known.
    pub(super) fn attempt_number(&self) -> u32 {
        let last = || self.detail().and_then(|event| event.attempts.last()).map(|attempt| attempt.number);
        self.attempt.or_else(last).unwrap_or(1)
    }

    /// The body that the side shows.
    pub(super) fn part(&self) -> Part {
        match self.side {
            Side::Answer => Part::Answer(self.attempt_number()),
            _ => Part::Request,
        }
    }

    /// The first row to draw in so many lines: the selection is always among them.
    pub(super) fn first_row(&mut self, height: usize) -> usize {
        self.height = height.max(1);
        let selected = self.selected_id().and_then(|id| self.place(id)).unwrap_or_default();
        let last = self.shown.len().saturating_sub(self.height);
        let top = self.top.as_ref().map_or(0, |id| {
            // A row that is gone stood where the next older one is now.
            self.shown.binary_search_by(|other| id.cmp(other)).unwrap_or_else(|place| place)
        });
        let first = top.min(last).min(selected).max((selected + 1).saturating_sub(self.height));
        let newest = self.shown.first().map(Arc::clone);
        if first == 0 && !self.paused {
            (self.top, self.seen) = (None, newest);
        } else {
            self.top = self.shown.get(first).map(Arc::clone);
        }
        first
    }

    /// Rows that came since the newest one stood on screen.
    pub(super) fn unseen(&self) -> usize {
        match &self.seen {
            Some(seen) if self.paused => self.rows.newest_first().take_while(|(id, _)| *id > seen).count(),
            Some(seen) => self.shown.iter().take_while(|id| *id > seen).count(),
            None => 0,
        }
    }

    /// Moves the selection by so many rows.
    pub(super) fn step(&mut self, by: isize) {
        let now = self.selected_id().and_then(|id| self.place(id)).unwrap_or_default();
        let last = self.shown.len().saturating_sub(1);
        self.select(now.saturating_add_signed(by).min(last));
        if now + self.height >= self.shown.len() && by > 0 {
            self.older();
        }
    }

    pub(super) fn select(&mut self, place: usize) {
        let Some(id) = self.shown.get(place) else { return };
        if self.selected_id() != Some(id) {
            (self.scroll, self.attempt) = (0, None);
        }
        self.selected = Some(Arc::clone(id));
    }

    /// Asks for the next older page, if there is one.
    pub(super) fn older(&mut self) {
        if self.asking_page || self.rows.len() >= super::rows::MAX_ROWS {
            return;
        }
        let Some(after) = self.next_page.take() else { return };
        self.asking_page = true;
        let q = self.find.question();
        self.wish(Wish::Ask(Question::Page { q, after: Some(after) }));
    }

    /// Asks for the newest page of what is searched for, and to be told what changes of it.
    pub(super) fn ask_anew(&mut self) {
        (self.next_page, self.asking_page, self.stale) = (None, true, true);
        let q = self.find.question();
        self.wish(Wish::Ask(Question::Page { q: q.clone(), after: None }));
        self.wish(Wish::Ask(Question::Follow { q }));
    }

    /// Marks the selected event, or takes its mark away. The oldest mark goes where there are too many.
    pub(super) fn mark(&mut self) {
        let Some(id) = self.selected_id().map(Arc::clone) else { return };
        if let Some(at) = self.marks.iter().position(|marked| *marked == id) {
            self.marks.remove(at);
            return;
        }
        if self.marks.len() == MAX_MARKS {
            self.marks.remove(0);
        }
        self.marks.push(id);
    }
}
