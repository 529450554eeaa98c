//! The agent's token: where it lies, and a type that does not tell.
//!
//! Reads the token afresh at each connect, so that a rotated one is taken up without a restart. It does not judge
//! whether a token is right; the relay does.
//!
//! Invariants: no `Debug`, `Display` or error here shows a token; a token's memory is overwritten when it is
//! dropped; a file that others can read is refused.

use std::{
    env::VarError,
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

const TOO_LONG: &str = "it is longer than 4096 bytes";
const NO_REFERENCE: &str = "a token is not written here; write \"file:PATH\" or \"env:NAME\"";

/// A secret that proves who the agent is: visible ASCII, not empty.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Zeroizing<String>);

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
    #[error("{0}")]
    Unusable(String),
    /// A config file that nobody named refers to a file of somebody else's folder.
    #[error("{0} lies outside the folder of the config file that names it; name that file with --config if it may")]
    Outside(String),
}

impl Token {
    /// The token in clear, for the one header that carries it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is wrong with it is said without showing it.
    pub(super) fn checked(bytes: &[u8], origin: impl fmt::Display) -> Result<Self, TokenError> {
        let reason = match (Invisible::of(bytes), std::str::from_utf8(bytes).map(str::trim)) {
            (Some(what), _) => what.to_string(),
            (None, Err(_)) => "it is no text".to_owned(),
            (None, Ok("")) => "it is empty".to_owned(),
            (None, Ok(token)) if token.len() > MAX_TOKEN_BYTES => TOO_LONG.to_owned(),
            (None, Ok(token)) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                "it has spaces or bytes outside ASCII".to_owned()
            }
            (None, Ok(token)) => return Ok(Self(Zeroizing::new(token.to_owned()))),
        };
        Err(malformed(origin, reason))
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
            _ => Err(TokenError::Unusable(NO_REFERENCE.to_owned())),
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
        let bytes = read_bounded(reader, MOST_BYTES).map_err(|unread| refused(unread, origin))?;
        Token::checked(&bytes, origin).map(Self::Given)
    }

    pub(crate) fn read(&self) -> Result<Token, TokenError> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::Env(name) => {
                let origin = format!("${name}");
                let text = std::env::var(name).map(Zeroizing::new).map_err(|error| match error {
                    VarError::NotPresent => unreadable(&origin, "it is not set"),
                    VarError::NotUnicode(_) => unreadable(&origin, "it is not text"),
                })?;
                Token::checked(text.as_bytes(), origin)
            }
            Self::File(path) => read_file(path),
            Self::Within { path, folder } => read_file(&inside(path, folder)?),
            Self::Login { path, relay } => {
                let login = Login::read(path).map_err(|reason| unreadable(path.display(), reason))?;
                match login {
                    Some(login) if login.relay == *relay => Ok(login.token),
                    Some(login) => {
                        Err(unreadable(path.display(), format!("it is for {} now, not for {relay}", login.relay)))
                    }
                    None => Err(unreadable(path.display(), "no such file; run relay-client login")),
                }
            }
        }
    }

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
    let real = |path: &Path| {
        std::fs::canonicalize(path).map_err(|error| unreadable(path.display(), relay_program::reason::of_io(&error)))
    };
    let (folder, file) = (real(folder)?, real(path)?);
    if file.starts_with(&folder) { Ok(file) } else { Err(TokenError::Outside(path.display().to_string())) }
}

fn read_file(path: &Path) -> Result<Token, TokenError> {
    let (bytes, _) = read_private(path, MOST_BYTES).map_err(|unread| refused(unread, path.display()))?;
    Token::checked(&bytes, path.display())
}

fn refused(unread: Unread, origin: impl fmt::Display) -> TokenError {
    match unread {
        Unread::Public => {
            TokenError::Unusable(format!("{origin} can be read by everyone on this machine; run: chmod 600 {origin}"))
        }
        Unread::TooLarge => malformed(origin, TOO_LONG),
        Unread::Directory => unreadable(origin, "it is a directory"),
        Unread::Io(error) => unreadable(origin, relay_program::reason::of_io(&error)),
    }
}

fn unreadable(origin: impl fmt::Display, reason: impl fmt::Display) -> TokenError {
    TokenError::Unusable(format!("the token cannot be read from {origin}: {reason}"))
}

fn malformed(origin: impl fmt::Display, reason: impl fmt::Display) -> TokenError {
    TokenError::Unusable(format!("{origin} holds no token: {reason}"))
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
        assert_eq!(read("s3cret").unwrap_err().to_string(), NO_REFERENCE);
        assert_eq!(read("file:").unwrap_err().to_string(), NO_REFERENCE);
    }
}
