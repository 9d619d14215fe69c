//! The checks of what a hypervisor may count: [`Counters`](crate::hypervisor::Counters).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::hypervisor::{GuestAct, HypervisorFixture, LOOKS, restarted, started};
use super::{Outcome, Violation, refused, require};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Run;
use crate::hypervisor::{Device, Hypervisor, IoCounts, ServerSpec};
use crate::id::ServerId;

const NO_COUNTERS: Outcome = Outcome::Skipped { missing: Cow::Borrowed("Hypervisor::counters") };

async fn counts(
    hypervisor: &dyn Hypervisor,
    server: ServerId,
) -> Result<BTreeMap<Device, IoCounts>> {
    let counters = hypervisor.counters();
    counters.ok_or_else(|| Error::internal("the counters went away"))?.counts(server).await
}

/// Requires that what is counted are the drives of `spec`.
async fn counted(hypervisor: &dyn Hypervisor, spec: &ServerSpec) -> Result<(), Violation> {
    let found: BTreeSet<_> = counts(hypervisor, spec.server).await?.into_keys().collect();
    let plugged: BTreeSet<_> = spec.drives.iter().map(|slot| slot.device).collect();
    require!(found == plugged, "plugged in are {plugged:?}, counted are {found:?}");
    Ok(())
}

pub(super) async fn ct_1_what_is_plugged_in_is_counted_and_nothing_else(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    if hypervisor.counters().is_none() {
        return Ok(NO_COUNTERS);
    }
    let spec = started(fixture, &*hypervisor, 1).await?;
    counted(&*hypervisor, &spec).await?;
    if let Some(spare) = fixture.spare() {
        let mut with = spec.clone();
        with.drives.push(spare);
        for spec in [&with, &spec] {
            hypervisor.ensure(spec, Run(1)).await?;
            counted(&*hypervisor, spec).await?;
        }
    }
    hypervisor.remove(spec.server).await?;
    let answer = counts(&*hypervisor, spec.server).await;
    refused("the counts of a removed run", answer, ErrorKind::NotFound)?;
    Ok(Outcome::Kept)
}

pub(super) async fn ct_2_counts_begin_at_zero_and_only_grow_over_a_crash_too(
    fixture: &dyn HypervisorFixture,
) -> Result<Outcome, Violation> {
    let hypervisor = fixture.start().await?;
    if hypervisor.counters().is_none() {
        return Ok(NO_COUNTERS);
    }
    if !fixture.can(GuestAct::Read) {
        return Ok(Outcome::Skipped { missing: Cow::Borrowed("guest that reads") });
    }
    let mut spec = started(fixture, &*hypervisor, 1).await?;
    let server = spec.server;
    let before = counts(&*hypervisor, server).await?;
    fixture.act(server, GuestAct::Read).await?;
    let mut after = before.clone();
    for _ in 0..LOOKS {
        after = counts(&*hypervisor, server).await?;
        if reads(&after) > reads(&before) {
            break;
        }
        fixture.pause().await;
    }
    require!(reads(&after) > reads(&before), "the guest read, before {before:?}, now {after:?}");
    grown(&before, &after)?;
    // Now that the guest is past its firmware, which may look at all that it finds.
    if let Some(spare) = fixture.spare() {
        let device = spare.device;
        spec.drives.push(spare);
        hypervisor.ensure(&spec, Run(1)).await?;
        let found = counts(&*hypervisor, server).await?.get(&device).copied();
        let zero = Some(IoCounts::default());
        require!(found == zero, "nobody has used {device} yet, counted is {found:?}");
    }
    let hypervisor = restarted(fixture, hypervisor).await?;
    grown(&after, &counts(&*hypervisor, server).await?)?;
    Ok(Outcome::Kept)
}

/// The requests and bytes read, of all drives.
fn reads(counts: &BTreeMap<Device, IoCounts>) -> (u64, u64) {
    let all = counts.values().copied().fold(IoCounts::default(), IoCounts::saturating_add);
    (all.read_requests, all.read_bytes)
}

/// Requires that nothing fell.
fn grown(
    before: &BTreeMap<Device, IoCounts>,
    after: &BTreeMap<Device, IoCounts>,
) -> Result<(), Violation> {
    for (device, was) in before {
        let is = after.get(device).copied().unwrap_or_default();
        let fell = is.read_bytes < was.read_bytes
            || is.read_requests < was.read_requests
            || is.write_bytes < was.write_bytes
            || is.write_requests < was.write_requests;
        require!(!fell, "the counts of {device} were {was:?} and are {is:?}");
    }
    Ok(())
}
