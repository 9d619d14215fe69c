//! The agent on a host that has a drive of which no document is known: it is told of and kept, and
//! a later document takes it over as it is, or destroys it.

use std::sync::Arc;

use bytes::Bytes as Data;
use elasticstack_core::block::{BlockStore as _, DriveSpec};
use elasticstack_core::generation::{Epoch, Era, Generation};
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::internal::{Document, DriveDocument, DriveHome};

use super::fakes::FakeStore;
use super::tests::{World, array, drive};

#[tokio::test]
async fn a_drive_that_no_document_knows_is_told_of_and_kept_until_one_does() {
    let world = World::new();
    let store = Arc::new(FakeStore::new(array()));
    let lost = drive(1, 7);
    let size = Bytes::try_from(lost.size).unwrap();
    let spec = DriveSpec {
        drive: lost.drive,
        array: lost.array,
        account: lost.account,
        size,
        generation: lost.generation,
    };
    store.create(&spec).await.unwrap();
    let volume = store.open(lost.drive, Epoch(3)).await.unwrap();
    volume.write_at(Bytes::ZERO, Data::from_static(b"bytes")).await.unwrap();
    let content = store.content(lost.drive).unwrap();
    assert!(content.starts_with(b"bytes"));

    for _start in 0..2 {
        let mut caller = world.agent_with(store.clone()).await;
        let told = caller.drive(1, |status| status.size == lost.size).await;
        let home = DriveHome { array: lost.array, account: lost.account };
        assert_eq!(told.home, Some(home));
        assert_eq!((told.generation, told.epoch), (lost.generation, Epoch(3)));
        assert!(!told.gone && told.fault.is_none(), "{told:?}");
        caller.agent.close().await;
    }

    let mut caller = world.agent_with(store.clone()).await;
    let generation = |number| Generation::new(Era(1), number);
    let adopted = DriveDocument { generation: generation(8), ..lost.clone() };
    caller.push([Document::Drive(adopted)]).await;
    caller.drive(1, |status| status.generation == generation(8)).await;
    assert_eq!(store.content(lost.drive).unwrap(), content, "it is taken over as it is");
    let tombstone = DriveDocument { generation: generation(9), gone: true, ..lost.clone() };
    caller.push([Document::Drive(tombstone)]).await;
    caller.drive(1, |status| status.gone).await;
    assert_eq!(store.content(lost.drive), None);
    caller.agent.close().await;
}
