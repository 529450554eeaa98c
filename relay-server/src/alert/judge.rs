//! Which causes hold: pure, from how things stand now and stood before.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::Thresholds;
use crate::{metrics::EndpointBacklog, store::Usage};

/// How long a backlog has to grow.
const GROWS_FOR: SignedDuration = SignedDuration::from_mins(5);

/// How long no more dead letters come before an incident is over.
const QUIET: SignedDuration = SignedDuration::from_hours(1);

/// How far the machine's clock may be behind where the relay's own has been. A step by NTP is less.
const SET_BACK: SignedDuration = SignedDuration::from_secs(5);

/// Requests that are signed rightly and dated in the future; so many of them in a time say that the clock is behind.
const FUTURE_DATED: u64 = 5;
const FUTURE_DATED_IN: SignedDuration = SignedDuration::from_mins(10);

/// Per cent of the store that what waits may take.
const FULL_FROM: u64 = 80;
/// And below which it is well again.
const FULL_UNTIL: u64 = 75;

/// Rounds in which a canary got no answer.
const CANARY_FAILURES: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AlertKind {
    DeadLetters,
    Backlog,
    Clock,
    Certificate,
    Store,
    Canary,
}

impl AlertKind {
    pub(crate) const ALL: [Self; 6] =
        [Self::DeadLetters, Self::Backlog, Self::Clock, Self::Certificate, Self::Store, Self::Canary];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead_letters",
            Self::Backlog => "backlog",
            Self::Clock => "clock",
            Self::Certificate => "certificate",
            Self::Store => "store",
            Self::Canary => "canary",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AlertCause {
    pub kind: AlertKind,
    pub subject: String,
}

/// How things stand.
#[derive(Debug, Default)]
pub(crate) struct RelayFacts {
    pub waiting: Vec<EndpointBacklog>,
    /// Dead letters since the start, by endpoint; those that nobody took in time under an empty name.
    pub dead: Vec<(String, u64)>,
    pub usage: Usage,
    /// How far the relay's clock is ahead of the machine's.
    pub clock_ahead: SignedDuration,
    /// Requests since the start that were signed rightly and dated in the future.
    pub future_dated: u64,
    pub certificates: Vec<CertificateEnd>,
    pub canaries: Vec<StoppedCanary>,
}

/// Until when a certificate is good.
#[derive(Clone, Debug)]
pub(crate) struct CertificateEnd {
    pub name: String,
    pub ends_at: Timestamp,
    /// From its first moment on.
    pub lifetime: SignedDuration,
}

/// How long before a certificate's end it is spoken of: `most`, and not before a short life is nearly over. Certificates
/// are renewed once two thirds of their life have passed or a little later, and one that will be is none to speak of.
pub(crate) fn notice(lifetime: SignedDuration, most: SignedDuration) -> SignedDuration {
    most.min(lifetime / 4)
}

/// A canary that got no answer the last time.
#[derive(Clone, Debug)]
pub(crate) struct StoppedCanary {
    pub agent: String,
    pub token: String,
    /// Rounds without an answer, in a row.
    pub failures: u32,
}

/// What was seen before.
pub(super) struct Judge {
    thresholds: Thresholds,
    backlogs: HashMap<String, Growth>,
    dead: HashMap<String, Incident>,
    future_dated: VecDeque<(Timestamp, u64)>,
    is_filling: bool,
}

/// An endpoint's backlog over the last minutes.
#[derive(Default)]
struct Growth {
    seen: VecDeque<(Timestamp, u64)>,
    is_raised: bool,
    peak: u64,
}

struct Incident {
    count: u64,
    /// When the last one came, and how many there were before the first of this incident.
    last: Option<(Timestamp, u64)>,
}

impl Judge {
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            backlogs: HashMap::new(),
            dead: HashMap::new(),
            future_dated: VecDeque::new(),
            is_filling: false,
        }
    }

    /// The causes that hold, each with a sentence.
    pub(super) fn judge(&mut self, facts: &RelayFacts, now: Timestamp) -> BTreeMap<AlertCause, String> {
        let mut holds = BTreeMap::new();
        let mut add = |kind, subject: &str, message| {
            holds.insert(AlertCause { kind, subject: subject.to_owned() }, message);
        };
        for (endpoint, open, oldest_s) in self.growing(&facts.waiting, now) {
            let message = format!("{open} events wait, more and more, the oldest for {oldest_s} s");
            add(AlertKind::Backlog, &endpoint, message);
        }
        for (endpoint, count) in self.died(&facts.dead, now) {
            let message = match endpoint.is_empty() {
                true => format!("{count} events were taken by nobody in time and are dead letters"),
                false => format!("{count} events became dead letters; `relay-server dead list` shows them"),
            };
            add(AlertKind::DeadLetters, &endpoint, message);
        }
        if let Some(message) = self.clock(facts, now) {
            add(AlertKind::Clock, "", message);
        }
        let Usage { waiting_bytes, max_bytes, .. } = facts.usage;
        let per_cent = waiting_bytes.saturating_mul(100) / max_bytes.max(1);
        self.is_filling = per_cent >= if self.is_filling { FULL_UNTIL } else { FULL_FROM };
        if self.is_filling {
            let message = format!("what waits takes {per_cent} % of the store; when it is full, new events get 503");
            add(AlertKind::Store, "", message);
        }
        let most = SignedDuration::try_from(self.thresholds.certificate).unwrap_or(SignedDuration::MAX);
        for CertificateEnd { name, ends_at, lifetime } in &facts.certificates {
            let left = ends_at.duration_since(now);
            if left <= notice(*lifetime, most) {
                let message = match left.is_negative() {
                    true => format!("the certificate has expired ({ends_at:.0})"),
                    false => format!("the certificate expires in {} h ({ends_at:.0})", left.as_hours()),
                };
                add(AlertKind::Certificate, name, message);
            }
        }
        for StoppedCanary { agent, token, failures } in &facts.canaries {
            if *failures >= CANARY_FAILURES {
                let message = format!("no canary came back from this agent {failures} times in a row");
                add(AlertKind::Canary, &format!("{token}/{agent}"), message);
            }
        }
        holds
    }

    /// The backlogs that are large and have not become smaller for a while.
    fn growing(&mut self, waiting: &[EndpointBacklog], now: Timestamp) -> Vec<(String, u64, i64)> {
        let enough = self.thresholds.backlog.max(1);
        let mut growing = Vec::new();
        let open: HashSet<_> = waiting.iter().filter(|one| one.open > 0).map(|one| &one.endpoint).collect();
        self.backlogs.retain(|endpoint, _| open.contains(endpoint));
        for one in waiting.iter().filter(|one| one.open > 0) {
            let growth = self.backlogs.entry(one.endpoint.clone()).or_default();
            growth.seen.push_back((now, one.open));
            // The oldest that stays is the last from before the time that is looked at.
            while growth.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= GROWS_FOR) {
                growth.seen.pop_front();
            }
            let (first_at, first) = growth.seen[0];
            growth.peak = growth.peak.max(one.open);
            growth.is_raised = match growth.is_raised {
                true => one.open >= enough / 2 && one.open > growth.peak / 2,
                false => one.open >= enough && one.open > first && now.duration_since(first_at) >= GROWS_FOR,
            };
            match growth.is_raised {
                true => growing.push((one.endpoint.clone(), one.open, one.oldest_s)),
                false => growth.peak = one.open,
            }
        }
        growing
    }

    /// Where dead letters came a while ago or later, and how many.
    fn died(&mut self, dead: &[(String, u64)], now: Timestamp) -> Vec<(String, u64)> {
        let mut died = Vec::new();
        let there: HashSet<_> = dead.iter().map(|(endpoint, _)| endpoint).collect();
        self.dead.retain(|endpoint, _| there.contains(endpoint));
        for (endpoint, count) in dead {
            let incident = self.dead.entry(endpoint.clone()).or_insert(Incident { count: 0, last: None });
            if *count < incident.count {
                // An endpoint that was taken away and made again counts from nothing.
                *incident = Incident { count: 0, last: None };
            }
            if *count > incident.count {
                let before = incident.last.map_or(incident.count, |(_, before)| before);
                (incident.count, incident.last) = (*count, Some((now, before)));
            }
            incident.last = incident.last.filter(|(at, _)| now.duration_since(*at) < QUIET);
            died.extend(incident.last.map(|(_, before)| (endpoint.clone(), count - before)));
        }
        died
    }

    fn clock(&mut self, facts: &RelayFacts, now: Timestamp) -> Option<String> {
        if self.future_dated.back().is_none_or(|(_, count)| *count != facts.future_dated) {
            self.future_dated.push_back((now, facts.future_dated));
        }
        while self.future_dated.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= FUTURE_DATED_IN) {
            self.future_dated.pop_front();
        }
        if facts.clock_ahead > SET_BACK {
            let behind = facts.clock_ahead.as_secs();
            return Some(format!("this machine's clock was set back: it is {behind} s behind what it said before"));
        }
        let before = self.future_dated.front().map_or(0, |(_, count)| *count);
        let late = facts.future_dated.saturating_sub(before);
        (late >= FUTURE_DATED).then(|| {
            format!("{late} requests are signed rightly and dated in the future: this machine's clock is behind")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + minute * 60).expect("a time")
    }

    fn judge() -> Judge {
        Judge::new(Thresholds { backlog: 100, ..Thresholds::default() })
    }

    fn words(judge: &mut Judge, facts: &RelayFacts, minute: i64) -> Vec<String> {
        let holds = judge.judge(facts, at(minute));
        holds.into_keys().map(|cause| format!("{} {}", cause.kind.word(), cause.subject)).collect()
    }

    fn waiting(open: u64) -> RelayFacts {
        let backlog = EndpointBacklog { endpoint: "github".to_owned(), open, oldest_s: 60, overdue: false };
        RelayFacts { waiting: vec![backlog], ..RelayFacts::default() }
    }

    #[test]
    fn a_backlog_is_spoken_of_when_it_grows_for_five_minutes_and_until_it_is_half() {
        let mut judge = judge();
        let mut look = |minute, open| !words(&mut judge, &waiting(open), minute).is_empty();
        assert!((0..5).all(|minute| !look(minute, 200 + 10 * minute.unsigned_abs())), "not yet");
        assert!(look(5, 260) && look(6, 255) && look(8, 140), "it need not grow on");
        assert!(!look(9, 120), "half of its largest");
        assert!(!look(15, 110), "it has become less since");
    }

    #[test]
    fn a_small_or_steady_backlog_is_none() {
        let (mut small, mut steady) = (judge(), judge());
        for minute in 0..20_i64 {
            assert!(words(&mut small, &waiting(5 + minute.unsigned_abs()), minute).is_empty());
            assert!(words(&mut steady, &waiting(5000), minute).is_empty());
        }
    }

    #[test]
    fn dead_letters_are_one_incident_until_none_came_for_an_hour() {
        let mut judge = judge();
        let mut look = |minute, count| {
            let dead = vec![("github".to_owned(), count), ("quiet".to_owned(), 0)];
            judge.judge(&RelayFacts { dead, ..RelayFacts::default() }, at(minute)).into_values().next()
        };
        assert_eq!(look(0, 0), None);
        assert!(look(1, 2).is_some_and(|message| message.starts_with("2 events")));
        assert!(look(40, 5).is_some_and(|message| message.starts_with("5 events")));
        assert!(look(99, 5).is_some() && look(100, 5).is_none());
        assert!(look(200, 6).is_some_and(|message| message.starts_with("1 events")), "a new one");
    }

    #[test]
    fn a_count_that_began_anew_is_a_new_incident() {
        let mut judge = judge();
        let mut look = |minute, counts: &[(&str, u64)]| {
            let dead = counts.iter().map(|(endpoint, count)| ((*endpoint).to_owned(), *count)).collect();
            let holds = judge.judge(&RelayFacts { dead, ..RelayFacts::default() }, at(minute));
            let messages = holds.into_values().map(|message| message.split(' ').next().unwrap_or_default().to_owned());
            messages.collect::<Vec<_>>()
        };
        assert_eq!(look(0, &[("github", 7)]), ["7"]);
        assert_eq!(look(1, &[("github", 9)]), ["9"]);
        assert_eq!(look(2, &[("github", 2)]), ["2"], "less than it ever was");
        assert_eq!(look(3, &[("github", 5)]), ["5"]);
        assert!(look(4, &[("github", 0)]).is_empty());
        assert_eq!(look(5, &[("github", 1)]), ["1"]);
        assert!(look(6, &[]).is_empty() && look(7, &[("github", 0)]).is_empty(), "it is not there");
    }

    #[test]
    fn the_store_is_spoken_of_from_80_per_cent_of_what_waits_until_75() {
        let mut judge = judge();
        let mut look = |waiting_bytes| {
            let usage = Usage { bytes: 95, max_bytes: 100, waiting_bytes, ..Usage::default() };
            !words(&mut judge, &RelayFacts { usage, ..RelayFacts::default() }, 0).is_empty()
        };
        assert_eq!([79, 80, 76, 75, 74, 79].map(&mut look), [false, true, true, true, false, false]);
    }

    #[test]
    fn a_clock_is_wrong_that_was_set_back_or_that_senders_are_ahead_of() {
        let mut judge = judge();
        let ahead = |seconds| RelayFacts { clock_ahead: SignedDuration::from_secs(seconds), ..RelayFacts::default() };
        assert!(words(&mut judge, &ahead(5), 0).is_empty());
        assert_eq!(words(&mut judge, &ahead(6), 0), ["clock "]);
        let future = |future_dated| RelayFacts { future_dated, ..RelayFacts::default() };
        assert!(words(&mut judge, &future(0), 1).is_empty() && words(&mut judge, &future(4), 2).is_empty());
        assert_eq!(words(&mut judge, &future(5), 3), ["clock "]);
        assert!(words(&mut judge, &future(5), 20).is_empty(), "no more of them came");
        let mut slow = self::judge();
        assert!(
            (0..20_i64).all(|n| words(&mut slow, &future(n.unsigned_abs()), n * 5).is_empty()),
            "one in five minutes"
        );
    }

    #[test]
    fn certificates_and_canaries_are_spoken_of_by_name() {
        let mut judge = judge();
        let end_of = |days: i64, name: &str, hours| CertificateEnd {
            name: name.to_owned(),
            ends_at: at(0).saturating_add(SignedDuration::from_hours(hours)).expect("a time"),
            lifetime: SignedDuration::from_hours(24 * days),
        };
        let end = |name, hours| end_of(90, name, hours);
        let canary = |agent: &str, failures| StoppedCanary { agent: agent.to_owned(), token: "t".to_owned(), failures };
        let facts = RelayFacts {
            certificates: vec![
                end("near.test", 24 * 14),
                end("far.test", 24 * 15),
                end("over.test", -1),
                end_of(6, "short.test", 36),
                end_of(6, "fresh.test", 37),
            ],
            canaries: vec![canary("laptop", 3), canary("other", 2)],
            ..RelayFacts::default()
        };
        let expected = ["certificate near.test", "certificate over.test", "certificate short.test", "canary t/laptop"];
        assert_eq!(words(&mut judge, &facts, 0), expected);
    }
}
