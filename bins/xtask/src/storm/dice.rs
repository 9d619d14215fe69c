//! The storm's chance: everything that is random in a round comes from one seed, so that a round
//! can be tried again. (The machine's own timing can't be repeated.)

use std::ops::Range;
use std::time::Duration;

/// A small generator of random numbers (`SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    /// Dice that always fall the same way for the same seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Dice of one's own, for a task that throws at times of its own.
    pub(crate) const fn fork(&mut self) -> Self {
        Self::new(self.number())
    }

    const fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `range`.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        let span = range.end.saturating_sub(range.start).max(1);
        range.start + self.number() % span
    }

    /// A time from `range`, in milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Whether an event of the chance 1 in `n` happens.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.within(0..n) == 0
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let span = u64::try_from(of.len()).unwrap_or(u64::MAX);
        usize::try_from(self.within(0..span)).ok().and_then(|at| of.get(at))
    }

    /// Bytes that no compression makes smaller.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_of_one_seed_fall_alike_and_stay_within_their_range() {
        let throws = |seed| {
            let mut dice = Dice::new(seed);
            (0..1_000).map(|_| dice.within(3..9)).collect::<Vec<_>>()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
        assert_eq!(throws(7).iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
        assert!(throws(7).iter().all(|throw| (3..9).contains(throw)));
    }
}
