//! How many of something each holder has. Nothing is remembered of a holder that has none.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

#[derive(Debug)]
pub(crate) struct Tally<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// One of them, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Tallied<K: Eq + Hash> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    holder: K,
}

impl<K: Clone + Eq + Hash> Tally<K> {
    /// One more for a holder; `None` if it has as many as it may.
    pub(crate) fn take(&self, holder: K, max: usize) -> Option<Tallied<K>> {
        let mut counts = self.0.lock();
        let count = counts.get(&holder).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        counts.insert(holder.clone(), count + 1);
        Some(Tallied { counts: Arc::clone(&self.0), holder })
    }
}

impl<K: Eq + Hash> Tally<K> {
    /// How many a holder has.
    pub(crate) fn count<Q: Eq + Hash + ?Sized>(&self, holder: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.0.lock().get(holder).copied().unwrap_or(0)
    }
}

impl<K: Eq + Hash> Drop for Tallied<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_no_more_than_it_may_and_is_forgotten_with_its_last() {
        let tally = Tally::default();
        let (one, two) = (tally.take("a", 2), tally.take("a", 2));
        assert!(one.is_some() && two.is_some() && tally.take("a", 2).is_none());
        assert_eq!((tally.count("a"), tally.count("b")), (2, 0));
        assert!(tally.take("b", 1).is_some(), "another one");
        drop(one);
        assert!(tally.take("a", 2).is_some());
        drop(two);
        assert!(tally.0.lock().is_empty());
    }
}
