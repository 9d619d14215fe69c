//! Who kills: `kill -9` of the product's programs at seeded moments, and their revival. Counts what
//! was under way at each kill, proved and not guessed: calls that were open and were not answered
//! before it, images with some of their bytes, a guest that ended while its agent was dead.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::customer::Customer;
use super::dice::Dice;
use super::guests::{ENDER, ENDER_RECORDS};
use super::imaging::Copy;
use super::platform::{Platform, Role};
use super::sight;
use super::wait::{GUARD, until};
use super::work::Stage;

/// For how long a storm rages at least.
const STORM: Duration = Duration::from_secs(30);
/// For how long it goes on, at most, until a second writer has come to the churned trail.
const LONG_STORM: Duration = Duration::from_secs(60);
/// How many records before its end the ender loses its agent.
const LAST_RECORDS: u64 = 10;

/// The kills, and how many landed where it hurts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Toll {
    pub(crate) kills: u64,
    pub(crate) with_request: u64,
    pub(crate) with_job: u64,
    pub(crate) with_ending: u64,
}

impl Toll {
    pub(crate) fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.with_request += other.with_request;
        self.with_job += other.with_job;
        self.with_ending += other.with_ending;
    }
}

/// Kills and revives one product, and counts.
#[derive(Debug)]
pub(crate) struct Killer<'a> {
    platform: &'a mut Platform,
    customer: &'a Customer,
    dice: Dice,
    pub(crate) toll: Toll,
    /// How many calls had been answered when the product was last revived.
    answered: u64,
}

impl<'a> Killer<'a> {
    pub(crate) fn new(platform: &'a mut Platform, customer: &'a Customer, dice: Dice) -> Self {
        Self { platform, customer, dice, toll: Toll::default(), answered: 0 }
    }

    /// Kills some of the programs at once, and counts what that hit.
    pub(crate) fn strike(&mut self, copy: Option<&Copy>) -> Result<()> {
        let victims = *self.dice.pick(self.platform.site.mode.victims()).context("no victims")?;
        self.strike_these(copy, victims)
    }

    fn strike_these(&mut self, copy: Option<&Copy>, victims: &[Role]) -> Result<()> {
        let before = self.customer.calls();
        self.platform.kill(victims)?;
        if let Some(copy) = copy
            && copy.is_partial()?
        {
            self.toll.with_job += 1;
        }
        let after = self.customer.calls();
        // A call that knocked at a door not open yet since the last revival was in no flight.
        let served = before.answered > self.answered;
        let hit = |call| after.open.contains(call) || after.lost.contains(call);
        if served && before.open.iter().any(hit) {
            self.toll.with_request += 1;
        }
        self.toll.kills += 1;
        Ok(())
    }

    pub(crate) fn revive(&mut self) -> Result<()> {
        self.answered = self.customer.calls().answered;
        self.platform.revive()
    }

    /// Kills until the storm is over: it has lasted, and the ender has ended in the dark.
    pub(crate) async fn rage(&mut self, stage: &Stage) -> Result<()> {
        let mut in_the_dark = false;
        let began = Instant::now();
        let churned = || stage.cast.churned.has_booted_again() || began.elapsed() > LONG_STORM;
        while began.elapsed() < STORM || !in_the_dark || !churned() {
            ensure!(began.elapsed() < 2 * GUARD, "the ender never came to its end");
            let pause = self.dice.millis(200..2_200);
            let due = until_due(stage, pause, in_the_dark).await?;
            if !due {
                if self.dice.one_in(4) {
                    into_an_image(stage, &mut self.dice).await?;
                }
                self.strike(stage.board.copy().as_ref())?;
            }
            let pause = self.dice.millis(50..2_500);
            if due || until_due(stage, pause, in_the_dark).await? {
                let guardians = self.platform.site.mode.guardians();
                let victims = *self.dice.pick(&guardians).context("no guardians")?;
                self.strike_these(stage.board.copy().as_ref(), victims)?;
                end_in_the_dark(stage, &mut self.dice).await?;
                self.toll.with_ending += 1;
                in_the_dark = true;
            }
            self.revive()?;
        }
        Ok(())
    }
}

/// Waits for `pause`, or until the ender is about to end, and says whether it is.
async fn until_due(stage: &Stage, pause: Duration, in_the_dark: bool) -> Result<bool> {
    let began = Instant::now();
    loop {
        if !in_the_dark && stage.cast.ender.length()? + LAST_RECORDS >= ENDER_RECORDS {
            return Ok(true);
        }
        if began.elapsed() >= pause {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits a while for an image to be begun, and a little more.
async fn into_an_image(stage: &Stage, dice: &mut Dice) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        if let Some(copy) = stage.board.copy()
            && copy.is_begun()
        {
            tokio::time::sleep(dice.millis(0..100)).await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Waits, with the agent dead, until the ender has written its last record and powered itself off,
/// which its QEMU keeps for whoever asks.
async fn end_in_the_dark(stage: &Stage, dice: &mut Dice) -> Result<()> {
    let directory = stage.site.servers.join(stage.customer.id(ENDER)?);
    until("the ender powers itself off", async || {
        let records = stage.cast.ender.length()?;
        if records < ENDER_RECORDS {
            return Ok(Some(format!("it has written {records} of {ENDER_RECORDS} records")));
        }
        let status = sight::guest_status(&directory)?;
        Ok((status != "shutdown").then(|| format!("QEMU says {status:?}")))
    })
    .await?;
    tokio::time::sleep(dice.millis(0..1_500)).await;
    Ok(())
}
