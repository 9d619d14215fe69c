//! The lend kit: the fixture, and the checks of [`Lend`]'s clauses.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use uuid::Uuid;

use super::blockstore::{
    BlockStoreFixture, MIB, bytes, holds, opened, pattern, read, reopen, write,
};
use super::capability::resize;
use super::snapshots::give_way;
use super::{Outcome, Violation, refused, require};
use crate::block::{BlockStore, Borrowing, DriveSpec, Lend, LendId, LendSpec, Volume, Writing};
use crate::error::{ErrorKind, Result};
use crate::generation::Epoch;
use crate::id::ServerId;
use crate::secret::Secret;

const NO_RESIZER: Outcome = Outcome::Skipped { missing: Cow::Borrowed("BlockStore::resizer") };

/// How the kit handles a lender under test, beside a store whose drives it lends. Each check gets a
/// fixture of its own; dropping it cleans up.
#[async_trait]
pub trait LendFixture: BlockStoreFixture {
    /// The lender, which lends nothing yet.
    ///
    /// # Errors
    /// Whatever kept it from starting.
    async fn lender(&self) -> Result<Arc<dyn Lend>>;

    /// Ends the process that lends by `lender`, without a goodbye, and gives the lender of its next
    /// life. Nobody else holds it any more.
    ///
    /// # Errors
    /// Whatever kept the next life from starting.
    async fn restart(&self, lender: Arc<dyn Lend>) -> Result<Arc<dyn Lend>>;

    /// Logs in as a borrower on another host does. An empty secret is none. What the target protects
    /// against writing is `OutOfScope` to write.
    ///
    /// # Errors
    /// Whatever kept the borrower from getting in.
    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>>;
}

#[doc(hidden)]
#[macro_export]
macro_rules! __lend_checks {
    ($then:ident, $($arguments:tt)*) => {
        $crate::$then! {
            $($arguments)*;
            lend:
                le_1_what_is_lent_is_read_and_written,
                le_1_repeating_a_lend_cuts_nobody_off,
                le_1_a_lend_to_another_is_refused,
                le_1_a_grown_drive_is_known_to_its_borrower,
                le_2_nobody_else_gets_in,
                le_3_what_the_borrower_wrote_survives_a_crash,
                le_4_a_lend_for_reading_refuses_writes,
                le_5_after_a_withdrawal_nobody_gets_in_and_nothing_is_written,
                le_5_repeating_a_withdrawal_changes_nothing,
                le_6_other_lends_stay_as_they_are,
                le_7_lent_is_exact,
                le_7_lent_is_exact_in_the_next_life;
        }
    };
}

/// A server that borrows, by its number.
fn server(number: u8) -> ServerId {
    ServerId::from_uuid(Uuid::from_u128(0x5e2_0000_4000_8000_0000_0000_0000 + u128::from(number)))
}

/// The first server's lend of a drive under this epoch.
fn lend_of(drive: &DriveSpec, epoch: u64) -> LendSpec {
    LendSpec {
        lend: LendId { drive: drive.drive, epoch: Epoch(epoch) },
        borrower: server(1),
        writing: Writing::Allowed,
        secret: Secret::new("a secret of the kit"),
    }
}

/// How whoever was named in a lend reaches it.
fn borrowing(lender: &dyn Lend, spec: &LendSpec) -> Borrowing {
    let LendSpec { lend, borrower, writing: _, secret } = spec.clone();
    Borrowing { portal: lender.portal(), lend, borrower, secret }
}

/// A drive of 1 MiB that is lent under epoch 1 and borrowed.
struct Begun {
    store: Arc<dyn BlockStore>,
    lender: Arc<dyn Lend>,
    drive: DriveSpec,
    volume: Arc<dyn Volume>,
    spec: LendSpec,
    borrowed: Arc<dyn Volume>,
}

async fn begin(fixture: &dyn LendFixture) -> Result<Begun, Violation> {
    let (store, lender) = (fixture.start().await?, fixture.lender().await?);
    let (drive, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    let spec = lend_of(&drive, 1);
    lender.lend(&spec, Arc::clone(&volume)).await?;
    let borrowed = fixture.borrow(&borrowing(&*lender, &spec)).await?;
    Ok(Begun { store, lender, drive, volume, spec, borrowed })
}

/// Requires that a borrower is kept out.
async fn kept_out(
    fixture: &dyn LendFixture,
    who: &str,
    borrowing: &Borrowing,
) -> Result<(), Violation> {
    let entered = fixture.borrow(borrowing).await.is_ok();
    require!(!entered, "{who} gets in to {}", borrowing.lend);
    Ok(())
}

/// Requires that these and no others are lent.
async fn lent(lender: &dyn Lend, wanted: &[LendId]) -> Result<(), Violation> {
    let (mut found, mut wanted) = (lender.lent().await?, wanted.to_vec());
    found.sort();
    wanted.sort();
    require!(found == wanted, "{wanted:?} are lent, and told are {found:?}");
    Ok(())
}

pub(super) async fn le_1_what_is_lent_is_read_and_written(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { lender: _lender, volume, borrowed, .. } = begin(fixture).await?;
    let size = borrowed.size();
    require!(size == volume.size(), "a drive of {} is {size} to its borrower", volume.size());
    holds(&*borrowed, 0, &pattern(1, MIB)).await?;
    write(&*borrowed, MIB / 2, pattern(2, MIB / 2)).await?;
    borrowed.discard(bytes(0), bytes(MIB / 4)).await?;
    borrowed.flush().await?;
    for volume in [volume, borrowed] {
        holds(&*volume, 0, &[0; 4096]).await?;
        holds(&*volume, MIB / 4, &pattern(1, MIB)[half(MIB) / 2..half(MIB)]).await?;
        holds(&*volume, MIB / 2, &pattern(2, MIB / 2)).await?;
    }
    Ok(Outcome::Kept)
}

fn half(length: u64) -> usize {
    usize::try_from(length / 2).expect("the kit's drives are small")
}

pub(super) async fn le_1_repeating_a_lend_cuts_nobody_off(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { lender, volume, spec, borrowed, .. } = begin(fixture).await?;
    lender.lend(&spec, Arc::clone(&volume)).await?;
    write(&*borrowed, 0, pattern(2, 4096)).await?;
    holds(&*volume, 0, &pattern(2, 4096)).await?;
    lent(&*lender, &[spec.lend]).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn le_1_a_lend_to_another_is_refused(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { lender, volume, spec, borrowed, .. } = begin(fixture).await?;
    let other = LendSpec { borrower: server(2), ..spec };
    let answer = lender.lend(&other, Arc::clone(&volume)).await;
    refused("a second borrower's lend", answer, ErrorKind::ChangedMeanwhile)?;
    kept_out(fixture, "a borrower that was refused", &borrowing(&*lender, &other)).await?;
    write(&*borrowed, 0, pattern(2, 4096)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn le_1_a_grown_drive_is_known_to_its_borrower(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { store, lender, drive, volume, spec, borrowed } = begin(fixture).await?;
    if store.resizer().is_none() {
        return Ok(NO_RESIZER);
    }
    resize(&*store, &drive, 2 * MIB, 2).await?;
    lender.lend(&spec, Arc::clone(&volume)).await?;
    holds(&*borrowed, 0, &pattern(1, MIB)).await?;
    let size = borrowed.size();
    require!(size == bytes(2 * MIB), "a drive of 2 MiB is {size} to its borrower");
    write(&*borrowed, 2 * MIB - 4096, pattern(2, 4096)).await?;
    holds(&*volume, 2 * MIB - 4096, &pattern(2, 4096)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn le_2_nobody_else_gets_in(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { lender, volume, spec, borrowed, .. } = begin(fixture).await?;
    let right = borrowing(&*lender, &spec);
    let (none, wrong) = (Secret::new(""), Secret::new("a secret of the kjt"));
    let old = LendId { epoch: Epoch(0), ..spec.lend };
    for (who, wrong) in [
        ("another server", Borrowing { borrower: server(2), ..right.clone() }),
        ("another secret", Borrowing { secret: wrong, ..right.clone() }),
        ("a borrower without a secret", Borrowing { secret: none, ..right.clone() }),
        ("a borrower of another epoch", Borrowing { lend: old, ..right.clone() }),
    ] {
        kept_out(fixture, who, &wrong).await?;
    }
    write(&*borrowed, 0, pattern(2, 4096)).await?;
    holds(&*volume, 0, &pattern(2, 4096)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn le_3_what_the_borrower_wrote_survives_a_crash(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { store, lender, drive, volume, borrowed, .. } = begin(fixture).await?;
    // Another drive, so that what makes one durable does nothing for the other.
    let (freed, other) = opened(&*store, 2).await?;
    write(&*other, 0, pattern(1, MIB)).await?;
    other.flush().await?;
    let spec = lend_of(&freed, 1);
    lender.lend(&spec, Arc::clone(&other)).await?;
    let borrowed_too = fixture.borrow(&borrowing(&*lender, &spec)).await?;
    write(&*borrowed, 0, pattern(2, MIB)).await?;
    borrowed_too.discard(bytes(0), bytes(MIB / 2)).await?;
    drop((borrowed, borrowed_too, volume, other, lender));
    let store = reopen(fixture, store).await?;
    holds(&*store.open(drive.drive, Epoch(1)).await?, 0, &pattern(2, MIB)).await?;
    let freed = store.open(freed.drive, Epoch(1)).await?;
    holds(&*freed, 0, &vec![0; half(MIB)]).await?;
    holds(&*freed, MIB / 2, &pattern(1, MIB)[half(MIB)..]).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn le_4_a_lend_for_reading_refuses_writes(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let (store, lender) = (fixture.start().await?, fixture.lender().await?);
    let (drive, volume) = opened(&*store, 1).await?;
    write(&*volume, 0, pattern(1, MIB)).await?;
    let spec = LendSpec { writing: Writing::Refused, ..lend_of(&drive, 1) };
    lender.lend(&spec, Arc::clone(&volume)).await?;
    let borrowed = fixture.borrow(&borrowing(&*lender, &spec)).await?;
    for offset in [0, MIB / 2] {
        let answer = write(&*borrowed, offset, pattern(2, 8192)).await;
        refused("writing what is lent for reading", answer, ErrorKind::OutOfScope)?;
        let answer = borrowed.discard(bytes(offset), bytes(8192)).await;
        refused("freeing what is lent for reading", answer, ErrorKind::OutOfScope)?;
    }
    for volume in [volume, borrowed] {
        holds(&*volume, 0, &pattern(1, MIB)).await?;
    }
    Ok(Outcome::Kept)
}

/// The borrower writes on and on while the lend is withdrawn. What the drive holds when that has
/// returned, it holds afterwards.
pub(super) async fn le_5_after_a_withdrawal_nobody_gets_in_and_nothing_is_written(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { lender, volume, spec, borrowed, .. } = begin(fixture).await?;
    write(&*borrowed, 0, vec![1; 4096]).await?;
    let writing = async {
        for round in 2..=u8::MAX {
            if write(&*borrowed, 0, vec![round; 4096]).await.is_err() {
                break;
            }
            give_way().await;
        }
    };
    let withdrawing = async {
        lender.withdraw(spec.lend).await?;
        read(&*volume, 0, MIB).await
    };
    let before = both(writing, withdrawing).await?;
    let wrote = write(&*borrowed, 0, vec![0; 4096]).await.is_ok();
    require!(!wrote, "a borrower whose lend was withdrawn writes");
    let size = borrowed.size();
    require!(size == bytes(MIB), "without its lend a drive of 1 MiB is {size} to its borrower");
    let same = read(&*volume, 0, MIB).await? == before;
    require!(same, "after a withdrawal the drive has changed");
    kept_out(fixture, "whoever had the lend", &borrowing(&*lender, &spec)).await?;
    Ok(Outcome::Kept)
}

/// Runs both to their ends and gives what the second came to.
async fn both<T>(first: impl Future<Output = ()>, second: impl Future<Output = T>) -> T {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut is_over, mut result) = (false, None);
    poll_fn(move |context| {
        is_over = is_over || first.as_mut().poll(context).is_ready();
        if result.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(context)
        {
            result = Some(value);
        }
        match result.take() {
            Some(value) if is_over => Poll::Ready(value),
            unfinished => {
                result = unfinished;
                Poll::Pending
            }
        }
    })
    .await
}

pub(super) async fn le_5_repeating_a_withdrawal_changes_nothing(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { lender, volume, spec, borrowed, .. } = begin(fixture).await?;
    let never = LendId { epoch: Epoch(9), ..spec.lend };
    lender.withdraw(never).await?;
    write(&*borrowed, 0, pattern(2, 4096)).await?;
    lent(&*lender, &[spec.lend]).await?;
    for _ in 0..2 {
        lender.withdraw(spec.lend).await?;
        lent(&*lender, &[]).await?;
    }
    // It can be lent again, to whoever is next.
    let next = LendSpec { borrower: server(2), ..spec };
    lender.lend(&next, Arc::clone(&volume)).await?;
    let borrowed = fixture.borrow(&borrowing(&*lender, &next)).await?;
    holds(&*borrowed, 0, &pattern(2, 4096)).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn le_6_other_lends_stay_as_they_are(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { store, lender, drive, spec, borrowed, .. } = begin(fixture).await?;
    let (second, other) = opened(&*store, 2).await?;
    let same = store.open(drive.drive, Epoch(2)).await?;
    let mut others = Vec::new();
    for (drive, epoch, volume) in [(&drive, 2, same), (&second, 1, other)] {
        let spec = LendSpec { borrower: server(2), ..lend_of(drive, epoch) };
        lender.lend(&spec, volume).await?;
        others.push((spec.lend, fixture.borrow(&borrowing(&*lender, &spec)).await?));
    }
    lender.withdraw(spec.lend).await?;
    let wrote = write(&*borrowed, 0, pattern(2, 4096)).await.is_ok();
    require!(!wrote, "a borrower whose lend was withdrawn writes");
    for (lend, borrowed) in &others {
        let went_on = write(&**borrowed, 0, pattern(3, 4096)).await;
        require!(went_on.is_ok(), "when {} was withdrawn, {lend} ended: {went_on:?}", spec.lend);
        holds(&**borrowed, 0, &pattern(3, 4096)).await?;
    }
    let others: Vec<_> = others.iter().map(|(lend, _)| *lend).collect();
    lent(&*lender, &others).await?;
    Ok(Outcome::Kept)
}

pub(super) async fn le_7_lent_is_exact(fixture: &dyn LendFixture) -> Result<Outcome, Violation> {
    let (store, lender) = (fixture.start().await?, fixture.lender().await?);
    lent(&*lender, &[]).await?;
    let mut lends = Vec::new();
    for number in [1, 2, 3] {
        let (drive, volume) = opened(&*store, number).await?;
        let spec = lend_of(&drive, number.into());
        lender.lend(&spec, volume).await?;
        lends.push(spec.lend);
        lent(&*lender, &lends).await?;
    }
    lender.withdraw(lends.remove(1)).await?;
    lent(&*lender, &lends).await.map(|()| Outcome::Kept)
}

/// In the next life of the process that lent, whatever is told as lent goes on, and whatever is not
/// is over.
pub(super) async fn le_7_lent_is_exact_in_the_next_life(
    fixture: &dyn LendFixture,
) -> Result<Outcome, Violation> {
    let Begun { lender, volume, spec, borrowed, .. } = begin(fixture).await?;
    let right = borrowing(&*lender, &spec);
    let lender = fixture.restart(lender).await?;
    let right = Borrowing { portal: lender.portal(), ..right };
    if lender.lent().await? == [spec.lend] {
        write(&*borrowed, 0, pattern(2, 4096)).await?;
        lender.lend(&spec, Arc::clone(&volume)).await?;
        write(&*borrowed, 0, pattern(3, 4096)).await?;
        lent(&*lender, &[spec.lend]).await?;
        lender.withdraw(spec.lend).await?;
    }
    lent(&*lender, &[]).await?;
    let wrote = write(&*borrowed, 0, pattern(4, 4096)).await.is_ok();
    require!(!wrote, "{} is not told as lent, and its borrower writes", spec.lend);
    kept_out(fixture, "a borrower of what is not told as lent", &right).await?;
    lender.lend(&spec, volume).await?;
    let borrowed = fixture.borrow(&right).await?;
    write(&*borrowed, 0, pattern(5, 4096)).await?;
    Ok(Outcome::Kept)
}
