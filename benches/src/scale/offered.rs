//! A load that was offered to a rig, and what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::load::Kind;
use super::rig::{Rig, Spent};

/// How often the API server's memory is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What came of it.
pub(super) struct Offered {
    pub(super) rate: u32,
    /// Times of calls in milliseconds, from the least to the most.
    times: BTreeMap<Kind, Vec<f64>>,
    pub(super) failed: u64,
    /// Calls that were not made any more, because the server fell behind.
    unmade: u64,
    pub(super) why: Option<String>,
    pub(super) took: Duration,
    pub(super) generator: Duration,
    pub(super) spent: Spent,
    /// What all other processes of this machine took meanwhile.
    pub(super) others: Duration,
    /// The most memory of the API server that was seen.
    pub(super) memory_mib: f64,
}

impl Offered {
    /// Offers `rate` calls a second, and waits for their answers.
    pub(super) async fn to(rig: &Rig, rate: u32, seconds: u32, only: Option<Kind>) -> Result<Self> {
        let mut command = rig.load()?;
        command.args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()]);
        if let Some(kind) = only.and_then(|kind| kind.to_possible_value()) {
            command.args(["--only", kind.get_name()]);
        }
        let (meter, machine) = (rig.meter()?, machine()?);
        let mut command = tokio::process::Command::from(command);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut output = child.stdout.take().context("a load without output")?;
        let mut text = String::new();
        let mut memory_mib = 0.0_f64;
        let mut looks = tokio::time::interval(LOOK);
        {
            let mut read = std::pin::pin!(output.read_to_string(&mut text));
            loop {
                tokio::select! {
                    done = &mut read => { done?; break; }
                    _ = looks.tick() => memory_mib = memory_mib.max(rig.memory_mib()?),
                };
            }
        }
        child.wait().await?;
        let spent = meter.read()?;
        let result: Value = serde_json::from_str(&text).context("a load without a result")?;
        let number = |key: &str| result.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX);
        let micros = |key: &str| Duration::from_micros(number(key));
        let generator = micros("cpu_us");
        let ours = spent.both() + spent.fleet + generator;
        Ok(Self {
            rate,
            times: times(&result)?,
            failed: number("failed"),
            unmade: number("unmade"),
            why: result.get("why").and_then(Value::as_str).map(str::to_owned),
            took: micros("took_us"),
            generator,
            spent,
            others: self::machine()?.saturating_sub(machine).saturating_sub(ours),
            memory_mib,
        })
    }

    /// How many calls were answered.
    pub(super) fn calls(&self) -> f64 {
        self.times.values().map(|times| count(times)).sum()
    }

    /// Whether every call was made and answered.
    pub(super) fn is_whole(&self) -> bool {
        self.failed == 0 && self.unmade == 0
    }

    /// Calls a second that were answered.
    pub(super) fn achieved(&self) -> f64 {
        self.calls() / self.took.as_secs_f64()
    }

    /// The time that so many of a hundred calls of these kinds do not exceed, in milliseconds.
    pub(super) fn percentile(&self, percent: usize, of: impl Fn(Kind) -> bool) -> f64 {
        let times = self.times.iter().filter(|(kind, _)| of(**kind)).flat_map(|(_, times)| times);
        let mut times: Vec<f64> = times.copied().collect();
        times.sort_by(f64::total_cmp);
        let last = (times.len() * percent).div_ceil(100).wrapping_sub(1);
        times.get(last).copied().unwrap_or(f64::NAN)
    }

    /// Prints what does not go in the table.
    pub(super) fn tell(&self) {
        let share = |time: Duration| time.as_secs_f64() / self.took.as_secs_f64() * 100.0;
        println!(
            "  {} calls/s offered, {:.0} answered; {} failed, {} given up{}",
            self.rate,
            self.achieved(),
            self.failed,
            self.unmade,
            self.why.as_ref().map(|why| format!(", the first: {why}")).unwrap_or_default(),
        );
        for kind in Kind::ALL {
            let of = |other| other == kind;
            if self.times.contains_key(&kind) {
                println!(
                    "    {:<7} p50 {:>8.2} ms   p99 {:>8.2} ms   most {:>8.2} ms",
                    kind.as_str(),
                    self.percentile(50, of),
                    self.percentile(99, of),
                    self.percentile(100, of),
                );
            }
        }
        println!(
            "    in percent of a core: server {:.0}, database {:.0}, fleet {:.0}, generator {:.0}, \
             others on this machine {:.0}",
            share(self.spent.server),
            share(self.spent.database),
            share(self.spent.fleet),
            share(self.generator),
            share(self.others),
        );
    }
}

fn times(result: &Value) -> Result<BTreeMap<Kind, Vec<f64>>> {
    let kinds = result.get("kinds").and_then(Value::as_object).context("a load without times")?;
    let mut all = BTreeMap::new();
    for kind in Kind::ALL {
        if let Some(times) = kinds.get(kind.as_str()).and_then(Value::as_array) {
            let ms = times.iter().filter_map(Value::as_f64).map(|micros| micros / 1e3);
            all.insert(kind, ms.collect());
        }
    }
    Ok(all)
}

fn count(times: &[f64]) -> f64 {
    u32::try_from(times.len()).map_or(f64::NAN, f64::from)
}

/// The processor time that this machine has given away since it began, but for idling.
fn machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = busy(&text).context("/proc/stat tells no processor time")?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second))
}

/// User, nice and system of the line for all processors.
fn busy(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()? + next()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_machine_gave_away_is_not_what_it_idled() {
        assert_eq!(busy("cpu  10 2 3 9000 50 0 1 0\ncpu0 1 1 1"), Some(15));
        assert_eq!(busy("intr 1"), None);
    }

    #[test]
    fn times_of_a_load_are_read_by_kind() {
        let result = json!({ "kinds": { "page": [1_000, 2_500], "power": [9_000] } });
        let times = times(&result).unwrap();
        assert_eq!(times[&Kind::Page], [1.0, 2.5]);
        assert_eq!(times[&Kind::Power], [9.0]);
        assert!(!times.contains_key(&Kind::Host));
    }
}
