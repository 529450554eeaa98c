//! What each event of a session does to the model and to the users.

use relay_proto::{CloseCode, Event, Notice, RequestHead, StreamId};

use crate::{
    agenda::Actor,
    exchange::{Exchange, Over},
    plan::Side,
    tunnel::Tunnel,
    world::World,
};

impl World<'_> {
    pub(crate) fn drain_events(&mut self, tunnel: usize, side: Side) {
        while let Some(event) = self.tunnels[tunnel].ends[side as usize].session.poll_event() {
            assert!(!self.tunnels[tunnel].ends[side as usize].closed, "an event after the last: {event:?}");
            self.take_event(tunnel, side, event);
        }
    }

    fn take_event(&mut self, tunnel: usize, side: Side, event: Event) {
        if !matches!(event, Event::Answered | Event::Notice(_)) {
            self.progress = self.now;
        }
        match event {
            Event::Hello(_) => {
                let slot = self.agenda.add(Actor::Welcome(tunnel));
                self.agenda.set(slot, Some(self.now + self.plan.flush));
            }
            Event::Welcome(welcome) => self.welcomed(tunnel, &welcome),
            Event::Request { id, head } => self.take_request(tunnel, id, &head),
            Event::Response { id, head } => {
                let (now, honest) = (self.now, self.honest);
                let (number, exchange) = self.find(tunnel, side, id);
                exchange.see_head(side, now);
                exchange.upgraded |= head.status == 101;
                assert!(!honest || head == exchange.response_head(), "another response's head");
                self.trace.step(now, tunnel, side, number as u64, format_args!("{number}: response {}", head.status));
                self.wake(number, side);
            }
            Event::Data { id, bytes } => {
                let (number, exchange) = self.find(tunnel, side, id);
                exchange.see_data(side, &bytes);
                self.trace.step(self.now, tunnel, side, number as u64, format_args!("{number}: {} bytes", bytes.len()));
                self.trace.bytes(&bytes);
                self.wake(number, side);
            }
            Event::End { id, trailers } => {
                let (number, exchange) = self.find(tunnel, side, id);
                exchange.see_end(side, &trailers);
                self.trace.step(self.now, tunnel, side, number as u64, format_args!("{number}: end"));
                self.after_event(number, side);
            }
            Event::Reset { id, code } => {
                let (number, exchange) = self.find(tunnel, side, id);
                let before = exchange.over[side as usize];
                exchange.see_reset(side, code);
                self.trace.step(self.now, tunnel, side, number as u64, format_args!("{number}: reset {code:?}"));
                if before == Over::No {
                    self.after_event(number, side);
                }
            }
            Event::Writable { id } => {
                let (number, exchange) = self.find(tunnel, side, id);
                exchange.see_room(side);
                self.wake(number, side);
            }
            Event::Outcome(outcome) => self.take_outcome(tunnel, outcome),
            Event::Answered => self.take_answer(tunnel, side),
            Event::Notice(notice) => {
                if let Notice::Changed { endpoint, state } = notice {
                    self.seen.states += 1;
                    self.tunnels[tunnel].ends[side as usize].states.insert(endpoint, state);
                }
            }
            Event::Draining => {
                self.seen.drains += 1;
                self.drained(tunnel);
            }
            Event::Closed { close, by_peer } => {
                self.trace.step(
                    self.now,
                    tunnel,
                    side,
                    close.code as u64,
                    format_args!("closed: {close:?}, {by_peer}"),
                );
                self.closed(tunnel, side, close.code, &close.reason);
            }
        }
    }

    fn find(&mut self, tunnel: usize, side: Side, id: StreamId) -> (usize, &mut Exchange) {
        let number = self.tunnels[tunnel].ends[side as usize].exchange(id);
        let number = number.expect("events are for streams that this side knows");
        (number, &mut self.exchanges[number])
    }

    /// Adds an exchange to one side of a tunnel.
    pub(crate) fn know(&mut self, tunnel: usize, side: Side, id: StreamId, number: usize) {
        let ids = &mut self.tunnels[tunnel].ends[side as usize].ids;
        assert!(ids.last().is_none_or(|(last, _)| *last < id), "{id:?} does not rise");
        ids.push((id, number));
    }

    fn take_request(&mut self, tunnel: usize, id: StreamId, head: &RequestHead) {
        self.trace.step(self.now, tunnel, Side::Agent, id.get(), format_args!("request {id:?}"));
        let known = self.tunnels[tunnel].ends[Side::Relay as usize].ids.iter().find(|(known, _)| *known == id);
        let number = match known.map(|(_, number)| *number) {
            Some(number) if self.honest || !self.exchanges[number].halves[Side::Relay as usize].head_seen => number,
            _ => {
                assert!(!self.honest, "a request that nobody made");
                self.invented(tunnel, id)
            }
        };
        self.know(tunnel, Side::Agent, id, number);
        let exchange = &mut self.exchanges[number];
        exchange.see_head(Side::Agent, self.now);
        assert!(!self.honest || *head == exchange.request_head(), "another request's head");
        self.wake(number, Side::Agent);
    }

    fn after_event(&mut self, number: usize, side: Side) {
        if self.exchanges[number].is_over(side) {
            self.exchange_over(number, side);
        }
        self.wake(number, side);
    }

    pub(crate) fn wake(&mut self, number: usize, side: Side) {
        self.agenda.by(self.users[number][side as usize], self.now);
    }

    fn take_answer(&mut self, tunnel: usize, side: Side) {
        self.seen.probes += 1;
        let Tunnel { ends, pipes, .. } = &mut self.tunnels[tunnel];
        let asked = ends[side as usize].probe.take();
        let Some(Some(asked)) = asked else { panic!("an answer before the question: {asked:?}") };
        let heard = pipes[side as usize].delivered_bytes();
        assert!(!self.honest || heard >= asked, "an answer to another question");
    }

    fn closed(&mut self, tunnel: usize, side: Side, code: CloseCode, reason: &str) {
        let known = std::mem::take(&mut self.tunnels[tunnel].ends[side as usize].ids);
        for (_, number) in &known {
            let before = self.exchanges[*number].over[side as usize];
            self.exchanges[*number].see_close(side);
            self.agenda.set(self.users[*number][side as usize], None);
            if side == Side::Agent {
                self.outlive(*number);
            }
            if before == Over::No {
                self.exchange_over(*number, side);
            }
        }
        let end = &mut self.tunnels[tunnel].ends[side as usize];
        (end.closed, end.ids) = (true, known);
        match code {
            CloseCode::ProtocolError => {
                assert!(!self.honest, "an honest peer was refused: {reason}");
                self.seen.refused_peers += 1;
            }
            CloseCode::HeartbeatTimeout => {
                assert!(!self.honest || self.disturbed, "a live peer was taken for dead: {reason}");
                self.seen.dead += 1;
            }
            _ => {}
        }
        let newest = tunnel + 1 == self.tunnels.len();
        if side == Side::Agent && newest && !self.ending {
            let longest = (1_000_000 << self.failures.min(5)).min(30_000_000);
            let backoff = self.rng.below(longest);
            self.failures += 1;
            self.agenda.by(self.connect, self.now + backoff);
        }
        if side == Side::Relay {
            self.reporter_lost(tunnel);
        }
    }
}
