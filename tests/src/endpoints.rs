//! Endpoints made from what published vectors say, and their requests sent as they stand there.
//!
//! Each endpoint has a host of its own, so that the path belongs to the vector, and the relay is told by a trusted
//! proxy under which URL the provider called: it sees the vector's URL to the letter. What an endpoint knows goes into
//! variables, as it does where people run the relay. Bodies may be larger than some providers ever send, as in vectors.

use std::time::SystemTime;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use relay_schemes::{Keys, Material, Provider, Request as Unsigned};

use crate::sender::send;

/// Tables of endpoints, and the variables that they name.
#[derive(Debug)]
pub struct Endpoints {
    /// What [`crate::process::Server::start`] takes.
    pub tables: String,
    /// The variables and their values.
    pub vars: Vec<(String, String)>,
}

/// A request as a vector has it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The method.
    pub method: String,
    /// The URL that the provider called.
    pub url: String,
    /// The headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { tables: "trusted_proxies = [\"127.0.0.0/8\"]\n".to_owned(), vars: Vec::new() }
    }
}

impl Endpoints {
    /// Adds an endpoint that knows `material`; `more` are further keys of its `verify` table, each with a comma before it.
    pub fn add(&mut self, name: &str, provider: &str, material: &Material, more: &str) {
        let mut verify = format!("provider = {}", text(provider));
        let secrets: Vec<_> = material.secrets.iter().map(|secret| self.keep(secret.expose())).collect();
        if !secrets.is_empty() {
            verify += &format!(", secrets = [{}]", secrets.join(", "));
        }
        if let Some(url) = &material.public_url {
            verify += &format!(", public_url = {}", text(url));
        }
        if let Some(jwks) = &material.jwks {
            verify += &format!(", jwks = {}", self.keep(jwks.as_bytes()));
        }
        let named: Vec<_> = material.named_keys.iter().map(|(name, key)| self.pair(name, key)).collect();
        if !named.is_empty() {
            verify += &format!(", named_keys = {{ {} }}", named.join(", "));
        }
        let settings: Vec<_> = material
            .settings
            .iter()
            .map(|(name, values)| {
                let values: Vec<_> = values.iter().map(|value| text(value)).collect();
                format!("{} = [{}]", text(name), values.join(", "))
            })
            .collect();
        if !settings.is_empty() {
            verify += &format!(", settings = {{ {} }}", settings.join(", "));
        }
        self.tables += &format!(
            "[[endpoint]]\nname = \"{name}\"\nhosts = [\"{}\"]\nmode = \"live\"\nreplay = \"off\"\nmax_body = \"2MiB\"\n\
             verify = {{ {verify}{more} }}\n",
            host(name)
        );
    }

    /// The variables as the harness takes them.
    #[must_use]
    pub fn vars(&self) -> Vec<(&str, &str)> {
        self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Keeps a text in a new variable; the reference to it, in quotes.
    pub fn keep(&mut self, value: &[u8]) -> String {
        let name = format!("KNOWN_{}", self.vars.len());
        self.vars.push((name.clone(), String::from_utf8_lossy(value).into_owned()));
        format!("\"env:{name}\"")
    }

    fn pair(&mut self, name: &str, value: &str) -> String {
        format!("{} = {}", text(name), self.keep(value.as_bytes()))
    }
}

/// A TOML text; JSON's escapes are among TOML's.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// This moment, in Unix seconds.
///
/// # Panics
/// If the clock stands before 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("a date")
}

/// The host of an endpoint.
#[must_use]
pub fn host(name: &str) -> String {
    format!("{name}.relay.test")
}

impl Sent {
    /// Sets a header in place of any of the same name.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Signs it at `now_unix_s`, as the provider would; an id that it has stays.
    ///
    /// # Errors
    /// If only the provider can sign it, or it lacks what is signed.
    pub fn sign(&mut self, row: &Provider, keys: &Keys, now_unix_s: i64) -> anyhow::Result<()> {
        let scheme = row.scheme.as_ref().with_context(|| format!("{} does not sign", row.name))?;
        let request = Unsigned { method: &self.method, url: &self.url, headers: &self.headers, body: &self.body };
        let id = row.event(&request).id.unwrap_or_else(|| "evt_1".to_owned());
        let signed = scheme.sign(keys, &request, Some(&id), now_unix_s)?;
        (self.url, self.body) = (signed.url, signed.body);
        signed.headers.into_iter().for_each(|(name, value)| self.set(&name, value));
        Ok(())
    }

    /// The request for the relay's endpoint `name`, as a proxy in front of it passes it on.
    ///
    /// # Errors
    /// If HTTP cannot carry it.
    pub fn request(&self, name: &str) -> anyhow::Result<Request<Full<Bytes>>> {
        let (scheme, rest) = self.url.split_once("://").context("a URL")?;
        let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let target = if target.is_empty() { "/" } else { target };
        let mut request = Request::builder().method(self.method.as_str()).uri(target).header("host", host(name));
        for (name, value) in &self.headers {
            // The length is the sender's business, and right.
            if !name.eq_ignore_ascii_case("content-length") {
                request = request.header(name.as_str(), HeaderValue::from_bytes(value)?);
            }
        }
        request = request.header("x-forwarded-proto", scheme).header("x-forwarded-host", authority);
        Ok(request.body(Full::new(Bytes::from(self.body.clone())))?)
    }

    /// Sends it to the relay at `address`, to its endpoint `name`.
    ///
    /// # Errors
    /// If HTTP cannot carry it, or there is no answer.
    pub async fn send(&self, address: &str, name: &str) -> anyhow::Result<Response<Bytes>> {
        send(address, self.request(name)?).await
    }
}
