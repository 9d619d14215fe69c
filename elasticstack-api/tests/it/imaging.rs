//! Imaging and standard drives.

use elasticstack_api::app::{OnCreate, Page, StandardImage};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Conversion, Fault, JobProgress};
use elasticstack_core::wire::record::Record;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::fake_host::{MIB, World, customer, small_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imaging_claims_both_drives_until_it_ends_and_then_neither() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let source = plane.drive(&caller, 8).await;
    let target = plane.drive(&caller, 16).await;
    world.host.leave_jobs();
    for (progress, shown) in [(JobProgress::Running(42), Some("42%")), (JobProgress::Done, None)] {
        if shown.is_some() {
            let begun = app.drive_image(&caller, target, source, Conversion::None).await.unwrap();
            assert_eq!(begun.value("imaging"), Some("queued"));
            let job = begun.value("claimed").unwrap().to_owned();
            let info = app.drive_info(&caller, source).await.unwrap();
            assert_eq!((info.value("claimed"), info.value("imaging")), (Some(job.as_str()), None));
            for busy in [
                app.drive_destroy(&caller, source).await.unwrap_err(),
                app.drive_destroy(&caller, target).await.unwrap_err(),
                app.drive_write(&caller, source, Bytes::ZERO, "x".into()).await.unwrap_err(),
                app.drive_read(&caller, target, Bytes::ZERO, Bytes::from_mib(1)).await.unwrap_err(),
                app.drive_image(&caller, target, source, Conversion::None).await.unwrap_err(),
                app.server_create(&caller, &small_server(&[target]), OnCreate::Start)
                    .await
                    .unwrap_err(),
            ] {
                assert_eq!(busy.kind(), ErrorKind::DriveInUse);
                assert!(busy.public_message().contains(&job), "{busy}");
            }
            app.drive_read(&caller, source, Bytes::ZERO, Bytes::from_mib(1)).await.unwrap();
            world.host.exchange(app).await;
        }
        world.host.change_job(progress);
        world.host.exchange(app).await;
        let info = app.drive_info(&caller, target).await.unwrap();
        assert_eq!(info.value("imaging"), shown);
        assert_eq!(info.value("claimed").is_some(), shown.is_some(), "they vanish together");
    }
    app.drive_destroy(&caller, source).await.unwrap();
    plane.server(&caller, &[target], OnCreate::Start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_job_says_why_on_its_target_until_the_next_one() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let source = plane.drive(&caller, 8).await;
    let target = plane.drive(&caller, 8).await;
    world.host.leave_jobs();
    world.host.exchange(app).await;
    app.drive_image(&caller, target, source, Conversion::Gunzip).await.unwrap();
    world.host.exchange(app).await;
    let fault = Fault { code: "job_failed".into(), message: "not gzip".into(), field: None };
    world.host.change_job(JobProgress::Failed(fault));
    world.host.send(app).await;
    let info = app.drive_info(&caller, target).await.unwrap();
    assert_eq!((info.value("failed"), info.value("claimed")), (Some("not gzip"), None));
    world.host.exchange(app).await;
    app.drive_image(&caller, target, source, Conversion::None).await.unwrap();
    assert_eq!(app.drive_info(&caller, target).await.unwrap().value("failed"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_is_told_until_the_drive_may_have_changed() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    world.host.leave_jobs();
    let wish = Record::new().with("size", "5k").with("sha256", "ab".repeat(32));
    let told = async || {
        let info = app.drive_info(&caller, drive).await.unwrap();
        ["sha256", "sha256:size", "failed"].map(|key| info.value(key).map(str::to_owned))
    };
    let sum_up = async |progress| {
        let begun = app.drive_sha256(&caller, drive, &wish).await.unwrap();
        assert_eq!(begun.value("imaging"), Some("queued"));
        assert_eq!(told().await, [None, None, None], "while it is made");
        let busy = app.drive_write(&caller, drive, Bytes::ZERO, "x".into()).await.unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::DriveInUse);
        world.host.exchange(app).await;
        world.host.change_job(progress);
        world.host.exchange(app).await;
        world.host.exchange(app).await;
    };
    let summed = || JobProgress::Summed("ab".repeat(32));
    let known = [Some("ab".repeat(32)), Some("5120".to_owned()), None];
    sum_up(summed()).await;
    assert_eq!(told().await, known);
    app.drive_write(&caller, drive, Bytes::ZERO, "x".into()).await.unwrap();
    assert_eq!(told().await, [None, None, None], "it was written");
    sum_up(summed()).await;
    assert_eq!(told().await, known);
    let fault = Fault { code: "job_failed".into(), message: "another".into(), field: None };
    sum_up(JobProgress::Failed(fault)).await;
    assert_eq!(told().await, [None, None, Some("another".to_owned())]);
    sum_up(summed()).await;
    plane.server(&caller, &[drive], OnCreate::Start).await;
    assert_eq!(told().await, [None, None, None], "a server has it");

    let small = plane.drive(&caller, 4).await;
    let long = Record::new().with("size", "5M");
    let refused = app.drive_sha256(&caller, small, &long).await.unwrap_err();
    assert_eq!((refused.kind(), refused.blamed_field()), (ErrorKind::InvalidValue, Some("size")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standard_drive_is_published_once_and_seen_only_when_whole() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tiny.gz");
    let publish = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        StandardImage {
            drive: DriveId::from_uuid(Uuid::from_u128(0x5D)),
            name: "Tiny".parse().unwrap(),
            media: "disk".to_owned(),
            format: Some("gzip".to_owned()),
            rawsize: Some(Bytes::from_mib(64)),
            sha256: Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect(),
            path: path.clone(),
        }
    };
    let first = publish(&vec![7; 5 << 20]);
    let wrong = StandardImage { sha256: "00".repeat(32), ..first.clone() };
    assert_eq!(app.publish_standard(&wrong).await.unwrap_err().kind(), ErrorKind::InvalidValue);
    assert_eq!(app.standard_ids(&Page::default()).await.unwrap(), [], "not whole, not standard");
    assert_eq!(app.drive_info(&caller, first.drive).await.unwrap_err().kind(), ErrorKind::NotFound);

    app.publish_standard(&first).await.unwrap();
    let info = app.standard_info(&Page::default()).await.unwrap().remove(0);
    for (key, value) in [
        ("claim:type", "shared"),
        ("format", "gzip"),
        ("media", "disk"),
        ("name", "Tiny"),
        ("rawsize", "67108864"),
        ("readers", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("size", "8388608"),
        ("status", "active"),
    ] {
        assert_eq!(info.value(key), Some(value), "{key}");
    }
    let written = std::mem::take(&mut *world.bytes.drives.lock().unwrap()).remove(&first.drive);
    let written: Vec<u8> = written.unwrap().into_values().flatten().collect();
    assert_eq!(written.len(), 8 << 20);
    assert!(written[..5 << 20].iter().all(|byte| *byte == 7));
    assert!(written[5 << 20..].iter().all(|byte| *byte == 0));

    app.publish_standard(&first).await.unwrap();
    assert!(world.bytes.drives.lock().unwrap().is_empty(), "it is there: nothing is written");
    let small = plane.drive(&caller, 32).await;
    let refused = app.drive_image(&caller, small, first.drive, Conversion::Gunzip).await;
    assert_eq!(refused.unwrap_err().blamed_field(), Some("size"), "rawsize is 64 MiB");
    let target = plane.drive(&caller, 64).await;
    world.host.leave_jobs();
    app.drive_image(&caller, target, first.drive, Conversion::Gunzip).await.unwrap();
    let seen = app.drive_info(&caller, first.drive).await.unwrap();
    assert_eq!(seen.value("claimed"), None, "who uses a standard drive is nobody's business");
    for refused in [
        app.drive_read(&caller, first.drive, Bytes::ZERO, Bytes::from_mib(1)).await.unwrap_err(),
        app.drive_destroy(&caller, first.drive).await.unwrap_err(),
        app.server_create(&caller, &small_server(&[first.drive]), OnCreate::LeaveStopped)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::NotFound);
    }
    let second = publish(&[9; 10]);
    assert_eq!(app.publish_standard(&second).await.unwrap_err().kind(), ErrorKind::DriveInUse);
    assert_eq!(app.standard_ids(&Page::default()).await.unwrap(), [first.drive]);
    world.host.exchange(app).await;
    world.host.change_job(JobProgress::Done);
    world.host.exchange(app).await;
    app.publish_standard(&second).await.unwrap();
    assert_eq!(
        app.standard_info(&Page::default()).await.unwrap()[0].value("size"),
        Some((4 * MIB).to_string().as_str())
    );
}
