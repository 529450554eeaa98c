//! What an assistant may ask for: names, descriptions, and the shape of what is asked.

use std::sync::Arc;

use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Value, json};

/// The tools; the one that has a handler called is there only where the user allows it.
pub(super) fn all(may_replay: bool, agent: &str) -> Vec<Tool> {
    let q = json!({ "type": "string", "maxLength": 512, "description":
        "the relay's search: words of the content, or key:value such as is:failed is:refused status:5xx type:invoice.* \
         endpoint:pay since:1h body:text header:name=value; - in front excludes" });
    let endpoint = json!({ "type": "string", "description": "only events of this endpoint" });
    let id = json!({ "type": "string", "description": "the event's id (hook_…), or its sender's own" });
    let mut tools = vec![
        tool(
            "list_events",
            "Lists webhooks, the newest first, or finds those that a query describes.",
            &json!({
                "q": q, "endpoint": endpoint,
                "since": { "type": "string", "description": "how long ago, such as 42m or 1d, or a time (RFC 3339)" },
                "limit": { "type": "integer", "minimum": 1, "maximum": super::MAX_LISTED },
                "after": { "type": "string", "description": "`next` of the page before" },
            }),
            &[],
        ),
        tool(
            "show_event",
            "Shows one webhook: why it stands where it does, what to do, its attempts, headers and the beginning of its body.",
            &json!({
                "id": id, "body": { "type": "boolean", "description": "false leaves the body out" },
            }),
            &["id"],
        ),
        tool(
            "explain_refusal",
            "Says which mistake the relay finds in a webhook that it refused, such as a body that was encoded again after signing.",
            &json!({ "id": id }),
            &["id"],
        ),
        tool(
            "tail_events",
            "Waits for webhooks that come from now on, and answers as soon as one does.",
            &json!({
                "q": q, "endpoint": endpoint, "seconds": { "type": "integer", "minimum": 1, "maximum": super::MAX_WAIT.as_secs() },
            }),
            &[],
        ),
    ];
    if may_replay {
        let says = format!(
            "Has the user's own agent {agent:?} call its handler with a webhook once more. The handler runs; nothing is changed at the relay."
        );
        let mut replay = tool("replay_event", says, &json!({ "id": id }), &["id"]);
        replay.annotations = Some(ToolAnnotations::from_raw(None, Some(false), Some(false), Some(false), Some(true)));
        tools.push(replay);
    }
    tools
}

fn tool(
    name: &'static str,
    says: impl Into<std::borrow::Cow<'static, str>>,
    properties: &Value,
    required: &[&str],
) -> Tool {
    let schema =
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    let Value::Object(schema) = schema else { unreachable!("it was written as an object") };
    let mut tool = Tool::new(name, says, Arc::new(schema));
    tool.annotations = Some(ToolAnnotations::from_raw(None, Some(true), None, None, Some(false)));
    tool
}
