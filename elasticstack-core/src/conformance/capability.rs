//! The checks of what a block store may offer beside the least: [`Resize`] and [`CloneDrive`].
//!
//! [`Resize`]: crate::block::Resize
//! [`CloneDrive`]: crate::block::CloneDrive

use std::borrow::Cow;

use super::blockstore::{
    BlockStoreFixture, FIRST, MIB, arrays, bytes, holds, is_zero, opened, pattern, reopen, report,
    room, spec, write,
};
use super::{Outcome, Violation, refused, require};
use crate::block::{BlockStore, Cloned, DriveSpec, Writers};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Epoch, Era, Generation};

pub(super) const NO_RESIZER: Outcome =
    Outcome::Skipped { missing: Cow::Borrowed("BlockStore::resizer") };
const NO_CLONER: Outcome = Outcome::Skipped { missing: Cow::Borrowed("BlockStore::cloner") };

/// Makes the drive `size` long, as change number `generation`.
pub(super) async fn resize(
    store: &dyn BlockStore,
    spec: &DriveSpec,
    size: u64,
    generation: u64,
) -> Result<()> {
    let resizer = store.resizer().ok_or_else(|| Error::internal("the resizer went away"))?;
    let generation = Generation::new(Era(1), generation);
    resizer.resize(&DriveSpec { size: bytes(size), generation, ..spec.clone() }).await
}

pub(super) async fn bs_3_a_full_array_refuses_to_grow(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let free = room(&arrays(&*store).await?[0]);
    let (small, _volume) = opened(&*store, 1).await?;
    let rest = spec(&*store, 2, free - MIB).await?;
    store.create(&rest).await?;
    let answer = resize(&*store, &small, 2 * MIB, 2).await;
    refused("growing on a full array", answer, ErrorKind::NoCapacity)?;
    let found = report(&*store, small.drive).await?.spec;
    require!(found == small, "a refused growth of {small:?} left {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn rs_1_growing_keeps_bytes_and_adds_zeros(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let (spec, volume) = opened(&*store, 1).await?;
    let data = pattern(1, MIB);
    write(&*volume, 0, data.clone()).await?;
    volume.flush().await?;
    drop(volume);
    resize(&*store, &spec, 3 * MIB, 2).await?;
    let volume = store.open(spec.drive, Epoch(1)).await?;
    holds(&*volume, 0, &data).await?;
    is_zero(&*volume, MIB, 3 * MIB).await?;
    drop(volume);
    let store = reopen(fixture, store).await?;
    let size = report(&*store, spec.drive).await?.spec.size;
    require!(size == bytes(3 * MIB), "grown to 3 MiB, after a crash {size}");
    let volume = store.open(spec.drive, Epoch(1)).await?;
    holds(&*volume, 0, &data).await?;
    is_zero(&*volume, MIB, 3 * MIB).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn rs_2_shrinking_cuts_and_growing_back_shows_zeros(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let spec = spec(&*store, 1, 3 * MIB).await?;
    store.create(&spec).await?;
    let volume = store.open(spec.drive, Epoch(1)).await?;
    write(&*volume, 0, pattern(1, 3 * MIB)).await?;
    volume.flush().await?;
    drop(volume);
    resize(&*store, &spec, MIB, 2).await?;
    resize(&*store, &spec, 3 * MIB, 3).await?;
    let volume = store.open(spec.drive, Epoch(1)).await?;
    holds(&*volume, 0, &pattern(1, MIB)).await?;
    is_zero(&*volume, MIB, 3 * MIB).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn rs_3_generations_put_resizes_in_order(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let (spec, _volume) = opened(&*store, 1).await?;
    for _ in 0..2 {
        resize(&*store, &spec, 2 * MIB, 5).await?;
        let DriveSpec { size, generation, .. } = report(&*store, spec.drive).await?.spec;
        let wanted = (bytes(2 * MIB), Generation::new(Era(1), 5));
        require!((size, generation) == wanted, "resized to {wanted:?}: {size}, {generation}");
    }
    let answer = resize(&*store, &spec, MIB, 4).await;
    refused("a resize of generation 4 after one of 5", answer, ErrorKind::Stale)?;
    let size = report(&*store, spec.drive).await?.spec.size;
    require!(size == bytes(2 * MIB), "a stale resize changed the size to {size}");
    Ok(Outcome::Kept)
}

pub(super) async fn cl_1_a_clone_equals_its_source_and_goes_its_own_way(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let Some(cloner) = store.cloner() else { return Ok(NO_CLONER) };
    let (from, source) = opened(&*store, 1).await?;
    write(&*source, 0, pattern(1, MIB)).await?;
    let to = spec(&*store, 2, 2 * MIB).await?;
    store.create(&to).await?;
    let target = store.open(to.drive, Epoch(1)).await?;
    write(&*target, 0, pattern(2, 2 * MIB)).await?;
    if cloner.clone_drive(from.drive, to.drive, Writers::Volumes).await? == Cloned::MustCopy {
        return Ok(Outcome::Skipped {
            missing: Cow::Borrowed("array whose drives can share blocks"),
        });
    }
    holds(&*target, 0, &pattern(1, MIB)).await?;
    is_zero(&*target, MIB, 2 * MIB).await?;
    write(&*source, 0, pattern(3, 4096)).await?;
    write(&*target, 8192, pattern(4, 4096)).await?;
    holds(&*target, 0, &pattern(1, 4096)).await?;
    holds(&*source, 8192, &pattern(1, MIB)[8192..12288]).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn cl_2_a_pair_that_must_be_copied_is_left_alone(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let Some(cloner) = store.cloner() else { return Ok(NO_CLONER) };
    let [_, second, ..] = &*arrays(&*store).await? else {
        return Ok(Outcome::Skipped { missing: Cow::Borrowed("second array") });
    };
    let (from, source) = opened(&*store, 1).await?;
    write(&*source, 0, pattern(1, MIB)).await?;
    let to = DriveSpec { array: second.array, ..spec(&*store, 2, 2 * MIB).await? };
    store.create(&to).await?;
    let target = store.open(to.drive, Epoch(1)).await?;
    write(&*target, 0, pattern(2, 2 * MIB)).await?;
    let cloned = cloner.clone_drive(from.drive, to.drive, Writers::Volumes).await?;
    require!(cloned == Cloned::MustCopy, "drives on two arrays can't share blocks: {cloned:?}");
    holds(&*target, 0, &pattern(2, 2 * MIB)).await?;
    let found = report(&*store, to.drive).await?.spec;
    require!(found == to && to.generation == FIRST, "the target is now {found:?}");
    Ok(Outcome::Kept)
}
