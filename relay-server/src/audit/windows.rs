//! What is noted behind: the first of what is alike has a row at once, the others are counted for a minute.
//!
//! Pure but for its callers' times. Bounds: [`MAX_WINDOWS`] kinds of deeds are told apart at a time, and
//! [`MAX_OUTSIDERS`] of them by strangers; beyond that strangers share one. A token has [`MAX_OF_ACTOR`] of them, so that
//! nobody pushes out what others do. [`MAX_ROWS`] rows wait; what finds no place is counted.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Actor, Deed};
use crate::{
    address::site,
    store::{AuditClass, AuditRow},
};

/// How long what is alike is counted before it has another row.
const WINDOW: Duration = Duration::from_secs(60);

pub(crate) const MAX_WINDOWS: usize = 4096;

/// Of these, those of people that show nothing that is known here.
pub(crate) const MAX_OUTSIDERS: usize = 256;

/// Of these, those of one token; beyond that its deeds are told apart no more by where they came from and what they were done to.
pub(crate) const MAX_OF_ACTOR: usize = 64;

/// Rows that wait to be written.
pub(crate) const MAX_ROWS: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Likeness {
    class: AuditClass,
    actor: Actor,
    action: &'static str,
    object: Option<String>,
    result: String,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    /// How many came behind the first.
    more: u64,
    detail: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Windows {
    open: HashMap<Likeness, Window>,
    outsiders: usize,
    /// How many of the open ones are of whom, wherever it comes from.
    of_actor: HashMap<Actor, usize>,
    ready: Vec<AuditRow>,
    /// Results of rows that are in the log.
    settled: Vec<AuditRow>,
    /// What found no place: since the last row that says so, and in all.
    lost: u64,
    lost_in_all: u64,
}

impl Windows {
    pub(super) fn lost_in_all(&self) -> u64 {
        self.lost_in_all
    }

    pub(super) fn push(&mut self, row: AuditRow) {
        if self.ready.len() < MAX_ROWS {
            self.ready.push(row);
        } else {
            self.lose(row.count);
        }
    }

    pub(super) fn push_settled(&mut self, row: AuditRow) {
        if self.settled.len() < MAX_ROWS {
            self.settled.push(row);
        } else {
            self.lose(row.count);
        }
    }

    pub(super) fn take_settled(&mut self) -> Vec<AuditRow> {
        std::mem::take(&mut self.settled)
    }

    fn lose(&mut self, count: u64) {
        self.lost += count;
        self.lost_in_all += count;
    }

    /// Rows that could not be written, the oldest.
    pub(super) fn put_back(&mut self, mut rows: Vec<AuditRow>) {
        rows.append(&mut self.ready);
        let lost = rows.len().saturating_sub(MAX_ROWS);
        let gone: u64 = rows.drain(MAX_ROWS.min(rows.len())..).map(|row| row.count).sum();
        if lost > 0 {
            self.lose(gone);
        }
        self.ready = rows;
    }

    /// Notes a deed; whether it has a row of its own.
    pub(super) fn note(&mut self, class: AuditClass, deed: Deed, result: &str, id: u64, now: Instant) -> bool {
        let is_outsider = deed.actor.is_stranger();
        let mut deed = deed.bounded();
        let mut like = likeness(class, &deed, result);
        if let Some(window) = self.open.get_mut(&like) {
            window.more += 1;
            return false;
        }
        if is_outsider && self.outsiders >= MAX_OUTSIDERS {
            like.actor = Actor { address: None, name: Arc::from("others"), ..like.actor };
            if let Some(window) = self.open.get_mut(&like) {
                window.more += 1;
                return false;
            }
        }
        let whose = anywhere(&like.actor);
        if !is_outsider && self.of_actor.get(&whose).is_some_and(|open| *open >= MAX_OF_ACTOR) {
            like.actor = whose.clone();
            (like.object, deed.object, deed.detail) = (None, None, None);
            if let Some(window) = self.open.get_mut(&like) {
                window.more += 1;
                return false;
            }
        }
        if self.open.len() >= MAX_WINDOWS {
            self.lose(1);
            return false;
        }
        self.outsiders += usize::from(is_outsider);
        *self.of_actor.entry(whose).or_default() += 1;
        let window = Window { began: now, more: 0, detail: deed.detail.clone() };
        let first = Deed { actor: Actor { address: deed.actor.address, ..like.actor.clone() }, ..deed };
        self.open.insert(like, window);
        self.push(first.row(id, class, Some(result)));
        true
    }

    /// The rows that are to be written: with `all`, those of open windows as well. New ones are of the time `id`.
    pub(super) fn take(&mut self, now: Instant, all: bool, id: u64) -> Vec<AuditRow> {
        let over = |window: &Window| all || now.duration_since(window.began) >= WINDOW;
        let ended: Vec<_> = self.open.extract_if(|_, window| over(window)).collect();
        for (like, window) in ended {
            self.outsiders -= usize::from(like.actor.is_stranger());
            let whose = anywhere(&like.actor);
            if let Some(open) = self.of_actor.get_mut(&whose) {
                *open -= 1;
                if *open == 0 {
                    self.of_actor.remove(&whose);
                }
            }
            if window.more > 0 {
                let Likeness { class, actor, action, object, result } = like;
                let deed = Deed { actor, action, object, detail: window.detail };
                let row = deed.row(id, class, Some(&result));
                self.push(AuditRow { count: window.more, ..row });
            }
        }
        if self.lost > 0 && self.ready.len() < MAX_ROWS {
            let deed = Deed::new(Actor::relay(), "audit.lost", None);
            let row = deed.row(id, AuditClass::Refused, Some("too_many"));
            self.ready.push(AuditRow { count: std::mem::take(&mut self.lost), ..row });
        }
        std::mem::take(&mut self.ready)
    }
}

/// Somebody, whichever address it comes from.
fn anywhere(actor: &Actor) -> Actor {
    Actor { address: None, ..actor.clone() }
}

/// One host is one stranger, whichever of its addresses it comes from.
fn likeness(class: AuditClass, deed: &Deed, result: &str) -> Likeness {
    let address = deed.actor.address.map(|address: IpAddr| site(address));
    Likeness {
        class,
        actor: Actor { address, ..deed.actor.clone() },
        action: deed.action,
        object: deed.object.clone(),
        result: result.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(address: [u8; 4]) -> Deed {
        Deed::new(Actor::nobody(IpAddr::from(address)), "auth", None)
    }

    #[test]
    fn what_is_alike_has_a_row_at_once_and_one_a_minute() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        let one = |windows: &mut Windows, id| {
            windows.note(AuditClass::Refused, guess([192, 0, 2, 1]), "unauthorized", id, now)
        };
        assert!(one(&mut windows, 1));
        for id in 2..1000 {
            assert!(!one(&mut windows, id));
        }
        let rows = windows.take(now, false, 5000);
        assert_eq!(rows.iter().map(|row| (row.id, row.count)).collect::<Vec<_>>(), [(1, 1)]);
        let rows = windows.take(now + WINDOW, false, 5000);
        assert_eq!(rows.iter().map(|row| (row.id, row.count)).collect::<Vec<_>>(), [(5000, 998)]);
        assert!(windows.take(now + WINDOW * 2, false, 6000).is_empty());
    }

    #[test]
    fn a_token_that_asks_for_all_sorts_leaves_the_others_their_rows_and_memory_its_bound() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        let (name, token) = (Arc::from("laptop"), Arc::from("id"));
        for number in 0..10_000_u16 {
            let [a, b] = number.to_be_bytes();
            let actor = Actor::agent(&name, &token, IpAddr::from([192, 0, a, b]));
            let object = format!("{number}{}", "a".repeat(60_000));
            let deed = Deed::new(actor, "endpoint.delete", Some(object));
            windows.note(AuditClass::Refused, deed, "forbidden", number.into(), now);
        }
        assert_eq!(windows.lost_in_all(), 0);
        assert!(windows.note(AuditClass::Refused, guess([192, 0, 2, 1]), "unauthorized", 1, now));
        let held = |like: &Likeness| like.object.as_ref().map_or(0, String::len);
        assert!(windows.open.keys().map(held).sum::<usize>() <= MAX_OF_ACTOR * 1024);
        let counted: u64 =
            [now, now + WINDOW].iter().flat_map(|at| windows.take(*at, false, 9)).map(|row| row.count).sum();
        assert_eq!((counted, windows.open.len(), windows.of_actor.len()), (10_001, 0, 0));
    }

    #[test]
    fn a_crowd_of_strangers_shares_a_row_and_nothing_is_uncounted() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        let strangers = 10_000_u32;
        for number in 0..strangers {
            windows.note(AuditClass::Refused, guess(number.to_be_bytes()), "unauthorized", number.into(), now);
            assert!(windows.open.len() <= MAX_OUTSIDERS + 1 && windows.ready.len() <= MAX_ROWS);
        }
        let agent = Actor::agent(&"alice".into(), &"tok_1".into(), IpAddr::from([192, 0, 2, 1]));
        assert!(windows.note(AuditClass::Agents, Deed::new(agent, "agent.attach", None), "ok", 0, now));
        let rows = windows.take(now + WINDOW, false, 50_000);
        let strange: Vec<_> = rows.iter().filter(|row| row.action == "auth").collect();
        assert_eq!(strange.iter().map(|row| row.count).sum::<u64>(), u64::from(strangers));
        assert!(strange.len() <= MAX_OUTSIDERS + 2);
        assert_eq!((windows.outsiders, windows.lost_in_all()), (0, 0));
    }

    /// Notes so many deeds of which none is like another; how many have a row of their own.
    fn rows_of(windows: &mut Windows, deeds: impl IntoIterator<Item = Deed>) -> usize {
        let now = Instant::now();
        let rows = deeds.into_iter().map(|deed| windows.note(AuditClass::Refused, deed, "no", 1, now));
        rows.filter(|has_row| *has_row).count()
    }

    #[test]
    fn each_bound_of_what_is_told_apart_is_reached_and_not_passed() {
        let strangers = |from: usize, to: usize| (from..to).map(|n| guess(u32::try_from(n).unwrap().to_be_bytes()));
        let of_token = |token: usize, from: usize, to: usize| {
            let name = Arc::from(format!("token-{token}"));
            let actor = Actor::agent(&name, &name, IpAddr::from([192, 0, 2, 1]));
            (from..to).map(move |n| Deed::new(actor.clone(), "event.read", Some(n.to_string())))
        };
        let mut windows = Windows::default();
        assert_eq!(rows_of(&mut windows, strangers(0, MAX_OUTSIDERS)), MAX_OUTSIDERS);
        assert_eq!(rows_of(&mut windows, strangers(MAX_OUTSIDERS, MAX_OUTSIDERS + 9)), 1, "one for all others");
        assert_eq!(windows.open.len(), MAX_OUTSIDERS + 1);

        assert_eq!(rows_of(&mut windows, of_token(0, 0, MAX_OF_ACTOR)), MAX_OF_ACTOR);
        assert_eq!(rows_of(&mut windows, of_token(0, MAX_OF_ACTOR, MAX_OF_ACTOR + 9)), 1, "one for all its others");
        assert_eq!(rows_of(&mut windows, of_token(1, 0, 1)), 1, "another token has its own");

        let left = MAX_WINDOWS - windows.open.len();
        let others = (2..).flat_map(|token| of_token(token, 0, MAX_OF_ACTOR)).take(left);
        assert_eq!(rows_of(&mut windows, others), left);
        assert_eq!((windows.open.len(), windows.lost_in_all()), (MAX_WINDOWS, 0));
        assert_eq!((rows_of(&mut windows, of_token(1000, 0, 1)), windows.lost_in_all()), (0, 1));
    }

    #[test]
    fn what_finds_no_place_is_counted() {
        let (mut windows, now) = (Windows::default(), Instant::now());
        let row = guess([1, 1, 1, 1]).row(7, AuditClass::Refused, None);
        for _ in 0..MAX_ROWS {
            windows.push(row.clone());
        }
        assert_eq!(windows.lost_in_all(), 0);
        for _ in 0..5 {
            windows.push(row.clone());
        }
        assert_eq!(windows.lost_in_all(), 5);
        let rows = windows.take(now, false, 9);
        assert_eq!(rows.len(), MAX_ROWS);
        let rows = windows.take(now, false, 9);
        assert_eq!((rows.len(), &*rows[0].action, rows[0].count), (1, "audit.lost", 5));
        windows.put_back(rows);
        assert_eq!(windows.take(now, false, 9).len(), 1);
    }
}
