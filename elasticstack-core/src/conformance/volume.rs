//! The checks of [`Volume`](crate::block::Volume)'s clauses.

use super::blockstore::{
    BlockStoreFixture, MIB, bytes, holds, is_zero, opened, pattern, read, reopen, write,
};
use super::capability::{NO_RESIZER, resize};
use super::{Outcome, Violation, refused, require};
use crate::error::{ErrorKind, Result};
use crate::generation::Epoch;
use crate::sim::SimRng;
use crate::units::Bytes;

/// Random writes and discards through two volumes, against a row of bytes.
pub(super) async fn vo_1_reads_see_writes_and_discards(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (spec, first) = opened(&*store, 1).await?;
    let volumes = [first, store.open(spec.drive, Epoch(2)).await?];
    let mut model = vec![0_u8; 1 << 20];
    let mut rng = SimRng::new(1);
    for step in 0..64_u8 {
        let offset = rng.below(MIB);
        let length = rng.below(MIB / 8).min(MIB - offset);
        let range = index(offset)..index(offset + length);
        let volume = &volumes[index(rng.below(2))];
        if rng.one_in(3) {
            volume.discard(bytes(offset), bytes(length)).await?;
            model[range].fill(0);
        } else {
            let data = pattern(step, length);
            model[range].copy_from_slice(&data);
            write(&**volume, offset, data).await?;
        }
        for volume in &volumes {
            holds(&**volume, 0, &model).await?;
        }
    }
    Ok(Outcome::Kept)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("the kit's drives are small")
}

pub(super) async fn vo_2_flushed_bytes_survive_a_crash(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (spec, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    volume.flush().await?;
    volume.discard(Bytes::ZERO, bytes(MIB / 2)).await?;
    volume.write_through(bytes(MIB / 4), pattern(2, MIB / 4).into()).await?;
    drop(volume);
    let store = reopen(fixture, store).await?;
    let volume = store.open(spec.drive, Epoch(1)).await?;
    is_zero(&*volume, 0, MIB / 4).await?;
    holds(&*volume, MIB / 4, &pattern(2, MIB / 4)).await?;
    holds(&*volume, MIB / 2, &pattern(1, MIB)[index(MIB / 2)..]).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn vo_3_accesses_past_the_end_change_nothing(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (_, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    let far = Bytes::try_from(u64::MAX >> 1).unwrap_or(Bytes::ZERO);
    for offset in [bytes(MIB - 4096), bytes(MIB), far] {
        let call = format!("8192 bytes at {} of 1 MiB", offset.get());
        let answer = volume.write_at(offset, pattern(2, 8192).into()).await;
        refused(&format!("writing {call}"), answer, ErrorKind::InvalidValue)?;
        let answer = volume.discard(offset, bytes(8192)).await;
        refused(&format!("discarding {call}"), answer, ErrorKind::InvalidValue)?;
        let answer = volume.read_at(offset, &mut [0; 8192]).await;
        refused(&format!("reading {call}"), answer, ErrorKind::InvalidValue)?;
        holds(&*volume, 0, &pattern(1, MIB)).await?;
    }
    let answer = volume.discard(bytes(1), far).await;
    refused("discarding beyond every size", answer, ErrorKind::InvalidValue)?;
    holds(&*volume, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn vo_3_the_end_moves_with_the_drive(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    let (spec, volume) = opened(&*store, 1).await?;
    for (generation, size) in [(2, 3 * MIB), (3, 2 * MIB)] {
        resize(&*store, &spec, size, generation).await?;
        let found = volume.size();
        require!(found == bytes(size), "resized to {size} bytes, its volume tells {found}");
        write(&*volume, size - 4096, pattern(1, 4096)).await?;
        let answer = write(&*volume, size, pattern(1, 4096)).await;
        refused("writing past the new end", answer, ErrorKind::InvalidValue)?;
    }
    Ok(Outcome::Kept)
}

pub(super) async fn vo_4_discarded_ranges_read_as_zeros(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (_, volume) = opened(&*store, 1).await?;
    for (from, to) in [(0, MIB), (4096, 8192), (1, 2), (4095, 12289), (MIB - 1, MIB), (5, 5)] {
        let data = pattern(1, MIB);
        write(&*volume, 0, data.clone()).await?;
        volume.discard(bytes(from), bytes(to - from)).await?;
        holds(&*volume, 0, &data[..index(from)]).await?;
        is_zero(&*volume, from, to).await?;
        holds(&*volume, to, &data[index(to)..]).await?;
    }
    Ok(Outcome::Kept)
}

pub(super) async fn vo_5_a_fenced_volume_refuses_every_call(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (spec, old) = opened(&*store, 1).await?;
    write(&*old, 0, pattern(1, MIB)).await?;
    old.flush().await?;
    store.fence(spec.drive, Epoch(2)).await?;
    let fenced = ErrorKind::Fenced;
    refused("a read", old.read_at(Bytes::ZERO, &mut [0; 512]).await, fenced)?;
    refused("a write", write(&*old, 0, pattern(2, 512)).await, fenced)?;
    refused("a discard", old.discard(Bytes::ZERO, bytes(512)).await, fenced)?;
    refused("a flush", old.flush().await, fenced)?;
    refused("next_data", old.next_data(Bytes::ZERO).await, fenced)?;
    holds(&*store.open(spec.drive, Epoch(2)).await?, 0, &pattern(1, MIB)).await?;
    Ok(Outcome::Kept)
}

/// Walks a drive with a few far-apart bytes by `next_data`: what is passed over must be zeros.
pub(super) async fn vo_6_next_data_passes_over_nothing(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (_, volume) = opened(&*store, 1).await?;
    for offset in [0, 70_000, 300_000, MIB - 1] {
        write(&*volume, offset, vec![1]).await?;
    }
    volume.discard(Bytes::ZERO, bytes(4096)).await?;
    let contents = read(&*volume, 0, MIB).await?;
    let mut at = 0;
    while let Some((start, length)) = volume.next_data(bytes(at)).await? {
        let (start, end) = (start.get(), start.get().saturating_add(length.get()));
        let forward = at <= start && start < end && end <= MIB;
        require!(forward, "asked from {at} of {MIB} on, next_data tells {start} to {end}");
        passed(&contents, at, start)?;
        at = end;
    }
    passed(&contents, at, MIB)?;
    Ok(Outcome::Kept)
}

/// Whoever copies a drive looks at its size first: were that nothing, the copy would end there, whole.
pub(super) async fn vo_7_the_size_outlasts_the_access(
    fixture: &dyn BlockStoreFixture,
) -> Result<Outcome, Violation> {
    let store = fixture.start().await?;
    let (spec, volume) = opened(&*store, 1).await?;
    store.fence(spec.drive, Epoch(2)).await?;
    let fenced = volume.size();
    store.destroy(spec.drive, spec.generation).await?;
    for (what, size) in [("fenced", fenced), ("destroyed", volume.size())] {
        require!(size == bytes(MIB), "a drive of 1 MiB that is {what} has {size} to its volume");
    }
    Ok(Outcome::Kept)
}

fn passed(contents: &[u8], from: u64, to: u64) -> Result<(), Violation> {
    let skipped = &contents[index(from)..index(to)];
    let zeros = skipped.iter().all(|byte| *byte == 0);
    require!(zeros, "next_data passed over data between {from} and {to}");
    Ok(())
}
