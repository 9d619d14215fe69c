//! `bench iscsi`: what our target of iSCSI costs beside tgt, each with a file of its own on the same
//! disk, and with the same durability: each write is on the disk before its status.
//!
//! Both are asked by our own initiator, in turns, and what counts is the processor time of the
//! target alone. Nothing here is asked for in the network's time: it is all on this machine.

mod load;
mod served;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use elasticstack_host::iscsi::initiator::Initiator;

use self::load::{Kind, Load, Measured};
use self::served::{Ours, Served, Tgt};
use crate::table::{Row, Table, Verdict};

/// How long each load runs, and how often; the median counts.
const TIME: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

/// How many sessions are held that do nothing.
const IDLE: usize = 1000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The program `elasticstack-target`
    #[arg(long)]
    target: PathBuf,
    /// Where the two files are; on the disk that is to be measured
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
}

/// Measures, prints, and fails if a goal is missed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("elasticstack-").tempdir_in(&args.directory)?;
    let ours = Ours::start(&args.target, directory.path()).await?;
    let tgt = Tgt::start(directory.path())?;
    let mut rows = Vec::new();
    for (kind, depth, block) in [
        (Kind::Read, 1, 4 << 10),
        (Kind::Read, 32, 4 << 10),
        (Kind::Write, 1, 4 << 10),
        (Kind::Write, 32, 4 << 10),
        (Kind::SequentialRead, 4, 1 << 20),
        (Kind::SequentialWrite, 4, 1 << 20),
    ] {
        let load = Load { kind, depth, block, time: TIME };
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            pairs.push((load.on(ours.served()).await?, load.on(tgt.served()).await?));
        }
        rows.extend(compared(&load, &pairs));
    }
    rows.extend(idle(ours.served()).await?);
    Table(rows).judge()
}

/// What a load costs on both.
fn compared(load: &Load, pairs: &[(Measured, Measured)]) -> Vec<Row> {
    let of = |value: fn(&Measured) -> f64| {
        let ours = median(pairs.iter().map(|(ours, _)| value(ours)));
        (ours, median(pairs.iter().map(|(_, tgt)| value(tgt))))
    };
    let is_deep = load.depth == 32;
    let row = |what: &str, (ours, peers): (f64, f64), goal: Option<(String, Verdict)>| {
        let (goal, verdict) = goal.unwrap_or((String::new(), Verdict::None));
        Row {
            what: format!("{load}, {what}"),
            ours: format!("{ours:.0}"),
            peers: format!("{peers:.0}"),
            compared: format!("{:.2} x", ours / peers),
            goal,
            verdict,
        }
    };
    let rate = of(|measured| measured.rate);
    let cost = of(|measured| measured.per_cpu_second);
    let slowest = of(|measured| measured.p99_us);
    let twice = ("at least 2 x".to_owned(), Verdict::at_least(cost.0 / cost.1, 2.0));
    let no_higher = ("no higher".to_owned(), Verdict::at_most(slowest.0, slowest.1));
    vec![
        row("a second", rate, None),
        row("a CPU-second", cost, is_deep.then_some(twice)),
        row("p99 us", slowest, is_deep.then_some(no_higher)),
    ]
}

/// What many sessions take that do nothing.
async fn idle(ours: &Served) -> Result<Vec<Row>> {
    let busy = ours.peak_mib()?;
    let mut sessions = Vec::new();
    for _ in 0..IDLE {
        sessions.push(Initiator::login_to(&ours.address).await.context("an idle session")?);
    }
    let held = ours.peak_mib()?;
    for session in &sessions {
        elasticstack_core::block::Volume::flush(session).await.context("an idle session")?;
    }
    let goal = |most: u32| format!("at most {most} MiB");
    // Depth 32 by one connection after the other.
    let row = |what, found: f64, most: u32| {
        let verdict = Verdict::at_most(found, f64::from(most));
        Row::alone(what, format!("{found:.1} MiB"), goal(most), verdict)
    };
    Ok(vec![
        row("memory, one connection at most at a time", busy, 17),
        row("memory, 1,000 idle sessions too", held, 1016),
    ])
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
