//! Variable-length integers as in RFC 9000, section 16: 1, 2, 4 or 8 bytes, 62 bits of value, the
//! length in the first byte's two highest bits.
//!
//! Longer encodings than needed are accepted, as the RFC does; ours are always the shortest.

use bytes::BufMut;

/// The largest value that a varint can carry.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// Appends `value`. Values above [`MAX`] are a caller's mistake and are cut to it.
#[inline]
pub(crate) fn put(out: &mut impl BufMut, value: u64) {
    let value = value.min(MAX);
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(value as u16 | 0x4000),
        0x4000..=0x3fff_ffff => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// How many bytes [`put`] would append for `value`.
pub(crate) const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Reads one integer from the front of `input`: its value and its length in bytes, or `None` while
/// `input` does not hold all of it.
#[inline]
pub(crate) fn peek(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    if first < 0x40 {
        return Some((u64::from(first), 1)); // Nearly all of them.
    }
    let len = 1_usize << (first >> 6);
    let bytes = input.get(..len)?;
    let value = bytes[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, len))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a1_decode() {
        let cases: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(peek(bytes), Some((value, bytes.len())));
            assert_eq!(peek(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn each_length_border_survives_a_round_trip() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
            let mut out = BytesMut::new();
            put(&mut out, value);
            assert_eq!(out.len(), len(value));
            assert_eq!(peek(&out), Some((value, out.len())));
        }
    }
}
