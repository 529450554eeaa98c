//! Settings: what was typed, and what runs.
//!
//! A program's configuration is one or more TOML texts and the flags above them. A [`Section`] is a table of what was
//! typed, with its places in the texts; reading a value from it judges the value, fills in its default and notes what
//! will run, with where that came from. So what [`Shown`] prints is what runs, and a [`Report`] names every mistake
//! at once. Nothing here reads a file, keeps state or knows a key's meaning.
//!
//! Invariant: no text of a mistake repeats a quoted value that its reader did not put there, since that could be a
//! secret in the wrong place.

mod report;
mod section;
mod shown;
mod text;
mod value;

pub use self::{
    report::{Place, Problem, Problems, Report},
    section::{Section, Typed},
    shown::Shown,
    text::{Origin, Text},
    value::{Wrong, duration, show_duration, show_size, size},
};
