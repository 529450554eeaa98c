//! Signs recorded requests afresh, as of now: a handler that checks dates takes them, whenever they were recorded.
//!
//! The key is the user's own, from a file that is named on the command line; a recording has none.

use std::collections::HashMap;

use relay_program::{cassette::CassetteEvent, suggest::nearest};
use relay_schemes::{Keys, Material, Refusal, Request, Scheme, provider, providers};

use super::shot::Bullet;
use crate::send::another;

pub(crate) struct Signer {
    material: Material,
    /// In place of what the recording names.
    provider: Option<String>,
    /// In front of the events' own targets.
    base_url: String,
    /// By the provider's name; there are no more than rows.
    known: HashMap<String, (&'static Scheme, Keys)>,
}

impl Signer {
    pub(crate) fn new(material: Material, provider: Option<String>, base_url: String) -> Self {
        Self { material, provider, base_url, known: HashMap::new() }
    }

    /// Signs a request of an event. The error is for people.
    pub(crate) fn sign(
        &mut self,
        event: &CassetteEvent,
        bullet: &mut Bullet,
        bad: bool,
        now_unix_s: i64,
    ) -> Result<(), String> {
        let name = self.provider.clone().or_else(|| event.provider.clone());
        let name = name.ok_or("the recording does not say who sent it; name the provider with --provider")?;
        if !self.known.contains_key(&name) {
            let made = keys(&name, &self.material)?;
            self.known.insert(name.clone(), made);
        }
        let (scheme, keys) = self.known.get(&name).ok_or("its keys are not known")?;
        let url = format!("{}{}", self.base_url, bullet.target);
        let id = event.sender_id.as_deref().unwrap_or(&event.id);
        let unsigned = Request { method: &bullet.method, url: &url, headers: &bullet.headers, body: &bullet.body };
        let signed = scheme.sign(keys, &unsigned, Some(id), now_unix_s).map_err(|error| format!("{name}: {error}"))?;
        if let Some(target) = signed.url.strip_prefix(&self.base_url) {
            bullet.target = target.to_owned();
        }
        bullet.body = signed.body.into();
        for (name, value) in &signed.headers {
            bullet.headers.retain(|(other, _)| other != name);
            bullet.headers.push((name.clone(), value.as_bytes().to_vec()));
        }
        if !bad {
            return Ok(());
        }
        let url = format!("{}{}", self.base_url, bullet.target);
        let mismatches = |bullet: &Bullet| {
            let request = Request { method: &bullet.method, url: &url, headers: &bullet.headers, body: &bullet.body };
            scheme.verify(keys, &request, now_unix_s) == Err(Refusal::SignatureMismatch)
        };
        // Near its end a signature has its last digits; the very last may be padding bits of base64.
        for (name, value) in &signed.headers {
            for place in (value.len().saturating_sub(8)..value.len()).rev() {
                let Some(byte) = another(value.as_bytes()[place]) else { continue };
                let mut changed = bullet.clone();
                if let Some((_, value)) = changed.headers.iter_mut().find(|(other, _)| other == name) {
                    value[place] = byte;
                }
                if mismatches(&changed) {
                    *bullet = changed;
                    return Ok(());
                }
            }
        }
        Err(format!("{name}: its signature stands in no header, so it cannot be made one that does not match"))
    }
}

fn keys(name: &str, material: &Material) -> Result<(&'static Scheme, Keys), String> {
    let row = provider(name).ok_or_else(|| {
        let near = nearest(name, providers().iter().map(|row| row.name.as_str()));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        format!("there is no provider {name:?}{hint}")
    })?;
    let scheme = row.scheme.as_ref().ok_or_else(|| format!("{} signs nothing; leave out --resign", row.title))?;
    if !scheme.is_symmetric() {
        return Err(format!("only {} has the key that signs its requests ({})", row.title, scheme.in_words()));
    }
    let keys = scheme.keys_from(material).map_err(|error| format!("{name}: {error}"))?;
    Ok((scheme, keys))
}
