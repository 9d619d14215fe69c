//! Snapshots: what they keep, what they stand in the way of, and what they cost.

use std::time::Duration;

use elasticstack_api::app::{OnCreate, Page};
use elasticstack_core::biller::Meter;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Fault;
use elasticstack_core::wire::record::Record;

use crate::cloud::Cloud;
use crate::fake_host::{MIB, Mishap, World, customer, id, sized};

fn fault(message: &str) -> Fault {
    Fault { code: "job_failed".to_owned(), message: message.to_owned(), field: None }
}

#[tokio::test]
async fn a_restored_drive_holds_what_it_did_when_the_snapshot_was_taken() {
    let cloud = Cloud::new().await;
    let drive = cloud.drive().await;
    cloud.post(&format!("/drives/{drive}/write"), "old").await.expect(204);
    let body = "name before\ntags a b\nuser:note x";
    let taken = cloud.post(&format!("/drives/{drive}/snapshot"), body).await.expect(200);
    let snapshot = taken.value("snapshot").unwrap().to_owned();
    for (key, value) in [
        ("name", "before"),
        ("drive", &*drive),
        ("size", "4194304"),
        ("status", "active"),
        ("tags", "a b"),
        ("user:note", "x"),
    ] {
        assert_eq!(taken.value(key), Some(value), "{key}");
    }
    assert!(taken.value("created").is_some());
    cloud.post(&format!("/drives/{drive}/write"), "new").await.expect(204);
    let restored = cloud.post(&format!("/snapshots/{snapshot}/restore"), "").await.expect(200);
    assert_eq!(restored.value("status"), Some("active"));
    assert_eq!(cloud.agent.bytes(&drive)[..3], *b"old");
    let info = cloud.get(&format!("/drives/{drive}/info")).await.expect(200);
    assert_eq!(info.value("claimed"), None, "the restore's claim is released");

    let named = cloud.post(&format!("/snapshots/{snapshot}/set"), "name after").await.expect(200);
    assert_eq!((named.value("name"), named.value("tags")), (Some("after"), Some("a b")));
    let other = cloud.snapshot(&drive).await;
    let list = cloud.get("/snapshots/list").await.expect(200);
    let mut ids: Vec<&str> = list.text().lines().collect();
    ids.sort_unstable();
    let mut wanted = [&*snapshot, &*other];
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    for (part, found) in [("name=after", &snapshot), ("tag=b", &snapshot)] {
        let list = cloud.get(&format!("/snapshots/list?{part}")).await.expect(200);
        assert_eq!(list.text().trim(), found, "{part}");
    }
    let page = cloud.get("/snapshots/list?limit=1").await.expect(200);
    assert_eq!(page.text().trim(), wanted[0]);
    let busy = cloud.post(&format!("/drives/{drive}/destroy"), "").await;
    assert_eq!(busy.status, 409, "{busy:?}");
    assert!(busy.text().contains(&snapshot) && busy.text().contains(&other), "{}", busy.text());
    for snapshot in [&snapshot, &other] {
        cloud.post(&format!("/snapshots/{snapshot}/destroy"), "").await.expect(204);
        cloud.get(&format!("/snapshots/{snapshot}/info")).await.expect(404);
    }
    cloud.post(&format!("/drives/{drive}/destroy"), "").await.expect(204);
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_servers_drive_is_taken_and_not_restored() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let owner = customer(app, 1).await;
    let drive = plane.drive(&owner, 16).await;
    let server = plane.server(&owner, &[drive], OnCreate::Start).await;
    let taken = app.drive_snapshot(&owner, drive, &Record::new()).await.unwrap();
    let snapshot: SnapshotId = id(&taken, "snapshot");
    let busy = app.snapshot_restore(&owner, snapshot).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::DriveInUse);
    assert!(busy.to_string().contains(&server.to_string()), "{busy}");
    app.server_stop(&owner, server).await.unwrap();
    app.snapshot_restore(&owner, snapshot).await.unwrap();
    app.server_start(&owner, server).await.expect("its drive is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_or_restored_changes_nothing() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let (owner, other) = (customer(app, 1).await, customer(app, 2).await);
    let drive = plane.drive(&owner, 16).await;
    let none = Record::new();
    let strange = app.drive_snapshot(&other, drive, &none).await.unwrap_err();
    assert_eq!(strange.kind(), ErrorKind::NotFound);
    for (record, kind) in [
        (none.clone().with("size", 1), ErrorKind::InvalidValue),
        (none.clone().with("sise", 1), ErrorKind::UnknownKey),
    ] {
        let refused = app.drive_snapshot(&owner, drive, &record).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{record:?}");
    }
    *world.biller.refuses.lock().unwrap() = true;
    let unpaid = app.drive_snapshot(&owner, drive, &none).await.unwrap_err();
    assert_eq!(unpaid.kind(), ErrorKind::PaymentRequired);
    *world.biller.refuses.lock().unwrap() = false;
    world.host.expect(Mishap::Take(fault("it cannot share blocks")));
    let failed = app.drive_snapshot(&owner, drive, &none).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::JobFailed);
    assert!(failed.to_string().contains("it cannot share blocks"), "{failed}");
    assert_eq!(app.snapshot_ids(&owner, &Page::default()).await.unwrap(), []);

    let snapshot: SnapshotId =
        id(&app.drive_snapshot(&owner, drive, &none).await.unwrap(), "snapshot");
    world.host.expect(Mishap::Restore(fault("the disk is broken")));
    let failed = app.snapshot_restore(&owner, snapshot).await.unwrap_err();
    assert!(failed.to_string().contains("the disk is broken"), "{failed}");
    let info = app.snapshot_info(&owner, snapshot).await.unwrap();
    assert_eq!((info.value("status"), info.value("failed").is_some()), (Some("active"), true));
    let claimed = app.drive_info(&owner, drive).await.unwrap().value("claimed").map(str::to_owned);
    assert_eq!(claimed, None);
    app.drive_set(&owner, drive, &Record::new().with("size", 8 * MIB)).await.unwrap();
    let small = app.snapshot_restore(&owner, snapshot).await.unwrap_err();
    assert_eq!((small.kind(), small.blamed_field()), (ErrorKind::InvalidValue, Some("size")));
    app.drive_set(&owner, drive, &sized(32)).await.unwrap();
    let restored = app.snapshot_restore(&owner, snapshot).await.unwrap();
    assert_eq!(restored.value("failed"), None);
    assert_eq!(restored.value("size"), Some(&*(16 * MIB).to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_its_host_is_silent_a_restore_keeps_its_drive_and_a_repetition_joins_it() {
    let world = World::new();
    let plane = world.plane().await;
    let owner = customer(&plane.app, 1).await;
    let drive = plane.drive(&owner, 16).await;
    let taken = plane.app.drive_snapshot(&owner, drive, &Record::new()).await.unwrap();
    let snapshot: SnapshotId = id(&taken, "snapshot");
    drop(plane);

    let still = world.still().await;
    for _repeated in 0..2 {
        let begun = still.app.snapshot_restore(&owner, snapshot).await.unwrap();
        assert_eq!(begun.value("status"), Some("restoring"));
    }
    let info = still.app.drive_info(&owner, drive).await.unwrap();
    assert_eq!(info.value("claimed"), Some(&*snapshot.to_string()));
    for refused in [
        still.app.snapshot_destroy(&owner, snapshot).await.unwrap_err(),
        still.app.drive_set(&owner, drive, &sized(32)).await.unwrap_err(),
        still.app.drive_snapshot(&owner, drive, &Record::new()).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::DriveInUse, "{refused}");
    }
    drop(still);
    world.pass(Duration::from_secs(601));
    let plane = world.plane().await;
    plane.app.deadlines().await.unwrap();
    plane
        .until(async || {
            let info = plane.app.snapshot_info(&owner, snapshot).await.unwrap();
            info.value("status") == Some("active")
        })
        .await;
    let info = plane.app.drive_info(&owner, drive).await.unwrap();
    assert_eq!(info.value("claimed"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_metered_with_its_drives_size_from_its_making_to_its_end() {
    let world = World::new();
    let plane = world.plane().await;
    let owner = customer(&plane.app, 1).await;
    let drive = plane.drive(&owner, 16).await;
    world.pass(Duration::from_secs(5));
    let taken = plane.app.drive_snapshot(&owner, drive, &Record::new()).await.unwrap();
    let snapshot: SnapshotId = id(&taken, "snapshot");
    plane.app.drive_set(&owner, drive, &sized(32)).await.unwrap();
    world.pass(Duration::from_secs(7));
    plane.app.snapshot_destroy(&owner, snapshot).await.unwrap();
    plane.app.forward_usage().await.unwrap();
    let items = world.biller.taken.lock().unwrap().clone();
    let of_it: Vec<_> =
        items.values().filter(|item| item.resource == snapshot.to_string()).collect();
    let [item] = &*of_it else { panic!("{of_it:?}") };
    assert_eq!((item.meter, item.quantity), (Meter::Snapshot, 16 * MIB));
    let seconds = item.to.unwrap().since(item.from).as_secs();
    assert_eq!(seconds, 7);
}
