//! What a disk holds after a power cut, from what it held before and the notes of the shim (`shim.c`).
//!
//! A disk is a tree of objects. What was written to a file is durable once a sync of the file covers it that began later
//! and came to its end; that a name is there, is another's or is gone, once a sync of its folder does. Everything else
//! may be lost or kept, each by itself: disks and file systems promise no order. A rename is one change: both names or
//! neither.
//!
//! The memory that SQLite's processes share (`-shm`) is mapped, so it is not seen; it is made anew after a cut anyway.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// What a disk writes whole, or not at all.
const SECTOR: usize = 512;

/// What becomes of changes that no sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// There was no cut.
    Keep,
    /// They are all lost.
    Lose,
    /// Each is kept or lost.
    Random,
    /// Each is kept or lost, and of writes each sector.
    Torn,
}

impl Cut {
    /// What a real one may do.
    pub const ALL: &[Self] = &[Self::Lose, Self::Random, Self::Torn];
}

/// A tree of files; the first object is its root.
#[derive(Clone)]
pub(super) struct Disk {
    objects: Vec<Object>,
    /// Objects by the number of their inode.
    inodes: HashMap<u64, usize>,
}

#[derive(Clone)]
enum Object {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, usize>),
}

/// Something that happened, to the objects whose syncs cover it.
struct Change<'a> {
    object: usize,
    also: usize,
    what: What<'a>,
}

enum What<'a> {
    Write { at: usize, data: &'a [u8] },
    Size { bytes: usize, only_grows: bool },
    Name { name: &'a OsStr, object: usize },
    Rename { from: &'a OsStr, to: &'a OsStr, object: usize },
    Remove { name: &'a OsStr },
}

impl Disk {
    /// What is there now.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut disk = Self { objects: Vec::new(), inodes: HashMap::new() };
        disk.read_object(folder)?;
        Ok(disk)
    }

    fn read_object(&mut self, path: &Path) -> anyhow::Result<usize> {
        let found = fs::symlink_metadata(path)?;
        if let Some(there) = self.inodes.get(&found.ino()) {
            return Ok(*there); // A second name.
        }
        let number = self.add(found.ino(), Object::Folder(BTreeMap::new()));
        if found.is_dir() {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                if !is_shared_memory(&entry.file_name()) {
                    let object = self.read_object(&entry.path())?;
                    self.names(number)?.insert(entry.file_name(), object);
                }
            }
        } else {
            self.objects[number] = Object::File(fs::read(path)?);
        }
        Ok(number)
    }

    fn add(&mut self, inode: u64, object: Object) -> usize {
        self.objects.push(object);
        self.inodes.insert(inode, self.objects.len() - 1);
        self.objects.len() - 1
    }

    fn names(&mut self, object: usize) -> anyhow::Result<&mut BTreeMap<OsString, usize>> {
        match &mut self.objects[object] {
            Object::Folder(names) => Ok(names),
            Object::File(_) => bail!("a file is no folder"),
        }
    }

    /// Plays a trace up to a cut.
    pub(super) fn play(mut self, trace: &[u8], cut: Cut, random: &mut fastrand::Rng) -> anyhow::Result<Self> {
        let (changes, covered) = self.changes(trace)?;
        for (nth, change) in changes.iter().enumerate() {
            let is_covered = |object| covered.get(&object).is_some_and(|upto| nth < *upto);
            let is_durable = is_covered(change.object) && is_covered(change.also);
            match cut {
                Cut::Torn if !is_durable => self.apply_torn(change, random)?,
                Cut::Lose if !is_durable => {}
                Cut::Random if !is_durable && random.bool() => {}
                _ => self.apply(change)?,
            }
        }
        Ok(self)
    }

    /// The changes in order, and for each object up to which of them its syncs go.
    fn changes<'a>(&mut self, trace: &'a [u8]) -> anyhow::Result<(Vec<Change<'a>>, HashMap<usize, usize>)> {
        let (mut changes, mut covered, mut begun) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut rest = trace;
        while let Some(note) = Note::take(&mut rest) {
            match note.kind {
                // The number of an inode may have been that of one that is gone.
                b'F' => _ = self.add(note.object, Object::File(Vec::new())),
                b'D' => _ = self.add(note.object, Object::Folder(BTreeMap::new())),
                b's' => _ = begun.insert(note.a, changes.len()),
                b'S' => {
                    let upto = begun.remove(&note.a).context("a sync has no beginning")?;
                    let so_far = covered.entry(self.object(note.object)?).or_default();
                    *so_far = upto.max(*so_far);
                }
                _ => changes.push(self.change(&note)?),
            }
        }
        Ok((changes, covered))
    }

    fn object(&self, inode: u64) -> anyhow::Result<usize> {
        self.inodes.get(&inode).copied().context("something was done to a file whose making was not seen")
    }

    fn change<'a>(&self, note: &Note<'a>) -> anyhow::Result<Change<'a>> {
        let at = usize::try_from(note.a)?;
        let (object, also, what) = match note.kind {
            b'W' => (note.object, note.object, What::Write { at, data: note.data }),
            b'T' => (note.object, note.object, What::Size { bytes: at, only_grows: note.b == 1 }),
            b'N' => (note.other, note.other, What::Name { name: note.name, object: self.object(note.object)? }),
            b'U' => (note.other, note.other, What::Remove { name: note.name }),
            b'R' => {
                let what = What::Rename { from: note.name, to: note.other_name, object: self.object(note.a)? };
                (note.object, note.other, what)
            }
            kind => bail!("a note of an unknown kind: {kind}"),
        };
        Ok(Change { object: self.object(object)?, also: self.object(also)?, what })
    }

    fn apply(&mut self, change: &Change<'_>) -> anyhow::Result<()> {
        match (&change.what, &mut self.objects[change.object]) {
            (What::Write { at, data }, Object::File(content)) => {
                content.resize(content.len().max(at + data.len()), 0);
                content[*at..at + data.len()].copy_from_slice(data);
            }
            (What::Size { bytes, only_grows }, Object::File(content)) => {
                let least = if *only_grows { content.len() } else { 0 };
                content.resize(least.max(*bytes), 0);
            }
            (What::Name { name, object }, Object::Folder(names)) => _ = names.insert((*name).to_owned(), *object),
            (What::Remove { name }, Object::Folder(names)) => _ = names.remove(*name),
            (What::Rename { from, to, object }, Object::Folder(names)) => {
                if names.get(*from) == Some(object) {
                    names.remove(*from);
                }
                self.names(change.also)?.insert((*to).to_owned(), *object);
            }
            _ => bail!("a file is no folder, and a folder no file"),
        }
        Ok(())
    }

    fn apply_torn(&mut self, change: &Change<'_>, random: &mut fastrand::Rng) -> anyhow::Result<()> {
        let What::Write { at, data } = &change.what else {
            return if random.bool() { self.apply(change) } else { Ok(()) };
        };
        let (mut at, mut data) = (*at, *data);
        while !data.is_empty() {
            let (sector, rest) = data.split_at(data.len().min(SECTOR - at % SECTOR));
            if random.bool() {
                self.apply(&Change { what: What::Write { at, data: sector }, ..*change })?;
            }
            (at, data) = (at + sector.len(), rest);
        }
        Ok(())
    }

    /// Makes the folder hold this, and nothing else.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        let mut first_names = HashMap::new();
        for (name, object) in self.tree()? {
            let path = folder.join(name);
            match (&self.objects[object], first_names.get(&object)) {
                (Object::Folder(_), _) => fs::create_dir(&path)?,
                (Object::File(_), Some(first)) => fs::hard_link(first, &path)?,
                (Object::File(content), None) => {
                    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
                    std::io::Write::write_all(&mut file, content)?;
                    first_names.insert(object, path);
                }
            }
        }
        Ok(())
    }

    /// All names below the root, a folder before what is in it.
    fn tree(&self) -> anyhow::Result<BTreeMap<PathBuf, usize>> {
        let (mut all, mut folders) = (BTreeMap::new(), vec![(PathBuf::new(), 0)]);
        while let Some((path, folder)) = folders.pop() {
            let Object::Folder(names) = &self.objects[folder] else { continue };
            for (name, object) in names.iter().filter(|(name, _)| !is_shared_memory(name)) {
                all.insert(path.join(name), *object);
                folders.push((path.join(name), *object));
            }
        }
        Ok(all)
    }

    /// The names that one of the two does not have, or with another content.
    pub(super) fn differences(&self, other: &Self) -> anyhow::Result<Vec<PathBuf>> {
        let (own, others) = (self.tree()?, other.tree()?);
        let content = |disk: &Self, object: Option<&usize>| match object.map(|object| &disk.objects[*object]) {
            Some(Object::File(content)) => Some(content.clone()),
            Some(Object::Folder(_)) => Some(Vec::new()),
            None => None,
        };
        let differs = |name: &&PathBuf| content(self, own.get(*name)) != content(other, others.get(*name));
        Ok(own.keys().chain(others.keys()).filter(differs).cloned().collect())
    }
}

fn is_shared_memory(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b"-shm")
}

struct Note<'a> {
    kind: u8,
    object: u64,
    other: u64,
    a: u64,
    b: u64,
    name: &'a OsStr,
    other_name: &'a OsStr,
    data: &'a [u8],
}

impl<'a> Note<'a> {
    /// The next one, if it is whole: the process may have been killed while it wrote it.
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let mut at = *rest;
        let kind = take(&mut at, 1)?[0];
        let mut number = || Some(u64::from_ne_bytes(take(&mut at, 8)?.try_into().ok()?));
        let [object, other, a, b] = [number()?, number()?, number()?, number()?];
        let mut length = || Some(u32::from_ne_bytes(take(&mut at, 4)?.try_into().ok()?) as usize);
        let [name, other_name, data] = [length()?, length()?, length()?];
        let (name, other_name) = (take(&mut at, name)?, take(&mut at, other_name)?);
        let data = take(&mut at, data)?;
        *rest = at;
        let text = OsStr::from_bytes;
        Some(Self { kind, object, other, a, b, name: text(name), other_name: text(other_name), data })
    }
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(part)
}
