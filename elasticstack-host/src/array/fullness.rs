//! When an array is nearly full. Pure.

use elasticstack_core::block::{Warning, WarningKind};
use elasticstack_core::prelude::*;

use crate::store::Room;

/// Below so many hundredths of its capacity an array is nearly full…
const LOW: u128 = 10;

/// …until it has so many again.
const ENOUGH: u128 = 15;

/// What can still be promised and written.
fn left(room: Room) -> Bytes {
    room.capacity.saturating_sub(room.promised).min(room.free_on_disk)
}

/// Whether an array was nearly full when it was last looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fullness {
    is_low: bool,
}

impl Fullness {
    /// Takes note of its room.
    pub(super) fn look(&mut self, room: Room) {
        let least = if self.is_low { ENOUGH } else { LOW };
        let (left, all) = (u128::from(left(room).get()), u128::from(room.capacity.get()));
        self.is_low = left * 100 < all * least;
    }

    /// What an operator is told of an array that is nearly full. No numbers, which would be another event
    /// each time; `/arrays/info` has them.
    #[must_use]
    pub(super) fn warning(self, room: Room) -> Option<Warning> {
        let over = room.free_on_disk < room.capacity.saturating_sub(room.promised);
        let sentence = if over {
            "its file system is nearly full, and more is promised to drives than it has: guests that write are \
             paused when it is full, so make it larger (`array grow`) or move drives away"
        } else {
            "nearly all of it is promised to drives and snapshots: make it larger (`array grow`), or new drives \
             are placed elsewhere or refused"
        };
        self.is_low.then(|| Warning {
            kind: WarningKind::NearlyFull,
            disk: None,
            sentence: sentence.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_nearly_full_below_a_tenth_until_it_has_some_more() {
        let mut fullness = Fullness::default();
        for (promised, free, is_low) in [
            (0, 1000, false),
            (900, 1000, false),
            (901, 1000, true),
            (900, 1000, true),
            (851, 1000, true),
            (850, 1000, false),
            (900, 1000, false),
            // Over-committed: the disk has less than is left to promise.
            (500, 99, true),
            (500, 149, true),
            (500, 150, false),
            (1000, 0, true),
            // More is promised than it is by now.
            (2000, 500, true),
        ] {
            let bytes = |mib| Bytes::from_mib(mib);
            let room = Room {
                capacity: bytes(1000),
                promised: bytes(promised),
                free_on_disk: bytes(free),
            };
            fullness.look(room);
            let warning = fullness.warning(room);
            assert_eq!(warning.is_some(), is_low, "{promised} {free}");
        }
        let mut fullness = Fullness::default();
        let none = Room { capacity: Bytes::ZERO, promised: Bytes::ZERO, free_on_disk: Bytes::ZERO };
        fullness.look(none);
        assert_eq!(fullness.warning(none), None);
    }
}
