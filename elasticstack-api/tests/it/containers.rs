//! Servers of type container: what they are made of, where they go, and what they have not.

use elasticstack_api::app::OnCreate;
use elasticstack_core::hypervisor::{NicModel, ServerKind};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Document, HostReport};
use elasticstack_core::wire::record::Record;

use crate::fake_host::{World, customer, host_id, id, small_server};

fn container(drives: &[DriveId]) -> Record {
    small_server(drives).with("type", "container").with("persistent", true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_goes_to_a_host_that_runs_containers_and_says_what_it_is() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let owner = customer(app, 1).await;
    let (root, other) = (plane.drive(&owner, 4).await, plane.drive(&owner, 4).await);
    world.host.exchange(app).await;
    let record = container(&[root]).with("nic:0:dhcp", "auto");
    let refused = app.server_create(&owner, &record, OnCreate::Start).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    assert!(refused.to_string().contains("runs containers"), "{refused}");
    let made = app.server_create(&owner, &record, OnCreate::LeaveStopped).await.unwrap();
    assert_eq!(made.value("type"), Some("container"));
    assert_eq!(made.value("nic:0:model"), Some("virtio"));
    let server: ServerId = id(&made, "server");

    let report = HostReport { containers: true, ..world.host.report() };
    app.host_answered(host_id(), &report).await.unwrap();
    let started = app.server_start(&owner, server).await.unwrap();
    assert_eq!(started.value("status"), Some("active"));
    let documents = app.outbox(host_id(), 10).await.unwrap();
    let mut servers = documents.into_iter().filter_map(|document| match document {
        Document::Server(document) => Some(document),
        _ => None,
    });
    let told = servers.next().expect("the host is told of the server");
    assert_eq!(told.hardware.kind, ServerKind::Container);
    assert_eq!(told.hardware.nics[0].model, NicModel::Virtio);

    // What it is stays; its drives do too, while it runs.
    world.host.exchange(app).await;
    for (change, kind, field) in [
        (Record::new().with("type", "vm"), ErrorKind::InvalidValue, "type"),
        (Record::new().with("block:1", other), ErrorKind::ServerBusy, "block:1"),
        (Record::new().with("block:0", ""), ErrorKind::ServerBusy, "block:0"),
    ] {
        let refused = app.server_set(&owner, server, &change).await.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (kind, Some(field)), "{refused}");
    }
    app.server_stop(&owner, server).await.unwrap_err();
    world.host.exchange(app).await;
    app.server_set(&owner, server, &Record::new().with("block:1", other)).await.unwrap();
    app.server_start(&owner, server).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_has_not_is_refused_with_the_key_to_blame() {
    let world = World::new();
    let plane = world.plane().await;
    let owner = customer(&plane.app, 1).await;
    let drive = plane.drive(&owner, 4).await;
    for (key, value) in [
        ("vnc", "auto".to_owned()),
        ("ide:0:0", drive.to_string()),
        ("scsi:0:1", drive.to_string()),
        ("nic:1:model", "e1000".to_owned()),
    ] {
        let record = container(&[]).with(key, value);
        let made = plane.app.server_create(&owner, &record, OnCreate::LeaveStopped).await;
        let refused = made.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (ErrorKind::NotOffered, Some(key)));
    }
    let report = HostReport { containers: true, ..world.host.report() };
    plane.app.host_answered(host_id(), &report).await.unwrap();
    let made = plane.app.server_create(&owner, &container(&[]), OnCreate::Start).await;
    let refused = made.unwrap_err();
    let wanted = (ErrorKind::MissingKey, Some("block:0"));
    assert_eq!((refused.kind(), refused.blamed_field()), wanted, "{refused}");
    let virtual_machine = small_server(&[]).with("type", "vm");
    let made = plane.app.server_create(&owner, &virtual_machine, OnCreate::Start).await.unwrap();
    assert_eq!(made.value("type"), Some("vm"));
}
