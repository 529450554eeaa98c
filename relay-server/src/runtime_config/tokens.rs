//! Tokens that the API makes: rows of the store like its endpoints, of which the store has the digests alone.
//!
//! A rotated token's older secret stays good for as long as its rotator says. Whoever attached with a secret that is no
//! longer good is turned out by the revision that takes it away.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use toml::{Table, Value};

use super::{
    ChangeError, RuntimeConfig, assemble,
    made::{GraceDigest, ID, Made, fresh_id, put_graces, settle_grace, take_graces},
    named,
};
use crate::{
    agents::token::{AgentToken, Right},
    config::{
        rows,
        rows::{MAX_ROWS, Rows},
    },
    store::{self, ConfigKind, Source},
};

/// Older secrets of a token that are good at a time.
const MAX_GRACES: usize = 4;

/// How often it is looked whether an older secret's time is over. A revision is due at most so long after it.
const LOOK: Duration = Duration::from_secs(2);

/// A token that is to be made.
pub(crate) struct TokenSpec {
    pub name: String,
    pub endpoints: Vec<String>,
    pub rights: Vec<Right>,
    /// Keys of its limits, as they are typed.
    pub limits: Vec<(&'static str, Value)>,
}

impl RuntimeConfig {
    /// Makes a token; its secret, which nobody will hear again.
    pub(crate) async fn create_token(&self, spec: TokenSpec) -> Result<AgentToken, ChangeError> {
        let running = self.running.lock().await;
        let (name, now) = (spec.name.clone(), self.now());
        if self.services.routes.load().tokens.iter().any(|token| *token.name == *name) {
            return Err(ChangeError::TokenExists(name));
        }
        let mut made = Made::read(&self.store, &self.vault, now).await?;
        if made.rows.token.len() >= MAX_ROWS {
            return Err(ChangeError::Malformed(format!("the API has made {MAX_ROWS} tokens, and makes no more")));
        }
        let secret = AgentToken::generate().map_err(|_| ChangeError::Internal)?;
        let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
        let rights = spec.rights.iter().map(|right| right.name().to_owned()).collect();
        let keys = [
            ("name", Value::String(spec.name)),
            ("sha256", texts(vec![secret.hash().to_hex()])),
            ("endpoints", texts(spec.endpoints)),
            ("rights", texts(rights)),
        ];
        let keys = keys.into_iter().chain(spec.limits);
        let row: Table = keys.map(|(key, value)| (key.to_owned(), value)).collect();
        let mut stored = row.clone();
        stored.insert(ID.to_owned(), Value::String(fresh_id().map_err(|_| ChangeError::Internal)?));
        let new = Rows { endpoint: Vec::new(), token: vec![row.clone()] };
        let config = assemble(&self.source, &running, false, &made, new).await?;
        let set = vec![(ConfigKind::Token, vec![named(&stored)?])];
        self.store.configure(Source::Api, set, false, now).await?;
        made.rows.token.push(row);
        made.tokens.insert(name.clone(), None);
        self.take_over(&running, config, made).await;
        tracing::info!(token = name, "a token was created");
        drop(running);
        Ok(secret)
    }

    /// Gives a token a new secret; those of before are good for `grace` longer.
    pub(crate) async fn rotate_token(&self, name: String, grace: Duration) -> Result<AgentToken, ChangeError> {
        let running = self.running.lock().await;
        let now = self.now();
        let mut row = self.stored_token(&name).await?;
        let mut graces = take_graces(&mut row);
        graces.retain(|grace| now < grace.until);
        let until = now + grace;
        if let Some(Value::Array(digests)) = row.remove("sha256") {
            let digests = digests.iter().filter_map(Value::as_str);
            graces.extend(digests.map(|sha256| GraceDigest { sha256: sha256.to_owned(), until }));
        }
        // Without grace no earlier one lives on either.
        graces.iter_mut().for_each(|grace| grace.until = grace.until.min(until));
        graces.retain(|grace| now < grace.until);
        graces.drain(..graces.len().saturating_sub(MAX_GRACES));
        let secret = AgentToken::generate().map_err(|_| ChangeError::Internal)?;
        row.insert("sha256".to_owned(), Value::Array(vec![Value::String(secret.hash().to_hex())]));
        put_graces(&mut row, &graces);
        let mut made = Made::read(&self.store, &self.vault, now).await?;
        let mut settled = row.clone();
        settled.remove(ID);
        let good_until = settle_grace(&mut settled, now);
        made.rows.token.retain(|row| rows::name_of(row) != Some(&name));
        made.rows.token.push(settled);
        made.tokens.insert(name.clone(), good_until);
        let config = assemble(&self.source, &running, false, &made, Rows::default()).await?;
        let set = vec![(ConfigKind::Token, vec![named(&row)?])];
        self.store.configure(Source::Api, set, false, now).await?;
        self.take_over(&running, config, made).await;
        tracing::info!(token = name, ?grace, "a token was rotated");
        drop(running);
        Ok(secret)
    }

    /// Takes a token away, with every session that it opened.
    pub(crate) async fn revoke_token(&self, name: String) -> Result<(), ChangeError> {
        let running = self.running.lock().await;
        self.stored_token(&name).await?;
        let mut made = Made::read(&self.store, &self.vault, self.now()).await?;
        made.rows.token.retain(|row| rows::name_of(row) != Some(&name));
        made.tokens.remove(&name);
        let config = assemble(&self.source, &running, false, &made, Rows::default()).await?;
        self.store.unconfigure(ConfigKind::Token, name.clone()).await?;
        self.take_over(&running, config, made).await;
        tracing::info!(token = name, "a token was revoked");
        drop(running);
        Ok(())
    }

    /// The tokens as the store has them, for when each was last used.
    pub(crate) async fn token_rows(&self) -> Result<Vec<store::ConfigRow>, ChangeError> {
        Ok(self.store.config(ConfigKind::Token).await?)
    }

    /// A token's row as the store has it, if it is the API's.
    async fn stored_token(&self, name: &str) -> Result<Table, ChangeError> {
        let rows = self.store.config(ConfigKind::Token).await?;
        let stored = rows.into_iter().find(|row| row.name == name && row.source == Source::Api);
        let Some(stored) = stored else {
            let there = self.services.routes.load().tokens.iter().any(|token| *token.name == *name);
            return Err(if there { ChangeError::FromFile(name.to_owned()) } else { ChangeError::TokenMissing });
        };
        rows::row_of(&stored.value)
            .ok_or_else(|| ChangeError::Malformed(format!("the row of \"{name}\" cannot be read")))
    }

    /// Takes secrets away whose time is over.
    async fn end_graces(&self) -> Result<(), ChangeError> {
        let running = self.running.lock().await;
        let made = Made::read(&self.store, &self.vault, self.now()).await?;
        let config = assemble(&self.source, &running, false, &made, Rows::default()).await?;
        self.take_over(&running, config, made).await;
        drop(running);
        Ok(())
    }
}

/// Ends older secrets of tokens in time, until `stop`.
pub(crate) async fn end_graces(config: Arc<RuntimeConfig>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        let now: Timestamp = config.now();
        if config.view().graces().any(|until| until <= now)
            && let Err(error) = config.end_graces().await
        {
            tracing::error!(%error, "an older secret of a token is still good");
        }
    }
}
