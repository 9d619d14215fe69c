//! The checks of [`Snapshots`].

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use uuid::Uuid;

use super::blockstore::{
    BlockStoreFixture, FIRST, MIB, array, arrays, bytes, holds, is_zero, opened, pattern, reopen,
    report, room, spec, write,
};
use super::capability::{NO_RESIZER, resize};
use super::{Outcome, Violation, refused, require};
use crate::block::{BlockStore, DriveSpec, SnapshotReport, Snapshots, Volume, Writers};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Epoch;
use crate::id::{DriveId, SnapshotId};

const NO_SNAPSHOTS: Outcome = Outcome::Skipped { missing: Cow::Borrowed("BlockStore::snapshots") };

fn snapshot_id(number: u8) -> SnapshotId {
    let first = 0x5a0_0000_4000_8000_0000_0000_0000;
    SnapshotId::from_uuid(Uuid::from_u128(first + u128::from(number)))
}

/// The capability, of which the check has seen that it is there.
fn of(store: &dyn BlockStore) -> Result<&dyn Snapshots> {
    store.snapshots().ok_or_else(|| Error::internal("the snapshots went away"))
}

/// Takes the kit's snapshot of this number, with nobody writing past the store.
async fn take(store: &dyn BlockStore, number: u8, drive: DriveId) -> Result<()> {
    of(store)?.take_snapshot(snapshot_id(number), drive, Writers::Volumes).await
}

async fn restore(store: &dyn BlockStore, number: u8, epoch: u64) -> Result<()> {
    of(store)?.restore_snapshot(snapshot_id(number), Epoch(epoch)).await
}

/// Every snapshot, by the order of their ids.
async fn listed(store: &dyn BlockStore) -> Result<Vec<SnapshotReport>> {
    let mut list = of(store)?.list_snapshots().await?;
    list.sort_by_key(|report| report.snapshot);
    Ok(list)
}

/// What a snapshot of the drive as it is now is reported as.
fn expected(number: u8, spec: &DriveSpec) -> SnapshotReport {
    let &DriveSpec { drive, array, account, size, generation: _ } = spec;
    SnapshotReport { snapshot: snapshot_id(number), drive, array, account, size }
}

pub(super) async fn bs_3_a_full_array_takes_no_snapshot(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let free = room(&arrays(&*store).await?[0]);
    let large = spec(&*store, 1, free / 2 / MIB * MIB + MIB).await?;
    store.create(&large).await?;
    let answer = take(&*store, 1, large.drive).await;
    refused("a snapshot for which there is no room", answer, ErrorKind::NoCapacity)?;
    let (small, _volume) = opened(&*store, 2).await?;
    take(&*store, 2, small.drive).await?;
    let promised = array(&*store, small.array).await?.promised.get();
    let sum = large.size.get() + 2 * MIB;
    require!(promised == sum, "drives and snapshots of {sum} bytes: {promised} are promised");
    let rest = spec(&*store, 3, free - sum + MIB).await?;
    let answer = store.create(&rest).await;
    refused("a drive where a snapshot is", answer, ErrorKind::NoCapacity)?;
    let found = listed(&*store).await?;
    require!(found.len() == 1, "of a refused snapshot something is left: {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn sn_1_what_was_flushed_is_in_a_snapshot_and_survives_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let (drive, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    volume.flush().await?;
    take(&*store, 1, drive.drive).await?;
    write(&*volume, 0, pattern(2, MIB)).await?;
    volume.flush().await?;
    drop(volume);
    let store = reopen(fixture, store).await?;
    let found = listed(&*store).await?;
    require!(found == [expected(1, &drive)], "one was taken, after a crash there are {found:?}");
    restore(&*store, 1, 2).await?;
    let volume = store.open(drive.drive, Epoch(2)).await?;
    holds(&*volume, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

/// The first and the last block of a drive are written by turns, the first one always first, while
/// a snapshot is taken: in it they are of one round, or the first is of the next.
pub(super) async fn sn_1_a_snapshot_of_a_drive_that_is_written_is_of_one_instant(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let Some(snapshots) = store.snapshots() else { return Ok(NO_SNAPSHOTS) };
    let (drive, volume) = opened(&*store, 1).await?;
    let last = MIB - BLOCK;
    let rounds = async {
        for round in 1..=200 {
            write(&*volume, 0, block(round)).await?;
            give_way().await;
            write(&*volume, last, block(round)).await?;
        }
        Result::Ok(())
    };
    let (mut rounds, mut written) = (pin!(rounds), None::<Result<()>>);
    let mut taking = snapshots.take_snapshot(snapshot_id(1), drive.drive, Writers::Attached);
    let taken = poll_fn(|context| {
        if written.is_none()
            && let Poll::Ready(answer) = rounds.as_mut().poll(context)
        {
            written = Some(answer);
        }
        taking.as_mut().poll(context)
    })
    .await;
    match written {
        Some(written) => written?,
        None => rounds.await?,
    }
    match taken {
        Err(error) if error.kind() == ErrorKind::DriveInUse => {
            let missing = Cow::Borrowed("array on which drives in use can be taken");
            return Ok(Outcome::Skipped { missing });
        }
        taken => taken?,
    }
    restore(&*store, 1, 2).await?;
    let volume = store.open(drive.drive, Epoch(2)).await?;
    let (first, second) = (round_at(&*volume, 0).await?, round_at(&*volume, last).await?);
    let one_instant = first == second || first == second + 1;
    require!(one_instant, "the first block is of round {first}, the last of {second}");
    Ok(Outcome::Kept)
}

/// Lets what runs beside this go on.
pub(super) async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

const BLOCK: u64 = 4096;

fn block(round: u8) -> Vec<u8> {
    vec![round; 4096]
}

/// The round of which the block at `offset` is.
async fn round_at(volume: &dyn Volume, offset: u64) -> Result<u16, Violation> {
    let mut found = [0];
    volume.read_at(bytes(offset), &mut found).await?;
    holds(volume, offset, &block(found[0])).await?;
    Ok(found[0].into())
}

pub(super) async fn sn_2_repeating_a_take_changes_nothing(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let (drive, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    take(&*store, 1, drive.drive).await?;
    let before = (listed(&*store).await?, store.capacity().await?);
    write(&*volume, 0, pattern(2, MIB)).await?;
    drop(volume);
    take(&*store, 1, drive.drive).await?;
    let after = (listed(&*store).await?, store.capacity().await?);
    require!(before == after, "before the repetition {before:?}, after it {after:?}");
    restore(&*store, 1, 2).await?;
    holds(&*store.open(drive.drive, Epoch(2)).await?, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn sn_2_an_id_that_is_taken_is_refused(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let (one, _volume) = opened(&*store, 1).await?;
    let (other, _volume) = opened(&*store, 2).await?;
    take(&*store, 1, one.drive).await?;
    let answer = take(&*store, 1, other.drive).await;
    refused("a snapshot of another drive's id", answer, ErrorKind::ChangedMeanwhile)?;
    let found = listed(&*store).await?;
    require!(found == [expected(1, &one)], "of a refused snapshot something is left: {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn sn_3_a_snapshot_stays_whatever_becomes_of_its_drive(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let (drive, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    take(&*store, 1, drive.drive).await?;
    volume.discard(bytes(0), bytes(MIB)).await?;
    drop(volume);
    resize(&*store, &drive, 2 * MIB, 2).await?;
    store.destroy(drive.drive, report(&*store, drive.drive).await?.spec.generation).await?;
    store.create(&drive).await?;
    let found = listed(&*store).await?;
    require!(found == [expected(1, &drive)], "its drive was destroyed, and now {found:?}");
    restore(&*store, 1, 3).await?;
    holds(&*store.open(drive.drive, Epoch(3)).await?, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn sn_4_a_restored_drive_reads_as_the_snapshot_also_after_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let (drive, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    take(&*store, 1, drive.drive).await?;
    drop(volume);
    resize(&*store, &drive, 3 * MIB, 2).await?;
    let volume = store.open(drive.drive, Epoch(1)).await?;
    write(&*volume, 0, pattern(2, 3 * MIB)).await?;
    drop(volume);
    restore(&*store, 1, 2).await?;
    let store = reopen(fixture, store).await?;
    let found = report(&*store, drive.drive).await?;
    let wanted = (bytes(3 * MIB), Epoch(2));
    let is = (found.spec.size, found.epoch);
    require!(is == wanted, "restored, its size and epoch should be {wanted:?}: {is:?}");
    let volume = store.open(drive.drive, Epoch(2)).await?;
    holds(&*volume, 0, &pattern(1, MIB)).await?;
    is_zero(&*volume, MIB, 3 * MIB).await?;
    write(&*volume, 0, pattern(3, MIB)).await?;
    drop(volume);
    restore(&*store, 1, 3).await?;
    holds(&*store.open(drive.drive, Epoch(3)).await?, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn sn_4_a_restore_fences_older_volumes(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let (drive, old) = opened(&*store, 1).await?;
    take(&*store, 1, drive.drive).await?;
    restore(&*store, 1, 2).await?;
    let answer = write(&*old, 0, pattern(1, BLOCK)).await;
    refused("a write at 1 after a restore at 2", answer, ErrorKind::Fenced)?;
    let answer = store.open(drive.drive, Epoch(1)).await;
    refused("an open at 1 after a restore at 2", answer, ErrorKind::Fenced)?;
    is_zero(&*store.open(drive.drive, Epoch(2)).await?, 0, MIB).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn sn_4_a_restore_of_an_older_epoch_changes_nothing(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let (drive, _volume) = opened(&*store, 1).await?;
    take(&*store, 1, drive.drive).await?;
    restore(&*store, 1, 2).await?;
    let volume = store.open(drive.drive, Epoch(3)).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    let answer = restore(&*store, 1, 2).await;
    refused("a late repetition of the restore at 2", answer, ErrorKind::Fenced)?;
    holds(&*volume, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn sn_4_a_drive_that_is_too_small_is_left_alone(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let large = spec(&*store, 1, 2 * MIB).await?;
    store.create(&large).await?;
    take(&*store, 1, large.drive).await?;
    resize(&*store, &large, MIB, 2).await?;
    let volume = store.open(large.drive, Epoch(1)).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    let answer = restore(&*store, 1, 2).await;
    refused("a restore of 2 MiB into 1 MiB", answer, ErrorKind::InvalidValue)?;
    holds(&*volume, 0, &pattern(1, MIB)).await?;
    let size = report(&*store, large.drive).await?.spec.size;
    require!(size == bytes(MIB), "a refused restore changed the size to {size}");
    Ok(Outcome::Kept)
}

pub(super) async fn sn_5_a_destroyed_snapshot_is_gone_and_its_room_free(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let (drive, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    volume.flush().await?;
    let before = store.capacity().await?;
    take(&*store, 1, drive.drive).await?;
    of(&*store)?.destroy_snapshot(snapshot_id(1)).await?;
    let after = store.capacity().await?;
    require!(before == after, "before the snapshot {before:?}, after it {after:?}");
    holds(&*volume, 0, &pattern(1, MIB)).await?;
    drop(volume);
    let store = reopen(fixture, store).await?;
    let found = listed(&*store).await?;
    require!(found.is_empty(), "destroyed, but after a crash listed: {found:?}");
    of(&*store)?.destroy_snapshot(snapshot_id(1)).await?;
    let answer = restore(&*store, 1, 2).await;
    refused("a restore of a destroyed snapshot", answer, ErrorKind::NotFound)?;
    holds(&*store.open(drive.drive, Epoch(2)).await?, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn sn_6_list_is_exact_also_after_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.snapshots().is_none() {
        return Ok(NO_SNAPSHOTS);
    }
    let one = spec(&*store, 1, MIB).await?;
    let other = spec(&*store, 2, 2 * MIB).await?;
    for drive in [&one, &other] {
        store.create(drive).await?;
    }
    for (number, drive) in [(1, &one), (2, &one), (3, &other)] {
        take(&*store, number, drive.drive).await?;
    }
    of(&*store)?.destroy_snapshot(snapshot_id(1)).await?;
    store.destroy(one.drive, FIRST).await?;
    let wanted = [expected(2, &one), expected(3, &other)];
    let found = listed(&*store).await?;
    require!(found == wanted, "{wanted:?} are there, listed are {found:?}");
    let store = reopen(fixture, store).await?;
    let found = listed(&*store).await?;
    require!(found == wanted, "{wanted:?} are there, after a crash listed are {found:?}");
    Ok(Outcome::Kept)
}
