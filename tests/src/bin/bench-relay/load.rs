//! The load: `wrk` where it is there, else a closed loop of our own, and an open loop.
//!
//! The open loop sends at a constant rate and counts the time of an answer from the moment when its request was due, so
//! that a request which waits behind a slow one counts as slow, too (no coordinated omission).

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustls::pki_types::ServerName;

use crate::{
    machine::{command, finds},
    stats::{due, percentile},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the senders send, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Each webhook comes on a connection of its own.
    pub(crate) is_new: bool,
    pub(crate) body_bytes: usize,
    /// What is asked for: `/hooks`, `/up` where a long body has to be read first, or `/big` for an answer of 1 MB.
    pub(crate) path: &'static str,
}

/// Whom it goes to.
#[derive(Clone)]
pub(crate) struct Target {
    /// `ip:port`.
    pub(crate) address: String,
    /// What stands before the path.
    pub(crate) prefix: String,
    /// Senders speak TLS.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// Each webhook has an id of its own: it would be a repeat else, which is not delivered.
    pub(crate) has_ids: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
}

/// A webhook as GitHub sends it, signed.
pub(crate) struct Webhook {
    headers: Vec<(String, String)>,
    body: String,
}

pub(crate) const SECRET: &str = "a secret of the benchmark";
const ID: &str = "X-GitHub-Delivery";

impl Webhook {
    pub(crate) fn sign(body_bytes: usize) -> anyhow::Result<Self> {
        let (start, end) = (r#"{"ref":"refs/heads/main","padding":""#, r#""}"#);
        let padding = "abcdefghijklmnop".chars().cycle().take(body_bytes.saturating_sub(start.len() + end.len()));
        let body = format!("{start}{}{end}", padding.collect::<String>());
        let mut headers: Vec<(String, String)> = [
            ("User-Agent", "GitHub-Hookshot/044aadd"),
            ("Accept", "*/*"),
            ("Content-Type", "application/json"),
            ("X-GitHub-Event", "push"),
            (ID, "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let proof = relay_tests::sender::signed("github", SECRET, body.as_bytes())?;
        headers.extend(proof.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256")));
        Ok(Self { headers, body })
    }

    /// The request, with an id of its own if there is one.
    pub(crate) fn request(&self, load: Load, target: &Target, id: Option<&str>) -> Vec<u8> {
        let mut text = format!("POST {}{} HTTP/1.1\r\nHost: {}\r\n", target.prefix, load.path, target.address);
        for (name, value) in &self.headers {
            let value = id.filter(|_| name == ID).unwrap_or(value);
            text += &format!("{name}: {value}\r\n");
        }
        if load.is_new {
            text += "Connection: close\r\n";
        }
        text += &format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body);
        text.into_bytes()
    }

    /// What makes `wrk` send it, and print a line of numbers.
    fn script(&self, load: Load, target: &Target, folder: &Path) -> anyhow::Result<String> {
        std::fs::write(folder.join("body"), &self.body)?;
        let mut text = format!("wrk.method = 'POST'\nwrk.body = io.open('{}/body'):read('*a')\n", folder.display());
        for (name, value) in &self.headers {
            text += &format!("wrk.headers['{name}'] = '{value}'\n");
        }
        if load.is_new {
            text += "wrk.headers['Connection'] = 'close'\n";
        }
        if target.has_ids {
            // A request without a function is made once, which costs the least.
            text += &format!(
                "local count = 0\nrequest = function()\n count = count + 1\n \
                 wrk.headers['{ID}'] = '{:032x}-' .. count\n return wrk.format()\nend\n",
                fastrand::u128(..)
            );
        }
        text += "done = function(all, latency)\n local e = all.errors\n io.write(string.format(\
                 '\\nmeasured %d %d %d %d %d %d\\n', all.requests, e.connect + e.read + e.write + e.timeout + e.status,\
                 all.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))\nend\n";
        Ok(text)
    }
}

/// As much as so many connections bring, one request after the other on each, for some seconds.
pub(crate) async fn closed(before: &[String], target: &Target, load: Load, seconds: u32) -> anyhow::Result<Done> {
    let webhook = Webhook::sign(load.body_bytes)?;
    if !finds("wrk") {
        return senders(target, load, webhook, None, seconds).await;
    }
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("webhook.lua");
    std::fs::write(&script, webhook.script(load, target, folder.path())?)?;
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}{}{}", target.address, target.prefix, load.path);
    let mut wrk = command(before, Path::new("wrk"));
    wrk.args(["-t1", &format!("-c{}", load.connections), &format!("-d{seconds}s"), "--timeout", "10s", "-s"]);
    let output = wrk.arg(&script).arg(&url).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| format!("wrk said:\n{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn parse(text: &str) -> Option<Done> {
    let line = text.lines().find_map(|line| line.strip_prefix("measured "))?;
    let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
    let &[completed, failed, micros, p50, p99, p999] = numbers.as_slice() else { return None };
    let [p50, p99, p999] = [p50, p99, p999].map(Duration::from_micros);
    Some(Done { completed, failed, seconds: micros as f64 / 1e6, p50, p99, p999 })
}

/// So many requests a second, whatever the answers do.
pub(crate) async fn open(target: &Target, load: Load, rate: f64, seconds: u32) -> anyhow::Result<Done> {
    senders(target, load, Webhook::sign(load.body_bytes)?, Some(rate), seconds).await
}

/// A thread for each connection: a sleep of a thread is exact enough for a schedule, a timer of the runtime is not.
async fn senders(
    target: &Target,
    load: Load,
    webhook: Webhook,
    rate: Option<f64>,
    seconds: u32,
) -> anyhow::Result<Done> {
    let (webhook, target) = (Arc::new(webhook), target.clone());
    let run = move || {
        let started = Instant::now();
        let end = Duration::from_secs(seconds.into());
        let threads: Vec<_> = (0..load.connections)
            .map(|first| {
                let (webhook, target) = (Arc::clone(&webhook), target.clone());
                let turns = Turns { next: first as u64, step: load.connections as u64, rate, started, end };
                std::thread::spawn(move || Sender { target, load, webhook, stream: None }.run(turns))
            })
            .collect();
        let (mut times, mut failed) = (Vec::new(), 0);
        for thread in threads {
            let (more, bad) = thread.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?;
            times.extend(more);
            failed += bad;
        }
        times.sort_unstable();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| percentile(&times, share));
        let seconds = started.elapsed().as_secs_f64();
        Ok(Done { completed: times.len() as u64, failed, seconds, p50, p99, p999 })
    };
    tokio::task::spawn_blocking(run).await?
}

/// When a sender sends: at its turns of the schedule, or at once.
struct Turns {
    next: u64,
    step: u64,
    rate: Option<f64>,
    started: Instant,
    end: Duration,
}

impl Turns {
    /// Waits for the next turn: from when its answer's time counts. A turn that was missed is taken at once.
    fn wait(&mut self) -> Option<Instant> {
        // A target that cannot keep up ends the schedule late, but it ends.
        if self.started.elapsed() > self.end * 2 {
            return None;
        }
        let Some(rate) = self.rate else {
            return (self.started.elapsed() < self.end).then(Instant::now);
        };
        let due = due(self.next, rate);
        self.next += self.step;
        let at = self.started + due;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        (due < self.end).then_some(at)
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

struct Sender {
    target: Target,
    load: Load,
    webhook: Arc<Webhook>,
    stream: Option<Box<dyn Stream>>,
}

impl Sender {
    fn run(mut self, mut turns: Turns) -> (Vec<Duration>, u64) {
        let (mut times, mut failed, mut buffer) = (Vec::new(), 0, vec![0; 64 * 1024]);
        let plain = self.webhook.request(self.load, &self.target, None);
        let (run, mut number) = (fastrand::u128(..), 0_u64);
        while let Some(from) = turns.wait() {
            number += 1;
            let with_id = self
                .target
                .has_ids
                .then(|| self.webhook.request(self.load, &self.target, Some(&format!("{run:032x}-{number}"))));
            match self.send(with_id.as_deref().unwrap_or(&plain), &mut buffer) {
                Ok(()) => times.push(from.elapsed()),
                Err(_) => {
                    failed += 1;
                    self.stream = None;
                    std::thread::sleep(Duration::from_millis(1)); // Nobody listens: not a loop that only fails.
                }
            }
            if self.load.is_new {
                self.stream = None;
            }
        }
        (times, failed)
    }

    fn send(&mut self, request: &[u8], buffer: &mut [u8]) -> anyhow::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(connect(&self.target)?),
        };
        stream.write_all(request)?;
        stream.flush()?;
        let (mut seen, mut whole) = (0, None);
        while whole.is_none_or(|whole| seen < whole) {
            let read = stream.read(&mut buffer[if whole.is_none() { seen } else { 0 }..])?;
            ensure!(read > 0, "the connection was closed");
            seen += read;
            if whole.is_none() {
                whole = length(&buffer[..seen]);
                let is_good = buffer.starts_with(b"HTTP/1.1 2");
                ensure!(whole.is_none() || is_good, "{}", String::from_utf8_lossy(&buffer[..seen.min(200)]));
                ensure!(whole.is_some() || seen < buffer.len(), "a long head");
            }
        }
        Ok(())
    }
}

fn connect(target: &Target) -> anyhow::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(&target.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some(config) = &target.tls else { return Ok(Box::new(stream)) };
    let host = target.address.rsplit_once(':').context("a port")?.0;
    let session = rustls::ClientConnection::new(Arc::clone(config), ServerName::try_from(host.to_owned())?)?;
    Ok(Box::new(rustls::StreamOwned::new(session, stream)))
}

/// One webhook, to see that somebody answers.
pub(crate) async fn once(target: &Target, load: Load) -> anyhow::Result<()> {
    let (webhook, target) = (Arc::new(Webhook::sign(load.body_bytes)?), target.clone());
    let send = move || {
        let id = target.has_ids.then(|| format!("{:032x}", fastrand::u128(..)));
        let request = webhook.request(load, &target, id.as_deref());
        Sender { target, load, webhook, stream: None }.send(&request, &mut vec![0; 64 * 1024])
    };
    tokio::task::spawn_blocking(send).await?
}

/// How long a message is, once its head is there.
pub(crate) fn length(text: &[u8]) -> Option<usize> {
    let head = text.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let mut values = text[..head].split(|byte| *byte == b'\n').filter_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value.trim_ascii())
    });
    let length = values.next_back().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    Some(head + length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { connections: 1, is_new: false, body_bytes: 2048, path: "/hooks" };

    fn target(address: String) -> Target {
        Target { address, prefix: "/live".to_owned(), tls: None, has_ids: false }
    }

    #[test]
    fn a_webhook_is_as_long_as_it_should_be_and_signed() {
        let webhook = Webhook::sign(2048).expect("signs");
        assert_eq!(webhook.body.len(), 2048);
        let is_proof = |(name, value): &(String, String)| name == "x-hub-signature-256" && value.len() == 71;
        assert!(webhook.headers.iter().any(is_proof));
        let request = webhook.request(LOAD, &target("relay.test".to_owned()), Some("one"));
        assert_eq!(length(&request), Some(request.len()));
        let text = String::from_utf8(request).expect("text");
        assert!(text.starts_with("POST /live/hooks HTTP/1.1\r\n") && text.contains("X-GitHub-Delivery: one\r\n"));
    }

    #[test]
    fn what_wrk_measured_is_read() {
        let done = parse("  2 threads\n\nmeasured 100 1 2000000 50 99 999\n").expect("numbers");
        assert_eq!((done.completed, done.failed, done.seconds), (100, 1, 2.0));
        assert_eq!((done.p50, done.p999), (Duration::from_micros(50), Duration::from_micros(999)));
        assert!(parse("unable to connect").is_none());
    }

    /// The first answer comes late: the requests behind it were due meanwhile, and count from then.
    #[tokio::test]
    async fn an_open_loop_counts_from_when_a_request_was_due() {
        const STALL: Duration = Duration::from_millis(300);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a sender");
            let mut buffer = vec![0; 4096];
            std::thread::sleep(STALL);
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let done = open(&target(address), Load { body_bytes: 100, ..LOAD }, 100.0, 1).await.expect("runs");
        assert_eq!((done.completed, done.failed), (100, 0));
        // A third of all were due within the stall; a closed loop would have counted one of them as slow.
        assert!(done.p99 > STALL - Duration::from_millis(50), "{done:?}");
        let later = due(28, 100.0);
        assert!(percentile(&[done.p50], 1.0) < STALL && later < STALL, "{done:?}");
    }
}
