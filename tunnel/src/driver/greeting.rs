//! How a tunnel begins: the hello, and the welcome.

use std::{future::poll_fn, sync::Arc, task::Poll};

use relay_proto::{Close, CloseCode, Hello, Instant, Limits, Session, Welcome};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Driver;
use crate::shared::{Arrivals, Handle};

/// The session's clock begins with its driver.
const START: Instant = Instant::from_micros(0);

/// An agent that has said hello and waits for its welcome.
pub struct Greeting<S> {
    /// What the agent said.
    pub hello: Hello,
    driver: Box<Driver<S>>,
}

/// Begins the relay's end of a tunnel on a socket that has just become a WebSocket: waits for hello.
///
/// `leftover` is what was read behind the upgrade request. `S` is the stream below the WebSocket.
///
/// # Errors
/// How the session ended, if it ended before hello.
pub async fn relay<S>(stream: S, leftover: Vec<u8>, limits: Limits) -> Result<Greeting<S>, Close>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let session = Session::relay(limits, START);
    let mut driver = Box::new(Driver::new(stream, leftover, Role::Server, session).await);
    let hello = driver.until(|driver| driver.hello.take()).await?;
    Ok(Greeting { hello, driver })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeting<S> {
    /// Opens the session.
    #[must_use]
    pub fn welcome(self, welcome: Welcome) -> (Handle, Arrivals, Box<Driver<S>>) {
        let mut driver = self.driver;
        driver.session.welcome(welcome);
        driver.open();
        (Handle(Arc::clone(&driver.shared)), Arrivals(Arc::clone(&driver.shared)), driver)
    }

    /// Answers with a welcome that accepts nothing, and closes.
    pub async fn refuse(self, welcome: Welcome, reason: &str) {
        let (handle, _, driver) = self.welcome(welcome);
        handle.close_when_idle(CloseCode::Refused, reason);
        driver.await;
    }
}

/// Begins the agent's end of a tunnel on a WebSocket: says hello and waits for the welcome.
///
/// # Errors
/// How the session ended, if it ended before the welcome.
pub async fn agent<S>(
    stream: S,
    leftover: Vec<u8>,
    hello: Hello,
    limits: Limits,
) -> Result<(Welcome, Handle, Arrivals, Driver<S>), Close>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let session = Session::agent(hello, limits, START);
    let mut driver = Driver::new(stream, leftover, Role::Client, session).await;
    let welcome = driver.until(|driver| driver.welcome.take()).await?;
    let shared = Arc::clone(&driver.shared);
    Ok((welcome, Handle(Arc::clone(&shared)), Arrivals(shared), driver))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Runs until something has come, or until the end.
    async fn until<T>(&mut self, mut came: impl FnMut(&mut Self) -> Option<T>) -> Result<T, Close> {
        poll_fn(|cx| {
            let ended = self.poll_turn(cx);
            match (came(self), ended) {
                (Some(value), _) => Poll::Ready(Ok(value)),
                (None, Poll::Ready(close)) => Poll::Ready(Err(close)),
                (None, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }
}
