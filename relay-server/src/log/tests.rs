use std::{
    error::Error,
    io,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
};

use futures_util::FutureExt as _;
use tokio::task::yield_now;
use tracing::field;
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder};

use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const ID: EventId = EventId::from_bytes([7; 16]);

fn endpoint() -> EndpointName {
    EndpointName::parse("dev").unwrap()
}

/// What a line would be about, as it would stand in it.
fn about() -> String {
    LogScope::current().subjects().map(|subject| format::text(&subject, format::Colours(false))).collect()
}

fn attempt(number: u32) -> LogScope {
    LogScope::attempt(ID, endpoint(), number, None)
}

fn text_of(attempt: u32) -> String {
    format!("attempt{{event_id={ID} endpoint=dev attempt={attempt}}}:")
}

#[tokio::test]
async fn each_future_has_its_own_scope_and_what_is_around_it_comes_back() {
    assert_eq!(about(), "");
    let request = async {
        assert_eq!(about(), format!("connection{{peer={PEER}}}:request{{event_id={ID} endpoint=dev}}:"));
        yield_now().await;
        agent_is(&"laptop".into());
        yield_now().await;
        assert!(about().ends_with(r#" endpoint=dev agent="laptop"}:"#), "{}", about());
    };
    let connection = async {
        assert_eq!(about(), "connection:");
        peer_is(PEER);
        LogScope::request(ID, endpoint()).around(request).await;
        assert_eq!(about(), format!("connection{{peer={PEER}}}:"));
    };
    let beside = async {
        for _ in 0..5 {
            assert_eq!(about(), text_of(3));
            yield_now().await;
        }
    };
    tokio::join!(LogScope::connection(None).around(connection), attempt(3).around(beside));
    assert_eq!(about(), "");
}

#[tokio::test]
async fn a_panic_leaves_the_scope_around_it() {
    let outer = async {
        let inner = attempt(2).around(async {
            yield_now().await;
            panic!("a bug");
        });
        assert!(AssertUnwindSafe(inner).catch_unwind().await.is_err());
        assert_eq!(about(), text_of(1));
        let thrown = std::panic::catch_unwind(|| attempt(3).within(|| panic!("another")));
        assert!(thrown.is_err());
        assert_eq!(about(), text_of(1));
    };
    attempt(1).around(outer).await;
    assert_eq!(about(), "");
}

#[tokio::test]
async fn what_a_future_drops_is_dropped_in_its_scope() {
    struct Witness<'a>(&'a Mutex<Vec<String>>);
    impl Drop for Witness<'_> {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(about());
        }
    }
    let seen = Mutex::default();
    let held = |number| {
        let witness = Witness(&seen);
        attempt(number).around(async move {
            let _witness = witness;
            std::future::pending::<()>().await;
        })
    };
    attempt(9)
        .around(async {
            drop(held(1));
            let mut begun = Box::pin(held(2));
            assert!((&mut begun).now_or_never().is_none());
            drop(begun);
            assert_eq!(about(), text_of(9));
        })
        .await;
    assert_eq!(*seen.lock().unwrap(), [text_of(1), text_of(2)]);
}

#[tokio::test]
async fn a_task_or_a_thread_takes_the_scope_along_where_it_is_given_it() {
    let request = async {
        assert_eq!(tokio::spawn(async { about() }).await.unwrap(), "");
        let scope = LogScope::current();
        agent_is(&"laptop".into());
        assert!(about().contains("laptop"));
        let before = format!("request{{event_id={ID} endpoint=dev}}:");
        assert_eq!(tokio::spawn(scope.clone().around(async { about() })).await.unwrap(), before);
        assert_eq!(tokio::task::spawn_blocking(|| scope.within(about)).await.unwrap(), before);
    };
    LogScope::request(ID, endpoint()).around(request).await;
    assert_eq!(LogScope::current().around(async { about() }).await, "");
}

fn say() {
    let cause = io::Error::other(io::Error::other("a disk"));
    tracing::warn!(error = &cause as &(dyn Error + 'static), r#type = ?Some(1), "it {} failed", "has");
    tracing::info!("{}", "only words");
    tracing::error!(name = "a \"name\"", share = 0.5, "a \u{1b}[31msequence");
    tracing::debug!(attempt = 1);
    tracing::trace!("a trace");
}

fn say_in_scopes() {
    say();
    LogScope::connection(None).within(|| {
        say();
        peer_is(PEER);
        say();
        LogScope::request(ID, endpoint()).within(|| {
            say();
            agent_is(&"a \"laptop\"".into());
            say();
            tracing::info_span!("of_a_library", peer = "Server", frames = 3).in_scope(say);
            tracing::info_span!("without_fields").in_scope(say);
        });
        say();
    });
    attempt(2).within(say);
    LogScope::attempt(ID, endpoint(), 3, Some("laptop".into())).within(say);
    LogScope::late_outcome(ID, 4).within(|| {
        say();
        endpoint_is(&endpoint());
        say();
    });
    LogScope::session("laptop".into(), "a-token".into()).within(|| {
        say();
        epoch_is(5);
        say();
    });
}

fn say_in_spans() {
    say();
    let connection = tracing::info_span!("connection", peer = field::Empty);
    connection.in_scope(|| {
        say();
        connection.record("peer", field::display(PEER));
        say();
        let request = tracing::info_span!("request", event_id = %ID, endpoint = %endpoint(), agent = field::Empty);
        request.in_scope(|| {
            say();
            request.record("agent", "a \"laptop\"");
            say();
            tracing::info_span!("of_a_library", peer = "Server", frames = 3).in_scope(say);
            tracing::info_span!("without_fields").in_scope(say);
        });
        say();
    });
    let (event_id, endpoint) = (ID, endpoint());
    tracing::info_span!("attempt", %event_id, %endpoint, attempt = 2, agent = None::<&str>).in_scope(say);
    tracing::info_span!("attempt", %event_id, %endpoint, attempt = 3, agent = Some("laptop")).in_scope(say);
    let late = tracing::info_span!("late_outcome", %event_id, endpoint = field::Empty, attempt = 4);
    late.in_scope(|| {
        say();
        late.record("endpoint", endpoint.as_str());
        say();
    });
    let session = tracing::info_span!("session", agent = "laptop", token = %"a-token", epoch = field::Empty);
    session.in_scope(|| {
        say();
        session.record("epoch", 5);
        say();
    });
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn lines(say: impl FnOnce(), subscriber: impl FnOnce(SubscriberBuilder, Lines) -> tracing::Dispatch) -> Vec<String> {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    // With one subscriber in the process, a line that a test beside this one reaches first would be switched off.
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    tracing::dispatcher::with_default(&subscriber(log, lines.clone()), say);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    // The time and the day end with the first Z.
    text.lines()
        .map(|line| line.split_once('Z').map(|(time, rest)| format!("{}Z{rest}", time.len())).unwrap())
        .collect()
}

#[test]
fn lines_read_as_those_of_the_library_with_its_spans() {
    for colours in [false, true] {
        let ours = lines(say_in_scopes, |log, to| {
            log.with_writer(to).with_ansi(colours).event_format(TextLines).finish().into()
        });
        let theirs = lines(say_in_spans, |log, to| log.with_writer(to).with_ansi(colours).finish().into());
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 5 * 14);
    }
    let ours = lines(say_in_scopes, |log, to| log.with_writer(to).json().event_format(JsonLines).finish().into());
    let theirs = lines(say_in_spans, |log, to| log.with_writer(to).json().finish().into());
    assert_eq!(ours, theirs);
    assert!(
        ours.iter()
            .any(|line| line.contains(r#""span":{"agent":"laptop","epoch":5,"token":"a-token","name":"session"}"#))
    );
}
