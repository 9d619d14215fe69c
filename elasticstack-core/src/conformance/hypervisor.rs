//! The hypervisor kit: its fixture, and the checks of [`Hypervisor`] and
//! [`Console`](crate::hypervisor::Console). Those of counters are in [`super::counters`].
//!
//! Nothing here assumes that an effect is instant: a check looks, and pauses through the fixture,
//! until it sees what it waits for or has looked [`LOOKS`] times.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;

use super::{Outcome, Violation, refused, require};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Run;
use crate::hypervisor::{Device, DriveSlot, EndCause, Hypervisor, Observed, Phase, ServerSpec};
use crate::id::ServerId;
use crate::sim;

/// How often a check looks before it gives up.
pub(super) const LOOKS: u32 = 1_200;

/// What a fixture can make a guest do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestAct {
    /// Power itself off.
    PowerOff,
    /// Crash, and say so on its panic device.
    Panic,
    /// Stop answering, whatever runs it included.
    Hang,
    /// From now on not let go of drives that are unplugged.
    HoldOn,
    /// Read from its first drive.
    Read,
}

/// What the machine under a hypervisor shows, looked up without asking the hypervisor.
#[async_trait]
pub trait MachineView: Send + Sync {
    /// What exists of a server on the machine: processes
    /// with their start time, files, claims. Two starts of a guest never look the same.
    ///
    /// # Errors
    /// Whatever kept the fixture from looking.
    async fn traces(&self, server: ServerId) -> Result<Vec<String>>;

    /// Where drives are plugged in to a running guest.
    ///
    /// # Errors
    /// Whatever kept the fixture from looking.
    async fn plugged(&self, _server: ServerId) -> Result<Vec<Device>> {
        Ok(Vec::new())
    }
}

/// How the kit handles a hypervisor under test. Each check gets a fixture of its own; dropping it
/// ends what still runs and cleans up.
#[async_trait]
pub trait HypervisorFixture: MachineView {
    /// Starts the implementation: with no guests at first, later with what the latest crash left.
    ///
    /// # Errors
    /// Whatever kept it from starting.
    async fn start(&self) -> Result<Arc<dyn Hypervisor>>;

    /// Ends the implementation, but not its guests, as a kill of its process does. Nobody holds it
    /// any more.
    ///
    /// # Errors
    /// Whatever kept the fixture from doing so.
    async fn crash(&self, hypervisor: Arc<dyn Hypervisor>) -> Result<()>;

    /// A small server whose guest greets on its serial port and then runs until it is told
    /// otherwise. Equal numbers are the same server.
    fn server(&self, number: u8) -> ServerSpec;

    /// A server that can't be started.
    fn broken(&self) -> ServerSpec;

    /// A drive for a place where drives come and go, which no [`HypervisorFixture::server`] has;
    /// `None` if there is no such place.
    fn spare(&self) -> Option<DriveSlot> {
        None
    }

    /// What a guest writes to its first serial port soon after it starts.
    fn greeting(&self) -> &str;

    /// Whether [`HypervisorFixture::act`] can do this here.
    fn can(&self, _act: GuestAct) -> bool {
        true
    }

    /// Makes a running guest do something. Works while the implementation is down, too.
    ///
    /// # Errors
    /// Whatever kept it from doing so.
    async fn act(&self, server: ServerId, act: GuestAct) -> Result<()>;

    /// Lets a moment pass between two of at most 1,200 looks. With 100 ms, as a real backend
    /// should take, a check gives up after two minutes; a simulated one need not wait.
    async fn pause(&self) {}

    /// Runs a check to its end. A backend that needs a runtime runs it there.
    ///
    /// # Errors
    /// The check's own.
    fn block_on(
        &self,
        check: BoxFuture<'_, Result<Outcome, Violation>>,
    ) -> Result<Outcome, Violation> {
        sim::block_on(check)
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hypervisor_checks {
    ($then:ident, $($arguments:tt)*) => {
        $crate::$then! {
            $($arguments)*;
            hypervisor:
                hv_1_ensure_returns_with_the_guest_running,
                hv_1_repeating_ensure_starts_nothing,
                hv_2_an_ended_run_is_stale,
                hv_3_a_newer_run_waits_for_the_older_ones_removal,
                hv_4_a_guests_own_ending_is_kept,
                hv_4_an_ending_while_the_process_was_down_is_kept,
                hv_4_a_panic_is_told_apart,
                hv_5_remove_leaves_nothing_behind,
                hv_5_removing_nothing_succeeds,
                hv_6_observe_tells_every_run,
                hv_6_a_silent_guest_is_left_alone,
                hv_7_every_change_has_an_event,
                hv_8_a_failed_ensure_leaves_nothing_behind,
                hv_9_drives_come_and_go_while_the_guest_runs,
                hv_9_a_drive_that_the_guest_holds_on_to_stays,
                co_1_the_serial_log_outlives_process_and_run;
            counters:
                ct_1_what_is_plugged_in_is_counted_and_nothing_else,
                ct_2_counts_begin_at_zero_and_only_grow_over_a_crash_too;
        }
    };
}

async fn find(hypervisor: &dyn Hypervisor, server: ServerId) -> Result<Option<Observed>> {
    Ok(hypervisor.observe().await?.into_iter().find(|observed| observed.server == server))
}

/// Waits until this is what `observe` tells of the server.
async fn reaches(
    fixture: &dyn HypervisorFixture,
    hypervisor: &dyn Hypervisor,
    (server, run, phase): (ServerId, Run, Phase),
) -> Result<(), Violation> {
    let wanted = Some(Observed { server, run, phase });
    let mut found = None;
    for _ in 0..LOOKS {
        found = find(hypervisor, server).await?;
        if found == wanted {
            return Ok(());
        }
        fixture.pause().await;
    }
    Err(Violation::new(format!("observe should come to tell {wanted:?} and tells {found:?}")))
}

/// Starts run 1 of the kit's server of this number.
pub(super) async fn started(
    fixture: &dyn HypervisorFixture,
    hypervisor: &dyn Hypervisor,
    number: u8,
) -> Result<ServerSpec, Violation> {
    let spec = fixture.server(number);
    hypervisor.ensure(&spec, Run(1)).await?;
    reaches(fixture, hypervisor, (spec.server, Run(1), Phase::Running)).await?;
    Ok(spec)
}

/// Makes the guest do something that ends it, and waits until that is seen.
async fn ends(
    fixture: &dyn HypervisorFixture,
    hypervisor: &dyn Hypervisor,
    server: ServerId,
    (act, cause): (GuestAct, EndCause),
) -> Result<(), Violation> {
    fixture.act(server, act).await?;
    reaches(fixture, hypervisor, (server, Run(1), Phase::Ended(cause))).await
}

const POWER_OFF: (GuestAct, EndCause) = (GuestAct::PowerOff, EndCause::Guest);
const NO_POWER_OFF: Outcome =
    Outcome::Skipped { missing: Cow::Borrowed("guest that powers itself off") };

pub(super) async fn restarted(
    fixture: &dyn HypervisorFixture,
    hypervisor: Arc<dyn Hypervisor>,
) -> Result<Arc<dyn Hypervisor>, Violation> {
    fixture.crash(hypervisor).await?;
    Ok(fixture.start().await?)
}

pub(super) async fn hv_1_ensure_returns_with_the_guest_running(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    let spec = fixture.server(1);
    hypervisor.ensure(&spec, Run(1)).await?;
    let found = find(&*hypervisor, spec.server).await?;
    let running = Observed { server: spec.server, run: Run(1), phase: Phase::Running };
    require!(found == Some(running), "ensure returned, observe tells {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn hv_1_repeating_ensure_starts_nothing(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    let before = fixture.traces(spec.server).await?;
    require!(!before.is_empty(), "a running guest leaves no trace: the fixture is blind");
    hypervisor.ensure(&spec, Run(1)).await?;
    let hypervisor = restarted(fixture, hypervisor).await?;
    hypervisor.ensure(&spec, Run(1)).await?;
    let after = fixture.traces(spec.server).await?;
    require!(before == after, "before the repetitions {before:?}, after them {after:?}");
    reaches(fixture, &*hypervisor, (spec.server, Run(1), Phase::Running)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn hv_2_an_ended_run_is_stale(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    if !fixture.can(GuestAct::PowerOff) {
        return Ok(NO_POWER_OFF);
    }
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    ends(fixture, &*hypervisor, spec.server, POWER_OFF).await?;
    let answer = hypervisor.ensure(&spec, Run(1)).await;
    refused("ensure of a run that has ended", answer, ErrorKind::Stale)?;
    let hypervisor = restarted(fixture, hypervisor).await?;
    let answer = hypervisor.ensure(&spec, Run(1)).await;
    refused("ensure of an ended run after a restart", answer, ErrorKind::Stale)?;
    reaches(fixture, &*hypervisor, (spec.server, Run(1), Phase::Ended(EndCause::Guest))).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn hv_3_a_newer_run_waits_for_the_older_ones_removal(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    let before = fixture.traces(spec.server).await?;
    let answer = hypervisor.ensure(&spec, Run(2)).await;
    refused("ensure of run 2 while run 1 runs", answer, ErrorKind::ServerBusy)?;
    let after = fixture.traces(spec.server).await?;
    require!(before == after, "before the refused run {before:?}, after it {after:?}");
    reaches(fixture, &*hypervisor, (spec.server, Run(1), Phase::Running)).await?;
    if fixture.can(GuestAct::PowerOff) {
        ends(fixture, &*hypervisor, spec.server, POWER_OFF).await?;
        let answer = hypervisor.ensure(&spec, Run(2)).await;
        refused("ensure of run 2 before run 1 is removed", answer, ErrorKind::ServerBusy)?;
    }
    hypervisor.remove(spec.server).await?;
    hypervisor.ensure(&spec, Run(2)).await?;
    reaches(fixture, &*hypervisor, (spec.server, Run(2), Phase::Running)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn hv_4_a_guests_own_ending_is_kept(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    if !fixture.can(GuestAct::PowerOff) {
        return Ok(NO_POWER_OFF);
    }
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    ends(fixture, &*hypervisor, spec.server, POWER_OFF).await?;
    let hypervisor = restarted(fixture, hypervisor).await?;
    let ended = (spec.server, Run(1), Phase::Ended(EndCause::Guest));
    reaches(fixture, &*hypervisor, ended).await?;
    hypervisor.remove(spec.server).await?;
    let found = find(&*hypervisor, spec.server).await?;
    require!(found.is_none(), "removed, but observe tells {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn hv_4_an_ending_while_the_process_was_down_is_kept(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    if !fixture.can(GuestAct::PowerOff) {
        return Ok(NO_POWER_OFF);
    }
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    fixture.crash(hypervisor).await?;
    fixture.act(spec.server, GuestAct::PowerOff).await?;
    let hypervisor = fixture.start().await?;
    let ended = (spec.server, Run(1), Phase::Ended(EndCause::Guest));
    reaches(fixture, &*hypervisor, ended).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn hv_4_a_panic_is_told_apart(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    if !fixture.can(GuestAct::Panic) {
        return Ok(Outcome::Skipped { missing: Cow::Borrowed("guest that panics") });
    }
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    ends(fixture, &*hypervisor, spec.server, (GuestAct::Panic, EndCause::Panicked)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn hv_5_remove_leaves_nothing_behind(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    hypervisor.remove(spec.server).await?;
    let left = fixture.traces(spec.server).await?;
    require!(left.is_empty(), "removed while it ran, but there is {left:?}");
    let found = find(&*hypervisor, spec.server).await?;
    require!(found.is_none(), "removed while it ran, but observe tells {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn hv_5_removing_nothing_succeeds(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    hypervisor.remove(fixture.server(1).server).await?;
    let spec = started(fixture, &*hypervisor, 2).await?;
    hypervisor.remove(spec.server).await?;
    hypervisor.remove(spec.server).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn hv_6_observe_tells_every_run(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    let servers = [
        started(fixture, &*hypervisor, 1).await?.server,
        started(fixture, &*hypervisor, 2).await?.server,
    ];
    let hypervisor = restarted(fixture, hypervisor).await?;
    for server in servers {
        reaches(fixture, &*hypervisor, (server, Run(1), Phase::Running)).await?;
    }
    let found = hypervisor.observe().await?;
    require!(found.len() == servers.len(), "two runs exist, observe tells {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn hv_6_a_silent_guest_is_left_alone(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    if !fixture.can(GuestAct::Hang) {
        return Ok(Outcome::Skipped { missing: Cow::Borrowed("guest that hangs") });
    }
    let hypervisor = fixture.start().await?;
    let spec = started(fixture, &*hypervisor, 1).await?;
    let before = fixture.traces(spec.server).await?;
    fixture.act(spec.server, GuestAct::Hang).await?;
    reaches(fixture, &*hypervisor, (spec.server, Run(1), Phase::Unresponsive)).await?;
    let after = fixture.traces(spec.server).await?;
    require!(before == after, "before it hung {before:?}, after it {after:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn hv_7_every_change_has_an_event(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    let mut events = hypervisor.events();
    let spec = fixture.server(1);
    let server = spec.server;
    hypervisor.ensure(&spec, Run(1)).await?;
    told(fixture, &*hypervisor, &mut events, (server, Some(Phase::Running))).await?;
    if fixture.can(GuestAct::PowerOff) {
        fixture.act(server, GuestAct::PowerOff).await?;
        let ended = Some(Phase::Ended(EndCause::Guest));
        told(fixture, &*hypervisor, &mut events, (server, ended)).await?;
    }
    hypervisor.remove(server).await?;
    told(fixture, &*hypervisor, &mut events, (server, None)).await?;
    Ok(Outcome::Kept)
}

/// Waits for an event of the server after which `observe` tells this of it, as one does who looks
/// only when there was an event. Then takes the events that are left, which tell nothing new.
async fn told(
    fixture: &dyn HypervisorFixture,
    hypervisor: &dyn Hypervisor,
    events: &mut BoxStream<'static, ServerId>,
    (server, wanted): (ServerId, Option<Phase>),
) -> Result<(), Violation> {
    for _ in 0..LOOKS {
        match next_now(events).await {
            Poll::Ready(Some(id)) if id == server => {
                if find(hypervisor, server).await?.map(|observed| observed.phase) == wanted {
                    while let Poll::Ready(Some(_)) = next_now(events).await {}
                    return Ok(());
                }
            }
            Poll::Ready(Some(_)) => {}
            Poll::Ready(None) => return Err(Violation::new("the event stream has ended")),
            Poll::Pending => fixture.pause().await,
        }
    }
    Err(Violation::new(format!("no event told that {server} is now {wanted:?}")))
}

/// The next event if there is one already.
async fn next_now(events: &mut BoxStream<'static, ServerId>) -> Poll<Option<ServerId>> {
    poll_fn(|context| Poll::Ready(events.as_mut().poll_next(context))).await
}

pub(super) async fn hv_8_a_failed_ensure_leaves_nothing_behind(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    let broken = fixture.broken();
    let server = broken.server;
    let answer = hypervisor.ensure(&broken, Run(1)).await;
    require!(answer.is_err(), "a server that can't be started was started");
    let left = fixture.traces(server).await?;
    require!(left.is_empty(), "the failed start left {left:?}");
    let found = find(&*hypervisor, server).await?;
    require!(found.is_none(), "the start failed, but observe tells {found:?}");
    let mended = ServerSpec { server, ..fixture.server(1) };
    hypervisor.ensure(&mended, Run(1)).await?;
    reaches(fixture, &*hypervisor, (server, Run(1), Phase::Running)).await?;
    Ok(Outcome::Kept)
}

const NO_SPARE: Outcome =
    Outcome::Skipped { missing: Cow::Borrowed("place where drives come and go") };

/// Requires that the spare drive is plugged in, or is not.
async fn has_spare(
    fixture: &dyn HypervisorFixture,
    (server, spare): (ServerId, &DriveSlot),
    wanted: Plugged,
) -> Result<(), Violation> {
    let plugged = fixture.plugged(server).await?;
    let is = if plugged.contains(&spare.device) { Plugged::In } else { Plugged::Out };
    require!(is == wanted, "{} should be {wanted:?}, plugged in are {plugged:?}", spare.device);
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plugged {
    In,
    Out,
}

pub(super) async fn hv_9_drives_come_and_go_while_the_guest_runs(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let Some(spare) = fixture.spare() else { return Ok(NO_SPARE) };
    let hypervisor = fixture.start().await?;
    let without = started(fixture, &*hypervisor, 1).await?;
    let server = without.server;
    let before = fixture.traces(server).await?;
    has_spare(fixture, (server, &spare), Plugged::Out).await?;
    let mut with = without.clone();
    with.drives.push(spare.clone());
    hypervisor.ensure(&with, Run(1)).await?;
    has_spare(fixture, (server, &spare), Plugged::In).await?;
    let hypervisor = restarted(fixture, hypervisor).await?;
    hypervisor.ensure(&with, Run(1)).await?;
    has_spare(fixture, (server, &spare), Plugged::In).await?;
    hypervisor.ensure(&without, Run(1)).await?;
    has_spare(fixture, (server, &spare), Plugged::Out).await?;
    hypervisor.ensure(&with, Run(1)).await?;
    has_spare(fixture, (server, &spare), Plugged::In).await?;
    let after = fixture.traces(server).await?;
    require!(before == after, "before the drives came and went {before:?}, after it {after:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn hv_9_a_drive_that_the_guest_holds_on_to_stays(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let Some(spare) = fixture.spare() else { return Ok(NO_SPARE) };
    if !fixture.can(GuestAct::HoldOn) {
        return Ok(Outcome::Skipped { missing: Cow::Borrowed("guest that holds on to a drive") });
    }
    let hypervisor = fixture.start().await?;
    let without = started(fixture, &*hypervisor, 1).await?;
    let server = without.server;
    if fixture.can(GuestAct::Read) {
        // Its firmware, which might begin from the spare, is done once the guest reads.
        fixture.act(server, GuestAct::Read).await?;
    }
    let mut with = without.clone();
    with.drives.push(spare.clone());
    hypervisor.ensure(&with, Run(1)).await?;
    fixture.act(server, GuestAct::HoldOn).await?;
    for _repeated in 0..2 {
        let answer = hypervisor.ensure(&without, Run(1)).await;
        refused("unplugging what the guest holds on to", answer, ErrorKind::Unavailable)?;
        has_spare(fixture, (server, &spare), Plugged::In).await?;
    }
    reaches(fixture, &*hypervisor, (server, Run(1), Phase::Running)).await?;
    hypervisor.remove(server).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn co_1_the_serial_log_outlives_process_and_run(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    if hypervisor.console().is_none() {
        return Ok(Outcome::Skipped { missing: Cow::Borrowed("Hypervisor::console") });
    }
    let server = started(fixture, &*hypervisor, 1).await?.server;
    greeted(fixture, &*hypervisor, server).await?;
    let hypervisor = restarted(fixture, hypervisor).await?;
    greeted(fixture, &*hypervisor, server).await?;
    if fixture.can(GuestAct::PowerOff) {
        ends(fixture, &*hypervisor, server, POWER_OFF).await?;
        greeted(fixture, &*hypervisor, server).await?;
    }
    hypervisor.remove(server).await?;
    let answer = serial(&*hypervisor, server).await;
    refused("the serial log of a removed run", answer, ErrorKind::NotFound)?;
    Ok(Outcome::Kept)
}

async fn serial(hypervisor: &dyn Hypervisor, server: ServerId) -> Result<Vec<u8>> {
    let console = hypervisor.console();
    console.ok_or_else(|| Error::internal("the console went away"))?.serial(server).await
}

/// Waits until the serial log holds the guest's greeting.
async fn greeted(
    fixture: &dyn HypervisorFixture,
    hypervisor: &dyn Hypervisor,
    server: ServerId,
) -> Result<(), Violation> {
    let mut log = String::new();
    for _ in 0..LOOKS {
        log = String::from_utf8_lossy(&serial(hypervisor, server).await?).into_owned();
        if log.contains(fixture.greeting()) {
            return Ok(());
        }
        fixture.pause().await;
    }
    let greeting = fixture.greeting();
    Err(Violation::new(format!("the serial log should hold {greeting:?} and is {log:?}")))
}
