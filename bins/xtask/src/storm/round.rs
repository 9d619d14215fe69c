//! One round, from an empty directory to nothing left: the storm, or only imaging jobs with kills
//! at many of their moments.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::task::JoinSet;

use super::customer::Customer;
use super::dice::Dice;
use super::guests::{Cast, Left, Tiny};
use super::imaging::{Acknowledged, Conversion, Copy, Outcome, Sources, TARGET};
use super::killer::{Killer, Toll};
use super::ledger::Answer;
use super::mode::Mode;
use super::platform::Platform;
use super::wait::until;
use super::work::{self, Stage};
use super::{backup, settle, usage};

/// How many images of each conversion a round of jobs makes, each with kills of its own.
const CRASH_POINTS: usize = 3;

/// What a round was.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) toll: Toll,
    /// Images that ended whole, failed with a reason, or were never begun.
    images: [u64; 3],
    /// What the guests left; nothing in a round of jobs.
    pub(crate) left: Option<Left>,
    /// Made while the product was at work; the last was restored.
    backups: usize,
    calls: u64,
    lost: usize,
    intervals: usize,
    times: Times,
}

/// How long each part took.
#[derive(Debug)]
struct Times {
    since: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Default for Times {
    fn default() -> Self {
        Self { since: Instant::now(), laps: Vec::new() }
    }
}

impl Times {
    fn lap(&mut self, what: &'static str) {
        self.laps.push((what, self.since.elapsed()));
        self.since = Instant::now();
    }
}

impl Report {
    /// Images that failed, as they had to.
    pub(crate) fn failures(&self) -> u64 {
        let [_, failed, _] = self.images;
        failed
    }

    fn count(&mut self, outcome: Outcome) {
        let [whole, failed, untouched] = &mut self.images;
        *match outcome {
            Outcome::Whole => whole,
            Outcome::Failed => failed,
            Outcome::Untouched => untouched,
        } += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Toll { kills, with_request, with_job, with_ending, absent } = self.toll;
        let [whole, failed, untouched] = self.images;
        write!(
            f,
            "{kills} kills: {with_request} with a request in flight, {with_job} with a job, \
             {with_ending} with a guest ending, {absent} control planes long absent; {} calls, {} without answer; images: {whole} whole, \
             {failed} failed, {untouched} never begun; {} backups; ",
            self.calls, self.lost, self.backups
        )?;
        if let Some(Left { steady, boots, starts }) = self.left {
            write!(
                f,
                "guests: {steady} records of the steady, {boots} boots in {starts} starts of the \
                 churned; "
            )?;
        }
        write!(f, "{} intervals tile", self.intervals)?;
        let laps =
            self.times.laps.iter().map(|(what, lap)| format!("{what} {:.0} s", lap.as_secs_f64()));
        write!(f, " ({})", laps.collect::<Vec<_>>().join(", "))
    }
}

/// A storm over guests, servers, drives and images.
pub(crate) async fn storm(mode: Mode, root: &Path, image: &Path, mut dice: Dice) -> Result<Report> {
    let mut times = Times::default();
    let tiny = Tiny::read(image)?;
    let (mut platform, customer) = Platform::start(mode, root, &mut dice, image).await?;
    let cast = Cast::enter(&customer, &platform.site, &tiny).await?;
    let sources = Sources::prepare(&customer, &mut dice).await?;
    let site = platform.site.clone();
    times.lap("setup");
    let stage = Arc::new(Stage::new(site, Arc::clone(&customer), cast, sources));

    let mut tasks = JoinSet::new();
    tasks.spawn(work::servers(Arc::clone(&stage), dice.fork()));
    tasks.spawn(work::drives(Arc::clone(&stage), dice.fork()));
    tasks.spawn(work::images(Arc::clone(&stage), dice.fork()));
    tasks.spawn(work::churn(Arc::clone(&stage), dice.fork()));
    if mode == Mode::Split {
        tasks.spawn(backup::make(Arc::clone(&stage), dice.fork()));
    }
    let mut killer = Killer::new(&mut platform, &customer, dice.fork());
    tokio::select! {
        raged = killer.rage(&stage) => raged?,
        failed = tasks.join_next() => match failed {
            Some(Ok(Err(error))) => return Err(error),
            other => bail!("a task of the storm ended by itself: {other:?}"),
        },
    }
    stage.end();
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| anyhow!("a task of the storm broke: {error}"))??;
    }

    let mut report = Report { toll: killer.toll, ..Report::default() };
    times.lap("storm");
    settle::settle(&mut platform, &customer).await.context("settling")?;
    for outcome in stage.outcomes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        report.count(*outcome);
    }
    let pending =
        std::mem::take(&mut *stage.pending.lock().unwrap_or_else(PoisonError::into_inner));
    for (name, copy, acknowledged) in pending {
        report.count(until_judged(&customer, &customer.id(&name)?, &copy, acknowledged).await?);
    }
    platform.revive(None)?;
    customer.until_served().await?;
    stage.cast.until_growing().await?;
    settle::settle(&mut platform, &customer).await.context("staying settled")?;
    times.lap("settling");
    if mode == Mode::Split {
        report.backups = backup::judge(&stage).await.context("restoring a backup")?;
    }
    settle::destroy_servers(&customer).await?;
    report.left = Some(stage.cast.judge(&mut customer.ledger())?);
    finish(platform, &customer, &tiny, &mut report).await?;
    times.lap("end");
    report.times = times;
    Ok(report)
}

/// Images alone, each killed into at a moment of its own.
pub(crate) async fn crash_points(
    mode: Mode,
    root: &Path,
    image: &Path,
    mut dice: Dice,
) -> Result<Report> {
    let mut times = Times::default();
    let tiny = Tiny::read(image)?;
    let (mut platform, customer) = Platform::start(mode, root, &mut dice, image).await?;
    let sources = Sources::prepare(&customer, &mut dice).await?;
    let mut report = Report::default();
    times.lap("setup");
    for (number, conversion) in Conversion::ALL.repeat(CRASH_POINTS).into_iter().enumerate() {
        let name = format!("target-{number}");
        until("a target is made", async || match customer.create_drive(&name, TARGET).await? {
            Answer::Done(_) => Ok(None),
            answer => Ok(answer.obstacle()),
        })
        .await?;
        let target = customer.id(&name)?;
        let copy = Copy::new(&platform.site, &target, conversion, &sources);
        let asking = tokio::spawn({
            let (customer, target) = (Arc::clone(&customer), target.clone());
            let source = sources.of(conversion).to_owned();
            async move { customer.image(conversion.call(), &target, &source).await }
        });
        let mut killer = Killer::new(&mut platform, &customer, dice.fork());
        for _ in 0..dice.within(1..4) {
            moment(&copy, &mut dice).await?;
            killer.strike(Some(&copy))?;
            tokio::time::sleep(dice.millis(0..800)).await;
            killer.revive()?;
        }
        report.toll.add(killer.toll);
        let acknowledged = match asking.await.context("asking for an image")?? {
            Answer::Done(()) => Acknowledged::Yes,
            Answer::Unsure => Acknowledged::No,
            Answer::Refused(kind) => bail!("{name} was refused: {}", kind.code()),
        };
        report.count(until_judged(&customer, &target, &copy, acknowledged).await?);
    }
    settle::settle(&mut platform, &customer).await.context("settling")?;
    times.lap("jobs");
    finish(platform, &customer, &tiny, &mut report).await?;
    times.lap("end");
    report.times = times;
    Ok(report)
}

/// One of the moments of an image: as it is asked for, in the midst of it, about its end.
async fn moment(copy: &Copy, dice: &mut Dice) -> Result<()> {
    if dice.one_in(3) {
        tokio::time::sleep(dice.millis(0..30)).await;
        return Ok(());
    }
    // Not longer than it may take the revived to begin again.
    for _ in 0..500 {
        if copy.is_begun() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    tokio::time::sleep(dice.millis(0..300)).await;
    Ok(())
}

/// Waits until no work goes on on a target, and judges it.
async fn until_judged(
    customer: &Customer,
    target: &str,
    copy: &Copy,
    acknowledged: Acknowledged,
) -> Result<Outcome> {
    let mut at_rest = None;
    until("an image ends", async || match customer.drive(target).await? {
        Answer::Done(info) => match info.value("imaging") {
            Some(imaging) => Ok(Some(format!("imaging {imaging}"))),
            None => {
                at_rest = Some(info);
                Ok(None)
            }
        },
        answer => Ok(answer.obstacle()),
    })
    .await?;
    copy.judge(&at_rest.context("a target is at rest")?, acknowledged)
}

/// Destroys everything, sees that nothing is left, stops the product and checks its books.
async fn finish(
    mut platform: Platform,
    customer: &Customer,
    tiny: &Tiny,
    report: &mut Report,
) -> Result<()> {
    settle::destroy_servers(customer).await?;
    settle::destroy_drives(customer).await?;
    settle::until_nothing_is_left(&mut platform, customer, &tiny.standard).await?;
    platform.stop().await?;
    let intervals = usage::read(&platform.site.database)?;
    report.intervals = usage::check(&intervals, &customer.ledger(), &tiny.standard)?;
    let calls = customer.calls();
    (report.calls, report.lost) = (calls.sent, calls.lost.len());
    Ok(())
}
