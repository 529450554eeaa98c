//! What the view does outside of itself: an editor, a file, a browser.
//!
//! Invariants: a file that holds a payload is readable by its user alone, and is removed once it was edited; a file that
//! is there is never written over; no address comes from anybody but this agent.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use relay_program::process::users_program;

/// Bytes of an edited file that are read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Names that are tried for a file.
const MAX_NAMES: u32 = 1000;

/// Has a person edit a file, and gives what it is then. The terminal is the editor's meanwhile.
pub(super) fn edit(id: &str, file: &[u8]) -> Result<Vec<u8>, String> {
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| env::var(name).ok().filter(|text| !text.is_empty()));
    let editor = editor.unwrap_or_else(|| if cfg!(windows) { "notepad" } else { "vi" }.to_owned());
    let path = create(&env::temp_dir(), id, "http", file).map_err(|error| format!("no file to edit: {error}"))?;
    let edited = edited(&editor, &path);
    let _ = fs::remove_file(&path);
    edited
}

fn edited(editor: &str, path: &Path) -> Result<Vec<u8>, String> {
    // It may have arguments, as in `code --wait`.
    let mut words = editor.split_whitespace();
    let mut command = users_program(words.next().unwrap_or("vi"));
    let status = command.args(words).arg(path).status().map_err(|error| format!("{editor}: {error}"))?;
    if !status.success() {
        return Err(format!("{editor} ended with {status}, so nothing is sent"));
    }
    let read = || {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = read().map_err(|error| format!("the edited file cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("the edited file has more than {MAX_FILE_BYTES} bytes"));
    }
    Ok(bytes)
}

/// Saves bytes in the current folder; the name that the file got.
pub(super) fn save(name: &str, bytes: &[u8]) -> Result<String, String> {
    let (name, extension) = name.rsplit_once('.').unwrap_or((name, "body"));
    let path =
        create(Path::new("."), name, extension, bytes).map_err(|error| format!("it cannot be saved: {error}"))?;
    Ok(path.strip_prefix(".").unwrap_or(&path).display().to_string())
}

/// Writes a new file for its user alone.
fn create(folder: &Path, name: &str, extension: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    // Ids are the relay's words, and a name is a place.
    let name: String = name.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '_').take(80).collect();
    for number in 0..MAX_NAMES {
        let number = if number == 0 { String::new() } else { format!("-{number}") };
        let path = folder.join(format!("{name}{number}.{extension}"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(mut file) => return file.write_all(bytes).map(|()| path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Opens an address in a browser; false where there is none here.
pub(super) fn open(address: &str) -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let program = match () {
        () if is_set("SSH_CONNECTION") => return false,
        () if cfg!(target_os = "macos") => "open",
        () if cfg!(unix) && (is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")) => "xdg-open",
        () => return false,
    };
    let mut command = users_program(program);
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    // Whoever opened it is waited for, so that nothing of it is left.
    std::thread::Builder::new().name("browser".to_owned()).spawn(move || child.wait()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_new_and_their_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = create(folder.path(), "hook_1/../x", "body", b"abc").unwrap();
        let second = create(folder.path(), "hook_1/../x", "body", b"abcd").unwrap();
        assert_eq!(first.file_name().unwrap(), "hook_1x.body");
        assert_eq!((fs::read(&first).unwrap(), fs::read(&second).unwrap()), (b"abc".to_vec(), b"abcd".to_vec()));
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&first).unwrap().permissions()) & 0o777,
            0o600
        );
    }

    #[cfg(unix)]
    #[test]
    fn an_editor_that_fails_sends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = create(folder.path(), "x", "http", b"abc").unwrap();
        assert_eq!(edited("true", &path).unwrap(), b"abc");
        assert!(edited("false", &path).unwrap_err().contains("nothing is sent"));
    }
}
