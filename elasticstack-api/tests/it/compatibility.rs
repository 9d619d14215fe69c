//! What old clients test for: exact status codes, both forms, odd types, visible effects.

use axum::body::Body;
use elasticstack_api::app::StandardImage;
use elasticstack_api::http::LegacyCall;
use http::Request;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cloud::{Answer, Cloud, SMALL, served};

#[tokio::test]
async fn every_call_answers_with_the_exact_code_that_clients_demand() {
    let cloud = Cloud::new().await;
    let (drive, copy) = (cloud.drive().await, cloud.drive().await);
    let drive_path = |action: &str| format!("/drives/{drive}/{action}");
    let info = cloud.get(&drive_path("info")).await.expect(200);
    assert_eq!((info.value("size"), info.value("name")), (Some("4194304"), Some("small")));
    let set = cloud.post(&drive_path("set"), "name other\nsize 0").await.expect(200);
    assert_eq!(set.value("name"), Some("other"));
    cloud.post(&drive_path("write"), "boot").await.expect(204);
    cloud.post(&drive_path("write/1k"), "tail").await.expect(204);
    for method in ["GET", "POST"] {
        let request = cloud.request(method, &drive_path("read/1024/4"));
        let read = cloud.send(request.body(Body::empty()).unwrap()).await.expect(200);
        assert_eq!(
            (read.text(), read.header("content-type")),
            ("tail", "application/octet-stream")
        );
    }
    let imaged = cloud.post(&format!("/drives/{copy}/image/{drive}"), "").await.expect(200);
    assert_eq!(imaged.value("drive"), Some(copy.as_str()));
    cloud.finished_imaging(&copy).await;
    assert_eq!(cloud.agent.bytes(&copy)[..4], *b"boot");

    let server = cloud.stopped_server().await;
    let server_path = |action: &str| format!("/servers/{server}/{action}");
    let status = async || {
        let info = cloud.get(&server_path("info")).await.expect(200);
        info.value("status").unwrap().to_owned()
    };
    assert_eq!(status().await, "stopped");
    let started = cloud.post(&server_path("start"), "").await.expect(200);
    assert_eq!(started.value("status"), Some("active"));
    cloud.post(&server_path("set"), "name renamed").await.expect(200);
    cloud.post(&server_path("reset"), "").await.expect(204);
    assert_eq!(status().await, "active");
    cloud.get(&server_path("serial")).await.expect(200);
    cloud.post(&server_path("stop"), "").await.expect(204);
    assert_eq!(status().await, "stopped");
    cloud.post(&server_path("stop"), "").await.expect(204);
    cloud.post(&server_path("start"), "").await.expect(200);
    cloud.post(&server_path("shutdown"), "").await.expect(204);
    let destroyed = cloud.post(&server_path("destroy"), "").await.expect(204);
    assert!(destroyed.body.is_empty());
    cloud.get(&server_path("info")).await.expect(404);
    cloud.post(&drive_path("destroy"), "").await.expect(204);
    cloud.get(&drive_path("info")).await.expect(404);
    cloud.get("/profile/info").await.expect(200);
    cloud.server.close().await;
}

#[tokio::test]
async fn image_and_start_answer_200_and_each_204_where_it_is_named_legacy() {
    for (legacy, image, start) in [
        (&[][..], 200, 200),
        (&[LegacyCall::Image], 204, 200),
        (&[LegacyCall::Start], 200, 204),
        (&[LegacyCall::Image, LegacyCall::Start], 204, 204),
    ] {
        let cloud = Cloud::legacy(legacy).await;
        let (source, target) = (cloud.drive().await, cloud.drive().await);
        let imaged = cloud.post(&format!("/drives/{target}/image/{source}"), "").await;
        assert_eq!(imaged.expect(image).body.is_empty(), image == 204, "{legacy:?}");
        cloud.finished_imaging(&target).await;
        for _ in ["now", "again"] {
            let request = cloud.request("POST", &format!("/drives/{target}/image/{source}"));
            let request = request.header("Idempotency-Key", "once").body(Body::empty()).unwrap();
            let imaged = cloud.send(request).await.expect(image);
            assert_eq!(imaged.body.is_empty(), image == 204, "{legacy:?}");
        }
        let server = cloud.stopped_server().await;
        let started = cloud.post(&format!("/servers/{server}/start"), "").await;
        assert_eq!(started.expect(start).body.is_empty(), start == 204, "{legacy:?}");
        let info = cloud.get(&format!("/servers/{server}/info")).await.expect(200);
        assert_eq!(info.value("status"), Some("active"));
        cloud.server.close().await;
    }
}

#[tokio::test]
async fn a_running_server_changes_in_these_keys_and_no_others() {
    let cloud = Cloud::new().await;
    let server = cloud.stopped_server().await;
    let path = format!("/servers/{server}/set");
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
    for (key, value) in [
        ("name", "other"),
        ("cpu", "1500"),
        ("persistent", "true"),
        ("tags", "a b"),
        ("user:role", "db"),
        ("password", "secret12"),
    ] {
        let set = cloud.post(&path, &format!("{key} {value}")).await.expect(200);
        assert_eq!(set.value(key), Some(value));
    }
    let drive = cloud.drive().await;
    let set = cloud.post(&path, &format!("block:1 {drive}")).await.expect(200);
    assert_eq!(set.value("block:1"), Some(&*drive));
    for change in [
        &*format!("scsi:0:1 {}", cloud.drive().await),
        "block:1:media cdrom",
        "mem 1024",
        "smp 2",
        "boot",
        "ide:0:0",
        "nic:0:model virtio",
        "nic:0:dhcp",
        "vnc",
        "vnc:ip",
        "avoid:servers 5b0e3c52-0000-4000-8000-00000000d001",
    ] {
        let refused = cloud.post(&path, change).await.expect(409);
        let keyword = refused.header("x-elastic-error");
        assert!(keyword.starts_with("busy code=server_busy field="), "{change}: {keyword}");
    }
    // Old clients send the whole configuration again.
    let same =
        "vnc:ip auto\nvnc:password secret12\nmem 512\nnic:0:model e1000\nnic:1:vlan\ncpu 1600";
    cloud.post(&path, same).await.expect(200);
    let refused = cloud.post(&path, "sise").await.expect(400);
    assert_eq!(refused.header("x-elastic-error"), "usage code=unknown_key field=sise");
    cloud.server.close().await;
}

#[tokio::test]
async fn every_kind_of_port_takes_a_drive_and_several_boot_in_order() {
    let cloud = Cloud::new().await;
    let mut body =
        "name ports\ncpu 500\nmem 256\npersistent true\nboot ata:0:5 ide:1:1\n".to_owned();
    let ports = ["ide:1:1", "scsi:0:7", "ata:0:5", "block:7"];
    for port in ports {
        body += &format!("{port} {}\n", cloud.drive().await);
    }
    body += "ata:0:5:media cdrom\nvnc:ip auto\nvnc:password abcd1234";
    let made = cloud.post("/servers/create", &body).await.expect(200);
    let server = made.value("server").unwrap().to_owned();
    for (key, value) in [
        ("boot", "ata:0:5 ide:1:1"),
        ("ata:0:5:media", "cdrom"),
        ("smp", "auto"),
        ("vnc", "auto"),
        ("password", "abcd1234"),
    ] {
        assert_eq!(made.value(key), Some(value), "{key}");
    }
    assert_eq!(made.value("vnc:password"), None, "the keys of 2.0 come out");
    let path = format!("/servers/{server}/info/full");
    let json = cloud.post_json(&path, "").await.expect(200).json();
    assert_eq!(json["boot"], serde_json::json!(["ata:0:5", "ide:1:1"]));
    assert!(ports.iter().all(|port| json[port].is_string()), "{json}");
    let stopped = cloud.post(&format!("/servers/{server}/stop"), "").await;
    stopped.expect(204);
    let one = r#"{"boot": ["ide:1:1"], "nic:1:model": null}"#;
    let set = cloud.post_json(&format!("/servers/{server}/set"), one).await.expect(200).json();
    assert_eq!(set["boot"], "ide:1:1");
    cloud.server.close().await;
}

#[tokio::test]
async fn a_server_runs_on_no_host_that_it_avoids() {
    let cloud = Cloud::new().await;
    let first = cloud.stopped_server().await;
    let drive = cloud.drive().await;
    cloud.post(&format!("/servers/{first}/start"), "").await.expect(200);
    let stranger = "5b0e3c52-0000-4000-8000-00000000d001";
    let body =
        format!("name apart\ncpu 500\nmem 256\npersistent true\navoid:servers {stranger} {first}");
    cloud.post("/servers/create", &body).await.expect(507);
    let made = cloud.post("/servers/create/stopped", &body).await.expect(200);
    assert_eq!(made.value("avoid:servers"), Some(format!("{stranger} {first}").as_str()));
    let apart = made.value("server").unwrap().to_owned();
    let start = format!("/servers/{apart}/start");
    let refused = cloud.post(&start, "").await.expect(507);
    assert!(refused.text().contains("to be avoided"), "{}", refused.text());
    cloud.post(&format!("/servers/{first}/stop"), "").await.expect(204);
    cloud.post(&start, "").await.expect(200);
    cloud.post(&format!("/servers/{apart}/stop"), "").await.expect(204);
    cloud
        .post(&format!("/servers/{apart}/set"), &format!("avoid:drives {drive}"))
        .await
        .expect(200);
    cloud.post(&start, "").await.expect(507);
    cloud.post(&format!("/drives/{drive}/destroy"), "").await.expect(204);
    cloud.post(&start, "").await.expect(200);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_profile_is_changed_by_its_owner_in_what_it_has() {
    let cloud = Cloud::new().await;
    let set = cloud.post("/profile/set", "name Ada\nemail ada@example.org").await.expect(200);
    assert_eq!((set.value("name"), set.value("email")), (Some("Ada"), Some("ada@example.org")));
    assert_eq!(cloud.get("/profile/info").await.expect(200).text(), set.text());
    for (body, error) in [
        ("email nowhere", "usage code=invalid_value field=email"),
        ("uuid x", "usage code=invalid_value field=uuid"),
        ("balance 1", "usage code=unknown_key field=balance"),
    ] {
        let refused = cloud.post("/profile/set", body).await.expect(400);
        assert_eq!(refused.header("x-elastic-error"), error);
    }
    assert_eq!(cloud.get("/profile/info").await.expect(200).text(), set.text());
    cloud.server.close().await;
}

#[tokio::test]
async fn folders_are_refused_in_a_sentence() {
    let cloud = Cloud::new().await;
    for path in ["/folders/list", "/folders/info/standard", "/folders/create", "/folders/x/info"] {
        let refused = cloud.post(path, "name x").await.expect(400);
        assert_eq!(refused.header("x-elastic-error"), "usage code=not_offered", "{path}");
        assert!(refused.text().contains("give a container a drive"), "{}", refused.text());
    }
    let body = "name c\ncpu 500\nmem 256\ntype container\n\
                fs:0 5b0e3c52-0000-4000-8000-00000000d001\nfs:0:mount /";
    let refused = cloud.post("/servers/create", body).await.expect(400);
    assert_eq!(refused.header("x-elastic-error"), "usage code=not_offered field=fs:0");
    cloud.server.close().await;
}

#[tokio::test]
async fn lists_and_infos_have_both_forms_and_may_be_empty() {
    let cloud = Cloud::new().await;
    for path in ["/drives/list", "/drives/info", "/servers/list", "/servers/info"] {
        assert_eq!(cloud.get(path).await.expect(200).text(), "", "{path}");
        let json = cloud.post_json(path, "").await.expect(200);
        assert_eq!(json.json(), serde_json::json!([]), "{path}");
    }
    let mut drives = [cloud.drive().await, cloud.drive().await];
    drives.sort();
    let listed = cloud.get("//drives/list/").await.expect(200);
    let mut lines: Vec<_> = listed.text().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, drives);
    let json = cloud.post_json("/drives/list", "").await.expect(200).json();
    assert!(json.as_array().unwrap().iter().all(|item| item["uuid"].is_string()), "{json}");
    let infos = cloud.get("/drives/info").await.expect(200);
    assert_eq!(infos.text().split("\n\n").count(), 2, "{}", infos.text());
    let keys: Vec<_> = infos.text().lines().take_while(|line| !line.is_empty()).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    cloud.server.close().await;
}

#[tokio::test]
async fn libcloud_creates_a_server_with_what_it_really_sends() {
    let cloud = Cloud::new().await;
    let made = cloud.post_json("/drives/create", r#"{"name": "n1", "size": "4M"}"#).await;
    let made = made.expect(200).json();
    assert_eq!(made["size"], 4_194_304);
    let drive = made["drive"].as_str().unwrap();
    let body = format!(
        r#"{{"name": "n1", "cpu": 2000, "mem": 1700, "ide:0:0": "{drive}", "boot": "ide:0:0",
            "smp": "auto", "nic:0:model": "e1000", "nic:0:dhcp": "auto", "vnc": "auto",
            "vnc:password": "abcd1234"}}"#
    );
    let server = cloud.post_json("/servers/create", &body).await.expect(200).json();
    assert_eq!(server["status"], "active");
    for (key, value) in [("cpu", 2000), ("mem", 1700)] {
        assert_eq!(server[key], value);
    }
    for key in ["server", "boot", "ide:0:0", "smp", "user"] {
        assert!(server[key].is_string(), "{key}: {server}");
    }
    assert!(server["started"].is_u64() && server["smp:cores"].is_u64(), "{server}");
    let id = server["server"].as_str().unwrap();
    // Its body-less actions carry its JSON type and no body; the drive is free right after.
    cloud.post_json(&format!("/servers/{id}/reset"), "").await.expect(204);
    cloud.post_json(&format!("/servers/{id}/destroy"), "").await.expect(204);
    cloud.post_json(&format!("/drives/{drive}/destroy"), "").await.expect(204);
    cloud.server.close().await;
}

#[tokio::test]
async fn scripts_that_send_odd_types_and_junk_are_served() {
    let cloud = Cloud::new().await;
    for content_type in ["application/octet-stream", "application/x-www-form-urlencoded", "header"]
    {
        let request = cloud.request("POST", "/drives/create").header("Content-Type", content_type);
        let made = cloud.send(request.body(Body::from(SMALL)).unwrap()).await.expect(200);
        let drive = made.value("drive").unwrap().to_owned();
        let destroy = cloud
            .request("POST", &format!("/drives/{drive}/destroy"))
            .header("Content-Type", content_type)
            .header("Expect", "https://example.org/");
        cloud.send(destroy.body(Body::from("a junk line")).unwrap()).await.expect(204);
    }
    let form = cloud
        .request("POST", "/drives/create")
        .header("Content-Type", "application/x-www-form-urlencoded");
    cloud.send(form.body(Body::from("name=my+web&size=4M")).unwrap()).await.expect(200);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_nonsense_expectation_is_ignored_on_the_wire_too() {
    let cloud = Cloud::new().await;
    served(&cloud.server, async |address| {
        let mut link = TcpStream::connect(address).await.unwrap();
        let basic = &cloud.basic;
        let request = format!(
            "POST /drives/create HTTP/1.1\r\nHost: {address}\r\nAuthorization: {basic}\r\n\
             Expect: https://example.org/\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{SMALL}",
            SMALL.len()
        );
        link.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        link.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    })
    .await;
    cloud.server.close().await;
}

#[tokio::test]
async fn a_server_that_does_not_run_shows_its_configuration_only() {
    let cloud = Cloud::new().await;
    let body = "name s\ncpu 500\nmem 128\npersistent true\nvnc auto\npassword abc";
    let made = cloud.post("/servers/create/stopped", body).await.expect(200);
    let path = |action: &str| format!("/servers/{}/{action}", made.value("server").unwrap());
    let running = ["started", "smp:cores"];
    let shown = |info: &Answer| running.map(|key| info.value(key).is_some());
    assert_eq!(shown(&made), [false; 2]);
    cloud.post(&path("start"), "").await.expect(200);
    assert_eq!(shown(&cloud.get(&path("info")).await.expect(200)), [true; 2]);
    cloud.post(&path("stop"), "").await.expect(204);
    assert_eq!(shown(&cloud.get(&path("info")).await.expect(200)), [false; 2]);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_server_that_is_not_persistent_vanishes_when_it_stops_and_its_drive_stays() {
    let cloud = Cloud::new().await;
    let drive = cloud.drive().await;
    let body = format!("name x\ncpu 500\nmem 256\nide:0:0 {drive}\nboot ide:0:0");
    let made = cloud.post("/servers/create", &body).await.expect(200);
    let server = made.value("server").unwrap().to_owned();
    cloud.post(&format!("/drives/{drive}/write"), "x").await.expect(409);
    cloud.post(&format!("/servers/{server}/stop"), "").await.expect(204);
    cloud.get(&format!("/servers/{server}/info")).await.expect(404);
    cloud.post(&format!("/drives/{drive}/write"), "x").await.expect(204);
    cloud.server.close().await;
}

#[tokio::test]
async fn an_answer_has_an_id_and_is_kept_by_no_cache() {
    let cloud = Cloud::new().await;
    let request = || Request::builder().uri("/nowhere").body(Body::empty()).unwrap();
    let (one, other) = (cloud.send(request()).await, cloud.get("/drives/list").await);
    assert_eq!(one.header("x-request-id").len(), 36);
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
    assert_eq!(other.header("cache-control"), "no-store");
    cloud.server.close().await;
}

#[tokio::test]
async fn a_standard_drive_is_everybodys_to_see_and_to_image_from() {
    let cloud = Cloud::new().await;
    let path = cloud.directory().join("tiny.img");
    let content = b"an image that boots nothing";
    std::fs::write(&path, content).unwrap();
    let sha256: String =
        sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let id = "62f512cd-82c7-498e-88d8-a09ac2ef20e7";
    let image = StandardImage {
        drive: id.parse().unwrap(),
        name: "Tiny Linux 1".parse().unwrap(),
        media: "disk".to_owned(),
        format: None,
        rawsize: None,
        sha256,
        path,
    };
    let app = cloud.server.app();
    app.publish_standard(&image).await.unwrap();
    app.publish_standard(&image).await.unwrap();
    assert_eq!(cloud.get("/drives/list/standard").await.expect(200).text(), format!("{id}\n"));
    let infos = cloud.get("/drives/info/standard").await.expect(200);
    assert_eq!(infos.value("media"), Some("disk"), "{}", infos.text());
    assert_eq!(cloud.get("/drives/list").await.expect(200).text(), "", "it is nobody's own");
    let full = cloud.get(&format!("/drives/{id}/info/full")).await.expect(200);
    assert_eq!(full.value("read:bytes"), None, "who reads it is nobody's business");
    let copy = cloud.drive().await;
    cloud.post(&format!("/drives/{copy}/image/{id}"), "").await.expect(200);
    cloud.finished_imaging(&copy).await;
    assert_eq!(cloud.agent.bytes(&copy)[..content.len()], *content);
    cloud.server.close().await;
}
