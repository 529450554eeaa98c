//! The agent's token: where it lies, and a type that does not tell.
//!
//! Reads the token afresh at each connect, so that a rotated one is taken up without a restart. It does not judge
//! whether a token is right; the relay does.
//!
//! Invariants: no `Debug`, `Display` or error here shows a token; a token's memory is overwritten when it is
//! dropped; a file that others can read is refused.

use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
};

use relay_program::secret::{SecretRef, Unread, read_bounded, read_private};
use relay_schemes::Invisible;
use zeroize::Zeroizing;

use super::{RelayUrl, login::Login};

const MAX_TOKEN_BYTES: usize = 4096;
/// Bytes that are read of one, with a line end.
const MOST_BYTES: u64 = MAX_TOKEN_BYTES as u64 + 8;

/// A secret that proves who the agent is: visible ASCII, not empty.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Zeroizing<String>);

/// Where the token is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// In a file of its own, with or without a line end.
    File(PathBuf),
    /// In a file that a config file of the current folder names: nowhere but inside that folder.
    Within {
        path: PathBuf,
        folder: PathBuf,
    },
    Env(String),
    /// Already read, from standard input.
    Given(Token),
    /// Where `login` put it, as long as it is for this relay.
    Login {
        path: PathBuf,
        relay: RelayUrl,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token cannot be read from {origin}: {reason}")]
    Unreadable { origin: String, reason: String },
    #[error("{0} can be read by everyone on this machine; run: chmod 600 {0}")]
    WorldReadable(String),
    #[error("{origin} holds no token: {reason}")]
    Malformed { origin: String, reason: String },
    /// A config file that nobody named refers to a file of somebody else's folder.
    #[error("{0} lies outside the folder of the config file that names it; name that file with --config if it may")]
    Outside(String),
    #[error("a token is not written here; write \"file:PATH\" or \"env:NAME\"")]
    Reference,
}

impl Token {
    /// The token in clear, for the one header that carries it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn checked(text: &str, origin: &str) -> Result<Self, TokenError> {
        if let Some(what) = Invisible::of(text.as_bytes()) {
            return Err(TokenError::Malformed { origin: origin.to_owned(), reason: what.to_string() });
        }
        let token = text.trim();
        let reason = if token.is_empty() {
            "it is empty"
        } else if token.len() > MAX_TOKEN_BYTES {
            "it is longer than 4096 bytes"
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            "it has spaces or bytes outside ASCII"
        } else {
            return Ok(Self(Zeroizing::new(token.to_owned())));
        };
        Err(TokenError::Malformed { origin: origin.to_owned(), reason: reason.to_owned() })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl TokenSource {
    /// A reference as a config file writes it; a relative path starts at `base`, `~/` at `home`.
    pub(crate) fn from_reference(text: &str, base: &Path, home: Option<&Path>) -> Result<Self, TokenError> {
        match text.parse() {
            Ok(SecretRef::File(path)) => Ok(Self::File(super::find::expand(&path.to_string_lossy(), base, home))),
            Ok(SecretRef::Env(name)) => Ok(Self::Env(name)),
            _ => Err(TokenError::Reference),
        }
    }

    /// The same source, for a config file of `folder` that may be somebody else's.
    pub(crate) fn confined(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::Within { path, folder: folder.to_owned() },
            other => other,
        }
    }

    /// Reads a token once, from standard input or the like.
    pub(crate) fn from_reader(reader: impl Read) -> Result<Self, TokenError> {
        let origin = "standard input";
        let bytes = read_bounded(reader, MOST_BYTES).map_err(|unread| refused(unread, origin.to_owned()))?;
        of_bytes(&bytes, origin).map(Self::Given)
    }

    /// The token as it is now.
    pub(crate) fn read(&self) -> Result<Token, TokenError> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::Env(name) => {
                let origin = format!("${name}");
                let text = std::env::var(name).map(Zeroizing::new).map_err(|error| TokenError::Unreadable {
                    origin: origin.clone(),
                    reason: match error {
                        std::env::VarError::NotPresent => "it is not set".to_owned(),
                        std::env::VarError::NotUnicode(_) => "it is not text".to_owned(),
                    },
                })?;
                Token::checked(&text, &origin)
            }
            Self::File(path) => read_file(path),
            Self::Within { path, folder } => read_file(&inside(path, folder)?),
            Self::Login { path, relay } => {
                let unreadable = |reason| TokenError::Unreadable { origin: path.display().to_string(), reason };
                match Login::read(path) {
                    Ok(Some(login)) if login.relay == *relay => Ok(login.token),
                    Ok(Some(login)) => Err(unreadable(format!("it is for {} now, not for {relay}", login.relay))),
                    Ok(None) => Err(unreadable("no such file; run relay-client login".to_owned())),
                    Err(reason) => Err(unreadable(reason)),
                }
            }
        }
    }

    /// The file that holds it, if one does.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Within { path, .. } | Self::Login { path, .. } => Some(path),
            Self::Env(_) | Self::Given(_) => None,
        }
    }
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Within { path, .. } => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Given(_) => f.write_str("standard input"),
            Self::Login { path, .. } => write!(f, "login:{}", path.display()),
        }
    }
}

/// Where a path really leads, if that is inside the folder. Links are resolved at each reading, since they change.
fn inside(path: &Path, folder: &Path) -> Result<PathBuf, TokenError> {
    let folder = std::fs::canonicalize(folder).map_err(|error| unreadable(folder, &error))?;
    let real = std::fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
    if real.starts_with(&folder) { Ok(real) } else { Err(TokenError::Outside(path.display().to_string())) }
}

fn unreadable(path: &Path, error: &std::io::Error) -> TokenError {
    TokenError::Unreadable { origin: path.display().to_string(), reason: relay_program::reason::of_io(error) }
}

fn read_file(path: &Path) -> Result<Token, TokenError> {
    let origin = path.display().to_string();
    match read_private(path, MOST_BYTES) {
        Ok((bytes, _)) => of_bytes(&bytes, &origin),
        Err(unread) => Err(refused(unread, origin)),
    }
}

fn refused(unread: Unread, origin: String) -> TokenError {
    match unread {
        Unread::Public => TokenError::WorldReadable(origin),
        Unread::TooLarge => TokenError::Malformed { origin, reason: "it is longer than 4096 bytes".to_owned() },
        Unread::Directory => TokenError::Unreadable { origin, reason: "it is a directory".to_owned() },
        Unread::Io(error) => TokenError::Unreadable { origin, reason: relay_program::reason::of_io(&error) },
    }
}

fn of_bytes(bytes: &[u8], origin: &str) -> Result<Token, TokenError> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        let reason = Invisible::of(bytes).map_or_else(|| "it is no text".to_owned(), |what| what.to_string());
        TokenError::Malformed { origin: origin.to_owned(), reason }
    })?;
    Token::checked(text, origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_token() {
        let source = TokenSource::from_reader(&b"s3cret-token\n"[..]).unwrap();
        let token = source.read().unwrap();
        assert_eq!(token.reveal(), "s3cret-token");
        for text in [format!("{token:?}"), format!("{source:?}"), source.to_string()] {
            assert!(!text.contains("s3cret"), "{text}");
        }
        let error = TokenSource::from_reader(&b"s3cret token"[..]).unwrap_err();
        assert_eq!(error.to_string(), "standard input holds no token: it has spaces or bytes outside ASCII");
    }

    #[test]
    fn what_nobody_sees_in_a_token_is_named() {
        for (bytes, words) in [
            (&b"\xef\xbb\xbfrt_token\n"[..], "byte order mark"),
            (b"\xff\xfer\0t\0_\0", "UTF-16"),
            ("rt_token\u{a0}".as_bytes(), "no-break or zero-width space"),
            ("rt_to\u{200b}ken".as_bytes(), "no-break or zero-width space"),
            (b"rt_\x80", "no text"),
        ] {
            let error = TokenSource::from_reader(bytes).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("rt_"), "{error}");
        }
    }

    #[test]
    fn tokens_are_bounded() {
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        assert!(TokenSource::from_reader(long.as_bytes()).is_err());
        assert!(TokenSource::from_reader(&long.as_bytes()[1..]).is_ok());
        assert!(TokenSource::from_reader(&b" \n"[..]).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_read_afresh_and_must_be_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = TokenSource::File(file.path().to_owned());
        std::fs::write(file.path(), "one\n").unwrap();
        assert_eq!(source.read().unwrap().reveal(), "one");
        std::fs::write(file.path(), "two").unwrap();
        assert_eq!(source.read().unwrap().reveal(), "two");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let path = file.path().display();
        let expected = format!("{path} can be read by everyone on this machine; run: chmod 600 {path}");
        assert_eq!(source.read().unwrap_err().to_string(), expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_confined_reference_stays_in_its_folder_wherever_links_lead() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("cloned");
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        for path in [place.path().join("mine"), folder.join("deep/token")] {
            std::fs::write(&path, "secret\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink("../mine", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
        let mine = place.path().join("mine");
        let read = |reference: &str| {
            TokenSource::from_reference(reference, &folder, Some(place.path())).unwrap().confined(&folder).read()
        };
        assert_eq!(read("file:deep/token").unwrap().reveal(), "secret");
        assert_eq!(read("file:deep/../deep/token").unwrap().reveal(), "secret");
        for outside in ["file:link", "file:up/mine", "file:../mine", "file:~/mine", &format!("file:{}", mine.display())]
        {
            assert!(matches!(read(outside), Err(TokenError::Outside(_))), "{outside}");
        }
        // A link that is laid after the file was read the first time.
        let source = TokenSource::from_reference("file:deep/token", &folder, None).unwrap().confined(&folder);
        assert!(source.read().is_ok());
        std::fs::remove_file(folder.join("deep/token")).unwrap();
        std::os::unix::fs::symlink("../../mine", folder.join("deep/token")).unwrap();
        assert!(matches!(source.read(), Err(TokenError::Outside(_))));
    }

    #[test]
    fn references_are_files_or_variables() {
        let read = |text| TokenSource::from_reference(text, Path::new("/etc/relay"), Some(Path::new("/home/me")));
        assert_eq!(read("file:token").unwrap().to_string(), "file:/etc/relay/token");
        assert_eq!(read("file:~/t").unwrap().to_string(), "file:/home/me/t");
        assert_eq!(read("env:TOKEN").unwrap().to_string(), "env:TOKEN");
        assert_eq!(read("s3cret").unwrap_err(), TokenError::Reference);
        assert_eq!(read("file:").unwrap_err(), TokenError::Reference);
    }
}
