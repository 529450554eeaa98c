//! Accepting connections: one that cannot be accepted never stops a listener.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// A pause after the system had no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// The next connection. `failed` hears of each that could not be accepted before it.
pub async fn next(listener: &TcpListener, failed: impl Fn(&io::Error)) -> (TcpStream, SocketAddr) {
    next_of(|| listener.accept(), failed).await
}

/// The same for whatever listens.
pub async fn next_of<T, F>(accept: impl Fn() -> F, failed: impl Fn(&io::Error)) -> T
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                failed(&error);
                sleep(EXHAUSTED).await;
            }
        }
    }
}
