//! Traces by W3C Trace Context, version 00: their ids, and whether the relay records one.
//!
//! Pure. All of it follows from an event's id and from what its sender brought, so that nothing is drawn and nothing is
//! kept beside the event: an attempt that is made a day later finds the same trace. A trace that begins here has the
//! digits of its event's id.
//!
//! Invariant: a context that was brought goes on unchanged unless the relay records it. Then its own span stands between
//! sender and handler.

use data_encoding::HEXLOWER;

use crate::webhook::EventId;

/// Bytes of a context as text: `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const TEXT_BYTES: usize = 55;

/// That the trace is recorded by whoever passes it on.
const SAMPLED: u8 = 1;

/// Never zero.
pub(crate) type SpanId = [u8; 8];

/// A trace, and the span in it that comes before what is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: SpanId,
    flags: u8,
}

impl TraceContext {
    /// The trace that begins with an event.
    pub(crate) fn begin(event: EventId) -> Self {
        Self { trace_id: *event.as_bytes(), span_id: SpanPart::Webhook.of(event), flags: SAMPLED }
    }

    /// One that is valid, and of this version.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let is_shaped = text.len() == TEXT_BYTES && text.starts_with(b"00-") && (text[35], text[52]) == (b'-', b'-');
        if !is_shaped {
            return None;
        }
        let (mut trace_id, mut span_id, mut flags) = ([0; 16], [0; 8], [0; 1]);
        for (digits, bytes) in [(3..35, &mut trace_id[..]), (36..52, &mut span_id[..]), (53..55, &mut flags[..])] {
            HEXLOWER.decode_mut(&text[digits], bytes).ok()?;
        }
        let is_valid = trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, flags: flags[0] })
    }

    pub(crate) fn to_text(self) -> String {
        let mut text: [u8; TEXT_BYTES] = *b"00-00000000000000000000000000000000-0000000000000000-00";
        for (digits, bytes) in [(3..35, &self.trace_id[..]), (36..52, &self.span_id), (53..55, &[self.flags])] {
            put_digits(&mut text[digits], bytes);
        }
        std::str::from_utf8(&text).unwrap_or_default().to_owned()
    }
}

/// Writes bytes as lower-case hexadecimal digits.
fn put_digits(digits: &mut [u8], bytes: &[u8]) {
    let mut bytes = bytes.iter();
    for two in digits.as_chunks_mut().0 {
        let Some(byte) = bytes.next() else { return };
        *two = DIGITS[usize::from(*byte)];
    }
}

/// The digits of each byte.
static DIGITS: [[u8; 2]; 256] = {
    const DIGIT: [u8; 16] = *b"0123456789abcdef";
    let (mut digits, mut byte) = ([[0; 2]; 256], 0);
    while byte < 256 {
        digits[byte] = [DIGIT[byte >> 4], DIGIT[byte & 15]];
        byte += 1;
    }
    digits
};

/// A span of an event's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanPart {
    /// From the first byte of the request to its answer.
    Webhook,
    Verify,
    Store,
    /// An attempt, by its number.
    Attempt(u32),
    /// From the exchange's begin to its end, as the relay sees it.
    Tunnel(u32),
    /// The call of the handler.
    Handler(u32),
}

impl SpanPart {
    /// Its span's id: different for each event and part, the same whenever it is asked for.
    pub(crate) fn of(self, event: EventId) -> SpanId {
        let number = match self {
            Self::Webhook => 1,
            Self::Verify => 2,
            Self::Store => 3,
            Self::Attempt(attempt) => u64::from(attempt) << 8 | 4,
            Self::Tunnel(attempt) => u64::from(attempt) << 8 | 5,
            Self::Handler(attempt) => u64::from(attempt) << 8 | 6,
        };
        let (high, low) = halves(event.as_bytes());
        let mixed = mixed(mixed(low ^ number) ^ high);
        mixed.max(1).to_be_bytes()
    }
}

/// Which traces are recorded: a part of them, by their ids, so that every attempt and every relay says the same of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling(f64);

impl Sampling {
    /// So large a part, from 0 to 1.
    pub(crate) const fn new(part: f64) -> Self {
        Self(part)
    }

    pub(crate) fn takes(self, trace_id: &[u8; 16]) -> bool {
        let (high, low) = halves(trace_id);
        // The first 53 bits are all that a float holds.
        let place = (mixed(high ^ mixed(low)) >> 11) as f64 / (1_u64 << 53) as f64;
        place < self.0
    }

    /// What a handler is told of an attempt: where the trace is recorded, the span of its call stands there.
    pub(crate) fn passed_on(self, context: &str, event: EventId, attempt: u32) -> Option<String> {
        let context = TraceContext::parse(context.as_bytes()).filter(|context| self.takes(&context.trace_id))?;
        let span_id = SpanPart::Handler(attempt).of(event);
        Some(TraceContext { span_id, flags: context.flags | SAMPLED, ..context }.to_text())
    }
}

fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let whole = u128::from_be_bytes(*bytes);
    ((whole >> 64) as u64, whole as u64)
}

/// Evenly spread over all numbers, and one for each (the last step of splitmix64, Steele et al. 2014).
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_valid_context_is_read_and_written_alike() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(text.as_bytes()).expect("valid");
        assert_eq!(context.to_text(), text);
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_trace_that_begins_here_has_the_digits_of_its_event() {
        let event = EventId::new();
        let begun = TraceContext::begin(event);
        let digits = event.to_string();
        assert!(begun.to_text().starts_with(&format!("00-{}-", &digits["hook_".len()..])));
        assert_eq!(TraceContext::parse(begun.to_text().as_bytes()), Some(begun));
    }

    #[test]
    fn each_part_of_each_event_has_a_span_of_its_own() {
        let mut seen = HashSet::new();
        for event in (0..200).map(|_| EventId::new()) {
            let attempts = (1..20).flat_map(|n| [SpanPart::Attempt(n), SpanPart::Tunnel(n), SpanPart::Handler(n)]);
            for part in [SpanPart::Webhook, SpanPart::Verify, SpanPart::Store].into_iter().chain(attempts) {
                assert_eq!(part.of(event), part.of(event));
                assert!(seen.insert(part.of(event)), "{part:?}");
            }
        }
    }

    #[test]
    fn a_part_of_all_traces_is_recorded() {
        let ids: Vec<_> = (0..4000).map(|_| *EventId::new().as_bytes()).collect();
        let taken = |part| ids.iter().filter(|id| Sampling::new(part).takes(id)).count();
        assert_eq!((taken(0.0), taken(1.0)), (0, 4000));
        let tenth = taken(0.1);
        assert!((250..600).contains(&tenth), "{tenth} of 4000");
    }

    #[test]
    fn a_handler_is_told_of_its_own_span_where_the_trace_is_recorded() {
        let (event, text) = (EventId::new(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
        assert_eq!(Sampling::new(0.0).passed_on(text, event, 1), None);
        let told = Sampling::new(1.0).passed_on(text, event, 2).expect("recorded");
        let told = TraceContext::parse(told.as_bytes()).expect("valid");
        let brought = TraceContext::parse(text.as_bytes()).expect("valid");
        assert_eq!((told.trace_id, told.span_id, told.flags), (brought.trace_id, SpanPart::Handler(2).of(event), 1));
    }
}
