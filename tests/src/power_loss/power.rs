//! A folder whose power can be cut, and whose disk can fail.

use std::{fs, path::PathBuf, sync::Mutex};

use tokio::{process::Command, task::spawn_blocking};

use super::{
    lock,
    trace::{Cut, Disk},
};

/// A store's folder, below which everything that a relay does is noted down.
pub struct Power {
    folder: tempfile::TempDir,
    /// What the folder held after the last cut.
    before: Mutex<Disk>,
    faults: Mutex<String>,
}

impl Power {
    /// Makes the library that stands before the system; `None` where there is no C compiler.
    ///
    /// # Errors
    /// If the library cannot be compiled.
    pub async fn new() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("shim.c");
        fs::write(&source, include_str!("shim.c"))?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(folder.path().join("shim.so")).arg(source).arg("-ldl");
        match compiler.status().await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            status => anyhow::ensure!(status?.success(), "the library does not compile"),
        }
        fs::create_dir(folder.path().join("store"))?;
        let before = Mutex::new(Disk::read(&folder.path().join("store"))?);
        Ok(Some(Self { folder, before, faults: Mutex::default() }))
    }

    /// The variables of a process whose doings are noted down.
    ///
    /// # Errors
    /// If the folder has gone.
    pub fn vars(&self) -> std::io::Result<Vec<(&'static str, String)>> {
        let folder = self.folder.path().canonicalize()?;
        let path = |name: &str| folder.join(name).display().to_string();
        Ok(vec![
            ("LD_PRELOAD", path("shim.so")),
            ("POWER_FOLDER", path("store")),
            ("POWER_TRACE", path("trace")),
            ("POWER_FAULTS", path("faults")),
        ])
    }

    /// What the relay's config says of its store. A small one, so that what is kept has its whole life within a few cuts.
    pub(super) fn config(&self) -> String {
        format!("[store]\nurl = \"sqlite:{}\"\nmax_size = \"4MiB\"\n", self.store().join("relay.db").display())
    }

    /// The folder whose power can be cut.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// What goes wrong from now on, in words that `shim.c` lists.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn faults(&self, words: &str) -> std::io::Result<()> {
        words.clone_into(&mut lock(&self.faults));
        self.add_faults("")
    }

    /// What goes wrong beside these, from now on.
    pub(super) fn add_faults(&self, words: &str) -> std::io::Result<()> {
        // The shim reads them at any time, so they come as a whole.
        let next = self.folder.path().join("faults.next");
        fs::write(&next, format!("{} {words}", lock(&self.faults)))?;
        fs::rename(next, self.folder.path().join("faults"))
    }

    /// The files that are not what the notes make of them: what the shim has not seen. The relay must have ended by
    /// itself.
    ///
    /// # Errors
    /// If the notes cannot be played.
    pub fn unseen(&self) -> anyhow::Result<Vec<PathBuf>> {
        let before = lock(&self.before).clone();
        let trace = fs::read(self.folder.path().join("trace"))?;
        before.play(&trace, Cut::Keep, &mut fastrand::Rng::with_seed(0))?.differences(&Disk::read(&self.store())?)
    }

    /// Takes away what was not synced, in one of the ways of [`Cut`].
    ///
    /// # Errors
    /// If the notes cannot be played.
    pub fn cut(&self, cut: Cut, seed: u64) -> anyhow::Result<()> {
        let trace = self.folder.path().join("trace");
        let mut before = lock(&self.before);
        let random = &mut fastrand::Rng::with_seed(seed);
        before.clone().play(&fs::read(&trace)?, cut, random)?.write(&self.store())?;
        fs::remove_file(trace)?;
        *before = Disk::read(&self.store())?;
        Ok(())
    }

    /// Whether what a cut left is sound: looked at in a copy, since looking mends.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let copy = tempfile::tempdir()?;
        lock(&self.before).write(copy.path())?;
        Ok(spawn_blocking(move || relay_server::store::check(&copy.path().join("relay.db"))).await??)
    }
}
