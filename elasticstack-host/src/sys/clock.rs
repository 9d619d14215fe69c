//! Instants as this host sees them: the wall clock beside one that no one sets back.

use std::{fs, io};

use elasticstack_core::clock::Timestamp;
use elasticstack_core::wire::internal::Stamp;
use rustix::time::{ClockId, clock_gettime};

/// Stamps the wall time `now` with this boot and the microseconds since it began, those asleep
/// included.
///
/// # Errors
/// If the kernel does not tell its boot id.
pub fn stamp(now: Timestamp) -> io::Result<Stamp> {
    let since_boot = clock_gettime(ClockId::Boottime);
    let micros = i128::from(since_boot.tv_sec) * 1_000_000 + i128::from(since_boot.tv_nsec) / 1_000;
    Ok(Stamp {
        wall: now,
        monotonic_us: u64::try_from(micros).map_err(io::Error::other)?,
        boot: boot_id()?,
    })
}

/// The kernel's id of this boot.
///
/// # Errors
/// If the kernel does not tell it.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_one_boot_never_go_back() {
        let now = Timestamp::from_micros(1);
        let (first, second) = (stamp(now).unwrap(), stamp(now).unwrap());
        assert_eq!((first.wall, first.boot.len()), (now, 36));
        assert_eq!(first.boot, second.boot);
        assert!(first.monotonic_us <= second.monotonic_us);
        assert!(first.monotonic_us > 0);
    }
}
