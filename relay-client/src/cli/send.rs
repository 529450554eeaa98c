//! `send`: signed requests as a provider sends them, to try an endpoint with.

use std::{
    future::poll_fn,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use relay_program::{
    Failure,
    http1::{AnswerHead, Part, put_line},
    suggest::nearest,
    terminal,
};
use relay_proto::{HeaderBlock, names};
use relay_schemes::{Invisible, Material, Secret, provider, providers};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{run, settings};
use crate::{
    handler::{Handler, HandlerRequest, TargetConfig},
    send::{Faults, Maker, Manner, Pieces, Ready},
    target::Target,
    tls::Trust,
};

/// Requests on their way at a time.
const AT_ONCE: usize = 64;

/// Largest body, secret and answer that are read, in bytes.
const MAX_BODY_BYTES: u64 = 1 << 30;
const MAX_SECRET_BYTES: u64 = 64 * 1024;
const MAX_ANSWER_BYTES: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Whose requests; `relay-server provider list` names them all
    pub provider: String,
    /// Where to
    #[arg(long, value_name = "URL")]
    pub to: String,
    #[command(flatten)]
    pub sign: SignArgs,
    /// The body, in place of a sample
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A header, in place of the sample's own; may be repeated
    #[arg(short = 'H', long = "header", value_name = "K: V")]
    pub headers: Vec<String>,
    /// How many
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// How many a second [default: one after the other]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: Option<u32>,
    #[command(flatten)]
    pub faults: Faults,
    /// Each request twice, unchanged
    #[arg(long)]
    pub duplicate: bool,
    #[command(flatten)]
    pub manner: Manner,
    /// A PEM file with roots to believe for --to, besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// One JSON object for each answer
    #[arg(long)]
    pub json: bool,
}

/// What requests are signed with.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// A file that holds the secret, or - for standard input
    #[arg(long, env = "RELAY_SEND_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The URL that is signed, where another one than --to is
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// What the scheme asks for beside the secret, such as app_key=…; may be repeated
    #[arg(long = "setting", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
}

struct Answer {
    id: String,
    took: Duration,
    /// None if there was no answer, for which `error` says why.
    status: Option<StatusCode>,
    /// The relay's id of the event.
    event: Option<String>,
    /// The relay's code, if it refused.
    error: Option<String>,
}

/// Sends, prints each answer, and fails with what the worst of them means.
pub(super) fn run(args: &SendArgs, stdin: impl Read) -> Result<(), Failure> {
    let (handler, maker) = prepare(args, stdin)?;
    let (handler, maker) = (Arc::new(handler), Arc::new(maker));
    let runtime = run::runtime()?;
    runtime.block_on(send_all(args, &handler, &maker))
}

fn prepare(args: &SendArgs, stdin: impl Read) -> Result<(Handler, Maker), Failure> {
    let row = provider(&args.provider).ok_or_else(|| {
        let near = nearest(&args.provider, providers().iter().map(|row| row.name.as_str()));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        Failure::NotFound(format!("there is no provider {:?}{hint}", args.provider))
    })?;
    for (flag, url) in [("--to", Some(&args.to)), ("--public-url", args.sign.public_url.as_ref())] {
        if let Some(ascii) = url.and_then(|url| relay_schemes::ascii_host(url)) {
            return Err(settings::usage(flag, &format!("a host's name is written in ASCII here; write it as {ascii}")));
        }
    }
    let to: Uri = args.to.parse().map_err(|_| settings::usage("--to", &"it is no URL"))?;
    let (Some(scheme), Some(authority)) = (to.scheme_str(), to.authority()) else {
        return Err(settings::usage("--to", &"write it whole, such as https://hooks.example.com/github"));
    };
    let target: Target = format!("{scheme}://{authority}").parse().map_err(|error| settings::usage("--to", &error))?;
    let mut config = TargetConfig::new(target);
    if let Some(file) = &args.ca_file {
        config.trust = Trust::PlatformAnd(file.clone());
    }
    let handler = Handler::new(&config).map_err(Failure::Usage)?;
    if args.sign.secret_file.is_none() && row.scheme.is_some() {
        return Err(Failure::Usage(format!("{} signs; name the secret's file with --secret-file", row.title)));
    }
    let material = material(&args.sign, stdin)?;
    let body = args.file.as_deref().map(|file| read(file, MAX_BODY_BYTES)).transpose()?.map(Bytes::from);
    let mut headers = Vec::new();
    for line in &args.headers {
        let (name, value) =
            line.split_once(':').ok_or_else(|| settings::usage("--header", &"write it as 'NAME: VALUE'"))?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let maker = Maker::new(row, &material, args.to.clone(), body, headers).map_err(Failure::Usage)?;
    Ok((handler, maker))
}

/// What requests are signed with, read from where it lies.
pub(super) fn material(args: &SignArgs, stdin: impl Read) -> Result<Material, Failure> {
    let mut material = Material { public_url: args.public_url.clone(), ..Material::default() };
    if let Some(path) = &args.secret_file {
        material.secrets.push(Secret::new(secret(path, stdin)?));
    }
    for setting in &args.settings {
        let (name, value) =
            setting.split_once('=').ok_or_else(|| settings::usage("--setting", &"write it as NAME=VALUE"))?;
        material.settings.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Ok(material)
}

pub(super) fn secret(path: &Path, mut stdin: impl Read) -> Result<Vec<u8>, Failure> {
    let mut secret = if path.as_os_str() == "-" {
        let mut text = Vec::new();
        let read = stdin.by_ref().take(MAX_SECRET_BYTES).read_to_end(&mut text);
        read.map_err(|error| settings::usage("--secret-file", &error))?;
        text
    } else {
        read(path, MAX_SECRET_BYTES)?
    };
    while secret.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        secret.pop();
    }
    match Invisible::of(&secret) {
        Some(what) => Err(settings::usage("--secret-file", &what)),
        None => Ok(secret),
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let cannot = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| cannot(relay_program::reason::of_io(&error)))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| cannot(relay_program::reason::of_io(&error)))?;
    if bytes.len() as u64 > most { Err(cannot(format!("more than {most} bytes"))) } else { Ok(bytes) }
}

async fn send_all(args: &SendArgs, handler: &Arc<Handler>, maker: &Arc<Maker>) -> Result<(), Failure> {
    let times = if args.duplicate { 2 } else { 1 };
    let mut pace = args.rate.map(|rate| interval(Duration::from_secs(1) / rate));
    if let Some(pace) = &mut pace {
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    }
    let at_once = if args.rate.is_some() { AT_ONCE } else { 1 };
    let (mut flying, mut worst) = (JoinSet::new(), 0);
    for _ in 0..args.count {
        let ready = maker.make(args.faults, now()).map_err(Failure::Usage)?;
        for _ in 0..times {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            while flying.len() >= at_once {
                landed(flying.join_next().await, args.json, &mut worst)?;
            }
            let (handler, ready, manner) = (Arc::clone(handler), ready.clone(), args.manner);
            flying.spawn(async move { send(&handler, ready, manner).await });
        }
    }
    while !flying.is_empty() {
        landed(flying.join_next().await, args.json, &mut worst)?;
    }
    if worst == 0 { Ok(()) } else { Err(Failure::Reported(worst)) }
}

/// Prints an answer and remembers the exit code that it means, the highest of all.
fn landed(
    answer: Option<Result<Answer, tokio::task::JoinError>>,
    as_json: bool,
    worst: &mut u8,
) -> Result<(), Failure> {
    let Some(answer) = answer else { return Ok(()) };
    let Answer { id, took, status, event, error } = answer.map_err(|error| Failure::Failed(error.to_string()))?;
    let code = match status {
        Some(status) if status.is_success() => 0,
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => 3,
        Some(StatusCode::NOT_FOUND) => 4,
        Some(_) => 1,
        None => 5,
    };
    *worst = code.max(*worst);
    let (ms, status) = (took.as_secs_f64() * 1000.0, status.map(|status| status.as_u16()));
    if as_json {
        let line = json!({ "id": id, "status": status, "duration_ms": ms, "event_id": event, "error": error });
        return terminal::line(&line.to_string());
    }
    let status = status.map_or_else(|| "---".to_owned(), |status| status.to_string());
    terminal::line(&format!("{status}  {ms:.1} ms  {id}  {}", error.or(event).unwrap_or_default()))
}

async fn send(handler: &Handler, ready: Ready, manner: Manner) -> Answer {
    let began = Instant::now();
    let answered = exchange(handler, &ready, manner).await;
    let (took, id) = (began.elapsed(), ready.id);
    match answered {
        Ok(head) => {
            let text = |name: &str| String::from_utf8(head.headers.all(name).next()?.to_vec()).ok();
            Answer { id, took, status: Some(head.status), event: text(names::EVENT_ID), error: text(names::ERROR) }
        }
        Err(why) => Answer { id, took, status: None, event: None, error: Some(why) },
    }
}

/// The head of the answer, once its body is read. The error is for people.
async fn exchange(handler: &Handler, ready: &Ready, manner: Manner) -> Result<AnswerHead, String> {
    let url: Uri = ready.url.parse().map_err(|_| "the signed URL is no URL".to_owned())?;
    let rest = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let path = handler.target.uri_for(rest).map_err(|error| error.to_string())?;
    let mut request = HandlerRequest::new(&Bytes::from_static(ready.method.as_bytes()), &path, 0);
    put_line(&mut request.head, b"host", handler.host.as_bytes());
    for (name, value) in &ready.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("{name:?} is no header"))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|_| format!("{name}: it is no header's value"))?;
        put_line(&mut request.head, name.as_str().as_bytes(), value.as_bytes());
    }
    if manner.chunked {
        put_line(&mut request.head, b"transfer-encoding", b"chunked");
        request.chunked = Some(HeaderBlock::new());
    } else {
        put_line(&mut request.head, b"content-length", ready.body.len().to_string().as_bytes());
    }
    request.head.extend_from_slice(b"\r\n");
    request.body = Some(Pieces::new(&ready.body, manner));
    let (head, mut call) = handler.call(request).await.map_err(|error| error.to_string())?;
    let mut left = MAX_ANSWER_BYTES;
    while let Some(Ok(Part::Data(data))) = poll_fn(|cx| call.poll_part(cx)).await
        && left > 0
    {
        left = left.saturating_sub(data.len());
    }
    Ok(head)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
