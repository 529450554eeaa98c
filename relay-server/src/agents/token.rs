//! What an agent shows to be let in, and what it may then attach to.
//!
//! The relay keeps only SHA-256 hashes: a token is 256 random bits, so a slow hash would add nothing but a way to
//! exhaust the door. Nothing here reads files or counts failures; `config` fills [`Tokens`], `agents::accept` asks.
//!
//! Invariants: [`Tokens::authenticate`] compares every stored hash, in constant time and without an early exit, so
//! that its duration tells nothing about which token was near. An [`AgentToken`] is never printed by `Debug`.

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    client_certificate::{ClientCertificate, ClientRule},
    quota::TokenQuotas,
};

/// Shortest token that the relay accepts, in bytes. A shorter one could be guessed.
pub(crate) const MIN_TOKEN_BYTES: usize = 16;

const PREFIX: &str = "rt_";
const RANDOM_BYTES: usize = 32;

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a token as an agent presents it.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads 64 hexadecimal digits, in either case.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// All 64 digits, lower case.
    pub fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// The first 12 digits and an ellipsis: enough to tell two tokens apart.
    pub(crate) fn shortened(self) -> String {
        format!("{}…", HEXLOWER.encode(&self.0[..6]))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shortened())
    }
}

/// A token in clear, made by this process and not yet handed over. Wiped when dropped.
#[derive(Clone)]
pub struct AgentToken(Zeroizing<String>);

impl AgentToken {
    /// `rt_` and 43 characters of base64url: 256 bits from the operating system.
    ///
    /// Fails only where the operating system has no source of randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        Self::random(PREFIX)
    }

    /// Such as [`AgentToken::generate`] makes, with another beginning.
    pub(crate) fn random(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        let text = format!("{prefix}{}", BASE64URL_NOPAD.encode(&bytes));
        bytes.zeroize();
        Ok(Self(Zeroizing::new(text)))
    }

    /// The token itself. For a file of mode 0600 or one line on a terminal, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the relay keeps of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentToken(…)")
    }
}

/// Endpoint names that a token may attach to: an exact name, or one with `*` for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Box<str>);

impl Pattern {
    /// Takes any text. Whether it can match an endpoint at all is for `config` to say.
    pub(crate) fn new(text: &str) -> Self {
        Self(Box::from(text))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        relay_program::pattern::fits(&self.0, name)
    }
}

/// One `[[token]]`: who may come in, by which hashes, and to what.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Its name in the config, in logs and in `token list`.
    pub name: Arc<str>,
    /// Which token it is: one that is made anew under an old name is another.
    pub id: Arc<str>,
    /// Several at once, so that a token can be rotated without a gap.
    pub hashes: Vec<TokenHash>,
    pub endpoints: Vec<Pattern>,
    pub rights: Vec<Right>,
    /// Sessions at a time of all agents that have it.
    pub max_sessions: usize,
    /// Whose certificate has to be shown beside it.
    pub client: Option<ClientRule>,
    /// What its own endpoints may take.
    pub quotas: TokenQuotas,
}

/// Sessions of one token at a time, where it does not say otherwise.
pub(crate) const MAX_SESSIONS_OF_TOKEN: usize = 1024;

/// Something that a token may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Serve an endpoint.
    Attach,
    /// Watch an endpoint: copies of its exchanges, and what it keeps.
    Read,
    /// Have what an endpoint keeps delivered once more to whoever serves it.
    Replay,
    /// Have the relay sign what its asker wrote, as the endpoint's provider would.
    Sign,
    /// End what waits at an endpoint.
    Skip,
    /// Revive, drop and cancel events, hold an endpoint back and let it go on.
    Act,
    /// Make and remove endpoints.
    Create,
    /// Tokens, sessions, the config, agents.
    Admin,
}

impl Right {
    pub(crate) const ALL: [Self; 8] =
        [Self::Attach, Self::Read, Self::Replay, Self::Sign, Self::Skip, Self::Act, Self::Create, Self::Admin];

    /// What a token allows unless it says otherwise.
    pub(crate) const DEFAULT: [Self; 2] = [Self::Attach, Self::Read];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Read => "read",
            Self::Replay => "replay",
            Self::Sign => "sign",
            Self::Skip => "skip",
            Self::Act => "act",
            Self::Create => "create",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == name)
    }
}

impl Token {
    /// Whether an agent with this token may do something at the endpoint of that name.
    pub(crate) fn may(&self, right: Right, endpoint: &str) -> bool {
        self.rights.contains(&right) && self.endpoints.iter().any(|pattern| pattern.matches(endpoint))
    }
}

/// A token that somebody showed, by which of its secrets, and the certificate of the connection that it came over.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub token: Arc<Token>,
    pub secret: TokenHash,
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Shown {
    /// Whether what was shown lets somebody in by `token`, the one of its name as it is now: it may have lost this secret
    /// since, and may count only beside a certificate that was not shown.
    pub(crate) fn is_good_for(&self, token: &Token) -> bool {
        let rule = token.client.as_ref();
        token.hashes.contains(&self.secret) && rule.is_none_or(|rule| rule.allows(self.certificate.as_deref()))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        Self(tokens.into_iter().map(Arc::new).collect())
    }

    /// The token that `presented` is, if it is one.
    pub(crate) fn authenticate(&self, presented: &[u8]) -> Option<Shown> {
        let presented = TokenHash::of(presented);
        let mut found = u64::MAX;
        for (index, token) in (0_u64..).zip(&self.0) {
            for hash in &token.hashes {
                found.conditional_assign(&index, hash.0.ct_eq(&presented.0));
            }
        }
        let token = usize::try_from(found).ok().and_then(|index| self.0.get(index))?;
        Some(Shown { token: Arc::clone(token), secret: presented, certificate: None })
    }

    /// A token as it is now, if what somebody showed is still good for it.
    pub(crate) fn still(&self, shown: &Shown) -> Option<Arc<Token>> {
        let named = self.0.iter().find(|token| *token.name == *shown.token.name)?;
        shown.is_good_for(named).then(|| Arc::clone(named))
    }

    /// The same tokens, each knowing which one it is, where that is known by its name.
    pub(crate) fn identified(self, id: impl Fn(&str) -> Option<Arc<str>>) -> Self {
        let identify = |token: Arc<Token>| match id(&token.name) {
            Some(id) => Arc::new(Token { id, ..Token::clone(&token) }),
            None => token,
        };
        Self(self.0.into_iter().map(identify).collect())
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Token>> {
        self.0.iter().find(|token| *token.name == *name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, secrets: &[&str], endpoints: &[&str]) -> Token {
        Token {
            name: Arc::from(name),
            hashes: secrets.iter().map(|secret| TokenHash::of(secret.as_bytes())).collect(),
            endpoints: endpoints.iter().map(|pattern| Pattern::new(pattern)).collect(),
            rights: vec![Right::Attach],
            max_sessions: MAX_SESSIONS_OF_TOKEN,
            client: None,
            id: Arc::from(name),
            quotas: TokenQuotas::default(),
        }
    }

    #[test]
    fn a_token_is_found_by_any_of_its_hashes_and_by_nothing_else() {
        let tokens = Tokens::new(vec![token("laptop", &["one", "two"], &["*"]), token("server", &["three"], &["*"])]);
        let who = |presented: &str| tokens.authenticate(presented.as_bytes()).map(|shown| shown.token.name.to_string());
        assert_eq!(who("one").as_deref(), Some("laptop"));
        assert_eq!(who("two").as_deref(), Some("laptop"));
        assert_eq!(who("three").as_deref(), Some("server"));
        for wrong in ["", "on", "one ", "four"] {
            assert_eq!(who(wrong), None, "{wrong:?}");
        }
        assert!(Tokens::default().authenticate(b"one").is_none());
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("github", "github", true),
            ("github", "github2", false),
            ("github", "git", false),
            ("*", "anything", true),
            ("alice-*", "alice-stripe", true),
            ("alice-*", "alice-", true),
            ("alice-*", "bob-alice-x", false),
            ("*-prod", "stripe-prod", true),
            ("*-prod", "stripe-prod-2", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a*ab*b", "aab", false),
            ("**", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), fits, "{pattern:?} on {name:?}");
        }
    }

    #[test]
    fn a_token_attaches_only_where_a_pattern_says_so() {
        let token = token("alice", &["x"], &["github", "alice-*"]);
        assert!(token.may(Right::Attach, "github"));
        assert!(token.may(Right::Attach, "alice-stripe"));
        assert!(!token.may(Right::Attach, "stripe"));
        assert!(!token.may(Right::Read, "github"), "a right that it was not given");
    }

    #[test]
    fn generated_tokens_have_the_documented_form_and_differ() {
        let one = AgentToken::generate().unwrap();
        let two = AgentToken::generate().unwrap();
        assert_ne!(one.expose(), two.expose());
        let random = one.expose().strip_prefix("rt_").unwrap();
        assert_eq!(random.len(), 43);
        assert_eq!(BASE64URL_NOPAD.decode(random.as_bytes()).unwrap().len(), 32);
        assert_eq!(one.hash(), TokenHash::of(one.expose().as_bytes()));
        assert_eq!(format!("{one:?}"), "AgentToken(…)");
    }

    #[test]
    fn hashes_are_read_in_either_case_and_shortened_for_people() {
        // SHA-256 of the empty string, FIPS 180-4.
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(TokenHash::of(b"").to_hex(), hex);
        assert_eq!(TokenHash::from_hex(&hex.to_uppercase()), Some(TokenHash::of(b"")));
        assert_eq!(TokenHash::of(b"").shortened(), "e3b0c44298fc…");
        for bad in ["", "e3b0", &hex[1..], &format!("{hex}00"), "zz"] {
            assert_eq!(TokenHash::from_hex(bad), None, "{bad:?}");
        }
    }
}
