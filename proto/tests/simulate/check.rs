//! What must hold of a session after every step, at rest, and after its end.

use core::mem::discriminant;

use relay_proto::limits::{MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES};

use crate::{exchange::Over, plan::Side, world::World};

impl World<'_> {
    /// After every call on a session.
    pub(crate) fn check(&self, tunnel: usize, side: Side) {
        let session = &self.tunnels[tunnel].ends[side as usize].session;
        let limits = self.limits(side);
        let (mut held, mut borrowed) = (0, 0);
        for (_, credit) in session.credit() {
            held += 1;
            borrowed += credit.borrowed_bytes;
        }
        let pool = session.free_pool_bytes();
        assert_eq!(pool + borrowed, limits.window_pool_bytes, "{pool} bytes of the pool are free, {borrowed} lent");
        assert!(session.open_streams() as usize <= held);
        assert!(session.open_streams() <= limits.max_streams, "{} streams are open", session.open_streams());
        assert!(side == Side::Agent || held <= limits.max_streams as usize, "{held} streams are held");
        let stream = limits.initial_window_bytes as usize + limits.send_buffer_bytes + MAX_CHUNK_BYTES;
        let outcomes = self.tunnels[tunnel].reported.len() * MAX_CHUNK_BYTES;
        let most = held * stream + limits.window_pool_bytes as usize + MAX_MESSAGE_BYTES + outcomes;
        assert!(session.buffered_bytes() <= most, "{} bytes are held, {most} are allowed", session.buffered_bytes());
        if self.honest && self.trace.steps.is_multiple_of(8) {
            self.check_credit(tunnel, side);
        }
    }

    /// Both ends agree on what is unread, and on what may be sent once nothing is on its way.
    fn check_credit(&self, tunnel: usize, side: Side) {
        let tunnel = &self.tunnels[tunnel];
        let at_rest = tunnel.is_open()
            && tunnel.pipes.iter().all(|pipe| pipe.is_empty())
            && tunnel.ends.iter().all(|end| !self.agenda.is_set(end.flush));
        let peer = &tunnel.ends[side.other() as usize].session;
        for (id, credit) in tunnel.ends[side as usize].session.credit() {
            let Some(number) = tunnel.ends[side as usize].exchange(id) else { continue };
            let exchange = &self.exchanges[number];
            if matches!(exchange.over[side as usize], Over::No | Over::Whole) {
                let unread = exchange.halves[side.other() as usize].unread;
                assert_eq!(credit.unread_bytes, unread, "bytes of {id:?} that nobody consumed");
            }
            // Credit for a stream that has ended is dropped.
            if at_rest
                && exchange.over == [Over::No; 2]
                && let Some((_, other)) = peer.credit().find(|(other, _)| *other == id)
            {
                assert_eq!(credit.send_bytes, other.granted_bytes, "the ends of {id:?} disagree on its credit");
            }
        }
    }

    /// Nothing is in flight on an open session.
    pub(crate) fn check_quiet(&mut self, tunnel: usize, side: Side) {
        let tunnel = &mut self.tunnels[tunnel];
        let limits = &self.plan.limits[side as usize];
        let session = &mut tunnel.ends[side as usize].session;
        assert_eq!(session.open_streams(), 0, "streams are left open");
        assert_eq!(session.credit().count(), 0, "streams are held");
        assert_eq!(session.buffered_bytes(), 0, "bytes are held");
        assert_eq!(session.free_pool_bytes(), limits.window_pool_bytes);
        assert!(session.poll_timeout().is_some(), "the heartbeat has no timer");
        assert!(!session.poll_transmit(&mut bytes::BytesMut::new()), "a message is owed");
        assert_eq!(session.poll_event(), None);
        let [relay, agent] = &tunnel.ends;
        assert_eq!(relay.states, agent.states, "the newest states of the endpoints");
        for (number, reported) in &tunnel.reported {
            let heard = tunnel.heard.get(number).map(discriminant);
            assert_eq!(heard, Some(discriminant(reported)), "the newest outcome of exchange {number}");
        }
    }

    /// Every session has closed.
    pub(crate) fn check_end(&mut self) {
        for tunnel in &mut self.tunnels {
            for (side, end) in Side::BOTH.into_iter().zip(&mut tunnel.ends) {
                let session = &mut end.session;
                assert!(end.closed && session.is_closed() && session.poll_timeout().is_none());
                assert!(!session.poll_transmit(&mut bytes::BytesMut::new()), "a closed session sends");
                assert_eq!((session.open_streams(), session.credit().count()), (0, 0));
                assert_eq!(session.free_pool_bytes(), self.plan.limits[side as usize].window_pool_bytes);
                assert!(session.poll_event().is_none());
            }
        }
        for (number, exchange) in self.exchanges.iter().enumerate() {
            let agent = exchange.is_over(Side::Agent) || !exchange.halves[Side::Relay as usize].head_seen;
            assert!(exchange.is_over(Side::Relay) && agent, "exchange {number} has no end: {exchange:?}");
        }
    }
}
