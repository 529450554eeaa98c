//! Asking a running relay: its admin API over HTTP, with the token of its state directory.
//!
//! Where the relay is comes from `--admin-url`, else from the config file that it runs with; likewise the token. One
//! question, one connection, bounded in time and size. A config file that only lies in the current folder, where
//! somebody else may have put it, says nothing of where a token from outside that folder goes.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use relay_program::{
    Failure,
    http1::{Connection, bearer},
    news::{EVENT_STREAM, LAST_EVENT_ID},
};
use relay_proto::printable::without_password;
use relay_schemes::ascii_host;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use zeroize::Zeroizing;

use crate::{admin::TOKEN_FILE, config::ConfigSource};

/// The relay itself gives up after 30 s, see [`crate::admin`].
const PATIENCE: Duration = Duration::from_secs(35);
/// A handler's answer takes as long as its endpoint lets an attempt take, an hour at most.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(60 * 60 + 35);
/// A relay that takes longer to say that it is well is not.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 16 << 20;
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_TOKEN_BYTES: u64 = 4096;

/// Where a running relay is found.
#[derive(Debug, clap::Args)]
pub(super) struct Remote {
    /// The relay's admin listener; else what the config file says
    #[arg(long, env = "RELAY_ADMIN_URL", value_name = "URL")]
    admin_url: Option<String>,
    /// The file with its token; else admin.token in the state directory of the config file
    #[arg(long, env = "RELAY_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The config file that the relay runs with
    #[arg(long, env = "RELAY_CONFIG")]
    config: Option<PathBuf>,
}

impl Remote {
    /// The config file that was named.
    pub(super) fn config(&self) -> Option<PathBuf> {
        self.config.clone()
    }

    /// Asks for `path`, which begins with a slash.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(&Method::GET, path, &[])
    }

    /// Has something done.
    pub(super) fn post(&self, path: &str) -> Result<Value, Failure> {
        self.send(&Method::POST, path, &[])
    }

    /// Has something done with what is sent.
    pub(super) fn send(&self, method: &Method, path: &str, body: &[u8]) -> Result<Value, Failure> {
        json(&self.ask(method, path, body, PATIENCE)?)
    }

    /// Has an agent's handler called, and waits for what it answers.
    pub(super) fn attempt(&self, path: &str, body: &[u8]) -> Result<Value, Failure> {
        json(&self.ask(&Method::POST, path, body, ATTEMPT_PATIENCE)?)
    }

    /// What is made of a question with a body.
    pub(super) fn file(&self, path: &str, body: &Value) -> Result<Bytes, Failure> {
        self.ask(&Method::POST, path, body.to_string().as_bytes(), PATIENCE)
    }

    pub(super) fn bytes(&self, path: &str) -> Result<Bytes, Failure> {
        self.ask(&Method::GET, path, &[], PATIENCE)
    }

    fn ask(&self, method: &Method, path: &str, body: &[u8], patience: Duration) -> Result<Bytes, Failure> {
        let (address, token) = self.find()?;
        let question = Request::builder().method(method.clone()).uri(path).body(Bytes::copy_from_slice(body));
        let question = question.context("the question cannot be asked")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(anyhow::Error::from)?;
        let (status, body) = runtime
            .block_on(async { timeout(patience, ask(&address, &token, question)).await })
            .map_err(|_| anyhow!("no answer in {} s", patience.as_secs()))
            .flatten()
            .map_err(|error| unreachable(&address, &error))?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    /// The relay's news, behind those of an id: an answer whose body is a stream.
    pub(super) async fn follow(&self, path: &str, last_id: Option<&str>) -> Result<Connection<TcpStream>, Failure> {
        let (address, token) = self.find()?;
        let mut question = Request::get(path).header(header::ACCEPT, EVENT_STREAM);
        if let Some(id) = last_id {
            question = question.header(LAST_EVENT_ID, id);
        }
        let question = question.body(Bytes::new()).context("the question cannot be asked")?;
        let opened = async {
            let (status, mut relay) = begin(&address, &token, question).await?;
            let said = if status.is_success() { Bytes::new() } else { relay.collect(MAX_ANSWER_BYTES).await? };
            Ok((status, relay, said))
        };
        let (status, relay, said) = timeout(PATIENCE, opened)
            .await
            .unwrap_or_else(|_| Err(anyhow!("no answer in {} s", PATIENCE.as_secs())))
            .map_err(|error| unreachable(&address, &error))?;
        if status.is_success() { Ok(relay) } else { Err(refusal(status, &said)) }
    }

    /// What the relay says of itself to whoever asks.
    pub(super) fn probe(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let address = match &self.admin_url {
            Some(url) => authority(url)?,
            None => reached(ConfigSource::at(self.config.clone()).admin()?.0),
        };
        let asked = async {
            let question = Request::get(path).header(header::HOST, address.parse::<HeaderValue>()?);
            let mut relay = Connection::new(TcpStream::connect(&address).await?, MAX_HEAD_BYTES);
            let status = relay.ask(question.body(Bytes::new())?).await?.status;
            anyhow::Ok((status, relay.collect(MAX_HEAD_BYTES).await?))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = runtime.map_err(anyhow::Error::from)?.block_on(async { timeout(PROBE_PATIENCE, asked).await });
        let late = |_| Err(anyhow!("no answer in {} s", PROBE_PATIENCE.as_secs()));
        asked.unwrap_or_else(late).map_err(|error| unreachable(&address, &error))
    }

    /// `host:port` and the token.
    fn find(&self) -> Result<(String, Zeroizing<String>), Failure> {
        let source = ConfigSource::at(self.config.clone());
        let from_config = if self.admin_url.is_none() || self.admin_token_file.is_none() {
            match source.admin() {
                Ok(found) => Some(found),
                // Without a config both can be given by hand; the error says what else there is.
                Err(_) if self.admin_url.is_some() => None,
                Err(errors) => return Err(errors.into()),
            }
        } else {
            None
        };
        let address = match (&self.admin_url, &from_config) {
            (Some(url), _) => authority(url)?,
            (None, Some((address, _))) => reached(*address),
            (None, None) => return Err(Failure::Usage("name the relay with --admin-url".to_owned())),
        };
        let beside = from_config.and_then(|(_, state)| Some(state?.join(TOKEN_FILE)));
        let Some(file) = self.admin_token_file.clone().or(beside) else {
            return Err(Failure::Usage(
                "name the file with the relay's admin token: --admin-token-file FILE".to_owned(),
            ));
        };
        if self.admin_url.is_none() && source.only_lies_here() && !is_here(&file) {
            return Err(Failure::Usage(format!(
                "relay.toml was only found in this folder, and would send the token in {} to {address}; if that is \
                 right, name it with --config relay.toml, or the relay with --admin-url",
                file.display()
            )));
        }
        let token = read(&file).map_err(|error| {
            Failure::Refused(format!(
                "cannot read the admin token: {error:#}; run this as the relay's own user, while it runs"
            ))
        })?;
        Ok((address, token))
    }
}

fn json(answer: &[u8]) -> Result<Value, Failure> {
    Ok(serde_json::from_slice(answer).context("the relay's answer is not JSON")?)
}

/// Where a listener is reached from its own machine.
fn reached(listener: SocketAddr) -> String {
    if listener.ip().is_unspecified() { format!("127.0.0.1:{}", listener.port()) } else { listener.to_string() }
}

/// Whether a file lies inside the current folder, wherever links lead. One that is not there is not read either.
fn is_here(file: &Path) -> bool {
    let (folder, file) = (std::fs::canonicalize("."), std::fs::canonicalize(file));
    file.map_or(true, |file| folder.is_ok_and(|folder| file.starts_with(folder)))
}

fn authority(url: &str) -> Result<String, Failure> {
    let shown = without_password(url);
    let wrong = || Failure::Usage(format!("--admin-url {shown}: write it like http://127.0.0.1:9090"));
    if let Some(ascii) = ascii_host(url) {
        let why = format!("--admin-url {shown}: a host's name is written in ASCII here; write it as {ascii}");
        return Err(Failure::Usage(why));
    }
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    match (uri.scheme_str(), uri.authority(), uri.path()) {
        (Some("http"), Some(authority), "/" | "") if !authority.as_str().contains('@') => {
            Ok(if authority.port().is_some() { authority.to_string() } else { format!("{authority}:80") })
        }
        _ => Err(wrong()),
    }
}

fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    use std::io::Read as _;
    let open = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let mut text = Zeroizing::new(String::with_capacity(128));
    open.take(MAX_TOKEN_BYTES).read_to_string(&mut text).with_context(|| file.display().to_string())?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn unreachable(address: &str, error: &anyhow::Error) -> Failure {
    Failure::Unreachable(format!("the relay at http://{address} cannot be asked: {error:#}; is it running?"))
}

/// An answer that says no.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let said = format!("{} ({})", text("message"), text("error"));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::MISDIRECTED_REQUEST => Failure::Refused(said),
        StatusCode::NOT_FOUND => Failure::NotFound(said),
        StatusCode::BAD_REQUEST => Failure::Usage(said),
        StatusCode::UNPROCESSABLE_ENTITY if text("error") == "bad_edit" => Failure::Usage(said),
        _ => Failure::from(anyhow!("{status}: {said}")),
    }
}

async fn ask(address: &str, token: &str, question: Request<Bytes>) -> anyhow::Result<(StatusCode, Bytes)> {
    let (status, mut relay) = begin(address, token, question).await?;
    Ok((status, relay.collect(MAX_ANSWER_BYTES).await?))
}

/// Asks, and reads no further than the answer's head.
async fn begin(
    address: &str,
    token: &str,
    mut question: Request<Bytes>,
) -> anyhow::Result<(StatusCode, Connection<TcpStream>)> {
    let bearer = bearer(token).context("the admin token cannot stand in a header")?;
    question.headers_mut().insert(header::AUTHORIZATION, bearer);
    question.headers_mut().insert(header::HOST, address.parse()?);
    let mut relay = Connection::new(TcpStream::connect(address).await?, MAX_HEAD_BYTES);
    let answer = relay.ask(question).await?;
    Ok((answer.status, relay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_url_is_a_plain_http_address() {
        assert_eq!(authority("http://127.0.0.1:9090").ok().as_deref(), Some("127.0.0.1:9090"));
        assert_eq!(authority("http://[::1]/").ok().as_deref(), Some("[::1]:80"));
        for wrong in ["127.0.0.1:9090", "https://x", "http://u@x", "http://x/path", "ftp://x"] {
            assert!(authority(wrong).is_err(), "{wrong}");
        }
        let Err(Failure::Usage(said)) = authority("http://me:s3cret@bücher.example:9090") else { panic!("refused") };
        assert!(said.contains("xn--bcher-kva.example") && !said.contains("s3cret"), "{said}");
    }
}
