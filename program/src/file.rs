//! Files that are written whole: who reads one sees what was there before or what is there now, also after a crash.
//!
//! Nothing here judges what is in a file, or whether one that is read is private enough.

use std::{
    fs::{DirBuilder, Metadata, metadata},
    io::{self, Write as _},
    path::Path,
};

use tempfile::NamedTempFile;

/// Makes a folder, 0700 where it is new, and those above it.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Puts a file in the place of what was there, 0600 from its first byte on. Its folder is made if it is missing.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_private_folder(folder_of(path))?;
    put(path, bytes, None)
}

/// Puts a file in the place of another, with that one's owner and permissions: root may edit what a service reads.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, Some(&metadata(path)?))
}

fn put(path: &Path, bytes: &[u8], before: Option<&Metadata>) -> io::Result<()> {
    let mut new = NamedTempFile::with_prefix_in(".new-", folder_of(path))?;
    new.write_all(bytes)?;
    if let Some(before) = before {
        #[cfg(unix)]
        keep_owner(new.as_file(), before)?;
        new.as_file().set_permissions(before.permissions())?;
    }
    new.as_file().sync_all()?;
    new.persist(path)?;
    #[cfg(unix)]
    std::fs::File::open(folder_of(path))?.sync_all()?;
    Ok(())
}

#[cfg(unix)]
fn keep_owner(file: &std::fs::File, before: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let now = file.metadata()?;
    if (now.uid(), now.gid()) == (before.uid(), before.gid()) {
        return Ok(());
    }
    fchown(file, Some(before.uid()), Some(before.gid()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
