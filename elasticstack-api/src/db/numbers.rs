//! Numbers that order what is written and are not given out twice, by however many servers.
//!
//! A number is the microsecond in which it was drawn above eleven random bits, and larger than
//! the one before it in this process. Nothing is asked of the database, where one counter would
//! have every two changes wait for each other, and an older copy of the database gives out no
//! number again. Should two servers draw the same in the same microsecond, a primary key says so
//! and another one is drawn. Nothing reads the time out of a number.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use elasticstack_core::prelude::*;

const RANDOM_BITS: u32 = 11;

/// The next number.
pub(super) fn draw() -> Result<i64> {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let random = getrandom::u32()
        .map_err(|error| Error::internal(format!("drawing the bits of a number: {error}")))?;
    let micros = Timestamp::from(SystemTime::now()).as_micros();
    let drawn = micros.saturating_mul(1 << RANDOM_BITS) | i64::from(random >> (32 - RANDOM_BITS));
    let following = |last: i64| drawn.max(last.saturating_add(1));
    let last =
        LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(following(last)));
    Ok(following(last.unwrap_or_else(|last| last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_and_leave_room_for_all_that_come() {
        let mut last = 0;
        for _ in 0..10_000 {
            let number = draw().unwrap();
            assert!(number > last, "{number} after {last}");
            last = number;
        }
        assert!(last < i64::MAX / 2, "{last}");
    }
}
