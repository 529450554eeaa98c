//! The relay's tunnel protocol as a pure state machine.
//!
//! A tunnel joins a relay and an agent over one ordered byte stream (in practice the binary messages
//! of one WebSocket). A [`Session`] is one end of it: bytes and instants go in, events and bytes come
//! out. `PROTOCOL.md` beside this crate is the protocol's text; this crate is its reference.
//!
//! ```text
//!            handle_bytes, handle_timeout
//!  socket ────────────────────────────────▶ ┌─────────┐ ── poll_event ────▶ exchanges
//!         ◀──────────────────────────────── │ Session │ ◀── open, respond, send, finish,
//!            poll_transmit, poll_timeout    └─────────┘     reset, consume, drain, close
//! ```
//!
//! What this crate does not do: no sockets, no async, no clocks, no randomness, no order
//! that a hash decides, no policy about who may attach or when to connect again.
//!
//! ```
//! use relay_proto::{Event, Hello, Instant, Limits, Session, Welcome};
//! use bytes::BytesMut;
//!
//! let now = Instant::from_micros(0);
//! let mut agent = Session::agent(Hello::default(), Limits::agent(), now);
//! let mut relay = Session::relay(Limits::relay(), now);
//!
//! let mut message = BytesMut::new();
//! assert!(agent.poll_transmit(&mut message));
//! relay.handle_bytes(now, message.split().freeze());
//! assert!(matches!(relay.poll_event(), Some(Event::Hello(_))));
//!
//! relay.welcome(Welcome { epoch: 7, ..Welcome::default() });
//! assert!(relay.poll_transmit(&mut message));
//! agent.handle_bytes(now, message.split().freeze());
//! assert!(agent.is_open() && agent.epoch() == 7);
//! ```

#![allow(missing_docs, reason = "a name that says it all has no comment")]

/// An enum whose variants have numbers on the wire; others are unknown to this version.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$doc])* $variant = $number,)*
        }

        impl $name {
            pub(crate) const fn from_wire(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

mod control;
mod credit;
mod error;
mod event;
mod fields;
mod frame;
mod heartbeat;
pub mod limits;
mod message;
mod message_buffer;
pub mod names;
mod outcome;
mod pieces;
pub mod printable;
mod queue;
mod rate;
mod session;
mod stream;
mod stream_map;
mod time;
mod upgrade;
mod varint;
#[cfg(test)]
#[path = "../tests/vectors/mod.rs"]
mod vectors;

pub use control::{Attach, Attached, Close, CloseCode, Hello, Notice, Offer, OfferState, VERSION, Welcome};
pub use credit::Purse;
pub use error::{OpenError, ProtocolError, SendError};
pub use event::Event;
pub use fields::{HeaderBlock, HeaderBlockBuilder, may_have_controls};
pub use limits::{Limits, MAX_EVENT_PATTERNS};
pub use message::{Framing, RequestHead, ResetCode, ResponseHead};
pub use message_buffer::MessageBuffer;
pub use outcome::{MAX_OUTCOME_BODY_BYTES, Outcome, OutcomeState};
pub use pieces::Pieces;
pub use rate::{NotARate, Rate};
#[cfg(feature = "mutants")]
pub use session::credit::Credit;
#[cfg(feature = "mutants")]
pub use session::mutant::{Mutant, MutantSession};
pub use session::{Role, Session};
pub use stream::StreamId;
pub use stream_map::{StreamMap, take_out};
pub use time::Instant;
pub use upgrade::{NotAnUpgrade, UpgradeProtocol, may_upgrade};

/// The WebSocket subprotocol that both sides must name.
pub const SUBPROTOCOL: &str = "relay.v1";

/// The relay's own endpoint, to which its canaries go: no endpoint of a config has this name.
pub const CANARY_ENDPOINT: &str = "_relay.canary";

/// Where on the relay's public listener agents connect.
pub const CONNECT_PATH: &str = "/_relay/v1/connect";
