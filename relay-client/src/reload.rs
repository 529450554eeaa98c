//! Reads the settings again when their files change, or on a signal.
//!
//! It watches the folders that the files lie in rather than the files, since editors and config maps put a new file in
//! the old one's place (`..data` in Kubernetes). It looks at names only to see what is worth a look; the reader finds
//! out whether anything changed.
//!
//! Invariants: settings that cannot be used are reported and change nothing; after a change nothing is read for
//! [`QUIET`], so that a file is rarely seen half written; at most one change waits.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{config::Config, report::Reporter};

/// From the first sign of a change to the reading.
const QUIET: Duration = Duration::from_millis(500);

/// Reads the settings afresh; the error is for people and names file and line.
pub(crate) type Read = Box<dyn FnMut() -> Result<Config, String> + Send>;

/// Keeps `settings` up to date for ever. What comes over `asked` is a reason to read, too.
pub(crate) async fn keep(
    mut read: Read,
    settings: watch::Sender<Arc<Config>>,
    mut asked: mpsc::Receiver<()>,
    reporter: Reporter,
) {
    let (signs, mut changes) = mpsc::channel(1);
    let mut watcher = Watcher::new(signs, &reporter);
    watcher.watch(&settings.borrow().files);
    let (mut warned_of, mut by_hand, mut first) = (String::new(), false, true);
    loop {
        match read() {
            // Whoever began with these settings read the token a moment ago.
            Ok(config) if first && config == **settings.borrow() => {}
            Ok(config) => {
                warned_of.clear();
                watcher.watch(&config.files);
                settings.send_replace(Arc::new(config));
            }
            // A file that is being written to is looked at more than once.
            Err(why) if why == warned_of && !by_hand => {}
            Err(why) => {
                reporter.warn(format!("the settings were not taken over, the old ones stay: {why}"));
                warned_of = why;
            }
        }
        first = false;
        by_hand = tokio::select! {
            Some(()) = changes.recv() => {
                sleep(QUIET).await;
                let _ = changes.try_recv();
                false
            }
            Some(()) = asked.recv() => true,
            else => return,
        };
    }
}

struct Watcher {
    inner: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    names: Arc<Mutex<BTreeSet<OsString>>>,
    /// Without a watcher nobody else holds the channel open.
    _signs: mpsc::Sender<()>,
}

impl Watcher {
    fn new(signs: mpsc::Sender<()>, reporter: &Reporter) -> Self {
        let names: Arc<Mutex<BTreeSet<OsString>>> = Arc::default();
        let (kept, wanted) = (signs.clone(), Arc::clone(&names));
        let noticed = move |event: notify::Result<Event>| {
            let names = wanted.lock();
            if event.map_or(true, |event| is_change(&event, &names)) {
                // One that waits already says the same.
                let _ = signs.try_send(());
            }
        };
        let inner = notify::recommended_watcher(noticed);
        let inner = inner.inspect_err(|error| reporter.warn(format!("changes of files are not noticed: {error}")));
        Self { inner: inner.ok(), folders: BTreeSet::new(), names, _signs: kept }
    }

    /// Watches the folders of these files, and those that links lead to, in place of the ones before.
    fn watch(&mut self, files: &[PathBuf]) {
        let (mut folders, mut names) = (BTreeSet::new(), BTreeSet::new());
        for file in files {
            let real = std::fs::canonicalize(file).ok();
            for path in [Some(file.as_path()), real.as_deref()].into_iter().flatten() {
                names.extend(path.file_name().map(ToOwned::to_owned));
                folders.extend(path.parent().map(Path::to_owned));
            }
        }
        *self.names.lock() = names;
        let Some(inner) = &mut self.inner else { return };
        for folder in self.folders.difference(&folders) {
            let _ = inner.unwatch(folder);
        }
        for folder in folders.difference(&self.folders) {
            if let Err(error) = inner.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "changes here are not noticed");
            }
        }
        self.folders = folders;
    }
}

/// Whether an event is worth a look at the files.
fn is_change(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let kind = match event.kind {
        // Our own reading must not look like a change.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| names.contains(name) || name.as_encoded_bytes().starts_with(b".."))
    };
    kind && (event.need_rescan() || event.paths.iter().any(named))
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, ModifyKind, RenameMode};

    use super::*;

    #[test]
    fn only_changes_of_the_files_and_swaps_of_folders_count() {
        let names = BTreeSet::from([OsString::from("relay-client.toml")]);
        let counts = |kind, path: &str| is_change(&Event::new(kind).add_path(path.into()), &names);
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Content));
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert!(counts(written, "/etc/relay/relay-client.toml"));
        assert!(counts(moved, "/etc/relay/relay-client.toml"));
        assert!(counts(moved, "/etc/relay/..data"));
        assert!(counts(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/etc/relay/relay-client.toml"));
        assert!(!counts(written, "/etc/relay/other.toml"));
        assert!(!counts(EventKind::Create(CreateKind::File), "/etc/relay/.relay-client.toml.swp"));
        assert!(!counts(EventKind::Access(AccessKind::Open(AccessMode::Read)), "/etc/relay/relay-client.toml"));
        assert!(!counts(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/etc/relay/relay-client.toml"));
    }
}
