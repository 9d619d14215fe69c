//! What hosts say of the disks of their arrays reaches operators, as it is and as events.

use elasticstack_core::block::{
    ArrayState, DiskReport, DiskState, Disks, Warning, WarningKind, Work, WorkKind,
};
use elasticstack_core::wire::keys::{self, Object};

use crate::cloud::{Answer, Cloud};
use crate::feed::{ask, now, told_since};

/// A mirror of two disks.
fn mirror(missing: u32, work: Option<(WorkKind, u8)>) -> Disks {
    let disk = |name: &str, state| DiskReport { name: name.to_owned(), state, corrected: 0 };
    let second = if missing == 0 { DiskState::InSync } else { DiskState::Faulty };
    Disks {
        count: 2,
        missing,
        work: work.map(|(kind, percent)| Work { kind, percent }),
        mismatches: 0,
        each: vec![disk("WD 1", DiskState::InSync), disk("WD 2", second)],
    }
}

/// Has the host say how its array is; answers what operators are told of that.
async fn told(cloud: &Cloud, state: ArrayState, disks: Disks) -> Answer {
    cloud.agent.change_array(state, disks);
    let report = cloud.agent.report();
    cloud.server.app().host_answered(cloud.host, &report).await.unwrap();
    let array = report.arrays[0].array;
    cloud.operate(&format!("/arrays/{array}/info"), "").await.expect(200)
}

#[tokio::test]
async fn how_the_disks_of_an_array_are_is_told_to_operators() {
    let cloud = Cloud::new().await;
    for (missing, work, status) in [
        (0, None, "online"),
        (1, None, "degraded"),
        (1, Some(WorkKind::Rebuild), "rebuilding"),
        (0, Some(WorkKind::Rebuild), "rebuilding"),
        (1, Some(WorkKind::Check), "degraded"),
        (1, Some(WorkKind::Reshape), "degraded"),
        (0, Some(WorkKind::Resync), "checking"),
        (0, Some(WorkKind::Check), "checking"),
        (0, Some(WorkKind::Repair), "checking"),
        (0, Some(WorkKind::Reshape), "reshaping"),
    ] {
        let disks = mirror(missing, work.map(|kind| (kind, 7)));
        let answer = told(&cloud, ArrayState::Online, disks).await;
        assert_eq!(answer.value("status"), Some(status), "{missing} {work:?}");
        assert_eq!(answer.value("work"), work.map(WorkKind::as_str));
        assert_eq!(answer.value("work:progress"), work.map(|_| "7"));
    }
    let mut disks = mirror(1, None);
    (disks.mismatches, disks.each[0].corrected) = (128, 3);
    let answer = told(&cloud, ArrayState::Online, disks).await;
    for (key, value) in [
        ("disks", "2"),
        ("disks:missing", "1"),
        ("mismatches", "128"),
        ("disk:0", "WD 1"),
        ("disk:0:status", "in_sync"),
        ("disk:0:corrected", "3"),
        ("disk:1", "WD 2"),
        ("disk:1:status", "faulty"),
        ("disk:1:corrected", "0"),
    ] {
        assert_eq!(answer.value(key), Some(value), "{key}");
    }
    for line in answer.text().lines() {
        let key = line.split(' ').next().unwrap();
        assert!(keys::find(Object::Array, key).is_some(), "{key} is in no table");
    }
    let failed = told(&cloud, ArrayState::Failed, mirror(2, None)).await;
    assert_eq!((failed.value("status"), failed.value("capacity")), (Some("failed"), Some("0")));
    assert_eq!(failed.value("disks:missing"), Some("2"));
    cloud.server.close().await;
}

#[tokio::test]
async fn what_becomes_of_an_array_is_an_event_and_a_rebuild_one_for_each_tenth() {
    let cloud = Cloud::new().await;
    let router = cloud.server.router();
    let before = now(&router, &cloud.basic).await;
    let mut stages =
        vec![(ArrayState::Online, mirror(0, None)), (ArrayState::Online, mirror(1, None))];
    let rebuild = (0..=100).map(|percent| mirror(1, Some((WorkKind::Rebuild, percent))));
    stages.extend(rebuild.map(|disks| (ArrayState::Online, disks)));
    stages.push((ArrayState::Online, mirror(0, None)));
    stages.push((ArrayState::Failed, mirror(2, None)));
    for (state, disks) in stages {
        told(&cloud, state, disks.clone()).await;
        // Said again, it is no news.
        told(&cloud, state, disks).await;
    }
    told_since(&router, &cloud.basic, &before).await;
    let path = format!("/events/info/all?after={before}");
    let events = ask(&router, &cloud.operator, &path).await.expect(200).json();
    let of_arrays = events.as_array().unwrap().iter().filter(|event| event["object"] == "array");
    let statuses: Vec<_> = of_arrays.map(|event| event["status"].as_str().unwrap()).collect();
    let mut expected = vec!["online", "degraded"];
    expected.extend(["rebuilding"; 11]);
    expected.extend(["online", "failed"]);
    assert_eq!(statuses, expected);
    let customers = ask(&router, &cloud.basic, "/events/info").await.expect(200).json();
    assert!(customers.as_array().unwrap().iter().all(|event| event["object"] != "array"));
    cloud.server.close().await;
}

#[tokio::test]
async fn what_to_look_at_of_an_array_is_told_to_operators_and_each_change_is_an_event() {
    let cloud = Cloud::new().await;
    let router = cloud.server.router();
    told(&cloud, ArrayState::Online, mirror(0, None)).await;
    let before = now(&router, &cloud.basic).await;
    let slow = Warning {
        kind: WarningKind::DiskSlow,
        disk: Some("WD 2".to_owned()),
        sentence: "disk WD 2 is slow: look at it".to_owned(),
    };
    let full = Warning {
        kind: WarningKind::NearlyFull,
        disk: None,
        sentence: "it is nearly full: make it larger".to_owned(),
    };
    for (warnings, kinds) in [
        (vec![slow.clone()], [Some("disk_slow"), None]),
        (vec![slow, full], [Some("disk_slow"), Some("nearly_full")]),
        (vec![], [None, None]),
    ] {
        cloud.agent.warn(warnings);
        let answer = told(&cloud, ArrayState::Online, mirror(0, None)).await;
        // Said again, it is no news.
        told(&cloud, ArrayState::Online, mirror(0, None)).await;
        assert_eq!(["warning:0", "warning:1"].map(|key| answer.value(key)), kinds);
        assert_eq!(answer.value("warning:0:disk"), kinds[0].map(|_| "WD 2"));
        assert_eq!(answer.value("warning:1:disk"), None);
        let sentence = kinds[1].map(|_| "it is nearly full: make it larger");
        assert_eq!(answer.value("warning:1:sentence"), sentence);
        for line in answer.text().lines() {
            let key = line.split(' ').next().unwrap();
            assert!(keys::find(Object::Array, key).is_some(), "{key} is in no table");
        }
    }
    told_since(&router, &cloud.basic, &before).await;
    let path = format!("/events/info/all?after={before}");
    let events = ask(&router, &cloud.operator, &path).await.expect(200).json();
    let of_arrays = events.as_array().unwrap().iter().filter(|event| event["object"] == "array");
    assert_eq!(of_arrays.count(), 3);
    cloud.server.close().await;
}
