//! Block stores with one defect each: a [`SimStore`] seen through a wrapper that breaks a clause.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes as Data;
use elasticstack_core::block::{
    ArrayReport, Attachment, BlockStore, CloneDrive, Cloned, DriveReport, DriveSpec, Resize,
    Volume, Writers,
};
use elasticstack_core::conformance::BlockStoreFixture;
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimStore;
use uuid::Uuid;

use crate::kits;
use crate::mutants::Mutant;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    CreateIsVolatile,
    CreateStartsOver,
    CreateAdoptsAnySpec,
    OldBytesShineThrough,
    CreatesPastTheRoom,
    GrowsPastTheRoom,
    OpensBelowTheFence,
    ForgetsEpochs,
    OneEpochAtATime,
    UnknownIsInternal,
    FenceCutsNothing,
    FenceIsVolatile,
    FenceDoesNotDrain,
    DestroyKeepsTheRoom,
    DestroyIsVolatile,
    DestroyedVolumesLive,
    OldTombstonesDestroy,
    ForgetsOwners,
    GrowthLosesBytes,
    ShrinkingKeepsTheTail,
    OldResizesSucceed,
    ClonesStayJoined,
    CopiesHalfWay,
    WritesHideFromOthers,
    FlushIsALie,
    TornAtTheEnd,
    EndStandsStill,
    DiscardDoesNothing,
    FencedFlushesPass,
    NextDataFindsNothing,
    SizeEndsWithTheDrive,
}
use Defect::*;

pub(crate) const MUTANTS: &[Mutant<Defect>] = &[
    Mutant {
        defect: CreateIsVolatile,
        breaks: "BS-1",
        fails: &[
            "bs_1_create_survives_a_crash",
            "bs_4_the_highest_epoch_opened_survives_a_crash",
            "bs_5_a_fence_survives_a_crash",
            "bs_7_list_is_exact_also_after_a_crash",
            "rs_1_growing_keeps_bytes_and_adds_zeros",
            "vo_2_flushed_bytes_survive_a_crash",
        ],
    },
    Mutant {
        defect: CreateStartsOver,
        breaks: "BS-1",
        fails: &["bs_1_repeating_a_create_changes_nothing", "bs_1_an_id_that_is_taken_is_refused"],
    },
    Mutant {
        defect: CreateAdoptsAnySpec,
        breaks: "BS-1",
        fails: &["bs_1_an_id_that_is_taken_is_refused"],
    },
    Mutant {
        defect: OldBytesShineThrough,
        breaks: "BS-2",
        fails: &["bs_2_new_drives_are_zeros", "bs_6_volumes_of_a_destroyed_drive_fail"],
    },
    Mutant {
        defect: CreatesPastTheRoom,
        breaks: "BS-3",
        fails: &["bs_3_a_full_array_refuses_to_create"],
    },
    Mutant {
        defect: GrowsPastTheRoom,
        breaks: "BS-3",
        fails: &["bs_3_a_full_array_refuses_to_grow"],
    },
    Mutant {
        defect: OpensBelowTheFence,
        breaks: "BS-4",
        fails: &[
            "bs_4_an_epoch_below_the_fence_is_refused",
            "bs_5_a_fence_cuts_older_volumes_and_no_others",
            "bs_5_a_fence_survives_a_crash",
        ],
    },
    Mutant {
        defect: ForgetsEpochs,
        breaks: "BS-4",
        fails: &[
            "bs_4_the_highest_epoch_opened_survives_a_crash",
            "bs_7_list_is_exact_also_after_a_crash",
        ],
    },
    Mutant {
        defect: OneEpochAtATime,
        breaks: "BS-4",
        fails: &[
            "bs_4_opens_at_different_epochs_coexist",
            "bs_4_the_highest_epoch_opened_survives_a_crash",
            "vo_1_reads_see_writes_and_discards",
        ],
    },
    Mutant {
        defect: UnknownIsInternal,
        breaks: "BS-4",
        fails: &[
            "bs_4_unknown_drives_are_not_found",
            "bs_6_a_destroyed_drive_is_gone_and_its_room_free",
        ],
    },
    Mutant {
        defect: FenceCutsNothing,
        breaks: "BS-5",
        fails: &[
            "bs_4_an_epoch_below_the_fence_is_refused",
            "bs_5_a_fence_cuts_older_volumes_and_no_others",
            "bs_5_a_fence_survives_a_crash",
            "vo_5_a_fenced_volume_refuses_every_call",
        ],
    },
    Mutant { defect: FenceIsVolatile, breaks: "BS-5", fails: &["bs_5_a_fence_survives_a_crash"] },
    Mutant {
        defect: FenceDoesNotDrain,
        breaks: "BS-5",
        fails: &["bs_4_opens_at_different_epochs_coexist", "bs_5_no_write_lands_after_a_fence"],
    },
    Mutant {
        defect: DestroyKeepsTheRoom,
        breaks: "BS-6",
        fails: &["bs_6_a_destroyed_drive_is_gone_and_its_room_free"],
    },
    Mutant {
        defect: DestroyIsVolatile,
        breaks: "BS-6",
        fails: &[
            "bs_6_a_destroyed_drive_is_gone_and_its_room_free",
            "bs_7_list_is_exact_also_after_a_crash",
        ],
    },
    Mutant {
        defect: DestroyedVolumesLive,
        breaks: "BS-6",
        fails: &["bs_6_volumes_of_a_destroyed_drive_fail"],
    },
    Mutant {
        defect: OldTombstonesDestroy,
        breaks: "BS-6",
        fails: &["bs_6_an_older_tombstone_destroys_nothing"],
    },
    Mutant {
        defect: ForgetsOwners,
        breaks: "BS-7",
        fails: &[
            "bs_1_create_survives_a_crash",
            "bs_1_an_id_that_is_taken_is_refused",
            "bs_7_list_is_exact_also_after_a_crash",
            "bs_3_a_full_array_refuses_to_grow",
            "cl_2_a_pair_that_must_be_copied_is_left_alone",
        ],
    },
    Mutant {
        defect: GrowthLosesBytes,
        breaks: "RS-1",
        fails: &[
            "rs_1_growing_keeps_bytes_and_adds_zeros",
            "rs_2_shrinking_cuts_and_growing_back_shows_zeros",
        ],
    },
    Mutant {
        defect: ShrinkingKeepsTheTail,
        breaks: "RS-2",
        fails: &["rs_2_shrinking_cuts_and_growing_back_shows_zeros"],
    },
    Mutant {
        defect: OldResizesSucceed,
        breaks: "RS-3",
        fails: &["rs_3_generations_put_resizes_in_order"],
    },
    Mutant {
        defect: ClonesStayJoined,
        breaks: "CL-1",
        fails: &["cl_1_a_clone_equals_its_source_and_goes_its_own_way"],
    },
    Mutant {
        defect: CopiesHalfWay,
        breaks: "CL-2",
        fails: &["cl_2_a_pair_that_must_be_copied_is_left_alone"],
    },
    Mutant {
        defect: WritesHideFromOthers,
        breaks: "VO-1",
        fails: &[
            "bs_4_opens_at_different_epochs_coexist",
            "bs_5_no_write_lands_after_a_fence",
            "cl_1_a_clone_equals_its_source_and_goes_its_own_way",
            "vo_1_reads_see_writes_and_discards",
        ],
    },
    Mutant { defect: FlushIsALie, breaks: "VO-2", fails: &["vo_2_flushed_bytes_survive_a_crash"] },
    Mutant {
        defect: TornAtTheEnd,
        breaks: "VO-3",
        fails: &["vo_3_accesses_past_the_end_change_nothing"],
    },
    Mutant {
        defect: EndStandsStill,
        breaks: "VO-3",
        fails: &["vo_3_the_end_moves_with_the_drive"],
    },
    Mutant {
        defect: DiscardDoesNothing,
        breaks: "VO-4",
        fails: &[
            "vo_1_reads_see_writes_and_discards",
            "vo_2_flushed_bytes_survive_a_crash",
            "vo_4_discarded_ranges_read_as_zeros",
        ],
    },
    Mutant {
        defect: FencedFlushesPass,
        breaks: "VO-5",
        fails: &["vo_5_a_fenced_volume_refuses_every_call"],
    },
    Mutant {
        defect: NextDataFindsNothing,
        breaks: "VO-6",
        fails: &["vo_6_next_data_passes_over_nothing"],
    },
    Mutant {
        defect: SizeEndsWithTheDrive,
        breaks: "VO-7",
        fails: &["vo_7_the_size_outlasts_the_access"],
    },
];

/// The store and, being simulated, its fixture.
#[derive(Clone)]
pub(crate) struct MutantStore {
    inner: SimStore,
    defect: Defect,
    memory: Arc<Mutex<Memory>>,
}

/// What a defect needs to know of the past.
#[derive(Default)]
struct Memory {
    crashed: bool,
    created: Vec<DriveSpec>,
    destroyed: Vec<DriveSpec>,
    tails: Vec<(DriveId, Bytes, Data)>,
    joined: Vec<(DriveId, DriveId)>,
}

const LATEST: Generation = Generation::new(Era(u32::MAX), u64::MAX);

impl MutantStore {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { inner: kits::store(), defect, memory: Arc::default() }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    /// The drive itself, whatever its fence.
    async fn raw(&self, drive: DriveId) -> Result<Arc<dyn Volume>> {
        self.inner.open(drive, Epoch(u64::MAX)).await
    }

    async fn found(&self, drive: DriveId) -> Result<Option<DriveSpec>> {
        let list = self.inner.list().await?;
        Ok(list.into_iter().map(|report| report.spec).find(|spec| spec.drive == drive))
    }
}

#[async_trait]
impl BlockStoreFixture for MutantStore {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        Ok(Arc::new(self.clone()))
    }

    async fn crash(&self, _store: Arc<dyn BlockStore>) -> Result<()> {
        self.inner.crash();
        self.memory().crashed = true;
        let created = std::mem::take(&mut self.memory().created);
        for spec in created.iter().filter(|_| self.has(CreateIsVolatile)) {
            self.inner.destroy(spec.drive, LATEST).await?;
        }
        let destroyed = std::mem::take(&mut self.memory().destroyed);
        for spec in destroyed.iter().filter(|_| self.has(DestroyIsVolatile)) {
            self.inner.create(spec).await?;
        }
        Ok(())
    }
}

fn is<T>(answer: &Result<T>, kind: ErrorKind) -> bool {
    answer.as_ref().is_err_and(|error| error.kind() == kind)
}

#[async_trait]
impl BlockStore for MutantStore {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        if self.has(CreateStartsOver) {
            self.inner.destroy(spec.drive, LATEST).await?;
        }
        let answer = self.inner.create(spec).await;
        if self.has(CreateAdoptsAnySpec) && is(&answer, ErrorKind::ChangedMeanwhile)
            || self.has(CreatesPastTheRoom) && is(&answer, ErrorKind::NoCapacity)
        {
            return Ok(());
        }
        answer?;
        self.memory().created.push(spec.clone());
        if self.has(OldBytesShineThrough) && !self.memory().destroyed.is_empty() {
            let volume = self.raw(spec.drive).await?;
            volume.write_at(Bytes::ZERO, Data::from_static(b"old")).await?;
        }
        Ok(())
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        if self.has(OneEpochAtATime) && self.found(drive).await?.is_some() {
            self.inner.fence(drive, epoch).await?;
        }
        let mut answer = self.inner.open(drive, epoch).await;
        let forgot = self.has(FenceIsVolatile) && self.memory().crashed;
        if is(&answer, ErrorKind::Fenced) && (self.has(OpensBelowTheFence) || forgot) {
            answer = self.raw(drive).await;
        }
        if is(&answer, ErrorKind::NotFound) && self.has(UnknownIsInternal) {
            return Err(Error::internal("a drive that is not there"));
        }
        let inner = answer?;
        let opened_size = inner.size();
        let waiting = Mutex::default();
        Ok(Arc::new(MutantVolume { store: self.clone(), inner, drive, opened_size, waiting }))
    }

    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        if self.has(FenceCutsNothing) { Ok(()) } else { self.inner.fence(drive, epoch).await }
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        let mut list = self.inner.list().await?;
        for report in &mut list {
            if self.has(ForgetsEpochs) && self.memory().crashed {
                report.epoch = Epoch(0);
            }
            if self.has(ForgetsOwners) {
                report.spec.account = AccountId::from_uuid(Uuid::nil());
            }
        }
        Ok(list)
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        let spec = self.found(drive).await?;
        let generation = if self.has(OldTombstonesDestroy) { LATEST } else { generation };
        self.inner.destroy(drive, generation).await?;
        self.memory().destroyed.extend(spec);
        Ok(())
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        let mut arrays = self.inner.capacity().await?;
        for spec in self.memory().destroyed.iter().filter(|_| self.has(DestroyKeepsTheRoom)) {
            arrays[0].promised = arrays[0].promised.checked_add(spec.size).unwrap();
        }
        Ok(arrays)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }

    fn cloner(&self) -> Option<&dyn CloneDrive> {
        Some(self)
    }
}

#[async_trait]
impl Resize for MutantStore {
    async fn resize(&self, spec: &DriveSpec) -> Result<()> {
        let old = self.found(spec.drive).await?.map_or(Bytes::ZERO, |spec| spec.size);
        if self.has(ShrinkingKeepsTheTail) && spec.size < old {
            let mut tail = vec![0; usize::try_from(old.saturating_sub(spec.size).get()).unwrap()];
            self.raw(spec.drive).await?.read_at(spec.size, &mut tail).await?;
            self.memory().tails.push((spec.drive, spec.size, tail.into()));
        }
        let answer = self.inner.resize(spec).await;
        if self.has(GrowsPastTheRoom) && is(&answer, ErrorKind::NoCapacity)
            || self.has(OldResizesSucceed) && is(&answer, ErrorKind::Stale)
        {
            return Ok(());
        }
        answer?;
        if spec.size <= old {
            return Ok(());
        }
        let tails = std::mem::take(&mut self.memory().tails);
        for (drive, offset, tail) in tails {
            self.raw(drive).await?.write_at(offset, tail).await?;
        }
        if self.has(GrowthLosesBytes) {
            self.raw(spec.drive).await?.discard(Bytes::ZERO, Bytes::from_mib(1)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl CloneDrive for MutantStore {
    async fn clone_drive(
        &self,
        source: DriveId,
        target: DriveId,
        writers: Writers,
    ) -> Result<Cloned> {
        let cloned = self.inner.clone_drive(source, target, writers).await?;
        if self.has(ClonesStayJoined) && cloned == Cloned::Shared {
            self.memory().joined.push((source, target));
        }
        if self.has(CopiesHalfWay) && cloned == Cloned::MustCopy {
            self.raw(target).await?.discard(Bytes::ZERO, Bytes::from_mib(1)).await?;
        }
        Ok(cloned)
    }
}

struct MutantVolume {
    store: MutantStore,
    inner: Arc<dyn Volume>,
    drive: DriveId,
    opened_size: Bytes,
    /// Writes that only this volume shows yet.
    waiting: Mutex<Vec<(Bytes, Data)>>,
}

impl MutantVolume {
    /// Whether a write of this range would be accepted.
    async fn admits(&self, offset: Bytes, length: u64) -> Result<()> {
        let end = u64::from(offset).saturating_add(length).min(u64::MAX >> 1);
        self.inner.write_at(Bytes::try_from(end).unwrap(), Data::new()).await
    }

    async fn settle(&self) -> Result<()> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        for (offset, data) in waiting {
            self.inner.write_at(offset, data).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Volume for MutantVolume {
    fn size(&self) -> Bytes {
        let is_gone = || self.store.memory().destroyed.iter().any(|gone| gone.drive == self.drive);
        match self.store.defect {
            EndStandsStill => self.opened_size,
            SizeEndsWithTheDrive if is_gone() => Bytes::ZERO,
            _ => self.inner.size(),
        }
    }

    fn block_size(&self) -> Bytes {
        self.inner.block_size()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.settle().await?;
        self.inner.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: Bytes, data: Data) -> Result<()> {
        if self.store.has(WritesHideFromOthers) {
            self.admits(offset, data.len() as u64).await?;
            self.waiting.lock().unwrap().push((offset, data));
            return Ok(());
        }
        if self.store.has(FenceDoesNotDrain) {
            self.admits(offset, data.len() as u64).await?;
            yield_once().await;
            return self.store.raw(self.drive).await?.write_at(offset, data).await;
        }
        let answer = self.inner.write_at(offset, data.clone()).await;
        if self.store.has(DestroyedVolumesLive) && is(&answer, ErrorKind::NotFound) {
            return Ok(());
        }
        if self.store.has(TornAtTheEnd) && is(&answer, ErrorKind::InvalidValue) {
            let fits = usize::try_from(self.size().saturating_sub(offset).get()).unwrap();
            if fits > 0 {
                self.inner.write_at(offset, data.slice(..fits)).await?;
            }
        }
        answer?;
        let joined = self.store.memory().joined.clone();
        for (_, target) in joined.into_iter().filter(|(source, _)| *source == self.drive) {
            self.store.raw(target).await?.write_at(offset, data.clone()).await?;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        self.settle().await?;
        if self.store.has(FlushIsALie) {
            return self.admits(Bytes::ZERO, 0).await;
        }
        let answer = self.inner.flush().await;
        if self.store.has(FencedFlushesPass) && is(&answer, ErrorKind::Fenced) {
            return Ok(());
        }
        answer
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        self.settle().await?;
        if self.store.has(DiscardDoesNothing) {
            return self.admits(offset, length.get()).await;
        }
        self.inner.discard(offset, length).await
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        self.settle().await?;
        let found = self.inner.next_data(offset).await?;
        Ok(found.filter(|_| !self.store.has(NextDataFindsNothing)))
    }

    fn attachment(&self) -> Option<Attachment> {
        self.inner.attachment()
    }
}

/// Lets everything else that is ready go first.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
