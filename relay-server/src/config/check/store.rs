//! `[store]` and `--store`: where events are kept, how many, and for how long.

use std::path::Path;
use std::time::Duration;

use super::{Directories, HOUR, duration, over, read, size};
use crate::config::effective::StoreSpec;
use crate::config::error::Report;
use crate::config::flags::Flags;
use crate::config::raw::RawStore;
use crate::store::StoreKind;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// The file in the state directory, where nothing else is said.
const FILE: &str = "relay.db";

pub(super) fn store(
    raw: &RawStore,
    flags: &Flags,
    directories: Directories<'_>,
    state_dir: Option<&Path>,
    report: &mut Report<'_>,
) -> StoreSpec {
    let url = over(&flags.store, "--store", &raw.url, "store.url", report);
    let parse = |text: &str| match text.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => Ok(StoreKind::Sqlite(directories.base.join(path))),
        Some(("memory", "")) => Ok(StoreKind::Memory),
        _ => Err((format!("\"{text}\" is not a store"), "write \"sqlite:relay.db\" or \"memory:\"".to_owned())),
    };
    // Without a place of its own the relay keeps events for as long as it lives.
    let own = || state_dir.map_or(StoreKind::Memory, |directory| StoreKind::Sqlite(directory.join(FILE)));
    StoreSpec {
        kind: read(url, parse, report).unwrap_or_else(own),
        max_bytes: size(&raw.max_size, "store.max_size", 10 << 30, 1 << 20..=1 << 50, report),
        retention: duration(&raw.retention, "store.retention", 30 * DAY, HOUR..=YEARS, report),
        pending_retention: duration(&raw.pending_retention, "store.pending_retention", 30 * DAY, HOUR..=YEARS, report),
    }
}
