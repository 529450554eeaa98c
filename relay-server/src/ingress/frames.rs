//! HTTP/2 frames that neither begin a request nor carry a body: so many of them in a row, and no more.
//!
//! h2 answers each SETTINGS and PING and takes each PRIORITY and WINDOW_UPDATE, at any rate and for as long as they come.
//! What a peer has sent lies in the system's buffers, megabytes of it, and is worked off even when the peer has gone. So
//! frames are counted on their way to h2, by their heads alone. A stream that begins, a byte of a body and a piece of an
//! answer begin the count anew: whoever takes a long answer gives window for it again and again.
//!
//! Judges no frame: what is wrong with one is for h2 to say.

/// So many frames in a row. A peer that pings every second while it waits for an answer may do so for hours.
pub(crate) const MAX_H2_EMPTY_FRAMES: u32 = 10_000;

/// What a connection begins with (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// A frame's length, type, flags and stream (RFC 9113, section 4.1).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct FrameWatch {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    filled: usize,
    /// Bytes that come before the next head.
    skipped: usize,
    in_a_row: u32,
    /// The last stream that began; each has a larger number than those before.
    stream: u32,
    /// Pieces of answers that had been sent when it was looked last.
    sent: u64,
}

/// Too many of them came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyFrames;

impl FrameWatch {
    /// One for a connection whose preface is still to come.
    pub(super) const fn new() -> Self {
        Self { head: [0; HEAD_BYTES], filled: 0, skipped: PREFACE_BYTES, in_a_row: 0, stream: 0, sent: 0 }
    }

    /// Bytes that came, after so many pieces of answers were sent on this connection.
    pub(super) fn saw(&mut self, mut bytes: &[u8], sent: u64) -> Result<(), TooManyFrames> {
        if self.sent != sent {
            (self.sent, self.in_a_row) = (sent, 0);
        }
        while !bytes.is_empty() {
            let skipped = self.skipped.min(bytes.len());
            self.skipped -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD_BYTES - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                self.count()?;
            }
        }
        Ok(())
    }

    /// The head is whole.
    fn count(&mut self) -> Result<(), TooManyFrames> {
        let [high, middle, low, kind, _flags, ref stream @ ..] = self.head;
        let stream = u32::from_be_bytes(*stream) & 0x7fff_ffff;
        let payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skipped = payload;
        self.in_a_row = match kind {
            HEADERS if stream > self.stream => 0,
            DATA if payload > 0 => 0,
            _ => self.in_a_row + 1,
        };
        if kind == HEADERS {
            self.stream = self.stream.max(stream);
        }
        if self.in_a_row > MAX_H2_EMPTY_FRAMES { Err(TooManyFrames) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        frame_of(1, kind, payload)
    }

    fn frame_of(stream: u8, kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, stream], &vec![0xff; payload]].concat()
    }

    fn begun() -> FrameWatch {
        let mut watch = FrameWatch::new();
        watch.saw(&[b'x'; PREFACE_BYTES], 0).unwrap();
        watch.saw(&frame(HEADERS, 40), 0).unwrap();
        watch
    }

    #[test]
    fn so_many_frames_in_a_row_may_carry_nothing_and_no_more() {
        let most = usize::try_from(MAX_H2_EMPTY_FRAMES).unwrap();
        for empty in [
            frame(HEADERS, 9),
            frame(PING, 8),
            frame(4, 6),
            frame(8, 4),
            frame(2, 5),
            frame(DATA, 0),
            frame(9, 100),
            frame(200, 0),
        ] {
            let mut watch = begun();
            assert_eq!(watch.saw(&empty.repeat(most), 0), Ok(()));
            assert_eq!(watch.saw(&empty, 0), Err(TooManyFrames), "{:?}", &empty[..4]);
            for whole in [frame_of(3, HEADERS, 40), frame(DATA, 1)] {
                let mut watch = begun();
                watch.saw(&empty.repeat(most), 0).unwrap();
                watch.saw(&whole, 0).unwrap();
                assert_eq!(watch.saw(&empty.repeat(most), 0), Ok(()));
                assert_eq!(watch.saw(&empty, 1), Ok(()), "a piece of an answer was sent");
                assert_eq!(watch.saw(&empty.repeat(most), 1), Err(TooManyFrames));
            }
        }
    }

    #[test]
    fn frames_are_found_wherever_they_are_cut() {
        let some = [frame(PING, 8), frame(HEADERS, 300), frame(DATA, 70_000), frame(4, 0), frame(PING, 8)].concat();
        for step in [1, 2, 7, 9, 10, 1000, some.len()] {
            let mut watch = begun();
            for piece in some.chunks(step) {
                watch.saw(piece, 0).unwrap();
            }
            assert_eq!((watch.in_a_row, watch.filled, watch.skipped), (2, 0, 0), "{step}");
        }
    }
}
