//! Endpoints that were made through the API: their rows in the store, and the secrets that these refer to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use toml::Table;
use zeroize::Zeroizing;

use crate::{
    config::{rows, rows::Rows},
    store::{ConfigKind, Source, Store, StoreError, Vault},
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
}

impl Made {
    /// A secret that cannot be opened is left out: its endpoint takes nothing, and the others go on.
    pub(super) async fn read(store: &Arc<dyn Store>, vault: &Vault) -> Result<Self, StoreError> {
        let mut this = Self { rows: Rows::default(), sealed: HashMap::new() };
        for kind in [ConfigKind::Endpoint, ConfigKind::Token] {
            for stored in store.config(kind).await?.into_iter().filter(|row| row.source == Source::Api) {
                let Some(row) = rows::row_of(&stored.value) else {
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
                    ConfigKind::Endpoint => this.rows.endpoint.push(row),
                    ConfigKind::Token => this.rows.token.push(row),
                }
            }
        }
        Ok(this)
    }

    pub(super) fn names(&self) -> HashSet<String> {
        self.rows.endpoint.iter().filter_map(rows::name_of).map(str::to_owned).collect()
    }

    pub(super) fn take(&mut self, endpoint: &str) -> Option<Table> {
        let at = self.rows.endpoint.iter().position(|row| rows::name_of(row) == Some(endpoint))?;
        Some(self.rows.endpoint.remove(at))
    }
}
