//! What keys do to the view. Pure.

use std::sync::Arc;

use ratatui::crossterm::event::KeyEvent;
use relay_program::event::EventSummary;

use super::{
    compare,
    keys::{Action, HELP, action},
    list,
    sheet::Sheet,
    state::{Pane, ScreenView, Side},
    wish::{Question, Wish},
};

impl ScreenView {
    pub(super) fn handle_key(&mut self, key: &KeyEvent) {
        if self.find.is_typing() {
            if self.find.type_key(key) {
                self.ask_anew();
            }
            self.stale = true;
            return;
        }
        let after_g = std::mem::take(&mut self.after_g);
        self.note.clear();
        match action(key, after_g) {
            Some(action) => self.handle_action(action),
            None => self.after_g = key.code == ratatui::crossterm::event::KeyCode::Char('g'),
        }
    }

    fn handle_action(&mut self, action: Action) {
        match action {
            Action::Quit => self.wish(Wish::Quit),
            Action::Suspend => self.wish(Wish::Suspend),
            Action::Redraw => self.wish(Wish::Redraw),
            _ if self.sheet.is_some() => self.in_sheet(action),
            Action::Next => self.moved(1),
            Action::Previous => self.moved(-1),
            Action::PageDown => self.moved(self.page()),
            Action::PageUp => self.moved(-self.page()),
            Action::Newest | Action::Follow => self.follow(),
            Action::Oldest => {
                self.select(self.shown.len().saturating_sub(1));
                self.older();
            }
            Action::NextFailure => self.next_failure(false),
            Action::PreviousFailure => self.next_failure(true),
            Action::Pause => {
                self.paused = !self.paused;
                self.stale = true;
            }
            Action::Search => self.find.begin(),
            Action::Preset(number) => {
                self.find.preset(number);
                (self.selected, self.top) = (None, None);
                self.ask_anew();
            }
            Action::Whole => (self.whole, self.pane) = (true, Pane::Detail),
            Action::Back => self.back(),
            Action::OtherPane => {
                self.pane = if self.pane == Pane::List { Pane::Detail } else { Pane::List };
                self.whole = false;
            }
            Action::NextSide => self.next_side(),
            Action::NextForm => (self.form, self.scroll) = (self.form.next(), 0),
            Action::NextAttempt => self.other_attempt(1),
            Action::PreviousAttempt => self.other_attempt(-1),
            Action::Mark => self.mark(),
            Action::Mouse => {
                self.mouse = !self.mouse;
                self.wish(Wish::Mouse(self.mouse));
            }
            Action::Help => self.sheet = Some(Sheet::new("keys", HELP.map(str::to_owned).into())),
            Action::Log => {
                let lines: Vec<_> = self.tally.log.iter().rev().cloned().collect();
                let lines = if lines.is_empty() { vec!["nothing was logged".to_owned()] } else { lines };
                self.sheet = Some(Sheet::new("log, the newest first", lines));
            }
            Action::Compare => self.compare(),
            Action::Backlog => self.backlog(),
            Action::Yes => {}
            Action::Replay | Action::Edit | Action::Explain | Action::Curl | Action::Copy => self.on_event(action),
            Action::Save | Action::OpenPage | Action::Skip => self.on_event(action),
        }
    }

    fn page(&self) -> isize {
        isize::try_from(self.height.saturating_sub(1)).unwrap_or(1).max(1)
    }

    fn moved(&mut self, by: isize) {
        if self.pane == Pane::Detail {
            self.scroll = self.scroll.saturating_add_signed(by);
        } else {
            self.step(by);
        }
    }

    fn follow(&mut self) {
        (self.selected, self.top, self.paused, self.stale) = (None, None, false, true);
        (self.scroll, self.attempt) = (0, None);
    }

    fn back(&mut self) {
        if self.whole || self.pane == Pane::Detail {
            (self.whole, self.pane) = (false, Pane::List);
        } else if !self.marks.is_empty() {
            self.marks.clear();
        } else if self.find.clear() {
            self.ask_anew();
        }
    }

    fn in_sheet(&mut self, action: Action) {
        let page = self.page();
        let Some(sheet) = &mut self.sheet else { return };
        match action {
            Action::Next => sheet.step(1),
            Action::Previous => sheet.step(-1),
            Action::PageDown => sheet.step(page),
            Action::PageUp => sheet.step(-page),
            Action::Yes => {
                let yes = sheet.yes.take();
                self.sheet = None;
                yes.into_iter().for_each(|wish| self.wish(wish));
            }
            Action::Skip => {
                self.sheet = None;
                self.on_event(Action::Skip);
            }
            Action::Back | Action::Help | Action::Log => self.sheet = None,
            _ => {}
        }
    }

    fn next_failure(&mut self, newer: bool) {
        let now = self.selected_id().and_then(|id| self.place(id)).unwrap_or_default();
        let failed =
            |place: &usize| self.shown.get(*place).and_then(|id| self.rows.get(id)).is_some_and(list::is_failure);
        let found = if newer { (0..now).rev().find(failed) } else { (now + 1..self.shown.len()).find(failed) };
        match found {
            Some(place) => self.select(place),
            None => self.note = "no more failures among the rows at hand".to_owned(),
        }
    }

    fn next_side(&mut self) {
        self.scroll = 0;
        self.side = match self.side {
            Side::Request => Side::Answer,
            Side::Answer => Side::Headers,
            Side::Headers => Side::Attempts,
            Side::Attempts => Side::Request,
        };
    }

    fn other_attempt(&mut self, by: i32) {
        let now = self.attempt_number();
        let Some(event) = self.detail() else { return };
        let other = now.saturating_add_signed(by);
        if event.attempts.iter().any(|attempt| attempt.number == other) {
            (self.attempt, self.scroll) = (Some(other), 0);
        }
    }

    /// What is done with the selected event.
    fn on_event(&mut self, action: Action) {
        let Some(event) = self.selected_row() else { return };
        let (id, known) = (event.id.clone(), self.rows.known_as(&event.id).to_owned());
        match action {
            Action::Replay => {
                self.note = format!("replaying {known}");
                self.wish(Wish::Ask(Question::Replay { id: known, edited: None }));
            }
            Action::Edit => self.wish(Wish::Ask(Question::Whole(known))),
            Action::Explain => self.wish(Wish::Ask(Question::Explain(known))),
            Action::Curl => self.wish(Wish::Ask(Question::Curl(known))),
            Action::OpenPage => self.wish(Wish::Open(id)),
            Action::Skip => {
                let endpoint = event.endpoint.clone();
                let text = format!("All that waits for {endpoint} is ended, for every agent.");
                let yes = Wish::Ask(Question::Skip(endpoint.clone()));
                self.sheet = Some(Sheet::asks(format!("skip what waits for {endpoint}?"), vec![text], yes));
            }
            _ => {
                let Some(bytes) = self.known.body(&id, self.part()).cloned() else {
                    self.note = "its body is not there".to_owned();
                    return;
                };
                let what = format!("{} of body", crate::report::units::bytes(bytes.len() as u64));
                let bytes = Vec::from(bytes);
                match action {
                    Action::Save => self.wish(Wish::Save { name: format!("{id}.body"), bytes }),
                    _ => self.wish(Wish::Copy { bytes, what }),
                }
            }
        }
    }

    fn compare(&mut self) {
        let [left, right] = self.marks.as_slice() else {
            self.note = "mark two events with x first".to_owned();
            return;
        };
        let side = |id: &Arc<str>| compare::Compared {
            row: self.rows.get(id),
            detail: self.known.detail(id),
            body: self.known.body(id, super::known::Part::Request),
        };
        let lines = compare::lines(&side(left), &side(right));
        self.sheet = Some(Sheet::new(format!("{left} and {right}"), lines));
    }

    fn backlog(&mut self) {
        let waits = |event: &&EventSummary| matches!(event.state.as_str(), "pending" | "waiting");
        let mut waiting: Vec<&EventSummary> = self.rows.newest_first().map(|(_, event)| event).filter(waits).collect();
        waiting.sort_by(|one, other| one.endpoint.cmp(&other.endpoint).then(one.id.cmp(&other.id)));
        let mut lines = Vec::new();
        for of_one in waiting.chunk_by(|one, other| one.endpoint == other.endpoint) {
            let (first, count) = (of_one[0], of_one.len());
            let oldest = super::units::clock(&first.received_at, &self.zone);
            lines.push(format!("{}  {count} wait, the oldest since {oldest}", first.endpoint));
        }
        if lines.is_empty() {
            lines.push("nothing waits among the rows at hand".to_owned());
        }
        lines
            .extend(["", "3 lists them; S skips what waits for the endpoint of the selected event"].map(str::to_owned));
        self.sheet = Some(Sheet::new("backlog", lines));
    }
}
