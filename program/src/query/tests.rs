use proptest::prelude::*;

use super::*;

fn now() -> Timestamp {
    "2026-01-31T08:00:00Z".parse().unwrap()
}

fn parsed(text: &str) -> Query {
    let (query, mistakes) = Query::parse(text, now());
    assert_eq!(mistakes, [], "{text}");
    query
}

fn event() -> EventSummary {
    EventSummary {
        id: "hook_01a20e58387038b51dfc84fc91783c1f".into(),
        endpoint: "pay".into(),
        kind: "event".into(),
        state: "dead".into(),
        why: "handler_failed".into(),
        received_at: "2026-01-31T07:30:00Z".into(),
        method: "POST".into(),
        target: "/hooks/a?token=Hunter2".into(),
        event_type: Some("invoice.paid".into()),
        sender_id: Some("evt_1SVq4rNw".into()),
        size: 1500,
        attempt_count: 8,
        status: Some(500),
        took_us: Some(600_000),
        agent: Some("edge-1".into()),
        patience: Some(0.81),
        replay_of: Some("hook_1".into()),
        ..EventSummary::default()
    }
}

struct Carried;

impl Content for Carried {
    fn headers(&mut self) -> Lines<'_> {
        vec![("x-github-event".into(), b"push"[..].into()), ("x-n".into(), b"\xffb"[..].into())]
    }
    fn body(&mut self) -> Cow<'_, [u8]> {
        b"{\"name\":\"Ines\", \"paid\": true}"[..].into()
    }
    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        Some((vec![("content-type".into(), b"text/plain"[..].into())], b"no such column: x"[..].into()))
    }
    fn is_masked(&mut self) -> bool {
        true
    }
}

struct Untouched;

impl Content for Untouched {
    fn headers(&mut self) -> Lines<'_> {
        panic!("the row alone decides")
    }
    fn body(&mut self) -> Cow<'_, [u8]> {
        panic!("the row alone decides")
    }
    fn answer(&mut self) -> Option<(Lines<'_>, Cow<'_, [u8]>)> {
        panic!("the row alone decides")
    }
    fn is_masked(&mut self) -> bool {
        panic!("the row alone decides")
    }
}

#[test]
fn a_row_decides_what_it_can() {
    for (text, finds) in [
        ("", true),
        ("endpoint:pay", true),
        ("endpoint:shop,p*", true),
        ("-endpoint:pay", false),
        ("is:dead,failed", true),
        ("is:delivered", false),
        ("is:replay is:retried", true),
        ("-is:replay", false),
        ("status:5xx", true),
        ("status:404", false),
        ("status:none,500-503", true),
        ("why:handler_*", true),
        ("took:>500ms", true),
        ("took:>600ms", false),
        ("took:>=600ms took:100ms-1s", true),
        ("size:<2kB", true),
        ("size:<0B", false),
        ("attempts:>1", true),
        ("attempts:8", true),
        ("patience:>80%", true),
        ("patience:>81%", false),
        ("since:42m", true),
        ("since:10m", false),
        ("-since:10m", true),
        ("until:10m since:1h", true),
        ("since:2026-01-31T07:00Z until:2026-02-01", true),
        ("method:post", true),
        ("path:/hooks/*", true),
        ("path:/hooks/a", true),
        ("path:*hunter2", false),
        ("type:invoice.*", true),
        ("agent:EDGE-1", false),
        ("agent:edge-*", true),
        ("id:01a20e58", true),
        ("id:hook_01a20e58387038b51dfc84fc91783c1f", true),
        ("id:01a20e5", false),
        ("id:evt_1svq4rnw", false),
        ("id:evt_1SVq4rNw", true),
        ("sender:evt_1SVq4rNw", true),
        ("sender:01a20e58", false),
        ("invoice hunter2", true),
        ("-Hunter2", false),
    ] {
        let query = parsed(text);
        assert_eq!(query.judge(&event()), Some(finds), "{text}");
        assert_eq!(query.matches(&event(), &mut Untouched), finds, "{text}");
    }
}

#[test]
fn what_an_event_carries_is_asked_only_where_its_row_does_not_decide() {
    for (text, finds) in [
        ("ines", true),
        ("Ines", true),
        ("INES", false),
        ("\"x-github-event: push\"", true),
        ("-nowhere", true),
        ("header:x-github-event", true),
        ("header:X-GitHub-Event=push,ping", true),
        ("header:x-github-event=pu", false),
        ("header:x-n=*b", true),
        ("body:\"\\\"paid\\\": true\"", true),
        ("answer:\"no such column\"", true),
        ("answer:text/plain", true),
        ("answer:ines", false),
        ("is:masked", true),
        ("is:delivered,masked", true),
        ("-is:masked", false),
    ] {
        let query = parsed(text);
        assert_eq!(query.judge(&event()), None, "{text}");
        assert!(query.needs().anything(), "{text}");
        assert_eq!(query.matches(&event(), &mut Carried), finds, "{text}");
    }
    assert_eq!(parsed("endpoint:shop ines").judge(&event()), Some(false), "one term that fails is enough");
    assert_eq!(parsed("body:x").needs(), Needs { body: true, ..Needs::default() });
    assert!(!parsed("endpoint:x is:dead path:/a").needs().anything());
}

#[test]
fn mistakes_name_their_place_and_the_rest_stays_in_force() {
    for (text, at, message, left) in [
        ("is:deed", 3, "is nothing", ""),
        ("is:dead,deed x", 8, "is nothing", "is:dead x"),
        ("stauts:500 y", 0, "no key `stauts`", "y"),
        ("a took:500ms", 7, "cannot be compared", "a"),
        ("status:9", 7, "is no status", ""),
        ("type:", 0, "nothing stands behind", ""),
        ("b since:tomorrow", 2, "is no moment", "b"),
        ("\"open", 0, "not closed", "open"),
        ("ä \"\"", 3, "nothing between", "ä"),
        ("header:a b", 99, "", "header:a b"),
        ("header:\"a b\"", 7, "is no header", ""),
    ] {
        let (query, mistakes) = Query::parse(text, now());
        assert_eq!(query.to_string(), left, "{text}");
        let Some(mistake) = mistakes.first() else {
            assert_eq!(at, 99, "{text}");
            continue;
        };
        assert_eq!(mistake.at, at, "{text}");
        assert!(mistake.message.contains(message), "{text}: {mistake:?}");
    }
    let (_, mistakes) = Query::parse("stauts:500 colour:red", now());
    assert_eq!(mistakes[0].hint, "did you mean \"status\"?");
    assert!(mistakes[1].hint.contains("quotes"), "{mistakes:?}");
}

#[test]
fn a_query_has_bounds() {
    let (query, mistakes) = Query::parse(&"a ".repeat(20), now());
    assert_eq!((query.terms.len(), mistakes.len(), mistakes[0].at), (MAX_TERMS, 1, 32));
    let (query, mistakes) = Query::parse(&"ä".repeat(300), now());
    assert_eq!((query.to_string().len(), mistakes[0].at), (512, 512));
}

#[test]
fn a_url_is_a_word() {
    assert_eq!(parsed("https://a/b").to_string(), "\"https://a/b\"");
    // Beyond the largest number that counts, above it is all the same.
    for most in ["size:>2EB", "size:>1125899906842624B", "took:>400000h"] {
        let query = parsed(most);
        assert_eq!(Query::try_from(query.to_string()), Ok(query), "{most}");
    }
}

#[test]
fn what_can_be_found_is_known_from_the_query() {
    assert!(parsed("endpoint:p* x").may_be_of("pay") && !parsed("-endpoint:p*").may_be_of("pay"));
    assert_eq!(parsed("endpoint:a,b*,c").names(), ["a", "c"]);
    assert!(parsed("is:dead,rejected x").is_only(&[Is::Dead, Is::Rejected, Is::Failed]));
    assert!(!parsed("-is:dead").is_only(&[Is::Dead]) && !parsed("x").is_only(&[Is::Dead]));
    assert_eq!(parsed("id:evt_1").sender_id(), Some("evt_1"));
    assert_eq!((parsed("id:01a20e58").sender_id(), parsed("id:evt_*").sender_id()), (None, None));
}

#[test]
fn a_parameter_is_a_term() {
    let key = |key: &str, value: &str| Query::key(key, value, now()).map(|query| query.to_string());
    assert_eq!(key("type", "a b,c\"d"), Ok("type:\"a b\",\"c\\\"d\"".to_owned()));
    assert_eq!(key("since", "1h"), Ok("since:2026-01-31T07:00:00Z".to_owned()));
    assert!(key("status", "40").is_err_and(|mistake| mistake.message.contains("no status")));
    assert!(key("type", "").is_err());
}

#[test]
fn a_query_survives_being_written_down() {
    let query = parsed("since:42m is:dead -\"a b\" took:>1ms");
    let text = serde_json::to_string(&query).unwrap();
    assert_eq!(serde_json::from_str::<Query>(&text).unwrap(), query);
    assert!(serde_json::from_str::<Query>("\"is:nothing\"").is_err());
}

/// Texts that are likely to be queries, and others.
fn texts() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "endpoint", "is", "status", "took", "size", "attempts", "patience", "since", "until", "header", "answer",
        "body", "sender", "id", "type", "path", "Why", "x",
    ]);
    let values = prop::sample::select(vec![
        "a",
        "*",
        "dead",
        "masked",
        "5xx",
        "404",
        "400-499",
        "none",
        ">500ms",
        "<2kB",
        ">=3",
        "<=80.5%",
        "1-3",
        "<0",
        "42m",
        "2026-01-31",
        "2026-01-31T08:00Z",
        "a=b",
        "\"a b\"",
        "\"\\\"\"",
        "\\",
        "x\"",
        "-",
        "é,É",
        "hook_01a20e58",
        "",
    ]);
    let term = (prop::bool::ANY, keys, prop::collection::vec(values, 1..4))
        .prop_map(|(not, key, values)| format!("{}{key}:{}", if not { "-" } else { "" }, values.join(",")));
    let word = prop_oneof![term, "[a-zA-Z:\"\\\\,* -]{0,12}", "\\PC{0,8}"];
    prop_oneof![prop::collection::vec(word, 0..20).prop_map(|words| words.join(" ")), any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_a_query_prints_is_the_same_query(text in texts()) {
        let (query, mistakes) = Query::parse(&text, now());
        prop_assert!(mistakes.iter().all(|mistake| mistake.at <= text.len() && text.is_char_boundary(mistake.at)));
        let printed = query.to_string();
        prop_assert_eq!(Query::try_from(printed.clone()), Ok(query.clone()), "{}", printed);
        query.matches(&event(), &mut Carried);
    }
}
