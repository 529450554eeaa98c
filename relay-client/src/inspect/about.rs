//! What stands at the head of the local page's API: the relay's own answer, with the agent in it.
//!
//! The page learns from it that it is the agent's, and shows nothing before it. So while the relay is away the last answer
//! stands for it, or one that says the little that the agent knows; whatever else is asked says then what is wrong.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use relay_program::api::{About, AboutApi, AboutYou};
use serde_json::{Value, json};

use super::{
    agent::View,
    answer::{self, PageBody, Problem},
    pass::Pass,
};

/// The relay's answer has some hundred bytes for each endpoint of the token.
const MAX_BYTES: usize = 256 * 1024;

/// The relay's last answer.
#[derive(Default)]
pub(super) struct AboutHead(Mutex<Option<Value>>);

impl AboutHead {
    pub(super) async fn answer(
        &self,
        pass: &Arc<Pass>,
        view: &View,
        head: &Parts,
    ) -> Result<Response<PageBody>, Problem> {
        let name = view.this_agent().name;
        let mut about = match pass.ask("", head, Bytes::new()).await {
            Ok(response) if response.status().is_success() => {
                let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
                let said = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
                let said = said.filter(Value::is_object);
                let strange = || Problem::new(502, "relay_strange", "what answered is no relay's API");
                let about = said.ok_or_else(strange)?;
                *self.0.lock() = Some(about.clone());
                about
            }
            Ok(refusal) => return Ok(refusal),
            Err(problem) if problem.status == 503 => self.0.lock().clone().unwrap_or_else(|| alone(&name)),
            Err(problem) => return Err(problem),
        };
        about["agent"] = json!({ "name": name, "version": env!("CARGO_PKG_VERSION") });
        if let Some(features) = about.pointer_mut("/api/features").and_then(Value::as_array_mut) {
            features.push("agent".into());
        }
        Ok(answer::json(&about))
    }
}

/// Without a relay's word the page may read, which at the agent is all that is left.
fn alone(name: &str) -> Value {
    let rights = [("*".to_owned(), vec!["read".to_owned()])].into();
    let you = AboutYou { kind: "token".to_owned(), name: name.to_owned(), rights };
    json!(About { you, api: AboutApi { version: 1, features: Vec::new() }, ..About::default() })
}
