//! The handler where nginx is not there: answers every request with bytes made once.

use relay_tests::process::PATIENCE;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    load::length,
    nginx::{ANSWER, BIG_BYTES},
};

/// More than a request's head and the body that came with it; a longer body is dropped as it comes.
const BUFFER: usize = 64 * 1024;

/// The role `handle`: serves an address until it is ended.
pub(crate) async fn serve(address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(answer(stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let answer =
        |bytes: usize| format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n");
    let (small, big) = (answer(ANSWER.len()) + ANSWER, answer(BIG_BYTES) + &"x".repeat(BIG_BYTES));
    let mut seen = Vec::with_capacity(BUFFER);
    while stream.read_buf(&mut seen).await? > 0 {
        while let Some(length) = length(&seen) {
            let is_big = seen.starts_with(b"POST /big");
            let mut left = length.saturating_sub(seen.len());
            seen.drain(..length.min(seen.len()));
            while left > 0 {
                let mut rest = [0; BUFFER];
                let most = left.min(BUFFER);
                left -= match timeout(PATIENCE, stream.read(&mut rest[..most])).await?? {
                    0 => return Ok(()),
                    read => read,
                };
            }
            stream.write_all(if is_big { big.as_bytes() } else { small.as_bytes() }).await?;
        }
    }
    Ok(())
}
