//! What old clients test for: exact status codes, both forms, odd types, visible effects.

use axum::body::Body;
use elasticstack_api::app::StandardImage;
use http::Request;
use sha2::Digest as _;

use crate::cloud::{Cloud, SMALL};

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
async fn old_clouds_answer_image_with_204() {
    let cloud = Cloud::legacy().await;
    let (source, target) = (cloud.drive().await, cloud.drive().await);
    let imaged = cloud.post(&format!("/drives/{target}/image/{source}"), "").await.expect(204);
    assert!(imaged.body.is_empty());
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
    let copy = cloud.drive().await;
    cloud.post(&format!("/drives/{copy}/image/{id}"), "").await.expect(200);
    cloud.finished_imaging(&copy).await;
    assert_eq!(cloud.agent.bytes(&copy)[..content.len()], *content);
    cloud.server.close().await;
}
