//! The block store kit: the fixture, what all its checks share, and the checks of
//! [`BlockStore`]'s own clauses.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use futures_core::future::BoxFuture;
use uuid::Uuid;

use super::{Outcome, Violation, refused, require};
use crate::block::{ArrayReport, BlockStore, DriveReport, DriveSpec, Volume};
use crate::error::{ErrorKind, Result};
use crate::generation::{Epoch, Era, Generation};
use crate::id::{AccountId, ArrayId, DriveId};
use crate::sim;
use crate::units::Bytes;

/// How the kit handles a block store under test. Each check gets a fixture of its own; dropping
/// it cleans up.
///
/// The store should have two arrays or more, each with room for 8 MiB at least and not for much
/// more: a check fills one, and whatever does not keep zeros apart then writes them all.
#[async_trait]
pub trait BlockStoreFixture: Send + Sync {
    /// Opens the store: an empty one at first, later what the latest crash left.
    ///
    /// # Errors
    /// Whatever kept the store from opening.
    async fn start(&self) -> Result<Arc<dyn BlockStore>>;

    /// Ends the store as a power cut does. Nobody holds it or a volume of it any more. The nearer
    /// to a real power cut the better; dropping the store without a goodbye is the least.
    ///
    /// # Errors
    /// Whatever kept the fixture from doing so.
    async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()>;

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
macro_rules! __blockstore_checks {
    ($then:ident, $($arguments:tt)*) => {
        $crate::$then! {
            $($arguments)*;
            blockstore:
                bs_1_create_survives_a_crash,
                bs_1_repeating_a_create_changes_nothing,
                bs_1_an_id_that_is_taken_is_refused,
                bs_2_new_drives_are_zeros,
                bs_3_a_full_array_refuses_to_create,
                bs_4_an_epoch_below_the_fence_is_refused,
                bs_4_opens_at_different_epochs_coexist,
                bs_4_the_highest_epoch_opened_survives_a_crash,
                bs_4_unknown_drives_are_not_found,
                bs_5_a_fence_cuts_older_volumes_and_no_others,
                bs_5_a_fence_survives_a_crash,
                bs_5_no_write_lands_after_a_fence,
                bs_6_a_destroyed_drive_is_gone_and_its_room_free,
                bs_6_volumes_of_a_destroyed_drive_fail,
                bs_6_an_older_tombstone_destroys_nothing,
                bs_7_list_is_exact_also_after_a_crash;
            capability:
                bs_3_a_full_array_refuses_to_grow,
                rs_1_growing_keeps_bytes_and_adds_zeros,
                rs_2_shrinking_cuts_and_growing_back_shows_zeros,
                rs_3_generations_put_resizes_in_order,
                cl_1_a_clone_equals_its_source_and_goes_its_own_way,
                cl_2_a_pair_that_must_be_copied_is_left_alone;
            snapshots:
                bs_3_a_full_array_takes_no_snapshot,
                sn_1_what_was_flushed_is_in_a_snapshot_and_survives_a_crash,
                sn_1_a_snapshot_of_a_drive_that_is_written_is_of_one_instant,
                sn_2_repeating_a_take_changes_nothing,
                sn_2_an_id_that_is_taken_is_refused,
                sn_3_a_snapshot_stays_whatever_becomes_of_its_drive,
                sn_4_a_restored_drive_reads_as_the_snapshot_also_after_a_crash,
                sn_4_a_restore_fences_older_volumes,
                sn_4_a_restore_of_an_older_epoch_changes_nothing,
                sn_4_a_drive_that_is_too_small_is_left_alone,
                sn_5_a_destroyed_snapshot_is_gone_and_its_room_free,
                sn_6_list_is_exact_also_after_a_crash;
            volume:
                vo_1_reads_see_writes_and_discards,
                vo_2_flushed_bytes_survive_a_crash,
                vo_3_accesses_past_the_end_change_nothing,
                vo_3_the_end_moves_with_the_drive,
                vo_4_discarded_ranges_read_as_zeros,
                vo_5_a_fenced_volume_refuses_every_call,
                vo_6_next_data_passes_over_nothing,
                vo_7_the_size_outlasts_the_access;
        }
    };
}

pub(super) const MIB: u64 = 1 << 20;
pub(super) const FIRST: Generation = Generation::new(Era(1), 1);

/// A small number of bytes.
pub(super) fn bytes(number: u64) -> Bytes {
    Bytes::try_from(number).expect("the kit uses small sizes")
}

pub(super) fn drive_id(number: u8) -> DriveId {
    DriveId::from_uuid(Uuid::from_u128(0x0d01_0000_4000_8000_0000_0000_0000 + u128::from(number)))
}

pub(super) async fn arrays(store: &dyn BlockStore) -> Result<Vec<ArrayReport>, Violation> {
    let arrays = store.capacity().await?;
    require!(!arrays.is_empty(), "the store has no array to test on");
    Ok(arrays)
}

/// The kit's drive of this number, on the store's first array.
pub(super) async fn spec(
    store: &dyn BlockStore,
    number: u8,
    size: u64,
) -> Result<DriveSpec, Violation> {
    Ok(DriveSpec {
        drive: drive_id(number),
        array: arrays(store).await?[0].array,
        account: AccountId::from_uuid(Uuid::from_u128(0xacc)),
        size: bytes(size),
        generation: FIRST,
    })
}

/// Makes a drive of 1 MiB, opened under epoch 1.
pub(super) async fn opened(
    store: &dyn BlockStore,
    number: u8,
) -> Result<(DriveSpec, Arc<dyn Volume>), Violation> {
    let spec = spec(store, number, MIB).await?;
    store.create(&spec).await?;
    let volume = store.open(spec.drive, Epoch(1)).await?;
    Ok((spec, volume))
}

/// Crashes a store and opens what is left.
pub(super) async fn reopen(
    fixture: &dyn BlockStoreFixture,
    store: Arc<dyn BlockStore>,
) -> Result<Arc<dyn BlockStore>, Violation> {
    fixture.crash(store).await?;
    Ok(fixture.start().await?)
}

/// Bytes none of which is zero, different for each salt.
pub(super) fn pattern(salt: u8, length: u64) -> Vec<u8> {
    let period: Vec<u8> = (1..=251).map(|byte: u8| (byte ^ salt).max(1)).collect();
    let length = usize::try_from(length).expect("the kit writes little at once");
    let mut pattern = period.repeat(length / period.len() + 1);
    pattern.truncate(length);
    pattern
}

pub(super) async fn read(
    volume: &dyn Volume,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, Violation> {
    let mut buffer = vec![0xEE; usize::try_from(length).expect("the kit reads little at once")];
    volume.read_at(bytes(offset), &mut buffer).await?;
    Ok(buffer)
}

pub(super) async fn write(volume: &dyn Volume, offset: u64, data: Vec<u8>) -> Result<()> {
    volume.write_at(bytes(offset), data.into()).await
}

/// Requires these bytes from `offset` on, and says where they begin to differ.
pub(super) async fn holds(
    volume: &dyn Volume,
    offset: u64,
    wanted: &[u8],
) -> Result<(), Violation> {
    let found = read(volume, offset, wanted.len() as u64).await?;
    if found == wanted {
        return Ok(());
    }
    let same = found.iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
    let at = offset + same as u64;
    let byte = |bytes: &[u8]| bytes.get(same).copied().unwrap_or_default();
    let (found, wanted) = (byte(&found), byte(wanted));
    Err(Violation::new(format!("byte {at} reads as {found:#04x} and should be {wanted:#04x}")))
}

pub(super) async fn is_zero(volume: &dyn Volume, from: u64, to: u64) -> Result<(), Violation> {
    for offset in (from..to).step_by(1 << 20) {
        let length = (to - offset).min(MIB);
        holds(volume, offset, &vec![0; usize::try_from(length).unwrap_or(0)]).await?;
    }
    Ok(())
}

pub(super) async fn report(
    store: &dyn BlockStore,
    drive: DriveId,
) -> Result<DriveReport, Violation> {
    let found = store.list().await?.into_iter().find(|report| report.spec.drive == drive);
    found.ok_or_else(|| Violation::new(format!("{drive} is not listed")))
}

pub(super) async fn array(
    store: &dyn BlockStore,
    array: ArrayId,
) -> Result<ArrayReport, Violation> {
    let found = store.capacity().await?.into_iter().find(|report| report.array == array);
    found.ok_or_else(|| Violation::new(format!("array {array} is gone from the report")))
}

/// The whole MiB that an array still has room for.
pub(super) fn room(array: &ArrayReport) -> u64 {
    array.capacity.saturating_sub(array.promised).get() / MIB * MIB
}

pub(super) async fn bs_1_create_survives_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let spec = spec(&*store, 1, MIB).await?;
    store.create(&spec).await?;
    let store = reopen(fixture, store).await?;
    let found = report(&*store, spec.drive).await?;
    require!(found.spec == spec, "created {spec:?}, after a crash {found:?}");
    is_zero(&*store.open(spec.drive, Epoch(1)).await?, 0, MIB).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_1_repeating_a_create_changes_nothing(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (spec, volume) = opened(&*store, 1).await?;
    let data = pattern(1, MIB);
    write(&*volume, 0, data.clone()).await?;
    volume.flush().await?;
    let before = (store.list().await?, store.capacity().await?);
    store.create(&spec).await?;
    let after = (store.list().await?, store.capacity().await?);
    require!(before == after, "before the repetition {before:?}, after it {after:?}");
    holds(&*volume, 0, &data).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_1_an_id_that_is_taken_is_refused(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (spec, _volume) = opened(&*store, 1).await?;
    let account = AccountId::from_uuid(Uuid::from_u128(0xbad));
    let mut others = vec![
        DriveSpec { size: bytes(2 * MIB), ..spec.clone() },
        DriveSpec { account, ..spec.clone() },
    ];
    if let [_, second, ..] = &*arrays(&*store).await? {
        others.push(DriveSpec { array: second.array, ..spec.clone() });
    }
    for other in others {
        let call = format!("creating {other:?} beside {spec:?}");
        refused(&call, store.create(&other).await, ErrorKind::ChangedMeanwhile)?;
    }
    let found = store.list().await?;
    let same = matches!(&*found, [report] if report.spec == spec);
    require!(same, "of refused creates something is left: {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn bs_2_new_drives_are_zeros(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let size = room(&arrays(&*store).await?[0]).min(8 * MIB);
    let old = spec(&*store, 1, size).await?;
    store.create(&old).await?;
    let volume = store.open(old.drive, Epoch(1)).await?;
    for offset in (0..size).step_by(1 << 20) {
        write(&*volume, offset, pattern(1, MIB)).await?;
    }
    volume.flush().await?;
    drop(volume);
    store.destroy(old.drive, FIRST).await?;
    for number in [1, 2] {
        let new = spec(&*store, number, size / 2 / MIB * MIB).await?;
        store.create(&new).await?;
        is_zero(&*store.open(new.drive, Epoch(1)).await?, 0, new.size.get()).await?;
    }
    Ok(Outcome::Kept)
}

pub(super) async fn bs_3_a_full_array_refuses_to_create(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let free = room(&arrays(&*store).await?[0]);
    let too_large = spec(&*store, 1, free + MIB).await?;
    refused("one MiB too many", store.create(&too_large).await, ErrorKind::NoCapacity)?;
    let half = spec(&*store, 2, free / 2).await?;
    store.create(&half).await?;
    let rest = spec(&*store, 3, free - free / 2).await?;
    store.create(&rest).await?;
    let one_more = spec(&*store, 4, MIB).await?;
    refused("one drive too many", store.create(&one_more).await, ErrorKind::NoCapacity)?;
    let full = array(&*store, rest.array).await?;
    require!(full.promised.get() == free, "with {free} bytes of drives: {full:?}");
    let found = store.list().await?;
    require!(found.len() == 2, "of refused creates something is left: {found:?}");
    Ok(Outcome::Kept)
}

pub(super) async fn bs_4_an_epoch_below_the_fence_is_refused(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (DriveSpec { drive, .. }, _volume) = opened(&*store, 1).await?;
    store.fence(drive, Epoch(5)).await?;
    refused(
        "an open at 4 below a fence at 5",
        store.open(drive, Epoch(4)).await,
        ErrorKind::Fenced,
    )?;
    let epoch = report(&*store, drive).await?.epoch;
    require!(epoch == Epoch(5), "opened at 1 and fenced at 5, the recorded epoch is {epoch}");
    is_zero(&*store.open(drive, Epoch(5)).await?, 0, MIB).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_4_opens_at_different_epochs_coexist(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (DriveSpec { drive, .. }, first) = opened(&*store, 1).await?;
    let third = store.open(drive, Epoch(3)).await?;
    let second = store.open(drive, Epoch(2)).await?;
    for (volume, salt) in [(&first, 1), (&third, 3), (&second, 2)] {
        write(&**volume, 0, pattern(salt, 4096)).await?;
        holds(&*first, 0, &pattern(salt, 4096)).await?;
    }
    let epoch = report(&*store, drive).await?.epoch;
    require!(epoch == Epoch(3), "opened at 1, 3 and 2, the recorded epoch is {epoch}");
    Ok(Outcome::Kept)
}

pub(super) async fn bs_4_the_highest_epoch_opened_survives_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (DriveSpec { drive, .. }, volume) = opened(&*store, 1).await?;
    drop((store.open(drive, Epoch(7)).await?, store.open(drive, Epoch(2)).await?, volume));
    let store = reopen(fixture, store).await?;
    let epoch = report(&*store, drive).await?.epoch;
    require!(epoch == Epoch(7), "opened at 1, 7 and 2, after a crash the epoch is {epoch}");
    Ok(Outcome::Kept)
}

pub(super) async fn bs_4_unknown_drives_are_not_found(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let answer = store.open(drive_id(9), Epoch(1)).await;
    refused("an open of a drive that never was", answer, ErrorKind::NotFound)?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_5_a_fence_cuts_older_volumes_and_no_others(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (DriveSpec { drive, .. }, old) = opened(&*store, 1).await?;
    let new = store.open(drive, Epoch(5)).await?;
    write(&*new, 0, pattern(1, MIB)).await?;
    for fence in [5, 5, 3] {
        store.fence(drive, Epoch(fence)).await?;
        let answer = write(&*old, 0, pattern(2, MIB)).await;
        refused("a write at 1 below a fence at 5", answer, ErrorKind::Fenced)?;
        holds(&*new, 0, &pattern(1, MIB)).await?;
    }
    let answer = store.open(drive, Epoch(4)).await;
    refused("an open at 4 after fences at 5 and then 3", answer, ErrorKind::Fenced)?;
    write(&*new, 0, pattern(3, MIB)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_5_a_fence_survives_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (DriveSpec { drive, .. }, volume) = opened(&*store, 1).await?;
    drop(volume);
    store.fence(drive, Epoch(5)).await?;
    let store = reopen(fixture, store).await?;
    let answer = store.open(drive, Epoch(4)).await;
    refused("after a crash an open at 4 below a fence at 5", answer, ErrorKind::Fenced)?;
    Ok(Outcome::Kept)
}

/// Begins a write, fences while it is under way, and looks at the drive when the fence stands and
/// again when the write has ended.
pub(super) async fn bs_5_no_write_lands_after_a_fence(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (DriveSpec { drive, .. }, old) = opened(&*store, 1).await?;
    let data = pattern(1, MIB);
    let mut writing = old.write_at(Bytes::ZERO, data.clone().into());
    let mut fencing = store.fence(drive, Epoch(2));
    let mut written = None;
    poll_fn(|context| {
        if written.is_none()
            && let Poll::Ready(answer) = writing.as_mut().poll(context)
        {
            written = Some(answer);
        }
        fencing.as_mut().poll(context)
    })
    .await?;
    let new = store.open(drive, Epoch(2)).await?;
    let fenced = read(&*new, 0, MIB).await?;
    let written = match written {
        Some(answer) => answer,
        None => writing.await,
    };
    let ended = read(&*new, 0, MIB).await?;
    require!(fenced == ended, "a write begun before the fence landed after it");
    require!(written.is_err() || ended == data, "a write reported success and is not there");
    Ok(Outcome::Kept)
}

pub(super) async fn bs_6_a_destroyed_drive_is_gone_and_its_room_free(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let before = store.capacity().await?;
    let (DriveSpec { drive, .. }, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    drop(volume);
    store.destroy(drive, FIRST).await?;
    let after = store.capacity().await?;
    require!(before == after, "before the drive {before:?}, after it {after:?}");
    let store = reopen(fixture, store).await?;
    let found = store.list().await?;
    require!(found.is_empty(), "destroyed, but after a crash listed: {found:?}");
    store.destroy(drive, FIRST).await?;
    let answer = store.open(drive, Epoch(2)).await;
    refused("an open of a destroyed drive", answer, ErrorKind::NotFound)?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_6_volumes_of_a_destroyed_drive_fail(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (spec, volume) = opened(&*store, 1).await?;
    store.destroy(spec.drive, FIRST).await?;
    let answer = write(&*volume, 0, pattern(1, 4096)).await;
    require!(answer.is_err(), "a volume of a destroyed drive can be written");
    store.create(&spec).await?;
    let answer = write(&*volume, 0, pattern(1, 4096)).await;
    require!(answer.is_err(), "a destroyed drive's volume writes to the next drive of that id");
    is_zero(&*store.open(spec.drive, Epoch(1)).await?, 0, MIB).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_6_an_older_tombstone_destroys_nothing(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let number = Generation::new(Era(2), 4);
    let spec = DriveSpec { generation: number, ..spec(&*store, 1, MIB).await? };
    store.create(&spec).await?;
    let volume = store.open(spec.drive, Epoch(1)).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    for older in [Generation::new(Era(2), 3), Generation::new(Era(1), 9)] {
        let call = format!("a tombstone of generation {older} for {number}");
        refused(&call, store.destroy(spec.drive, older).await, ErrorKind::Stale)?;
        holds(&*volume, 0, &pattern(1, MIB)).await?;
    }
    store.destroy(spec.drive, number.max(FIRST)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn bs_7_list_is_exact_also_after_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let arrays = arrays(&*store).await?;
    let mut wanted = Vec::new();
    for number in 1..=4_u8 {
        let spec = DriveSpec {
            array: arrays[usize::from(number) % arrays.len()].array,
            account: AccountId::from_uuid(Uuid::from_u128(number.into())),
            generation: Generation::new(Era(1), number.into()),
            ..spec(&*store, number, u64::from(number) * MIB).await?
        };
        store.create(&spec).await?;
        wanted.push(DriveReport { spec, epoch: Epoch(0) });
    }
    let destroyed = wanted.remove(1).spec;
    store.destroy(destroyed.drive, destroyed.generation).await?;
    drop(store.open(wanted[1].spec.drive, Epoch(6)).await?);
    wanted[1].epoch = Epoch(6);
    lists(&*store, &wanted).await?;
    let store = reopen(fixture, store).await?;
    lists(&*store, &wanted).await?;
    Ok(Outcome::Kept)
}

async fn lists(store: &dyn BlockStore, wanted: &[DriveReport]) -> Result<(), Violation> {
    let mut found = store.list().await?;
    found.sort_by_key(|report| report.spec.drive);
    require!(found == wanted, "{found:#?} is listed and should be {wanted:#?}");
    Ok(())
}
