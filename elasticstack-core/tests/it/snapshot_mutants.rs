//! Block stores with one defect each in their snapshots: a [`SimStore`] seen through a wrapper that
//! breaks a clause.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes as Data;
use elasticstack_core::block::{
    ArrayReport, BlockStore, DriveReport, DriveSpec, Resize, SnapshotReport, Snapshots, Volume,
    Writers,
};
use elasticstack_core::conformance::BlockStoreFixture;
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimStore;

use crate::kits;
use crate::mutants::Mutant;

/// What is wrong with a store's snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    SnapshotsTakeNoRoom,
    SnapshotsAreVolatile,
    SnapshotsAreTorn,
    TakesAnew,
    TakesAnyDrive,
    GoesWithItsDrive,
    RestoresNothing,
    RestoresTheTailToo,
    RestoreFencesNothing,
    OldRestoresSucceed,
    CutsOffWhatDoesNotFit,
    DestroyKeepsTheRoom,
    DestroyIsVolatile,
    ForgetsSizes,
}
use Defect::*;

pub(crate) const MUTANTS: &[Mutant<Defect>] = &[
    Mutant {
        defect: SnapshotsTakeNoRoom,
        breaks: "BS-3",
        fails: &["bs_3_a_full_array_takes_no_snapshot"],
    },
    Mutant {
        defect: SnapshotsAreVolatile,
        breaks: "SN-1",
        fails: &[
            "sn_1_what_was_flushed_is_in_a_snapshot_and_survives_a_crash",
            "sn_4_a_restored_drive_reads_as_the_snapshot_also_after_a_crash",
            "sn_6_list_is_exact_also_after_a_crash",
        ],
    },
    Mutant {
        defect: SnapshotsAreTorn,
        breaks: "SN-1",
        fails: &["sn_1_a_snapshot_of_a_drive_that_is_written_is_of_one_instant"],
    },
    Mutant { defect: TakesAnew, breaks: "SN-2", fails: &["sn_2_repeating_a_take_changes_nothing"] },
    Mutant {
        defect: TakesAnyDrive,
        breaks: "SN-2",
        fails: &["sn_2_an_id_that_is_taken_is_refused"],
    },
    Mutant {
        defect: GoesWithItsDrive,
        breaks: "SN-3",
        fails: &[
            "sn_3_a_snapshot_stays_whatever_becomes_of_its_drive",
            "sn_6_list_is_exact_also_after_a_crash",
        ],
    },
    Mutant {
        defect: RestoresNothing,
        breaks: "SN-4",
        fails: &[
            "sn_1_what_was_flushed_is_in_a_snapshot_and_survives_a_crash",
            "sn_2_repeating_a_take_changes_nothing",
            "sn_3_a_snapshot_stays_whatever_becomes_of_its_drive",
            "sn_4_a_restored_drive_reads_as_the_snapshot_also_after_a_crash",
            "sn_4_a_restore_of_an_older_epoch_changes_nothing",
            "sn_4_a_drive_that_is_too_small_is_left_alone",
        ],
    },
    Mutant {
        defect: RestoresTheTailToo,
        breaks: "SN-4",
        fails: &["sn_4_a_restored_drive_reads_as_the_snapshot_also_after_a_crash"],
    },
    Mutant {
        defect: RestoreFencesNothing,
        breaks: "SN-4",
        fails: &["sn_4_a_restore_fences_older_volumes"],
    },
    Mutant {
        defect: OldRestoresSucceed,
        breaks: "SN-4",
        fails: &["sn_4_a_restore_of_an_older_epoch_changes_nothing"],
    },
    Mutant {
        defect: CutsOffWhatDoesNotFit,
        breaks: "SN-4",
        fails: &["sn_4_a_drive_that_is_too_small_is_left_alone"],
    },
    Mutant {
        defect: DestroyKeepsTheRoom,
        breaks: "SN-5",
        fails: &["sn_5_a_destroyed_snapshot_is_gone_and_its_room_free"],
    },
    Mutant {
        defect: DestroyIsVolatile,
        breaks: "SN-5",
        fails: &[
            "sn_5_a_destroyed_snapshot_is_gone_and_its_room_free",
            "sn_6_list_is_exact_also_after_a_crash",
        ],
    },
    Mutant {
        defect: ForgetsSizes,
        breaks: "SN-6",
        fails: &[
            "sn_1_what_was_flushed_is_in_a_snapshot_and_survives_a_crash",
            "sn_2_an_id_that_is_taken_is_refused",
            "sn_3_a_snapshot_stays_whatever_becomes_of_its_drive",
            "sn_6_list_is_exact_also_after_a_crash",
        ],
    },
];

/// The store and, being simulated, its fixture.
#[derive(Clone)]
pub(crate) struct MutantSnapshots {
    inner: SimStore,
    defect: Defect,
    memory: Arc<Mutex<Memory>>,
}

/// What a defect needs to know of the past.
#[derive(Default)]
struct Memory {
    /// Every snapshot ever taken.
    taken: Vec<SnapshotReport>,
    destroyed: Vec<SnapshotReport>,
    /// The first block that a snapshot holds instead of its own.
    torn: BTreeMap<SnapshotId, Data>,
}

const BLOCK: usize = 4096;

impl MutantSnapshots {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { inner: kits::store(), defect, memory: Arc::default() }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    async fn found(&self, drive: DriveId) -> Result<Option<DriveReport>> {
        Ok(self.inner.list().await?.into_iter().find(|report| report.spec.drive == drive))
    }

    /// The drive itself, opened as whoever had it last.
    async fn raw(&self, drive: DriveId) -> Result<Arc<dyn Volume>> {
        let epoch = self.found(drive).await?.map_or(Epoch(0), |report| report.epoch);
        self.inner.open(drive, epoch).await
    }

    async fn snapshot(&self, snapshot: SnapshotId) -> Result<Option<SnapshotReport>> {
        let list = self.inner.list_snapshots().await?;
        Ok(list.into_iter().find(|report| report.snapshot == snapshot))
    }
}

#[async_trait]
impl BlockStoreFixture for MutantSnapshots {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        Ok(Arc::new(self.clone()))
    }

    async fn crash(&self, _store: Arc<dyn BlockStore>) -> Result<()> {
        self.inner.crash();
        let taken = self.memory().taken.clone();
        for report in taken.iter().filter(|_| self.has(SnapshotsAreVolatile)) {
            self.inner.destroy_snapshot(report.snapshot).await?;
        }
        let destroyed = std::mem::take(&mut self.memory().destroyed);
        for report in destroyed.iter().filter(|_| self.has(DestroyIsVolatile)) {
            self.inner.take_snapshot(report.snapshot, report.drive, Writers::Volumes).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl BlockStore for MutantSnapshots {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        self.inner.create(spec).await
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        self.inner.open(drive, epoch).await
    }

    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        self.inner.fence(drive, epoch).await
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        self.inner.list().await
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        self.inner.destroy(drive, generation).await?;
        let taken = self.memory().taken.clone();
        let of_it = taken.iter().filter(|report| report.drive == drive);
        for report in of_it.filter(|_| self.has(GoesWithItsDrive)) {
            self.inner.destroy_snapshot(report.snapshot).await?;
        }
        Ok(())
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        let mut arrays = self.inner.capacity().await?;
        let there = self.inner.list_snapshots().await?;
        let memory = self.memory();
        for report in &mut arrays {
            for snapshot in memory.destroyed.iter().filter(|_| self.has(DestroyKeepsTheRoom)) {
                if snapshot.array == report.array {
                    report.promised = report.promised.checked_add(snapshot.size).unwrap();
                }
            }
            for snapshot in there.iter().filter(|_| self.has(SnapshotsTakeNoRoom)) {
                if snapshot.array == report.array {
                    report.promised = report.promised.saturating_sub(snapshot.size);
                }
            }
        }
        Ok(arrays)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.inner.resizer()
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }
}

#[async_trait]
impl Snapshots for MutantSnapshots {
    async fn take_snapshot(
        &self,
        snapshot: SnapshotId,
        drive: DriveId,
        writers: Writers,
    ) -> Result<()> {
        let known = self.snapshot(snapshot).await?;
        if self.has(TakesAnew) && known.as_ref().is_some_and(|report| report.drive == drive) {
            self.inner.destroy_snapshot(snapshot).await?;
        }
        if self.has(TakesAnyDrive) && known.is_some_and(|report| report.drive != drive) {
            return Ok(());
        }
        if self.has(SnapshotsAreTorn) {
            let mut first = vec![0; BLOCK];
            self.raw(drive).await?.read_at(Bytes::ZERO, &mut first).await?;
            self.memory().torn.entry(snapshot).or_insert(first.into());
            for _round in 0..4 {
                kits::give_way().await;
            }
        }
        self.inner.take_snapshot(snapshot, drive, writers).await?;
        let taken = self.snapshot(snapshot).await?;
        self.memory().taken.extend(taken);
        Ok(())
    }

    async fn restore_snapshot(&self, snapshot: SnapshotId, epoch: Epoch) -> Result<()> {
        let Some(report) = self.snapshot(snapshot).await? else {
            return self.inner.restore_snapshot(snapshot, epoch).await;
        };
        let SnapshotReport { drive, size, .. } = report;
        if self.has(RestoresNothing) {
            return self.inner.fence(drive, epoch).await;
        }
        let before = self.found(drive).await?;
        let old = before.as_ref().map_or(Bytes::ZERO, |report| report.spec.size);
        let seen = before.map_or(Epoch(0), |report| report.epoch);
        let tail = old.saturating_sub(size);
        let mut beyond = vec![0; usize::try_from(tail.get()).unwrap()];
        if tail > Bytes::ZERO {
            self.raw(drive).await?.read_at(size, &mut beyond).await?;
        }
        let wanted = match self.defect {
            RestoreFencesNothing => epoch.min(seen),
            OldRestoresSucceed => epoch.max(seen),
            _ => epoch,
        };
        match self.inner.restore_snapshot(snapshot, wanted).await {
            Err(error)
                if self.has(CutsOffWhatDoesNotFit) && error.kind() == ErrorKind::InvalidValue =>
            {
                return Ok(());
            }
            restored => restored?,
        }
        if self.has(RestoreFencesNothing) {
            self.inner.open(drive, epoch).await?;
        }
        if self.has(RestoresTheTailToo) && tail > Bytes::ZERO {
            let volume = self.raw(drive).await?;
            volume.write_at(size, beyond.into()).await?;
            volume.flush().await?;
        }
        let torn = self.memory().torn.get(&snapshot).cloned();
        if let Some(first) = torn {
            self.raw(drive).await?.write_at(Bytes::ZERO, first).await?;
        }
        Ok(())
    }

    async fn destroy_snapshot(&self, snapshot: SnapshotId) -> Result<()> {
        let known = self.snapshot(snapshot).await?;
        self.memory().destroyed.extend(known);
        self.inner.destroy_snapshot(snapshot).await
    }

    async fn list_snapshots(&self) -> Result<Vec<SnapshotReport>> {
        let mut list = self.inner.list_snapshots().await?;
        for report in list.iter_mut().filter(|_| self.has(ForgetsSizes)) {
            report.size = Bytes::ZERO;
        }
        Ok(list)
    }
}
