//! The kernel's clock since boot, and the name of that boot.

use std::fs;
use std::io;

use elasticstack_core::clock::Timestamp;
use elasticstack_core::wire::internal::Stamp;
use rustix::time::{ClockId, clock_gettime};

/// The instant that the wall clock calls `now`, as this host sees it.
///
/// # Errors
/// The boot id can't be read.
pub fn stamp(now: Timestamp) -> io::Result<Stamp> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
    let since = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(since.tv_sec).unwrap_or(0);
    let micros = u64::try_from(since.tv_nsec / 1_000).unwrap_or(0);
    let monotonic_us = seconds.saturating_mul(1_000_000).saturating_add(micros);
    Ok(Stamp { wall: now, monotonic_us, boot })
}
