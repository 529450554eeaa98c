//! Outcomes: what an agent reports of attempts that outlived the session they came in.
//!
//! An attempt with a fence belongs to a stored event. When its session breaks, the agent lets the
//! handler finish and reports the attempt in its next session, so that the relay settles it instead of
//! calling the handler a second time. The payload is laid out like a head with an inline body.

use bytes::{Bytes, BytesMut};

use crate::{
    error::ProtocolError,
    fields::{id, int, next_field, put_bytes, put_int, take_prefixed},
    frame::MAX_HEADER_BYTES,
    limits::{MAX_CHUNK_BYTES, MAX_HEAD_BYTES, MAX_MESSAGE_BYTES},
    message::{ResetCode, ResponseHead},
    varint,
};

/// Largest body of a reported answer, in bytes; a longer one is cut and marked.
pub const MAX_OUTCOME_BODY_BYTES: usize = MAX_CHUNK_BYTES;

/// What became of an attempt whose session broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The event's id (a UUIDv7).
    pub event_id: [u8; 16],
    pub attempt: u32,
    /// The fence that came with the attempt. One that is not the newest is recorded, never settled.
    pub fence: u64,
    pub state: OutcomeState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeState {
    /// The handler is still at work; another outcome follows.
    Running,
    Finished {
        head: ResponseHead,
        /// Its body, at most [`MAX_OUTCOME_BODY_BYTES`] and what one message holds beside the head.
        body: Bytes,
        /// Whether the body was longer.
        truncated: bool,
    },
    Failed(ResetCode),
}

mod tag {
    pub(super) const EVENT_ID: u64 = 1;
    pub(super) const ATTEMPT: u64 = 2;
    pub(super) const FENCE: u64 = 3;
    pub(super) const STATE: u64 = 4;
    pub(super) const CODE: u64 = 5;
    pub(super) const TRUNCATED: u64 = 6;
}

impl Outcome {
    /// Whether both are of the same attempt, so that the newer replaces the older.
    pub(crate) fn same_attempt(&self, other: &Self) -> bool {
        (self.event_id, self.attempt, self.fence) == (other.event_id, other.attempt, other.fence)
    }

    /// `fields length · fields · [answer's fields length · fields · header lines length · lines · body]`.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let (state, code) = match &self.state {
            OutcomeState::Running => (0, None),
            OutcomeState::Finished { .. } => (1, None),
            OutcomeState::Failed(code) => (2, Some(*code)),
        };
        let mut fields = BytesMut::new();
        put_bytes(&mut fields, tag::EVENT_ID, &self.event_id);
        put_int(&mut fields, tag::ATTEMPT, u64::from(self.attempt));
        put_int(&mut fields, tag::FENCE, self.fence);
        put_int(&mut fields, tag::STATE, state);
        if let Some(code) = code {
            put_int(&mut fields, tag::CODE, code as u64);
        }
        let OutcomeState::Finished { head, body, truncated } = &self.state else {
            varint::put(out, fields.len() as u64);
            return out.extend_from_slice(&fields);
        };
        const FIELDS: usize = 128; // More than the fields above and below ever take.
        let room = MAX_MESSAGE_BYTES - 2 * MAX_HEADER_BYTES - FIELDS - head.encoded_len().min(MAX_HEAD_BYTES);
        let kept = body.len().min(MAX_OUTCOME_BODY_BYTES).min(room);
        if *truncated || kept < body.len() {
            put_int(&mut fields, tag::TRUNCATED, 1);
        }
        varint::put(out, fields.len() as u64);
        out.extend_from_slice(&fields);
        head.encode(out);
        out.extend_from_slice(&body[..kept]);
    }

    pub(crate) fn decode(mut payload: Bytes) -> Result<Self, ProtocolError> {
        let mut fields = take_prefixed(&mut payload, "outcome")?;
        let (mut event_id, mut attempt, mut fence, mut state) = (None, 1, None, 0);
        let (mut code, mut truncated) = (ResetCode::Broken, false);
        while let Some((tag, value)) = next_field(&mut fields, "outcome")? {
            match tag {
                tag::EVENT_ID => event_id = Some(id(&value, "event id")?),
                tag::ATTEMPT => attempt = u32::try_from(int(&value, "attempt")?).unwrap_or(u32::MAX),
                tag::FENCE => fence = Some(int(&value, "fence")?),
                tag::STATE => state = int(&value, "outcome")?,
                tag::CODE => code = ResetCode::read(int(&value, "reset")?),
                tag::TRUNCATED => truncated = int(&value, "outcome")? == 1,
                _ => {}
            }
        }
        let (Some(event_id), Some(fence)) = (event_id, fence) else {
            return Err(ProtocolError::Malformed { what: "outcome" });
        };
        let state = match state {
            0 => OutcomeState::Running,
            1 => {
                let head = ResponseHead::decode(&mut payload)?;
                if head.status == 101 {
                    return Err(ProtocolError::Malformed { what: "status" });
                }
                if payload.len() > MAX_OUTCOME_BODY_BYTES {
                    return Err(ProtocolError::TooLarge { what: "outcome" });
                }
                OutcomeState::Finished { head, body: payload, truncated }
            }
            2 => OutcomeState::Failed(code),
            _ => return Err(ProtocolError::Malformed { what: "outcome" }),
        };
        Ok(Self { event_id, attempt, fence, state })
    }
}
