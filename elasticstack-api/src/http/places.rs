//! Places of which there are so many at a time, for all together and for each holder.
//!
//! Invariant: a place is free again once it is dropped, and a holder without one takes no memory.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Who has how many.
pub(super) struct Places<K> {
    most: u32,
    most_each: u32,
    held: Arc<Mutex<Held<K>>>,
}

struct Held<K> {
    all: u32,
    each: HashMap<K, u32>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All places are taken.
    All,
    /// The holder has all that it may have.
    Holder,
}

impl<K: Clone + Eq + Hash> Places<K> {
    pub(super) fn new(most: u32, most_each: u32) -> Self {
        Self { most, most_each, held: Arc::new(Mutex::new(Held { all: 0, each: HashMap::new() })) }
    }

    /// The most that one holder may have.
    pub(super) const fn most_each(&self) -> u32 {
        self.most_each
    }

    /// A place, unless they are taken.
    pub(super) fn take(&self, holder: K) -> Result<Place<K>, Full> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.each.get(&holder).copied().unwrap_or_default();
        if own >= self.most_each {
            return Err(Full::Holder);
        }
        if held.all >= self.most {
            return Err(Full::All);
        }
        held.all += 1;
        held.each.insert(holder.clone(), own + 1);
        Ok(Place { held: Arc::clone(&self.held), holder })
    }
}

impl<K> fmt::Debug for Places<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("most", &self.most)
            .field("most_each", &self.most_each)
            .finish_non_exhaustive()
    }
}

/// A place, held until it is dropped.
pub(super) struct Place<K: Eq + Hash> {
    held: Arc<Mutex<Held<K>>>,
    holder: K,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(1);
        if let Some(own) = held.each.get_mut(&self.holder) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.each.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_it_is_dropped() {
        let places = Places::new(3, 2);
        let first = places.take("a").ok().unwrap();
        let _second = places.take("a").ok().unwrap();
        assert_eq!(places.take("a").err(), Some(Full::Holder));
        let third = places.take("b").ok().unwrap();
        assert_eq!(places.take("c").err(), Some(Full::All));
        drop(first);
        assert!(places.take("a").is_ok());
        drop(third);
        assert_eq!(places.held.lock().unwrap().each.len(), 1, "who has none is forgotten");
    }
}
