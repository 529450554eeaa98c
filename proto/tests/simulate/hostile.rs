//! A peer that does not keep to the protocol: its frames are changed, dropped, repeated and invented.
//!
//! Frames are cut and built here once more, from the protocol's text and without the crate's own code.

use bytes::Bytes;

use crate::{
    plan::{Hostile, Side},
    rng::Rng,
};

/// Spoils the messages of one side.
pub(crate) struct Tamper {
    hostile: Hostile,
    rng: Rng,
    /// Frames that went by, to be repeated later.
    memory: Vec<Vec<u8>>,
    newest_stream: u64,
}

impl Tamper {
    pub(crate) fn new(hostile: Hostile, seed: u64) -> Self {
        Self { hostile, rng: Rng::new(seed, 4), memory: Vec::new(), newest_stream: 1 }
    }

    /// The message as the other side gets it.
    pub(crate) fn spoil(&mut self, from: Side, message: Bytes) -> Bytes {
        if from != self.hostile.from {
            return message;
        }
        let mut out = Vec::with_capacity(message.len());
        for frame in frames(&message) {
            // The session has to open first, mostly.
            let spoilt = self.rng.percent(self.hostile.percent) && (frame[0] > 2 || self.rng.percent(5));
            if spoilt {
                self.spoil_frame(frame, &mut out);
            } else {
                out.extend_from_slice(frame);
            }
            if self.memory.len() < 16 {
                self.memory.push(frame.to_vec());
            } else {
                let place = self.rng.below(16) as usize;
                self.memory[place] = frame.to_vec();
            }
            if frame[0] == 3 {
                self.newest_stream = varint(&frame[2..]).map_or(0, |(stream, _)| stream);
            }
        }
        // A message of no bytes is none.
        if out.is_empty() { Bytes::from_static(&[64, 0, 0, 0]) } else { out.into() }
    }

    fn spoil_frame(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        match self.rng.below(7) {
            0 => {} // Dropped.
            1 => {
                let mut frame = frame.to_vec();
                let place = self.rng.below(frame.len() as u64) as usize;
                frame[place] = self.rng.next() as u8;
                out.extend_from_slice(&frame);
            }
            2 => {
                out.extend_from_slice(frame);
                out.extend_from_slice(frame);
            }
            3 => {
                let place = self.rng.below(self.memory.len() as u64 + 1) as usize;
                out.extend_from_slice(self.memory.get(place).map_or(frame, Vec::as_slice));
                out.extend_from_slice(frame);
            }
            4 => out.extend_from_slice(&frame[..self.rng.below(frame.len() as u64) as usize]),
            5 => {
                out.extend_from_slice(frame);
                self.invent(out);
            }
            _ => {
                for _ in 0..self.rng.range(1, 40) {
                    self.invent(out);
                }
                out.extend_from_slice(frame);
            }
        }
    }

    /// A frame that looks right, on some stream near those in use.
    fn invent(&mut self, out: &mut Vec<u8>) {
        let kind = if self.rng.percent(3) { self.rng.next() as u8 } else { self.rng.range(3, 13) as u8 };
        let stream = match kind {
            9.. => 0,
            3 if self.rng.percent(70) => self.newest_stream + self.rng.range(1, 3),
            _ => (self.newest_stream + 1).saturating_sub(self.rng.below(5)),
        };
        if kind == 3 {
            self.newest_stream = self.newest_stream.max(stream);
        }
        let mut payload = Vec::new();
        match kind {
            3 => {
                let mut fields = vec![1, 1, b'e', 2, 16];
                fields.extend_from_slice(&[0x77; 16]);
                fields.extend_from_slice(&[4, 1, b'P', 7, 1, 9]);
                payload.push(fields.len() as u8);
                payload.extend_from_slice(&fields);
                payload.extend_from_slice(&[4, 1, b'a', 1, b'b']);
                self.body(&mut payload);
            }
            4 => {
                payload.extend_from_slice(&[4, 1, 2, 0x40, 200, 0]);
                self.body(&mut payload);
            }
            5 => self.body(&mut payload),
            6 if self.rng.percent(50) => payload.extend_from_slice(&[1, b't', 1, b'v']),
            7 => payload.push(self.rng.below(9) as u8),
            8 => put_varint(&mut payload, self.rng.scale(1, 1 << 31)),
            9 | 10 => payload.extend_from_slice(&self.rng.below(4).to_be_bytes()),
            11 => {
                payload.extend_from_slice(&[24, 1, 16]);
                payload.extend_from_slice(&[0x55; 16]);
                payload.extend_from_slice(&[3, 1, 1, 4, 1, self.rng.below(4) as u8]);
            }
            12 => payload.extend_from_slice(&[1, 1, self.rng.below(4) as u8, 2, 1, b'x']),
            _ => {}
        }
        out.extend_from_slice(&[kind, self.rng.below(2) as u8]);
        put_varint(out, stream);
        let claimed = if self.rng.percent(3) { self.rng.scale(1, 1 << 20) } else { payload.len() as u64 };
        put_varint(out, claimed);
        out.extend_from_slice(&payload);
    }

    fn body(&mut self, payload: &mut Vec<u8>) {
        let len = if self.rng.percent(10) { self.rng.scale(1, 70_000) } else { self.rng.below(20) };
        payload.resize(payload.len() + len as usize, 0xbb);
    }
}

/// The frames of an honest message.
fn frames(mut message: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !message.is_empty() {
        let (_, stream_len) = varint(&message[2..]).expect("whole frames");
        let (len, len_len) = varint(&message[2 + stream_len..]).expect("whole frames");
        let (frame, rest) = message.split_at(2 + stream_len + len_len + len as usize);
        frames.push(frame);
        message = rest;
    }
    frames
}

fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = 1 << (bytes.first()? >> 6);
    let value = bytes.get(1..len)?.iter().fold(u64::from(bytes[0] & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, len))
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        _ => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
    }
}
