//! What a process takes from its machine: memory as its proportional set size (PSS), processor time
//! as the kernel counts it, in ticks.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What a process took while it was watched.
pub(crate) struct Footprint {
    /// The largest PSS seen, in KiB.
    pub(crate) pss_kib: u32,
    /// Processor time as a share of one core.
    pub(crate) share: f64,
}

/// Watches `pid` for so long.
pub(crate) async fn watch(pid: u32, during: Duration) -> Result<Footprint> {
    let (first_pss, first_ticks, began) = (pss_kib(pid)?, ticks(pid)?, Instant::now());
    tokio::time::sleep(during).await;
    let (last_ticks, lasted) = (ticks(pid)?, began.elapsed());
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    let used = f64::from(last_ticks.saturating_sub(first_ticks)) / f64::from(per_second);
    Ok(Footprint { pss_kib: first_pss.max(pss_kib(pid)?), share: used / lasted.as_secs_f64() })
}

fn pss_kib(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_pss(&text).with_context(|| format!("{path} tells no PSS"))
}

fn parse_pss(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn ticks(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_ticks(&text).with_context(|| format!("{path} tells no processor time"))
}

/// Fields 14 and 15, user and system, counted from the end of the name, which may hold anything.
fn parse_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_and_system_whatever_the_process_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 8 7 6 130 24 3 2 20 0 5 0 99 1 1";
        assert_eq!(parse_ticks(stat), Some(154));
        assert_eq!(parse_ticks("7 (a"), None);
    }

    #[test]
    fn the_pss_is_not_one_of_its_parts() {
        let text = "00-ff ---p 00:00 0 [rollup]\nRss:  900 kB\nPss:   640 kB\nPss_Dirty:  5 kB\n";
        assert_eq!(parse_pss(text), Some(640));
        assert_eq!(parse_pss("Pss_Dirty:  5 kB\n"), None);
    }

    #[tokio::test]
    async fn this_process_has_a_footprint() {
        let seen = watch(std::process::id(), Duration::ZERO).await.unwrap();
        assert!(seen.pss_kib > 0, "{} KiB", seen.pss_kib);
    }
}
