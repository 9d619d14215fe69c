//! Cloning: a new drive, its claims and its job, together or not at all.

use elasticstack_api::app::{OnCreate, Page};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Conversion, Fault, JobProgress};
use elasticstack_core::wire::record::Record;

use crate::cloud::Cloud;
use crate::fake_host::{Mishap, World, customer, id, sized};

#[tokio::test]
async fn a_clone_is_a_new_drive_that_holds_what_its_source_holds() {
    let cloud = Cloud::new().await;
    let source = cloud.drive().await;
    cloud.post(&format!("/drives/{source}/write/1k"), "the source").await.expect(204);
    let body = "name copy\nsize 8M\ntags a b\nuser:note x\nclaim:type shared\ntier ssd";
    let made = cloud.post(&format!("/drives/{source}/clone"), body).await.expect(200);
    let copy = made.value("drive").unwrap().to_owned();
    assert_ne!(copy, source);
    cloud.finished_imaging(&copy).await;
    assert_eq!(cloud.agent.bytes(&copy)[1024..1034], *b"the source");
    let info = cloud.get(&format!("/drives/{copy}/info")).await.expect(200);
    for (key, value) in [
        ("name", "copy"),
        ("size", "8388608"),
        ("tags", "a b"),
        ("user:note", "x"),
        ("claim:type", "shared"),
        ("tier", "ssd"),
        ("encryption:cipher", "none"),
        ("status", "active"),
    ] {
        assert_eq!(info.value(key), Some(value), "{key}");
    }
    for action in ["clone/gunzip", "clone/gzip"] {
        let made = cloud.post(&format!("/drives/{source}/{action}"), body).await.expect(200);
        cloud.finished_imaging(made.value("drive").unwrap()).await;
    }
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_cannot_be_made_leaves_nothing() {
    use ErrorKind::{DriveInUse, InvalidValue, MissingKey, NoCapacity, NotFound, UnknownKey};
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let (owner, other) = (customer(app, 1).await, customer(app, 2).await);
    let source = plane.drive(&owner, 16).await;
    for (record, kind, field) in [
        (sized(12), InvalidValue, Some("size")),
        (Record::new().with("name", "x"), MissingKey, Some("size")),
        (sized(16).with("sise", 1), UnknownKey, Some("sise")),
        (sized(16).with("avoid", source), NoCapacity, None),
        (sized(2_048), NoCapacity, None),
    ] {
        let refused = app.drive_clone(&owner, source, &record, Conversion::None).await.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (kind, field), "{record:?}");
    }
    let strange = app.drive_clone(&other, source, &sized(16), Conversion::None).await.unwrap_err();
    assert_eq!(strange.kind(), NotFound);

    let fault = Fault { code: "job_failed".to_owned(), message: "no".to_owned(), field: None };
    world.host.expect(Mishap::Drive(fault));
    let failed = app.drive_clone(&owner, source, &sized(16), Conversion::None).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::JobFailed);
    assert_eq!(app.drive_ids(&owner, &Page::default()).await.unwrap(), [source]);
    plane
        .until(async || app.drive_info(&owner, source).await.unwrap().value("claimed").is_none())
        .await;

    let server = plane.server(&owner, &[source], OnCreate::Start).await;
    let busy = app.drive_clone(&owner, source, &sized(16), Conversion::None).await.unwrap_err();
    assert_eq!(busy.kind(), DriveInUse);
    app.server_stop(&owner, server).await.unwrap();
    *world.biller.refuses.lock().unwrap() = true;
    let unpaid = app.drive_clone(&owner, source, &sized(16), Conversion::None).await.unwrap_err();
    assert_eq!(unpaid.kind(), ErrorKind::PaymentRequired);
    *world.biller.refuses.lock().unwrap() = false;
    assert_eq!(app.drive_ids(&owner, &Page::default()).await.unwrap(), [source]);

    let readers = Record::new().with("readers", other.account);
    app.drive_set(&owner, source, &readers).await.unwrap();
    app.drive_clone(&other, source, &sized(16), Conversion::None).await.expect("readers may clone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_goes_on_wherever_the_control_plane_is_killed() {
    let world = World::new();
    let mut plane = world.still().await;
    let caller = customer(&plane.app, 1).await;
    let source = plane.drive(&caller, 8).await;
    world.host.exchange(&plane.app).await;
    world.host.leave_jobs();
    let made = plane.app.drive_clone(&caller, source, &sized(8), Conversion::None).await.unwrap();
    let copy: DriveId = id(&made, "drive");
    assert_eq!(made.value("imaging"), Some("queued"));
    for _ in 0..2 {
        plane = world.still().await;
        for drive in [source, copy] {
            let info = plane.app.drive_info(&caller, drive).await.unwrap();
            assert!(info.value("claimed").is_some(), "{info:?}");
            let refused = plane.app.drive_destroy(&caller, drive).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::DriveInUse);
        }
        world.host.exchange(&plane.app).await;
    }
    let info = plane.app.drive_info(&caller, copy).await.unwrap();
    assert_eq!((info.value("status"), info.value("imaging")), (Some("active"), Some("queued")));
    plane = world.still().await;
    world.host.change_job(JobProgress::Done);
    world.host.exchange(&plane.app).await;
    for drive in [source, copy] {
        let info = plane.app.drive_info(&caller, drive).await.unwrap();
        assert_eq!((info.value("claimed"), info.value("imaging")), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_type_changes_only_while_nothing_claims_the_drive() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    let first = plane.server(&caller, &[drive], OnCreate::Start).await;
    let second = plane.server(&caller, &[drive], OnCreate::LeaveStopped).await;
    let shared = Record::new().with("claim:type", "shared");
    let refused = app.drive_set(&caller, drive, &shared).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DriveInUse);
    assert_eq!(refused.blamed_field(), Some("claim:type"));
    let same = Record::new().with("claim:type", "exclusive");
    app.drive_set(&caller, drive, &same).await.expect("it is that already");
    app.server_stop(&caller, first).await.unwrap();
    let set = app.drive_set(&caller, drive, &shared).await.unwrap();
    assert_eq!(set.value("claim:type"), Some("shared"));
    app.server_start(&caller, first).await.unwrap();
    app.server_start(&caller, second).await.unwrap();
    for server in [first, second] {
        app.server_stop(&caller, server).await.unwrap();
    }
    let set = app.drive_set(&caller, drive, &Record::new().with("claim:type", "")).await.unwrap();
    assert_eq!(set.value("claim:type"), Some("exclusive"), "unset is the default");
}
