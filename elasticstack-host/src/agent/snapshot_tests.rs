//! Snapshots from the agent's API down to a simulated store, also across restarts of the agent.

use std::sync::Arc;

use elasticstack_core::block::BlockStore as _;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::generation::{Epoch, Era, Generation};
use elasticstack_core::hypervisor::EndCause;
use elasticstack_core::id::SnapshotId;
use elasticstack_core::sim::{Call, Fault as Planned, Faulty, Plan, SimStore, When};
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::internal::{
    Access, Document, DriveDocument, ObjectStatus, ServerDocument, SnapshotDocument, SnapshotHome,
    SnapshotStatus,
};
use http::StatusCode;

use super::tests::{Caller, MIB, World, drive, drive_id, id, server};

fn snapshot_id() -> SnapshotId {
    id(0x5a).parse().unwrap()
}

/// Snapshots of drive 1 in a world whose store is simulated.
struct Rig {
    world: World,
    store: SimStore,
}

impl Rig {
    fn new() -> Self {
        Self { world: World::new(), store: SimStore::new(1, &[Bytes::from_mib(64)]) }
    }

    async fn agent(&self) -> Caller {
        self.world.agent_with(Arc::new(self.store.clone())).await
    }

    async fn array(&self) -> elasticstack_core::id::ArrayId {
        self.store.capacity().await.unwrap()[0].array
    }

    async fn drive(&self, number: u64, size: u64) -> DriveDocument {
        DriveDocument { array: self.array().await, size, ..drive(1, number) }
    }

    async fn snapshot(&self, number: u64, restore: u64, epoch: u64) -> SnapshotDocument {
        SnapshotDocument {
            snapshot: snapshot_id(),
            generation: Generation::new(Era(1), number),
            gone: false,
            drive: drive_id(1),
            array: self.array().await,
            restore,
            epoch: Epoch(epoch),
        }
    }

    /// An agent with drive 1, which holds `text`, and a snapshot of it.
    async fn taken(&self, text: &'static str) -> Caller {
        let mut caller = self.agent().await;
        caller.push([Document::Drive(self.drive(1, 2 * MIB).await)]).await;
        caller.drive(1, |status| status.size == 2 * MIB).await;
        assert_eq!(caller.write(1, 0, text).await.0, StatusCode::NO_CONTENT);
        caller.push([Document::Snapshot(self.snapshot(1, 0, 0).await)]).await;
        snapshot(&mut caller, |status| status.size == 2 * MIB).await;
        caller
    }
}

async fn snapshot(caller: &mut Caller, fits: impl Fn(&SnapshotStatus) -> bool) -> SnapshotStatus {
    caller
        .until(|status| match status {
            ObjectStatus::Snapshot(status) if fits(status) => Some(status.clone()),
            _ => None,
        })
        .await
}

async fn holds(caller: &Caller, text: &str) {
    let length = u64::try_from(text.len()).unwrap();
    assert_eq!(caller.read(1, 0, length).await, (StatusCode::OK, text.as_bytes().to_vec()));
}

#[tokio::test]
async fn a_snapshot_is_taken_once_restored_once_and_goes_by_its_tombstone() {
    let rig = Rig::new();
    let mut caller = rig.taken("old").await;
    caller.write(1, 0, "new").await;
    caller.push([Document::Snapshot(rig.snapshot(2, 0, 0).await)]).await;
    snapshot(&mut caller, |status| status.generation.number == 2).await;
    holds(&caller, "new").await;
    caller.push([Document::Snapshot(rig.snapshot(3, 1, 1).await)]).await;
    let status = snapshot(&mut caller, |status| status.restored == 1).await;
    assert_eq!((status.refused, status.fault), (None, None));
    holds(&caller, "old").await;
    caller.drive(1, |status| status.epoch == Epoch(1)).await;

    caller.write(1, 0, "newer").await;
    caller.agent.close().await;
    let mut caller = rig.agent().await;
    snapshot(&mut caller, |status| status.restored == 1).await;
    holds(&caller, "newer").await;
    let tombstone = SnapshotDocument { gone: true, ..rig.snapshot(4, 1, 1).await };
    caller.push([Document::Snapshot(tombstone)]).await;
    snapshot(&mut caller, |status| status.gone).await;
    holds(&caller, "newer").await;
    assert_eq!(rig.store.snapshots().unwrap().list_snapshots().await.unwrap(), []);
    caller.agent.close().await;
}

#[tokio::test]
async fn a_snapshot_that_no_document_knows_is_told_of_and_kept_until_one_does() {
    let rig = Rig::new();
    rig.taken("old").await.agent.close().await;

    // Another agent of the same arrays: it has no documents.
    let other = Rig { world: World::new(), store: rig.store.clone() };
    let mut caller = other.agent().await;
    let told = snapshot(&mut caller, |status| status.size == 2 * MIB).await;
    let spec = other.drive(1, 2 * MIB).await;
    let home = SnapshotHome { drive: spec.drive, array: spec.array, account: spec.account };
    assert_eq!((told.home, told.gone, told.fault), (Some(home), false, None));
    assert_eq!(told.generation, Generation::new(Era(0), 0), "any intent is newer");

    caller.push([Document::Drive(spec)]).await;
    caller.write(1, 0, "new").await;
    caller.push([Document::Snapshot(other.snapshot(2, 0, 0).await)]).await;
    snapshot(&mut caller, |status| status.generation.number == 2).await;
    caller.push([Document::Snapshot(other.snapshot(3, 1, 9).await)]).await;
    snapshot(&mut caller, |status| status.restored == 1).await;
    holds(&caller, "old").await;
    let tombstone = SnapshotDocument { gone: true, ..other.snapshot(4, 1, 9).await };
    caller.push([Document::Snapshot(tombstone)]).await;
    snapshot(&mut caller, |status| status.gone).await;
    caller.agent.close().await;
}

#[tokio::test]
async fn a_drive_in_use_is_taken_as_it_is_and_restored_when_it_is_free() {
    let rig = Rig::new();
    let mut caller = rig.taken("old").await;
    caller.push([Document::Server(server(1, 1, Access::Exclusive))]).await;
    caller.running(1).await;
    let beside: SnapshotId = id(0x5b).parse().unwrap();
    let other = SnapshotDocument { snapshot: beside, ..rig.snapshot(1, 0, 0).await };
    caller.push([Document::Snapshot(other)]).await;
    snapshot(&mut caller, |status| status.snapshot == beside && status.size > 0).await;

    caller.push([Document::Snapshot(rig.snapshot(2, 1, 2).await)]).await;
    let waiting = snapshot(&mut caller, |status| status.generation.number == 2).await;
    assert_eq!((waiting.restored, waiting.fault), (0, None));
    let stop = ServerDocument { powered: false, ..server(2, 1, Access::Exclusive) };
    caller.push([Document::Server(stop)]).await;
    assert_eq!(caller.ended(1).await.0, EndCause::Stopped);
    snapshot(&mut caller, |status| status.restored == 1).await;
    holds(&caller, "old").await;
    caller.agent.close().await;
}

#[tokio::test]
async fn a_restore_that_cannot_be_ends_with_its_reason_and_changes_nothing() {
    let rig = Rig::new();
    let mut caller = rig.taken("old").await;
    caller.write(1, 0, "new").await;
    caller.push([Document::Drive(rig.drive(2, MIB).await)]).await;
    caller.drive(1, |status| status.size == MIB).await;
    caller.push([Document::Snapshot(rig.snapshot(2, 1, 1).await)]).await;
    let status = snapshot(&mut caller, |status| status.restored == 1).await;
    assert_eq!(status.refused.unwrap().code, ErrorKind::InvalidValue.code());
    holds(&caller, "new").await;
    caller.push([Document::Drive(rig.drive(3, 4 * MIB).await)]).await;
    caller.drive(1, |status| status.size == 4 * MIB).await;
    caller.push([Document::Snapshot(rig.snapshot(3, 2, 2).await)]).await;
    let status = snapshot(&mut caller, |status| status.restored == 2).await;
    assert_eq!(status.refused, None);
    holds(&caller, "old").await;
    caller.agent.close().await;
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_done_by_the_next_agent_before_anything_else_has_the_drive() {
    let rig = Rig::new();
    let caller = rig.taken("old").await;
    caller.write(1, 0, "new").await;
    caller.agent.close().await;
    let always = |nth| Planned {
        call: Call::RestoreSnapshot,
        nth,
        when: When::After,
        kind: ErrorKind::Unavailable,
    };
    let cut_off = Faulty::new(Arc::new(rig.store.clone()), Plan::of((1..100).map(always)));
    let mut caller = rig.world.agent_with(Arc::new(cut_off)).await;
    caller.push([Document::Snapshot(rig.snapshot(2, 1, 1).await)]).await;
    snapshot(&mut caller, |status| status.fault.is_some()).await;
    let (status, answer) = caller.write(1, 0, "too early").await;
    assert_eq!(status, StatusCode::CONFLICT, "{}", String::from_utf8_lossy(&answer));
    caller.agent.close().await;

    let mut caller = rig.agent().await;
    snapshot(&mut caller, |status| status.restored == 1 && status.fault.is_none()).await;
    holds(&caller, "old").await;
    caller.agent.close().await;
}

#[tokio::test]
async fn a_snapshot_that_is_missing_is_said_to_be_and_not_taken_anew() {
    let rig = Rig::new();
    let mut caller = rig.taken("old").await;
    caller.push([Document::Snapshot(rig.snapshot(2, 0, 0).await)]).await;
    snapshot(&mut caller, |status| status.generation.number == 2).await;
    caller.agent.close().await;
    rig.store.snapshots().unwrap().destroy_snapshot(snapshot_id()).await.unwrap();
    let mut caller = rig.agent().await;
    let status = snapshot(&mut caller, |status| status.fault.is_some()).await;
    let fault = status.fault.unwrap();
    assert!(fault.message.contains("is missing on its array"), "{fault:?}");
    assert_eq!(rig.store.snapshots().unwrap().list_snapshots().await.unwrap(), []);
    caller.agent.close().await;
}
