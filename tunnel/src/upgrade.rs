//! Joins an exchange whose response was 101 to the connection that was upgraded.
//!
//! From then on the bodies are raw bytes both ways. An end of one direction is a half-close; the other
//! goes on. There is no limit on silence: the connection below says when its other end is gone.

use std::{future::poll_fn, io, pin::Pin};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use relay_proto::{HeaderBlock, ResetCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

use crate::exchange::{Receiver, Sender};

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// How much an upgraded connection carried, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the tunnel to the connection.
    pub out_of_tunnel: u64,
    /// From the connection to the tunnel.
    pub into_tunnel: u64,
}

/// Carries bytes both ways until both directions have ended.
///
/// # Errors
/// What broke. The stream is reset, and the connection is closed.
pub async fn join<I>(connection: I, sender: Sender, receiver: Receiver, carried: &mut Carried) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite,
{
    let (reader, writer) = split(connection);
    let Carried { out_of_tunnel, into_tunnel } = carried;
    tokio::try_join!(upload(reader, sender, into_tunnel), download(writer, receiver, out_of_tunnel))?;
    Ok(())
}

async fn upload<I: AsyncRead>(mut from: ReadHalf<I>, mut to: Sender, count: &mut u64) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read?,
            gone = to.closed() => return Err(io::Error::other(gone)),
        };
        if read == 0 {
            to.finish(HeaderBlock::new());
            return Ok(());
        }
        *count += read as u64;
        to.send(buffer.split().freeze()).await.map_err(io::Error::other)?;
    }
}

async fn download<I: AsyncWrite>(mut to: WriteHalf<I>, mut from: Receiver, count: &mut u64) -> io::Result<()> {
    while let Some(bytes) = next(&mut from).await? {
        *count += bytes.len() as u64;
        if let Err(error) = to.write_all(&bytes).await {
            from.reset(ResetCode::Broken);
            return Err(error);
        }
    }
    to.shutdown().await
}

/// The next bytes; trailers mean nothing here.
async fn next(from: &mut Receiver) -> io::Result<Option<Bytes>> {
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *from).poll_frame(cx)).await;
        match frame.transpose().map_err(io::Error::other)?.map(http_body::Frame::into_data) {
            None => return Ok(None),
            Some(Ok(bytes)) => return Ok(Some(bytes)),
            Some(Err(_)) => {}
        }
    }
}
