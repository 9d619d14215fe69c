//! What a process takes from its machine: memory as its proportional set size (PSS), processor time
//! as the kernel counts it, in ticks.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use elasticstack_core::units::MebiBytes;

/// What a process took while it was watched.
pub(crate) struct Footprint {
    /// The largest PSS seen, in KiB.
    pub(crate) pss_kib: u32,
    /// Processor time as a share of one core.
    pub(crate) share: f64,
}

/// Watches `pid` for so long.
pub(crate) async fn watch(pid: u32, during: Duration) -> Result<Footprint> {
    let (first_pss, first, began) = (pss_kib(pid)?, processor_time(pid)?, Instant::now());
    tokio::time::sleep(during).await;
    let (used, lasted) = (processor_time(pid)?.saturating_sub(first), began.elapsed());
    let share = used.as_secs_f64() / lasted.as_secs_f64();
    Ok(Footprint { pss_kib: first_pss.max(pss_kib(pid)?), share })
}

/// The proportional set size of a process.
pub(crate) fn pss_kib(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_pss(&text).with_context(|| format!("{path} tells no PSS"))
}

/// The proportional set size of a guest's process, without that of the guest's memory, in KiB.
pub(crate) fn pss_beside(pid: u32, memory: MebiBytes) -> Result<u32> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let beside = parse_pss_beside(&text, u64::from(memory.0) << 20);
    beside.with_context(|| format!("{path} tells of no memory of {memory}"))
}

/// Mappings that are as large as the guest's memory are that.
fn parse_pss_beside(smaps: &str, memory: u64) -> Option<u32> {
    let (mut beside, mut is_beside, mut found) = (0, true, false);
    for line in smaps.lines() {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
        if let Some((from, to)) = range {
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).ok());
            is_beside = to?.checked_sub(from?)? < memory;
            found |= !is_beside;
        } else if let Some(pss) = line.strip_prefix("Pss:").filter(|_| is_beside) {
            beside += pss.trim().strip_suffix(" kB")?.parse::<u32>().ok()?;
        }
    }
    found.then_some(beside)
}

fn parse_pss(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The processor time that a process took since it began.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    in_stat(pid, OWN)
}

/// The processor time of those children of a process that have ended.
pub(crate) fn processor_time_of_the_ended(pid: u32) -> Result<Duration> {
    in_stat(pid, CHILDREN)
}

/// Where `/proc/PID/stat` has what a process took itself, user and system: its fields 14 and 15,
/// counted from the end of the name, which may hold anything.
const OWN: usize = 11;
/// The same of its children that ended: the two fields after those.
const CHILDREN: usize = 13;

fn in_stat(pid: u32, from: usize) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = parse_ticks(&text, from);
    let ticks = ticks.with_context(|| format!("{path} tells no processor time"))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second))
}

fn parse_ticks(stat: &str, from: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(from);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_and_system_whatever_the_process_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 8 7 6 130 24 3 2 20 0 5 0 99 1 1";
        assert_eq!(parse_ticks(stat, OWN), Some(154));
        assert_eq!(parse_ticks(stat, CHILDREN), Some(5));
        assert_eq!(parse_ticks("7 (a", OWN), None);
    }

    #[test]
    fn the_pss_is_not_one_of_its_parts() {
        let text = "00-ff ---p 00:00 0 [rollup]\nRss:  900 kB\nPss:   640 kB\nPss_Dirty:  5 kB\n";
        assert_eq!(parse_pss(text), Some(640));
        assert_eq!(parse_pss("Pss_Dirty:  5 kB\n"), None);
    }

    #[test]
    fn the_guests_memory_is_not_what_its_process_takes_beside_it() {
        let text = "1000-3000 rw-p 00000000 00:00 0\nPss:   3 kB\nPss_Dirty:   1 kB\n\
                    10000-20000 rw-p 00000000 00:00 0  [a guest's]\nPss:   60 kB\nVmFlags: rd\n\
                    7ff0-7ff8 r-xp 00000000 00:00 0\nPss:   4 kB\n";
        assert_eq!(parse_pss_beside(text, 0x10000), Some(7));
        assert_eq!(parse_pss_beside(text, 0x20000), None);
    }

    #[tokio::test]
    async fn this_process_has_a_footprint() {
        let seen = watch(std::process::id(), Duration::ZERO).await.unwrap();
        assert!(seen.pss_kib > 0, "{} KiB", seen.pss_kib);
    }
}
