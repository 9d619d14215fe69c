//! The control plane is killed and opened again, and reports come twice, late or from before.

use elasticstack_api::app::OnCreate;
use elasticstack_core::block::ArrayState;
use elasticstack_core::prelude::*;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{Conversion, Cursor, JobProgress, Reports};

use crate::fake_host::{MIB, World, customer, host_id, id, sized, small_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_goes_on_over_a_restart_between_any_two_steps() {
    let world = World::new();
    let caller = customer(&world.still().await.app, 1).await;
    let source: DriveId =
        id(&world.still().await.app.drive_create(&caller, &sized(8)).await.unwrap(), "drive");
    let drive: DriveId =
        id(&world.still().await.app.drive_create(&caller, &sized(8)).await.unwrap(), "drive");
    world.host.exchange(&world.still().await.app).await;
    world.host.leave_jobs();
    world.still().await.app.drive_image(&caller, drive, source, Conversion::None).await.unwrap();
    world.host.exchange(&world.still().await.app).await;
    world.host.change_job(JobProgress::Running(50));
    world.host.send(&world.still().await.app).await;
    let info = world.still().await.app.drive_info(&caller, drive).await.unwrap();
    assert_eq!(info.value("imaging"), Some("50%"));
    world.host.change_job(JobProgress::Done);
    world.host.send(&world.still().await.app).await;
    world.host.exchange(&world.still().await.app).await;

    let record = small_server(&[drive]).with("persistent", true);
    let made = world.still().await.app.server_create(&caller, &record, OnCreate::Start).await;
    let server: ServerId = id(&made.unwrap(), "server");
    world.host.exchange(&world.still().await.app).await;
    let plane = world.still().await;
    assert!(plane.value(&caller, server, "started").await.is_some());
    world.host.power_off_guest(server);
    world.host.send(&world.still().await.app).await;
    let plane = world.still().await;
    assert_eq!(plane.value(&caller, server, "status").await.as_deref(), Some("stopped"));
    assert_eq!(plane.app.outbox(host_id(), 10).await.unwrap(), []);
    for _ in 0..3 {
        world.host.send_all(&world.still().await.app).await;
        world.host.exchange(&world.still().await.app).await;
    }
    assert_eq!(world.host.runs_begun(), [(server, Run(1))], "what ended itself stays ended");
    plane.app.drive_destroy(&caller, drive).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_says_nothing_new_writes_nothing() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    plane.drive(&caller, 8).await;
    plane.server(&caller, &[], OnCreate::Start).await;
    world.host.exchange(app).await;
    world.host.send_all(app).await;
    let before = *app.changes().borrow();
    let mut again = app.changes();
    let next = Cursor { life: "life-1".to_owned(), sequence: 100 };
    app.ingest(host_id(), &Reports { next, objects: Vec::new() }).await.unwrap();
    app.host_answered(host_id(), &world.host.report()).await.unwrap();
    app.delivered(host_id(), &[]).await.unwrap();
    app.deadlines().await.unwrap();
    assert_eq!(*again.borrow_and_update(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_about_older_runs_and_strangers_are_ignored_and_counted() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let server = plane.server(&caller, &[], OnCreate::Start).await;
    world.host.exchange(app).await;
    world.host.power_off_guest(server);
    world.host.send(app).await;
    app.server_start(&caller, server).await.unwrap();
    assert_eq!(app.stale_reports(), 0);
    world.host.send_all(app).await;
    assert_eq!(app.stale_reports(), 1, "the end of the run before");
    assert_eq!(plane.value(&caller, server, "status").await.as_deref(), Some("active"));
    world.host.exchange(app).await;
    assert!(plane.value(&caller, server, "started").await.is_some());

    let other = HostId::from_uuid(uuid::Uuid::from_u128(0xF0));
    app.host_create(other, &"h2".parse().unwrap(), "127.0.0.1:1").await.unwrap();
    world.host.change_server(server, |status| status.phase = RunPhase::Ended);
    let next = Cursor { life: "other".to_owned(), sequence: 1 };
    let objects = world.host.statuses();
    app.ingest(other, &Reports { next, objects }).await.unwrap();
    assert_eq!(
        plane.value(&caller, server, "status").await.as_deref(),
        Some("active"),
        "only its own host says what a server is"
    );
    let unknown = HostId::from_uuid(uuid::Uuid::from_u128(0xF1));
    let next = Cursor { life: "x".to_owned(), sequence: 1 };
    let refused = app.ingest(unknown, &Reports { next, objects: Vec::new() }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_that_fails_takes_nothing_new_and_its_drives_stay_known() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    world.host.exchange(app).await;
    let before = app.drive_info(&caller, drive).await.unwrap();

    let whole = world.host.report();
    let mut failed = whole.clone();
    failed.arrays[0].state = ArrayState::Failed;
    app.host_answered(host_id(), &failed).await.unwrap();
    let refused = app.drive_create(&caller, &sized(8)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    let refused = app.drive_set(&caller, drive, &sized(12)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    assert_eq!(app.drive_info(&caller, drive).await.unwrap(), before);
    let host = app.host_info(host_id()).await.unwrap();
    let room = |key| host.value(key).map(str::to_owned);
    assert_eq!(room("array:a1:capacity").as_deref(), Some("0"));
    assert_eq!(room("array:a1:promised"), Some((8 * MIB).to_string()));

    app.host_answered(host_id(), &whole).await.unwrap();
    plane.drive(&caller, 8).await;
}
