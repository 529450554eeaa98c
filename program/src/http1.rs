//! One HTTP/1.1 connection to somebody who is asked: requests one after the other, answers read to a bound.
//!
//! How the connection is made, how long an answer may take and what it means is for whoever asks.

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// What stands for itself in every part of an address (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A connection that can be asked. It ends when this is dropped.
#[derive(Debug)]
pub struct Http1 {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Http1 {
    /// Speaks HTTP/1.1 over a stream; an answer's head has at most so many bytes.
    pub async fn over<S>(stream: S, max_head_bytes: usize) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = Builder::new().max_buf_size(max_head_bytes).handshake(TokioIo::new(stream)).await?;
        // How it ended is told by the question that it ended under.
        let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

/// A body of at most so many bytes; an error if it breaks off or is longer.
pub async fn collect(body: Incoming, most: usize) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Limited::new(body, most).collect().await.map(http_body_util::Collected::to_bytes)
}

/// `Authorization: Bearer …`, which nothing prints; nothing where the token cannot stand in a header.
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// One part of a path or a query, so that nothing in it is taken for more.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_address_are_encoded() {
        assert_eq!(encoded("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(encoded("a/b?c&d=ä"), "a%2Fb%3Fc%26d%3D%C3%A4");
    }
}
