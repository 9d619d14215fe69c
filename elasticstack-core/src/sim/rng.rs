//! Randomness that can be had again: everything follows from the seed.

use uuid::Uuid;

use crate::id::TypedId;

/// A source of numbers that looks random (SplitMix64). Never for secrets. When a test panics
/// while it holds one, the seed is printed to standard error.
#[derive(Debug)]
pub struct SimRng {
    seed: u64,
    state: u64,
}

impl SimRng {
    /// The source that follows from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if the limit is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number().checked_rem(limit).unwrap_or(0)
    }

    /// True once in `n` times on average; never for 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// A new id.
    pub fn id<K>(&mut self) -> TypedId<K> {
        TypedId::from_uuid(Uuid::from_u64_pair(self.number(), self.number()))
    }
}

impl Drop for SimRng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation's seed was {}", self.seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_other_seeds_others() {
        let numbers = |seed| {
            let mut rng = SimRng::new(seed);
            std::array::from_fn::<u64, 8, _>(|_| rng.number())
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }
}
