//! Who kills: `kill -9` of the product's programs at seeded moments, and their revival. Counts what
//! was under way at each kill, proved and not guessed: calls that were open and were not answered
//! before it, images with some of their bytes, a guest that ended while its agent was dead.
//!
//! Of two control planes one is now and then left dead for longer than its leases last, while the
//! other goes on with an agent that is killed on, and one stays dead at the end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::customer::Customer;
use super::dice::Dice;
use super::guests::{ENDER, ENDER_RECORDS};
use super::imaging::Copy;
use super::mode::Role;
use super::platform::Platform;
use super::sight;
use super::wait::{GUARD, until};
use super::work::Stage;

/// For how long a storm rages at least.
const STORM: Duration = Duration::from_secs(30);
/// For how long it goes on, at most, until a second writer has come to the churned trail.
const LONG_STORM: Duration = Duration::from_secs(60);
/// For how long a control plane is left dead, in milliseconds: another has its hosts after 10 s.
const ABSENCE: Range<u64> = 11_000..16_000;
/// How many records before its end the ender loses its agent.
const LAST_RECORDS: u64 = 10;

/// The kills, and how many landed where it hurts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Toll {
    pub(crate) kills: u64,
    pub(crate) with_request: u64,
    pub(crate) with_job: u64,
    pub(crate) with_ending: u64,
    /// Control planes that were dead for longer than their leases last while another answered.
    pub(crate) absent: u64,
}

impl Toll {
    pub(crate) fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.with_request += other.with_request;
        self.with_job += other.with_job;
        self.with_ending += other.with_ending;
        self.absent += other.absent;
    }
}

/// Kills and revives one product, and counts.
#[derive(Debug)]
pub(crate) struct Killer<'a> {
    platform: &'a mut Platform,
    customer: &'a Customer,
    dice: Dice,
    pub(crate) toll: Toll,
    /// How many calls had been answered, and by whom, when the product was last revived.
    answered: BTreeMap<Role, u64>,
    absence: Option<Absence>,
}

/// A control plane is left dead.
#[derive(Debug, Clone, Copy)]
struct Absence {
    of: Role,
    until: Instant,
    /// How many calls had been answered when it began.
    answers: u64,
}

impl<'a> Killer<'a> {
    pub(crate) fn new(platform: &'a mut Platform, customer: &'a Customer, dice: Dice) -> Self {
        let (answered, absence) = (BTreeMap::new(), None);
        Self { platform, customer, dice, toll: Toll::default(), answered, absence }
    }

    /// Kills some of the programs at once, and counts what that hit.
    pub(crate) fn strike(&mut self, copy: Option<&Copy>) -> Result<()> {
        self.strike_one_of(copy, self.platform.site.mode.victims()).map(|_| ())
    }

    /// Kills one of these sets and answers it. While a control plane is absent the other is spared:
    /// it would never come to have its hosts.
    fn strike_one_of(
        &mut self,
        copy: Option<&Copy>,
        sets: &[&'static [Role]],
    ) -> Result<&'static [Role]> {
        let doors = self.platform.site.mode.doors();
        let spared = |set: &[Role]| {
            self.absence.is_some() && set.iter().any(|victim| doors.contains(victim))
        };
        let sets: Vec<_> = sets.iter().copied().filter(|set| !spared(set)).collect();
        let victims = *self.dice.pick(&sets).context("no victims")?;
        self.strike_these(copy, victims)?;
        Ok(victims)
    }

    /// Has one of two control planes stay dead for a while, if one was killed and none is absent.
    fn leave_dead(&mut self, victims: &[Role]) {
        let doors = self.platform.site.mode.doors();
        let victim = victims.iter().find(|role| doors.contains(role));
        if let Some(of) = victim.filter(|_| doors.len() > 1)
            && self.absence.is_none()
            && (self.toll.absent == 0 || self.dice.one_in(4))
        {
            let until = Instant::now() + self.dice.millis(ABSENCE);
            let answers = self.customer.calls().answers();
            self.absence = Some(Absence { of: *of, until, answers });
        }
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
        let served = |door: &Role| before.answered.get(door) > self.answered.get(door);
        let concerned = |door: &Role| victims.contains(door) || victims.contains(&Role::Agent);
        let hit = |(call, door): (&u64, &Role)| {
            let unanswered = after.open.contains_key(call) || after.lost.contains(call);
            served(door) && concerned(door) && unanswered
        };
        if before.open.iter().any(hit) {
            self.toll.with_request += 1;
        }
        self.toll.kills += 1;
        Ok(())
    }

    /// Starts all that is dead and not left so.
    pub(crate) fn revive(&mut self) -> Result<()> {
        let calls = self.customer.calls();
        if let Some(absence) = self.absence.take_if(|absence| absence.until <= Instant::now())
            && calls.answers() > absence.answers
        {
            self.toll.absent += 1;
        }
        self.answered = calls.answered;
        self.platform.revive(self.absence.map(|absence| absence.of))
    }

    /// Leaves one of two control planes dead for good; what was begun is the other's from now on.
    fn leave_one(&mut self, copy: Option<&Copy>) -> Result<()> {
        self.platform.revive(None)?;
        match self.platform.site.mode.doors() {
            [one, other] => {
                let victim = *self.dice.pick(&[one, other]).context("there are two")?;
                self.strike_these(copy, std::slice::from_ref(victim))
            }
            _ => Ok(()),
        }
    }

    /// Kills until the storm is over: it has lasted, the ender has ended in the dark, and of two
    /// control planes one was gone for a while. One of the two is dead then.
    pub(crate) async fn rage(&mut self, stage: &Stage) -> Result<()> {
        let mut has_ended = false;
        let began = Instant::now();
        let churned = || stage.cast.churned.has_booted_again() || began.elapsed() > LONG_STORM;
        let has_two = self.platform.site.mode.doors().len() > 1;
        while began.elapsed() < STORM
            || !has_ended
            || !churned()
            || (has_two && self.toll.absent == 0)
        {
            ensure!(began.elapsed() < 2 * GUARD, "the ender never came to its end");
            let pause = self.dice.millis(200..2_200);
            let due = until_due(stage, pause, has_ended).await?;
            if !due {
                if self.dice.one_in(4) {
                    into_an_image(stage, &mut self.dice).await?;
                }
                let victims = self.platform.site.mode.victims();
                let victims = self.strike_one_of(stage.board.copy().as_ref(), victims)?;
                self.leave_dead(victims);
            }
            let pause = self.dice.millis(50..2_500);
            if due || until_due(stage, pause, has_ended).await? {
                let guardians = self.platform.site.mode.guardians();
                self.strike_one_of(stage.board.copy().as_ref(), &guardians)?;
                let unseen = end_in_the_dark(stage, &mut self.dice).await?;
                self.toll.with_ending += u64::from(unseen);
                has_ended = true;
            }
            self.revive()?;
        }
        self.leave_one(stage.board.copy().as_ref())
    }
}

/// Waits for `pause`, or until the ender is about to end, and says whether it is.
async fn until_due(stage: &Stage, pause: Duration, has_ended: bool) -> Result<bool> {
    let began = Instant::now();
    loop {
        if !has_ended && stage.cast.ender.length()? + LAST_RECORDS >= ENDER_RECORDS {
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
/// which its QEMU keeps for whoever asks. Answers whether there was anything to wait for: on a slow
/// machine it may have ended, and its agent have seen that, before the agent was killed.
async fn end_in_the_dark(stage: &Stage, dice: &mut Dice) -> Result<bool> {
    let directory = stage.site.servers.join(stage.customer.id(ENDER)?);
    if sight::processes_under(&directory)?.is_empty() {
        return Ok(false);
    }
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
    Ok(true)
}
