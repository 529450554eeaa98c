//! What stands above the sessions: webhooks that are tried until they end, and on the agent's side the
//! attempts that outlive their session.
//!
//! An attempt of a stored webhook carries a fence that rises with every attempt. When its session breaks,
//! the relay waits for the outcome before it tries again, and settles by it only with the newest fence;
//! any other outcome is counted and nothing else.

use relay_proto::{MAX_OUTCOME_BODY_BYTES, OpenError, Outcome, OutcomeState, ResetCode, StreamId, Welcome};

use crate::{
    agenda::{Actor, Agenda, Slot},
    exchange::{Exchange, Over},
    plan::{Answer, Script, Side},
    world::World,
};

/// How long the relay waits for an outcome, and how long the agent keeps one.
const GRACE: u64 = 15_000_000;
const KEPT: u64 = 60_000_000;

/// How long a live webhook waits for an agent.
const PATIENCE: u64 = 20_000_000;

const MAX_ATTEMPTS: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    /// Its session broke. The tunnel that said that the handler is still at work, if one did.
    Lost(Option<usize>),
    Done,
}

pub(crate) struct Webhook {
    script: Option<Script>,
    slot: Slot,
    attempts: u32,
    state: State,
    /// The newest attempt's.
    fence: Option<u64>,
    settled: u32,
}

/// On the agent's side: an attempt whose session broke.
pub(crate) struct Survivor {
    exchange: usize,
    slot: Slot,
    /// Once it has ended: when, and how.
    ended: Option<(u64, OutcomeState)>,
    will: OutcomeState,
}

impl Webhook {
    /// Without a script nothing comes.
    pub(crate) fn new(number: usize, script: Option<Script>, agenda: &mut Agenda) -> Self {
        let slot = agenda.add(Actor::Webhook(number));
        agenda.set(slot, script.map(|script| script.start));
        let state = if script.is_some() { State::Waiting } else { State::Done };
        Self { script, slot, attempts: 0, state, fence: None, settled: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }
}

impl Survivor {
    pub(crate) const fn is_running(&self) -> bool {
        self.ended.is_none()
    }
}

impl World<'_> {
    /// The relay opens an exchange for a webhook, if there is an agent.
    pub(crate) fn try_webhook(&mut self, number: usize) {
        let webhook = &mut self.webhooks[number];
        let Some(script) = webhook.script else { return };
        if matches!(webhook.state, State::Running | State::Done) {
            return;
        }
        if webhook.attempts >= MAX_ATTEMPTS || (!script.stored && self.now > script.start + PATIENCE) || self.ending {
            webhook.state = State::Done;
            self.progress = self.now;
            return;
        }
        let Some(tunnel) = self.current() else {
            let wait = self.rng.range(100_000, 1_000_000);
            return self.agenda.set(self.webhooks[number].slot, Some(self.now + wait));
        };
        let webhook = &self.webhooks[number];
        let (attempt, fence) = (webhook.attempts + 1, script.stored.then_some(self.fence + 1));
        let head = Exchange::request(&script, number, attempt, fence);
        match self.tunnels[tunnel].ends[Side::Relay as usize].session.open(head) {
            Ok(id) => self.opened(number, tunnel, id),
            Err(OpenError::Busy) => {
                let wait = self.rng.range(2_000, 60_000);
                self.agenda.set(self.webhooks[number].slot, Some(self.now + wait));
            }
            Err(error) => panic!("an open session opens nothing: {error}"),
        }
    }

    fn opened(&mut self, number: usize, tunnel: usize, id: StreamId) {
        let webhook = &mut self.webhooks[number];
        let script = webhook.script.expect("it was tried");
        webhook.attempts += 1;
        webhook.state = State::Running;
        if script.stored {
            self.fence += 1;
            webhook.fence = Some(self.fence);
        }
        let mut exchange = Exchange::new(number, webhook.attempts, script, tunnel, id, self.now, self.honest);
        exchange.fence = webhook.fence;
        exchange.halves[Side::Relay as usize].head_given = true;
        let exchange = self.add(exchange);
        self.know(tunnel, Side::Relay, id, exchange);
        self.seen.exchanges += 1;
        self.act(exchange, Side::Relay);
    }

    fn add(&mut self, exchange: Exchange) -> usize {
        let number = self.exchanges.len();
        self.exchanges.push(exchange);
        self.users.push(Side::BOTH.map(|side| self.agenda.add(Actor::Exchange(number, side))));
        number
    }

    /// A hostile peer invented a request: the agent's side serves it like any other.
    pub(crate) fn invented(&mut self, tunnel: usize, id: StreamId) -> usize {
        let script = self.plan.scripts.iter().flatten().next().copied().expect("some exchange is planned");
        let mut exchange = Exchange::new(0, 99, script, tunnel, id, self.now, false);
        exchange.over[Side::Relay as usize] = Over::Reset;
        exchange.wild = true;
        self.add(exchange)
    }

    /// An exchange has come to its end on one side.
    pub(crate) fn exchange_over(&mut self, number: usize, side: Side) {
        self.progress = self.now;
        let exchange = &self.exchanges[number];
        let over = exchange.over[side as usize];
        if side == Side::Agent || exchange.wild {
            return;
        }
        match over {
            Over::Whole => self.seen.whole += 1,
            Over::Reset => self.seen.resets += 1,
            Over::Closed => self.seen.broken_off += 1,
            Over::No => {}
        }
        self.seen.upgrades += u64::from(exchange.upgraded && over == Over::Whole);
        self.seen.early += u64::from(over == Over::Whole && !exchange.halves[0].finished);
        let succeeded = over == Over::Whole && exchange.script.status < 300;
        let (webhook, stored) = (exchange.webhook, exchange.script.stored);
        if stored && over == Over::Closed {
            self.webhooks[webhook].state = State::Lost(None);
            self.agenda.set(self.webhooks[webhook].slot, Some(self.now + GRACE));
        } else if stored && !succeeded {
            self.try_again(webhook);
        } else {
            self.settle_webhook(webhook);
        }
    }

    fn settle_webhook(&mut self, number: usize) {
        let webhook = &mut self.webhooks[number];
        webhook.settled += 1;
        assert_eq!(webhook.settled, 1, "webhook {number} is settled twice");
        webhook.state = State::Done;
        self.agenda.set(webhook.slot, None);
    }

    fn try_again(&mut self, number: usize) {
        let wait = self.rng.range(1_000, 500_000);
        self.webhooks[number].state = State::Waiting;
        self.agenda.set(self.webhooks[number].slot, Some(self.now + wait));
    }

    /// The relay hears of an attempt that an earlier session carried.
    pub(crate) fn take_outcome(&mut self, tunnel: usize, outcome: Outcome) {
        let attempt = self.exchanges.iter().position(|exchange| {
            exchange.fence == Some(outcome.fence)
                && (exchange.attempt, Exchange::event_id(exchange.webhook, exchange.attempt))
                    == (outcome.attempt, outcome.event_id)
        });
        let Some(number) = attempt else {
            assert!(!self.honest, "an outcome of no attempt: {outcome:?}");
            return;
        };
        if self.honest {
            self.check_outcome(number, &outcome.state);
        }
        self.tunnels[tunnel].heard.insert(number, outcome.state.clone());
        let webhook = self.exchanges[number].webhook;
        let State::Lost(_) = self.webhooks[webhook].state else {
            self.seen.stale_outcomes += 1;
            return;
        };
        if self.webhooks[webhook].fence != Some(outcome.fence) {
            self.seen.stale_outcomes += 1;
            return;
        }
        match outcome.state {
            OutcomeState::Running => {
                self.webhooks[webhook].state = State::Lost(Some(tunnel));
                self.agenda.set(self.webhooks[webhook].slot, None);
            }
            OutcomeState::Finished { head, .. } if head.status < 300 => {
                self.seen.settled_by_outcome += 1;
                self.settle_webhook(webhook);
            }
            OutcomeState::Finished { .. } | OutcomeState::Failed(_) => self.try_again(webhook),
        }
    }

    fn check_outcome(&self, number: usize, state: &OutcomeState) {
        let exchange = &self.exchanges[number];
        if let OutcomeState::Finished { head, body, truncated } = state {
            let whole = exchange.response_body();
            assert_eq!(*head, exchange.response_head());
            assert!(whole.starts_with(body), "an outcome with foreign bytes");
            assert_eq!(*truncated, body.len() < whole.len(), "an outcome's body is cut and does not say so");
            assert!(*truncated || body.len() <= MAX_OUTCOME_BODY_BYTES);
        }
    }

    /// The session that spoke of running handlers is gone: the wait begins anew.
    pub(crate) fn reporter_lost(&mut self, tunnel: usize) {
        for webhook in &mut self.webhooks {
            if webhook.state == State::Lost(Some(tunnel)) {
                webhook.state = State::Lost(None);
                self.agenda.set(webhook.slot, Some(self.now + GRACE));
            }
        }
    }

    /// The agent's session broke: an attempt with a fence goes on, or is remembered as it ended.
    pub(crate) fn outlive(&mut self, number: usize) {
        let exchange = &self.exchanges[number];
        if exchange.fence.is_none() || exchange.wild {
            return;
        }
        let whole_request = exchange.halves[Side::Relay as usize].ended;
        let finished = || {
            let whole = exchange.response_body();
            let body = whole.slice(..whole.len().min(MAX_OUTCOME_BODY_BYTES));
            OutcomeState::Finished { head: exchange.response_head(), truncated: body.len() < whole.len(), body }
        };
        let (running, will) = match exchange.over[Side::Agent as usize] {
            Over::Whole => (false, finished()),
            Over::Reset => match exchange.reset_by[Side::Agent as usize] {
                Some(code) => (false, OutcomeState::Failed(code)),
                None => return, // The relay gave it up.
            },
            _ if !whole_request => (false, OutcomeState::Failed(ResetCode::Broken)),
            _ if exchange.script.answer == Answer::Never => (true, OutcomeState::Failed(ResetCode::Timeout)),
            _ => (true, finished()),
        };
        let think = exchange.script.think.max(1000);
        let slot = self.agenda.add(Actor::Handler(self.survivors.len()));
        let ended = (!running).then(|| (self.now, will.clone()));
        self.agenda.set(slot, running.then_some(self.now + think));
        self.survivors.push(Survivor { exchange: number, slot, ended, will });
    }

    pub(crate) fn handler_ended(&mut self, survivor: usize) {
        let survivor = &mut self.survivors[survivor];
        self.agenda.set(survivor.slot, None);
        survivor.ended = Some((self.now, survivor.will.clone()));
        self.progress = self.now;
        let (exchange, state) = (survivor.exchange, survivor.will.clone());
        let newest = self.tunnels.len() - 1;
        if self.tunnels[newest].ends[Side::Agent as usize].session.is_open() {
            self.report(newest, exchange, state);
            self.settle(newest, Side::Agent);
        }
    }

    /// The agent's session is open: the relay hears what became of earlier attempts.
    pub(crate) fn welcomed(&mut self, tunnel: usize, welcome: &Welcome) {
        let epoch = self.tunnels[tunnel].ends[Side::Agent as usize].session.epoch();
        assert_eq!(epoch, welcome.epoch);
        self.failures = 0;
        for number in 0..self.survivors.len() {
            let survivor = &self.survivors[number];
            let state = match &survivor.ended {
                None => {
                    // Some end just now, before the socket has taken what was said of them.
                    if self.rng.percent(30) {
                        self.agenda.by(survivor.slot, self.now);
                    }
                    OutcomeState::Running
                }
                Some((at, state)) if self.now < at + KEPT => state.clone(),
                Some(_) => continue,
            };
            let exchange = survivor.exchange;
            self.report(tunnel, exchange, state);
        }
    }

    fn report(&mut self, tunnel: usize, number: usize, state: OutcomeState) {
        let exchange = &self.exchanges[number];
        let outcome = Outcome {
            event_id: Exchange::event_id(exchange.webhook, exchange.attempt),
            attempt: exchange.attempt,
            fence: exchange.fence.expect("only attempts with a fence outlive their session"),
            state: state.clone(),
        };
        let tunnel = &mut self.tunnels[tunnel];
        let session = &mut tunnel.ends[Side::Agent as usize].session;
        if session.report(outcome) {
            tunnel.reported.insert(number, state);
        } else {
            assert!(!session.is_open(), "an open session takes no outcome");
        }
    }
}
