//! How the relay speaks to a CA: HTTP/1.1 over TLS, one request after the other on a connection that is kept.
//!
//! It knows nothing of orders. An answer that is no JSON where ACME has JSON becomes an error in words; what a CA says of
//! waiting is noted for whoever plans the next try. Invariants: https alone; every request and every answer has a bound
//! in time and size; no wait that a CA names reaches the library above [`MAX_RETRY_AFTER_S`].

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use parking_lot::Mutex;
use relay_program::{
    http1::{Connection, Http1Error},
    reason,
    tls::{Trust, TrustError, client_config, handshake_reason},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, sync, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{clock::wall, retry::asked_wait};

/// How long a request may take, from the name's resolution to the last byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest answer, in bytes: a chain of certificates is a few KiB.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Longest wait that is passed on, in seconds: a month.
const MAX_RETRY_AFTER_S: u64 = 30 * 24 * 60 * 60;

/// When renewal information is asked for again, in seconds, where the CA does not say it (RFC 9773, section 4.3.3).
const ASK_AGAIN_S: u64 = 6 * 60 * 60;

/// One client of one CA; clones share its connection.
#[derive(Clone)]
pub(super) struct CaClient(Arc<Shared>);

struct Shared {
    tls: Arc<ClientConfig>,
    /// The connection that was used last, and whose it is.
    kept: sync::Mutex<Option<(String, Connection<TlsStream<TcpStream>>)>>,
    /// What the last answer that refused something says of waiting.
    asked_wait: Mutex<Option<Duration>>,
}

impl CaClient {
    pub(super) fn new(trust: &Trust) -> Result<Self, TrustError> {
        let tls = Arc::new(client_config(trust)?);
        Ok(Self(Arc::new(Shared { tls, kept: sync::Mutex::default(), asked_wait: Mutex::default() })))
    }

    /// How long the CA asked to wait since this was asked last.
    pub(super) fn take_asked_wait(&self) -> Option<Duration> {
        self.0.asked_wait.lock().take()
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let uri = request.uri().clone();
            let said = timeout(PATIENCE, shared.ask(request)).await;
            let said = said.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())));
            said.map_err(|why| Error::Other(format!("{}: {why}", shown(&uri)).into()))
        })
    }
}

impl Shared {
    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, String> {
        let (mut head, body) = request.into_parts();
        let Ok(body) = body.collect().await;
        let body = body.to_bytes();
        let authority = head.uri.authority().filter(|_| head.uri.scheme_str() == Some("https"));
        let authority = authority.filter(|authority| !authority.as_str().contains('@')).ok_or("not an https URL")?;
        let (authority, host) = (authority.as_str().to_owned(), authority.host().to_owned());
        let port = head.uri.port_u16().unwrap_or(443);
        let value = HeaderValue::try_from(&authority).map_err(|_| "not a host")?;
        head.headers.insert(header::HOST, value);
        let question = Request::from_parts(head, body);
        let mut kept = self.kept.lock().await;
        let mut answer = None;
        if let Some((_, mut connection)) = kept.take().filter(|(whose, _)| *whose == authority)
            && connection.is_quiet()
        {
            // A connection that the CA has closed meanwhile says nothing about the CA.
            answer = exchange(&mut connection, question.clone()).await.ok().map(|answer| (answer, connection));
        }
        let (answer, connection) = match answer {
            Some(answered) => answered,
            None => {
                let mut connection = self.connect(&host, port).await?;
                let answer = exchange(&mut connection, question.clone()).await.map_err(|error| error.to_string())?;
                (answer, connection)
            }
        };
        if connection.may_be_reused() {
            *kept = Some((authority, connection));
        }
        drop(kept);
        self.judge(&question, answer)
    }

    async fn connect(&self, host: &str, port: u16) -> Result<Connection<TlsStream<TcpStream>>, String> {
        let bare = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| reason::of_io(&error))?;
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| "its host is no name for TLS")?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let remedy = "name the CA's own root in tls.acme.ca";
        let stream = connector.connect(name, stream).await.map_err(|error| handshake_reason(&error, remedy))?;
        Ok(Connection::new(stream, MAX_HEAD_BYTES))
    }

    fn judge(&self, question: &Request<Bytes>, mut answer: Response<Bytes>) -> Result<BytesResponse, String> {
        let status = answer.status();
        let waits =
            answer.headers().get(header::RETRY_AFTER).and_then(|value| asked_wait(value.to_str().ok()?, wall()));
        if let Some(wait) = waits {
            // The library adds it to the time, which has an end.
            let seconds = wait.as_secs().min(MAX_RETRY_AFTER_S);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status.is_success() {
            if waits.is_none() && question.method() == Method::GET {
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ASK_AGAIN_S));
            }
            let (parts, body) = answer.into_parts();
            return Ok(BytesResponse { parts, body: Box::new(body) });
        }
        *self.asked_wait.lock() = waits;
        let problem = serde_json::from_slice::<Problem>(answer.body());
        // The directory has no problem documents, and a proxy before the CA knows none.
        if question.method() != Method::POST || !problem.is_ok_and(|problem| problem.r#type.is_some()) {
            return Err(unexpected(status));
        }
        let (parts, body) = answer.into_parts();
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

async fn exchange(
    connection: &mut Connection<TlsStream<TcpStream>>,
    question: Request<Bytes>,
) -> Result<Response<Bytes>, Http1Error> {
    let head = connection.ask(question).await?;
    let mut answer = Response::new(connection.collect(MAX_ANSWER_BYTES).await?);
    *answer.status_mut() = head.status;
    for (name, value) in head.headers.iter() {
        let name = http::HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            answer.headers_mut().append(name, value);
        }
    }
    Ok(answer)
}

fn unexpected(status: StatusCode) -> String {
    format!("it answered {status}, and not as an ACME server does; look at tls.acme.directory")
}

/// Scheme, host and path: nothing in them is secret, but what stands behind a `?` may be.
fn shown(uri: &Uri) -> String {
    format!("https://{}{}", uri.authority().map_or("", |authority| authority.as_str()), uri.path())
}
