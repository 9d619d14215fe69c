//! What customers do all through the storm: servers, drives, images and the churned guests, each in
//! a task of its own, until they are told that it is over.
//!
//! A start or a stop whose answer a kill took away is not repeated: settling says what became of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::customer::{Customer, Plan};
use super::dice::Dice;
use super::guests::{CHURNED, Cast};
use super::imaging::{Acknowledged, Board, Conversion, Copy, Outcome, Sources, TARGET};
use super::ledger::{Answer, Fate, Keeping};
use super::platform::Site;
use std::sync::Arc;

const SCRATCH: u64 = 4 << 20;
/// How long a guest may take to boot among all the others.
const BOOT: Duration = Duration::from_secs(25);

/// What all tasks of a storm share.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) customer: Arc<Customer>,
    pub(crate) cast: Cast,
    pub(crate) sources: Sources,
    pub(crate) board: Board,
    /// Images whose end nobody has seen yet, by the name of their target.
    pub(crate) pending: Mutex<Vec<(String, Copy, Acknowledged)>>,
    /// What became of the others.
    pub(crate) outcomes: Mutex<Vec<Outcome>>,
    over: AtomicBool,
}

impl Stage {
    pub(crate) fn new(site: Site, customer: Arc<Customer>, cast: Cast, sources: Sources) -> Self {
        Self {
            site,
            customer,
            cast,
            sources,
            board: Board::default(),
            pending: Mutex::default(),
            outcomes: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Tells every task to come to its end.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Waits for `pause`, or until it is over.
    pub(crate) async fn pause(&self, pause: Duration) {
        let began = Instant::now();
        while !self.is_over() && began.elapsed() < pause {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes servers without an operating system, starts, stops and destroys them. Leaves the last of
/// them as it is.
pub(crate) async fn servers(stage: Arc<Stage>, mut dice: Dice) -> Result<()> {
    let customer = &stage.customer;
    for number in 0.. {
        let (drive, server) = (format!("scratch-{number}-drive"), format!("scratch-{number}"));
        customer.create_drive(&drive, SCRATCH).await?;
        if !customer.look_for(&drive).await? {
            continue;
        }
        let keeping = if dice.one_in(3) { Keeping::Vanishing } else { Keeping::Persistent };
        let first = if dice.one_in(3) { Fate::Stopped } else { Fate::Active };
        let id = customer.id(&drive)?;
        let plan = Plan { name: &server, drives: &[&id], memory: 128, keeping, first };
        customer.create_server(&plan).await?;
        if customer.look_for(&server).await? {
            for _ in 0..dice.within(0..4) {
                stage.pause(dice.millis(0..1_500)).await;
                if dice.one_in(2) {
                    customer.start(&server).await?;
                } else {
                    customer.stop(&server).await?;
                }
                let gone = customer.ledger().entries.get(&server).is_some_and(|e| e.is_gone());
                if gone {
                    break;
                }
            }
            if stage.is_over() {
                return Ok(());
            }
            destroy(&stage, &server).await?;
        }
        // Busy if its server is not surely gone.
        destroy(&stage, &drive).await?;
        if stage.is_over() {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes drives, grows and destroys them.
pub(crate) async fn drives(stage: Arc<Stage>, mut dice: Dice) -> Result<()> {
    let customer = &stage.customer;
    for number in 0.. {
        let (name, size) = (format!("drive-{number}"), dice.within(1..9) << 22);
        customer.create_drive(&name, size).await?;
        if customer.look_for(&name).await? {
            if dice.one_in(2) {
                customer.grow_drive(&name, size * 2).await?;
            }
            if !dice.one_in(5) {
                destroy(&stage, &name).await?;
            }
        }
        if stage.is_over() {
            return Ok(());
        }
        stage.pause(dice.millis(0..600)).await;
    }
    Ok(())
}

/// Destroys, and insists on an answer: what is left of a storm must find room on the host.
async fn destroy(stage: &Stage, name: &str) -> Result<()> {
    let is_gone = || stage.customer.ledger().entries.get(name).is_none_or(|entry| entry.is_gone());
    while !stage.is_over() && !is_gone() {
        match stage.customer.destroy(name).await? {
            Answer::Unsure => stage.pause(Duration::from_millis(100)).await,
            Answer::Done(()) | Answer::Refused(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Images drives, one after the other, and judges each as soon as its end is seen.
pub(crate) async fn images(stage: Arc<Stage>, mut dice: Dice) -> Result<()> {
    let customer = &stage.customer;
    for number in 0.. {
        if stage.is_over() {
            return Ok(());
        }
        let target = format!("image-{number}");
        customer.create_drive(&target, TARGET).await?;
        if !customer.look_for(&target).await? {
            continue;
        }
        let id = customer.id(&target)?;
        let conversion = *dice.pick(&Conversion::ALL).context("there are conversions")?;
        let copy = Copy::new(&stage.site, &id, conversion, &stage.sources);
        stage.board.put(Some(copy.clone()));
        let source = stage.sources.of(conversion);
        let acknowledged = match customer.image(conversion.call(), &id, source).await? {
            Answer::Done(()) => Acknowledged::Yes,
            Answer::Unsure => Acknowledged::No,
            // The drive is not made yet, because its agent is dead.
            Answer::Refused(_) => {
                destroy(&stage, &target).await?;
                continue;
            }
        };
        let outcome = loop {
            if stage.is_over() {
                let mut pending = stage.pending.lock().unwrap_or_else(PoisonError::into_inner);
                pending.push((target, copy, acknowledged));
                return Ok(());
            }
            match customer.drive(&id).await? {
                Answer::Done(info) if info.value("imaging").is_none() => {
                    break copy.judge(&info, acknowledged)?;
                }
                Answer::Done(_) | Answer::Unsure => {}
                Answer::Refused(kind) => bail!("{target} is lost: {}", kind.code()),
            }
            stage.pause(Duration::from_millis(50)).await;
        };
        stage.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
        stage.board.put(None);
        destroy(&stage, &target).await?;
    }
    Ok(())
}

/// Starts and stops the two servers that share a trail, so that each often finds the other running.
pub(crate) async fn churn(stage: Arc<Stage>, mut dice: Dice) -> Result<()> {
    let customer = &stage.customer;
    let mut before = 0;
    loop {
        // Long enough for one of them to boot, mostly: a guest that wrote nothing proves nothing.
        let (records, began) = (dice.within(1..8), Instant::now());
        while stage.cast.churned.length()? < before + records
            && began.elapsed() < BOOT
            && !stage.is_over()
        {
            stage.pause(Duration::from_millis(100)).await;
        }
        for _ in 0..dice.within(1..4) {
            if stage.is_over() {
                return Ok(());
            }
            let name = *dice.pick(&CHURNED).context("there are two")?;
            if dice.one_in(3) {
                customer.start(name).await?;
            } else {
                customer.stop(name).await?;
            }
        }
        // One of them is to run then: this one, or the one that keeps it from the trail.
        let name = *dice.pick(&CHURNED).context("there are two")?;
        while !stage.is_over() && customer.start(name).await? == Answer::Unsure {
            stage.pause(dice.millis(200..800)).await;
        }
        before = stage.cast.churned.length()?;
    }
}
