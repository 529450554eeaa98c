//! Memory in pages, which are filled one after another and freed as wholes.
//!
//! A record that is written here costs one copy to where the last one ended: no allocation, and later no free of
//! memory that nobody has touched for long. Invariants: a page is freed with its last record; what is counted is what
//! the pages take, whatever of it is in use.

use std::collections::VecDeque;

/// The usual page, in bytes.
const PAGE_BYTES: usize = 256 * 1024;

/// The budget is so many pages at least.
const MIN_PAGES: usize = 64;

pub(super) struct Pages {
    pages: VecDeque<Page>,
    /// The number of the first page that is there.
    first: u64,
    page_bytes: usize,
    taken: usize,
    /// A page that was freed a moment ago.
    spare: Option<Vec<u8>>,
}

#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    records: usize,
}

/// Where a record stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    page: u64,
    at: u32,
    len: u32,
}

impl Pages {
    pub(super) fn new(budget: usize) -> Self {
        let page_bytes = (budget / MIN_PAGES).clamp(1024, PAGE_BYTES);
        Self { pages: VecDeque::new(), first: 0, page_bytes, taken: 0, spare: None }
    }

    /// Keeps what is written, `len` bytes. A record that would fill half a page gets one of its size.
    pub(super) fn put(&mut self, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Place {
        let has_room = self.pages.back().is_some_and(|page| page.bytes.capacity() - page.bytes.len() >= len);
        if !has_room {
            if self.pages.back().is_some_and(|page| page.records == 0) {
                // Nothing will ever free it.
                self.taken -= self.pages.pop_back().map_or(0, |page| page.bytes.capacity());
            }
            let bytes = if len > self.page_bytes / 2 {
                Vec::with_capacity(len)
            } else {
                self.spare.take().unwrap_or_else(|| Vec::with_capacity(self.page_bytes))
            };
            self.taken += bytes.capacity();
            self.pages.push_back(Page { bytes, records: 0 });
        }
        let page = self.first + self.pages.len() as u64 - 1;
        let Some(last) = self.pages.back_mut() else { return Place { page, at: 0, len: 0 } };
        let at = last.bytes.len();
        write(&mut last.bytes);
        last.records += 1;
        let part = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Place { page, at: part(at), len: part(last.bytes.len() - at) }
    }

    pub(super) fn get(&self, place: Place) -> &[u8] {
        let page = self.index(place).and_then(|index| self.pages.get(index));
        let at = place.at as usize;
        page.and_then(|page| page.bytes.get(at..at + place.len as usize)).unwrap_or_default()
    }

    pub(super) fn free(&mut self, place: Place) {
        let Some(index) = self.index(place) else { return };
        let is_last = index + 1 == self.pages.len();
        let Some(page) = self.pages.get_mut(index) else { return };
        page.records -= 1;
        if page.records > 0 {
            return;
        }
        if is_last {
            page.bytes.clear();
            return;
        }
        let bytes = std::mem::take(&mut page.bytes);
        self.taken -= bytes.capacity();
        if bytes.capacity() == self.page_bytes {
            self.spare = Some(bytes).map(|mut bytes| {
                bytes.clear();
                bytes
            });
        }
        while self.pages.len() > 1 && self.pages.front().is_some_and(|page| page.records == 0) {
            self.pages.pop_front();
            self.first += 1;
        }
    }

    /// What they take, the spare one apart.
    pub(super) const fn bytes(&self) -> usize {
        self.taken
    }

    fn index(&self, place: Place) -> Option<usize> {
        usize::try_from(place.page.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_until_it_is_freed_and_a_page_goes_with_its_last_record() {
        let mut pages = Pages::new(64 * 1024);
        let put = |pages: &mut Pages, len: usize| pages.put(len, |page| page.resize(page.len() + len, len as u8));
        let places: Vec<_> = (1..=40).map(|len| put(&mut pages, len * 10)).collect();
        for (place, len) in places.iter().zip(1_usize..) {
            assert_eq!(pages.get(*place), vec![(len * 10) as u8; len * 10]);
        }
        let large = put(&mut pages, 5000);
        assert!((13_200..21_400).contains(&pages.bytes()), "{} for 13,200", pages.bytes());
        for place in places.iter().rev().skip(1) {
            pages.free(*place);
        }
        assert_eq!(pages.get(large).len(), 5000);
        assert_eq!(pages.get(places[39]).len(), 400, "the last one is still there");
        pages.free(places[39]);
        assert_eq!((pages.pages.len(), pages.bytes()), (1, 5000));
        pages.free(large);
        let again = put(&mut pages, 4000);
        assert_eq!((pages.get(again).len(), pages.bytes()), (4000, 5000), "the last page is used again");
        let more = put(&mut pages, 10);
        assert_eq!(pages.bytes(), 5000, "also for more");
        pages.free(again);
        pages.free(more);
        let larger = put(&mut pages, 6000);
        assert_eq!(
            (pages.get(larger).len(), pages.pages.len(), pages.bytes()),
            (6000, 1, 6000),
            "an empty one is in nobody's way"
        );
    }
}
