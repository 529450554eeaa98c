//! Random operations on all stores side by side: whatever one says the others say, too.
//!
//! A run prints its seed when it fails; the same seed makes the same run. `RELAY_STORE_SEEDS=1000` makes more of them.

use super::*;

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).expect("small")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.roll(of.len())])
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    fn ms(&mut self, most: usize) -> i64 {
        i64::try_from(self.roll(most)).expect("small")
    }
}

struct Run {
    beds: Vec<Bed>,
    dice: Dice,
    now: i64,
    ids: Vec<(EndpointName, EventId)>,
    held: Vec<End>,
    appended: Vec<NewEvent>,
    settled: Vec<End>,
    bulks: Vec<EventId>,
}

/// Asks all, compares what they say and returns it.
macro_rules! all {
    ($run:ident, $store:ident => $call:expr) => {{
        let mut said = Vec::new();
        for bed in &$run.beds {
            let $store = &bed.store;
            said.push($call.await);
        }
        let first = said.remove(0);
        for other in said {
            assert_eq!(format!("{first:?}"), format!("{other:?}"), "{} at {}", stringify!($call), $run.now);
        }
        first
    }};
}

const ENDPOINTS: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 4] = ["k1", "k2", "k3", "k4"];

impl Run {
    fn new_event(&mut self) -> NewEvent {
        self.now += 1;
        let mut event = event(ENDPOINTS[self.dice.roll(3)], self.now);
        event.body = Body::Bytes(["one", "two"][self.dice.roll(2)].into());
        if self.dice.chance(5) {
            event.body = Body::Bytes(vec![b'z'; 70_000].into());
        }
        if self.dice.chance(60) {
            let window = Duration::from_millis(1 + self.dice.roll(400) as u64);
            let key = KEYS[self.dice.roll(4)].into();
            event.dedup = Some(Dedup { key, window, sender_retries: self.dice.chance(50) });
        }
        if self.dice.chance(30) {
            event.sender_id = Some(KEYS[self.dice.roll(4)].into());
        }
        if self.dice.chance(50) {
            event.order_key = Some(KEYS[self.dice.roll(2)].into());
        }
        if self.dice.chance(30) {
            let digest = [u8::try_from(self.dice.roll(9)).expect("a small number"); 32];
            let (signed_at, good_until) = (at(self.now), at(i64::from(u32::MAX)));
            event.mark = Some(Mark { digest, signed_at, good_until, is_late: self.dice.chance(20) });
        }
        if self.dice.chance(30) {
            event.lease = Some(Grant { holder: self.holder(), until: at(self.now + 1 + self.dice.ms(50)) });
        }
        self.ids.push((event.endpoint.clone(), event.id));
        event
    }

    async fn append(&mut self) {
        let count = 1 + self.dice.roll(4);
        let events: Vec<_> = (0..count).map(|_| self.new_event()).collect();
        let now = at(self.now);
        let verdicts = all!(self, store => store.append(events.clone(), now)).expect("appended");
        self.appended.clone_from(&events); // Whoever repeats an append does so at once.
        for (event, verdict) in events.iter().zip(verdicts) {
            let (id, lease) = match verdict {
                Verdict::Accepted { lease: Some(lease), .. } => (event.id, lease),
                Verdict::Again { of, lease: Some(lease), .. } => (of, lease),
                _ => continue,
            };
            self.hold(event.endpoint.clone(), id, lease);
        }
    }

    fn hold(&mut self, endpoint: EndpointName, id: EventId, lease: Lease) {
        let status = [200, 404, 500][self.dice.roll(3)];
        let answer = Answer { status, headers: HeaderBlock::new(), body: "hm".into(), truncated: false };
        let mut hops = Hops::default();
        if self.dice.chance(50) {
            hops.note_answer(Whose::Ack, Some(200), Duration::from_micros(self.dice.roll(90) as u64));
        }
        let attempt = Attempt {
            number: lease.attempt,
            fence: lease.fence,
            started_at: at(self.now),
            duration: Duration::from_millis(self.dice.roll(9) as u64),
            outcome: Outcome::Answered,
            agent: None,
            answer: self.dice.chance(70).then_some(answer),
            resigned: self.dice.chance(20),
            sha256_in: self.dice.chance(50).then(|| [self.dice.roll(256) as u8; 32]),
            hops,
        };
        let later = at(self.now + self.dice.ms(60));
        let all =
            [Then::Done, Then::Retry(later), Then::Dead(Reason::HandlerFailed), Then::Release(later), Then::Record];
        self.held.push(End { endpoint, id, attempt, then: all[self.dice.roll(5)] });
    }

    async fn claim(&mut self) {
        let want =
            |dice: &mut Dice, endpoint| Want { endpoint: name(endpoint), oldest: dice.roll(4), newest: dice.roll(3) };
        let wants: Vec<_> = ENDPOINTS.map(|endpoint| want(&mut self.dice, endpoint)).to_vec();
        let (until, now) = (at(self.now + 1 + self.dice.ms(80)), at(self.now));
        let grant = Grant { holder: self.holder(), until };
        let claimed = all!(self, store => store.claim(wants.clone(), grant, now)).expect("claimed");
        for one in claimed.deliveries {
            self.hold(one.summary.endpoint, one.summary.id, one.lease);
        }
    }

    async fn settle(&mut self) {
        let count = self.dice.roll(3).min(self.held.len());
        let mut ends = Vec::new();
        for _ in 0..count {
            let nth = self.dice.roll(self.held.len());
            ends.push(if self.dice.chance(80) { self.held.swap_remove(nth) } else { self.held[nth].clone() });
        }
        let now = at(self.now);
        all!(self, store => store.settle(ends.clone(), now)).expect("settled");
        self.settled.extend(ends);
    }

    async fn orphans(&mut self) {
        let until = vec![(name(ENDPOINTS[self.dice.roll(3)]), at(self.now + self.dice.ms(100)))];
        let (gone, holder, now) = (vec![self.holder()], self.holder(), at(self.now));
        all!(self, store => store.orphans(gone.clone(), holder, until.clone(), now)).expect("taken over");
        all!(self, store => store.holders()).expect("read");
    }

    fn holder(&mut self) -> Holder {
        Holder(u64::MAX - self.dice.roll(3) as u64)
    }

    /// Appends and settles that are made again.
    async fn again(&mut self) {
        let now = at(self.now);
        if let Some(event) = self.dice.one(&self.appended).cloned() {
            all!(self, store => store.append(vec![event.clone()], now)).expect("appended");
        }
        if let Some(end) = self.dice.one(&self.settled).cloned() {
            all!(self, store => store.settle(vec![end.clone()], now)).expect("settled");
        }
    }

    async fn act(&mut self) {
        let Some((endpoint, id_of)) = self.dice.one(&self.ids).cloned() else { return };
        self.now += 1;
        let fresh = id(self.now);
        let action =
            [Action::Revive, Action::Drop, Action::Cancel, Action::Skip, Action::Replay(fresh, Signature::Auto)]
                [self.dice.roll(5)];
        let act = Act { endpoint: endpoint.clone(), id: id_of, action };
        let now = at(self.now);
        let acted = all!(self, store => store.act(vec![act.clone()], now)).expect("acted");
        if let (Action::Replay(..), Acted::Done) = (action, acted[0]) {
            self.ids.push((endpoint, fresh));
        }
    }

    fn filter(&mut self) -> Filter {
        let dice = &mut self.dice;
        let mut filter = Filter::default();
        if dice.chance(40) {
            filter.endpoints = vec![name(ENDPOINTS[dice.roll(3)])];
        }
        if dice.chance(40) {
            filter.states = (0..1 + dice.roll(2)).map(|_| State::ALL[dice.roll(5)]).collect();
        }
        if dice.chance(20) {
            filter.from = Some(at(self.now - dice.ms(300)));
        }
        if dice.chance(20) {
            filter.until = Some(at(self.now - dice.ms(300)));
        }
        if dice.chance(20) {
            filter.sender_id = Some(KEYS[dice.roll(4)].into());
        }
        if dice.chance(20) {
            filter.statuses = vec![StatusRange(400, 599)];
        }
        if dice.chance(20) {
            let texts = [
                "two",
                "n=1",
                "zzz",
                "-two",
                "took:>3ms",
                "is:resigned",
                "answer:hm",
                "agent:a header:x",
                "is:dead,waiting",
            ];
            filter.query = Query::parse(texts[dice.roll(texts.len())], at(0)).0;
        }
        if dice.chance(10) {
            filter.query = Query::parse("is:conflict", at(0)).0;
        }
        filter
    }

    async fn list(&mut self) {
        let filter = self.filter();
        let oldest_first = self.dice.chance(50);
        let limit = 1 + self.dice.roll(30);
        let mut after = None;
        for _ in 0..4 {
            let request = PageRequest { limit, after, oldest_first };
            let page = all!(self, store => async {
                // How many rows were looked at is for each store to say.
                store.list(filter.clone(), request.clone()).await.map(|page| (page.events, page.next))
            });
            after = page.expect("a page").1;
            if after.is_none() {
                break;
            }
        }
    }

    async fn bulk(&mut self) {
        self.now += 1;
        let (bulk, now) = (id(self.now), at(self.now));
        let action = BulkAction::ALL[self.dice.roll(BulkAction::ALL.len())];
        let filter = self.filter();
        all!(self, store => store.bulk(BulkPlan::new(bulk, action, filter.clone()), now)).expect("noted");
        self.bulks.push(bulk);
    }

    async fn bulk_step(&mut self) {
        let Some(bulk) = self.dice.one(&self.bulks).copied() else { return };
        let count = self.dice.ms(6);
        let fresh: Vec<_> = (1..=count).map(|n| id(self.now + n)).collect();
        self.now += count;
        let now = at(self.now);
        let state = all!(self, store => store.bulk_step(bulk, fresh.clone(), now)).expect("a step");
        if state.finished {
            self.bulks.retain(|one| *one != bulk);
        }
    }

    async fn purge(&mut self) {
        let retention = Duration::from_millis(200 + self.dice.roll(2000) as u64);
        let pending_retention = Duration::from_millis(200 + self.dice.roll(2000) as u64);
        let now = at(self.now);
        let policy = |cursor| Purge { retention, pending_retention, max_bytes: u64::MAX, cursor };
        let mut sums = Vec::new();
        // Cursors are each store's own, and so is the number of steps.
        for Bed { store, .. } in &self.beds {
            let (mut cursor, mut sum) = (None, (0, 0));
            for _ in 0..100 {
                let step = store.purge(policy(cursor), now).await.expect("purged");
                sum = (sum.0 + step.removed, sum.1 + step.expired);
                cursor = step.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(cursor, None);
            sums.push(sum);
        }
        assert!(sums.iter().all(|sum| *sum == sums[0]), "removed and expired at {}: {sums:?}", self.now);
        // What was removed may be there again after a crash, until that is committed.
        all!(self, store => store.backlog(Sight::All)).expect("read");
    }

    async fn look(&mut self) {
        all!(self, store => store.backlog(Sight::All)).expect("read");
        let Some((endpoint, id)) = self.dice.one(&self.ids).cloned() else { return };
        all!(self, store => store.event(Sight::All, id, at(0))).expect("read");
        all!(self, store => store.body(endpoint.clone(), id, 1..70_001, at(0))).expect("read");
        all!(self, store => store.bulks()).expect("read");
    }

    async fn pause(&mut self) {
        let endpoint = name(ENDPOINTS[self.dice.roll(3)]);
        let paused = self.dice.chance(30);
        let now = at(self.now);
        all!(self, store => store.pause(endpoint.clone(), paused, now)).expect("paused");
    }

    /// The processes of those that are files are killed, and started again.
    async fn kill(&mut self) {
        let steps = self.dice.roll(4);
        for _ in 0..steps {
            self.change().await;
        }
        for bed in &mut self.beds {
            if let Some(next) = killed(bed) {
                *bed = next;
            }
        }
    }

    async fn step(&mut self) {
        if self.dice.chance(1) {
            self.kill().await;
        }
        self.change().await;
    }

    /// One of those calls after which nothing may be lost.
    async fn change(&mut self) {
        self.now += self.dice.ms(20);
        match self.dice.roll(20) {
            0..=5 => self.append().await,
            6..=8 => self.claim().await,
            9..=12 => self.settle().await,
            13 if self.dice.chance(50) => self.orphans().await,
            13 => self.again().await,
            14 => self.act().await,
            15 => self.list().await,
            16 if self.dice.chance(15) => self.bulk().await,
            16 => self.bulk_step().await,
            17 if self.dice.chance(30) => self.purge().await,
            18 if self.dice.chance(30) => self.pause().await,
            _ => self.look().await,
        }
    }
}

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run again with RELAY_STORE_SEED={} RELAY_STORE_SEEDS=1", self.0);
        }
    }
}

#[tokio::test]
async fn all_stores_say_the_same() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("RELAY_STORE_SEED").unwrap_or(1);
    let seeds = number("RELAY_STORE_SEEDS").unwrap_or(8);
    for seed in first..first + seeds {
        let _seed = PrintSeed(seed);
        let mut run = Run {
            beds: beds(ROOM).collect(),
            dice: Dice(seed),
            now: 0,
            ids: Vec::new(),
            held: Vec::new(),
            appended: Vec::new(),
            settled: Vec::new(),
            bulks: Vec::new(),
        };
        for _ in 0..300 {
            run.step().await;
        }
        run.look().await;
        run.beds.iter().for_each(Bed::assert_counted);
        assert!(run.ids.len() > 50, "the run did something");
    }
}
