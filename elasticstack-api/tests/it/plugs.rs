//! Drives that come and go while their server runs.

use elasticstack_api::app::{Caller, OnCreate};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::IoLimits;
use elasticstack_core::wire::record::Record;

use crate::fake_host::{Plane, World, customer, id, small_server};

fn at(device: &str, drive: DriveId) -> Record {
    Record::new().with(device, drive)
}

fn nothing_at(device: &str) -> Record {
    Record::new().with(device, "")
}

async fn claimed(plane: &Plane, caller: &Caller, drive: DriveId) -> Option<String> {
    let info = plane.app.drive_info(caller, drive).await.unwrap();
    info.value("claimed").map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_comes_goes_and_comes_elsewhere_while_servers_run() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let owner = customer(app, 1).await;
    let (boot, more) = (plane.drive(&owner, 4).await, plane.drive(&owner, 4).await);
    let one = plane.server(&owner, &[boot], OnCreate::Start).await;
    let other = plane.server(&owner, &[], OnCreate::Start).await;
    let runs = world.host.runs_begun();

    let set = app.server_set(&owner, one, &at("block:1", more)).await.unwrap();
    assert_eq!(set.value("block:1"), Some(&*more.to_string()));
    assert_eq!(claimed(&plane, &owner, more).await, Some(one.to_string()));
    let taken = app.server_set(&owner, other, &at("block:0", more)).await.unwrap_err();
    assert_eq!((taken.kind(), taken.blamed_field()), (ErrorKind::DriveInUse, Some("block:0")));

    app.server_set(&owner, one, &nothing_at("block:1")).await.unwrap();
    assert_eq!(claimed(&plane, &owner, more).await, None);
    app.server_set(&owner, other, &at("block:0", more)).await.unwrap();
    assert_eq!(claimed(&plane, &owner, more).await, Some(other.to_string()));
    assert_eq!(world.host.runs_begun(), runs, "no run began for it");

    // One goes and another comes in its place; what is claimed is given back at the end.
    let third = plane.drive(&owner, 4).await;
    app.server_set(&owner, other, &at("block:0", third)).await.unwrap();
    assert_eq!(claimed(&plane, &owner, more).await, None);
    app.server_stop(&owner, other).await.unwrap();
    assert_eq!(claimed(&plane, &owner, third).await, None);
    app.server_start(&owner, other).await.unwrap();
    assert_eq!(claimed(&plane, &owner, third).await, Some(other.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_the_guest_holds_on_to_stays_claimed_and_goes_when_it_lets_go() {
    let world = World::new();
    let plane = world.plane().await;
    let owner = customer(&plane.app, 1).await;
    let (boot, more) = (plane.drive(&owner, 4).await, plane.drive(&owner, 4).await);
    let server = plane.server(&owner, &[boot, more], OnCreate::Start).await;
    let other = plane.server(&owner, &[], OnCreate::Start).await;
    world.host.hold_drives(true);
    drop(plane);

    let still = world.still().await;
    let late = still.app.server_set(&owner, server, &nothing_at("block:1")).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable);
    drop(still);

    // The next control plane has the intent, and does not believe that the drive is free.
    let plane = world.plane().await;
    plane.until(async || plane.value(&owner, server, "failed").await.is_some()).await;
    let failed = plane.value(&owner, server, "failed").await.unwrap();
    assert_eq!(failed, "the guest does not let go");
    assert_eq!(plane.value(&owner, server, "block:1").await, None, "the wish stands");
    assert_eq!(claimed(&plane, &owner, more).await, Some(server.to_string()));
    let taken = plane.app.server_set(&owner, other, &at("block:0", more)).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::DriveInUse);

    world.host.hold_drives(false);
    plane.app.server_set(&owner, server, &Record::new().with("cpu", 1_100)).await.unwrap();
    assert_eq!(claimed(&plane, &owner, more).await, None);
    assert_eq!(plane.value(&owner, server, "failed").await, None);
    plane.app.server_set(&owner, other, &at("block:0", more)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_stop_or_belongs_to_others_changes_nothing() {
    use ErrorKind::{DriveInUse, InvalidValue, NotFound, ServerBusy};
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let (owner, stranger) = (customer(app, 1).await, customer(app, 2).await);
    let (boot, more) = (plane.drive(&owner, 4).await, plane.drive(&owner, 4).await);
    let others = plane.drive(&stranger, 4).await;
    let record = small_server(&[boot]).with("persistent", true).with("boot", "block:0");
    let made = app.server_create(&owner, &record, OnCreate::Start).await.unwrap();
    let server: ServerId = id(&made, "server");
    let held = plane.server(&owner, &[more], OnCreate::Start).await;
    for (change, kind, field) in [
        (at("ide:0:0", more), ServerBusy, "ide:0:0"),
        (at("scsi:0:0", more), ServerBusy, "scsi:0:0"),
        (Record::new().with("block:0:media", "cdrom"), ServerBusy, "block:0"),
        (nothing_at("block:0"), InvalidValue, "boot"),
        (at("block:1", more), DriveInUse, "block:1"),
        (at("block:1", others), NotFound, "block:1"),
    ] {
        let refused = app.server_set(&owner, server, &change).await.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (kind, Some(field)), "{change:?}");
    }
    let info = app.server_info(&owner, server).await.unwrap();
    assert_eq!(info.value("block:0"), Some(&*boot.to_string()));
    assert_eq!(info.value("block:1"), None);
    app.server_stop(&owner, held).await.unwrap();
    app.server_set(&owner, server, &at("block:1", more)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drives_limits_are_its_servers_from_the_start_on_and_change_while_they_run() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let owner = customer(app, 1).await;
    let record = Record::new().with("size", "4M").with("limit:requests", 500);
    let drive: DriveId = id(&app.drive_create(&owner, &record).await.unwrap(), "drive");
    let server = plane.server(&owner, &[drive], OnCreate::Start).await;
    let runs = world.host.runs_begun();
    let of = |requests: Option<u32>, mib: Option<u32>| {
        Some(IoLimits { requests, bytes: mib.map(Bytes::from_mib) })
    };
    assert_eq!(world.host.limits(drive), of(Some(500), None));

    let set = async |key: &str, value: &str| {
        app.drive_set(&owner, drive, &Record::new().with(key, value)).await
    };
    let info = set("limit:bytes", "10485760").await.unwrap();
    assert_eq!(info.value("limit:bytes"), Some("10485760"));
    assert_eq!(info.value("limit:requests"), Some("500"));
    plane.until(async || world.host.limits(drive) == of(Some(500), Some(10))).await;
    for (key, value, words) in [
        ("limit:bytes", "1048575", "from 1048576"),
        ("limit:bytes", "10M", "from 1048576"),
        ("limit:requests", "99", "100 to 1000000"),
    ] {
        let refused = set(key, value).await.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (ErrorKind::InvalidValue, Some(key)));
        assert!(refused.public_message().contains(words), "{refused}");
    }
    let info = set("limit:requests", "").await.unwrap();
    assert_eq!(info.value("limit:requests"), None);
    plane.until(async || world.host.limits(drive) == of(None, Some(10))).await;
    assert_eq!(world.host.runs_begun(), runs, "no run began for it");

    // The next run has what the drive has then.
    app.server_stop(&owner, server).await.unwrap();
    set("limit:bytes", "").await.unwrap();
    app.server_start(&owner, server).await.unwrap();
    assert_eq!(world.host.limits(drive), of(None, None));
}
