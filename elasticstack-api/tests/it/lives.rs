//! The lives of drives and servers, end to end.

use std::time::Duration;

use elasticstack_api::app::{OnCreate, Page};
use elasticstack_core::prelude::*;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{Document, Fault};
use elasticstack_core::wire::keys::{self, Object};
use elasticstack_core::wire::record::Record;

use crate::fake_host::{MIB, Mishap, World, customer, host_id, id, sized, small_server};

/// Every key of an answer stands in the one table of keys.
#[track_caller]
fn assert_known(object: Object, record: &Record) {
    for (key, _) in record.iter() {
        assert!(keys::find(object, key).is_some(), "{key} is in no table");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_is_active_when_create_answers_and_missing_when_destroy_does() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let asked =
        Record::new().with("size", 10_000_000).with("user:role", "a\r\nb").with("tags", "x y");
    let made = plane.app.drive_create(&caller, &asked).await.unwrap();
    let drive: DriveId = id(&made, "drive");
    let expected = Record::new()
        .with("claim:type", "exclusive")
        .with("drive", drive)
        .with("encryption:cipher", "none")
        .with("name", drive)
        .with("size", 12_582_912)
        .with("status", "active")
        .with("tags", "x y")
        .with("tier", "disk")
        .with("user", caller.account)
        .with("user:role", "a\r\nb");
    assert_eq!(made, expected);
    assert_known(Object::Drive, &made);
    assert_eq!(plane.app.drive_info(&caller, drive).await.unwrap(), made);
    assert_eq!(plane.app.drive_ids(&caller, &Page::default()).await.unwrap(), [drive]);

    let change = Record::new().with("name", "n").with("size", 0).with("tags", "");
    let changed = plane.app.drive_set(&caller, drive, &change).await.unwrap();
    assert_eq!(changed.value("name"), Some("n"));
    assert_eq!((changed.value("size"), changed.value("tags")), (Some("12582912"), None));
    for mib in [20, 8] {
        let sized = plane.app.drive_set(&caller, drive, &sized(mib)).await.unwrap();
        assert_eq!(sized.value("size"), Some((mib * MIB).to_string().as_str()));
    }

    plane.app.drive_destroy(&caller, drive).await.unwrap();
    let missing = plane.app.drive_info(&caller, drive).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(plane.app.drives_info(&caller, &Page::default()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_its_host_cannot_make_leaves_nothing_behind() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let fault =
        Fault { code: "no_capacity".into(), message: "the array is full".into(), field: None };
    world.host.expect(Mishap::Drive(fault.clone()));
    let refused = plane.app.drive_create(&caller, &sized(1_000)).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.public_message()),
        (ErrorKind::NoCapacity, "the array is full")
    );
    assert_eq!(plane.app.drive_ids(&caller, &Page::default()).await.unwrap(), []);
    let app = plane.app.clone();
    plane.until(async || app.drive_create(&caller, &sized(1_000)).await.is_ok()).await;

    let drive = plane.app.drive_ids(&caller, &Page::default()).await.unwrap()[0];
    world.host.expect(Mishap::Drive(fault));
    let refused = plane.app.drive_set(&caller, drive, &sized(1_020)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    let info = plane.app.drive_info(&caller, drive).await.unwrap();
    assert_eq!(info.value("size"), Some((1_000 * MIB).to_string().as_str()), "the old size stands");
    assert_eq!(info.value("failed"), Some("the array is full"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persistent_server_lives_through_every_call() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 64).await;
    let asked = Record::new()
        .with("name", "n1")
        .with("cpu", 2_000)
        .with("mem", 1_024)
        .with("ide:0:0", drive)
        .with("boot", "ide:0:0")
        .with("smp", "auto")
        .with("nic:0:model", "e1000")
        .with("nic:0:dhcp", "auto")
        .with("vnc:ip", "auto")
        .with("vnc:password", "abcd1234")
        .with("persistent", true);
    let made = app.server_create(&caller, &asked, OnCreate::Start).await.unwrap();
    let server: ServerId = id(&made, "server");
    let expected = Record::new()
        .with("boot", "ide:0:0")
        .with("cpu", 2_000)
        .with("ide:0:0", drive)
        .with("mem", 1_024)
        .with("name", "n1")
        .with("nic:0:dhcp", "auto")
        .with("nic:0:model", "e1000")
        .with("password", "abcd1234")
        .with("persistent", true)
        .with("server", server)
        .with("smp", "auto")
        .with("smp:cores", 1)
        .with("started", 1_000)
        .with("status", "active")
        .with("type", "vm")
        .with("user", caller.account)
        .with("vnc", "auto")
        .with("vnc:ip", "127.0.0.1");
    let mut plain = made.clone();
    assert!(plain.remove("nic:0:mac").unwrap().starts_with("52:54:"));
    assert_eq!(plain, expected);
    assert_known(Object::Server, &made);
    let claimed = app.drive_info(&caller, drive).await.unwrap();
    assert_eq!(claimed.value("claimed"), Some(server.to_string().as_str()));

    app.server_start(&caller, server).await.unwrap();
    app.server_reset(&caller, server).await.unwrap();
    app.server_shutdown(&caller, server).await.unwrap();
    let set = Record::new().with("cpu", 3_000).with("mem", 1_024).with("name", "n2");
    let set = app.server_set(&caller, server, &set).await.unwrap();
    assert_eq!((set.value("cpu"), set.value("name")), (Some("3000"), Some("n2")));
    assert_eq!(app.server_serial(&caller, server).await.unwrap(), "login:");
    assert_eq!(world.host.runs_begun(), [(server, Run(1))], "nothing of this begins a run");

    for _ in 0..2 {
        app.server_stop(&caller, server).await.unwrap();
        let stopped = app.server_info(&caller, server).await.unwrap();
        assert_eq!(stopped.value("status"), Some("stopped"));
        for key in ["started", "smp:cores", "vnc:ip"] {
            assert_eq!(stopped.value(key), None, "{key} is for active servers");
        }
    }
    assert_eq!(app.drive_info(&caller, drive).await.unwrap().value("claimed"), None);
    app.server_shutdown(&caller, server).await.unwrap();

    let set = Record::new().with("mem", 2_048).with("smp", 2).with("persistent", "false");
    app.server_set(&caller, server, &set).await.unwrap();
    let started = app.server_start(&caller, server).await.unwrap();
    assert_eq!(started.value("smp:cores"), Some("2"));
    assert_eq!(started.value("persistent"), None);
    app.server_destroy(&caller, server).await.unwrap();
    assert_eq!(app.server_info(&caller, server).await.unwrap_err().kind(), ErrorKind::NotFound);
    app.drive_destroy(&caller, drive).await.expect("the drive is free when destroy answers");
    assert_eq!(world.host.runs_begun(), [(server, Run(1)), (server, Run(2))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_persistent_vanishes_when_its_guest_powers_off() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let drive = plane.drive(&caller, 64).await;
    let made = plane.app.server_create(&caller, &small_server(&[drive]), OnCreate::Start).await;
    let server: ServerId = id(&made.unwrap(), "server");
    world.host.power_off_guest(server);
    world.host.exchange(&plane.app).await;
    let gone = plane.app.server_info(&caller, server).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(plane.app.server_ids(&caller, &Page::default()).await.unwrap(), []);
    plane.app.drive_destroy(&caller, drive).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_says_why_and_releases_what_it_claimed() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let drive = plane.drive(&caller, 64).await;
    let fault = Fault { code: "job_failed".into(), message: "no such CPU".into(), field: None };

    world.host.expect(Mishap::Start(fault.clone()));
    let refused = plane
        .app
        .server_create(&caller, &small_server(&[drive]), OnCreate::Start)
        .await
        .unwrap_err();
    assert_eq!((refused.kind(), refused.public_message()), (ErrorKind::JobFailed, "no such CPU"));
    assert_eq!(
        plane.app.server_ids(&caller, &Page::default()).await.unwrap(),
        [],
        "it was not persistent"
    );

    let server = plane.server(&caller, &[drive], OnCreate::LeaveStopped).await;
    world.host.expect(Mishap::Start(fault));
    let refused = plane.app.server_start(&caller, server).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::JobFailed);
    assert_eq!(plane.value(&caller, server, "failed").await.as_deref(), Some("no such CPU"));
    assert_eq!(plane.value(&caller, server, "status").await.as_deref(), Some("stopped"));
    let again = plane.app.server_start(&caller, server).await.unwrap();
    assert_eq!((again.value("failed"), again.value("status")), (None, Some("active")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_time_to_answer_calls_tell_the_truth_and_keep_the_wish() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let made = app.drive_create(&caller, &sized(64)).await.unwrap();
    assert_eq!(made.value("status"), Some("inactive"));
    let drive: DriveId = id(&made, "drive");
    world.host.exchange(app).await;
    let info = app.drive_info(&caller, drive).await.unwrap();
    assert_eq!(info.value("status"), Some("active"));

    let server = plane.server(&caller, &[drive], OnCreate::Start).await;
    assert_eq!(plane.value(&caller, server, "status").await.as_deref(), Some("active"));
    assert_eq!(plane.value(&caller, server, "started").await, None);
    world.host.exchange(app).await;
    assert!(plane.value(&caller, server, "started").await.is_some());

    for _ in 0..2 {
        let late = app.server_reset(&caller, server).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Unavailable);
    }
    let resets: Vec<u64> = app
        .outbox(host_id(), 10)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|document| match document {
            Document::Server(document) => Some(document.reset),
            _ => None,
        })
        .collect();
    assert_eq!(resets, [1], "a reset that is repeated while it waits joins the first");
    world.host.exchange(app).await;
    let late = app.server_stop(&caller, server).await.unwrap_err();
    assert_eq!(
        (late.kind(), late.public_message()),
        (ErrorKind::Unavailable, "the server is still stopping: repeat the call")
    );
    world.host.exchange(app).await;
    app.server_stop(&caller, server).await.unwrap();

    app.server_start(&caller, server).await.unwrap();
    app.server_destroy(&caller, server).await.expect("a destroy answers past its time too");
    let busy = app.drive_destroy(&caller, drive).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::DriveInUse, "nobody confirmed that the drive is free");
    world.host.exchange(app).await;
    app.drive_destroy(&caller, drive).await.unwrap();
    assert_eq!(world.host.runs_begun().len(), 1, "a start that was overtaken never begins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_may_overtake_its_start() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let server = plane.server(&caller, &[], OnCreate::Start).await;
    app.server_stop(&caller, server).await.unwrap_err();
    world.host.exchange(app).await;
    assert_eq!(plane.value(&caller, server, "status").await.as_deref(), Some("stopped"));
    assert_eq!(world.host.runs_begun(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_stop_a_start_that_hangs_remind_hosts_and_find_them_silent() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let server = plane.server(&caller, &[], OnCreate::Start).await;
    let documents = app.outbox(host_id(), 10).await.unwrap();
    app.delivered(host_id(), &documents).await.unwrap();
    world.pass(Duration::from_secs(29));
    app.deadlines().await.unwrap();
    assert_eq!(app.outbox(host_id(), 10).await.unwrap(), [], "nothing is overdue yet");
    plane.server(&caller, &[], OnCreate::Start).await;

    world.pass(Duration::from_secs(152));
    app.deadlines().await.unwrap();
    let failed = plane.value(&caller, server, "failed").await.unwrap();
    assert!(failed.contains("did not run within 180 s"), "{failed}");
    let full = app.server_create(&caller, &small_server(&[]), OnCreate::Start).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoCapacity, "a silent host takes nothing new");

    let documents = app.outbox(host_id(), 10).await.unwrap();
    app.delivered(host_id(), &documents).await.unwrap();
    world.pass(Duration::from_secs(61));
    app.deadlines().await.unwrap();
    let reminded = app.outbox(host_id(), 10).await.unwrap();
    let reminds = |document: &Document| matches!(document, Document::Server(document) if document.server == server && !document.powered);
    assert!(reminded.iter().any(reminds), "{reminded:?}");
    for document in &reminded {
        world.host.take(document);
    }
    world.host.exchange(app).await;
    assert_eq!(plane.value(&caller, server, "status").await.as_deref(), Some("stopped"));
    app.server_start(&caller, server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_guest_shows_as_paused_and_goes_on() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let server = plane.server(&caller, &[], OnCreate::Start).await;
    for (phase, status) in [
        (RunPhase::Paused, "paused"),
        (RunPhase::Unresponsive, "active"),
        (RunPhase::Running, "active"),
    ] {
        world.host.change_server(server, |seen| seen.phase = phase);
        world.host.exchange(&plane.app).await;
        assert_eq!(plane.value(&caller, server, "status").await.as_deref(), Some(status));
    }
}
