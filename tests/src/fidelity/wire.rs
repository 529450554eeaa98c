//! HTTP/1.1 in raw bytes, for both ends of a case: nothing is normalised, joined, or added.
//!
//! A library would hide what these cases are about. It reads what a relay may lawfully write and nothing
//! else: anything odd is an error, never a guess.

use std::fmt::{self, Write as _};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::process::PATIENCE;

/// Longest head that is read.
const MAX_HEAD_BYTES: usize = 256 * 1024;

/// Header lines in their order, names in lower case.
pub type Lines = Vec<(String, Vec<u8>)>;

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// It says nothing.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A message's head.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line, byte for byte.
    pub start: Vec<u8>,
    /// The others.
    pub lines: Lines,
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its head.
    pub head: Head,
    /// Its body, without framing.
    pub body: Vec<u8>,
    /// What came after a chunked body.
    pub trailers: Lines,
}

/// One end of a connection, and what was read from it too early.
#[derive(Debug)]
pub struct Wire<S = TcpStream> {
    stream: S,
    ahead: Vec<u8>,
}

impl Wire {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// If nobody listens there.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// If the other end is gone.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Closes the direction that this end writes.
    ///
    /// # Errors
    /// If the other end is gone.
    pub async fn half_close(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads from an open stream.
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// More bytes; none at the end.
    async fn more(&mut self) -> anyhow::Result<bool> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await;
        Ok(read.context("nothing came in time")?? > 0)
    }

    /// Reads up to and with `end`, and gives what stands before it. `None` at a clean end before any byte.
    async fn until(&mut self, end: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|bytes| bytes == end) {
                let line = self.ahead[..at].to_vec();
                self.ahead.drain(..at + end.len());
                return Ok(Some(line));
            }
            ensure!(self.ahead.len() < MAX_HEAD_BYTES, "no end of a head");
            if !self.more().await? {
                ensure!(self.ahead.is_empty(), "a head broke off: {}", shown(&self.ahead));
                return Ok(None);
            }
        }
    }

    /// Reads exactly `len` bytes.
    ///
    /// # Errors
    /// If there are less.
    pub async fn exactly(&mut self, len: usize) -> anyhow::Result<Vec<u8>> {
        while self.ahead.len() < len {
            ensure!(self.more().await?, "a body broke off after {} of {len} bytes", self.ahead.len());
        }
        let rest = self.ahead.split_off(len);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// Reads to the end of the stream.
    ///
    /// # Errors
    /// If it breaks instead.
    pub async fn to_end(&mut self) -> anyhow::Result<Vec<u8>> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Reads a head; none if the stream ended.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn head(&mut self) -> anyhow::Result<Option<Head>> {
        let Some(head) = self.until(b"\r\n\r\n").await? else { return Ok(None) };
        let mut lines = Vec::new();
        let mut start = None;
        for line in split(&head) {
            if start.is_none() {
                start = Some(line.to_vec());
            } else {
                lines.push(parse_line(line)?);
            }
        }
        Ok(Some(Head { start: start.context("an empty head")?, lines }))
    }

    /// Reads one chunk of a chunked body; empty for the last one.
    ///
    /// # Errors
    /// If it is no chunk.
    pub async fn chunk(&mut self) -> anyhow::Result<Vec<u8>> {
        let size = self.until(b"\r\n").await?.context("a chunked body broke off")?;
        let size = usize::from_str_radix(std::str::from_utf8(&size)?, 16)?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut data = self.exactly(size + 2).await?;
        ensure!(data.ends_with(b"\r\n"), "a chunk longer than it says");
        data.truncate(size);
        Ok(data)
    }

    /// Reads the lines after the last chunk.
    ///
    /// # Errors
    /// If they do not end.
    pub async fn trailers(&mut self) -> anyhow::Result<Lines> {
        let mut lines = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?.context("trailers broke off")?;
            if line.is_empty() {
                return Ok(lines);
            }
            lines.push(parse_line(&line)?);
        }
    }

    /// Reads what follows a head, by its framing.
    ///
    /// # Errors
    /// If it is not whole.
    pub async fn rest(&mut self, framing: Framing) -> anyhow::Result<(Vec<u8>, Lines)> {
        match framing {
            Framing::None => Ok((Vec::new(), Vec::new())),
            Framing::Length(len) => Ok((self.exactly(usize::try_from(len)?).await?, Vec::new())),
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let chunk = self.chunk().await?;
                    if chunk.is_empty() {
                        return Ok((body, self.trailers().await?));
                    }
                    body.extend_from_slice(&chunk);
                }
            }
        }
    }

    /// Reads a request; none if the stream ended before it.
    ///
    /// # Errors
    /// If it is not whole.
    pub async fn request(&mut self) -> anyhow::Result<Option<Message>> {
        let Some(head) = self.head().await? else { return Ok(None) };
        let (body, trailers) = self.rest(head.framing()?).await?;
        Ok(Some(Message { head, body, trailers }))
    }

    /// Reads the answer to a request with this method. Interim ones are left out.
    ///
    /// # Errors
    /// If it is not whole.
    pub async fn answer(&mut self, method: &str) -> anyhow::Result<Message> {
        loop {
            let head = self.head().await?.context("no answer")?;
            let status = head.status()?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let none = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let (body, trailers) = match head.framing()? {
                _ if none => (Vec::new(), Vec::new()),
                Framing::None => (self.to_end().await?, Vec::new()),
                framing => self.rest(framing).await?,
            };
            return Ok(Message { head, body, trailers });
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.iter().map(|(name, value)| format!("{name}: {}", shown(value)));
        f.debug_list().entry(&shown(&self.start)).entries(lines).finish()
    }
}

impl Head {
    /// A header's values in their order.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        self.lines.iter().filter(|(seen, _)| seen == name).map(|(_, value)| value.as_slice()).collect()
    }

    /// A header's one value as text; empty where there is none.
    #[must_use]
    pub fn one(&self, name: &str) -> String {
        let all = self.all(name);
        assert!(all.len() < 2, "several values of {name}");
        all.first().map(|value| shown(value)).unwrap_or_default()
    }

    /// Where the body ends.
    ///
    /// # Errors
    /// If it is not said in one lawful way.
    pub fn framing(&self) -> anyhow::Result<Framing> {
        match (self.all("content-length").as_slice(), self.all("transfer-encoding").as_slice()) {
            ([], []) => Ok(Framing::None),
            ([len], []) => Ok(Framing::Length(std::str::from_utf8(len)?.parse()?)),
            ([], [b"chunked"]) => Ok(Framing::Chunked),
            (len, coding) => bail!("doubtful framing: {len:?} and {coding:?}"),
        }
    }

    /// A response's status.
    ///
    /// # Errors
    /// If it is no response.
    pub fn status(&self) -> anyhow::Result<u16> {
        let line = shown(&self.start);
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        status.with_context(|| format!("no status in {line}"))?.parse().map_err(Into::into)
    }

    /// A request's method.
    #[must_use]
    pub fn method(&self) -> String {
        shown(self.start.split(|byte| *byte == b' ').next().unwrap_or_default())
    }

    /// A request's target, byte for byte.
    #[must_use]
    pub fn target(&self) -> Vec<u8> {
        let mut parts = self.start.splitn(2, |byte| *byte == b' ').skip(1);
        let rest = parts.next().unwrap_or_default();
        rest.strip_suffix(b" HTTP/1.1").unwrap_or(rest).to_vec()
    }
}

/// A message's bytes out of its lines and its body, as they are.
#[must_use]
pub fn message(start: &str, lines: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{start}\r\n").into_bytes();
    for (name, value) in lines {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A body in chunks of at most `size` bytes, without the last one.
#[must_use]
pub fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 16);
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Bytes for people.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => write!(text, "\\x{byte:02x}").expect("a string takes all"),
        }
    }
    text
}

fn split(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(head);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.windows(2).position(|bytes| bytes == b"\r\n") {
            Some(at) => {
                rest = Some(&text[at + 2..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

fn parse_line(line: &[u8]) -> anyhow::Result<(String, Vec<u8>)> {
    let at = line.iter().position(|byte| *byte == b':').with_context(|| format!("no colon in {}", shown(line)))?;
    let name = std::str::from_utf8(&line[..at])?.to_ascii_lowercase();
    let padding = b" \t";
    let value = &line[at + 1..];
    let start = value.iter().position(|byte| !padding.contains(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !padding.contains(byte)).map_or(start, |last| last + 1);
    ensure!(!value.contains(&b'\r') && !value.contains(&b'\n'), "a line within a line: {}", shown(line));
    Ok((name, value[start..end].to_vec()))
}
