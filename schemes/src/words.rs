//! What proves a request, and where, in the words that people read.

use crate::{
    key::Algorithm,
    locate::Spot,
    scheme::{Scheme, SignaturePlace},
};

impl Scheme {
    pub fn in_words(&self) -> String {
        let what = match self.algorithm {
            Algorithm::HmacSha1 => "HMAC-SHA1",
            Algorithm::HmacSha256 => "HMAC-SHA256",
            Algorithm::HmacSha384 => "HMAC-SHA384",
            Algorithm::HmacSha512 => "HMAC-SHA512",
            Algorithm::Sha1 => "SHA-1 with the secret",
            Algorithm::Sha256 => "SHA-256 with the secret",
            Algorithm::Sha512 => "SHA-512 with the secret",
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP256Sha256Raw => "ECDSA P-256",
            Algorithm::EcdsaP256Sha1 => "ECDSA P-256 (SHA-1)",
            Algorithm::RsaSha1 => "RSA (SHA-1)",
            Algorithm::RsaSha256 => "RSA",
            Algorithm::Token => "a token",
            Algorithm::Basic => "user and password",
            Algorithm::JwtHs256 => "JWT (HS256)",
            Algorithm::JwtRs256 => "JWT (RS256)",
            Algorithm::JwtEs256 => "JWT (ES256)",
        };
        let place = place_of(self);
        let place = place.strip_prefix("the ").unwrap_or(&place);
        let age = self.tolerance_s().map_or(String::new(), |(past, _)| format!(", at most {past} s old"));
        let url = if self.covers_url() { ", the URL too" } else { "" };
        format!("{what} in {}{age}{url}", place.replacen(' ', " `", 1) + "`")
    }
}

/// Where a row looks for its signature, as text.
pub(crate) fn place_of(scheme: &Scheme) -> String {
    match &scheme.place {
        SignaturePlace::At(Spot::Header(name)) => format!("the header {name}"),
        SignaturePlace::At(Spot::Json(pointer)) => format!("the JSON member {}", pointer.text),
        SignaturePlace::At(Spot::Form(name)) => format!("the form field {name}"),
        SignaturePlace::At(Spot::Query(name)) => format!("the query parameter {name}"),
        SignaturePlace::At(Spot::Setting(_) | Spot::Member(_)) => "the request".to_owned(),
        SignaturePlace::Numbered(name) => format!("the header {name}1"),
        SignaturePlace::AnyHeader(names) | SignaturePlace::PerKey(names) => format!("the headers {}", names.join(", ")),
    }
}
