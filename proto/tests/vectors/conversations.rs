//! Short conversations of two sessions: each message in its direction, and what it is to its receiver.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::{
    describe,
    frames::{accepted, hello, refused, request, response, welcome},
    hex,
};
use crate::{
    control::{CloseCode, Notice, OfferState},
    fields::HeaderBlock,
    limits::Limits,
    message::{RequestHead, ResetCode, ResponseHead},
    outcome::{Outcome, OutcomeState},
    session::Session,
    stream::StreamId,
    time::Instant,
};

/// Two sessions; each `say` carries what is owed and notes it.
struct Talk {
    now: Instant,
    relay: Session,
    agent: Session,
    steps: Vec<Value>,
    requests: Vec<StreamId>,
}

impl Talk {
    fn new(relay: Limits, agent: Limits) -> Self {
        let now = Instant::from_micros(0);
        let (relay, agent) = (Session::relay(relay, now), Session::agent(hello(), agent, now));
        Self { now, relay, agent, steps: Vec::new(), requests: Vec::new() }
    }

    /// Opened as most sessions are.
    fn open(relay: Limits, agent: Limits) -> Self {
        let mut talk = Self::new(relay, agent);
        talk.say("the agent introduces itself");
        talk.relay.welcome(welcome(vec![accepted()], Vec::new()));
        talk.say("the relay opens the session");
        talk
    }

    /// Carries every message that is owed, first the relay's.
    fn say(&mut self, about: &str) {
        let mut message = BytesMut::new();
        loop {
            let from_relay = self.relay.poll_transmit(&mut message);
            if !from_relay && !self.agent.poll_transmit(&mut message) {
                return;
            }
            let bytes = message.split().freeze();
            let (from, receiver) = if from_relay { ("relay", &mut self.agent) } else { ("agent", &mut self.relay) };
            receiver.handle_bytes(self.now, bytes.clone());
            let events: Vec<Value> =
                std::iter::from_fn(|| receiver.poll_event()).map(|event| describe::of_event(&event)).collect();
            self.steps.push(json!({ "about": about, "from": from, "hex": hex(&bytes), "events": events }));
        }
    }

    fn ask(&mut self, head: RequestHead, body: &'static [u8]) -> StreamId {
        let id = self.relay.open(head).expect("opens");
        self.relay.send(id, Bytes::from_static(body)).expect("sends");
        self.relay.finish(id, HeaderBlock::new()).expect("finishes");
        self.requests.push(id);
        id
    }

    fn done(self, name: &str) -> Value {
        json!({ "name": name, "steps": self.steps })
    }
}

pub(super) fn all() -> Value {
    let conversations = [
        webhook(),
        large_body(),
        early_answer(),
        unreachable(),
        cancelled(),
        upgrade(),
        outcomes(),
        heartbeat(),
        drains(),
        notices(),
        nothing_accepted(),
    ];
    json!({ "about": "README.md says how to read it", "conversations": conversations })
}

fn webhook() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    let id = talk.ask(request(), b"{\"zen\":1}");
    talk.say("a webhook, whole");
    talk.agent.consume(id, 9);
    talk.agent.respond(id, response(200)).expect("responds");
    talk.agent.send(id, Bytes::from_static(b"ok")).expect("sends");
    talk.agent.finish(id, HeaderBlock::new()).expect("finishes");
    talk.say("the handler's answer, whole");
    talk.agent.close(CloseCode::Normal, "done");
    talk.say("the agent leaves");
    talk.done("a webhook and its answer")
}

fn large_body() -> Value {
    let small = |base: Limits| Limits { initial_window_bytes: 8, window_pool_bytes: 0, ..base };
    let mut talk = Talk::open(small(Limits::relay()), small(Limits::agent()));
    let id = talk.relay.open(request()).expect("opens");
    talk.relay.send(id, Bytes::from_static(b"0123456789abcdefghij")).expect("sends");
    talk.relay.finish(id, [("x-sum", "1")].into_iter().collect()).expect("finishes");
    talk.say("the head, and of the body what the agent's initial window of 8 bytes allows");
    for about in ["the agent has read 8 bytes and lets 8 more come", "and again: the rest, and trailers"] {
        talk.agent.consume(id, 8);
        talk.say(about);
    }
    talk.agent.consume(id, 4);
    talk.agent.respond(id, response(204)).expect("responds");
    talk.agent.finish(id, HeaderBlock::new()).expect("finishes");
    talk.say("an answer without a body");
    talk.done("a body larger than the window, with trailers")
}

fn early_answer() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    let id = talk.relay.open(request()).expect("opens");
    talk.relay.send(id, Bytes::from_static(b"first part")).expect("sends");
    talk.say("a request whose body has not ended");
    talk.agent.respond(id, response(413)).expect("responds");
    talk.agent.finish(id, HeaderBlock::new()).expect("finishes");
    talk.say("the answer is whole before the request is; the relay stops the request without an error");
    talk.done("an answer before the request's end")
}

fn unreachable() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    let id = talk.ask(request(), b"x");
    talk.say("a webhook");
    talk.agent.reset(id, ResetCode::Unreachable);
    talk.say("the handler cannot be reached");
    talk.done("a handler that is not there")
}

fn cancelled() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    let id = talk.ask(request(), b"x");
    talk.say("a webhook");
    talk.relay.reset(id, ResetCode::Cancelled);
    talk.say("the sender has gone; the agent ends its call and sends nothing more");
    talk.done("a sender that goes away")
}

fn upgrade() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    let head =
        RequestHead { method: "GET".into(), headers: HeaderBlock::new(), upgrade: "websocket".into(), ..request() };
    let id = talk.relay.open(head).expect("opens");
    talk.say("a request for an upgrade");
    let agreed = ResponseHead::new(101, [("upgrade", "websocket")].into_iter().collect());
    talk.agent.respond(id, agreed).expect("responds");
    talk.agent.send(id, Bytes::from_static(b"server")).expect("sends");
    talk.agent.finish(id, HeaderBlock::new()).expect("half-closes");
    talk.say("the handler agrees, speaks, and half-closes");
    talk.relay.send(id, Bytes::from_static(b"client")).expect("the other half is open");
    talk.relay.finish(id, HeaderBlock::new()).expect("half-closes");
    talk.say("the other half goes on until its own end");
    talk.done("an upgrade")
}

fn outcomes() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    let outcome = |state| Outcome { event_id: [0x22; 16], attempt: 1, fence: 7, state };
    talk.agent.report(outcome(OutcomeState::Running));
    talk.say("an attempt of an earlier session still runs");
    let finished = OutcomeState::Finished { head: response(200), body: "ok".into(), truncated: false };
    talk.agent.report(outcome(finished));
    talk.say("and now it has ended");
    talk.done("outcomes of attempts that outlived their session")
}

fn heartbeat() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    talk.now = talk.now.after(Duration::from_secs(5));
    talk.relay.handle_timeout(talk.now);
    talk.say("after 5 s of silence the relay pings");
    talk.relay.probe();
    talk.say("the relay wants a sign of life at once");
    talk.done("pings")
}

fn drains() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    let id = talk.ask(request(), b"x");
    talk.say("a webhook");
    talk.relay.drain();
    talk.say("the relay is going to stop; the agent connects anew and finishes this here");
    talk.agent.respond(id, response(200)).expect("responds");
    talk.agent.finish(id, HeaderBlock::new()).expect("finishes");
    talk.say("the last answer");
    talk.relay.close(CloseCode::GoingAway, "the relay is stopping");
    talk.say("nothing is in flight any more");
    talk.done("a relay that stops")
}

fn notices() -> Value {
    let mut talk = Talk::open(Limits::relay(), Limits::agent());
    talk.relay.notify(Notice::Changed { endpoint: "github".into(), state: OfferState::Standby });
    talk.relay.notify(Notice::Text("the relay restarts at noon".into()));
    talk.say("another agent took over, and a line for people");
    talk.relay.close(CloseCode::Replaced, "a newer session of this agent took over");
    talk.say("a newer session took over");
    talk.done("notices, and a session that is replaced")
}

fn nothing_accepted() -> Value {
    let mut talk = Talk::new(Limits::relay(), Limits::agent());
    talk.say("the agent introduces itself");
    talk.relay.welcome(welcome(vec![refused("github", "not_allowed")], vec!["stripe".into(), "slack".into()]));
    talk.say("the welcome says why, and what the token allows");
    talk.relay.close(CloseCode::Refused, "none of the offered endpoints was accepted");
    talk.say("the close follows");
    talk.done("no offer is accepted")
}
