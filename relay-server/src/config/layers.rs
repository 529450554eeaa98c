//! What stands beside or in place of a config file's own rows while a relay runs.

use super::Input;
use super::error::ConfigErrors;
use super::pieces::{Origin, Piece, Pieces};
use super::rows::Rows;
use super::secret_ref::Unseal;

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
    /// Opens secrets of both.
    pub sealed: &'a Unseal<'a>,
}

impl Layers<'_> {
    pub(super) fn over(&self, input: &Input) -> Result<Pieces, ConfigErrors> {
        let mut pieces = input.pieces.clone();
        for piece in &mut pieces {
            (piece.strict, piece.rows) = (self.strict, self.applied.is_none());
        }
        let applied = self.applied.map(|rows| (Origin::Sent, rows, self.strict));
        let more = applied.into_iter().chain([(Origin::Api, self.api, false), (Origin::Api, self.new, true)]);
        for (origin, rows, strict) in more.filter(|(_, rows, _)| **rows != Rows::default()) {
            pieces.push(Piece { origin, text: rows.text()?, strict, rows: true });
        }
        Ok(Pieces::new(pieces))
    }
}
