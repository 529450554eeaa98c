//! Events as the API tells of them: one list over all kinds, one with its way, files of them, changed replays, and work on
//! many.

use std::path::Path;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, Full};
use relay_proto::{HeaderBlock, ResponseHead};
use relay_server::agents::token::AgentToken;
use relay_tests::{
    agents::upgrade,
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server},
    sender::{request, send, send_streaming, signed},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

const KEPT: &str = "[[endpoint]]\nname = \"kept\"\nmode = \"assured\"\nwait_for_agent = \"0s\"\n\
    verify = { provider = \"standard-webhooks\", secrets = [\"env:HOOK\"] }\n";

const LIVE: &str = "[[endpoint]]\nname = \"now\"\nmode = \"live\"\nverify = \"none\"\nwait_for_agent = \"0s\"\n";

/// A relay with two endpoints, and a token for each of the rights that are asked for.
struct Bed {
    relay: Server,
    reader: String,
    signer: String,
}

impl Bed {
    async fn start() -> Self {
        let tokens = [("reader", "\"attach\", \"read\""), ("signer", "\"attach\", \"read\", \"replay\", \"sign\"")];
        let mut config = format!("{KEPT}{LIVE}");
        let mut clear = Vec::new();
        for (name, rights) in tokens {
            let token = AgentToken::generate().expect("randomness");
            let hash = token.hash().to_hex();
            config += &format!(
                "[[token]]\nname = \"{name}\"\nsha256 = [\"{hash}\"]\nendpoints = [\"kept\", \"now\"]\nrights = [{rights}]\n"
            );
            clear.push(token.expose().to_owned());
        }
        let program = Path::new(env!("CARGO_BIN_EXE_demo"));
        let relay = Server::start(program, "127.0.0.1:0", &config, &[("HOOK", SECRET)]).await.expect("a relay");
        let [reader, signer] = clear.try_into().expect("two tokens");
        Self { relay, reader, signer }
    }

    /// A webhook to the endpoint that keeps; its id, and the status of its answer.
    async fn webhook(&self, body: &str) -> (String, StatusCode) {
        let headers = signed("standard-webhooks", SECRET, body.as_bytes()).expect("signs");
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        headers.push(("content-type", "application/json"));
        let answer = send(&self.relay.public, request("POST", "/kept/a?b=1", &headers, body.to_owned())).await;
        let answer = answer.expect("answers");
        (id_of(&answer), answer.status())
    }

    async fn admin(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let token = self.relay.admin_token().expect("a token");
        let answer = ask(&self.relay.admin, &token, method, &format!("/api/v1{path}"), body).await;
        (answer.status(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.admin("GET", path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    async fn text(&self, path: &str) -> String {
        let token = self.relay.admin_token().expect("a token");
        let answer = ask(&self.relay.admin, &token, "GET", &format!("/api/v1{path}"), Value::Null).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        String::from_utf8_lossy(answer.body()).into_owned()
    }

    async fn by(&self, token: &str, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = ask(&self.relay.public, token, method, &format!("/_relay/v1{path}"), body).await;
        (answer.status(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    async fn agent(&self, token: &str, handler: &Handler) -> Agent {
        let program = Path::new(env!("CARGO_BIN_EXE_demo"));
        let more = ["--name", "laptop"];
        Agent::start(program, &self.relay.public, token, "kept", &handler.port(), &more).await.expect("attaches")
    }

    /// What a command that succeeds prints.
    async fn run(&self, words: &[&str]) -> String {
        let (code, text) = self.relay.ask(words).await.expect("runs");
        assert_eq!(code, 0, "{words:?}: {text}");
        text
    }
}

fn id_of(answer: &Response<Bytes>) -> String {
    answer.headers().get("relay-event-id").and_then(|id| id.to_str().ok()).expect("an id").to_owned()
}

async fn ask(address: &str, token: &str, method: &str, path: &str, body: Value) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path).header("host", address);
    let request = request.header("authorization", format!("Bearer {token}"));
    let (request, body) = match body {
        Value::Null => (request, Bytes::new()),
        body => (request.header("content-type", "application/json"), body.to_string().into()),
    };
    send(address, request.body(Full::new(body)).expect("lawful")).await.expect("answers")
}

fn ids(list: &Value) -> Vec<&str> {
    list["events"].as_array().expect("events").iter().map(|row| row["id"].as_str().expect("an id")).collect()
}

/// A handler that answers 200 and tells of each call.
async fn telling(status: u16) -> (Handler, mpsc::UnboundedReceiver<(Parts, Bytes)>) {
    let (tell, calls) = mpsc::unbounded_channel();
    let handler = Handler::start(move |request| {
        let tell = tell.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let _nobody_listens = tell.send((parts, body));
            Response::builder().status(status).body(full("no such column: refunds")).expect("lawful")
        }
    });
    (handler.await.expect("listens"), calls)
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "it never came: {what}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_list_has_all_kinds_and_a_query_finds_among_them() {
    let bed = Bed::start().await;
    let (kept, _) = bed.webhook("{\"name\":\"Ines\"}").await;
    let live = send(&bed.relay.public, request("POST", "/now/x", &[], "hi")).await.expect("answers");
    let refused = send(&bed.relay.public, request("POST", "/kept", &[], "{}")).await.expect("answers");
    let (live, refused) = (id_of(&live), id_of(&refused));
    eventually("all three", async || {
        bed.get("/events?q=").await["events"].as_array().is_some_and(|all| all.len() == 3)
    })
    .await;

    let all = bed.get("/events?q=").await;
    assert_eq!(ids(&all), [refused.as_str(), &live, &kept]);
    let told: Vec<_> =
        all["events"].as_array().expect("events").iter().map(|row| (&row["kind"], &row["why"])).collect();
    let expected = [
        (json!("refused"), json!("signature_missing")),
        (json!("live"), json!("agent_unavailable")),
        (json!("event"), json!("waits_for_agent")),
    ];
    assert_eq!(told.iter().map(|(kind, why)| ((*kind).clone(), (*why).clone())).collect::<Vec<_>>(), expected);
    assert_eq!(ids(&bed.get("/events").await), [kept.as_str()], "without a query: kept ones alone, as ever");
    for (q, found) in [
        ("is:refused", &refused),
        ("is:live", &live),
        ("ines", &kept),
        ("-is:live,refused", &kept),
        ("header:webhook-id=msg_1", &kept),
        ("endpoint:now", &live),
        ("path:/x", &live),
        ("status:401", &refused),
        ("why:agent_*", &live),
    ] {
        let list = bed.get(&format!("/events?q={}", q.replace(':', "%3A").replace('*', "%2A"))).await;
        assert_eq!(ids(&list), [found.as_str()], "{q}: {list}");
    }
    assert_eq!(bed.get("/events/count?q=").await["at_least"], 3);
    let first = bed.get("/events?q=&limit=2").await;
    let next = first["next"].as_str().expect("there is more");
    assert_eq!(
        (ids(&first), ids(&bed.get(&format!("/events?q=&after={next}")).await)),
        (vec![&*refused, &*live], vec![&*kept])
    );
    let around = bed.get(&format!("/events?q=&around={live}&limit=3")).await;
    assert_eq!(ids(&around), [refused.as_str(), &live, &kept]);

    let (status, problem) = bed.admin("GET", "/events?q=is%3Adead%20stauts%3A5", Value::Null).await;
    assert_eq!((status, &problem["at"], &problem["in_force"]), (StatusCode::BAD_REQUEST, &json!(8), &json!("is:dead")));
    for (id, word) in [
        (&refused, "There is no signature: the header webhook-signature is missing"),
        (&live, "No agent was attached."),
        (&kept, "waits for an agent"),
    ] {
        let shown = bed.get(&format!("/events/{id}")).await;
        let sentence = shown["sentence"].as_str().expect("a sentence");
        assert!(sentence.contains(word) && shown["advice"].is_string(), "{shown}");
    }
}

#[tokio::test]
async fn an_event_tells_its_way_and_is_a_file_of_each_form() {
    let bed = Bed::start().await;
    let (handler, _calls) = telling(200).await;
    let _agent = bed.agent(&bed.reader, &handler).await;
    let (id, status) = bed.webhook("{\"it's\":\"$HOME\"}").await;
    assert_eq!(status, StatusCode::OK);
    eventually("its end", async || bed.get(&format!("/events/{id}")).await["state"] == "delivered").await;
    let event = bed.get(&format!("/events/{id}")).await;
    assert_eq!((&event["agent"], &event["secret"]), (&json!("laptop"), &json!({ "number": 1, "of": 1 })));
    let hops: Vec<_> =
        event["hops"].as_array().expect("hops").iter().map(|hop| hop["what"].as_str().expect("a word")).collect();
    for what in ["received", "verified", "stored", "attempt", "answer_head"] {
        assert!(hops.contains(&what), "{hops:?}");
    }
    assert!(
        event["took_us"].as_u64() > Some(0) && event["patience"].as_f64().is_some_and(|part| part < 1.0),
        "{event}"
    );
    assert_eq!(event["sentence"], "The handler took it at the first attempt, with 200.");
    assert_eq!(bed.get(&format!("/events/{id}/attempts/1")).await["status"], 200);
    assert_eq!(bed.text(&format!("/events/{id}/attempts/1/body")).await, "no such column: refunds");

    let curl = bed.text(&format!("/events/{id}/export?as=curl")).await;
    assert!(curl.contains("--data-raw '{\"it'\\''s\":\"$HOME\"}'"), "{curl}");
    let har: Value = serde_json::from_str(&bed.text(&format!("/events/{id}/export?as=har")).await).expect("JSON");
    assert_eq!(har["log"]["entries"][0]["response"]["status"], 200);
    let cassette = bed.text(&format!("/events/{id}/export?as=cassette")).await;
    let line: Value = serde_json::from_str(cassette.lines().nth(1).expect("an event")).expect("JSON");
    assert_eq!(line["body"], BASE64.encode(b"{\"it's\":\"$HOME\"}"));
    let redacted = bed.text(&format!("/events/{id}/export?as=cassette&redact=true")).await;
    let line: Value = serde_json::from_str(redacted.lines().nth(1).expect("an event")).expect("JSON");
    assert_eq!(line["body"], BASE64.encode(b"{\"it's\":\"redacted\"}"));
    assert!(bed.run(&["event", "export", &id, "--as", "http"]).await.contains("POST /kept/a?b=1 HTTP/1.1"));
    assert!(bed.run(&["event", "show", &id]).await.contains("The handler took it at the first attempt, with 200."));
    assert!(bed.run(&["event", "list", "-q", "agent:laptop"]).await.contains(&id));
    let (status, _) = bed.admin("POST", "/events/export?as=har", json!({ "q": "is:delivered" })).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = bed.by(&bed.reader, "GET", &format!("/events/{id}/export?as=http"), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "whoever may read may export");
}

#[tokio::test]
async fn an_event_tells_whether_its_handler_got_what_was_sent_as_its_agent_says() {
    let bed = Bed::start().await;
    let (handler, _calls) = telling(200).await;
    let mut agent = bed.agent(&bed.reader, &handler).await;
    let (id, _) = bed.webhook("{}").await;
    eventually("its end", async || bed.get(&format!("/events/{id}")).await["state"] == "delivered").await;
    let event = bed.get(&format!("/events/{id}")).await;
    assert_eq!(event["same_at_handler"], true, "{event}");
    assert_eq!(event["attempts"][0]["sha256_in"], event["body"]["sha256"], "{event}");
    let shown = bed.run(&["event", "show", &id]).await;
    assert!(shown.contains("by laptop, which says that its handler got the same bytes"), "{shown}");
    assert!(agent.stop().await.expect("stops"));

    let head = ResponseHead { sha256_in: Some([7; 32]), ..ResponseHead::new(200, HeaderBlock::new()) };
    let connected = upgrade(&bed.relay.public, &bed.reader, None).await.expect("connects");
    let _wrong = connected.answer("kept", head, Bytes::new()).await.expect("attaches");
    let (id, _) = bed.webhook("{\"n\":2}").await;
    eventually("its end", async || bed.get(&format!("/events/{id}")).await["state"] == "delivered").await;
    let event = bed.get(&format!("/events/{id}")).await;
    assert_eq!(
        (&event["same_at_handler"], &event["attempts"][0]["sha256_in"]),
        (&json!(false), &json!("07".repeat(32)))
    );
}

#[tokio::test]
async fn a_live_exchange_tells_what_its_handler_got_while_somebody_watches() {
    let bed = Bed::start().await;
    let (handler, _calls) = telling(200).await;
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let agent = Agent::start(program, &bed.relay.public, &bed.reader, "now", &handler.port(), &[]).await;
    let _agent = agent.expect("attaches");
    let sent = async |body: &str| {
        let answer = send(&bed.relay.public, request("POST", "/now/x", &[], body.to_owned())).await.expect("answers");
        bed.get(&format!("/events/{}", id_of(&answer))).await
    };
    let event = sent("nobody looks").await;
    assert_eq!((&event["same_at_handler"], &event["attempts"][0]["sha256_in"]), (&Value::Null, &Value::Null));

    let token = bed.relay.admin_token().expect("a token");
    let lines = [("authorization", &*format!("Bearer {token}")), ("host", "localhost")];
    let mut question = Request::builder().uri("/api/v1/stream?types=rows");
    for (name, value) in lines {
        question = question.header(name, value);
    }
    let _stream =
        send_streaming(&bed.relay.admin, question.body(Full::default()).expect("lawful")).await.expect("opens");
    let event = sent("somebody looks").await;
    assert_eq!(event["same_at_handler"], true, "{event}");
    assert_eq!(event["attempts"][0]["sha256_in"], event["body"]["sha256"], "{event}");
    let event = sent(&"long".repeat(20_000)).await;
    assert_eq!(event["same_at_handler"], Value::Null, "there is nothing whole to compare with: {event}");
}

#[tokio::test]
async fn changed_content_is_delivered_and_signed_only_with_the_right_to() {
    let bed = Bed::start().await;
    let (handler, mut calls) = telling(200).await;
    let _agent = bed.agent(&bed.signer, &handler).await;
    let (id, _) = bed.webhook("{\"n\":1}").await;
    let mut next = async || timeout(PATIENCE, calls.recv()).await.expect("in time").expect("a call");
    let (first, _) = next().await;

    let edit =
        json!({ "body_text": "{\"n\":2}", "target": "/c", "headers": [["content-type", "text/x"], ["x-new", "1"]] });
    let replay = |signature: &str| format!("/events/{id}/replay?name=laptop&signature={signature}");
    let (status, told) = bed.by(&bed.signer, "POST", &replay("fresh"), edit.clone()).await;
    assert_eq!((status, &told["status"], &told["resigned"]), (StatusCode::OK, &json!(200), &json!(true)), "{told}");
    let (parts, body) = next().await;
    assert_eq!(
        (&body[..], parts.uri.path(), &parts.headers["x-new"]),
        (&b"{\"n\":2}"[..], "/c", &"1".parse().expect("a value"))
    );
    assert_ne!(parts.headers["webhook-signature"], first.headers["webhook-signature"]);

    let (status, _) = bed.by(&bed.signer, "POST", &replay("auto"), json!({ "body_text": "{\"n\":3}" })).await;
    let (parts, body) = next().await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"{\"n\":3}"[..]));
    assert_eq!(parts.headers["webhook-signature"], first.headers["webhook-signature"], "it is not signed by itself");
    assert_eq!(parts.headers["relay-verified"], "edited", "nobody proved this content");

    let (status, told) =
        bed.by(&bed.signer, "POST", &format!("/events/{id}/replay?to=endpoint&signature=fresh"), edit).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (_, body) = next().await;
    assert_eq!(&body[..], b"{\"n\":2}");
    let new = bed.get(&format!("/events/{}", told["new_id"].as_str().expect("an id"))).await;
    assert_eq!((&new["replay_of"], &new["target"]), (&json!(id), &json!("/c")));

    let (status, told) = bed.by(&bed.reader, "POST", &replay("fresh"), json!({ "body_text": "x" })).await;
    assert_eq!((status, &told["code"]), (StatusCode::FORBIDDEN, &json!("may_not_sign")));
    let (status, _) = bed.by(&bed.signer, "POST", &replay("keep"), json!({ "target": "/a\r\nx: y" })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn dead_letters_are_groups_and_all_of_a_query_are_worked_off() {
    let bed = Bed::start().await;
    let (handler, _calls) = telling(410).await;
    let agent = bed.agent(&bed.signer, &handler).await;
    for number in 0..3 {
        bed.webhook(&format!("{{\"n\":{number}}}")).await;
    }
    eventually("three dead letters", async || bed.get("/events/count?q=is%3Adead").await["at_least"] == 3).await;
    let groups = bed.get("/dead/groups").await;
    let group = &groups["groups"][0];
    assert_eq!(
        (&group["count"], &group["status"], &group["answer"]),
        (&json!(3), &json!(410), &json!("no such column: refunds"))
    );
    assert!(bed.run(&["dead", "groups"]).await.contains("no such column: refunds"));
    let q = group["q"].as_str().expect("a query").to_owned();
    drop(agent);

    let body = json!({ "action": "drop", "q": q });
    let (status, counted) = bed.admin("POST", "/bulk?dry_run", body.clone()).await;
    assert_eq!((status, &counted["at_least"], &counted["exact"]), (StatusCode::OK, &json!(3), &json!(true)));
    assert_eq!(bed.get("/events/count?q=is%3Adead").await["at_least"], 3, "counting does nothing");
    let (status, _) = bed.by(&bed.signer, "POST", "/bulk", body.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "that takes the right `act`");
    let (status, begun) = bed.admin("POST", "/bulk", body).await;
    assert_eq!((status, &begun["of"]), (StatusCode::ACCEPTED, &json!(3)));
    let id = begun["id"].as_str().expect("an id").to_owned();
    eventually("its end", async || bed.get(&format!("/bulks/{id}")).await["finished"] == true).await;
    let ended = bed.get(&format!("/bulks/{id}")).await;
    assert_eq!((&ended["done"], &ended["skipped"], &ended["action"]), (&json!(3), &json!(0), &json!("drop")));
    assert_eq!(bed.get("/dead/groups").await["groups"], json!([]));
    let (status, _) = bed.admin("DELETE", &format!("/bulks/{id}"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = bed.admin("POST", "/bulk", json!({ "action": "drop", "q": "stauts:5" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_masked_cannot_be_spelt_out_by_searching() {
    let bed = Bed::start().await;
    let body = "{\"name\":\"Ines\"}";
    let headers = signed("standard-webhooks", SECRET, body.as_bytes()).expect("signs");
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    headers.extend([("authorization", "Bearer hunter2"), ("cookie", "c=hunter2")]);
    let sent = request("POST", "/kept/a?token=hunter2&b=plain", &headers, body.to_owned());
    let kept = id_of(&send(&bed.relay.public, sent).await.expect("answers"));
    for (query, finds) in [
        ("hunter2", false),
        ("header:authorization=Bearer*", false),
        ("header:cookie=*hunter2", false),
        ("header:authorization", true),
        ("plain", true),
        ("is:masked", true),
    ] {
        let path = format!("/events?q={}", query.replace(':', "%3A").replace('=', "%3D"));
        let (status, list) = bed.by(&bed.reader, "GET", &path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{list}");
        assert_eq!(ids(&list), if finds { vec![kept.as_str()] } else { vec![] }, "{query}");
    }
}

#[tokio::test]
async fn a_token_that_does_not_read_its_exports_has_two_at_a_time() {
    let bed = Bed::start().await;
    let (id, _) = bed.webhook(&format!("\"{}\"", "x".repeat(8 << 20))).await;
    let path = format!("/events/{id}/export?as=har");
    let mut unread = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&bed.relay.public).await.expect("connects");
        let head =
            format!("GET /_relay/v1{path} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {}\r\n\r\n", bed.reader);
        stream.write_all(head.as_bytes()).await.expect("writes");
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.expect("an answer begins");
        assert_eq!(&status, b"HTTP/1.1 200");
        unread.push(stream);
    }
    let (status, answer) = bed.by(&bed.reader, "GET", &path, Value::Null).await;
    assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"too_many_questions".into()));
    assert_eq!(bed.by(&bed.signer, "GET", &path, Value::Null).await.0, StatusCode::OK, "another token has its own");
    drop(unread);
    eventually("a place", async || bed.by(&bed.reader, "GET", &path, Value::Null).await.0 == StatusCode::OK).await;
}
