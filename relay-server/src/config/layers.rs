//! What stands beside or in place of a config file's own rows while a relay runs.

use relay_program::config::{Origin, Problems, Text};

use super::ConfigTexts;
use super::rows::Rows;
use super::secrets::Unseal;

/// Rows from elsewhere, and what they may be without.
pub(crate) struct Layers<'a> {
    /// Rows that stand in place of those of the file.
    pub applied: Option<&'a Rows>,
    /// Whether the secrets of those, or of the file's own, have to be there.
    pub strict: bool,
    /// Rows that were made through the API.
    pub api: &'a Rows,
    /// Rows that are to be made so now. Their secrets have to be there.
    pub new: &'a Rows,
    pub sealed: &'a Unseal<'a>,
}

impl Layers<'_> {
    pub(super) fn over(&self, input: &ConfigTexts) -> Result<Vec<Text>, Problems> {
        let mut texts = input.texts.clone();
        for text in &mut texts {
            (text.strict, text.rows) = (self.strict, self.applied.is_none());
        }
        let api = Origin::Kept("api");
        let applied = self.applied.map(|rows| (Origin::Sent, rows, self.strict));
        let more = applied.into_iter().chain([(api.clone(), self.api, false), (api, self.new, true)]);
        for (origin, rows, strict) in more.filter(|(_, rows, _)| **rows != Rows::default()) {
            texts.push(Text { strict, ..Text::new(origin, rows.text()?) });
        }
        Ok(texts)
    }
}
