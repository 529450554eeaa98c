//! The events that the driver has not taken yet, in order.
//!
//! The body bytes of a stream that nobody has asked for wait in one place, however many frames they came in: a frame of
//! one byte must not cost an event. They keep their order to the other events of their stream, not to those of others.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{event::Event, pieces::Pieces, stream::StreamId};

/// Room for events that an empty queue keeps: a full message of short webhooks brings 66, and room that is given back
/// after each message is made again, step by step, for the next.
const KEPT: usize = 128;

#[derive(Debug)]
enum Item {
    Event(Event),
    Data(StreamId, Pieces),
}

/// Where the newest body bytes of a stream stand in the queue: their number, counted from its first event.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DataPlace(Option<u64>);

#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    items: VecDeque<Item>,
    /// Items that have left.
    taken: u64,
}

impl EventQueue {
    pub(crate) fn push(&mut self, event: Event) {
        self.items.push_back(Item::Event(event));
    }

    /// Adds body bytes of a stream, behind those of the same stream that still wait.
    pub(crate) fn push_data(&mut self, place: &mut DataPlace, id: StreamId, bytes: Bytes) {
        let waiting =
            place.0.and_then(|number| self.items.get_mut(usize::try_from(number.checked_sub(self.taken)?).ok()?));
        if let Some(Item::Data(of, pieces)) = waiting
            && *of == id
        {
            return pieces.push(bytes);
        }
        *place = DataPlace(Some(self.taken + self.items.len() as u64));
        let mut pieces = Pieces::default();
        pieces.push(bytes);
        self.items.push_back(Item::Data(id, pieces));
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        if let Some(Item::Data(id, pieces)) = self.items.front_mut()
            && let Some(bytes) = pieces.pop()
        {
            let id = *id;
            if pieces.is_empty() {
                self.take();
            }
            return Some(Event::Data { id, bytes });
        }
        match self.take() {
            Some(Item::Event(event)) => Some(event),
            Some(Item::Data(..)) | None => None, // Data that waits is never empty.
        }
    }

    fn take(&mut self) -> Option<Item> {
        let item = self.items.pop_front();
        self.taken += u64::from(item.is_some());
        if self.items.is_empty() && self.items.capacity() > KEPT {
            self.items = VecDeque::new();
        }
        item
    }
}
