//! What the view asks the relay: a list, single events, replays. A task beside the agent's, which it never holds up.
//!
//! Invariants: questions are answered one after another, but for replays, of which [`MAX_REPLAYS`] may wait for their
//! handlers; what is asked for is always answered, if need be with why not; a view that is gone ends it.

use std::sync::Arc;

use relay_program::{
    api::EventList,
    event::{EventDetail, EventReplayed},
};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    file,
    known::{MAX_BODY_BYTES, Part},
    news::News,
    own, stream,
    wish::Question,
};
use crate::{
    config::Config,
    link::{
        LinkError,
        api::{Api, Replay},
    },
    tap::Tap,
};

/// Events of one page.
const PAGE: usize = 200;
/// Replays that may be under way.
const MAX_REPLAYS: usize = 4;
/// Bytes of a body that is edited: what the relay takes of one.
const MAX_EDIT_BYTES: u64 = 1 << 20;

/// The relay's end of the view.
pub(crate) struct RelayEnd {
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) news: mpsc::Sender<News>,
}

impl RelayEnd {
    /// Answers questions until the view is gone.
    pub(crate) async fn serve(mut self, config: watch::Receiver<Arc<Config>>, tap: Arc<Tap>) {
        let replays = Arc::new(Semaphore::new(MAX_REPLAYS));
        let (follow, followed) = watch::channel(None);
        tokio::spawn(stream::follow(config.clone(), followed, self.news.clone()));
        while let Some(question) = self.questions.recv().await {
            let config = Arc::clone(&config.borrow());
            let asker = Asker { config, tap: Arc::clone(&tap), news: self.news.clone() };
            if let Question::Follow { q } = question {
                let _ = follow.send(Some(q)); // Without a reader the view is gone.
            } else if let Question::Replay { id, edited } = question {
                let Ok(turn) = Arc::clone(&replays).try_acquire_owned() else {
                    let text = format!("{MAX_REPLAYS} replays are under way already");
                    let _ = self.news.send(News::Said(text)).await;
                    continue;
                };
                tokio::spawn(async move {
                    let _turn = turn;
                    asker.replay(&id, edited).await;
                });
            } else {
                asker.ask(question).await;
            }
        }
    }
}

struct Asker {
    config: Arc<Config>,
    tap: Arc<Tap>,
    news: mpsc::Sender<News>,
}

impl Asker {
    async fn ask(&self, question: Question) {
        let missing = match &question {
            Question::Event(id) => Some((id.clone(), None)),
            Question::Body { id, part } => Some((id.clone(), Some(*part))),
            _ => None,
        };
        let news = match self.answer(question).await {
            Ok(news) => news,
            Err(why) => match missing {
                Some((id, part)) => News::Missing { id, part, why },
                None => News::Said(why),
            },
        };
        // A view that is gone has no use for it.
        let _ = self.news.send(news).await;
    }

    async fn answer(&self, question: Question) -> Result<News, String> {
        let token = self.config.token.read().map_err(|error| error.to_string())?;
        let mut api = Api::new(&self.config.way, token);
        let told = |error: LinkError| error.to_string();
        Ok(match question {
            Question::Page { q, after } => {
                // With a query, if only an empty one, events of all kinds come.
                let mut query = vec![("limit", PAGE.to_string()), ("q", q.clone())];
                query.extend(after.map(|after| ("after", after)));
                let page: EventList = read(&api.list(&query).await.map_err(told)?)?;
                News::Page { q, rows: page.events.into_iter().take(PAGE).collect(), next: page.next }
            }
            Question::Event(id) => {
                let event = api.event(&id).await.map_err(told).and_then(|event| read(&event));
                News::Detail(Box::new(own::detail(&self.tap, &self.config.name, &id, event)?))
            }
            Question::Body { id, part } => {
                let bytes = match part {
                    Part::Request => api.body(&id, 0).await,
                    Part::Answer(number) => api.get(&format!("events/{id}/attempts/{number}/body")).await,
                };
                let bytes = bytes.map_err(told);
                let bytes = bytes.or_else(|why| own::body(&self.tap, &id, part).ok_or(why))?;
                News::Body { id, part, bytes: bytes.slice(..bytes.len().min(MAX_BODY_BYTES)) }
            }
            Question::Whole(id) => {
                let event: EventDetail = read(&api.event(&id).await.map_err(told)?)?;
                let mut body = Vec::new();
                while (body.len() as u64) < event.summary.size {
                    let part = api.body(&event.summary.id, body.len() as u64).await.map_err(told)?;
                    if part.is_empty() {
                        return Err("all of its body is not there, so it cannot be edited".to_owned());
                    }
                    body.extend_from_slice(&part);
                    if body.len() as u64 > MAX_EDIT_BYTES {
                        return Err(format!("its body has more than {MAX_EDIT_BYTES} bytes, so it cannot be edited"));
                    }
                }
                News::Editable { id: event.summary.id.clone(), file: file::of_event(&event, &body) }
            }
            Question::Curl(id) => {
                let text = api.get(&format!("events/{id}/export?as=curl")).await.map_err(told)?;
                News::Curl(String::from_utf8_lossy(&text).into_owned())
            }
            Question::Explain(id) => {
                let answer = api.get(&format!("events/{id}/explain")).await.map_err(told)?;
                let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
                let findings = answer["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
                let lines = findings.iter().filter_map(|finding| finding["message"].as_str());
                News::Text { title: "why it was refused".to_owned(), text: lines.collect::<Vec<_>>().join("\n") }
            }
            Question::Skip(endpoint) => {
                api.post(&format!("endpoints/{endpoint}/skip")).await.map_err(told)?;
                News::Said(format!("what waited for {endpoint} is ended"))
            }
            Question::Follow { .. } | Question::Replay { .. } => return Err("not a question of this kind".to_owned()),
        })
    }

    async fn replay(&self, id: &str, edited: Option<String>) {
        let said = match self.replayed(id, edited).await {
            Ok(done) => done.words(),
            Err(why) => format!("not replayed: {why}"),
        };
        let _ = self.news.send(News::Said(said)).await;
    }

    async fn replayed(&self, id: &str, edited: Option<String>) -> Result<EventReplayed, String> {
        let token = self.config.token.read().map_err(|error| error.to_string())?;
        let mut api = Api::new(&self.config.way, token);
        let (name, instance) = (self.config.name.as_str(), Some(self.config.instance));
        let replay = Replay { agent: Some(name), instance, signature: "auto" };
        let done = api.replay_edited(id, replay, edited).await.map_err(|error| error.to_string())?;
        read(&done)
    }
}

fn read<'de, T: serde::Deserialize<'de>>(value: &'de Value) -> Result<T, String> {
    T::deserialize(value).map_err(|_| "the relay's answer cannot be read".to_owned())
}
