//! HTTP/2 in raw frames (RFC 9113), for peers that no library would be.

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{process::PATIENCE, tls::connect};

/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The flag of HEADERS and CONTINUATION that are the last of a head.
pub const END_HEADERS: u8 = 4;
/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of SETTINGS and PING that answer one.
pub const ACK: u8 = 1;
/// The flag of DATA and HEADERS with padding.
pub const PADDED: u8 = 8;
/// The flag of HEADERS with a priority.
pub const WITH_PRIORITY: u8 = 0x20;

/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// PRIORITY.
pub const PRIORITY: u8 = 2;
/// RST_STREAM.
pub const RESET: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PUSH_PROMISE.
pub const PUSH_PROMISE: u8 = 5;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;

/// A frame.
///
/// # Panics
/// If it is longer than a frame can be.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("at most 16 MiB").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The HEADERS of a POST to `localhost`, with more lines as they are encoded.
///
/// # Panics
/// If the path is longer than a short literal.
#[must_use]
pub fn post(stream: u32, path: &str, lines: &[u8], flags: u8) -> Vec<u8> {
    // Literals without indexing (RFC 7541, section 6.2.2); `:method: POST` and `:scheme: https` by their index.
    let literal = |index: u8, text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short");
        [&[index, length], text.as_bytes()].concat()
    };
    let block = [vec![0x83, 0x87], literal(0x04, path), literal(0x01, "localhost"), lines.into()].concat();
    frame(HEADERS, flags, stream, &block)
}

/// Fields as literals without indexing under new names (RFC 7541, section 6.2.2), whatever their names are.
#[must_use]
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn push_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else { return block.push(length as u8) };
    block.push(127);
    while rest >= 128 {
        block.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or a GOAWAY.
    #[must_use]
    pub fn error_code(&self) -> Option<u32> {
        let at = match self.kind {
            RESET => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// A connection that has begun.
pub struct Peer {
    /// The socket.
    pub stream: TlsStream<TcpStream>,
}

impl Peer {
    /// Connects, says hello, and takes the relay's settings.
    ///
    /// # Errors
    /// If there is no HTTP/2.
    pub async fn connect(address: &str, trusted: &CertificateDer<'static>) -> anyhow::Result<Self> {
        let mut stream = connect(address, trusted, b"h2").await?;
        anyhow::ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "no HTTP/2 was agreed on");
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        let mut peer = Self { stream };
        // The relay's own hold once they are acknowledged.
        peer.until(|frame| frame.kind == SETTINGS && frame.flags == 0).await?;
        peer.write(frame(SETTINGS, ACK, 0, &[])).await?;
        Ok(peer)
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// The next frame.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn next(&mut self) -> anyhow::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.context("the connection ended")?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await.context("a frame broke off")?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that is wanted; all before it are left out.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> anyhow::Result<Frame> {
        let wait = async {
            loop {
                let frame = self.next().await?;
                if wanted(&frame) {
                    return anyhow::Ok(frame);
                }
            }
        };
        timeout(PATIENCE, wait).await.context("it did not come in time")?
    }
}
