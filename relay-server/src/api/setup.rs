//! What a person needs to set an endpoint up: the provider's fields, the agent's command, and a signed request that runs
//! in a shell as it is; and which providers there are.
//!
//! The request's content is the relay's own, so that nobody has anything of theirs signed. Where the proof is a token
//! there is no such request, since the token would stand in it.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use jiff::Timestamp;
use relay_program::api::{ProviderList, ProviderRow, Setup, SetupField};
use relay_schemes::{Provider, Request, providers};
use serde_json::json;

use super::{
    Api, ask, endpoints, own_secret,
    table::{Needs, Operation},
    who::Who,
};
use crate::{agents::token::Right, clock::wall, endpoint::Endpoint, failure::ApiError, webhook::EventId};

pub(super) fn operations() -> Vec<Operation> {
    let create = Needs::Right(Right::Create);
    vec![
        Operation::get("/endpoints/{name}/setup", create, show)
            .says("What to paste where, the agent's command, and a signed request as a curl command")
            .answers::<Setup>(200),
        Operation::get("/providers", create, list)
            .says("Providers whose signatures can be checked")
            .answers::<ProviderList>(200),
    ]
}

async fn list() -> Response {
    let row = |provider: &Provider| ProviderRow {
        name: provider.name.clone(),
        title: provider.title.clone(),
        mode: if provider.interactive { "live" } else { "assured" }.to_owned(),
        own_secret: own_secret::is_chosen(&provider.name),
    };
    ask::ok(&ProviderList { providers: providers().iter().map(row).collect() })
}

async fn show(State(api): State<Arc<Api>>, who: Who, Path(name): Path<String>) -> Result<Response, ApiError> {
    let endpoint = endpoints::endpoint(&api, &who, &name, Right::Create)?;
    let routes = api.services.routes.load();
    let url = routes.url(&endpoint);
    let how = endpoint.verify.provider().map(|provider| provider.setup.clone()).filter(|how| !how.is_empty());
    let relay = routes.public_url().replacen("http", "ws", 1);
    let sample = sample(&endpoint, &url, wall());
    Ok(ask::ok(&Setup {
        paste: vec![SetupField { field: "webhook URL".to_owned(), value: url.clone() }],
        how,
        agent_command: format!("relay-client listen 3000 {} --relay {}", quoted(&name), quoted(&relay)),
        curl: sample.as_ref().map(|sample| sample.curl.clone()),
        expires_at: sample.and_then(|sample| sample.expires_at).map(|at| at.to_string()),
        url,
    }))
}

struct SampleRequest {
    curl: String,
    expires_at: Option<Timestamp>,
}

/// `None` where the relay cannot sign, or may not show what proves its sender.
fn sample(endpoint: &Endpoint, url: &str, now: Timestamp) -> Option<SampleRequest> {
    let id = EventId::new().to_string();
    let body = json!({ "type": "relay.test", "id": id, "message": "a webhook to try the endpoint with" }).to_string();
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let mut expires_at = None;
    if let Some(provider) = endpoint.verify.provider() {
        if provider.bears_credential() {
            return None;
        }
        let request =
            Request { method: "POST", url, headers: &[("content-type", "application/json")], body: body.as_bytes() };
        let signed = endpoint.verify.sign_own(&request, &id, now.as_second())?;
        headers.extend(signed.headers);
        expires_at = signed.expires_unix_s.and_then(|at| Timestamp::from_second(at).ok());
    } else if endpoint.verify.proves() {
        return None;
    }
    let lines = headers.iter().map(|(name, value)| format!(" -H {}", quoted(&format!("{name}: {value}"))));
    let lines: String = lines.collect();
    Some(SampleRequest { curl: format!("curl -i {}{lines} --data-binary {}", quoted(url), quoted(&body)), expires_at })
}

/// As one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_shell_stays_one() {
        assert_eq!(quoted("https://hooks.test/a-b_c"), "https://hooks.test/a-b_c");
        for (text, word) in [("a b", "'a b'"), ("$(x)", "'$(x)'"), ("it's", "'it'\\''s'"), ("", "''"), ("a;b", "'a;b'")]
        {
            assert_eq!(quoted(text), word);
        }
    }
}
