//! A peer in raw frames (RFC 6455, section 5.2): writes what no library would, and reads strictly.

use std::{fmt, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{sleep, timeout},
};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// After so long nothing comes any more. Under paused time that is when every task waits.
const SILENCE: Duration = Duration::from_secs(10);

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The final bit, the reserved bits and the opcode.
    first: u8,
    payload: Vec<u8>,
}

/// The last frame of its message.
pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { first: 0x80 | opcode, payload: payload.as_ref().to_vec() }
}

/// A frame that another one follows.
pub(crate) fn part(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { first: opcode, payload: payload.as_ref().to_vec() }
}

impl Frame {
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits << 4;
        self
    }

    fn bytes(&self, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let len = self.payload.len();
        let mut bytes = vec![self.first];
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(len @ ..126), _) => bytes.push(bit | len),
            (_, Ok(len)) => {
                bytes.push(bit | 126);
                bytes.extend(len.to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend(MASK);
            bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

/// What came, as far as a case looks at it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Message(u8, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Nothing, while there was time.
    Silence,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, payload) = match self {
            Self::Message(opcode, payload) => (format!("message {opcode}"), payload.as_slice()),
            Self::Ping(payload) => ("ping".to_owned(), payload.as_slice()),
            Self::Pong(payload) => ("pong".to_owned(), payload.as_slice()),
            Self::Silence => return f.write_str("silence"),
        };
        write!(f, "{kind} of {} bytes {:?}", payload.len(), payload[..payload.len().min(24)].escape_ascii().to_string())
    }
}

/// How the other side ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The code of its close, 1005 for one without a code.
    pub(crate) code: Option<u16>,
    /// It said its close before this side did.
    pub(crate) is_first: bool,
    /// It will send no more.
    pub(crate) at_end: bool,
}

pub(crate) struct Peer {
    stream: Option<DuplexStream>,
    /// This side masks its frames, and the other one does not; or the other way round.
    masks: bool,
    read: Vec<u8>,
    /// A message whose last frame has yet to come.
    begun: Option<(u8, Vec<u8>)>,
    said_close: bool,
    pub(crate) seen: Vec<Seen>,
    pub(crate) ending: Ending,
}

impl Peer {
    pub(crate) fn new(stream: DuplexStream, masks: bool) -> Self {
        let (read, seen, ending) = (Vec::new(), Vec::new(), Ending::default());
        Self { stream: Some(stream), masks, read, begun: None, said_close: false, seen, ending }
    }

    /// Whether the other side has not said that it ends.
    pub(crate) fn is_open(&self) -> bool {
        self.ending == Ending::default()
    }

    /// Writes frames in pieces of so many bytes, each once the one before has been looked at; `None`: all at once.
    pub(crate) async fn write(&mut self, frames: &[Frame], piece: Option<usize>) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes(self.masks)).collect();
        self.said_close |= frames.iter().any(|frame| frame.first & 0xf == CLOSE) && self.is_open();
        for piece in bytes.chunks(piece.unwrap_or(bytes.len()).max(1)) {
            self.write_bytes(piece).await;
        }
    }

    /// The bytes of one frame, cut at these places of its payload.
    pub(crate) fn cut(&self, frame: &Frame, places: &[usize]) -> Vec<Vec<u8>> {
        let bytes = frame.bytes(self.masks);
        let head = bytes.len() - frame.payload.len();
        let ends = places.iter().map(|place| head + place).chain([bytes.len()]);
        let mut start = 0;
        ends.map(|end| bytes[std::mem::replace(&mut start, end)..end].to_vec()).collect()
    }

    pub(crate) async fn write_bytes(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            // The other side may have left; what it said before counts.
            let _ = stream.write_all(bytes).await;
            // Over as soon as every other task waits.
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Reads until so much was seen, until silence, or until the other side ends; whether there was silence.
    pub(crate) async fn read_until(&mut self, seen: usize) -> Result<bool, String> {
        while self.seen.len() < seen && self.is_open() {
            if !self.read_more().await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads until the other side will send no more, or until silence.
    pub(crate) async fn read_to_end(&mut self) -> Result<(), String> {
        while !self.ending.at_end && self.read_more().await? {
            if !self.masks && self.said_close && self.ending.code.is_some() {
                // A server ends the connection once both sides have said their close (RFC 6455, section 7.1.1).
                let Some(mut stream) = self.stream.take() else { break };
                let _ = stream.shutdown().await;
                self.stream = Some(stream);
            }
        }
        Ok(())
    }

    /// Reads once and takes in whole frames; false if nothing came.
    async fn read_more(&mut self) -> Result<bool, String> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        match timeout(SILENCE, stream.read_buf(&mut self.read)).await {
            Err(_) => return Ok(false),
            Ok(Err(_) | Ok(0)) => self.ending.at_end = true,
            Ok(Ok(_)) => {}
        }
        while let Some((first, payload)) = self.take_frame()? {
            self.take_in(first, payload)?;
        }
        if self.ending.at_end && !self.read.is_empty() {
            return Err(format!("the connection ended within a frame: {:?}", self.read));
        }
        Ok(true)
    }

    fn take_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        let &[first, second, ref rest @ ..] = self.read.as_slice() else { return Ok(None) };
        if (second & 0x80 != 0) == self.masks {
            return Err("frames of a client are masked, those of a server are not".to_owned());
        }
        let mask_len = if self.masks { 0 } else { 4 };
        let (len, len_len, least) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2, 126),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8, 0x1_0000),
            (126 | 127, _) => return Ok(None),
            (len, _) => (u64::from(len), 0, 0),
        };
        if len < least {
            return Err(format!("a length of {len} is not in its shortest form"));
        }
        let head = 2 + len_len + mask_len;
        let end = head + usize::try_from(len).map_err(|_| format!("a length of {len}"))?;
        let Some(payload) = self.read.get(head..end) else { return Ok(None) };
        let mut payload = payload.to_vec();
        if !self.masks {
            let mask = &self.read[head - mask_len..head];
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        self.read.drain(..end);
        Ok(Some((first, payload)))
    }

    fn take_in(&mut self, first: u8, payload: Vec<u8>) -> Result<(), String> {
        let (is_last, opcode) = (first & 0x80 != 0, first & 0xf);
        if first & 0x70 != 0 {
            return Err(format!("reserved bits are set: {first:#x}"));
        }
        if self.ending.code.is_some() {
            return Err(format!("a frame with opcode {opcode} behind the close"));
        }
        if opcode >= CLOSE && (!is_last || payload.len() > 125) {
            return Err(format!("a control frame in parts, or of {} bytes", payload.len()));
        }
        match (opcode, self.begun.take()) {
            (PING, begun) => {
                self.begun = begun;
                self.seen.push(Seen::Ping(payload));
            }
            (PONG, begun) => {
                self.begun = begun;
                self.seen.push(Seen::Pong(payload));
            }
            (CLOSE, _) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                if payload.len() == 1 || std::str::from_utf8(payload.get(2..).unwrap_or_default()).is_err() {
                    return Err(format!("a close that is none: {payload:?}"));
                }
                self.ending.code = Some(code);
                self.ending.is_first = !self.said_close;
            }
            (CONTINUATION, Some((opcode, mut begun))) => {
                begun.extend(payload);
                self.take_part(is_last, opcode, begun);
            }
            (TEXT | BINARY, None) => self.take_part(is_last, opcode, payload),
            (opcode, begun) => return Err(format!("opcode {opcode} where begun is {}", begun.is_some())),
        }
        Ok(())
    }

    fn take_part(&mut self, is_last: bool, opcode: u8, bytes: Vec<u8>) {
        if is_last {
            self.seen.push(Seen::Message(opcode, bytes));
        } else {
            self.begun = Some((opcode, bytes));
        }
    }
}
