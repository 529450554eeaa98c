//! What an explanation can say: a stable code and a sentence each.

use std::fmt;

use crate::{Refusal, SecretError};

#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    Verifies,
    SecretUnusable(SecretError),
    ClockSkew {
        /// How old the request is; negative if it comes from the future.
        seconds: i64,
        /// How much may be.
        tolerance_s: i64,
    },
    DoubledHeader {
        name: String,
        /// Whether one of its values is right.
        one_is_right: bool,
    },
    UpperCaseHex,
    PrefixMissing {
        prefix: String,
    },
    Encoding {
        due: &'static str,
        has: &'static str,
    },
    OtherSecret {
        name: String,
    },
    /// It is right with the same secret read in another form.
    SecretForm {
        name: String,
        form: &'static str,
    },
    /// It is right for another URL, given without its query.
    OtherUrl {
        url: String,
    },
    /// It is right for a body that something on the way, or the sender's code, changed.
    Body(BodyChange),
    OtherProvider {
        name: String,
        /// Whether its signature is right there, or only its header fits.
        proven: bool,
    },
    SignatureAbsent {
        place: String,
    },
    Refused(Refusal),
    NothingUsual {
        /// Whether the search ended early because the request is large.
        exhausted: bool,
    },
}

/// What happened to a body after it was signed, or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyChange {
    #[error("a newline was added at its end")]
    NewlineAdded,
    #[error("the newline at its end was removed")]
    NewlineRemoved,
    #[error("its CRLF line ends became LF")]
    CrlfToLf,
    #[error("its LF line ends became CRLF")]
    LfToCrlf,
    #[error("a byte order mark was added or removed")]
    ByteOrderMark,
    #[error("the JSON was parsed and written again, so that its bytes are others")]
    JsonRewritten,
    #[error("the form was parsed and written again, so that its bytes are others")]
    FormRewritten,
    #[error("the sender signs a form field's value and not the form")]
    FormField,
}

impl Finding {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Verifies => "verifies",
            Self::SecretUnusable(_) => "secret_unusable",
            Self::ClockSkew { .. } => "clock_skew",
            Self::DoubledHeader { .. } => "doubled_header",
            Self::UpperCaseHex => "upper_case_hex",
            Self::PrefixMissing { .. } => "prefix_missing",
            Self::Encoding { .. } => "wrong_encoding",
            Self::OtherSecret { .. } => "other_secret",
            Self::SecretForm { .. } => "secret_form",
            Self::OtherUrl { .. } => "wrong_url",
            Self::Body(change) => match change {
                BodyChange::NewlineAdded | BodyChange::NewlineRemoved => "trailing_newline",
                BodyChange::CrlfToLf | BodyChange::LfToCrlf => "line_ends",
                BodyChange::ByteOrderMark => "byte_order_mark",
                BodyChange::JsonRewritten => "json_rewritten",
                BodyChange::FormRewritten => "form_rewritten",
                BodyChange::FormField => "form_field",
            },
            Self::OtherProvider { .. } => "other_provider",
            Self::SignatureAbsent { .. } => "signature_absent",
            Self::Refused(refusal) => refusal.code(),
            Self::NothingUsual { .. } => "nothing_usual",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verifies => f.write_str("nothing is wrong: the request verifies"),
            Self::SecretUnusable(error) => write!(f, "the configured secret cannot be used: {error}"),
            Self::ClockSkew { seconds, tolerance_s } if *seconds >= 0 => write!(
                f,
                "the signature is right, but the request is {seconds} s old and {tolerance_s} s are allowed: a \
                 replay, a slow queue at the sender, or a clock that is wrong"
            ),
            Self::ClockSkew { seconds, tolerance_s } => write!(
                f,
                "the signature is right, but the request comes from {} s in the future and {tolerance_s} s are \
                 allowed: a clock is wrong",
                seconds.unsigned_abs()
            ),
            Self::DoubledHeader { name, one_is_right } => {
                let right = if *one_is_right { ", one of them right" } else { "" };
                write!(f, "the header {name} is there more than once{right}: something on the way adds it again")
            }
            Self::UpperCaseHex => f.write_str("the signature is right but in upper-case hex; lower case is due"),
            Self::PrefixMissing { prefix } => {
                write!(f, "the signature is right but its prefix {prefix:?} is missing")
            }
            Self::Encoding { due, has } => write!(f, "the signature is right but in {has}; {due} is due"),
            Self::OtherSecret { name } => {
                write!(f, "the signature is right under another secret: {name}; was it rotated, or mixed up?")
            }
            Self::SecretForm { name, form } => {
                write!(f, "the signature is right if {name} is read differently: the sender uses it as {form}")
            }
            Self::OtherUrl { url } => write!(
                f,
                "the signature is right for the URL {url} (its query not shown): set public_url to the URL that is \
                 registered at the provider"
            ),
            Self::Body(change) => write!(f, "the signature is right for another body: {change}"),
            Self::OtherProvider { name, proven: true } => {
                write!(f, "the signature is right by the scheme of the provider {name}: name that one")
            }
            Self::OtherProvider { name, proven: false } => {
                write!(f, "the request has the signature header of the provider {name}, not of this one")
            }
            Self::SignatureAbsent { place } => write!(
                f,
                "there is no signature: {place} is missing; is a secret set at the sender, and does a proxy keep it?"
            ),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::NothingUsual { exhausted: false } => {
                f.write_str("none of the usual mistakes: most likely the secret at the sender is another one than here")
            }
            Self::NothingUsual { exhausted: true } => f.write_str(
                "no usual mistake was found before the search ended, because the request is large; most likely the \
                 secret at the sender is another one than here",
            ),
        }
    }
}
