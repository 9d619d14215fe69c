//! `cargo xtask storm`: `kill -9` of the product's programs at any instant, judged from outside.
//!
//! Owns which rounds are run and what they must have hit in all; a round is `round`'s. It is judged
//! by the bytes in the drives' files, by `/proc`, by the public API and by the usage in the control
//! plane's database, never by what the product says of itself in a log.
//!
//! A round that fails names its seed and leaves its directory; nothing of it runs any more then.

mod backup;
mod customer;
mod database;
mod dice;
mod enrol;
mod guests;
mod imaging;
mod killer;
mod ledger;
mod mode;
mod platform;
mod round;
mod settle;
mod sight;
mod trail;
mod usage;
mod wait;
mod work;

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::{image, tools};

use dice::Dice;
use killer::Toll;
use mode::Mode;
use round::Report;

/// How many storms the tests run.
const ROUNDS: u64 = 5;
/// How many storms the nightly tests run.
const NIGHTLY: u64 = 50;
/// There is a round of jobs for so many storms,
const STORMS_TO_JOBS: u64 = 5;
/// and at least so many.
const JOBS: u64 = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many storms
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: u64,
    /// Where chance begins; by default it is the time, and printed
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Which of the product's forms the storm rages over
    #[arg(long, value_enum, default_value_t = Over::Both)]
    mode: Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Over {
    /// Control plane and agent as separate programs: one on SQLite, or two on PostgreSQL
    Split,
    /// All in one process
    Allinone,
    /// All of these in turn
    Both,
}

impl Over {
    const fn modes(self) -> &'static [Mode] {
        match self {
            Self::Split => &[Mode::Several, Mode::Split],
            Self::Allinone => &[Mode::AllInOne],
            Self::Both => &[Mode::Several, Mode::AllInOne, Mode::Split],
        }
    }
}

/// What happens in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Storm,
    Jobs,
}

/// The stage of the tests.
pub(crate) fn daily() -> Result<()> {
    run(&Args { rounds: ROUNDS, seed: None, mode: Over::Both })
}

/// The stage of the nightly tests, in place of [`daily`].
pub(crate) fn nightly() -> Result<()> {
    run(&Args { rounds: NIGHTLY, seed: None, mode: Over::Both })
}

/// Runs the rounds, and stops at the first that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds was given 0: give at least 1");
    tools::ensure_packages()?;
    tools::ensure_databases()?;
    let image = image::run(image::Args::default())?;
    args.mode.modes().iter().try_for_each(|mode| mode.build())?;
    let seed = args.seed.unwrap_or_else(time);
    println!("seed {seed}: `--seed {seed}` throws the same dice");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let began = Instant::now();
    let mut toll = Toll::default();
    let (mut dice, mut boots, mut failures) = (Dice::new(seed), 0, 0);
    let rounds = rounds(args.rounds, args.mode.modes());
    let has_two = rounds.contains(&(What::Storm, Mode::Several));
    for (at, (what, mode)) in rounds.iter().enumerate() {
        let title = format!("round {} of {}, {what:?} {}", at + 1, rounds.len(), mode.name());
        let outcome = runtime.block_on(one(*what, *mode, &image, dice.fork()));
        let report = outcome.with_context(|| format!("{title}, with --seed {seed}"))?;
        println!("{title}: {report}");
        toll.add(report.toll);
        failures += report.failures();
        boots += report.left.map_or(0, |left| left.boots);
    }
    let Toll { kills, with_request, with_job, with_ending, absent } = toll;
    println!(
        "in all: {kills} kills: {with_request} with a request in flight, {with_job} with a job in \
         flight, {with_ending} with a guest ending while its agent was dead; {absent} control \
         planes long absent; {boots} boots of churned guests ({:.0} s)",
        began.elapsed().as_secs_f64()
    );
    for (what, hits, must) in [
        ("a request in flight", with_request, true),
        ("a job in flight", with_job, true),
        ("a guest ending while its agent was dead", with_ending, true),
        ("a control plane that goes on alone", absent, has_two),
        ("a job that had to fail", failures, true),
        ("a churned guest that booted", boots, true),
    ] {
        ensure!(hits > 0 || !must, "the storm proved nothing of {what}: none was hit");
    }
    Ok(())
}

/// All rounds in their order, the modes in turn: storms from the first on, jobs from the last.
fn rounds(storms: u64, modes: &'static [Mode]) -> Vec<(What, Mode)> {
    let jobs = (storms / STORMS_TO_JOBS).max(JOBS);
    let storms = (0..storms).zip(modes.iter().cycle()).map(|(_, mode)| (What::Storm, *mode));
    let jobs = (0..jobs).zip(modes.iter().rev().cycle()).map(|(_, mode)| (What::Jobs, *mode));
    storms.chain(jobs).collect()
}

/// One round in a directory of its own, which stays if the round fails.
async fn one(what: What, mode: Mode, image: &Path, dice: Dice) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("elasticstack-storm-").tempdir()?;
    let root = directory.path();
    let round = async {
        match what {
            What::Storm => round::storm(mode, root, image, dice).await,
            What::Jobs => round::crash_points(mode, root, image, dice).await,
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = round => outcome,
        // Whatever runs ends as the round is dropped.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    outcome.map_err(|error| {
        let kept = directory.keep();
        error.context(format!("everything is kept in {}", kept.display()))
    })
}

fn time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storms_and_jobs_come_in_every_mode_in_turn() {
        let all = rounds(5, Over::Both.modes());
        let of = |what| {
            all.iter().filter(|round| round.0 == what).map(|r| r.1.name()).collect::<Vec<_>>()
        };
        assert_eq!(of(What::Storm), ["several", "allinone", "split", "several", "allinone"]);
        assert_eq!(of(What::Jobs), ["split", "allinone"]);
        let nights = rounds(50, Over::Both.modes());
        assert_eq!(nights.len(), 60);
        assert!(nights.contains(&(What::Jobs, Mode::Several)));
    }
}
