//! What those see who watch: rows as they happen, over the stream of the relay and by `event tail`.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use relay_server::agents::token::AgentToken;
use relay_tests::{
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server},
    sender::{request, send, send_streaming, signed},
};
use serde_json::Value;
use tokio::time::timeout;

const SECRET: &str = "It's a Secret to Everybody";
const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");

const LIVE: &str = "[[endpoint]]\nname = \"live\"\nmode = \"live\"\nverify = \"none\"\n";
const HEADS: &str = "[[endpoint]]\nname = \"quiet\"\nmode = \"live\"\nverify = \"none\"\njournal = \"off\"\n";
const KEPT: &str = "[[endpoint]]\nname = \"kept\"\nmode = \"assured\"\nverify = \"none\"\nwait_for_agent = \"0s\"\n";
const GITHUB: &str =
    "[[endpoint]]\nname = \"github\"\nmode = \"live\"\nverify = { provider = \"github\", secrets = [\"env:HOOK\"] }\n";

async fn relay(config: &str) -> Server {
    Server::start(Path::new(PROGRAM), "127.0.0.1:0", config, &[("HOOK", SECRET)]).await.expect("a relay")
}

/// A handler that answers with this status.
async fn handler(status: u16) -> Handler {
    let answer = move |request: Request<Incoming>| async move {
        let _ = request.into_body().collect().await;
        Response::builder().status(status).body(full("an answer")).expect("lawful")
    };
    Handler::start(answer).await.expect("a handler")
}

/// A question to the relay itself.
fn question(path: &str, lines: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let question = Request::get(path).header("host", "localhost");
    let question = lines.iter().fold(question, |question, (name, value)| question.header(*name, *value));
    question.body(Full::default()).expect("lawful")
}

/// One message of a stream.
#[derive(Debug)]
struct NewsMessage {
    id: String,
    event: String,
    data: String,
}

/// Somebody who watches.
struct Watcher {
    body: Incoming,
    text: String,
}

impl Watcher {
    /// Over the admin listener, or as an agent's user with a token.
    async fn open(address: &str, path: &str, token: &str, last_id: Option<&str>) -> Result<Self, u16> {
        let bearer = format!("Bearer {token}");
        let mut lines = vec![("authorization", bearer.as_str())];
        lines.extend(last_id.map(|id| ("last-event-id", id)));
        let response = send_streaming(address, question(path, &lines)).await.expect("an answer");
        if response.status() != 200 {
            return Err(response.status().as_u16());
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self { body: response.into_body(), text: String::new() })
    }

    async fn of_admin(relay: &Server, query: &str) -> Self {
        let token = relay.admin_token().expect("a token");
        let path = format!("/api/v1/stream?{query}");
        let mut watcher = Self::open(&relay.admin, &path, &token, None).await.expect("it opens");
        assert_eq!(watcher.next().await.expect("it begins").event, "hello");
        watcher
    }

    async fn next(&mut self) -> Option<NewsMessage> {
        loop {
            while let Some((message, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name| message.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
                let message = NewsMessage { id: field("id: "), event: field("event: "), data: field("data: ") };
                self.text = rest.to_owned();
                if !message.event.is_empty() {
                    return Some(message);
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("something is said")?;
            let frame = frame.expect("it does not break");
            self.text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
        }
    }

    /// The next row that fits.
    async fn row(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await.expect("it goes on");
            let said: Value = serde_json::from_str(&message.data).expect("JSON");
            if let Some(row) = said["rows"].as_array().into_iter().flatten().find(|row| fits(row)) {
                return row.clone();
            }
        }
    }
}

async fn post(relay: &Server, target: &str, lines: &[(&str, &str)], body: &'static str) -> String {
    let response = send(&relay.public, request("POST", target, lines, body)).await.expect("an answer");
    response.headers()["relay-event-id"].to_str().expect("text").to_owned()
}

#[tokio::test]
async fn whoever_watches_sees_live_kept_and_refused_webhooks_as_they_happen() {
    let relay = relay(&[LIVE, HEADS, KEPT, GITHUB].concat()).await;
    let (good, bad) = (handler(200).await, handler(500).await);
    let mut agents = Vec::new();
    for (endpoint, handler) in [("live", &bad), ("quiet", &good), ("kept", &good), ("github", &good)] {
        agents.push(relay.agent(endpoint, &handler.port(), &[]).await.expect("attaches"));
    }
    let mut watcher = Watcher::of_admin(&relay, "types=rows").await;
    let mut failing = Watcher::of_admin(&relay, "types=rows&q=is:rejected%20%22looked%20for%22").await;

    let quiet = post(&relay, "/quiet/x", &[], "nothing is kept of it").await;
    let live = post(&relay, "/live/x?token=hunter2", &[("cookie", "hunter2")], "what is looked for").await;
    let row = watcher.row(|row| row["id"] == *live || row["id"] == *quiet).await;
    let seen = [&row["id"], &row["kind"], &row["state"], &row["target"], &row["agent"], &row["endpoint"]];
    let agent = row["agent"].clone();
    assert_eq!(
        seen,
        [
            &Value::from(live.as_str()),
            &"live".into(),
            &"rejected".into(),
            &"/x?token=[masked]".into(),
            &agent,
            &"live".into()
        ]
    );
    assert!(agent.is_string() && row["took_us"].as_u64() > Some(0) && row["patience"].is_number(), "{row}");
    assert_eq!((&row["status"], &row["size"]), (&500.into(), &18.into()));
    assert_eq!(failing.row(|_| true).await["id"], *live, "it was found by its body");

    let kept = post(&relay, "/kept", &[], "{}").await;
    let row = watcher.row(|row| row["id"] == *kept && row["state"] == "delivered").await;
    assert_eq!((&row["kind"], &row["status"], &row["attempt_count"]), (&"event".into(), &200.into(), &1.into()));
    assert!(row["took_us"].as_u64() > Some(0), "{row}");

    let signature = signed("github", SECRET, b"{}").expect("signs").remove(0);
    let refused = post(&relay, "/github", &[(&signature.0, &signature.1)], "{\"changed\":1}").await;
    let row = watcher.row(|row| row["id"] == *refused).await;
    assert_eq!(
        (&row["kind"], &row["why"], &row["status"]),
        (&"refused".into(), &"signature_mismatch".into(), &401.into())
    );
}

#[tokio::test]
async fn whoever_watches_sees_agents_and_endpoints_whole_and_learns_that_what_waited_was_skipped() {
    let relay = relay(&[KEPT, LIVE].concat()).await;
    let token = relay.admin_token().expect("a token");
    for body in ["1", "2"] {
        post(&relay, "/kept", &[], body).await;
    }
    let mut states = Watcher::of_admin(&relay, "types=agents,endpoints").await;
    let mut rows = Watcher::of_admin(&relay, "types=rows").await;
    let told = states.next().await.expect("agents");
    assert_eq!((told.event.as_str(), told.data.as_str()), ("agents", r#"{"agents":[],"gone":[]}"#));
    let told = states.next().await.expect("endpoints");
    let kept = |data: &str| serde_json::from_str::<Value>(data).expect("JSON")["endpoints"][0].clone();
    assert_eq!((&kept(&told.data)["name"], &kept(&told.data)["waiting"]), (&"kept".into(), &2.into()));

    let skip = |path: &str, token: &str| {
        let question = Request::post(path).header("host", "localhost");
        question.header("authorization", format!("Bearer {token}")).body(Full::default()).expect("lawful")
    };
    let path = "/endpoints/kept/skip";
    let refused = send(&relay.public, skip(&format!("/_relay/v1{path}"), &relay.token)).await.expect("an answer");
    assert!(refused.status() == 403 && refused.body().windows(12).any(|part| part == b"may_not_skip"), "{refused:?}");
    let skipped = send(&relay.admin, skip(&format!("/api/v1{path}"), &token)).await.expect("an answer");
    assert_eq!((skipped.status().as_u16(), &skipped.body()[..]), (200, &b"{\"name\":\"kept\",\"skipped\":2}\n"[..]));
    let live = send(&relay.admin, skip("/api/v1/endpoints/live/skip", &token)).await.expect("an answer");
    assert_eq!(live.status(), 409, "{live:?}");
    let resync = rows.next().await.expect("that there is something new");
    assert_eq!((resync.event.as_str(), resync.data.contains("many_changed")), ("resync", true), "{resync:?}");
    while {
        let told = states.next().await.expect("endpoints");
        kept(&told.data)["waiting"] != 0
    } {}

    let handler = handler(200).await;
    let _agent = relay.agent("kept", &handler.port(), &[]).await.expect("attaches");
    loop {
        let told = states.next().await.expect("agents");
        if told.event == "agents" {
            let agents: Value = serde_json::from_str(&told.data).expect("JSON");
            assert_eq!(agents["agents"][0]["endpoints"][0]["standing"], "active", "{agents}");
            return;
        }
    }
}

#[tokio::test]
async fn a_token_sees_its_own_endpoints_and_goes_on_where_it_was() {
    let token = AgentToken::generate().expect("randomness");
    let table = format!(
        "[[token]]\nname = \"reader\"\nsha256 = [\"{}\"]\nendpoints = [\"live\"]\nrights = [\"read\"]\n",
        token.hash().to_hex()
    );
    let relay = relay(&[LIVE, GITHUB, &table].concat()).await;
    let handler = handler(200).await;
    let _agent = relay.agent("live", &handler.port(), &[]).await.expect("attaches");
    let path = "/_relay/v1/stream?types=rows";
    let mut watcher = Watcher::open(&relay.public, path, token.expose(), None).await.expect("it opens");
    let hello = watcher.next().await.expect("it begins");
    let refused = post(&relay, "/github", &[], "{}").await;
    let first = post(&relay, "/live", &[], "1").await;
    let message = watcher.next().await.expect("a row");
    assert!(message.data.contains(&first) && !message.data.contains(&refused), "{message:?}");
    drop(watcher);

    let second = post(&relay, "/live", &[], "2").await;
    let mut watcher = Watcher::open(&relay.public, path, token.expose(), Some(&message.id)).await.expect("it opens");
    assert_eq!(watcher.next().await.expect("it begins").event, "hello");
    let message = watcher.next().await.expect("what was missed");
    assert!(message.data.contains(&second) && !message.data.contains(&first), "{message:?}");
    assert_ne!(message.id, hello.id);

    for wrong in ["nobody's", ""] {
        assert_eq!(Watcher::open(&relay.public, path, wrong, None).await.err(), Some(401));
    }
    let mut more = Vec::new();
    let open = || Watcher::open(&relay.public, path, token.expose(), None);
    while more.len() < 3 {
        // The relay learns that the first one has left once it tells it something.
        match open().await {
            Ok(another) => more.push(another),
            Err(status) => assert_eq!(status, 429),
        }
    }
    assert_eq!(open().await.err(), Some(429));
}

#[tokio::test]
async fn streams_leave_probes_their_place_and_end_with_the_relay() {
    let mut relay = relay(LIVE).await;
    let token = relay.admin_token().expect("a token");
    let mut watchers = Vec::new();
    while let Ok(watcher) = Watcher::open(&relay.admin, "/api/v1/stream", &token, None).await {
        watchers.push(watcher);
    }
    assert_eq!(watchers.len(), 16);
    let mut probes = Vec::new();
    for _ in 0..64 {
        // Each keeps its connection.
        let mut probe = relay_tests::sender::Keeper::connect(&relay.admin).await.expect("connects");
        assert_eq!(probe.send(question("/readyz", &[])).await.expect("an answer").status(), 200);
        probes.push(probe);
    }
    relay.terminate().await.expect("a signal");
    for mut watcher in watchers {
        assert_eq!(watcher.next().await.expect("it begins").event, "hello");
        assert_eq!(watcher.next().await.expect("a farewell").event, "bye");
        assert!(watcher.next().await.is_none());
    }
    assert!(timeout(Duration::from_secs(20), relay.ended()).await.expect("it ends").expect("a status"));
}

#[tokio::test]
async fn event_tail_prints_rows_at_the_relay_and_at_the_agent() {
    let relay = relay(&[LIVE, KEPT].concat()).await;
    let handler = handler(200).await;
    let _agent = relay.agent("live", &handler.port(), &[]).await.expect("attaches");
    let mut command = relay_tests::program::Program::from(Path::new(PROGRAM)).role("client");
    command.args(["event", "tail", "--json", "live", "--relay", &format!("ws://{}", relay.public)]);
    let mut tail = Agent::spawn(command.env("RELAY_TOKEN", &relay.token)).expect("starts");
    let mut own = relay_tests::program::Program::from(Path::new(PROGRAM)).role("server");
    let file = relay.state_file("admin.token");
    own.args(["event", "tail", "-q", "status:200", "--admin-url", &format!("http://{}", relay.admin)]);
    let mut own = Agent::spawn(own.arg("--admin-token-file").arg(file)).expect("starts");
    // Each begins at a moment that nobody knows: webhooks come until both have told of one.
    let told = async {
        let both = async { (tail.line("hook_").await.expect("a row"), own.line("hook_").await.expect("a row")) };
        tokio::pin!(both);
        loop {
            tokio::select! {
                told = &mut both => return told,
                _ = post(&relay, "/live", &[], "{}") => {}
            }
        }
    };
    let (json, words) = timeout(PATIENCE, told).await.expect("both tell");
    let row: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&row["endpoint"], &row["kind"], &row["status"]), (&"live".into(), &"live".into(), &200.into()));
    assert!(words.contains(" ANSWERED live 200 POST "), "{words}");
}

#[tokio::test]
async fn figures_count_what_happened() {
    let relay = relay(LIVE).await;
    let handler = handler(200).await;
    let _agent = relay.agent("live", &handler.port(), &[]).await.expect("attaches");
    post(&relay, "/live", &[], "{}").await;
    let mut watcher = Watcher::of_admin(&relay, "types=figures").await;
    let sum = |figures: &Value, key: &str| {
        figures[key].as_array().map(|steps| steps.iter().filter_map(Value::as_u64).sum::<u64>())
    };
    let figures = loop {
        let message = watcher.next().await.expect("it goes on");
        let figures: Value = serde_json::from_str(&message.data).expect("JSON");
        if message.event == "figures" && sum(&figures, "received") > Some(0) {
            break figures;
        }
    };
    assert_eq!((sum(&figures, "received"), sum(&figures, "2xx"), &figures["step_s"]), (Some(1), Some(1), &10.into()));
    let bearer = format!("Bearer {}", relay.admin_token().expect("a token"));
    let lines = [("authorization", bearer.as_str())];
    let asked: Response<Bytes> =
        send(&relay.admin, question("/api/v1/figures?endpoint=live&since=1h", &lines)).await.expect("an answer");
    let asked: Value = serde_json::from_slice(asked.body()).expect("JSON");
    assert_eq!((sum(&asked, "received"), asked["p50_us"].as_array().map(Vec::len)), (Some(1), Some(360)));
    assert!(asked["store_limit"].is_u64() && asked["patience"]["live"].is_number(), "{asked}");
    let other = send(&relay.admin, question("/api/v1/figures?since=yesterday", &lines)).await.expect("an answer");
    assert_eq!(other.status(), 400);
}
