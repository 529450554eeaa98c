//! Postcard, written at the end of bytes that are there.
//!
//! Its own flavour for that takes one byte at a time, of texts and bodies too; this one copies what is in one piece.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

struct Appended(Vec<u8>);

impl Flavor for Appended {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Writes behind what is there. What the store writes always has a form.
pub(super) fn append(value: &impl Serialize, bytes: Vec<u8>) -> Vec<u8> {
    postcard::serialize_with_flavor(value, Appended(bytes)).expect("texts, bytes and numbers always have a form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_postcard_behind_what_was_there() {
        let value = (7_u64 << 40, "text", Some([1_u8, 2, 3]), vec![vec![0_u8; 300]]);
        let alone = postcard::to_stdvec(&value).expect("a form");
        assert_eq!(append(&value, vec![9]), [&[9], &alone[..]].concat());
    }
}
