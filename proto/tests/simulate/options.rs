//! The command line: ours, and what `cargo test` hands to every test.

use relay_proto::Mutant;

use crate::plan::{Knobs, TROUBLES};

#[derive(Debug)]
pub(crate) struct Options {
    /// How many seeds, and the first.
    pub(crate) seeds: Option<u64>,
    pub(crate) first: u64,
    /// Replay this one.
    pub(crate) seed: Option<u64>,
    pub(crate) knobs: Knobs,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) list: bool,
    ignored: bool,
    exact: bool,
    filters: Vec<String>,
    skips: Vec<String>,
}

impl Options {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seeds: None,
            first: 0,
            seed: None,
            knobs: Knobs::ALL,
            mutant: None,
            list: false,
            ignored: false,
            exact: false,
            filters: Vec::new(),
            skips: Vec::new(),
        };
        while let Some(word) = words.next() {
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) if name.starts_with('-') => (name.to_owned(), Some(value.to_owned())),
                _ => (word, None),
            };
            let mut value = || inline.clone().or_else(|| words.next()).ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--seeds" => options.seeds = Some(number(&value()?)?.max(1)),
                "--first" => options.first = number(&value()?)?,
                "--seed" => options.seed = Some(number(&value()?)?),
                "--exchanges" => options.knobs.exchanges = bits(&value()?)?,
                "--happenings" => options.knobs.happenings = bits(&value()?)?,
                "--without" => options.knobs.troubles = without(&value()?)?,
                "--mutant" => options.mutant = Some(mutant(&value()?)?),
                "--list" => options.list = true,
                "--ignored" => options.ignored = true,
                "--exact" => options.exact = true,
                "--skip" => options.skips.push(value()?),
                // libtest's, which mean nothing here.
                "--test-threads" | "--format" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => drop(value()?),
                _ if name.starts_with('-') => {}
                _ => options.filters.push(name),
            }
        }
        Ok(options)
    }

    /// Whether a check is asked for. `--seeds` asks for histories alone.
    pub(crate) fn wants(&self, check: &str) -> bool {
        let fits = |filter: &String| if self.exact { check == filter } else { check.contains(filter.as_str()) };
        let asked = if self.filters.is_empty() {
            self.seeds.is_none() || check == "histories"
        } else {
            self.filters.iter().any(fits)
        };
        asked && !self.skips.iter().any(fits) && !self.ignored
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn bits(list: &str) -> Result<u64, String> {
    let list = list.split(',').filter(|part| !part.is_empty());
    list.map(|part| number(part).map(|bit| 1 << bit.min(63))).try_fold(0, |all, bit| Ok(all | bit?))
}

fn without(list: &str) -> Result<u32, String> {
    list.split(',').filter(|part| !part.is_empty()).try_fold(u32::MAX, |kept, name| {
        let place = TROUBLES.iter().position(|trouble| *trouble == name);
        let place = place.ok_or_else(|| format!("{name:?} is none of {}", TROUBLES.join(", ")))?;
        Ok(kept & !(1 << place))
    })
}

fn mutant(name: &str) -> Result<Mutant, String> {
    let found = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    found.ok_or_else(|| format!("there is no mutant {name}; there are {:?}", Mutant::ALL))
}
