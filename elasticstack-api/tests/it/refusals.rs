//! What is refused, with which kind and which key to blame.

use elasticstack_api::app::{Caller, OnCreate, Page};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Conversion;
use elasticstack_core::wire::record::Record;

use crate::fake_host::{World, customer, id, sized, small_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_look_alike() {
    let world = World::new();
    let plane = world.still().await;
    let known = customer(&plane.app, 1).await;
    let unknown = AccountId::from_uuid(uuid::Uuid::from_u128(99));
    let right = Secret::new("key-of-1");
    let mut refusals = Vec::new();
    for (account, key) in [
        (known.account, Secret::new("key-of-2")),
        (known.account, Secret::new("")),
        (unknown, right.clone()),
        (elasticstack_api::app::OPERATOR, Secret::new("")),
    ] {
        let refused = plane.app.authenticate(account, &key).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadCredentials);
        refusals.push(refused.to_string());
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let profile = plane.app.profile_info(&known).await.unwrap();
    assert_eq!(profile.value("uuid"), Some(known.account.to_string().as_str()));
    let name: Name = "x".parse().unwrap();
    plane.app.account_create(known.account, &name, "", &right).await.unwrap();
    let other = plane.app.account_create(known.account, &name, "", &Secret::new("another")).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::ChangedMeanwhile);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_others_is_missing() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let owner = customer(app, 1).await;
    let other = customer(app, 2).await;
    let drive = plane.drive(&owner, 8).await;
    let own = plane.drive(&other, 8).await;
    let server = plane.server(&owner, &[], OnCreate::LeaveStopped).await;
    let name = Record::new().with("name", "mine");
    let mut refused = vec![
        app.drive_info(&other, drive).await.unwrap_err(),
        app.drive_set(&other, drive, &name).await.unwrap_err(),
        app.drive_destroy(&other, drive).await.unwrap_err(),
        app.drive_read(&other, drive, Bytes::ZERO, Bytes::from_mib(1)).await.unwrap_err(),
        app.drive_write(&other, drive, Bytes::ZERO, "x".into()).await.unwrap_err(),
        app.drive_image(&other, drive, own, Conversion::None).await.unwrap_err(),
        app.drive_image(&other, own, drive, Conversion::None).await.unwrap_err(),
        app.drive_clone(&other, drive, &sized(8), Conversion::None).await.unwrap_err(),
        app.drive_create(&other, &sized(8).with("avoid", drive)).await.unwrap_err(),
        app.server_info(&other, server).await.unwrap_err(),
        app.server_set(&other, server, &name).await.unwrap_err(),
        app.server_start(&other, server).await.unwrap_err(),
        app.server_stop(&other, server).await.unwrap_err(),
        app.server_shutdown(&other, server).await.unwrap_err(),
        app.server_reset(&other, server).await.unwrap_err(),
        app.server_destroy(&other, server).await.unwrap_err(),
        app.server_serial(&other, server).await.unwrap_err(),
    ];
    for make in [OnCreate::Start, OnCreate::LeaveStopped] {
        let plugged = app.server_create(&other, &small_server(&[drive]), make).await.unwrap_err();
        assert_eq!(plugged.blamed_field(), Some("block:0"));
        refused.push(plugged);
    }
    for (index, refused) in refused.into_iter().enumerate() {
        assert_eq!(refused.kind(), ErrorKind::NotFound, "call {index}: {refused}");
    }
    assert_eq!(app.drive_ids(&other, &Page::default()).await.unwrap(), [own]);
    assert_eq!(app.server_ids(&other, &Page::default()).await.unwrap(), []);

    let noted = [("name", "shown"), ("tags", "own"), ("user:note", "own")];
    let noted = noted.iter().fold(Record::new(), |record, (key, value)| record.with(*key, value));
    app.drive_set(&owner, drive, &noted.with("readers", other.account)).await.unwrap();
    app.drive_image(&other, own, drive, Conversion::None).await.expect("readers may image");
    let seen = app.drive_info(&other, drive).await.unwrap();
    let shown: Vec<&str> = seen.iter().map(|(key, _)| key).collect();
    let is_what_it_is =
        ["claim:type", "drive", "encryption:cipher", "name", "size", "status", "tier", "user"];
    assert_eq!(shown, is_what_it_is, "not what its owner noted of it and does with it");
    let hidden = app.drive_set(&other, drive, &name).await.unwrap_err();
    assert_eq!(hidden.kind(), ErrorKind::NotFound, "and do no more than that");
    assert_eq!(app.drive_ids(&other, &Page::default()).await.unwrap(), [own]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_names_the_key_and_makes_nothing() {
    use ErrorKind::{
        DriveInUse, InvalidValue, MissingKey, NoCapacity, NotFound, NotOffered, UnknownKey,
    };
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    for (record, kind, field) in [
        (Record::new(), MissingKey, Some("size")),
        (sized(0), MissingKey, Some("size")),
        (sized(8).with("size", i64::MAX), InvalidValue, Some("size")),
        (sized(1_024), NoCapacity, None),
        (sized(8).with("colour", "red"), UnknownKey, Some("colour")),
        (sized(8).with("readers", "bob"), InvalidValue, Some("readers")),
        (sized(8).with("avoid", "x"), InvalidValue, Some("avoid")),
        (sized(8).with("avoid", drive), NoCapacity, None),
        (
            sized(8).with("encryption:cipher", "aes-xts-plain"),
            NotOffered,
            Some("encryption:cipher"),
        ),
    ] {
        let refused = app.drive_create(&caller, &record).await.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (kind, field), "{record:?}");
    }
    let server = || small_server(&[drive]);
    for (record, kind, field) in [
        (Record::new().with("cpu", 1_000), MissingKey, Some("mem")),
        (Record::new().with("mem", 512), MissingKey, Some("cpu")),
        (server().with("block:1", drive), DriveInUse, Some("block:1")),
        (server().with("boot", "ide:0:0"), InvalidValue, Some("boot")),
        (
            server().with("ide:0:0", DriveId::from_uuid(uuid::Uuid::nil())),
            NotFound,
            Some("ide:0:0"),
        ),
        (server().with("vnc:tls", "on"), NotOffered, Some("vnc:tls")),
        (server().with("vnc:ip", "192.0.2.1"), NotOffered, Some("vnc:ip")),
        (server().with("parents", "x"), UnknownKey, Some("parents")),
        (server().with("cpu", 30_000), NoCapacity, None),
        (server().with("mem", 9_000), NoCapacity, None),
    ] {
        let refused = app.server_create(&caller, &record, OnCreate::Start).await.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (kind, field), "{record:?}");
    }
    assert_eq!(app.drive_ids(&caller, &Page::default()).await.unwrap(), [drive]);
    assert_eq!(app.server_ids(&caller, &Page::default()).await.unwrap(), []);

    let end = Bytes::from_mib(8);
    let four = Bytes::from_mib(4);
    for refused in [
        app.drive_read(&caller, drive, end, Bytes::from_mib(1)).await.unwrap_err(),
        app.drive_read(&caller, drive, Bytes::ZERO, Bytes::from_mib(5)).await.unwrap_err(),
        app.drive_write(&caller, drive, end, "x".into()).await.unwrap_err(),
        app.drive_write(&caller, drive, Bytes::try_from(i64::MAX as u64).unwrap(), "x".into())
            .await
            .unwrap_err(),
        app.drive_image(&caller, drive, drive, Conversion::None).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), InvalidValue, "{refused}");
    }
    app.drive_read(&caller, drive, four, four).await.unwrap();
    app.drive_write(&caller, drive, four, vec![0; 4 << 20].into()).await.unwrap();
    let larger = plane.drive(&caller, 16).await;
    let refused = app.drive_image(&caller, drive, larger, Conversion::None).await.unwrap_err();
    assert_eq!((refused.kind(), refused.blamed_field()), (InvalidValue, Some("size")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_use_is_busy() {
    use ErrorKind::{DriveInUse, ServerBusy};
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    let server = plane.server(&caller, &[drive], OnCreate::Start).await;
    for refused in [
        app.drive_destroy(&caller, drive).await.unwrap_err(),
        app.drive_set(&caller, drive, &sized(16)).await.unwrap_err(),
        app.drive_set(&caller, drive, &sized(4)).await.unwrap_err(),
        app.drive_read(&caller, drive, Bytes::ZERO, Bytes::from_mib(1)).await.unwrap_err(),
        app.drive_write(&caller, drive, Bytes::ZERO, "x".into()).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), DriveInUse);
        let named = refused.public_message().contains(&server.to_string());
        assert!(named, "it says by what: {refused}");
    }
    app.drive_set(&caller, drive, &Record::new().with("name", "n")).await.unwrap();
    let running = app.server_set(&caller, server, &Record::new().with("mem", 1_024)).await;
    assert_eq!(running.unwrap_err().kind(), ServerBusy);
    app.server_stop(&caller, server).await.unwrap();
    assert_eq!(app.server_reset(&caller, server).await.unwrap_err().kind(), ServerBusy);
    app.drive_set(&caller, drive, &sized(16)).await.unwrap();
    let unset = app.server_set(&caller, server, &Record::new().with("cpu", "")).await.unwrap_err();
    assert_eq!(unset.kind(), ErrorKind::MissingKey);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_drives_are_shared_and_exclusive_ones_as_cdroms_too() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let shared = app.drive_create(&caller, &sized(8).with("claim:type", "shared")).await.unwrap();
    let shared: DriveId = id(&shared, "drive");
    let plain = plane.drive(&caller, 8).await;
    let record = small_server(&[shared]).with("ide:1:0", plain).with("ide:1:0:media", "cdrom");
    for _ in 0..2 {
        app.server_create(&caller, &record, OnCreate::Start).await.unwrap();
    }
    let claimed = app.drive_info(&caller, shared).await.unwrap();
    assert_eq!(claimed.value("claimed").unwrap().split(' ').count(), 2);
    let written = app.server_create(&caller, &small_server(&[plain]), OnCreate::Start).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::DriveInUse, "it is in as a CD-ROM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_biller_refuses_does_not_happen() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller: Caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    let server = plane.server(&caller, &[], OnCreate::LeaveStopped).await;
    *world.biller.refuses.lock().unwrap() = true;
    for refused in [
        app.drive_create(&caller, &sized(8)).await.unwrap_err(),
        app.drive_set(&caller, drive, &sized(12)).await.unwrap_err(),
        app.server_create(&caller, &small_server(&[]), OnCreate::Start).await.unwrap_err(),
        app.server_start(&caller, server).await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::PaymentRequired);
        assert_eq!(refused.public_message(), "the balance is used up");
    }
    app.drive_set(&caller, drive, &sized(4)).await.expect("shrinking costs nothing");
    plane.server(&caller, &[], OnCreate::LeaveStopped).await;
    assert_eq!(app.drive_ids(&caller, &Page::default()).await.unwrap(), [drive]);
    assert_eq!(app.server_ids(&caller, &Page::default()).await.unwrap().len(), 2);
    assert_eq!(world.host.runs_begun(), []);
}
