//! What hosts have and no intent knows is kept and told until an operator decides.

use std::time::Duration;

use elasticstack_api::app::{OnCreate, Page};
use elasticstack_core::prelude::*;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{DriveStatus, ObjectStatus};
use elasticstack_core::wire::keys::{self, Object};
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use crate::cloud::{Cloud, GUARD};
use crate::fake_host::{World, customer, host_id, id, operator};

/// Everything that is in quarantine.
async fn quarantine(app: &elasticstack_api::app::App) -> Vec<Record> {
    app.strays_info(&Page::default()).await.unwrap()
}

#[tokio::test]
async fn a_stray_drive_is_kept_and_adopted_with_its_bytes_or_destroyed() {
    let cloud = Cloud::new().await;
    let owner = cloud.own_account().await;
    let (stray, drive) = cloud.stray().await;
    let info = cloud.operate(&format!("/quarantine/{stray}/info"), "").await.expect(200);
    for line in info.text().lines() {
        let key = line.split(' ').next().unwrap();
        assert!(keys::find(Object::Stray, key).is_some(), "{key} is in no table");
    }
    let told = [("type", "drive"), ("size", "4194304"), ("why", "unknown"), ("account", &owner)];
    for (key, value) in told {
        assert_eq!(info.value(key), Some(value), "{key}");
    }
    assert_eq!(info.value("object"), Some(drive.to_string().as_str()));
    let seen = format!("/drives/{drive}/info");
    cloud.get(&seen).await.expect(404);

    let nobody = format!("/quarantine/{stray}/adopt/{}", Uuid::new_v4());
    let refused = cloud.operate(&nobody, "").await.expect(404);
    assert_eq!(refused.header("x-elastic-error"), "missing code=not_found field=account");
    let adopted = cloud.operate(&format!("/quarantine/{stray}/adopt/{owner}"), "").await;
    assert_eq!(adopted.expect(200).value("status"), Some("active"));
    cloud.operate(&format!("/quarantine/{stray}/adopt/{owner}"), "").await.expect(404);
    cloud.get(&seen).await.expect(200);
    let read = cloud.get(&format!("/drives/{drive}/read/0/4")).await.expect(200);
    assert_eq!(read.body, [7; 4], "it is taken over as it is");
    let usage = cloud.get("/usage/info").await.expect(200);
    assert!(usage.text().contains(&drive.to_string()), "it is metered");
    cloud.post(&format!("/drives/{drive}/set"), "size 8M").await.expect(200);
    cloud.post(&format!("/drives/{drive}/destroy"), "").await.expect(204);

    let (stray, drive) = cloud.stray().await;
    cloud.operate(&format!("/quarantine/{stray}/destroy"), "").await.expect(204);
    let destroyed = async {
        while cloud.agent.has(drive) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(GUARD, destroyed).await.expect("its host was not told");
    assert_eq!(cloud.operate("/quarantine/list", "").await.expect(200).text(), "");
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_database_made_is_in_quarantine_of_an_older_one_and_comes_back() {
    let newer = World::new();
    let plane = newer.plane().await;
    let caller = customer(&plane.app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    let server = plane.server(&caller, &[drive], OnCreate::Start).await;
    drop(plane);

    let older = World::new().with_host_of(&newer);
    let plane = older.plane().await;
    let (app, caller) = (&plane.app, customer(&plane.app, 1).await);
    let operator = operator(app).await;
    older.host.send_all(app).await;
    for _ in 0..2 {
        older.host.send_all(app).await;
        let strays = quarantine(app).await;
        let objects: Vec<&str> = strays.iter().filter_map(|stray| stray.value("object")).collect();
        assert_eq!(objects.len(), 2, "each once: {strays:?}");
        assert!(objects.contains(&drive.to_string().as_str()));
        assert!(objects.contains(&server.to_string().as_str()));
    }
    let stray_of = async |object: String| -> StrayId {
        let strays = quarantine(app).await;
        let stray = strays.iter().find(|stray| stray.value("object") == Some(&object)).unwrap();
        id(stray, "stray")
    };
    let runs = stray_of(server.to_string()).await;
    let refused = app.stray_adopt(&operator, runs, caller.account).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidValue);
    app.stray_destroy(&operator, runs).await.unwrap();
    older.host.exchange(app).await;
    let ended = older.host.statuses().into_iter().any(|status| {
        matches!(status, ObjectStatus::Server(it) if it.server == server && it.gone && it.phase == RunPhase::Ended)
    });
    assert!(ended, "its host ended it and forgets it");

    let stray = stray_of(drive.to_string()).await;
    app.stray_adopt(&operator, stray, caller.account).await.unwrap();
    let again = plane.server(&caller, &[drive], OnCreate::Start).await;
    assert_eq!(plane.value(&caller, again, "status").await.as_deref(), Some("active"));
    assert_eq!(quarantine(app).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_drive_that_its_host_has_again_is_kept_until_it_is_gone_once_more() {
    let world = World::new();
    let plane = world.plane().await;
    let (app, caller) = (&plane.app, customer(&plane.app, 1).await);
    let drive = plane.drive(&caller, 8).await;
    let there = world.host.statuses().into_iter().next().unwrap();
    app.drive_destroy(&caller, drive).await.unwrap();
    world.host.exchange(app).await;
    let tell = async |change: &dyn Fn(&mut DriveStatus)| {
        let mut status = there.clone();
        if let ObjectStatus::Drive(status) = &mut status {
            change(status);
        }
        world.host.tell(app, status).await;
    };
    tell(&|_| {}).await;
    assert_eq!(quarantine(app).await, [], "word of it may have been under way");
    world.pass(Duration::from_secs(61));
    tell(&|status| status.epoch = Epoch(9)).await;
    let strays = quarantine(app).await;
    assert_eq!(strays[0].value("why"), Some("destroyed"));
    assert_eq!(strays[0].value("host"), Some(host_id().to_string().as_str()));
    tell(&|status| status.gone = true).await;
    assert_eq!(quarantine(app).await, [], "it is gone by itself");

    tell(&|status| status.epoch = Epoch(10)).await;
    let (operator, stray) = (operator(app).await, id(&quarantine(app).await[0], "stray"));
    tell(&|status| status.generation = Generation::new(Era(9), 1)).await;
    let refused = app.stray_adopt(&operator, stray, caller.account).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stale, "its host would not heed us");
    tell(&|status| status.home = None).await;
    let refused = app.stray_destroy(&operator, stray).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "where it lies is not known");
    tell(&|status| status.epoch = Epoch(11)).await;
    app.stray_adopt(&operator, stray, caller.account).await.unwrap();
    assert_eq!(app.drive_ids(&caller, &Page::default()).await.unwrap(), [drive]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_snapshot_goes_back_to_its_drives_owner_or_is_destroyed() {
    let newer = World::new();
    let plane = newer.plane().await;
    let caller = customer(&plane.app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    let mut made = Vec::new();
    for _ in 0..2 {
        let info = plane.app.drive_snapshot(&caller, drive, &Record::new()).await.unwrap();
        made.push(id::<SnapshotId>(&info, "snapshot"));
    }
    drop(plane);

    let older = World::new().with_host_of(&newer);
    let plane = older.plane().await;
    let app = &plane.app;
    let (operator, owner) = (operator(app).await, customer(app, 1).await);
    let stranger = customer(app, 2).await;
    older.host.send_all(app).await;
    let stray_of = async |object: String| {
        let strays = quarantine(app).await;
        let stray = strays.iter().find(|stray| stray.value("object") == Some(&object)).unwrap();
        for (key, _) in stray.iter() {
            assert!(keys::find(Object::Stray, key).is_some(), "{key} is in no table");
        }
        id::<StrayId>(stray, "stray")
    };
    assert_eq!(quarantine(app).await.len(), 3);
    let first = stray_of(made[0].to_string()).await;
    for other in [&owner, &stranger] {
        let refused = app.stray_adopt(&operator, first, other.account).await.unwrap_err();
        let refusal = (refused.kind(), refused.blamed_field());
        assert_eq!(
            refusal,
            (ErrorKind::InvalidValue, Some("account")),
            "its drive is nobody's yet"
        );
    }
    let stray = stray_of(drive.to_string()).await;
    app.stray_adopt(&operator, stray, owner.account).await.unwrap();
    app.stray_adopt(&operator, first, stranger.account).await.unwrap_err();
    let answer = app.stray_adopt(&operator, first, owner.account).await.unwrap();
    assert_eq!(answer.value("drive"), Some(drive.to_string().as_str()));
    older.host.exchange(app).await;
    assert_eq!(app.snapshot_ids(&owner, &Page::default()).await.unwrap(), [made[0]]);
    app.snapshot_restore(&owner, made[0]).await.unwrap();

    let second = stray_of(made[1].to_string()).await;
    app.stray_destroy(&operator, second).await.unwrap();
    older.host.exchange(app).await;
    let gone = older.host.statuses().into_iter().any(
        |status| matches!(status, ObjectStatus::Snapshot(it) if it.snapshot == made[1] && it.gone),
    );
    assert!(gone, "its host destroyed it");
    assert_eq!(quarantine(app).await, []);
    assert_eq!(app.snapshot_ids(&owner, &Page::default()).await.unwrap(), [made[0]]);
}
