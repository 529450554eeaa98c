//! What the supervisor makes of failures: waits and ends, without a relay and without time.

use uuid::Uuid;

use super::*;
use crate::{
    config::{EndpointConfig, HandlerConfig, Proxy, TokenSource},
    handler::TargetConfig,
    report::Output,
};

fn supervisor(on_refused: OnRefused) -> Supervisor {
    let handler = HandlerConfig::new(TargetConfig::new("9".parse().unwrap()));
    let config = Config {
        relay: "https://relay.invalid".parse().unwrap(),
        relay_ca: None,
        proxy: Proxy::Direct,
        token: TokenSource::from_reader(&b"s3cret"[..]).unwrap(),
        name: "test".to_owned(),
        instance: Uuid::nil(),
        endpoints: vec![EndpointConfig::new(Some("e".to_owned()), handler)],
        since: None,
        on_refused,
        files: Vec::new(),
    };
    let table = Table::new(&config, &Table::default()).unwrap();
    let shared = Shared::new(
        table,
        Reporter::to_writers(Output::Quiet, std::io::sink(), std::io::sink()),
        StatusSender::default(),
    );
    Supervisor::new(Arc::new(config), shared)
}

fn refused() -> Failed {
    Failed::Refused { why: "no".to_owned(), code: None }
}

/// From now to the next attempt.
fn wait(supervisor: &Supervisor) -> Duration {
    supervisor.opening.as_ref().expect("an attempt").at - Instant::now()
}

#[tokio::test(start_paused = true)]
async fn start_asks_again_after_a_minute_and_listen_ends() {
    let mut start = supervisor(OnRefused::RetryAfter(Duration::from_secs(60)));
    for _ in 0..3 {
        start.failed(refused()).unwrap();
        assert_eq!(wait(&start), Duration::from_secs(60), "no more, however often");
    }
    let ended = supervisor(OnRefused::Exit).failed(refused());
    assert!(matches!(ended, Err(RunError::Refused(why)) if why == "no"));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_ends_the_first_try_and_no_later_one() {
    let stranger = || Failed::Stranger { why: "HTTP 404 from nginx".to_owned() };
    let Err(RunError::Refused(why)) = supervisor(OnRefused::Exit).failed(stranger()) else { panic!("it ends") };
    let tells =
        why.starts_with("HTTP 404 from nginx; ") && why.contains("`curl -i https://relay.invalid/_relay/v1/connect`");
    assert!(tells, "{why}");
    let mut listen = supervisor(OnRefused::Exit);
    listen.known = Some(listen.config.relay.clone());
    for _ in 0..100 {
        listen.failed(stranger()).unwrap();
        assert!(wait(&listen) <= Duration::from_secs(30));
    }
    let ended = listen.failed(refused());
    assert!(matches!(ended, Err(RunError::Refused(_))), "the relay's own word counts");
    let mut moved = Config::clone(&listen.config);
    moved.relay = "https://elsewhere.invalid".parse().unwrap();
    listen.take_over(Arc::new(moved));
    assert!(listen.failed(stranger()).is_err(), "nobody has seen a relay there");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_not_there_is_tried_for_ever_and_when_it_asks() {
    let mut listen = supervisor(OnRefused::Exit);
    let lost = |retry_after| Failed::Lost { why: "away".to_owned(), retry_after };
    listen.failed(lost(None)).unwrap();
    assert!(wait(&listen) <= Duration::from_secs(1));
    for _ in 0..100 {
        listen.failed(lost(None)).unwrap();
        assert!(wait(&listen) <= Duration::from_secs(30));
    }
    listen.failed(lost(Some(Duration::from_secs(120)))).unwrap();
    assert!(wait(&listen) >= Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn other_settings_are_tried_at_once_and_unusable_ones_are_not() {
    let mut start = supervisor(OnRefused::RetryAfter(Duration::from_secs(60)));
    start.failed(refused()).unwrap();
    let mut config = Config::clone(&start.config);
    config.token = TokenSource::File("/nowhere/token".into());
    start.take_over(Arc::new(config.clone()));
    assert_eq!(wait(&start), Duration::from_secs(60), "a token that cannot be read changes nothing");
    assert_ne!(*start.config, config);
    config.token = TokenSource::from_reader(&b"other"[..]).unwrap();
    start.take_over(Arc::new(config.clone()));
    assert_eq!(wait(&start), Duration::ZERO);
    assert_eq!(*start.config, config);
}
