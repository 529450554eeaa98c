//! What the handler sees of a request. Lawful in every mode.

use anyhow::{Context, ensure};
use tokio::net::TcpSocket;

use super::{
    Bench,
    bench::{LONGEST_METHOD, is_error, ok},
    headers::{ADDED_TO_ANSWERS, ADDED_TO_REQUESTS, Generator, same_but_for},
    wire::{Framing, Lines, Wire, chunks, message, shown},
};

/// Any token is a method (RFC 9110, section 9.1), in any case.
pub async fn every_method_arrives(bench: &mut Bench) -> anyhow::Result<()> {
    let usual = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "PURGE", "PROPFIND", "M-SEARCH"];
    for method in usual.into_iter().chain(["get", "PoSt", "!#$%&'*+-.^_`|~0a", "!#$%&'*+-.^_`|~0A", LONGEST_METHOD]) {
        let request = message(&format!("{method} /open/x HTTP/1.1"), &[("Host", b"hook.test")], b"");
        if !bench.mode.takes(method) {
            let mut sender = bench.sender().await?;
            let (seen, answer) = bench.ask(&mut sender, &request, &ok()).await.context(method.to_owned())?;
            ensure!(seen.is_none(), "{method} cannot be kept and was");
            is_error(&answer.head, 405, "method_not_allowed")?;
            continue;
        }
        let (seen, answer) = bench.exchange(&request, &answer_to(method)).await.context(method.to_owned())?;
        ensure!(answer.head.status()? == 200, "{method}: {}", answer.head.status()?);
        ensure!(seen.head.method() == method, "{method} became {}", seen.head.method());
    }
    Ok(())
}

/// A `HEAD` is answered without the bytes that its head announces.
fn answer_to(method: &str) -> Vec<u8> {
    let mut answer = ok();
    if method == "HEAD" {
        answer.truncate(answer.len() - 2);
    }
    answer
}

/// No body, an empty one, an empty chunked one, and one of either kind stay what they are.
pub async fn no_body_an_empty_one_and_a_chunked_one_are_told_apart(bench: &mut Bench) -> anyhow::Result<()> {
    /// Its name, its lines and bytes, and what the handler is to see.
    type Case = (&'static str, &'static [(&'static str, &'static [u8])], &'static [u8], Framing, &'static [u8]);
    let cases: [Case; 6] = [
        ("none", &[], b"", Framing::None, b""),
        ("empty", &[("Content-Length", b"0")], b"", Framing::Length(0), b""),
        ("empty, chunked", &[("Transfer-Encoding", b"chunked")], b"0\r\n\r\n", Framing::Chunked, b""),
        ("a length", &[("Content-Length", b"3")], b"abc", Framing::Length(3), b"abc"),
        ("chunked", &[("Transfer-Encoding", b"chunked")], b"3\r\nabc\r\n0\r\n\r\n", Framing::Chunked, b"abc"),
        (
            "chunked with extensions and capitals",
            &[("Transfer-Encoding", b"Chunked")],
            b"003;a=b\r\nabc\r\n000\r\n\r\n",
            Framing::Chunked,
            b"abc",
        ),
    ];
    for method in ["POST", "GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for (case, lines, body, framing, expected) in cases {
            let lines = [&[("Host", &b"hook.test"[..])], lines].concat();
            let request = message(&format!("{method} /open HTTP/1.1"), &lines, body);
            let (seen, _) = bench.exchange(&request, &ok()).await.with_context(|| format!("{method}, {case}"))?;
            let got = seen.head.framing()?;
            ensure!(got == framing, "{method}, {case}: {framing:?} became {got:?}");
            ensure!(seen.body == expected, "{method}, {case}: {}", shown(&seen.body));
        }
    }
    Ok(())
}

/// Every byte value, every size from nothing to 25 MiB, whole or chunked, whatever its type says.
pub async fn bodies_arrive_byte_for_byte(bench: &mut Bench) -> anyhow::Result<()> {
    let types: [&[(&str, &[u8])]; 3] = [
        &[],
        &[("Content-Type", b"application/json")],
        &[("Content-Type", b"application/octet-stream"), ("Content-Encoding", b"gzip")],
    ];
    let mut sender = bench.sender().await?;
    for (at, len) in
        [0, 1, 2, 255, 256, 4096, 16_384, 16_385, 65_536, 65_537, 1_000_003, 25 * 1024 * 1024].into_iter().enumerate()
    {
        let body: Vec<u8> = (0..len).map(|n: usize| ((n % 256) ^ (n / 251)) as u8).collect();
        for chunked in [false, true] {
            let length = len.to_string();
            let framing: (&str, &[u8]) =
                if chunked { ("Transfer-Encoding", b"chunked") } else { ("Content-Length", length.as_bytes()) };
            let lines = [&[("Host", &b"hook.test"[..]), framing], types[at % types.len()]].concat();
            let payload =
                if chunked { [&chunks(&body, 7 + at * 9973)[..], b"0\r\n\r\n"].concat() } else { body.clone() };
            let request = message("POST /open HTTP/1.1", &lines, &payload);
            let (seen, _) =
                bench.exchange_on(&mut sender, &request, &ok()).await.with_context(|| format!("{len} bytes"))?;
            ensure!(seen.body == body, "{len} bytes arrived as {}", seen.body.len());
        }
    }
    Ok(())
}

/// A thousand generated lists each way: the same names, values, order in a name, and count.
pub async fn a_thousand_header_lists_arrive_as_they_are(bench: &mut Bench) -> anyhow::Result<()> {
    let mut generator = Generator::seeded();
    let mut sender = bench.sender().await?;
    for number in 0..1000 {
        let (asked, answered) = (generator.list(90, 48_000), generator.list(90, 48_000));
        let request = with_lines("POST /open HTTP/1.1", &[("host", "hook.test"), ("content-length", "0")], &asked);
        let answer = with_lines("HTTP/1.1 200 OK", &[("content-length", "0")], &answered);
        let exchanged = bench.exchange_on(&mut sender, &request, &answer).await;
        let (seen, got) =
            exchanged.with_context(|| format!("list {number}: {} and {} lines", asked.len(), answered.len()))?;
        let length = [("content-length".to_owned(), b"0".to_vec())];
        same_but_for(&[&asked[..], &length].concat(), &seen.head.lines, &ADDED_TO_REQUESTS)
            .with_context(|| format!("request {number}"))?;
        if bench.mode.answers() {
            same_but_for(&[&answered[..], &length].concat(), &got.head.lines, &ADDED_TO_ANSWERS)
                .with_context(|| format!("answer {number}"))?;
        }
    }
    Ok(())
}

fn with_lines(start: &str, first: &[(&str, &str)], lines: &Lines) -> Vec<u8> {
    let first = first.iter().map(|(name, value)| (*name, value.as_bytes()));
    let lines = lines.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    message(start, &first.chain(lines).collect::<Vec<_>>(), b"")
}

/// The most that the limits allow: 100 lines, and a head of 64 KiB less what its framing takes.
pub async fn a_head_at_the_limit_arrives(bench: &mut Bench) -> anyhow::Result<()> {
    let many: Lines = (0..99).map(|n| ("x-many".to_owned(), n.to_string().into_bytes())).collect();
    let large: Lines = (0..8).map(|n| (format!("x-large-{n}"), vec![b'a' + n; 8000])).collect();
    for lines in [many, large] {
        let request = with_lines("GET /open HTTP/1.1", &[("host", "hook.test")], &lines);
        let (seen, _) = bench.exchange(&request, &ok()).await?;
        same_but_for(&lines, &seen.head.lines, &ADDED_TO_REQUESTS)?;
    }
    Ok(())
}

/// A target arrives byte for byte, or not at all and with 400.
pub async fn a_target_arrives_exactly_or_is_refused(bench: &mut Bench) -> anyhow::Result<()> {
    let long = format!("/{}?{}", "l".repeat(30_000), "q".repeat(30_000));
    let carried = [
        "/",
        "//",
        "//x",
        "/a//b/",
        "/../",
        "/a/../b",
        "/./.",
        "/%2e%2e/%2E",
        "/%2f%5C",
        "/%00",
        "/%C3%A4?%C3%A4=%E2%82%AC",
        "/%0d%0aX:y",
        "/?",
        "/??",
        "/?a=b&a=c&&=",
        "/?q=%20+",
        "/a;b=c,d",
        "/a:b@c",
        "/a?b/c?d",
        "/~!$&'()*+,=-._",
        "/x%",
        "/%zz",
        "/http://evil.test/",
        "/?x=http://evil.test/",
        "/*",
        "/open",
        "/_relay/v1/connect",
        &long,
    ];
    let perhaps: [&[u8]; 17] = [
        b"/\"",
        b"/<x>",
        b"/{x}",
        b"/|",
        b"/\\..\\x",
        b"/^`",
        b"/[x]",
        b"/?\"<>[]{}|\\^`",
        "/\u{e4}?\u{20ac}".as_bytes(),
        b"/\xff",
        b"/?\xff\xfe",
        b"/a#b",
        b"/#",
        b"/?a#b",
        b"/\x7f",
        b"?x",
        b"x",
    ];
    let carried = carried.iter().map(|target| (target.as_bytes(), true));
    for (target, must) in carried.chain(perhaps.iter().map(|target| (*target, false))) {
        let start = [b"GET ", target, b" HTTP/1.1\r\nHost: own.test\r\n\r\n"].concat();
        let mut sender = bench.sender().await?;
        let name = shown(&target[..target.len().min(60)]);
        let (seen, answer) = bench.ask(&mut sender, &start, &ok()).await.with_context(|| name.clone())?;
        match seen {
            Some(seen) => ensure!(seen.head.target() == target, "{name} became {}", shown(&seen.head.target())),
            None => {
                ensure!(!must, "{name} was refused: {}", answer.head.status()?);
                ensure!(answer.head.status()? == 400, "{name}: {}", answer.head.status()?);
            }
        }
    }
    Ok(())
}

/// What follows the endpoint's name goes to the handler raw; a target in absolute form in its origin form.
pub async fn an_endpoints_path_is_cut_and_the_rest_arrives_raw(bench: &mut Bench) -> anyhow::Result<()> {
    let cases = [
        ("/open", "/"),
        ("/open/", "/"),
        ("/open?", "/?"),
        ("/open?x", "/?x"),
        ("/open/?x", "/?x"),
        ("/open//x", "//x"),
        ("/open/../x", "/../x"),
        ("/open/%2e%2e/x", "/%2e%2e/x"),
        ("/open/open", "/open"),
        ("/open?/open", "/?/open"),
        ("http://hook.test/open/x?y", "/x?y"),
    ];
    for (target, expected) in cases {
        let request = format!("GET {target} HTTP/1.1\r\nHost: hook.test\r\n\r\n");
        let (seen, _) = bench.exchange(request.as_bytes(), &ok()).await.context(target)?;
        ensure!(seen.head.target() == expected.as_bytes(), "{target} became {}", shown(&seen.head.target()));
    }
    Ok(())
}

/// The sender gets a 100 before it sends its body, and the handler the body without the question.
pub async fn a_sender_that_expects_100_gets_it_before_it_sends(bench: &mut Bench) -> anyhow::Result<()> {
    for expect in ["100-continue", "100-Continue"] {
        let mut sender = bench.sender().await?;
        let head = format!("POST /open HTTP/1.1\r\nHost: hook.test\r\nContent-Length: 5\r\nExpect: {expect}\r\n\r\n");
        sender.write(head).await?;
        let interim = sender.head().await?.context("nothing came")?;
        ensure!(interim.status()? == 100, "{} came instead of 100", interim.status()?);
        let (seen, answer) = bench.exchange_on(&mut sender, b"hello", &ok()).await?;
        ensure!(answer.head.status()? == 200 && seen.body == b"hello");
        ensure!(seen.head.all("expect").is_empty(), "this hop answered the expectation");
    }
    Ok(())
}

/// Headers of one hop stay behind (RFC 9110, section 7.6.1), and so does whatever `Connection` names.
pub async fn hop_by_hop_headers_of_a_request_stay_behind(bench: &mut Bench) -> anyhow::Result<()> {
    let request = message(
        "POST /open HTTP/1.1",
        &[
            ("Host", b"hook.test"),
            ("Content-Length", b"2"),
            ("Connection", b"keep-alive, X-One ,, x-two"),
            ("Connection", b"X-Three, Cookie, Traceparent"),
            ("Cookie", b"one=1"),
            ("Traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("X-One", b"1"),
            ("X-Two", b"2"),
            ("X-Two", b"2"),
            ("X-Three", b"3"),
            ("X-Four", b"4"),
            ("Keep-Alive", b"timeout=5"),
            ("Proxy-Connection", b"keep-alive"),
            ("Proxy-Authorization", b"Basic c2VjcmV0"),
            ("Proxy-Authenticate", b"Basic"),
            ("TE", b"trailers, deflate;q=0.5"),
            ("Trailer", b"X"),
            ("Upgrade", b"foo/2"),
            ("Proxy", b"http://evil.test"),
        ],
        b"ok",
    );
    let (seen, answer) = bench.exchange(&request, &ok()).await?;
    ensure!(answer.head.status()? == 200);
    let trace = seen.head.one("traceparent");
    ensure!(!trace.starts_with("00-0af765"), "{:?}", seen.head);
    let left: Lines = vec![("x-four".to_owned(), b"4".to_vec()), ("content-length".to_owned(), b"2".to_vec())];
    same_but_for(&left, &seen.head.lines, &ADDED_TO_REQUESTS)
}

/// `Relay-…` headers are the relay's own; a sender's are dropped, whatever their case.
pub async fn a_senders_relay_headers_are_dropped(bench: &mut Bench) -> anyhow::Result<()> {
    let request = message(
        "POST /open HTTP/1.1",
        &[
            ("Host", b"hook.test"),
            ("Relay-Verified", b"github"),
            ("relay-event-id", b"hook_forged"),
            ("RELAY-ENDPOINT", b"other"),
            ("Relay-Attempt", b"7"),
            ("Relay-Attempt", b"8"),
            ("Relay-Received-At", b"1970-01-01T00:00:00Z"),
            ("Relay-Resigned", b"true"),
            ("Relay-Anything", b"x"),
            ("X-Relay-Verified", b"github"),
            // Gateways make one variable of all these.
            ("Relay_Verified", b"github"),
            ("RELAY_Event-Id", b"hook_forged"),
            ("Relay.Endpoint", b"other"),
            ("X_Relay_Anything", b"x"),
            ("HTTP2_Settings", b"AAMAAABkAAQAAP__"),
        ],
        b"",
    );
    let (seen, answer) = bench.exchange(&request, &ok()).await?;
    same_but_for(&Lines::new(), &seen.head.lines, &ADDED_TO_REQUESTS)?;
    let head = &seen.head;
    ensure!(head.one("relay-verified") == "none" && head.one("relay-endpoint") == "open");
    ensure!(head.one("relay-attempt") == "1" && head.one("relay-event-id") == answer.head.one("relay-event-id"));
    ensure!(head.one("relay-event-id").starts_with("hook_") && head.one("relay-event-id") != "hook_forged");
    ensure!(head.one("relay-received-at").starts_with("20") && head.one("relay-received-at").ends_with('Z'));
    Ok(())
}

/// The handler gets its own host, and learns the sender's beside it.
pub async fn the_handler_gets_its_own_host(bench: &mut Bench) -> anyhow::Result<()> {
    let request = message("POST /open HTTP/1.1", &[("Host", b"Hook.test:8443")], b"");
    let (seen, _) = bench.exchange(&request, &ok()).await?;
    ensure!(seen.head.one("host") == bench.handler, "{}", seen.head.one("host"));
    ensure!(seen.head.one("x-forwarded-host") == "Hook.test:8443", "{}", seen.head.one("x-forwarded-host"));
    ensure!(seen.head.one("x-forwarded-proto") == "http" && seen.head.one("x-forwarded-for") == "127.0.0.1");
    Ok(())
}

/// What a sender says of its own way is not believed; what a trusted proxy says is continued.
pub async fn forwarding_headers_are_continued_for_trusted_proxies_alone(bench: &mut Bench) -> anyhow::Result<()> {
    let lines: [(&str, &[u8]); 19] = [
        ("Host", b"hook.test"),
        ("X-Real-IP", b"192.0.2.1"),
        ("X-Client-IP", b"192.0.2.1"),
        ("True-Client-IP", b"192.0.2.1"),
        ("CF-Connecting-IP", b"192.0.2.1"),
        ("X-Forwarded-Port", b"443"),
        ("X-Forwarded-Anything", b"x"),
        ("X-Original-URL", b"/admin"),
        ("X-Rewrite-URL", b"/admin"),
        ("X_Forwarded_For", b"192.0.2.9"),
        ("X_Real_IP", b"192.0.2.9"),
        ("X.Forwarded.Host", b"odd.test"),
        ("Via", b"1.1 front"),
        ("X-Forwarded-For", b"192.0.2.1"),
        ("X-Forwarded-For", b"192.0.2.2, 192.0.2.3"),
        ("X-Forwarded-Proto", b"https"),
        ("X-Forwarded-Host", b"public.test"),
        ("Forwarded", b"for=192.0.2.1;proto=https"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let request = message("POST /open HTTP/1.1", &lines, b"");
    let (seen, _) = bench.exchange(&request, &ok()).await?;
    let head = &seen.head;
    ensure!(head.one("x-forwarded-for") == "127.0.0.1", "{}", head.one("x-forwarded-for"));
    ensure!(head.one("x-forwarded-proto") == "http" && head.one("x-forwarded-host") == "hook.test");
    let told = ["relay-event-id", "via", "traceparent", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    for (name, _) in &lines[1..] {
        let name = name.to_ascii_lowercase();
        ensure!(told.contains(&&*name) || head.all(&name).is_empty(), "{name} is a stranger's word");
    }
    ensure!(head.one("via") == "1.1 front");
    ensure!(head.one("traceparent") == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.7:0".parse()?)?;
    let mut proxy = Wire::new(socket.connect(bench.relay.public.parse()?).await?);
    let (seen, _) = bench.exchange_on(&mut proxy, &request, &ok()).await?;
    let head = &seen.head;
    let whole = head.all("x-forwarded-for").join(&b", "[..]);
    ensure!(whole == b"192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.7", "{}", shown(&whole));
    ensure!(head.one("x-forwarded-proto") == "https" && head.one("x-forwarded-host") == "public.test");
    ensure!(head.one("forwarded") == "for=192.0.2.1;proto=https" && head.one("x-real-ip") == "192.0.2.1");
    ensure!(head.one("x-forwarded-port") == "443" && head.one("x-original-url") == "/admin");
    for odd in ["x_forwarded_for", "x_real_ip", "x.forwarded.host"] {
        ensure!(head.all(odd).is_empty(), "{odd} is no proxy's own");
    }
    Ok(())
}
