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
    request::{Called, Counted, Prepared, Unfit, prepare},
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
pub(crate) async fn serve(request: relay_tunnel::Request, serving: Option<Arc<Endpoint>>, watchers: Watchers) {
    let mut exchange = Exchange::new(&request.head);
    let Some((called, responder)) = exchange.prepare(request, serving.as_deref(), &watchers) else {
        return exchange.report(&watchers.reporter);
    };
    let copy = exchange.attempt.map(|attempt| Copy::new(attempt, &watchers.outcomes));
    let reply = Reply { tunnel: Some(responder), copy };
    let outcome = call(called, reply, &mut exchange.traffic).await;
    (exchange.line.outcome, exchange.line.note) = match outcome {
        Ok(status) => (Outcome::Status(status), None),
        Err((code, note)) => (Outcome::Failed(code.to_owned()), note),
    };
    exchange.report(&watchers.reporter);
}

/// What is known of an exchange, from the request's arrival to the report.
struct Exchange {
    started: Instant,
    attempt: Option<Attempt>,
    line: Line,
    traffic: Traffic,
}

impl Exchange {
    fn new(head: &RequestHead) -> Self {
        let started = Instant::now();
        Self { started, attempt: Attempt::of(head), line: first_line(head), traffic: Traffic::default() }
    }

    /// The request to the handler. Where none can be made, the exchange is over.
    fn prepare<'a>(
        &mut self,
        request: relay_tunnel::Request,
        serving: Option<&'a Endpoint>,
        watchers: &Watchers,
    ) -> Option<(Called<'a>, Responder)> {
        let relay_tunnel::Request { head, body, responder } = request;
        let prepared = match serving {
            Some(serving) => prepare(&head, body, serving, &self.traffic.from_sender),
            None => Err(Unfit { reset: ResetCode::NotCalled, failed: ("endpoint_not_offered", None) }),
        };
        let unfit = match (prepared, self.attempt) {
            (Ok(_), Some(attempt)) if !watchers.outcomes.may_call(attempt) => {
                Unfit { reset: ResetCode::NotCalled, failed: ("older_attempt", None) }
            }
            (Ok(prepared), _) => return Some((self.called(prepared, &head, watchers), responder)),
            (Err(unfit), _) => unfit,
        };
        responder.reset(unfit.reset);
        let (code, note) = unfit.failed;
        self.line.path = String::from_utf8_lossy(&head.target).into_owned();
        self.line.replay_of = shown_id(head.headers.all(names::REPLAY_OF).next());
        (self.line.outcome, self.line.note) = (Outcome::Unmade(code.to_owned()), note);
        None
    }

    /// Takes note of a request that is about to be sent.
    fn called<'a>(&mut self, mut prepared: Prepared<'a>, head: &RequestHead, watchers: &Watchers) -> Called<'a> {
        self.line.path = std::mem::take(&mut prepared.path);
        self.line.replay_of = shown_id(prepared.replay_of.take().as_deref());
        let tap = watchers.tap.as_ref().map(Arc::clone);
        self.traffic.recording = tap.map(|tap| Box::new(prepared.record(tap, self.started, head.attempt)));
        self.traffic.sent = match &self.traffic.recording {
            Some(recording) => Some(recording.request.clone()),
            None => head.asks_sha256.then(|| prepared.summed()),
        };
        prepared.called
    }

    fn report(mut self, reporter: &Reporter) {
        let line = &mut self.line;
        if let Some((end, _)) = line.path.char_indices().nth(MAX_PATH_CHARS) {
            line.path.truncate(end);
            line.path.push('…');
        }
        line.duration = self.started.elapsed();
        line.bytes_in = self.traffic.from_sender.load(Ordering::Relaxed);
        line.bytes_out = self.traffic.from_handler;
        if let Some(recording) = self.traffic.recording {
            recording.finish(line.clone());
        }
        reporter.exchange(self.line);
    }
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
    Called { handler, request, raw }: Called<'_>,
    mut reply: Reply<'_, Responder>,
    traffic: &mut Traffic,
) -> Result<u16, Failed> {
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
    traffic.handler_us = u32::try_from(call.took().as_micros()).ok();
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
