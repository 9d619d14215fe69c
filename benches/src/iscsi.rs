//! `bench iscsi`: what our target of iSCSI costs beside a peer, each with a file of its own on the same
//! disk, and with the same durability: each write is on the disk before its status.
//!
//! Both are asked in turns by our own initiator, by `iscsi-perf`, and by fio through QEMU's, and what
//! counts is the processor time of the target alone. Nothing here is asked for in the network's time:
//! it is all on this machine. Beside tgt there are goals; the kernel's is measured on a machine of the
//! lab, whose processor is software, and judged by none.

mod load;
mod others;
mod served;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use elasticstack_host::iscsi::initiator::Initiator;

use self::load::{Kind, Load, Measured};
use self::others::ByQemu;
use self::served::{Lio, Ours, Peer, Served, Tgt};
use crate::table::{Row, Table, Verdict};

/// How long each load runs, and how often; the median counts.
const TIME: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

const LOADS: [Load; 6] = [
    Load { kind: Kind::Read, depth: 1, block: 4 << 10, time: TIME },
    Load { kind: Kind::Read, depth: 32, block: 4 << 10, time: TIME },
    Load { kind: Kind::Write, depth: 1, block: 4 << 10, time: TIME },
    Load { kind: Kind::Write, depth: 32, block: 4 << 10, time: TIME },
    Load { kind: Kind::SequentialRead, depth: 4, block: 1 << 20, time: TIME },
    Load { kind: Kind::SequentialWrite, depth: 4, block: 1 << 20, time: TIME },
];

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
    /// What ours is compared with
    #[arg(long, value_enum, default_value_t)]
    beside: Beside,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Beside {
    /// Debian's tgt
    #[default]
    Tgt,
    /// The kernel's target
    Lio,
}

/// Measures, prints, and fails if a goal is missed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("elasticstack-").tempdir_in(&args.directory)?;
    let ours = Ours::start(&args.target, directory.path()).await?;
    let peer = match args.beside {
        Beside::Tgt => Peer::Tgt(Tgt::start(directory.path())?),
        Beside::Lio => Peer::Lio(Lio::start(directory.path()).await?),
    };
    let served = [ours.served(), peer.served()];
    let mut rows = Vec::new();
    for by in [By::Own, By::IscsiPerf, By::Fio] {
        rows.extend(by_initiator(by, args.beside, served, directory.path()).await?);
    }
    if args.beside == Beside::Tgt {
        rows.extend(idle(ours.served()).await?);
    }
    println!("beside {}:", peer.served().name);
    Table(rows).judge()
}

/// Who puts a load on the targets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Our own initiator.
    Own,
    /// libiscsi's, which only reads.
    IscsiPerf,
    /// fio, through QEMU's.
    Fio,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "our initiator",
            Self::IscsiPerf => "iscsi-perf",
            Self::Fio => "fio, QEMU",
        })
    }
}

/// Every load by one initiator, on either target in turns.
async fn by_initiator(
    by: By,
    beside: Beside,
    served: [&Served; 2],
    directory: &Path,
) -> Result<Vec<Row>> {
    let mut qemu = Vec::new();
    if by == By::Fio {
        for served in served {
            qemu.push(ByQemu::start(served, &directory.join(format!("{}.nbd", served.name)))?);
        }
    }
    let mut rows = Vec::new();
    for load in LOADS {
        if by == By::IscsiPerf && !matches!(load.kind, Kind::Read | Kind::SequentialRead) {
            continue;
        }
        let mut measured = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (place, (served, measured)) in served.iter().zip(&mut measured).enumerate() {
                // What was written went past the page cache of one and into the other's.
                served.warm()?;
                measured.push(match (by, qemu.get(place)) {
                    (By::Own, _) => load.on(served).await?,
                    (By::IscsiPerf, _) => others::iscsi_perf(&load, served)?,
                    (By::Fio, Some(qemu)) => qemu.fio(&load, served)?,
                    (By::Fio, None) => unreachable!("QEMU is at both"),
                });
            }
        }
        rows.extend(compared(by, beside, &load, &measured));
    }
    Ok(rows)
}

/// What a load costs on both.
fn compared(by: By, beside: Beside, load: &Load, measured: &[Vec<Measured>; 2]) -> Vec<Row> {
    let of = |value: fn(&Measured) -> Option<f64>| {
        let [ours, tgt] = measured.each_ref().map(|all| median(all.iter().filter_map(value)));
        (ours, tgt)
    };
    let is_judged = load.depth == 32 && beside == Beside::Tgt;
    let row = |what: &str, (ours, peers): (f64, f64), goal: Option<(&str, Verdict)>| {
        let (goal, verdict) = goal.filter(|_| is_judged).unwrap_or(("", Verdict::None));
        Row {
            what: format!("{by}: {load}, {what}"),
            ours: format!("{ours:.0}"),
            peers: format!("{peers:.0}"),
            compared: format!("{:.2} x", ours / peers),
            goal: goal.to_owned(),
            verdict,
        }
    };
    let cost = of(|measured| Some(measured.per_cpu_second));
    let p99 = of(|measured| measured.latencies.as_ref().map(|of| of.p99_us));
    let p50 = of(|measured| measured.latencies.as_ref().map(|of| of.p50_us));
    let twice = ("at least 2 x", Verdict::at_least(cost.0 / cost.1, 2.0));
    let mut rows = vec![
        row("a second", of(|measured| Some(measured.rate)), None),
        row("a CPU-second", cost, Some(twice)),
    ];
    if !p99.0.is_nan() {
        rows.push(row("p50 us", p50, None));
        let no_higher = ("no higher", Verdict::at_most(p99.0, p99.1));
        rows.push(row("p99 us", p99, Some(no_higher)));
    }
    rows
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
