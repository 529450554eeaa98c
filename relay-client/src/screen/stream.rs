//! The relay's stream for the view: what changes of what is searched for, as it changes.
//!
//! Invariants: one stream is open; it is opened anew from where it was, after a wait that grows; a relay that has no
//! stream, or does not let this token read, is left alone until something else is searched for.

use std::{sync::Arc, time::Duration};

use relay_program::{
    api::{AgentList, Figures, StreamBye, StreamRows},
    http1::encoded,
    news::{NewsMessage, NewsParser, next},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{head::HeadFigures, news::News};
use crate::{
    config::Config,
    link::{LinkError, api::Api},
};

/// The relay says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// Steps of the figures that make a minute's rate.
const MINUTE_SECONDS: u64 = 60;

/// Follows whatever `question` holds until the view is gone.
pub(super) async fn follow(
    config: watch::Receiver<Arc<Config>>,
    mut question: watch::Receiver<Option<String>>,
    news: mpsc::Sender<News>,
) {
    loop {
        let asked = question.borrow_and_update().clone();
        let following = async {
            match asked {
                Some(q) => follow_one(&config, &q, &news).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = following => {
                let _ = news.send(News::Live(false)).await;
                if question.changed().await.is_err() {
                    return;
                }
            }
            changed = question.changed() => if changed.is_err() { return },
            () = news.closed() => return,
        }
    }
}

/// Follows one question; comes back where there is no use in asking again.
async fn follow_one(config: &watch::Receiver<Arc<Config>>, q: &str, news: &mpsc::Sender<News>) {
    let query = format!("types=rows,agents,figures&q={}", encoded(q));
    let (mut last_id, mut pause) = (None::<String>, FIRST_PAUSE);
    loop {
        let now = Arc::clone(&config.borrow());
        let Ok(token) = now.token.read() else { return };
        match Api::new(&now.way, token).follow(&query, last_id.as_deref()).await {
            Ok(mut relay) => {
                pause = FIRST_PAUSE;
                let mut parser = NewsParser::default();
                while let Ok(Ok(Some(message))) = timeout(SILENCE, next(&mut relay, &mut parser)).await {
                    if !message.id.is_empty() {
                        last_id = Some(message.id.clone());
                    }
                    if message.event == "bye" {
                        let StreamBye { again_ms, .. } = serde_json::from_str(&message.data).unwrap_or_default();
                        pause = Duration::from_millis(again_ms).clamp(FIRST_PAUSE, LAST_PAUSE);
                    }
                    for told in read(&message, now.instance) {
                        if news.send(told).await.is_err() {
                            return;
                        }
                    }
                }
            }
            Err(error) if is_final(&error) => return,
            Err(_) => pause = (2 * pause).min(LAST_PAUSE),
        }
        if news.send(News::Live(false)).await.is_err() {
            return;
        }
        sleep(pause).await;
    }
}

/// Whether the relay's no stays one.
fn is_final(error: &LinkError) -> bool {
    error.refusal().is_some_and(|(status, _)| status != 429 && status.is_client_error())
}

/// What a message means for the view.
fn read(message: &NewsMessage, instance: uuid::Uuid) -> Vec<News> {
    let data = message.data.as_str();
    match message.event.as_str() {
        "hello" => vec![News::Live(true)],
        "rows" => {
            let Ok(StreamRows { rows, left_out }) = serde_json::from_str(data) else { return Vec::new() };
            let mut news = vec![News::Live(true), News::Rows(rows)];
            if left_out > 0 {
                news.push(News::Said(format!(
                    "{left_out} rows were left out of the live list; j at its end loads them"
                )));
            }
            news
        }
        "resync" => vec![News::Resync],
        "agents" => {
            let Ok(AgentList { agents, .. }) = serde_json::from_str(data) else { return Vec::new() };
            let own = instance.as_simple().to_string();
            let own = agents.into_iter().find(|agent| agent.instance.replace('-', "") == own);
            own.map(|agent| News::Link(agent.link_us)).into_iter().collect()
        }
        "figures" => serde_json::from_str(data).ok().map(|figures| News::Figures(of(&figures))).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The last minute of the relay's figures.
fn of(figures: &Figures) -> HeadFigures {
    let steps = usize::try_from(MINUTE_SECONDS / figures.step_s.clamp(1, MINUTE_SECONDS)).unwrap_or(1);
    let newest = |values: &[Option<u64>]| values.iter().rev().take(steps).find_map(|value| *value);
    HeadFigures {
        per_minute: figures.received.iter().rev().take(steps).sum(),
        p50_us: newest(&figures.p50_us),
        p99_us: newest(&figures.p99_us),
        waiting: newest(&figures.waiting).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_last_minute_are_shown() {
        let figures = Figures {
            step_s: 10,
            received: vec![100, 1, 2, 3, 4, 5, 6],
            p50_us: vec![Some(9), Some(18), None],
            waiting: vec![Some(3)],
            ..Figures::default()
        };
        let shown = of(&figures);
        assert_eq!((shown.per_minute, shown.p50_us, shown.p99_us, shown.waiting), (21, Some(18), None, 3));
    }

    #[test]
    fn messages_become_news() {
        let message =
            |event: &str, data: &str| NewsMessage { id: String::new(), event: event.to_owned(), data: data.to_owned() };
        let instance = uuid::Uuid::from_u128(7);
        let rows = read(&message("rows", r#"{"rows":[{"id":"hook_1"}],"left_out":2}"#), instance);
        assert!(matches!(&rows[..], [News::Live(true), News::Rows(rows), News::Said(_)] if rows[0].id == "hook_1"));
        let agents = format!(r#"{{"agents":[{{"instance":"x"}},{{"instance":"{instance}","link_us":11}}]}}"#);
        assert!(matches!(&read(&message("agents", &agents), instance)[..], [News::Link(Some(11))]));
        assert!(matches!(&read(&message("resync", "{}"), instance)[..], [News::Resync]));
        assert!(read(&message("rows", "nonsense"), instance).is_empty());
    }
}
