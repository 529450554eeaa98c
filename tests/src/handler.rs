//! A local handler: whatever closure the test gives, behind a real HTTP server on a free port.

use std::{convert::Infallible, future::Future, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

/// A handler's body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A running handler.
pub struct Handler {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Handler {
    /// Serves every request with `answer`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start<F, A>(answer: A) -> std::io::Result<Self>
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    // A broken connection is the tests' business, not the handler's.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// A handler that answers 200 and reports each head.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn telling() -> std::io::Result<(Self, mpsc::UnboundedReceiver<Parts>)> {
        let (tell, heads) = mpsc::unbounded_channel();
        let handler = Self::start(move |request: Request<Incoming>| {
            let _nobody_listens = tell.send(request.into_parts().0);
            async { Response::new(full("ok")) }
        });
        Ok((handler.await?, heads))
    }

    /// A handler that sends the body back and says in headers what it saw.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn echo() -> std::io::Result<Self> {
        Self::start(|request: Request<Incoming>| async move {
            let started = std::time::Instant::now();
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let mut response = Response::new(full(body));
            let headers = response.headers_mut();
            if let Ok(method) = http::HeaderValue::from_str(head.method.as_str()) {
                headers.insert("x-seen-method", method);
            }
            if let Ok(target) = http::HeaderValue::from_str(&head.uri.to_string()) {
                headers.insert("x-seen-target", target);
            }
            headers.insert("x-handler-us", http::HeaderValue::from(started.elapsed().as_micros() as u64));
            for value in head.headers.get_all("x-tag") {
                headers.append("x-seen-tag", value.clone());
            }
            for name in [
                "relay-verified",
                "relay-client-certificate",
                "relay-endpoint",
                "relay-event-id",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "x-real-ip",
                "content-length",
                "transfer-encoding",
            ] {
                if let Some(value) = head.headers.get(name)
                    && let Ok(name) = http::HeaderName::try_from(format!("x-seen-{name}"))
                {
                    headers.insert(name, value.clone());
                }
            }
            response
        })
        .await
    }

    /// Its port, as `listen` takes it.
    #[must_use]
    pub fn port(&self) -> String {
        self.address.port().to_string()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole body.
#[must_use]
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}
