//! A restored control plane and one host that tells what it has: what is believed, what is left
//! alone, what is not begun again. The drill over real agents is with the all-in-one's tests.

use elasticstack_api::app::{Caller, OnCreate, Page};
use elasticstack_api::backup;
use elasticstack_core::block::ArrayState;
use elasticstack_core::prelude::*;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{
    Conversion, Document, ObjectStatus, ServerDocument, ServerStatus, SnapshotDocument,
    SnapshotStatus, Stock,
};
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::fake_host::{Plane, World, array_id, customer, host_id, id, sized};

/// A world of which a backup is restored: what is made in it by `make` is in the backup.
struct Restored {
    world: World,
    plane: Plane,
    caller: Caller,
    /// What the host had.
    objects: Vec<ObjectStatus>,
}

impl Restored {
    async fn after<T>(make: impl AsyncFnOnce(&World, &Plane, &Caller) -> T) -> (Self, T) {
        let file = || TestDatabase::Sqlite(tempfile::tempdir().unwrap());
        let (old, new) = (file(), file());
        let (old_url, new_url) = (old.url(), new.url());
        let world = World::on(old);
        let plane = world.still().await;
        let caller = customer(&plane.app, 1).await;
        let made = make(&world, &plane, &caller).await;
        let backups = tempfile::tempdir().unwrap();
        let file = backups.path().join("backup");
        backup::backup(&old_url, &file).await.unwrap();
        drop(plane);
        let objects = world.host.statuses();
        backup::restore(&new_url, Some(&file)).await.unwrap();
        let world = World::on(new);
        let plane = world.still().await;
        (Self { world, plane, caller, objects }, made)
    }

    async fn stock(&self, objects: &[ObjectStatus]) {
        let (report, objects) = (self.world.host.report(), objects.to_vec());
        let stock = Stock { documents: Vec::new(), objects };
        self.plane.app.take_stock(host_id(), &report, &stock).await.unwrap();
    }

    /// The same of what it had, with these documents.
    async fn stock_with(&self, documents: Vec<Document>) {
        let (report, objects) = (self.world.host.report(), self.objects.clone());
        let stock = Stock { documents, objects };
        self.plane.app.take_stock(host_id(), &report, &stock).await.unwrap();
    }

    async fn told(&self, host: HostId) -> Vec<Document> {
        self.plane.app.outbox(host, 100).await.unwrap()
    }

    async fn info(&self, drive: DriveId) -> Result<Record> {
        self.plane.app.drive_info(&self.caller, drive).await
    }
}

#[tokio::test]
async fn a_host_is_told_nothing_and_nothing_there_is_changed_before_its_stock_is_taken() {
    let (restored, objects) = Restored::after(async |world, plane, caller| {
        let (drive, other) = (plane.drive(caller, 8).await, plane.drive(caller, 8).await);
        let server = plane.server(caller, &[], OnCreate::Start).await;
        let runs = plane.server(caller, &[], OnCreate::Start).await;
        world.host.exchange(&plane.app).await;
        let taken = plane.app.drive_snapshot(caller, drive, &Record::new()).await.unwrap();
        plane.app.server_stop(caller, server).await.unwrap_err();
        world.host.exchange(&plane.app).await;
        (drive, other, server, runs, id::<SnapshotId>(&taken, "snapshot"))
    })
    .await;
    let (drive, other, server, runs, snapshot) = objects;
    let (app, caller) = (&restored.plane.app, &restored.caller);
    assert!(app.is_unheard(host_id()).await.unwrap());
    let refused = [
        app.server_start(caller, server).await,
        app.drive_set(caller, drive, &sized(12)).await,
        app.drive_image(caller, drive, other, Conversion::None).await,
        app.server_set(caller, runs, &Record::new().with("block:0", drive)).await,
        app.drive_snapshot(caller, drive, &Record::new()).await,
        app.snapshot_restore(caller, snapshot).await,
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(restored.info(drive).await.unwrap().value("claimed"), None, "it was not begun");
    let nowhere = app.drive_create(caller, &sized(8)).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::NoCapacity);
    app.drive_destroy(caller, other).await.unwrap();
    assert_eq!(restored.told(host_id()).await, []);
    assert_eq!(app.hosts_to_tell().await.unwrap(), []);

    restored.stock(&restored.objects).await;
    assert!(!app.is_unheard(host_id()).await.unwrap());
    let documents = restored.told(host_id()).await;
    for document in &documents {
        restored.world.host.take(document);
    }
    let is_gone = |document: &&Document| match document {
        Document::Drive(document) => document.gone,
        Document::Job(document) => document.gone,
        Document::Server(document) => document.gone,
        Document::Snapshot(document) => document.gone,
    };
    assert_eq!(documents.iter().filter(is_gone).count(), 1, "what was wished meanwhile");
    restored.world.host.exchange(app).await;
    app.drive_set(caller, drive, &sized(12)).await.unwrap();
    app.server_start(caller, server).await.unwrap();
}

#[tokio::test]
async fn a_job_that_its_host_does_not_know_is_not_begun_again() {
    let (restored, (source, target)) = Restored::after(async |world, plane, caller| {
        let (source, target) = (plane.drive(caller, 8).await, plane.drive(caller, 8).await);
        world.host.exchange(&plane.app).await;
        world.host.leave_jobs();
        plane.app.drive_image(caller, target, source, Conversion::None).await.unwrap();
        world.host.exchange(&plane.app).await;
        (source, target)
    })
    .await;
    let drives: Vec<_> = (restored.objects.iter())
        .filter(|object| matches!(object, ObjectStatus::Drive(_)))
        .cloned()
        .collect();
    assert_eq!((restored.objects.len(), drives.len()), (3, 2));
    restored.stock(&drives).await;
    let told = restored.told(host_id()).await;
    assert!(told.iter().all(|document| matches!(document, Document::Drive(_))), "{told:?}");
    let info = restored.info(target).await.unwrap();
    assert_eq!((info.value("claimed"), info.value("imaging")), (None, None), "{info:?}");
    assert!(info.value("failed").unwrap().contains("check the drive"), "{info:?}");
    assert_eq!(restored.info(source).await.unwrap().value("claimed"), None);
}

#[tokio::test]
async fn a_drive_that_is_not_there_is_gone_only_if_its_array_can_be_looked_at() {
    for (state, is_known) in [(ArrayState::Failed, true), (ArrayState::Online, false)] {
        let (restored, drive) = Restored::after(async |world, plane, caller| {
            let drive = plane.drive(caller, 8).await;
            world.host.exchange(&plane.app).await;
            drive
        })
        .await;
        let mut report = restored.world.host.report();
        report.arrays[0].state = state;
        let nothing = Stock { documents: Vec::new(), objects: Vec::new() };
        restored.plane.app.take_stock(host_id(), &report, &nothing).await.unwrap();
        assert_eq!(restored.info(drive).await.is_ok(), is_known, "{state:?}");
        assert_eq!(restored.told(host_id()).await, [], "{state:?}: it might be made anew");
    }
}

/// What a host has of the snapshots that were in a backup, changed by `change`.
async fn snapshots_after(
    change: impl Fn(&mut SnapshotStatus),
    told: Option<u64>,
) -> (Restored, DriveId, SnapshotId) {
    let (restored, (drive, snapshot)) = Restored::after(async |world, plane, caller| {
        let drive = plane.drive(caller, 8).await;
        world.host.exchange(&plane.app).await;
        plane.app.drive_snapshot(caller, drive, &Record::new()).await.unwrap();
        world.host.exchange(&plane.app).await;
        let snapshots = plane.app.snapshot_ids(caller, &Page::default()).await.unwrap();
        (drive, snapshots[0])
    })
    .await;
    let mut objects = restored.objects.clone();
    let mut array = array_id();
    for object in &mut objects {
        if let ObjectStatus::Snapshot(status) = object {
            change(status);
            array = status.home.unwrap().array;
        }
    }
    objects.retain(|object| !matches!(object, ObjectStatus::Snapshot(status) if status.gone));
    let generation = Generation::new(Era(0), 7);
    let documents = told.map(|restore| {
        let (gone, epoch) = (false, Epoch(5));
        let document =
            SnapshotDocument { snapshot, generation, gone, drive, array, restore, epoch };
        Document::Snapshot(document)
    });
    let stock = Stock { documents: documents.into_iter().collect(), objects };
    let report = restored.world.host.report();
    restored.plane.app.take_stock(host_id(), &report, &stock).await.unwrap();
    (restored, drive, snapshot)
}

#[tokio::test]
async fn restores_are_counted_on_from_those_that_the_host_has_done() {
    let (restored, drive, snapshot) = snapshots_after(|status| status.restored = 3, Some(3)).await;
    let (app, caller) = (&restored.plane.app, &restored.caller);
    for document in restored.told(host_id()).await {
        restored.world.host.take(&document);
    }
    restored.world.host.exchange(app).await;
    assert_eq!(restored.info(drive).await.unwrap().value("claimed"), None);
    app.snapshot_restore(caller, snapshot).await.unwrap();
    let told = restored.told(host_id()).await;
    let restore = told.iter().find_map(|document| match document {
        Document::Snapshot(document) => Some((document.restore, document.epoch > Epoch(5))),
        _ => None,
    });
    assert_eq!(restore, Some((4, true)), "a number that was done already would be done at once");
}

#[tokio::test]
async fn a_restore_that_goes_on_keeps_its_drive_and_ends() {
    let (restored, drive, snapshot) = snapshots_after(|status| status.restored = 1, Some(2)).await;
    let (app, caller) = (&restored.plane.app, &restored.caller);
    let info = app.snapshot_info(caller, snapshot).await.unwrap();
    assert_eq!(info.value("status"), Some("restoring"));
    assert!(restored.info(drive).await.unwrap().value("claimed").is_some());
    for document in restored.told(host_id()).await {
        restored.world.host.take(&document);
    }
    restored.world.host.exchange(app).await;
    let info = app.snapshot_info(caller, snapshot).await.unwrap();
    assert_eq!(info.value("status"), Some("active"));
    assert_eq!(restored.info(drive).await.unwrap().value("claimed"), None);
}

#[tokio::test]
async fn a_snapshot_that_is_not_there_is_gone_and_its_drive_may_be_destroyed() {
    let (restored, drive, snapshot) = snapshots_after(|status| status.gone = true, None).await;
    let (app, caller) = (&restored.plane.app, &restored.caller);
    let missing = app.snapshot_info(caller, snapshot).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let told = restored.told(host_id()).await;
    let of_snapshots = told.iter().filter(|document| matches!(document, Document::Snapshot(_)));
    assert_eq!(of_snapshots.count(), 0, "it would be taken anew, of what the drive holds now");
    app.drive_destroy(caller, drive).await.unwrap();
}

#[tokio::test]
async fn of_two_hosts_with_one_server_the_newer_run_goes_on_and_the_other_is_ended() {
    let other = HostId::from_uuid(Uuid::from_u128(0xF0));
    for (run, is_newer) in [(1, false), (2, true)] {
        let (restored, server) = Restored::after(async |world, plane, caller| {
            plane.app.host_create(other, &"h2".parse().unwrap(), "127.0.0.1:1").await.unwrap();
            let server = plane.server(caller, &[], OnCreate::Start).await;
            world.host.exchange(&plane.app).await;
            server
        })
        .await;
        let app = &restored.plane.app;
        restored.stock(&restored.objects).await;
        app.delivered(host_id(), &restored.told(host_id()).await).await.unwrap();
        let status = (restored.objects.iter())
            .find_map(|object| match object {
                ObjectStatus::Server(status) => Some(status.clone()),
                _ => None,
            })
            .unwrap();
        let here = ServerStatus { run: Run(run), phase: RunPhase::Running, ..status };
        let Some(Document::Server(mut document)) = server_document(&restored, server).await else {
            panic!("a server has a document");
        };
        document.run = Run(run);
        let report = restored.world.host.report();
        let report = elasticstack_core::wire::internal::HostReport { arrays: Vec::new(), ..report };
        let stock = Stock {
            documents: vec![Document::Server(document)],
            objects: vec![ObjectStatus::Server(here)],
        };
        app.take_stock(other, &report, &stock).await.unwrap();
        for (host, ends) in [(other, !is_newer), (host_id(), is_newer)] {
            let told = restored.told(host).await;
            let gone: Vec<_> = told
                .iter()
                .map(|document| matches!(document, Document::Server(document) if document.gone))
                .collect();
            match (host == other, is_newer) {
                (false, false) => assert_eq!(told, [], "it goes on where it was"),
                _ => assert_eq!(gone, [ends], "{host}, run {run}"),
            }
        }
    }
}

/// The one document of a server among these.
fn of_server(documents: &[Document]) -> ServerDocument {
    let mut servers = documents.iter().filter_map(|document| match document {
        Document::Server(document) => Some(document.clone()),
        _ => None,
    });
    servers.next().unwrap()
}

#[tokio::test]
async fn a_run_that_goes_on_has_the_drives_that_came_and_went_after_the_backup() {
    let (restored, (came, went, server, document)) =
        Restored::after(async |world, plane, caller| {
            let (came, went) = (plane.drive(caller, 8).await, plane.drive(caller, 8).await);
            world.host.exchange(&plane.app).await;
            let server = plane.server(caller, &[went], OnCreate::Start).await;
            let document = of_server(&plane.app.outbox(host_id(), 100).await.unwrap());
            world.host.exchange(&plane.app).await;
            (came, went, server, document)
        })
        .await;
    let mut newer = document.clone();
    newer.generation.number += 1;
    newer.hardware.drives[0].drive = came;
    newer.hardware.drives[0].epoch = Epoch(7);
    restored.stock_with(vec![Document::Server(newer.clone())]).await;
    let claimed = async |drive| {
        let info = restored.info(drive).await.unwrap();
        info.value("claimed").map(str::to_owned)
    };
    assert_eq!(claimed(came).await, Some(server.to_string()));
    let told = of_server(&restored.told(host_id()).await);
    assert_eq!(told.hardware.drives, newer.hardware.drives);
    assert!(told.generation > newer.generation, "its host heeds it");
    assert_eq!(claimed(went).await, Some(server.to_string()), "nobody said that it is let go");
    restored.world.host.exchange(&restored.plane.app).await;
    assert_eq!(claimed(went).await, None);

    // Whoever has it next has it under an epoch of his own.
    restored.plane.app.server_stop(&restored.caller, server).await.unwrap_err();
    restored.world.host.exchange(&restored.plane.app).await;
    restored.plane.server(&restored.caller, &[came], OnCreate::Start).await;
    let next = restored.told(host_id()).await;
    assert_eq!(of_server(&next).hardware.drives[0].epoch, Epoch(8));
}

#[tokio::test]
async fn a_wish_for_a_drive_that_its_host_has_not_heard_of_outlives_a_restore() {
    let (restored, (drive, server, document)) = Restored::after(async |world, plane, caller| {
        let drive = plane.drive(caller, 8).await;
        world.host.exchange(&plane.app).await;
        let server = plane.server(caller, &[], OnCreate::Start).await;
        let document = of_server(&plane.app.outbox(host_id(), 100).await.unwrap());
        world.host.exchange(&plane.app).await;
        let wish = Record::new().with("block:0", drive);
        let late = plane.app.server_set(caller, server, &wish).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Unavailable);
        (drive, server, document)
    })
    .await;
    restored.stock_with(vec![Document::Server(document)]).await;
    let told = of_server(&restored.told(host_id()).await);
    assert_eq!(told.hardware.drives[0].drive, drive);
    let info = restored.info(drive).await.unwrap();
    assert_eq!(info.value("claimed"), Some(server.to_string().as_str()));
}

#[tokio::test]
async fn a_snapshot_is_restored_under_a_number_that_its_host_has_not_passed_or_is_gone() {
    for is_there in [true, false] {
        let (restored, (drive, snapshot)) = Restored::after(async |world, plane, caller| {
            let drive = plane.drive(caller, 8).await;
            world.host.exchange(&plane.app).await;
            let taken = plane.app.drive_snapshot(caller, drive, &Record::new()).await.unwrap();
            world.host.exchange(&plane.app).await;
            (drive, id::<SnapshotId>(&taken, "snapshot"))
        })
        .await;
        let mut objects = restored.objects.clone();
        objects.retain(|object| is_there || !matches!(object, ObjectStatus::Snapshot(_)));
        for object in &mut objects {
            if let ObjectStatus::Snapshot(status) = object {
                status.restored = 2;
            }
        }
        restored.stock(&objects).await;
        restored.world.host.exchange(&restored.plane.app).await;
        let (app, caller) = (&restored.plane.app, &restored.caller);
        let asked = app.snapshot_restore(caller, snapshot).await;
        if is_there {
            asked.unwrap();
            let told = restored.told(host_id()).await;
            let restore = told.iter().find_map(|document| match document {
                Document::Snapshot(document) => Some(document.restore),
                _ => None,
            });
            assert_eq!(restore, Some(3));
        } else {
            assert_eq!(asked.unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(restored.told(host_id()).await, [], "it would be one of another instant");
            app.drive_destroy(caller, drive).await.expect("nothing is kept of it");
        }
    }
}

/// The document of a server as its host has it, which nothing waits to be told.
async fn server_document(restored: &Restored, server: ServerId) -> Option<Document> {
    // A press of its power button is sent with the rest of it.
    restored.plane.app.server_shutdown(&restored.caller, server).await.unwrap();
    let documents = restored.told(host_id()).await;
    restored.plane.app.delivered(host_id(), &documents).await.unwrap();
    documents.into_iter().next()
}
