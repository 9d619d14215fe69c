//! Hosts come, break off and come back, and the intent for them is carried out all the same.

use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::keys::{self, Object};
use uuid::Uuid;

use crate::cloud::{Answer, Cloud, GUARD, SMALL};
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

#[tokio::test]
async fn nothing_new_is_placed_where_an_operator_closed_and_what_is_there_goes_on() {
    let cloud = Cloud::new().await;
    let server = cloud.stopped_server().await;
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
    let idle = cloud.stopped_server().await;
    let array = cloud.operate("/arrays/list", "").await.expect(200).text().trim().to_owned();
    let start = format!("/servers/{idle}/start");
    for (path, refuses_starts, sentence) in [
        (format!("/hosts/{}/set", cloud.host), true, "no host accepts new placements"),
        (format!("/arrays/{array}/set"), false, "no array accepts new drives"),
    ] {
        let closed = cloud.operate(&path, "placements closed").await.expect(200);
        assert_eq!(closed.value("placements"), Some("closed"));
        let refused = cloud.post("/drives/create", SMALL).await.expect(507);
        assert!(refused.text().starts_with(sentence), "{}", refused.text());
        let started = cloud.post(&start, "").await;
        assert_eq!(started.status, if refuses_starts { 507 } else { 200 }, "{started:?}");
        cloud.post(&format!("/servers/{server}/set"), "cpu 1500").await.expect(200);
        let info = cloud.get(&format!("/servers/{server}/info")).await.expect(200);
        assert_eq!(info.value("status"), Some("active"));
        // The host goes on telling of itself, which opens nothing.
        cloud.dial.cut();
        cloud.post(&format!("/servers/{server}/reset"), "").await.expect(204);
        cloud.post("/drives/create", SMALL).await.expect(507);
        let open = cloud.operate(&path, "placements").await.expect(200);
        assert_eq!(open.value("placements"), Some("open"));
        cloud.drive().await;
    }
    cloud.server.close().await;
}

/// The host, once nothing holds room there.
async fn emptied(cloud: &Cloud) -> Answer {
    let path = format!("/hosts/{}/info", cloud.host);
    let empty = async {
        loop {
            let info = cloud.operate(&path, "").await.expect(200);
            if (info.value("servers"), info.value("drives")) == (Some("0"), Some("0")) {
                return info;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(GUARD, empty).await.expect("something holds room for ever")
}

#[tokio::test]
async fn hosts_and_arrays_tell_what_is_promised_and_what_is_free() {
    let cloud = Cloud::new().await;
    let path = format!("/hosts/{}/info", cloud.host);
    let before = emptied(&cloud).await;
    let server = cloud.stopped_server().await;
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
    cloud.drive().await;
    let info = cloud.operate(&path, "").await.expect(200);
    let number = |answer: &Answer, key: &str| answer.value(key).unwrap().parse::<u64>().unwrap();
    for (key, change) in [("cpu:free", -1_000), ("mem:free", -512), ("servers", 1), ("drives", 2)] {
        let now = number(&before, key).checked_add_signed(change);
        assert_eq!(Some(number(&info, key)), now, "{key}");
    }
    assert!(number(&info, "since") > 1_500_000_000);
    let list = cloud.operate("/arrays/list", "").await.expect(200);
    let array = cloud.operate(&format!("/arrays/{}/info", list.text().trim()), "").await;
    let array = array.expect(200);
    assert_eq!(array.text(), cloud.operate("/arrays/info", "").await.expect(200).text());
    for (key, value) in [
        ("host", cloud.host.to_string()),
        ("status", "online".to_owned()),
        ("tier", "disk".to_owned()),
        ("placements", "open".to_owned()),
        ("capacity", CAPACITY.to_string()),
        ("drives", number(&info, "drives").to_string()),
        ("free", (CAPACITY - number(&array, "promised")).to_string()),
    ] {
        assert_eq!(array.value(key), Some(value.as_str()), "{key}");
    }
    for (object, answer) in [(Object::Host, &info), (Object::Array, &array)] {
        for line in answer.text().lines() {
            let key = line.split(' ').next().unwrap();
            assert!(keys::find(object, key).is_some(), "{key} is in no table");
        }
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn a_revoked_host_is_spoken_with_no_more_until_it_joins_again() {
    let cloud = Cloud::new().await;
    let (drive, server) = (cloud.drive().await, cloud.stopped_server().await);
    let (read, path) = (format!("/drives/{drive}/read/0/1"), format!("/hosts/{}", cloud.host));
    cloud.get(&read).await.expect(200);
    let revoked = cloud.operate(&format!("{path}/revoke"), "").await.expect(200);
    let told = (revoked.value("certificate"), revoked.value("status"));
    assert_eq!(told, (Some("revoked"), Some("silent")));
    let until = async |status: u16| {
        let seen = async {
            while cloud.get(&read).await.status != status {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, seen).await.expect("it never came");
    };
    until(503).await;
    cloud.post("/drives/create", SMALL).await.expect(507);
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(507);
    let info = cloud.operate(&format!("{path}/info"), "").await.expect(200);
    assert_eq!(info.value("status"), Some("silent"), "it answers nobody");

    let one = cloud.operate(&format!("{path}/join"), "").await.expect(200);
    assert!(one.value("bundle").unwrap().contains("PRIVATE KEY"));
    let other = cloud.operate(&format!("{path}/join"), "").await.expect(200);
    assert_ne!(one.value("certificate"), other.value("certificate"));
    let info = cloud.operate(&format!("{path}/info"), "").await.expect(200);
    assert_eq!(info.value("certificate"), other.value("certificate"));
    assert_eq!(info.value("bundle"), None, "it is told once");
    until(200).await;
    cloud.drive_once_there_is_room(SMALL).await;
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
    cloud.server.close().await;
}

#[tokio::test]
async fn as_many_servers_fit_as_an_operator_is_told_and_no_more() {
    let cloud = Cloud::new().await;
    for (size, mem, drive) in [("0", 3_000, false), ("50M", 512, true)] {
        emptied(&cloud).await;
        let path = format!("/capacity/500/{mem}/{size}/info");
        let told = cloud.operate(&path, "").await.expect(200);
        for line in told.text().lines() {
            let key = line.split(' ').next().unwrap();
            assert!(keys::find(Object::Capacity, key).is_some(), "{key} is in no table");
        }
        let servers: u64 = told.value("servers").unwrap().parse().unwrap();
        let there = told.value(&format!("host:{}", cloud.host)).unwrap();
        assert_eq!(there, servers.to_string());
        assert!(servers > 1, "{}", told.text());
        let make = async || {
            let mut body = format!("name s\ncpu 500\nmem {mem}\npersistent true");
            if drive {
                let made = cloud.post("/drives/create", "name d\nsize 50M").await;
                if made.status != 200 {
                    return made;
                }
                body += &format!("\nide:0:0 {}", made.value("drive").unwrap());
            }
            cloud.post("/servers/create", &body).await
        };
        for _ in 0..servers {
            make().await.expect(200);
        }
        let refused = make().await.expect(507);
        let binds = told.value("binds").unwrap();
        assert!(refused.text().starts_with(binds), "{binds}: {}", refused.text());
        let none = cloud.operate(&path, "").await.expect(200);
        assert_eq!((none.value("servers"), none.value("binds")), (Some("0"), Some(binds)));
        for server in cloud.get("/servers/list").await.expect(200).text().lines() {
            cloud.post(&format!("/servers/{server}/destroy"), "").await.expect(204);
        }
    }
    for (path, field) in [("0/1/0", "cpu"), ("1/x/0", "mem"), ("1/+1/0", "mem"), ("1/1/x", "size")]
    {
        let refused = cloud.operate(&format!("/capacity/{path}/info"), "").await.expect(400);
        let error = format!("usage code=invalid_value field={field}");
        assert_eq!(refused.header("x-elastic-error"), error, "{path}");
    }
    cloud.server.close().await;
}
