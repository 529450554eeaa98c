//! The paths of the audit log: pages of it, and all of it as JSON lines. Nothing here changes or removes a row.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use relay_program::{
    api::{AuditEntry, AuditList},
    query::Query,
};
use relay_proto::printable;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    ask::{self, AskedQuery},
    table::{Audited, Needs, Operation},
};
use crate::{
    agents::token::Right,
    audit::Audit,
    failure::ApiError,
    store::{AuditFilter, AuditRow, StoreError},
};

const NDJSON: &str = "application/x-ndjson";

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

pub(super) fn operations() -> Vec<Operation> {
    let admin = Needs::Right(Right::Admin);
    vec![
        Operation::get("/audit", admin, list)
            .says("Who did what, the newest first")
            .query::<AuditQuery>()
            .answers::<AuditList>(200),
        Operation::get("/audit/export", admin, export)
            .says("The audit log as JSON lines, the oldest first")
            .audits(Audited::Behind("audit.export"))
            .query::<AuditExportQuery>()
            .answers_as(200, NDJSON),
    ]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// From then on: how long ago, such as `42m`, or a time.
    since: Option<String>,
    /// Before then.
    until: Option<String>,
    /// Only what this token, or `admin`, did.
    name: Option<String>,
    /// Only this action, such as `endpoint.create`.
    action: Option<String>,
    /// Only what was done to this.
    object: Option<String>,
    /// `newest` or `oldest` first; without it `newest`.
    order: Option<String>,
    /// At most so many rows, up to 1000.
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct AuditExportQuery {
    /// From then on: how long ago, such as `42m`, or a time.
    since: Option<String>,
    /// Before then.
    until: Option<String>,
}

/// How long ago, or a time.
fn moment(key: &str, text: Option<&String>, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let (query, mistakes) = Query::parse(&format!("since:{text}"), now);
    let moment = query.since().filter(|_| mistakes.is_empty());
    let why =
        || ApiError::bad_request(format!("`{key}` is how long ago, such as 42m, or a time such as 2026-01-31T08:00Z"));
    moment.map(Some).ok_or_else(why)
}

async fn list(State(api): State<Arc<Api>>, AskedQuery(asked): AskedQuery<AuditQuery>) -> Result<Response, ApiError> {
    let now = api.services.delivery.clock.now();
    let oldest_first = match asked.order.as_deref() {
        None | Some("newest") => false,
        Some("oldest") => true,
        Some(_) => return Err(ApiError::bad_request("`order` is newest or oldest")),
    };
    let limit = asked.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::bad_request(format!("`limit` is from 1 to {MAX_LIMIT}")));
    }
    let after = asked.after.map(|after| after.parse().map_err(|_| ApiError::bad_request("`after` is no cursor")));
    let filter = AuditFilter {
        since: moment("since", asked.since.as_ref(), now)?,
        until: moment("until", asked.until.as_ref(), now)?,
        name: asked.name,
        action: asked.action,
        object: asked.object,
        after: after.transpose()?,
        oldest_first,
        limit,
    };
    let page = api.services.audit.page(filter).await?;
    let entries = page.rows.into_iter().map(entry).collect();
    Ok(ask::ok(&AuditList { entries, next: page.next.map(|next| next.to_string()) }))
}

async fn export(
    State(api): State<Arc<Api>>,
    AskedQuery(asked): AskedQuery<AuditExportQuery>,
) -> Result<Response, ApiError> {
    let now = api.services.delivery.clock.now();
    let filter = AuditFilter {
        since: moment("since", asked.since.as_ref(), now)?,
        until: Some(moment("until", asked.until.as_ref(), now)?.unwrap_or(now)),
        oldest_first: true,
        limit: MAX_LIMIT,
        ..AuditFilter::default()
    };
    let audit = Arc::clone(&api.services.audit);
    // A page at a time, as fast as it is read.
    let pages = stream::unfold(Some(filter), move |filter| {
        let audit = Arc::clone(&audit);
        async move {
            let filter = filter?;
            Some(match page(&audit, filter).await {
                Ok((lines, next)) => (Ok(lines), next),
                Err(error) => (Err(error), None),
            })
        }
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))];
    Ok((kind, Body::from_stream(pages)).into_response())
}

async fn page(audit: &Audit, filter: AuditFilter) -> Result<(Bytes, Option<AuditFilter>), StoreError> {
    let page = audit.page(filter.clone()).await?;
    let line = |row: AuditRow| {
        let text = serde_json::to_string(&entry(row)).unwrap_or_default();
        format!("{}\n", printable::lines(&text))
    };
    let lines: String = page.rows.into_iter().map(line).collect();
    let next = page.next.map(|after| AuditFilter { after: Some(after), ..filter });
    Ok((lines.into(), next))
}

fn entry(row: AuditRow) -> AuditEntry {
    AuditEntry {
        id: row.id.to_string(),
        at: row.at().to_string(),
        kind: row.kind,
        name: row.name,
        token: row.token,
        address: row.address,
        action: row.action,
        object: row.object,
        result: row.result,
        detail: row.detail,
        count: row.count,
    }
}
