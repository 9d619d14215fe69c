//! The agent on a host of which one array can't be opened: its drives are neither gone nor made
//! anew, and everything about the others is done.

use std::fs;
use std::sync::Arc;

use axum::http::StatusCode;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::generation::{Era, Generation};
use elasticstack_core::id::ArrayId;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::internal::{Document, DriveDocument, DriveStatus};

use super::tests::{Caller, MIB, World, array, drive};
use crate::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};

fn other_array() -> ArrayId {
    "5b0e3c52-0000-4000-8000-0000000000ab".parse().unwrap()
}

fn elsewhere(n: u8) -> DriveDocument {
    DriveDocument { array: other_array(), ..drive(n, 1) }
}

fn tombstone(document: &DriveDocument) -> Document {
    Document::Drive(DriveDocument {
        generation: Generation::new(Era(1), 2),
        gone: true,
        ..document.clone()
    })
}

fn out_of_reach(status: &DriveStatus) -> bool {
    let code = status.fault.as_ref().map(|fault| fault.code.as_str());
    code == Some(ErrorKind::Unavailable.code())
}

/// An agent whose two arrays lie below the world's directory.
async fn agent(world: &World) -> Caller {
    let array = |array: ArrayId| DirectoryArray {
        array,
        name: array.to_string(),
        path: world.state.path().join("arrays").join(array.to_string()),
        capacity: ArrayCapacity::Fixed(Bytes::from_mib(64)),
    };
    let known = KnownArrays::read(world.state.path()).unwrap();
    let arrays = vec![array(super::tests::array()), array(other_array())];
    world.agent_with(Arc::new(DirectoryStore::open(known, arrays).unwrap())).await
}

#[tokio::test]
async fn drives_on_a_failed_array_are_neither_gone_nor_made_anew() {
    let world = World::new();
    let mut caller = agent(&world).await;
    let drives = [drive(1, 1), drive(2, 1), elsewhere(3), elsewhere(4)];
    caller.push(drives.map(Document::Drive)).await;
    for n in 1..=4 {
        caller.drive(n, |drive| drive.size == 2 * MIB && drive.fault.is_none()).await;
    }
    caller.agent.close().await;
    drop(caller);

    let mount_point = world.state.path().join("arrays").join(array().to_string());
    let disk = world.state.path().join("disk");
    fs::rename(&mount_point, &disk).unwrap();
    fs::create_dir(&mount_point).unwrap();
    for _start in 0..2 {
        let mut caller = agent(&world).await;
        caller.push([tombstone(&drive(2, 1)), Document::Drive(drive(5, 1))]).await;
        // Number 6 never existed: its array works and knows of none.
        caller.push([tombstone(&elsewhere(4)), tombstone(&elsewhere(6))]).await;
        caller.push([Document::Drive(elsewhere(7))]).await;
        for n in [1, 2, 5] {
            let status = caller.drive(n, out_of_reach).await;
            assert!(!status.gone, "{status:?}");
            let (status, _) = caller.read(n, 0, 1).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "it is not missing");
        }
        for n in [4, 6] {
            caller.drive(n, |drive| drive.gone).await;
        }
        for n in [3, 7] {
            caller.drive(n, |drive| drive.size == 2 * MIB && drive.fault.is_none()).await;
        }
        caller.agent.close().await;
    }
    assert_eq!(fs::read_dir(&mount_point).unwrap().count(), 0);

    fs::remove_dir(&mount_point).unwrap();
    fs::rename(&disk, &mount_point).unwrap();
    let mut caller = agent(&world).await;
    caller.drive(2, |drive| drive.gone).await;
    for n in [1, 3, 5, 7] {
        caller.drive(n, |drive| drive.size == 2 * MIB && drive.fault.is_none()).await;
    }
    caller.agent.close().await;
}
