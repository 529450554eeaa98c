//! `explain`: which usual mistake a request that was refused is, found by trying them. Nothing it prints is a
//! secret or a signature that it computed.
//!
//! A saved request is `{"method": …, "url": …, "headers": [[name, value], …], "body_base64": …}` (or `"body"` as
//! text), alone or as the member `request`, as files of vectors have it.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};
use data_encoding::BASE64;
use jiff::Timestamp;
use relay_program::{Failure, terminal};
use relay_proto::printable::{escaped, without_password};
use relay_schemes::{
    Material, Request, Secret, ascii_host,
    explain::{Candidates, explain},
    provider,
};
use serde_json::{Value, json};

use super::{provider::unknown, remote::Remote};
use crate::{
    api::shapes::{Explained, ExplainedFinding},
    config::read_secret,
    webhook::EventId,
};

const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// A file with a saved request, or the hook_… id of a request that a running relay refused
    what: String,
    /// Whose request the file holds
    #[arg(long)]
    provider: Option<String>,
    /// A secret of the endpoint, env:NAME or file:PATH, newest first; may be repeated
    #[arg(long = "secret", value_name = "REF")]
    secrets: Vec<String>,
    /// Another secret that may have been meant; may be repeated
    #[arg(long = "other-secret", value_name = "REF")]
    others: Vec<String>,
    /// The URL that is registered with the provider, or may be; may be repeated
    #[arg(long = "public-url", value_name = "URL")]
    urls: Vec<String>,
    /// When it came, in Unix seconds [default: the file's `now`, else this moment]
    #[arg(long, value_name = "SECONDS")]
    at: Option<i64>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(arguments: &Explain) -> Result<(), Failure> {
    let explained = match arguments.what.parse::<EventId>() {
        Ok(id) => arguments.remote.get(&format!("/api/v1/refused/{id}/explain"))?,
        Err(_) => json!(saved(arguments)?),
    };
    if arguments.json {
        return terminal::line(&explained.to_string());
    }
    let Explained { findings, .. } = serde_json::from_value(explained).context("the relay's answer")?;
    findings.iter().try_for_each(|ExplainedFinding { code, message }| {
        terminal::line(&format!("{}: {}", escaped(code), escaped(message)))
    })
}

fn saved(arguments: &Explain) -> Result<Explained, Failure> {
    let path = Path::new(&arguments.what);
    let file = read(path).with_context(|| format!("{} is neither an id nor a request", path.display()))?;
    let request = if file["request"].is_object() { &file["request"] } else { &file };
    let name = arguments.provider.as_deref().or_else(|| file["provider"].as_str()).ok_or_else(|| {
        Failure::Usage("name the provider with --provider; `relay-server provider list` names them all".to_owned())
    })?;
    let row = provider(name).ok_or_else(|| unknown(name))?;
    // A text that is no reference may be the secret itself, so it is not repeated.
    let secret = |reference: &String| match read_secret(reference) {
        Ok(secret) => Ok(Secret::new(secret.to_vec())),
        Err(why) => Err(Failure::Usage(format!("--secret: {why}"))),
    };
    let secrets = |refs: &[String]| refs.iter().map(secret).collect::<Result<Vec<_>, _>>();
    if let Some((typed, ascii)) = arguments.urls.iter().find_map(|url| Some((url, ascii_host(url)?))) {
        let typed = without_password(typed);
        return Err(Failure::Usage(format!(
            "--public-url {typed}: a host's name is written in ASCII here, as providers sign it; write it as {ascii}"
        )));
    }
    let (own, others) = (secrets(&arguments.secrets)?, secrets(&arguments.others)?);
    let material = Material { secrets: own, public_url: arguments.urls.first().cloned(), ..Material::default() };
    let others: Vec<_> = arguments.others.iter().map(String::as_str).zip(&others).collect();
    let urls: Vec<_> = arguments.urls.iter().map(String::as_str).collect();
    let (headers, body) = parts(request).with_context(|| format!("{}", path.display()))?;
    let method = request["method"].as_str().unwrap_or("POST");
    let url = request["url"].as_str().unwrap_or("https://localhost/");
    let asked = Request { method, url, headers: &headers, body: &body };
    let now = arguments.at.or_else(|| file["now"].as_i64()).unwrap_or_else(|| Timestamp::now().as_second());
    let found = explain(row, &material, &asked, now, &Candidates { secrets: &others, urls: &urls });
    let findings = found.iter().map(ExplainedFinding::from).collect();
    Ok(Explained { id: None, provider: Some(row.name.clone()), findings })
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let len = fs::metadata(path)?.len();
    anyhow::ensure!(len <= MAX_FILE_BYTES, "{len} bytes are too many");
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

type Lines = Vec<(String, Vec<u8>)>;

fn parts(request: &Value) -> anyhow::Result<(Lines, Vec<u8>)> {
    let line = |line: &Value| {
        let name = line[0].as_str().context("a header has no name")?.to_owned();
        let value = line[1].as_str().context("a header has no value")?;
        // Bytes beyond ASCII are written as Latin-1 there.
        let bytes: Option<Vec<u8>> = value.chars().map(|letter| u8::try_from(letter as u32).ok()).collect();
        Ok((name, bytes.unwrap_or_else(|| value.as_bytes().to_vec())))
    };
    let headers = request["headers"].as_array().ok_or_else(|| anyhow!("there is no list \"headers\""))?;
    let headers = headers.iter().map(line).collect::<anyhow::Result<_>>()?;
    let body = match (request["body_base64"].as_str(), request["body"].as_str()) {
        (Some(text), _) => BASE64.decode(text.as_bytes()).context("body_base64")?,
        (None, Some(text)) => text.as_bytes().to_vec(),
        (None, None) => Vec::new(),
    };
    Ok((headers, body))
}
