//! Lenders with one defect each: a [`SimLend`] seen through a wrapper that breaks a clause.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use elasticstack_core::block::{
    Attachment, BlockStore, Borrowing, Lend, LendId, LendSpec, Volume, Writing,
};
use elasticstack_core::conformance::{BlockStoreFixture, LendFixture};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimLend, SimStore};

use crate::kits;
use crate::mutants::Mutant;

/// What is wrong with a lender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    LendsACopy,
    RepeatingCutsOff,
    LendsToTheLatest,
    SizesAreOld,
    SecretsAreNotAsked,
    EpochsAreNotAsked,
    WritesAreVolatile,
    FreesAreVolatile,
    ProtectsNothing,
    RefusesInSilence,
    SessionsStay,
    LoginsStay,
    LandsLate,
    UnknownWithdrawsFail,
    WithdrawsTheDrive,
    TellsOfWhatWas,
    ForgetsInTheNextLife,
}
use Defect::*;

pub(crate) const MUTANTS: &[Mutant<Defect>] = &[
    Mutant {
        defect: LendsACopy,
        breaks: "LE-1",
        fails: &[
            "le_1_what_is_lent_is_read_and_written",
            "le_1_repeating_a_lend_cuts_nobody_off",
            "le_1_a_grown_drive_is_known_to_its_borrower",
            "le_2_nobody_else_gets_in",
            "le_3_what_the_borrower_wrote_survives_a_crash",
            "le_5_repeating_a_withdrawal_changes_nothing",
        ],
    },
    Mutant {
        defect: RepeatingCutsOff,
        breaks: "LE-1",
        fails: &[
            "le_1_repeating_a_lend_cuts_nobody_off",
            "le_1_a_grown_drive_is_known_to_its_borrower",
            "le_7_lent_is_exact_in_the_next_life",
        ],
    },
    Mutant {
        defect: LendsToTheLatest,
        breaks: "LE-1",
        fails: &["le_1_a_lend_to_another_is_refused"],
    },
    Mutant {
        defect: SizesAreOld,
        breaks: "LE-1",
        fails: &["le_1_a_grown_drive_is_known_to_its_borrower"],
    },
    Mutant { defect: SecretsAreNotAsked, breaks: "LE-2", fails: &["le_2_nobody_else_gets_in"] },
    Mutant {
        defect: EpochsAreNotAsked,
        breaks: "LE-2",
        fails: &["le_2_nobody_else_gets_in", "le_6_other_lends_stay_as_they_are"],
    },
    Mutant {
        defect: WritesAreVolatile,
        breaks: "LE-3",
        fails: &["le_3_what_the_borrower_wrote_survives_a_crash"],
    },
    Mutant {
        defect: FreesAreVolatile,
        breaks: "LE-3",
        fails: &["le_3_what_the_borrower_wrote_survives_a_crash"],
    },
    Mutant {
        defect: ProtectsNothing,
        breaks: "LE-4",
        fails: &["le_4_a_lend_for_reading_refuses_writes"],
    },
    Mutant {
        defect: RefusesInSilence,
        breaks: "LE-4",
        fails: &["le_4_a_lend_for_reading_refuses_writes"],
    },
    Mutant {
        defect: SessionsStay,
        breaks: "LE-5",
        fails: &[
            "le_5_after_a_withdrawal_nobody_gets_in_and_nothing_is_written",
            "le_6_other_lends_stay_as_they_are",
            "le_7_lent_is_exact_in_the_next_life",
        ],
    },
    Mutant {
        defect: LoginsStay,
        breaks: "LE-5",
        fails: &[
            "le_5_after_a_withdrawal_nobody_gets_in_and_nothing_is_written",
            "le_7_lent_is_exact_in_the_next_life",
        ],
    },
    Mutant {
        defect: LandsLate,
        breaks: "LE-5",
        fails: &["le_5_after_a_withdrawal_nobody_gets_in_and_nothing_is_written"],
    },
    Mutant {
        defect: UnknownWithdrawsFail,
        breaks: "LE-5",
        fails: &["le_5_repeating_a_withdrawal_changes_nothing"],
    },
    Mutant {
        defect: WithdrawsTheDrive,
        breaks: "LE-6",
        fails: &[
            "le_5_repeating_a_withdrawal_changes_nothing",
            "le_6_other_lends_stay_as_they_are",
        ],
    },
    Mutant {
        defect: TellsOfWhatWas,
        breaks: "LE-7",
        fails: &[
            "le_5_repeating_a_withdrawal_changes_nothing",
            "le_6_other_lends_stay_as_they_are",
            "le_7_lent_is_exact",
            "le_7_lent_is_exact_in_the_next_life",
        ],
    },
    Mutant {
        defect: ForgetsInTheNextLife,
        breaks: "LE-7",
        fails: &["le_7_lent_is_exact_in_the_next_life"],
    },
];

/// The lender, its store and, being simulated, their fixture.
#[derive(Clone)]
pub(crate) struct MutantLend {
    inner: SimLend,
    store: SimStore,
    defect: Defect,
    past: Arc<Mutex<Past>>,
}

/// What a defect needs to know of the past.
#[derive(Default)]
struct Past {
    lends: BTreeMap<LendId, (LendSpec, Arc<dyn Volume>)>,
    was_restarted: bool,
}

impl MutantLend {
    pub(crate) fn new(defect: Defect) -> Self {
        let (inner, past) = (SimLend::default(), Arc::default());
        Self { inner, store: kits::store(), defect, past }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap()
    }
}

#[async_trait]
impl Lend for MutantLend {
    fn portal(&self) -> SocketAddr {
        self.inner.portal()
    }

    async fn lend(&self, spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<()> {
        let is_lent = self.inner.lent().await?.contains(&spec.lend);
        let same = self.past().lends.get(&spec.lend).is_some_and(|(known, _)| known == spec);
        match self.defect {
            RepeatingCutsOff if is_lent && same => self.inner.withdraw(spec.lend).await?,
            LendsToTheLatest if is_lent && !same => self.inner.withdraw(spec.lend).await?,
            SizesAreOld if is_lent && same => return Ok(()),
            _ => {}
        }
        self.past().lends.insert(spec.lend, (spec.clone(), Arc::clone(&volume)));
        let spec = match self.defect {
            ProtectsNothing | RefusesInSilence => {
                LendSpec { writing: Writing::Allowed, ..spec.clone() }
            }
            _ => spec.clone(),
        };
        if self.has(LendsACopy) && !is_lent {
            let copy = SimStore::new(2, &[Bytes::from_mib(8)]);
            let array = copy.capacity().await?[0].array;
            let drive = elasticstack_core::block::DriveSpec {
                drive: spec.lend.drive,
                array,
                account: copy.id(),
                size: volume.size(),
                generation: Generation::new(Era(1), 1),
            };
            copy.create(&drive).await?;
            let copied = copy.open(spec.lend.drive, spec.lend.epoch).await?;
            let mut bytes = vec![0; usize::try_from(volume.size().get()).unwrap()];
            volume.read_at(Bytes::ZERO, &mut bytes).await?;
            copied.write_at(Bytes::ZERO, bytes.into()).await?;
            return self.inner.lend(&spec, copied).await;
        }
        self.inner.lend(&spec, volume).await
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        let is_lent = self.inner.lent().await?.contains(&lend);
        if self.has(UnknownWithdrawsFail) && !is_lent {
            return Err(Error::new(ErrorKind::NotFound, "no such lend"));
        }
        for other in self.inner.lent().await? {
            if self.has(WithdrawsTheDrive) && other.drive == lend.drive {
                self.inner.withdraw(other).await?;
            }
        }
        self.inner.withdraw(lend).await
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        if self.has(TellsOfWhatWas) {
            return Ok(self.past().lends.keys().copied().collect());
        }
        if self.has(ForgetsInTheNextLife) && self.past().was_restarted {
            return Ok(Vec::new());
        }
        self.inner.lent().await
    }
}

#[async_trait]
impl BlockStoreFixture for MutantLend {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        BlockStoreFixture::start(&self.store).await
    }

    async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()> {
        BlockStoreFixture::crash(&self.store, store).await
    }
}

#[async_trait]
impl LendFixture for MutantLend {
    async fn lender(&self) -> Result<Arc<dyn Lend>> {
        Ok(Arc::new(self.clone()))
    }

    async fn restart(&self, lender: Arc<dyn Lend>) -> Result<Arc<dyn Lend>> {
        self.past().was_restarted = true;
        Ok(lender)
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        let mut asked = borrowing.clone();
        let found = {
            let past = self.past();
            let of_drive = |lend: &&LendId| lend.drive == borrowing.lend.drive;
            let found = past.lends.keys().find(of_drive).filter(|_| self.has(EpochsAreNotAsked));
            asked.lend = found.copied().unwrap_or(asked.lend);
            past.lends.get(&asked.lend).cloned()
        };
        let Some((spec, volume)) = found else { return Err(nothing()) };
        if self.has(SecretsAreNotAsked) {
            asked.secret = spec.secret.clone();
        }
        let inner = match self.inner.borrow(&asked) {
            Err(error) if self.has(LoginsStay) && error.kind() == ErrorKind::NotFound => {
                Arc::clone(&volume)
            }
            inner => inner?,
        };
        let (lender, lend) = (self.clone(), asked.lend);
        Ok(Arc::new(MutantBorrowed { lender, lend, inner, volume, writing: spec.writing }))
    }
}

fn nothing() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such lend")
}

/// A lent drive, as the borrower of a mutant sees it.
struct MutantBorrowed {
    lender: MutantLend,
    lend: LendId,
    inner: Arc<dyn Volume>,
    volume: Arc<dyn Volume>,
    writing: Writing,
}

impl MutantBorrowed {
    /// Whether it is lent, for writing too.
    async fn is_lent(&self) -> Result<bool> {
        let lent = self.lender.inner.lent().await?;
        Ok(lent.contains(&self.lend) && self.writing == Writing::Allowed)
    }
}

#[async_trait]
impl Volume for MutantBorrowed {
    fn size(&self) -> Bytes {
        self.inner.size()
    }

    fn block_size(&self) -> Bytes {
        self.inner.block_size()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.inner.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        match self.lender.defect {
            RefusesInSilence if self.writing == Writing::Refused => Ok(()),
            SessionsStay if self.writing == Writing::Allowed => {
                self.volume.write_at(offset, data).await?;
                self.volume.flush().await
            }
            WritesAreVolatile if self.is_lent().await? => self.volume.write_at(offset, data).await,
            LandsLate if self.is_lent().await? => {
                for _ in 0..3 {
                    kits::give_way().await;
                }
                self.volume.write_at(offset, data).await?;
                self.volume.flush().await
            }
            _ => self.inner.write_at(offset, data).await,
        }
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        match self.lender.defect {
            RefusesInSilence if self.writing == Writing::Refused => Ok(()),
            FreesAreVolatile if self.is_lent().await? => self.volume.discard(offset, length).await,
            _ => self.inner.discard(offset, length).await,
        }
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}
