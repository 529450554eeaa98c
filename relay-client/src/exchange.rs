//! One exchange: calls the handler with what came over the tunnel and sends back what it answers.
//!
//! Bodies stream both ways. When one end gives up, the other learns of it: a sender that went away closes
//! the connection to the handler, a handler that broke off resets the stream, never a clean short end.

mod answer;
mod fences;
mod outcomes;
mod request;
#[cfg(test)]
mod tests;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use jiff::Timestamp;
use relay_program::http1::AnswerHead;
use relay_proto::{RequestHead, ResetCode, names};
use relay_tunnel::{Responder, upgrade::Carried};

pub(crate) use self::outcomes::Outcomes;
use self::{
    answer::{Copy, Reply},
    outcomes::Attempt,
    request::{Counted, Prepared, Unfit, prepare},
};
use crate::{
    handler::{Call, CallError},
    report::{Line, Outcome, Reporter, event_name},
    routes::Endpoint,
    tap::{BodyTap, Recording, Tap},
};

/// Longest id of an event that is shown, in bytes.
const MAX_ID_BYTES: usize = 64;

/// Characters of a path that are reported. A relay may send whole heads of them.
const MAX_PATH_CHARS: usize = 2000;

/// Why an exchange did not work: a code, and the error behind it.
type Failed = (&'static str, Option<String>);

/// Bytes of the bodies of one exchange, and what is recorded of it.
#[derive(Default)]
struct Traffic {
    from_sender: Arc<AtomicU64>,
    from_handler: u64,
    /// How long the handler took until its answer began, in microseconds.
    handler_us: Option<u32>,
    recording: Option<Box<Recording>>,
    /// The request's body on its way to the handler, where its checksum is wanted.
    sent: Option<BodyTap>,
}

impl Traffic {
    /// The head of the handler's answer is there.
    fn answered(&mut self, head: &AnswerHead) {
        if let Some(recording) = &mut self.recording {
            recording.answered(&head.headers);
        }
    }

    /// So much of its body came.
    fn record(&self, data: &[u8]) {
        if let Some(recording) = &self.recording {
            recording.answer.add(data);
        }
    }

    /// All of it came.
    fn ended(&self) {
        if let Some(recording) = &self.recording {
            recording.answer.end();
        }
    }
}

/// What exchanges are reported to.
#[derive(Clone)]
pub(crate) struct Watchers {
    pub(crate) reporter: Reporter,
    pub(crate) outcomes: Arc<Outcomes>,
    pub(crate) tap: Option<Arc<Tap>>,
}

/// Answers one request and reports how it went. `serving` is `None` for an endpoint that was not offered.
pub(crate) async fn serve(
    request: relay_tunnel::Request,
    serving: Option<Arc<Endpoint>>,
    Watchers { reporter, outcomes, tap }: Watchers,
) {
    let started = Instant::now();
    let mut line = first_line(&request.head);
    let attempt = Attempt::of(&request.head);
    let mut traffic = Traffic::default();
    let relay_tunnel::Request { head, body, responder } = request;
    let prepared = match &serving {
        Some(serving) => prepare(&head, body, serving, &traffic.from_sender),
        None => Err(Unfit { reset: ResetCode::NotCalled, failed: ("endpoint_not_offered", None) }),
    };
    let prepared = prepared.and_then(|prepared| match attempt {
        Some(attempt) if !outcomes.may_call(attempt) => {
            Err(Unfit { reset: ResetCode::NotCalled, failed: ("older_attempt", None) })
        }
        _ => Ok(prepared),
    });
    match prepared {
        Ok(mut prepared) => {
            line.path = std::mem::take(&mut prepared.path);
            line.replay_of = shown_id(prepared.replay_of.take().as_deref());
            traffic.recording = tap.map(|tap| Box::new(prepared.record(tap, started, head.attempt)));
            traffic.sent = match &traffic.recording {
                Some(recording) => Some(recording.request.clone()),
                None => head.asks_sha256.then(|| prepared.summed()),
            };
            drop(head); // The handler may take its time, and nothing of this is wanted any more.
            let copy = attempt.map(|attempt| Copy::new(attempt, &outcomes));
            let reply = Reply { tunnel: Some(responder), copy };
            (line.outcome, line.note) = match call(prepared, reply, &mut traffic).await {
                Ok(status) => (Outcome::Status(status), None),
                Err((code, note)) => (Outcome::Failed(code.to_owned()), note),
            };
        }
        Err(Unfit { reset, failed: (code, note) }) => {
            responder.reset(reset);
            line.path = String::from_utf8_lossy(&head.target).into_owned();
            line.replay_of = shown_id(head.headers.all(names::REPLAY_OF).next());
            (line.outcome, line.note) = (Outcome::Unmade(code.to_owned()), note);
        }
    }
    if let Some((end, _)) = line.path.char_indices().nth(MAX_PATH_CHARS) {
        line.path.truncate(end);
        line.path.push('…');
    }
    line.duration = started.elapsed();
    line.bytes_in = traffic.from_sender.load(Ordering::Relaxed);
    line.bytes_out = traffic.from_handler;
    if let Some(recording) = traffic.recording {
        recording.finish(line.clone());
    }
    reporter.exchange(line);
}

/// What can be said of an exchange when it begins.
fn first_line(head: &RequestHead) -> Line {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Line {
        time: Timestamp::now(),
        method: text(&head.method),
        path: String::new(),
        outcome: Outcome::Unmade(String::new()),
        duration: Duration::ZERO,
        bytes_in: 0,
        bytes_out: 0,
        endpoint: text(&head.endpoint),
        event_id: Some(event_name(head.event_id)),
        replay_of: None,
        note: None,
    }
}

fn shown_id(id: Option<&[u8]>) -> Option<String> {
    id.filter(|id| id.len() <= MAX_ID_BYTES).map(|id| String::from_utf8_lossy(id).into_owned())
}

/// Calls the handler and passes its answer on.
async fn call(
    Prepared { handler, request, raw, .. }: Prepared<'_>,
    mut reply: Reply<'_, Responder>,
    traffic: &mut Traffic,
) -> Result<u16, Failed> {
    let began = Instant::now();
    let mut called: Option<Call<Counted>> = None; // Where the call stays: it is long to copy.
    let answered = {
        let place = &mut called;
        let answer = pin!(async move {
            let call = place.insert(handler.begin(handler.lease().await?, request));
            Ok::<_, CallError>((call.head().await?, call))
        });
        reply.wait_for(answer).await?
    };
    let (head, call) = match answered {
        Ok(answered) => answered,
        Err(error) => return Err(reply.fail_with(&error, Responder::reset)),
    };
    traffic.handler_us = u32::try_from(began.elapsed().as_micros()).ok();
    traffic.answered(&head);
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return answer::pass_on(head, call, reply, traffic).await;
    }
    match (raw, reply) {
        (Some((raw, asked)), Reply { tunnel: Some(responder), .. }) if answer::switches_to(&head, &asked) => {
            let mut carried = Carried::default();
            let outcome = Box::pin(answer::upgrade(head, call, responder, raw, &mut carried)).await;
            traffic.from_sender.fetch_add(carried.out_of_tunnel, Ordering::Relaxed);
            traffic.from_handler += carried.into_tunnel;
            outcome
        }
        (_, reply) => {
            reply.fail(ResetCode::Broken, Responder::reset);
            Err(("upgrade_unasked", None))
        }
    }
}
