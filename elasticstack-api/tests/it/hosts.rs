//! Hosts come, break off and come back, and the intent for them is carried out all the same.

use std::sync::Arc;

use elasticstack_core::prelude::*;
use uuid::Uuid;

use crate::cloud::{Cloud, SMALL};
use crate::fake_agent::{CAPACITY, FakeAgent};

#[tokio::test]
async fn a_host_whose_connection_breaks_is_dialled_again_and_goes_on() {
    let cloud = Cloud::new().await;
    let server = cloud.stopped_server().await;
    for _ in 0..3 {
        cloud.dial.cut();
        let started = cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
        assert_eq!(started.value("status"), Some("active"));
        cloud.dial.cut();
        cloud.post(&format!("/servers/{server}/stop"), "").await.expect(204);
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn bytes_of_a_host_out_of_reach_are_503_and_come_when_it_is_back() {
    let cloud = Cloud::new().await;
    let drive = cloud.drive().await;
    let path = format!("/drives/{drive}/read/0/1");
    cloud.dial.remove(cloud.host);
    cloud.dial.cut();
    let away = cloud.get(&path).await.expect(503);
    assert_eq!(away.header("x-elastic-error"), "busy code=unavailable");
    assert_eq!(away.header("retry-after"), "2");
    assert!(away.text().contains("try again"), "{}", away.text());
    cloud.dial.insert(cloud.host, cloud.agent.router());
    cloud.get(&path).await.expect(200);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_host_that_is_added_later_is_taken_up_and_filled() {
    let cloud = Cloud::new().await;
    let whole = format!("name big\nsize {CAPACITY}");
    cloud.drive_once_there_is_room(&whole).await;
    let full = cloud.post("/drives/create", SMALL).await.expect(507);
    assert_eq!(full.header("x-elastic-error"), "full code=no_capacity");
    let (host, agent) = (HostId::from_uuid(Uuid::new_v4()), FakeAgent::new());
    cloud.dial.insert(host, agent.router());
    cloud.server.app().host_create(host, &"h2".parse().unwrap(), "memory").await.unwrap();
    let drive = cloud.drive_once_there_is_room(SMALL).await;
    assert_eq!(agent.bytes(&drive).len(), 4 << 20);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_closed_server_leaves_nothing_that_holds_its_use_cases() {
    let cloud = Cloud::new().await;
    let app = Arc::downgrade(cloud.server.app());
    cloud.server.close().await;
    assert_eq!(app.strong_count(), 0, "every task that held them is joined");
}
