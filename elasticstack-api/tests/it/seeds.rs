//! What a server's owner has its guest told at its first boot: taken, kept, and sent to its host.

use elasticstack_api::app::OnCreate;
use elasticstack_core::hypervisor::Seed;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Document;
use elasticstack_core::wire::record::Record;

use crate::cloud::Cloud;
use crate::fake_host::{World, customer, host_id, id, small_server};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDU3pfqqF+EBQgu4Cb0OHJ2JZixsMum5AOwztYm8VvfV me";
const USER_DATA: &str = "#cloud-config\nruncmd:\n  - [touch, \"C:\\\\new\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_user_data_travel_to_the_host_with_the_run_that_they_are_for() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let asked = small_server(&[])
        .with("persistent", true)
        .with("ssh:0:key", KEY)
        .with("cloud:hostname", "web1")
        .with("cloud:userdata", USER_DATA);
    let made = app.server_create(&caller, &asked, OnCreate::Start).await.unwrap();
    let server: ServerId = id(&made, "server");
    let sent = async || {
        let documents = app.outbox(host_id(), 10).await.unwrap();
        let document = documents.into_iter().find_map(|document| match document {
            Document::Server(document) if document.server == server => Some(document),
            _ => None,
        });
        document.expect("the host is told of the server")
    };
    let expected = Seed {
        host_name: Some("web1".to_owned()),
        keys: vec![KEY.to_owned()],
        user_data: Some(Secret::new(USER_DATA)),
    };
    let document = sent().await;
    assert_eq!(document.hardware.seed, Some(expected));
    let logged = format!("{document:?}");
    assert!(!logged.contains("runcmd"), "user data may hold secrets: {logged}");

    world.host.exchange(app).await;
    let busy = Record::new().with("ssh:0:key", "");
    let refused = app.server_set(&caller, server, &busy).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.blamed_field()),
        (ErrorKind::ServerBusy, Some("ssh:0:key"))
    );
    app.server_stop(&caller, server).await.unwrap_err();
    world.host.exchange(app).await;
    let nothing = busy.with("cloud:hostname", "").with("cloud:userdata", "");
    app.server_set(&caller, server, &nothing).await.unwrap();
    app.server_start(&caller, server).await.unwrap();
    assert_eq!(sent().await.hardware.seed, None);
}

#[tokio::test]
async fn user_data_comes_back_as_it_was_given_in_both_forms() {
    let cloud = Cloud::new().await;
    let sized = "name seeded\ncpu 500\nmem 256\npersistent true\n";
    let escaped = USER_DATA.replace('\\', "\\\\").replace('\n', "\\n");
    let text = format!("{sized}ssh:7:key {KEY}\ncloud:userdata {escaped}\n");
    let json = serde_json::json!({
        "name": "seeded", "cpu": 500, "mem": 256, "persistent": true,
        "ssh:7:key": KEY, "cloud:userdata": USER_DATA,
    });
    let in_text = cloud.post("/servers/create/stopped", &text).await.expect(200);
    let in_json = cloud.post_json("/servers/create/stopped", &json.to_string()).await.expect(200);
    let of_text = Record::from_text(&in_text.body).unwrap();
    for (made, server) in [
        (of_text.value("cloud:userdata"), of_text.value("server").unwrap()),
        (in_json.json()["cloud:userdata"].as_str(), in_json.json()["server"].as_str().unwrap()),
    ] {
        assert_eq!(made, Some(USER_DATA));
        let path = format!("/servers/{server}/info");
        let info = Record::from_text(&cloud.get(&path).await.expect(200).body).unwrap();
        assert_eq!(info.value("cloud:userdata"), Some(USER_DATA));
        assert_eq!(info.value("ssh:7:key"), Some(KEY));
    }
    for (key, value) in [
        ("ssh:8:key", KEY),
        ("ssh:0:key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("ssh:0:key", "ssh-rsa AAAA"),
        ("cloud:userdata", "echo hello"),
        ("cloud:hostname", "web_1"),
    ] {
        let refused = cloud.post("/servers/create", &format!("{sized}{key} {value}")).await;
        let refused = refused.expect(400);
        let keyword = refused.header("x-elastic-error");
        assert!(keyword.ends_with(&format!("field={key}")), "{keyword}");
    }
    cloud.server.close().await;
}
