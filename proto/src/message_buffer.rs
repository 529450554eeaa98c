//! Where a session writes its messages.

use bytes::{Bytes, BytesMut};

/// A message that is being written. A driver that writes several pieces of memory to its socket at a time has one that
/// keeps long parts of bodies as they are; in a plain buffer they are copied behind the rest.
pub trait MessageBuffer {
    /// How long the message is by now.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its end, where everything is appended that is no body.
    fn short(&mut self) -> &mut BytesMut;

    /// Appends a part of a body.
    fn push_body(&mut self, bytes: Bytes);
}

impl MessageBuffer for BytesMut {
    fn len(&self) -> usize {
        self.len()
    }

    fn short(&mut self) -> &mut BytesMut {
        self
    }

    fn push_body(&mut self, bytes: Bytes) {
        self.extend_from_slice(&bytes);
    }
}
