//! What a guest gets from one of its drives: counted, and held to the drive's limits. Reads and writes
//! count together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use elasticstack_core::hypervisor::{IoCounts, IoLimits};
use tokio::time::{Instant, sleep_until};

/// How far ahead of an even pace a guest may be.
const AHEAD: Duration = Duration::from_millis(100);

/// Counts, and holds up what comes too soon.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pace: Mutex<Pace>,
    read_bytes: AtomicU64,
    read_requests: AtomicU64,
    write_bytes: AtomicU64,
    write_requests: AtomicU64,
}

/// When the next request would come, if all came evenly (the virtual scheduling of GCRA, ITU-T I.371).
#[derive(Debug, Default)]
struct Pace {
    limits: IoLimits,
    requests: Option<Instant>,
    bytes: Option<Instant>,
}

/// Which way a request's bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

impl Meter {
    pub(super) fn new(limits: IoLimits) -> Self {
        let meter = Self::default();
        meter.limit(limits);
        meter
    }

    /// Holds what comes from now on to these limits.
    pub(super) fn limit(&self, limits: IoLimits) {
        *self.pace() = Pace { limits, ..Pace::default() };
    }

    pub(super) fn limits(&self) -> IoLimits {
        self.pace().limits
    }

    /// Waits until a request of so many bytes may be done.
    pub(super) async fn pass(&self, bytes: u64) {
        let begin = self.pace().pass(bytes, Instant::now());
        if let Some(begin) = begin {
            sleep_until(begin).await;
        }
    }

    /// Counts a request that was done.
    pub(super) fn count(&self, way: Way, length: u64) {
        let (requests, bytes) = match way {
            Way::Read => (&self.read_requests, &self.read_bytes),
            Way::Write => (&self.write_requests, &self.write_bytes),
        };
        requests.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(length, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> IoCounts {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        IoCounts {
            read_bytes: count(&self.read_bytes),
            read_requests: count(&self.read_requests),
            write_bytes: count(&self.write_bytes),
            write_requests: count(&self.write_requests),
        }
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// When a request that comes now may begin; `None` if at once.
    fn pass(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let IoLimits { requests: per_second, bytes: bytes_per_second } = self.limits;
        let request = take(&mut self.requests, 1, per_second.map(u64::from), now);
        let bytes = take(&mut self.bytes, bytes, bytes_per_second.map(|limit| limit.get()), now);
        request.max(bytes)
    }
}

/// Takes so much of what there is so much of a second; answers when it is there.
fn take(
    next: &mut Option<Instant>,
    amount: u64,
    per_second: Option<u64>,
    now: Instant,
) -> Option<Instant> {
    let per_second = per_second.filter(|limit| *limit > 0)?;
    let takes = u128::from(amount) * 1_000_000_000 / u128::from(per_second);
    let takes = Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
    let even = next.unwrap_or(now).max(now);
    // Beyond some centuries nothing is late.
    *next = even.checked_add(takes).or(Some(even));
    Some(even).filter(|even| *even > now + AHEAD).map(|even| even - AHEAD)
}

#[cfg(test)]
mod tests {
    use elasticstack_core::units::Bytes;
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_guest_gets_no_more_than_its_drives_limits_however_it_asks() {
        for (limits, bytes, count, at_least) in [
            (IoLimits { requests: Some(100), bytes: None }, 4096, 1_000, 9.8),
            (IoLimits { requests: None, bytes: Some(Bytes::from_mib(1)) }, 1 << 18, 40, 9.6),
            (IoLimits { requests: Some(50), bytes: Some(Bytes::from_mib(100)) }, 1 << 20, 500, 9.8),
            (IoLimits::default(), 1 << 30, 1_000, 0.0),
        ] {
            let (meter, began) = (Meter::new(limits), Instant::now());
            for _ in 0..count {
                meter.pass(bytes).await;
                meter.count(Way::Write, bytes);
            }
            let took = began.elapsed().as_secs_f64();
            assert!(took >= at_least && took <= at_least + 0.5, "{limits:?}: {took}");
            assert_eq!(meter.counts().write_requests, count);
            assert_eq!(meter.counts().write_bytes, count * bytes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn limits_that_change_hold_from_the_next_request_on() {
        let meter = Meter::new(IoLimits { requests: Some(1), bytes: None });
        meter.pass(1).await;
        meter.pass(1).await;
        meter.limit(IoLimits::default());
        let began = Instant::now();
        meter.pass(1).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(meter.limits().is_none());
    }

    proptest! {
        #[test]
        fn no_limits_and_no_length_panic_the_pace(
            requests: Option<u32>,
            bytes in proptest::option::of(0_u64..1 << 60),
            lengths in proptest::collection::vec(any::<u64>(), 0..20),
        ) {
            let bytes = bytes.and_then(|bytes| Bytes::try_from(bytes).ok());
            let mut pace = Pace { limits: IoLimits { requests, bytes }, ..Pace::default() };
            let now = Instant::now();
            let mut last = now;
            for length in lengths {
                let begin = pace.pass(length, now).unwrap_or(now);
                prop_assert!(begin >= last);
                last = begin;
            }
        }
    }
}
