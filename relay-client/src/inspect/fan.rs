//! The relay's stream for the tabs of the local page: one for each query, told to all that ask the same.
//!
//! ```text
//! relay ── one stream ──▶ Channel (ring of messages) ──▶ a cursor for each tab
//! tap, status ───────────────────────────────────────────▶ looked at by each tab
//! ```
//!
//! Messages are passed on as they came, with the ids that their reader may go on from. A channel lives as long as the
//! relay's stream does and somebody reads; tabs learn its end by their own, and come again.
//!
//! Invariants: a channel keeps at most [`MAX_MESSAGES`] and [`MAX_BYTES`]; a tab that reads slowly loses its place, is told
//! so, and holds nothing up; at most [`MAX_READERS`] read, and [`MAX_CHANNELS`] streams are open.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, request::Parts};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use relay_program::{
    api::{AgentExchanges, StreamResync},
    http1::{Connection, Part},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, interval, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    agent::{View, shown},
    answer::{self, PageBody, Problem},
    pass::{self, Pass, stream_request},
};
use crate::link::{Stream, api};

const MAX_READERS: usize = 16;
/// Those that the relay allows a token.
const MAX_CHANNELS: usize = 4;
const MAX_MESSAGES: usize = 256;
const MAX_BYTES: usize = 4 << 20;
/// One message of the relay.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The relay says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a tab's task looks for what this agent saw itself.
const LOOK: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Exchanges told at once.
const MAX_TOLD: usize = 100;
/// Events whose last message says all that the ones before it said.
const STATES: [&str; 4] = ["hello", "agents", "endpoints", "figures"];
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const LAST_EVENT_ID: &str = "last-event-id";
const MAX_ID_BYTES: usize = 128;
const MAX_QUERY_BYTES: usize = 4096;

pub(super) struct Fan {
    pass: Arc<Pass>,
    view: Arc<View>,
    readers: Arc<Semaphore>,
    /// Who has it may open a channel.
    opening: Semaphore,
    channels: Mutex<HashMap<String, Weak<Channel>>>,
}

/// A stream of the relay.
struct Channel {
    ring: Mutex<Ring>,
    /// The place behind the newest message; closed when the stream has ended.
    news: watch::Receiver<u64>,
    _reading: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Ring {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The place of the first message.
    first: u64,
    /// The id that the stream goes on from, as whoever opened it said.
    began_after: Option<String>,
    /// The last message of each kind that says something whole, for who comes later.
    states: BTreeMap<String, Bytes>,
}

#[derive(Clone)]
struct Message {
    id: Option<String>,
    event: String,
    text: Bytes,
}

/// Where a tab is.
enum Place {
    At(u64),
    /// It saw nothing yet: what is so comes first, then what is new.
    New,
    /// What it missed is not there any more.
    Missed,
}

impl Fan {
    pub(super) fn new(pass: Arc<Pass>, view: Arc<View>) -> Self {
        let readers = Arc::new(Semaphore::new(MAX_READERS));
        Self { pass, view, readers, opening: Semaphore::new(1), channels: Mutex::default() }
    }

    /// A stream for one tab.
    pub(super) async fn open(&self, head: &Parts) -> Result<Response<PageBody>, Problem> {
        let query = head.uri.query().unwrap_or_default();
        if query.len() > MAX_QUERY_BYTES {
            return Err(Problem::new(414, "too_long", "this query is too long"));
        }
        let last_id = head.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let last_id = last_id.filter(|id| is_id(id));
        let too_many = || Problem::new(429, "too_many_streams", "too many tabs have a stream open; close some of them");
        let place = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| too_many())?;
        let channel = self.channel(query, last_id).await?;
        let cursor = channel.ring.lock().place_after(last_id);
        let (send, receive) = mpsc::channel(1);
        let tab = Tab { news: channel.news.clone(), channel, view: Arc::clone(&self.view), send };
        let task = AbortOnDropHandle::new(tokio::spawn(tab.run(cursor)));
        let body = Told { receive, _task: task, _place: place };
        Ok(answer::with_type(body.boxed_unsync(), EVENT_STREAM))
    }

    /// The channel of a query, opened if it is not there.
    async fn channel(&self, query: &str, last_id: Option<&str>) -> Result<Arc<Channel>, Problem> {
        // Opening is bounded, so that waiting for it is.
        let _turn = self.opening.acquire().await;
        {
            let mut channels = self.channels.lock();
            channels.retain(|_, channel| channel.upgrade().is_some_and(|channel| channel.is_open()));
            if let Some(channel) = channels.get(query).and_then(Weak::upgrade) {
                return Ok(channel);
            }
            if channels.len() >= MAX_CHANNELS {
                let why = "tabs with four different queries have a stream open; close one of them";
                return Err(Problem::new(429, "too_many_streams", why));
            }
        }
        let opened = timeout(PATIENCE, self.connect(query, last_id)).await;
        let late = || Problem::new(503, "relay_unreachable", "the relay did not answer in time");
        let relay = opened.map_err(|_| late())??;
        let (tell, news) = watch::channel(0);
        let began_after = last_id.map(str::to_owned);
        let ring = Mutex::new(Ring { began_after, ..Ring::default() });
        let channel = Arc::new_cyclic(|channel: &Weak<Channel>| Channel {
            ring,
            news,
            _reading: AbortOnDropHandle::new(tokio::spawn(read(relay, Weak::clone(channel), tell))),
        });
        self.channels.lock().insert(query.to_owned(), Arc::downgrade(&channel));
        Ok(channel)
    }

    async fn connect(&self, query: &str, last_id: Option<&str>) -> Result<Connection<Stream>, Problem> {
        let (way, token) = self.pass.means()?;
        let opened = async {
            let request = stream_request(&way, &token, query, last_id)?;
            let mut relay = api::connect(&way).await?;
            let answer = api::head(&mut relay, request).await?;
            Ok((answer, relay))
        };
        let (answer, mut relay) = opened.await.map_err(|error| pass::unanswered(&error))?;
        let kind = answer.headers.all("content-type").next().unwrap_or_default();
        if answer.status == 200 && kind.starts_with(b"text/event-stream") {
            return Ok(relay);
        }
        Err(pass::refused(&answer, &mut relay).await)
    }
}

impl Channel {
    fn is_open(&self) -> bool {
        self.news.has_changed().is_ok()
    }

    /// What is so, and the place of what comes next.
    fn states(&self) -> (Vec<Bytes>, u64) {
        let ring = self.ring.lock();
        (ring.states.values().cloned().collect(), ring.end())
    }

    /// What follows that place, and the place behind it.
    fn after(&self, place: u64) -> Result<(Vec<Bytes>, u64), Missed> {
        let ring = self.ring.lock();
        let skip = place.checked_sub(ring.first).ok_or(Missed(ring.end()))?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok((ring.messages.iter().skip(skip).map(|message| message.text.clone()).collect(), ring.end()))
    }
}

/// The place behind the newest message, for a reader that lost its own.
struct Missed(u64);

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn push(&mut self, message: Message) -> u64 {
        if STATES.contains(&message.event.as_str()) {
            self.states.insert(message.event.clone(), message.text.clone());
        }
        self.bytes += message.text.len();
        self.messages.push_back(message);
        while self.messages.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.text.len();
            self.first += 1;
        }
        self.end()
    }

    /// Where a tab goes on that saw this id last.
    fn place_after(&self, last_id: Option<&str>) -> Place {
        let Some(last_id) = last_id else { return Place::New };
        let seen = self.messages.iter().rposition(|message| message.id.as_deref() == Some(last_id));
        match seen {
            Some(seen) => Place::At(self.first + seen as u64 + 1),
            None if self.first == 0 && self.began_after.as_deref() == Some(last_id) => Place::At(0),
            None => Place::Missed,
        }
    }
}

/// Reads the relay's stream to its end.
async fn read(mut relay: Connection<Stream>, channel: Weak<Channel>, tell: watch::Sender<u64>) {
    let mut waiting = BytesMut::new();
    let mut looked = 0;
    while let Ok(Ok(Some(part))) = timeout(SILENCE, poll_fn(|cx| relay.poll_part(cx))).await {
        let Part::Data(data) = part else { continue };
        waiting.extend_from_slice(&data);
        let Some(channel) = channel.upgrade() else { return };
        while let Some(end) = waiting[looked..].windows(2).position(|pair| pair == b"\n\n") {
            let text = waiting.split_to(looked + end + 2);
            looked = 0;
            if let Some(message) = Message::read(&text) {
                tell.send_replace(channel.ring.lock().push(message));
            }
        }
        looked = waiting.len().saturating_sub(1);
        if waiting.len() > MAX_MESSAGE_BYTES {
            tracing::warn!("a message of the relay's stream is too long");
            return;
        }
    }
}

impl Message {
    /// A message as it is told to tabs; nothing of one that says nothing.
    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (mut id, mut event, mut data) = (None, None, String::new());
        for line in text.trim_end_matches('\n').lines() {
            let (field, value) = line.split_once(':')?;
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" if is_id(value) => id = Some(value),
                "event" if value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => event = Some(value),
                "data" => data.extend(["data: ", value, "\n"]),
                _ => {}
            }
        }
        let event = event.filter(|_| !data.is_empty())?;
        let mut out = String::with_capacity(data.len() + 64);
        if let Some(id) = id {
            out.extend(["id: ", id, "\n"]);
        }
        out.extend(["event: ", event, "\n", &data, "\n"]);
        Some(Self { id: id.map(str::to_owned), event: event.to_owned(), text: out.into() })
    }
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A message of this agent's own.
fn own(event: &str, value: &impl serde::Serialize) -> Bytes {
    let value = serde_json::to_string(value).unwrap_or_default();
    format!("event: {event}\ndata: {value}\n\n").into()
}

/// One tab: a cursor into its channel and one into the tap.
struct Tab {
    channel: Arc<Channel>,
    news: watch::Receiver<u64>,
    view: Arc<View>,
    send: mpsc::Sender<Bytes>,
}

impl Tab {
    /// Ends with the tab, or with the relay's stream.
    async fn run(mut self, place: Place) {
        let mut place = match place {
            Place::At(place) => place,
            Place::New => {
                let (states, end) = self.channel.states();
                for state in states {
                    if self.send.send(state).await.is_err() {
                        return;
                    }
                }
                end
            }
            Place::Missed => {
                let end = self.channel.ring.lock().end();
                if self.resync("too_old").await.is_err() {
                    return;
                }
                end
            }
        };
        let mut status = self.view.status.clone();
        let mut seen = self.view.tap.next_seq();
        let mut look = interval(LOOK);
        let mut said = Instant::now();
        status.mark_changed();
        loop {
            let mut texts = Vec::new();
            match self.channel.after(place) {
                Ok((news, end)) => (texts, place) = (news, end),
                Err(Missed(end)) => {
                    place = end;
                    if self.resync("too_slow").await.is_err() {
                        return;
                    }
                }
            }
            if status.has_changed().unwrap_or(false) {
                status.mark_unchanged();
                texts.push(own("agent", &self.view.this_agent()));
            }
            let (exchanges, next) = self.view.tap.since(seen, MAX_TOLD);
            seen = next;
            if !exchanges.is_empty() {
                let exchanges = exchanges.iter().map(|one| shown(one)).collect();
                texts.push(own("exchanges", &AgentExchanges { exchanges, next: None }));
            }
            if texts.is_empty() && said.elapsed() >= KEEP_ALIVE {
                texts.push(Bytes::from_static(b":\n\n"));
            }
            for text in texts {
                said = Instant::now();
                if self.send.send(text).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = self.news.changed() => if changed.is_err() && self.at_end(place) { return },
                _ = look.tick() => {}
                () = self.send.closed() => return,
            }
        }
    }

    /// Whether everything was told of a stream that has ended.
    fn at_end(&self, place: u64) -> bool {
        self.channel.ring.lock().end() <= place
    }

    async fn resync(&self, why: &str) -> Result<(), mpsc::error::SendError<Bytes>> {
        self.send.send(own("resync", &StreamResync { why: why.to_owned(), after: None })).await
    }
}

/// The body of a tab's stream. Dropped, it ends its task.
struct Told {
    receive: mpsc::Receiver<Bytes>,
    _task: AbortOnDropHandle<()>,
    _place: OwnedSemaphorePermit,
}

impl Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.receive.poll_recv(cx).map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: Option<&str>, text: &str) -> Message {
        let text = Bytes::copy_from_slice(text.as_bytes());
        Message { id: id.map(str::to_owned), event: "rows".to_owned(), text }
    }

    #[test]
    fn a_message_is_passed_on_and_nothing_that_is_none() {
        let read = |text: &str| Message::read(text.as_bytes()).map(|message| (message.id, message.text));
        let rows = "id: k3-7\nevent: rows\ndata: {\"rows\":[]}\n\n";
        assert_eq!(read(rows), Some((Some("k3-7".to_owned()), rows.into())));
        assert_eq!(read("event:bye\ndata:{}\n\n").map(|(_, text)| text), Some("event: bye\ndata: {}\n\n".into()));
        for nothing in [":\n\n", ": ping\n\n", "data: {}\n\n", "event: rows\n\n", "event: <b>\ndata: x\n\n", "rows\n\n"]
        {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
        let (id, text) = read("id: a\u{1}b\nevent: rows\ndata: 1\nretry: 5\n\n").unwrap();
        assert!(id.is_none() && text == "event: rows\ndata: 1\n\n", "{text:?}");
    }

    #[test]
    fn a_tab_goes_on_where_it_was_or_learns_that_it_cannot() {
        let mut ring = Ring { began_after: Some("a-4".to_owned()), ..Ring::default() };
        let at = |ring: &Ring, id| match ring.place_after(id) {
            Place::At(place) => Some(place),
            Place::New => Some(u64::MAX),
            Place::Missed => None,
        };
        ring.push(message(Some("a-5"), "x"));
        ring.push(message(None, "x"));
        assert_eq!(at(&ring, None), Some(u64::MAX), "who comes new gets what is new");
        let agents = |text: &str| Message { event: "agents".to_owned(), ..message(None, text) };
        assert_eq!(ring.states.len(), 0);
        let mut other = Ring::default();
        other.push(agents("before"));
        other.push(agents("now"));
        assert_eq!(other.states.values().collect::<Vec<_>>(), ["now"], "and what is so");
        assert_eq!((at(&ring, Some("a-4")), at(&ring, Some("a-5")), at(&ring, Some("b-5"))), (Some(0), Some(1), None));
        for _ in 0..MAX_MESSAGES {
            ring.push(message(None, "x"));
        }
        assert_eq!((ring.messages.len(), at(&ring, Some("a-4")), at(&ring, Some("a-5"))), (MAX_MESSAGES, None, None));
        for _ in 0..20 {
            ring.push(message(None, &"x".repeat(MAX_MESSAGE_BYTES)));
        }
        assert!(ring.bytes <= MAX_BYTES && ring.end() == 278, "{} {}", ring.bytes, ring.end());
    }
}
