//! Time that stands still until a test moves it.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::clock::{Clock, Timestamp};

/// A clock advanced by hand. Clones share their time.
#[derive(Debug, Clone)]
pub struct SimClock(Arc<Mutex<Timestamp>>);

impl SimClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(start)))
    }

    /// Moves the time on and tells the new time.
    pub fn advance(&self, duration: Duration) -> Timestamp {
        let mut now = lock(&self.0);
        *now = now.plus(duration);
        *now
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        *lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_a_time_that_moves_only_by_hand() {
        let clock = SimClock::new(Timestamp::from_micros(5));
        let other = clock.clone();
        assert_eq!(clock.advance(Duration::from_micros(7)), Timestamp::from_micros(12));
        assert_eq!(other.now(), Timestamp::from_micros(12));
    }
}
