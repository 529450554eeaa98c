//! Endpoints and tokens that were made through the API: their rows in the store, and the secrets that these refer to.
//!
//! A token's row may say of an older digest until when it is good (`grace`), and which token it is (`id`); an endpoint's
//! row which token made it (`made_by`). These are the store's own words and no keys of a config: here the digest becomes
//! one like any other, or none, and the rest is taken out. Which token a file's is, the store's row of it says by when it
//! came in. So a token that is made anew under an old name has nothing of what the old one made.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};
use zeroize::Zeroizing;

use crate::{
    config::{rows, rows::Rows},
    store::{ConfigKind, ConfigRow, Source, Store, StoreError, Vault},
};

/// Where their secrets stand in the store.
pub(super) const SCOPE: &str = "endpoint";

/// The name of an endpoint's secret. No endpoint's name holds a slash.
pub(super) fn sealed_name(endpoint: &str, number: usize) -> String {
    format!("{endpoint}/{number}")
}

pub(super) struct Made {
    pub(super) rows: Rows,
    pub(super) sealed: HashMap<String, Zeroizing<Vec<u8>>>,
    /// By token, until when its older secrets are good, if any are.
    pub(super) tokens: HashMap<String, Option<Timestamp>>,
    /// By token, which one it is: those of files as well, as far as the store knows them.
    pub(super) ids: HashMap<String, Arc<str>>,
    /// By endpoint, the token that made it.
    pub(super) makers: HashMap<String, Maker>,
}

/// Who made an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    /// Which token.
    pub id: Arc<str>,
    /// Whether it gave every secret that the endpoint has.
    pub gave_secrets: bool,
}

/// The key of an endpoint's stored row that says which token made it.
pub(super) const MADE_BY: &str = "made_by";

/// The key of a token's stored row that says which one it is.
pub(super) const ID: &str = "id";

/// The key by which an endpoint's use is counted for a token.
pub(super) const OWNER: &str = "owner";

impl Made {
    /// A secret that cannot be opened is left out: its endpoint takes nothing, and the others go on.
    pub(super) async fn read(store: &Arc<dyn Store>, vault: &Vault, now: Timestamp) -> Result<Self, StoreError> {
        let mut this = Self {
            rows: Rows::default(),
            sealed: HashMap::new(),
            tokens: HashMap::new(),
            ids: token_ids(store).await?,
            makers: HashMap::new(),
        };
        for kind in [ConfigKind::Endpoint, ConfigKind::Token] {
            for stored in store.config(kind).await?.into_iter().filter(|row| row.source == Source::Api) {
                let Some(mut row) = rows::row_of(&stored.value) else {
                    let why =
                        format!("the stored row of \"{}\" cannot be read; is the store a newer relay's?", stored.name);
                    return Err(StoreError::Unusable(why));
                };
                for name in rows::sealed_in(&row) {
                    match vault.get(SCOPE, &name).await {
                        Ok(secret) => this.sealed.extend(secret.map(|secret| (name, secret))),
                        Err(StoreError::Invalid(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                match kind {
                    ConfigKind::Endpoint => {
                        if let Some(Value::String(id)) = row.remove(MADE_BY) {
                            let maker = Maker { id: id.into(), gave_secrets: !rows::has_references(&row) };
                            this.put_owner(&mut row, &maker.id);
                            this.makers.insert(stored.name, maker);
                        }
                        this.rows.endpoint.push(row);
                    }
                    ConfigKind::Token => {
                        row.remove(ID);
                        let until = settle_grace(&mut row, now);
                        this.tokens.insert(stored.name, until);
                        this.rows.token.push(row);
                    }
                }
            }
        }
        Ok(this)
    }

    /// Has an endpoint counted for the token that made it, if that one is still there and nobody was named.
    pub(super) fn put_owner(&self, row: &mut Table, maker: &str) {
        let name = self.ids.iter().find(|(_, id)| ***id == *maker).map(|(name, _)| name.clone());
        if let Some(name) = name.filter(|_| !row.contains_key(OWNER)) {
            row.insert(OWNER.to_owned(), Value::String(name));
        }
    }

    pub(super) fn names(&self) -> HashSet<String> {
        self.rows.endpoint.iter().filter_map(rows::name_of).map(str::to_owned).collect()
    }

    pub(super) fn take(&mut self, endpoint: &str) -> Option<Table> {
        let at = self.rows.endpoint.iter().position(|row| rows::name_of(row) == Some(endpoint))?;
        self.makers.remove(endpoint);
        Some(self.rows.endpoint.remove(at))
    }
}

/// Which token each name stands for now.
pub(super) async fn token_ids(store: &Arc<dyn Store>) -> Result<HashMap<String, Arc<str>>, StoreError> {
    let id = |row: ConfigRow| {
        let own = rows::row_of(&row.value).and_then(|mut row| row.remove(ID));
        let id = match own {
            Some(Value::String(id)) if row.source == Source::Api => Arc::from(id),
            _ => file_id(&row),
        };
        (row.name, id)
    };
    Ok(store.config(ConfigKind::Token).await?.into_iter().map(id).collect())
}

/// A file's token is the same for as long as each start and reload finds its name there.
fn file_id(row: &ConfigRow) -> Arc<str> {
    let text = format!("{}\n{}", row.name, row.made_at.as_millisecond());
    format!("tok_{}", HEXLOWER.encode(&Sha256::digest(text)[..8])).into()
}

/// A name for a token that no other ever has.
pub(super) fn fresh_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes)?;
    Ok(format!("tok_{}", HEXLOWER.encode(&bytes)))
}

/// An older digest of a token, and until when it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GraceDigest {
    pub(super) sha256: String,
    pub(super) until: Timestamp,
}

/// Takes the older digests out of a token's row as the store has it.
pub(super) fn take_graces(row: &mut Table) -> Vec<GraceDigest> {
    let Some(Value::Array(graces)) = row.remove("grace") else { return Vec::new() };
    let read = |grace: &Value| {
        let text = |key| grace.get(key).and_then(Value::as_str);
        Some(GraceDigest { sha256: text("sha256")?.to_owned(), until: text("until")?.parse().ok()? })
    };
    graces.iter().filter_map(read).collect()
}

pub(super) fn put_graces(row: &mut Table, graces: &[GraceDigest]) {
    let table = |grace: &GraceDigest| {
        let text = |text: String| Value::String(text);
        let members = [("sha256", text(grace.sha256.clone())), ("until", text(grace.until.to_string()))];
        Value::Table(members.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
    };
    if !graces.is_empty() {
        row.insert("grace".to_owned(), Value::Array(graces.iter().map(table).collect()));
    }
}

/// Makes a token's row one of a config; until when the older digests in it are good.
pub(super) fn settle_grace(row: &mut Table, now: Timestamp) -> Option<Timestamp> {
    let good: Vec<_> = take_graces(row).into_iter().filter(|grace| now < grace.until).collect();
    if let Some(Value::Array(digests)) = row.get_mut("sha256") {
        digests.extend(good.iter().map(|grace| Value::String(grace.sha256.clone())));
    }
    good.iter().map(|grace| grace.until).max()
}
