//! A sender of webhooks: one request over one new connection.

use std::time::SystemTime;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use relay_schemes::{Request as Unsigned, Secret};
use tokio::net::TcpStream;

/// Sends a request and returns the answer once its head is there.
///
/// # Errors
/// What broke.
pub async fn send_streaming(address: &str, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Sends a request and collects its answer.
///
/// # Errors
/// What broke; an answer that is not whole is an error.
pub async fn send(address: &str, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
    let (head, body) = send_streaming(address, request).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// A sender that keeps its connection.
pub struct Keeper(http1::SendRequest<Full<Bytes>>);

impl Keeper {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens there.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and collects its answer.
    ///
    /// # Errors
    /// What broke.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        self.0.ready().await?;
        let (head, body) = self.0.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

/// A request to `http://hook.test` with a body.
///
/// # Panics
/// If the parts do not make a request, which is the test's mistake.
#[must_use]
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(target).header("host", "relay.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("the test's request is valid")
}

/// The headers that a provider adds to a JSON body which it signs now under `secret`.
///
/// # Errors
/// If there is no such provider, or nobody but itself can sign for it.
pub fn signed(provider: &str, secret: &str, body: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
    let row = relay_schemes::provider(provider).with_context(|| format!("no provider {provider}"))?;
    let scheme = row.scheme.as_ref().with_context(|| format!("{provider} does not sign"))?;
    let keys = scheme.keys(&[Secret::new(secret)])?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let none: [(&str, &str); 0] = [];
    let unsigned = Unsigned { method: "POST", url: "https://hooks.example.com/", headers: &none, body };
    Ok(scheme.sign(&keys, &unsigned, Some("msg_1"), i64::try_from(now)?)?.headers)
}
