//! Many callers at once.

use std::sync::Arc;

use elasticstack_api::app::{App, OnCreate, Page};
use elasticstack_core::prelude::*;
use elasticstack_core::resource::ResourceKind;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{ArrayStatus, HostReport, ObjectStatus, ServerStatus};
use elasticstack_core::wire::record::Record;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::fake_host::{MIB, World, customer, host_id, sized, small_server};

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
async fn drives_and_snapshots_never_share_a_promise() {
    let world = World::new();
    let plane = world.plane().await;
    let caller = customer(&plane.app, 1).await;
    let drive = plane.drive(&caller, 100).await;
    let mut calls = JoinSet::new();
    for number in 0..32 {
        let (app, owner) = (plane.app.clone(), caller.clone());
        calls.spawn(async move {
            if number % 2 == 0 {
                app.drive_create(&owner, &sized(100)).await
            } else {
                app.drive_snapshot(&owner, drive, &Record::new()).await
            }
        });
    }
    let outcomes = calls.join_all().await;
    let fit = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(fit, 9, "1,024 MiB have room for ten of 100 MiB, and one was there");
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    }
    let snapshots = plane.app.snapshot_ids(&caller, &Page::default()).await.unwrap();
    let full = plane.app.drive_set(&caller, drive, &sized(128)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoCapacity, "24 MiB are left, 28 are wanted");
    if let [snapshot, ..] = *snapshots {
        plane.app.snapshot_destroy(&caller, snapshot).await.unwrap();
        plane.until(async || plane.app.drive_create(&caller, &sized(100)).await.is_ok()).await;
    }
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
    let more = Record::new().with("cpu", 13_001);
    let full = plane.app.server_set(&caller, server, &more).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoCapacity, "12,000 MHz are left, 12,001 are wanted");
    plane.app.server_stop(&caller, server).await.unwrap();
    let record = small_server(&[]).with("mem", 1_000);
    plane.app.server_create(&caller, &record, OnCreate::Start).await.expect("its room is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_says_and_what_a_customer_wants_of_a_server_never_undo_each_other() {
    const TIMES: usize = 40;
    let world = World::new();
    let plane = world.plane().await;
    let caller = &customer(&plane.app, 1).await;
    let server = plane.server(caller, &[], OnCreate::Start).await;
    let status = world.host.statuses().into_iter().find_map(|status| match status {
        ObjectStatus::Server(status) => Some(status),
        _ => None,
    });
    let status = &status.expect("the server runs");
    drop(plane);
    let plane = &world.still().await;
    let wants = async {
        for number in 1..=TIMES {
            let name = format!("name {number}");
            let change = Record::new().with("name", &name);
            plane.app.server_set(caller, server, &change).await.unwrap();
            assert_eq!(plane.value(caller, server, "name").await, Some(name));
        }
    };
    let says = async {
        for (phase, shown) in [(RunPhase::Paused, "paused"), (RunPhase::Running, "active")]
            .into_iter()
            .cycle()
            .take(TIMES)
        {
            let status = ServerStatus { phase, ..status.clone() };
            world.host.tell(&plane.app, ObjectStatus::Server(status)).await;
            assert_eq!(plane.value(caller, server, "status").await.as_deref(), Some(shown));
        }
    };
    tokio::join!(wants, says);
}

/// Sixty-four claimers of everything that has a quota, through these in turns: each quota lets
/// thirteen through. What runs for it is destroyed through the first.
pub(crate) async fn each_quota_lets_thirteen_through(apps: &[Arc<App>]) {
    const CLAIMERS: usize = 64;
    let operator = crate::fake_host::operator(&apps[0]).await;
    let pool = Record::new().with("name", "public").with("first", "10.0.0.10");
    let pool = pool.with("last", "10.0.0.90").with("netmask", "255.255.255.0");
    apps[0].pool_create(&operator, &pool.with("gateway", "10.0.0.1")).await.unwrap();
    let make = small_server(&[]).with("cpu", 500).with("mem", 128).with("persistent", true);
    for (number, quota) in (1..).zip([
        Record::new().with("quota:drives", 13),
        Record::new().with("quota:disk", 13 << 22),
        Record::new().with("quota:servers", 13),
        Record::new().with("quota:cpu", 13 * 500),
        Record::new().with("quota:mem", 13 * 128),
        Record::new().with("quota:ip", 13),
        Record::new().with("quota:vlan", 13),
    ]) {
        let caller = customer(&apps[0], number).await;
        apps[0].account_set(&operator, caller.account, &quota).await.unwrap();
        let key = quota.iter().next().unwrap().0;
        let mut claims = JoinSet::new();
        for claimer in 0..CLAIMERS {
            let (app, caller) = (apps[claimer % apps.len()].clone(), caller.clone());
            let (make, key) = (make.clone(), key.to_owned());
            claims.spawn(async move {
                let take = async |kind| app.resource_create(&caller, kind, &Record::new()).await;
                match key.as_str() {
                    "quota:drives" | "quota:disk" => app.drive_create(&caller, &sized(4)).await,
                    "quota:ip" => take(ResourceKind::Ip).await,
                    "quota:vlan" => take(ResourceKind::Vlan).await,
                    _ => app.server_create(&caller, &make, OnCreate::Start).await,
                }
            });
        }
        let outcomes = claims.join_all().await;
        let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(made, 13, "{key}: {outcomes:?}");
        for refused in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(refused.kind(), ErrorKind::QuotaExceeded, "{key}: {refused}");
            assert_eq!(refused.blamed_field(), Some(key));
        }
        for server in apps[0].server_ids(&caller, &Page::default()).await.unwrap() {
            apps[0].server_destroy(&caller, server).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_claimers_each_quota_lets_thirteen_through() {
    let world = World::new();
    let plane = world.plane().await;
    each_quota_lets_thirteen_through(std::slice::from_ref(&plane.app)).await;
}

/// Sixty-four claimers, each of whom wants an eighth of a host, on eight hosts: whoever was too
/// slow for one place is given another, as long as there is one.
pub(crate) async fn everything_that_fits_is_placed(world: &World, apps: &[Arc<App>]) {
    // The world's own host has room for nobody.
    let none = HostReport { memory_mib: 0, arrays: Vec::new(), ..world.host.report() };
    apps[0].host_answered(host_id(), &none).await.unwrap();
    for number in 0..8 {
        let host = HostId::from_uuid(Uuid::from_u128(0xE000 + number));
        let name = format!("e{number}").parse().unwrap();
        apps[0].host_create(host, &name, "127.0.0.1:1").await.unwrap();
        let array = ArrayStatus {
            array: ArrayId::from_uuid(Uuid::from_u128(0xF000 + number)),
            capacity: 8 * 100 * MIB,
            ..world.host.report().arrays.remove(0)
        };
        let report = HostReport { memory_mib: 8 * 512, arrays: vec![array], ..world.host.report() };
        apps[0].host_answered(host, &report).await.unwrap();
    }
    let caller = customer(&apps[0], 1).await;
    let (mut servers, mut drives) = (JoinSet::new(), JoinSet::new());
    for claimer in 0..64 {
        let (app, owner) = (apps[claimer % apps.len()].clone(), caller.clone());
        servers.spawn(async move {
            let record = small_server(&[]).with("persistent", true);
            app.server_create(&owner, &record, OnCreate::Start).await
        });
        let (app, owner) = (apps[claimer % apps.len()].clone(), caller.clone());
        drives.spawn(async move { app.drive_create(&owner, &sized(100)).await });
    }
    for claims in [servers, drives] {
        let outcomes = claims.join_all().await;
        let refused: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_err()).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
    for app in apps {
        let full = app.server_create(&caller, &small_server(&[]), OnCreate::Start).await;
        assert_eq!(full.unwrap_err().kind(), ErrorKind::NoCapacity);
        let full = app.drive_create(&caller, &sized(4)).await;
        assert_eq!(full.unwrap_err().kind(), ErrorKind::NoCapacity);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_too_slow_for_one_place_is_given_another() {
    let world = World::new();
    let plane = world.still().await;
    everything_that_fits_is_placed(&world, std::slice::from_ref(&plane.app)).await;
}
