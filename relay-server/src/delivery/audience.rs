//! Who takes the answer to an attempt: the record, and a sender that waits with its repeats.
//!
//! A sender waits until its deadline, and has its ack from then on. An end that is passed on only once it is kept binds
//! the sender first: either the sender takes that and never gets an ack, or it has its ack, and the rule for senders with
//! an ack decides what becomes of the event. There is nothing between. Repeats of the event are bound with it; their
//! deadlines are later, so none of them has an ack before the sender has one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, response::Parts};
use http_body_util::BodyExt as _;
use relay_proto::ResetCode;
use relay_tunnel::{Broken, http::one_length};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

use super::{Piece, SenderAnswer, SenderReply, attempt::Event};
use crate::{
    deliver::{Audience, HandlerAnswer, Undelivered, settle_trailers},
    failure::RelayFault,
    retry::Judgement,
    store::{self, MAX_ANSWER_BYTES},
};

/// Pieces of a long answer that wait for its sender.
const MAX_PIECES: usize = 8;

/// How long a sender may take for a piece of a long answer before the answer goes on without it.
const PIECE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a bound sender waits at least, and so how far beyond its deadline at most. A commit takes milliseconds.
pub(super) const COMMIT_PATIENCE: Duration = Duration::from_secs(1);

/// A sender that waits, as its attempt sees it.
pub(super) struct WaitingSender {
    sender: oneshot::Sender<oneshot::Receiver<SenderReply>>,
    repeats: watch::Sender<RepeatReply>,
}

/// A sender that waits, as it sees itself.
pub(super) struct AwaitedReply(oneshot::Receiver<oneshot::Receiver<SenderReply>>);

/// A reply that its sender waits for instead of the ack. Dropped, it is a failure of the store.
pub(super) struct BoundReply {
    reply: SenderReply,
    sender: oneshot::Sender<SenderReply>,
    repeats: watch::Sender<RepeatReply>,
}

/// What repeats of a running event get.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each running event, and written in its place")]
pub(super) enum RepeatReply {
    /// The ack, from their deadline on.
    Open,
    /// What is being kept.
    Bound,
    Given(SenderReply),
}

impl RepeatReply {
    /// What a repeat gets: by its deadline, unless it is bound.
    pub(super) async fn until(mut replies: watch::Receiver<Self>, deadline: Instant) -> SenderReply {
        let is_given = |reply: &Self| matches!(reply, Self::Given(_));
        let _ = timeout_at(deadline, replies.wait_for(is_given)).await;
        if matches!(*replies.borrow(), Self::Bound) {
            let _ = timeout(COMMIT_PATIENCE, replies.wait_for(is_given)).await;
        }
        match &*replies.borrow() {
            Self::Open => SenderReply::Ack,
            Self::Bound => SenderReply::Failure(RelayFault::StoreFailed.into()),
            Self::Given(reply) => reply.again(),
        }
    }
}

impl WaitingSender {
    /// Both ends of a wait, and what repeats of the event look at.
    pub(super) fn new() -> (Self, AwaitedReply, watch::Receiver<RepeatReply>) {
        let (sender, awaited) = oneshot::channel();
        let (repeats, replies) = watch::channel(RepeatReply::Open);
        (Self { sender, repeats }, AwaitedReply(awaited), replies)
    }

    /// Whether the sender has not had its ack.
    pub(super) fn waits(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Binds the sender to a reply; `None` if it has its ack already.
    pub(super) fn bind(self, reply: SenderReply) -> Option<BoundReply> {
        let (sender, bound) = oneshot::channel();
        self.repeats.send_replace(RepeatReply::Bound); // First, so that no repeat gets an ack after its sender is bound.
        if self.sender.send(bound).is_err() {
            self.repeats.send_replace(RepeatReply::Open);
            return None;
        }
        Some(BoundReply { reply, sender, repeats: self.repeats })
    }

    /// Gives the sender a reply now; false if it has its ack already.
    pub(super) fn give(self, reply: SenderReply) -> bool {
        self.bind(reply).map(BoundReply::give).is_some()
    }
}

impl AwaitedReply {
    /// What the sender gets: by its deadline, unless it is bound.
    pub(super) async fn until(mut self, deadline: Instant) -> SenderReply {
        let bound = match timeout_at(deadline, &mut self.0).await {
            Ok(bound) => bound.ok(),
            Err(_) => {
                self.0.close();
                self.0.try_recv().ok()
            }
        };
        let Some(bound) = bound else { return SenderReply::Ack };
        let patience = deadline.max(Instant::now() + COMMIT_PATIENCE);
        let reply = timeout_at(patience, bound).await.ok().and_then(Result::ok);
        reply.unwrap_or(SenderReply::Failure(RelayFault::StoreFailed.into()))
    }
}

impl BoundReply {
    /// Gives the sender what it waits for, and its repeats the same.
    pub(super) fn give(self) {
        self.repeats.send_replace(RepeatReply::Given(self.reply.again()));
        let _has_left = self.sender.send(self.reply);
    }
}

/// Records an answer, up to a size. A longer one goes on to a sender that waits, as it comes.
pub(super) struct Recorder<'a> {
    pub(super) event: &'a Event,
    pub(super) waiting: Option<WaitingSender>,
    /// The sender has the beginning of the answer already.
    pub(super) streams: bool,
    /// When the head of the answer came.
    pub(super) head_at: Option<Instant>,
    /// How long the handler took, as its agent says.
    pub(super) handler_us: Option<u32>,
    /// What went to it of the request's body, as its agent says.
    pub(super) sha256_in: Option<[u8; 32]>,
    /// What is for the sender alone: the head as it may see it, and trailers.
    seen: Option<(Parts, HeaderMap)>,
}

impl<'a> Recorder<'a> {
    pub(super) const fn new(event: &'a Event, waiting: Option<WaitingSender>) -> Self {
        Self { event, waiting, streams: false, head_at: None, handler_us: None, sha256_in: None, seen: None }
    }

    /// A recorded answer as the waiting sender gets it.
    pub(super) fn passed_on(&mut self, answer: &store::Answer) -> SenderAnswer {
        match self.seen.take() {
            Some((parts, trailers)) if !answer.truncated => {
                let body = answer.body.clone();
                SenderAnswer { status: parts.status, headers: parts.headers, body, trailers, more: None }
            }
            _ => SenderAnswer::recorded(answer),
        }
    }

    /// Begins a long answer, where its sender may have it and still waits.
    fn begin(&mut self, parts: &Parts, body: Bytes) -> Option<mpsc::Sender<Piece>> {
        self.waiting.as_ref()?;
        let policy = self.event.policy();
        let passes = policy.statuses.while_waiting(parts.status.as_u16()) != Judgement::Again;
        let waiting = self.waiting.take_if(|_| passes || policy.pass_failures)?;
        let (pieces, more) = mpsc::channel(MAX_PIECES);
        let (headers, trailers) = (parts.headers.clone(), HeaderMap::new());
        let answer = SenderAnswer { status: parts.status, headers, body, trailers, more: Some(more) };
        self.streams = waiting.give(SenderReply::Answer(answer));
        self.streams.then_some(pieces)
    }
}

impl Audience for &mut Recorder<'_> {
    type Taken = store::Answer;

    async fn take(self, answer: Box<HandlerAnswer>) -> Result<store::Answer, Undelivered> {
        self.head_at = Some(Instant::now());
        (self.handler_us, self.sha256_in) = (answer.handler_us, answer.sha256_in);
        let HandlerAnswer { head, headers, body, upload: _goes_on, .. } = *answer;
        let (mut kept, mut trailers, mut stream) = (BytesMut::new(), HeaderMap::new(), None);
        let (mut is_long, mut len) = (false, 0_u64);
        let Some(mut body) = body else { return Err(BROKEN) };
        while let Some(frame) = body.frame().await {
            let data = match frame?.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    trailers = frame.into_trailers().unwrap_or_default();
                    settle_trailers(&mut trailers);
                    continue;
                }
            };
            len += data.len() as u64;
            if !is_long && kept.len() + data.len() > MAX_ANSWER_BYTES {
                is_long = true;
                stream = self.begin(&head, kept.split().freeze());
            }
            if !is_long {
                kept.extend_from_slice(&data);
            }
            if let Some(sender) = &stream
                && timeout(PIECE_PATIENCE, sender.send(Piece::Data(data))).await.is_ok_and(|sent| sent.is_ok())
            {
                continue;
            }
            stream = None; // The sender has left, or takes too long: the attempt goes on.
        }
        if !is_whole(self.event, &head.headers, len) {
            return Err(BROKEN);
        }
        if let Some(stream) = stream {
            let _ = timeout(PIECE_PATIENCE, stream.send(Piece::End(std::mem::take(&mut trailers)))).await;
        }
        let status = head.status.as_u16();
        self.seen = Some((head, trailers));
        Ok(store::Answer { status, headers, body: kept.freeze(), truncated: is_long })
    }
}

const BROKEN: Undelivered = Undelivered::Broken(Broken::Reset(ResetCode::Broken));

/// Whether an answer is as long as its head says. hyper believes the head of one that is there at once, and whoever reads
/// the connection would take the next answer for the rest of this one. To HEAD it has none, whatever it says.
pub(super) fn is_whole(event: &Event, headers: &HeaderMap, len: u64) -> bool {
    (event.head.sent.method == "HEAD" && len == 0)
        || one_length(headers).is_ok_and(|said| said.is_none_or(|said| said == len))
}
