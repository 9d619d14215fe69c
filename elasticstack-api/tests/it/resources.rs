//! Static IPs and VLANs: who gets them, who uses them, and what is metered of them.

use std::collections::BTreeSet;
use std::time::Duration;

use elasticstack_api::app::{App, OnCreate, Page};
use elasticstack_core::biller::Meter;
use elasticstack_core::prelude::*;
use elasticstack_core::resource::{ResourceId, ResourceKind};
use elasticstack_core::wire::record::Record;

use crate::cloud::Cloud;
use crate::fake_host::{World, customer, id, small_server};
use crate::usage::tiles;

fn pool(name: &str, first: u8, last: u8) -> Record {
    Record::new()
        .with("name", name)
        .with("first", format!("198.51.100.{first}"))
        .with("last", format!("198.51.100.{last}"))
        .with("netmask", "255.255.255.0")
        .with("gateway", "198.51.100.1")
        .with("nameserver", "198.51.100.2 198.51.100.3")
}

async fn take(app: &App, caller: &elasticstack_api::app::Caller, kind: ResourceKind) -> ResourceId {
    let made = app.resource_create(caller, kind, &Record::new().with("name", "r")).await.unwrap();
    ResourceId::parse(kind, made.value("resource").unwrap()).unwrap()
}

#[tokio::test]
async fn resources_are_taken_told_changed_and_given_back_as_old_clients_do() {
    let cloud = Cloud::new().await;
    cloud.post("/resources/ip/create", "name www").await.expect(507);
    let operator = customer(cloud.server.app(), 9).await;
    cloud.server.app().pool_create(&operator, &pool("public", 7, 8)).await.unwrap();
    let made = cloud.post_json("/resources/ip/create", r#"{"name": "www"}"#).await.expect(200);
    let made = made.json();
    for (key, value) in [
        ("resource", "198.51.100.7"),
        ("type", "ip"),
        ("name", "www"),
        ("netmask", "255.255.255.0"),
        ("gateway", "198.51.100.1"),
        ("nameserver", "198.51.100.2 198.51.100.3"),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
    let vlan = cloud.post("/resources/vlan/create", "name backnet").await.expect(200);
    assert_eq!((vlan.value("type"), vlan.value("name")), (Some("vlan"), Some("backnet")));
    let vlan = vlan.value("resource").unwrap().to_owned();
    let listed = async |path: &str| cloud.get(path).await.expect(200).text().to_owned();
    assert_eq!(listed("/resources/ip/list").await, "ip 198.51.100.7\n");
    assert_eq!(listed("/resources/vlan/list").await, format!("vlan {vlan}\n"));
    assert_eq!(listed("/resources/list").await, format!("ip 198.51.100.7\nvlan {vlan}\n"));
    let json = cloud.post_json("/resources/ip/list", "").await.expect(200).json();
    assert_eq!(json, serde_json::json!([{ "resource": "198.51.100.7", "type": "ip" }]));
    assert_eq!(listed("/resources/info").await.split("\n\n").count(), 2);
    assert_eq!(listed("/resources/ip/info").await, listed("/resources/ip/198.51.100.7/info").await);
    let set =
        cloud.post(&format!("/resources/vlan/{vlan}/set"), "name x\ntags a b\nuser:k v").await;
    let set = set.expect(200);
    for (key, value) in [("name", "x"), ("tags", "a b"), ("user:k", "v")] {
        assert_eq!(set.value(key), Some(value), "{key}");
    }
    cloud.post("/resources/ip/198.51.100.7/set", "netmask 255.0.0.0").await.expect(400);
    cloud.post("/resources/ip/create", "").await.expect(200);
    let full = cloud.post("/resources/ip/create", "").await.expect(507);
    assert_eq!(full.header("x-elastic-error"), "full code=no_capacity");
    cloud.post("/resources/ip/198.51.100.7/destroy", "").await.expect(204);
    cloud.get("/resources/ip/198.51.100.7/info").await.expect(404);
    let again = cloud.post("/resources/ip/create", "").await.expect(200);
    assert_eq!(again.value("resource"), Some("198.51.100.7"), "the lowest that is free");
    for missing in
        ["/resources/ip6/list", "/resources/ip/x/info", &format!("/resources/ip/{vlan}/info")]
    {
        cloud.get(missing).await.expect(404);
    }
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_share_no_address_and_are_used_up_from_the_lowest() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    app.pool_create(&caller, &pool("high", 20, 21)).await.unwrap();
    app.pool_create(&caller, &pool("low", 10, 10)).await.unwrap();
    for (first, last) in [(5, 10), (10, 30), (21, 40)] {
        let refused = app.pool_create(&caller, &pool("more", first, last)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{first} to {last}");
    }
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(take(app, &caller, ResourceKind::Ip).await.to_string());
    }
    assert_eq!(taken, ["198.51.100.10", "198.51.100.20", "198.51.100.21"]);
    let infos = app.pools_info(&Page::default()).await.unwrap();
    let free: Vec<_> = infos.iter().map(|info| info.value("addresses:free").unwrap()).collect();
    assert_eq!(free, ["0", "0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_takers_each_gets_an_address_of_its_own() {
    let world = World::new();
    let plane = world.still().await;
    let caller = customer(&plane.app, 1).await;
    plane.app.pool_create(&caller, &pool("public", 10, 25)).await.unwrap();
    let takers = (0..24).map(|_| {
        let (app, caller) = (plane.app.clone(), caller.clone());
        tokio::spawn(
            async move { app.resource_create(&caller, ResourceKind::Ip, &Record::new()).await },
        )
    });
    let (mut taken, mut refused) = (BTreeSet::new(), 0);
    for taker in takers.collect::<Vec<_>>() {
        match taker.await.unwrap() {
            Ok(made) => assert!(taken.insert(made.value("resource").unwrap().to_owned())),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoCapacity, "{error:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((taken.len(), refused), (16, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_has_its_static_ip_alone_and_its_vlan_with_others() {
    use ErrorKind::{InvalidValue, NotFound, ResourceInUse};
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let (owner, other) = (customer(app, 1).await, customer(app, 2).await);
    app.pool_create(&owner, &pool("public", 10, 20)).await.unwrap();
    let ip = take(app, &owner, ResourceKind::Ip).await;
    let vlan = take(app, &owner, ResourceKind::Vlan).await;
    let wired = small_server(&[])
        .with("persistent", true)
        .with("nic:0:dhcp", ip)
        .with("nic:1:vlan", vlan)
        .with("nic:2:vlan", vlan);
    for (key, kind) in [("nic:0:dhcp", ResourceKind::Ip), ("nic:1:vlan", ResourceKind::Vlan)] {
        let strange = take(app, &other, kind).await;
        let record = small_server(&[]).with(key, strange);
        let refused = app.server_create(&owner, &record, OnCreate::LeaveStopped).await.unwrap_err();
        assert_eq!((refused.kind(), refused.blamed_field()), (NotFound, Some(key)));
    }
    let made = app.server_create(&owner, &wired, OnCreate::Start).await.unwrap();
    let (first, mac): (ServerId, _) = (id(&made, "server"), made.value("nic:1:mac").unwrap());
    assert_ne!(made.value("nic:2:mac"), Some(mac));
    let twin =
        small_server(&[]).with("nic:1:vlan", vlan).with("nic:1:mac", mac.to_ascii_uppercase());
    let refused = app.server_create(&owner, &twin, OnCreate::LeaveStopped).await.unwrap_err();
    assert_eq!((refused.kind(), refused.blamed_field()), (InvalidValue, Some("nic:1:mac")));

    let second = app.server_create(&owner, &wired, OnCreate::LeaveStopped).await.unwrap();
    let second: ServerId = id(&second, "server");
    let refused = app.server_start(&owner, second).await.unwrap_err();
    assert_eq!((refused.kind(), refused.blamed_field()), (ResourceInUse, Some("nic:0:dhcp")));
    let auto = Record::new().with("nic:0:dhcp", "auto");
    app.server_set(&owner, second, &auto).await.unwrap();
    app.server_start(&owner, second).await.expect("a VLAN is shared");
    let claimed = app.resource_info(&owner, vlan).await.unwrap();
    assert_eq!(claimed.value("claimed").unwrap().split(' ').count(), 2);
    for resource in [ip, vlan] {
        let refused = app.resource_destroy(&owner, resource).await.unwrap_err();
        assert_eq!(refused.kind(), ResourceInUse);
        for strange in [
            app.resource_info(&other, resource).await.unwrap_err(),
            app.resource_set(&other, resource, &Record::new()).await.unwrap_err(),
            app.resource_destroy(&other, resource).await.unwrap_err(),
        ] {
            assert_eq!(strange.kind(), NotFound);
        }
    }
    app.server_stop(&owner, first).await.unwrap();
    app.server_destroy(&owner, second).await.unwrap();
    for resource in [ip, vlan] {
        assert_eq!(app.resource_info(&owner, resource).await.unwrap().value("claimed"), None);
        app.resource_destroy(&owner, resource).await.unwrap();
    }
    let gone = app.server_start(&owner, first).await.unwrap_err();
    assert_eq!((gone.kind(), gone.blamed_field()), (NotFound, Some("nic:0:dhcp")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_are_metered_from_their_making_to_their_end() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let (first, second) = (customer(app, 1).await, customer(app, 2).await);
    app.pool_create(&first, &pool("public", 10, 10)).await.unwrap();
    for caller in [&first, &second] {
        let ip = take(app, caller, ResourceKind::Ip).await;
        let vlan = take(app, caller, ResourceKind::Vlan).await;
        world.pass(Duration::from_secs(5));
        for resource in [ip, vlan] {
            app.resource_destroy(caller, resource).await.unwrap();
        }
        app.forward_usage().await.unwrap();
        let items = tiles(&world, &vlan.to_string(), Meter::Vlan);
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].to.unwrap().since(items[0].from), Duration::from_secs(5));
    }
    let items = tiles(&world, "198.51.100.10", Meter::Ip);
    let paid: Vec<_> = items.iter().map(|item| (item.account, item.quantity)).collect();
    assert_eq!(paid, [(first.account, 1), (second.account, 1)]);
    *world.biller.refuses.lock().unwrap() = true;
    let unpaid = app.resource_create(&first, ResourceKind::Ip, &Record::new()).await.unwrap_err();
    assert_eq!(unpaid.kind(), ErrorKind::PaymentRequired);
    assert_eq!(app.resource_ids(&first, None, &Page::default()).await.unwrap(), []);
}
