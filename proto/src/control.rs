//! Messages about the session itself: hello, welcome, notice, close.

use bytes::{Bytes, BytesMut};
use core::time::Duration;

use crate::{
    error::ProtocolError,
    fields::{id, int, next_field, put_bytes, put_int, text},
    limits::{MAX_EVENT_PATTERNS, MAX_OFFERS},
    rate::Rate,
};

/// The protocol version that this crate speaks, announced in hello and welcome.
pub const VERSION: u64 = 1;

wire_enum! {
    /// How an agent wants to be attached to an endpoint.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Attach {
        /// Exchanges go round among all shared agents.
        #[default]
        Shared = 0,
        /// One agent is active, others stand by.
        Exclusive = 1,
        /// Gets copies of what others get and never answers a sender.
        Copy = 2,
        /// The relay's choice: shared, or copies while an agent of another name serves.
        Auto = 3,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The endpoint's name; empty for "the only one that my token allows".
    pub endpoint: String,
    pub attach: Attach,
    /// Exchanges of this endpoint that the agent takes at a time; 0 for as many as streams.
    pub capacity: u32,
    /// With [`Attach::Exclusive`]: become active at once, and make the active agent stand by.
    pub takeover: bool,
    /// Types of events that the agent takes, `*` standing for any text; none for all. At most
    /// [`MAX_EVENT_PATTERNS`].
    pub events: Vec<String>,
    /// What waits at the endpoint when the agent becomes active there by this offer is not wanted by anybody any
    /// more; needs a right of its own.
    pub skip_backlog: bool,
    /// How often exchanges of this endpoint may begin; `None` for as often as they come.
    pub rate: Option<Rate>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    pub name: String,
    /// One id per agent process.
    pub instance: [u8; 16],
    pub software: String,
    /// What it offers, at most [`MAX_OFFERS`].
    pub offers: Vec<Offer>,
    /// It answers the relay's canaries itself ([`crate::CANARY_ENDPOINT`]).
    pub canaries: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferState {
    /// Exchanges will come.
    Accepted,
    /// Another agent is active; this one stands by.
    Standby,
    Copy,
    /// With a stable code: `unknown_endpoint`, `not_allowed`, `choose_one`.
    Refused {
        code: String,
    },
}

impl OfferState {
    fn to_wire(&self) -> (u64, &str) {
        match self {
            Self::Accepted => (0, ""),
            Self::Standby => (1, ""),
            Self::Refused { code } => (2, code),
            Self::Copy => (3, ""),
        }
    }

    /// A state that this version does not know is a refusal.
    fn from_wire(number: u64, code: String) -> Self {
        match number {
            0 => Self::Accepted,
            1 => Self::Standby,
            3 => Self::Copy,
            _ => Self::Refused { code },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The endpoint's name; for an empty offer the one that the relay chose.
    pub endpoint: String,
    pub state: OfferState,
    /// The endpoint's public address; empty when it has none.
    pub url: String,
    /// The provider whose signatures the relay checks, or `none`.
    pub provider: String,
}

/// The relay's first message, which opens the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Rises with every session of the same agent.
    pub epoch: u64,
    pub software: String,
    /// In the order of the offers.
    pub endpoints: Vec<Attached>,
    /// The endpoints that the token allows; named only when an offer could not be accepted.
    pub available: Vec<String>,
}

/// A message of the relay to the agent's user; it needs no answer and may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A request of a sender was refused before it reached the tunnel.
    Refused {
        endpoint: String,
        event_id: [u8; 16],
        status: u16,
        /// Why, as the stable code that the sender got, too.
        code: String,
        /// The provider whose rule was applied, or `none`.
        provider: String,
    },
    Text(String),
    /// What waits for an endpoint when the agent attaches; for those who do not know this kind it is a line.
    Backlog {
        endpoint: String,
        /// Webhooks that wait; never 0.
        waiting: u64,
        /// When the oldest of them came, in milliseconds since 1970.
        oldest_ms: Option<u64>,
        /// The same for people.
        line: String,
    },
    /// An offer's state is another than welcome said. Unlike the other kinds this one is never dropped:
    /// the newest state of each endpoint is kept until it is sent.
    Changed {
        endpoint: String,
        state: OfferState,
    },
}

wire_enum! {
    /// Why a session ends. A code that this version does not know becomes [`CloseCode::Internal`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum CloseCode {
        /// Nothing is left to do.
        Normal = 0,
        /// The side that closes is stopping; connect again.
        GoingAway = 1,
        ProtocolError = 2,
        /// A newer session of the same agent took over.
        Replaced = 3,
        HeartbeatTimeout = 4,
        /// The token is not valid any more.
        Unauthorized = 5,
        /// None of the offers was accepted; the welcome says why.
        Refused = 6,
        Internal = 7,
    }
}

/// The end of a session, as a side announced or found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: CloseCode,
    /// The same for people; at most 200 bytes on the wire.
    pub reason: String,
}

/// The numbers that hello and welcome carry beside their texts, for the other side's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerLimits {
    pub(crate) version: u64,
    pub(crate) max_streams: u32,
    pub(crate) initial_window_bytes: u32,
    /// Only in welcome.
    pub(crate) heartbeat: Option<(Duration, Duration)>,
}

mod tag {
    // Hello and welcome.
    pub(super) const VERSION: u64 = 1;
    pub(super) const SOFTWARE: u64 = 2;
    pub(super) const INITIAL_WINDOW: u64 = 3;
    // Hello.
    pub(super) const MAX_STREAMS: u64 = 4;
    pub(super) const NAME: u64 = 5;
    pub(super) const INSTANCE: u64 = 6;
    pub(super) const OFFER: u64 = 7;
    pub(super) const CANARIES: u64 = 13;
    // An offer.
    pub(super) const OFFER_ENDPOINT: u64 = 1;
    pub(super) const OFFER_ATTACH: u64 = 2;
    pub(super) const OFFER_CAPACITY: u64 = 3;
    pub(super) const OFFER_TAKEOVER: u64 = 4;
    pub(super) const OFFER_EVENTS: u64 = 5;
    pub(super) const OFFER_SKIP_BACKLOG: u64 = 6;
    pub(super) const OFFER_RATE: u64 = 7;
    pub(super) const OFFER_RATE_PER_S: u64 = 8;
    pub(super) const OFFER_RATE_BURST: u64 = 9;
    // Welcome.
    pub(super) const EPOCH: u64 = 8;
    pub(super) const PING_AFTER_MS: u64 = 9;
    pub(super) const DEAD_AFTER_MS: u64 = 10;
    pub(super) const ATTACHED: u64 = 11;
    pub(super) const AVAILABLE: u64 = 12;
    // An answer to an offer.
    pub(super) const ATTACHED_ENDPOINT: u64 = 1;
    pub(super) const ATTACHED_STATE: u64 = 2;
    pub(super) const ATTACHED_CODE: u64 = 3;
    pub(super) const ATTACHED_URL: u64 = 4;
    pub(super) const ATTACHED_PROVIDER: u64 = 5;
    // A notice.
    pub(super) const NOTICE_KIND: u64 = 1;
    pub(super) const NOTICE_TEXT: u64 = 2;
    pub(super) const NOTICE_ENDPOINT: u64 = 3;
    pub(super) const NOTICE_EVENT_ID: u64 = 4;
    pub(super) const NOTICE_STATUS: u64 = 5;
    pub(super) const NOTICE_CODE: u64 = 6;
    pub(super) const NOTICE_PROVIDER: u64 = 7;
    pub(super) const NOTICE_STATE: u64 = 8;
    pub(super) const NOTICE_WAITING: u64 = 9;
    pub(super) const NOTICE_OLDEST_MS: u64 = 10;
}

impl Hello {
    pub(crate) fn encode(&self, limits: PeerLimits, out: &mut BytesMut) {
        put_int(out, tag::VERSION, limits.version);
        put_bytes(out, tag::SOFTWARE, self.software.as_bytes());
        put_int(out, tag::INITIAL_WINDOW, u64::from(limits.initial_window_bytes));
        put_int(out, tag::MAX_STREAMS, u64::from(limits.max_streams));
        put_bytes(out, tag::NAME, self.name.as_bytes());
        put_bytes(out, tag::INSTANCE, &self.instance);
        for offer in self.offers.iter().take(MAX_OFFERS) {
            let mut inner = BytesMut::new();
            put_bytes(&mut inner, tag::OFFER_ENDPOINT, offer.endpoint.as_bytes());
            put_int(&mut inner, tag::OFFER_ATTACH, offer.attach as u64);
            put_int(&mut inner, tag::OFFER_CAPACITY, u64::from(offer.capacity));
            if offer.takeover {
                put_int(&mut inner, tag::OFFER_TAKEOVER, 1);
            }
            for pattern in offer.events.iter().take(MAX_EVENT_PATTERNS) {
                put_bytes(&mut inner, tag::OFFER_EVENTS, pattern.as_bytes());
            }
            if offer.skip_backlog {
                put_int(&mut inner, tag::OFFER_SKIP_BACKLOG, 1);
            }
            if let Some(rate) = offer.rate {
                put_int(&mut inner, tag::OFFER_RATE, rate.count().into());
                put_int(&mut inner, tag::OFFER_RATE_PER_S, rate.per_s().into());
                put_int(&mut inner, tag::OFFER_RATE_BURST, rate.burst().into());
            }
            put_bytes(out, tag::OFFER, &inner);
        }
        if self.canaries {
            put_int(out, tag::CANARIES, 1);
        }
    }

    pub(crate) fn decode(mut payload: Bytes) -> Result<(Self, PeerLimits), ProtocolError> {
        let (mut hello, mut limits, mut instance) = (Self::default(), PeerLimits::default(), None);
        while let Some((tag, value)) = next_field(&mut payload, "hello")? {
            match tag {
                tag::VERSION => limits.version = int(&value, "hello")?,
                tag::SOFTWARE => hello.software = text(&value, "software")?,
                tag::INITIAL_WINDOW => limits.initial_window_bytes = small(&value)?,
                tag::MAX_STREAMS => limits.max_streams = small(&value)?,
                tag::NAME => hello.name = text(&value, "agent name")?,
                tag::INSTANCE => instance = Some(id(&value, "instance")?),
                tag::OFFER if hello.offers.len() == MAX_OFFERS => {
                    return Err(ProtocolError::TooLarge { what: "number of offers" });
                }
                tag::OFFER => hello.offers.push(Offer::decode(value)?),
                tag::CANARIES => hello.canaries = int(&value, "canaries")? == 1,
                _ => {}
            }
        }
        // Agents without one would all be the same, and replace each other.
        hello.instance = instance.ok_or(ProtocolError::Malformed { what: "instance" })?;
        Ok((hello, limits))
    }
}

impl Offer {
    fn decode(mut payload: Bytes) -> Result<Self, ProtocolError> {
        let mut offer = Self::default();
        let (mut count, mut per_s, mut burst) = (0, 1, None);
        while let Some((tag, value)) = next_field(&mut payload, "offer")? {
            match tag {
                tag::OFFER_ENDPOINT => offer.endpoint = text(&value, "endpoint name")?,
                tag::OFFER_ATTACH => {
                    let attach = Attach::from_wire(int(&value, "attach")?);
                    offer.attach = attach.ok_or(ProtocolError::Malformed { what: "attach" })?;
                }
                tag::OFFER_CAPACITY => offer.capacity = small(&value)?,
                tag::OFFER_TAKEOVER => offer.takeover = int(&value, "takeover")? == 1,
                tag::OFFER_EVENTS if offer.events.len() == MAX_EVENT_PATTERNS => {
                    return Err(ProtocolError::TooLarge { what: "number of event patterns" });
                }
                tag::OFFER_EVENTS => offer.events.push(text(&value, "event pattern")?),
                tag::OFFER_SKIP_BACKLOG => offer.skip_backlog = int(&value, "skip")? == 1,
                tag::OFFER_RATE => count = small(&value)?,
                tag::OFFER_RATE_PER_S => per_s = small(&value)?,
                tag::OFFER_RATE_BURST => burst = Some(small(&value)?),
                _ => {}
            }
        }
        offer.rate = (count > 0).then(|| Rate::new(count, per_s, burst));
        Ok(offer)
    }
}

impl Welcome {
    pub(crate) fn encode(&self, limits: PeerLimits, out: &mut BytesMut) {
        put_int(out, tag::VERSION, limits.version);
        put_bytes(out, tag::SOFTWARE, self.software.as_bytes());
        put_int(out, tag::INITIAL_WINDOW, u64::from(limits.initial_window_bytes));
        put_int(out, tag::EPOCH, self.epoch);
        if let Some((ping_after, dead_after)) = limits.heartbeat {
            put_int(out, tag::PING_AFTER_MS, millis(ping_after));
            put_int(out, tag::DEAD_AFTER_MS, millis(dead_after));
        }
        for endpoint in self.endpoints.iter().take(MAX_OFFERS) {
            let mut inner = BytesMut::new();
            endpoint.encode(&mut inner);
            put_bytes(out, tag::ATTACHED, &inner);
        }
        for name in self.available.iter().take(MAX_OFFERS) {
            put_bytes(out, tag::AVAILABLE, name.as_bytes());
        }
    }

    pub(crate) fn decode(mut payload: Bytes) -> Result<(Self, PeerLimits), ProtocolError> {
        let (mut welcome, mut limits) = (Self::default(), PeerLimits::default());
        let (mut ping_after, mut dead_after) = (0, 0);
        while let Some((tag, value)) = next_field(&mut payload, "welcome")? {
            match tag {
                tag::VERSION => limits.version = int(&value, "welcome")?,
                tag::SOFTWARE => welcome.software = text(&value, "software")?,
                tag::INITIAL_WINDOW => limits.initial_window_bytes = small(&value)?,
                tag::EPOCH => welcome.epoch = int(&value, "epoch")?,
                tag::PING_AFTER_MS => ping_after = int(&value, "heartbeat")?,
                tag::DEAD_AFTER_MS => dead_after = int(&value, "heartbeat")?,
                tag::ATTACHED | tag::AVAILABLE
                    if welcome.endpoints.len() + welcome.available.len() >= 2 * MAX_OFFERS =>
                {
                    return Err(ProtocolError::TooLarge { what: "number of endpoints" });
                }
                tag::ATTACHED => welcome.endpoints.push(Attached::decode(value)?),
                tag::AVAILABLE => welcome.available.push(text(&value, "endpoint name")?),
                _ => {}
            }
        }
        if ping_after == 0 || dead_after <= ping_after {
            return Err(ProtocolError::Malformed { what: "heartbeat" });
        }
        limits.heartbeat = Some((Duration::from_millis(ping_after), Duration::from_millis(dead_after)));
        Ok((welcome, limits))
    }
}

impl Attached {
    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, tag::ATTACHED_ENDPOINT, self.endpoint.as_bytes());
        let (state, code) = self.state.to_wire();
        put_int(out, tag::ATTACHED_STATE, state);
        put_bytes(out, tag::ATTACHED_CODE, code.as_bytes());
        put_bytes(out, tag::ATTACHED_URL, self.url.as_bytes());
        put_bytes(out, tag::ATTACHED_PROVIDER, self.provider.as_bytes());
    }

    fn decode(mut payload: Bytes) -> Result<Self, ProtocolError> {
        let (mut endpoint, mut state, mut code) = (String::new(), 0, String::new());
        let (mut url, mut provider) = (String::new(), String::new());
        while let Some((tag, value)) = next_field(&mut payload, "endpoint")? {
            match tag {
                tag::ATTACHED_ENDPOINT => endpoint = text(&value, "endpoint name")?,
                tag::ATTACHED_STATE => state = int(&value, "endpoint state")?,
                tag::ATTACHED_CODE => code = text(&value, "code")?,
                tag::ATTACHED_URL => url = text(&value, "url")?,
                tag::ATTACHED_PROVIDER => provider = text(&value, "provider")?,
                _ => {}
            }
        }
        Ok(Self { endpoint, state: OfferState::from_wire(state, code), url, provider })
    }
}

impl Notice {
    /// What a newer notice makes of an older one that still waits.
    pub(crate) fn replaces(&self, older: &Self) -> bool {
        matches!((self, older), (Self::Changed { endpoint, .. }, Self::Changed { endpoint: other, .. }) if endpoint == other)
    }

    pub(crate) const fn may_be_lost(&self) -> bool {
        !matches!(self, Self::Changed { .. })
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Refused { endpoint, event_id, status, code, provider } => {
                put_int(out, tag::NOTICE_KIND, 0);
                put_bytes(out, tag::NOTICE_ENDPOINT, endpoint.as_bytes());
                put_bytes(out, tag::NOTICE_EVENT_ID, event_id);
                put_int(out, tag::NOTICE_STATUS, u64::from(*status));
                put_bytes(out, tag::NOTICE_CODE, code.as_bytes());
                put_bytes(out, tag::NOTICE_PROVIDER, provider.as_bytes());
            }
            Self::Text(line) => {
                put_int(out, tag::NOTICE_KIND, 1);
                put_bytes(out, tag::NOTICE_TEXT, line.as_bytes());
            }
            Self::Backlog { endpoint, waiting, oldest_ms, line } => {
                put_int(out, tag::NOTICE_KIND, 1);
                put_bytes(out, tag::NOTICE_TEXT, line.as_bytes());
                put_bytes(out, tag::NOTICE_ENDPOINT, endpoint.as_bytes());
                put_int(out, tag::NOTICE_WAITING, *waiting);
                if let Some(oldest_ms) = oldest_ms {
                    put_int(out, tag::NOTICE_OLDEST_MS, *oldest_ms);
                }
            }
            Self::Changed { endpoint, state } => {
                let (state, code) = state.to_wire();
                put_int(out, tag::NOTICE_KIND, 2);
                put_bytes(out, tag::NOTICE_ENDPOINT, endpoint.as_bytes());
                put_int(out, tag::NOTICE_STATE, state);
                put_bytes(out, tag::NOTICE_CODE, code.as_bytes());
            }
        }
    }

    /// `None` for a kind that this version does not know.
    pub(crate) fn decode(mut payload: Bytes) -> Result<Option<Self>, ProtocolError> {
        let (mut kind, mut line, mut endpoint) = (0, String::new(), String::new());
        let (mut event_id, mut status, mut state) = ([0; 16], 0, 0);
        let (mut code, mut provider) = (String::new(), String::new());
        let (mut waiting, mut oldest_ms) = (0, None);
        while let Some((tag, value)) = next_field(&mut payload, "notice")? {
            match tag {
                tag::NOTICE_KIND => kind = int(&value, "notice")?,
                tag::NOTICE_TEXT => line = text(&value, "notice")?,
                tag::NOTICE_ENDPOINT => endpoint = text(&value, "endpoint name")?,
                tag::NOTICE_EVENT_ID => event_id = id(&value, "event id")?,
                tag::NOTICE_STATUS => status = u16::try_from(int(&value, "status")?).unwrap_or(0),
                tag::NOTICE_CODE => code = text(&value, "code")?,
                tag::NOTICE_PROVIDER => provider = text(&value, "provider")?,
                tag::NOTICE_STATE => state = int(&value, "endpoint state")?,
                tag::NOTICE_WAITING => waiting = int(&value, "number")?,
                tag::NOTICE_OLDEST_MS => oldest_ms = Some(int(&value, "time")?),
                _ => {}
            }
        }
        Ok(match kind {
            0 => Some(Self::Refused { endpoint, event_id, status, code, provider }),
            1 if waiting > 0 => Some(Self::Backlog { endpoint, waiting, oldest_ms, line }),
            1 => Some(Self::Text(line)),
            2 => Some(Self::Changed { endpoint, state: OfferState::from_wire(state, code) }),
            _ => None,
        })
    }
}

const MAX_REASON_BYTES: usize = 200;

impl Close {
    /// `code varint · reason length · reason`.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let mut end = self.reason.len().min(MAX_REASON_BYTES);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        crate::varint::put(out, self.code as u64);
        crate::varint::put(out, end as u64);
        out.extend_from_slice(&self.reason.as_bytes()[..end]);
    }

    pub(crate) fn decode(mut payload: Bytes) -> Result<Self, ProtocolError> {
        let code =
            CloseCode::from_wire(crate::fields::take_varint(&mut payload, "close")?).unwrap_or(CloseCode::Internal);
        let reason = text(&crate::fields::take_prefixed(&mut payload, "close")?, "close")?;
        Ok(Self { code, reason })
    }
}

fn small(value: &[u8]) -> Result<u32, ProtocolError> {
    u32::try_from(int(value, "number")?).map_err(|_| ProtocolError::TooLarge { what: "number" })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_has_so_many_offers_and_no_more() {
        let offer = Offer { endpoint: "github".into(), ..Offer::default() };
        let hello = Hello { instance: [7; 16], offers: vec![offer; MAX_OFFERS], ..Hello::default() };
        let mut most = BytesMut::new();
        hello.encode(PeerLimits::default(), &mut most);
        let (read, _) = Hello::decode(most.clone().freeze()).expect("as many as there may be");
        assert_eq!(read.offers.len(), MAX_OFFERS);
        // This crate sends no more, and another one may.
        let mut another = BytesMut::new();
        put_bytes(&mut another, tag::OFFER_ENDPOINT, b"github");
        put_bytes(&mut most, tag::OFFER, &another);
        let refused = Hello::decode(most.freeze()).expect_err("one past it");
        assert_eq!(refused, ProtocolError::TooLarge { what: "number of offers" });
    }
}
