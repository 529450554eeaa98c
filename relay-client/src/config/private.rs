//! Files of the user's own: 0600 from their first byte on, and there whole or not at all.
//!
//! This module only writes. Their readers know what is in them, and whether one is private enough.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

/// Puts `bytes` into the file in place of what was there; its folder is made (0700) if it is missing.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_folder(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = create(&draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

fn create(path: &Path) -> io::Result<File> {
    // One that an earlier try left behind may have been made by somebody else.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
