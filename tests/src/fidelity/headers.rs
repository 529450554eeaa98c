//! Header lists: generated ones, and what a relay may lawfully make of one.

use std::collections::BTreeMap;

use anyhow::ensure;

use super::wire::{Lines, shown};

/// What the relay and the agent add to a request, or set anew.
pub const ADDED_TO_REQUESTS: [&str; 10] = [
    "host",
    "relay-event-id",
    "relay-endpoint",
    "relay-attempt",
    "relay-received-at",
    "relay-verified",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "traceparent",
];

/// What the relay adds to an answer: its own mark, and the date that RFC 9110, section 6.6.1, asks for.
pub const ADDED_TO_ANSWERS: [&str; 2] = ["relay-event-id", "date"];

/// Generates header lists from a seed.
pub struct Generator(fastrand::Rng);

impl Generator {
    /// A generator whose seed is printed, and taken from `RELAY_FIDELITY_SEED` if that is set.
    ///
    /// # Panics
    /// If the variable is not a number.
    #[must_use]
    pub fn seeded() -> Self {
        let given = std::env::var("RELAY_FIDELITY_SEED").ok();
        let seed =
            given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("RELAY_FIDELITY_SEED is a number"));
        println!("RELAY_FIDELITY_SEED={seed}");
        Self(fastrand::Rng::with_seed(seed))
    }

    /// 1 to `max_lines` lines of at most `max_bytes` together: names repeat, values are empty, long, or any bytes
    /// that a value may have.
    pub fn list(&mut self, max_lines: usize, max_bytes: usize) -> Lines {
        let count = self.0.usize(1..=max_lines);
        let names: Vec<_> = (0..self.0.usize(1..=count)).map(|_| self.name()).collect();
        let (mut lines, mut room) = (Lines::new(), max_bytes);
        while lines.len() < count {
            let name = names[self.0.usize(..names.len())].clone();
            let longest = if self.0.u8(..) == 0 { 8000 } else { 120 };
            let value = self.value(longest);
            let Some(left) = room.checked_sub(name.len() + value.len() + 4) else { break };
            room = left;
            lines.push((name, value));
        }
        lines
    }

    /// `x-` and token characters (RFC 9110, section 5.6.2).
    fn name(&mut self) -> String {
        const TOKEN: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~";
        let len = self.0.usize(1..30);
        let letters = (0..len).map(|_| char::from(TOKEN[self.0.usize(..TOKEN.len())]));
        format!("x-f{}", letters.collect::<String>())
    }

    /// Visible characters, inner spaces and tabs, and obs-text (RFC 9110, section 5.5).
    fn value(&mut self, longest: usize) -> Vec<u8> {
        let len = if self.0.u8(..) < 40 { 0 } else { self.0.usize(1..=longest) };
        let mut value: Vec<u8> = (0..len)
            .map(|_| match self.0.u8(..10) {
                0 => b' ',
                1 => b'\t',
                2 | 3 => self.0.u8(0x80..),
                _ => self.0.u8(0x21..0x7f),
            })
            .collect();
        for end in [0, len.saturating_sub(1)] {
            if let Some(byte @ (b' ' | b'\t')) = value.get_mut(end) {
                *byte = b'.';
            }
        }
        value
    }
}

/// Each name's values in their order.
#[must_use]
pub fn by_name(lines: &Lines) -> BTreeMap<&str, Vec<&[u8]>> {
    let mut names: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for (name, value) in lines {
        names.entry(name).or_default().push(value);
    }
    names
}

/// Whether `seen` is `sent` and, beside it, nothing but `added`.
///
/// # Errors
/// The first name that differs.
pub fn same_but_for(sent: &Lines, seen: &Lines, added: &[&str]) -> anyhow::Result<()> {
    let (sent, mut seen) = (by_name(sent), by_name(seen));
    seen.retain(|name, _| sent.contains_key(name) || !added.contains(name));
    for (name, values) in &sent {
        let got = seen.remove(name).unwrap_or_default();
        let text = |values: &[&[u8]]| values.iter().map(|value| shown(value)).collect::<Vec<_>>();
        ensure!(got == *values, "{name} was {:?} and became {:?}", text(values), text(&got));
    }
    ensure!(seen.is_empty(), "nobody sent {:?}", seen.keys());
    Ok(())
}
