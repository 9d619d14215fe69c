//! Many callers at once.

use elasticstack_api::app::{OnCreate, Page};
use elasticstack_core::prelude::*;
use tokio::task::JoinSet;

use crate::fake_host::{World, customer, sized, small_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixteen_servers_that_want_one_drive_exactly_one_gets_it() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let drive = plane.drive(&caller, 64).await;
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let (app, caller) = (plane.app.clone(), caller.clone());
        calls.spawn(async move {
            let mut record = small_server(&[drive]);
            record.set("cpu", 500);
            record.set("mem", 128);
            app.server_create(&caller, &record, OnCreate::Start).await.map(|_| ())
        });
    }
    let outcomes = calls.join_all().await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1, "{outcomes:?}");
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(refused.kind(), ErrorKind::DriveInUse);
        assert_eq!(refused.blamed_field(), Some("block:0"));
    }
    assert_eq!(world.host.runs_begun().len(), 1);
    assert_eq!(
        plane.app.server_ids(&caller, &Page::default()).await.unwrap().len(),
        1,
        "who lost was not made"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_never_promised_twice() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let mut drives = JoinSet::new();
    let mut servers = JoinSet::new();
    for _ in 0..32 {
        let (app, owner) = (plane.app.clone(), caller.clone());
        drives.spawn(async move { app.drive_create(&owner, &sized(100)).await });
        let (app, owner) = (plane.app.clone(), caller.clone());
        servers.spawn(async move {
            let record = small_server(&[]).with("mem", 1_000).with("persistent", true);
            app.server_create(&owner, &record, OnCreate::Start).await
        });
    }
    for (calls, fitting, what) in [(drives, 10, "drives of 100 MiB"), (servers, 8, "servers")] {
        let outcomes = calls.join_all().await;
        let fit = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(fit, fitting, "{what}");
        for refused in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(refused.kind(), ErrorKind::NoCapacity);
        }
    }
    let drive = plane.app.drive_ids(&caller, &Page::default()).await.unwrap()[0];
    let full = plane.app.drive_set(&caller, drive, &sized(128)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoCapacity, "24 MiB are left, 28 are wanted");
    plane.app.drive_set(&caller, drive, &sized(124)).await.unwrap();
    let server = plane.app.server_ids(&caller, &Page::default()).await.unwrap()[0];
    let more = elasticstack_core::wire::record::Record::new().with("cpu", 13_001);
    let full = plane.app.server_set(&caller, server, &more).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoCapacity, "12,000 MHz are left, 12,001 are wanted");
    plane.app.server_stop(&caller, server).await.unwrap();
    let record = small_server(&[]).with("mem", 1_000);
    plane.app.server_create(&caller, &record, OnCreate::Start).await.expect("its room is free");
}
