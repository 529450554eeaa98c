//! What the tests of rows share: an endpoint and a signed sample of every symmetric provider.
#![allow(dead_code, reason = "each test uses a part")]

use relay_schemes::{Keys, Material, Provider, Request, Scheme, Secret, providers};

pub(crate) const NOW: i64 = 1_770_000_000;
pub(crate) const URL: &str = "https://hooks.example.com/in/lamp?tenant=7";

/// Fits every form: hex, base64, and text.
pub(crate) const SECRET: &str = "3f9a0c51d2e84b7796a1b0c3d4e5f60718293a4b5c6d7e8f";

/// A signed request.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Signed {
    pub(crate) fn request(&self) -> Request<'_> {
        Request { method: &self.method, url: &self.url, headers: &self.headers, body: &self.body }
    }

    pub(crate) fn set(&mut self, name: &str, value: &[u8]) {
        self.headers.retain(|(key, _)| key != name);
        self.headers.push((name.to_owned(), value.to_vec()));
    }
}

pub(crate) fn material(scheme: &Scheme, secret: &str) -> Material {
    let mut material = Material::secrets(&[Secret::new(secret)]);
    for name in scheme.settings() {
        material.settings.insert(name.to_owned(), vec![format!("{name}-1")]);
    }
    material
}

pub(crate) fn symmetric() -> impl Iterator<Item = (&'static Provider, &'static Scheme)> {
    let signed = providers().iter().filter_map(|row| Some((row, row.scheme.as_ref()?)));
    signed.filter(|(_, scheme)| scheme.is_symmetric())
}

pub(crate) fn keys(scheme: &Scheme) -> Keys {
    scheme.keys_from(&material(scheme, SECRET)).expect("the secret fits every form")
}

/// A provider's sample, signed at [`NOW`]; with another body if one is given.
pub(crate) fn sign_with(row: &Provider, scheme: &Scheme, keys: &Keys, body: Option<&[u8]>) -> Signed {
    let sample = row.sample("evt-1", NOW);
    let body = body.unwrap_or(&sample.body);
    let request = Request { method: sample.method, url: URL, headers: &sample.headers, body };
    let signed = scheme.sign(keys, &request, Some("evt-1"), NOW).unwrap_or_else(|why| panic!("{}: {why}", row.name));
    let mut out = Signed {
        method: sample.method.to_owned(),
        url: signed.url,
        headers: sample.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect(),
        body: signed.body,
    };
    for (name, value) in &signed.headers {
        out.set(name, value.as_bytes());
    }
    out
}

pub(crate) fn sign(row: &Provider, scheme: &Scheme) -> Signed {
    sign_with(row, scheme, &keys(scheme), None)
}
