//! Takes spans to the collector, in batches, over OTLP/HTTP.
//!
//! A collector that is away costs spans and nothing else: a batch is tried a few times, then dropped and counted, while
//! the queue before it is bounded. The log hears of that once in ten seconds at most.

use std::{sync::atomic::Ordering, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use prost::Message as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    SpanQueue,
    wire::{ExportRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, SpanMessage},
};
use crate::{
    outbound::{PostUrl, Poster},
    throttle::Throttle,
};

/// Most spans of a batch; some 300 KiB.
const MAX_BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// Pauses between the tries of a batch, where the collector says nothing else.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Longest pause that a collector may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How long the last spans may take when the relay stops.
const FAREWELL: Duration = Duration::from_secs(2);

static NOT_EXPORTED: Throttle = Throttle::new();

/// Where spans go, and what stands with them.
#[derive(Clone, Debug)]
pub(crate) struct ExportSettings {
    pub url: PostUrl,
    /// Such as the collector's key.
    pub headers: HeaderMap,
    /// What the spans are of, such as `service.name`.
    pub resource: Vec<(String, String)>,
}

/// Exports spans until the relay stops, and then those that are left.
pub(crate) async fn export(mut queue: SpanQueue, settings: ExportSettings, stop: CancellationToken) {
    let poster = Poster::default();
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            count = queue.waiting.recv_many(&mut batch, MAX_BATCH) => if count == 0 { break },
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(GATHERING) => {}
        }
        fill(&mut queue, &mut batch);
        let is_stopping = stop.clone();
        tokio::select! {
            biased;
            () = send(&queue, &settings, &poster, &mut batch) => {}
            () = async { is_stopping.cancelled().await; sleep(FAREWELL).await } => break,
        }
    }
    let rest = async {
        loop {
            fill(&mut queue, &mut batch);
            if batch.is_empty() {
                return;
            }
            send(&queue, &settings, &poster, &mut batch).await;
        }
    };
    let _ = timeout(FAREWELL, rest).await;
}

/// Takes what waits, as much as a batch has room for.
fn fill(queue: &mut SpanQueue, batch: &mut Vec<SpanMessage>) {
    while batch.len() < MAX_BATCH
        && let Ok(span) = queue.waiting.try_recv()
    {
        batch.push(span);
    }
}

/// Sends a batch, or counts it as dropped.
async fn send(queue: &SpanQueue, settings: &ExportSettings, poster: &Poster, batch: &mut Vec<SpanMessage>) {
    let spans = std::mem::take(batch);
    let count = spans.len() as u64;
    let body = bytes::Bytes::from(request(&settings.resource, env!("CARGO_PKG_VERSION"), spans).encode_to_vec());
    let mut headers = settings.headers.clone();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let mut pauses = PAUSES.into_iter();
    let why = loop {
        let (why, asked) = match poster.post(&settings.url, headers.clone(), body.clone()).await {
            Ok(posted) if posted.status.is_success() => {
                queue.counts.exported.fetch_add(count, Ordering::Relaxed);
                return;
            }
            Ok(posted) if posted.can_retry() => (format!("it answered {}", posted.status), posted.retry_after),
            Ok(posted) => break format!("it answered {}", posted.status),
            Err(error) => (error.to_string(), None),
        };
        match pauses.next() {
            Some(pause) => sleep(asked.unwrap_or(pause).min(MAX_PAUSE)).await,
            None => break why,
        }
    };
    queue.counts.dropped.fetch_add(count, Ordering::Relaxed);
    if let Some(held_back) = NOT_EXPORTED.pass("") {
        let collector = &settings.url;
        tracing::warn!(%collector, why, spans = count, held_back, "spans were not exported; look at the collector");
    }
}

pub(super) fn request(resource: &[(String, String)], version: &str, spans: Vec<SpanMessage>) -> ExportRequest {
    let attributes = resource.iter().map(|(key, value)| KeyValue::text(key, &**value)).collect();
    let scope = Scope { name: "relay-server".to_owned(), version: version.to_owned() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }] }
}
