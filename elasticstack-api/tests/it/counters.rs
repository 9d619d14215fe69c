//! What servers and drives have read and written: told by `info/full` while servers run, and by it
//! alone.

use serde_json::{Map, Value, json};

use crate::cloud::{Answer, Cloud};

/// The four counters of one drive at `port`, so many times what a server has read and written.
fn counters(port: &str, times: u64) -> Map<String, Value> {
    let counters = [
        ("read:bytes", 4_096),
        ("read:requests", 1),
        ("write:bytes", 8_192),
        ("write:requests", 2),
    ];
    let quoted =
        |(key, count): (&str, u64)| (format!("{port}{key}"), json!((times * count).to_string()));
    counters.map(quoted).into_iter().collect()
}

/// An object as its plain info has it, with these counters.
async fn with(cloud: &Cloud, path: &str, more: Map<String, Value>) -> Value {
    let info = cloud.post_json(&format!("{path}/info"), "").await.expect(200).json();
    let Value::Object(mut info) = info else { panic!("{info}") };
    assert!(!info.keys().any(|key| key.contains("read:")), "{info:?}");
    info.extend(more);
    info.into()
}

async fn full(cloud: &Cloud, path: &str) -> Answer {
    let answer = cloud.post_json(&format!("{path}/info/full"), "").await;
    answer.expect(200)
}

/// The `info/full` of the only object of a kind is the list's, in both forms.
async fn is_listed(cloud: &Cloud, list: &str, path: &str) {
    let (one, all) = (full(cloud, path).await.json(), full(cloud, list).await.json());
    assert_eq!(json!([one]), all);
    let text = cloud.get(&format!("{path}/info/full")).await.expect(200);
    assert_eq!(text.text(), cloud.get(&format!("{list}/info/full")).await.expect(200).text());
}

#[tokio::test]
async fn counters_are_told_in_full_while_a_server_runs_and_drives_that_rest_have_zeros() {
    let cloud = Cloud::new().await;
    let server = format!("/servers/{}", cloud.stopped_server().await);
    let drive = cloud.get("/drives/list").await.expect(200).text().trim().to_owned();
    let drive = format!("/drives/{drive}");
    let stopped = async || {
        assert_eq!(full(&cloud, &server).await.json(), with(&cloud, &server, Map::new()).await);
        assert_eq!(full(&cloud, &drive).await.json(), with(&cloud, &drive, counters("", 0)).await);
        is_listed(&cloud, "/servers", &server).await;
        is_listed(&cloud, "/drives", &drive).await;
    };
    stopped().await;

    cloud.post(&format!("{server}/start"), "").await.expect(200);
    let told = full(&cloud, &server).await;
    assert_eq!(told.json(), with(&cloud, &server, counters("ide:0:0:", 1)).await);
    assert_eq!(told.json()["ide:0:0:read:bytes"], json!("4096"), "quoted, as old clients want it");
    assert_eq!(told.header("etag"), cloud.get(&format!("{server}/info")).await.header("etag"));
    assert_eq!(full(&cloud, &drive).await.json(), with(&cloud, &drive, counters("", 1)).await);
    let text = cloud.get(&format!("{server}/info/full")).await.expect(200);
    assert_eq!(text.value("ide:0:0:write:requests"), Some("2"));
    is_listed(&cloud, "/servers", &server).await;
    is_listed(&cloud, "/drives", &drive).await;
    for list in ["/servers/info", "/drives/info"] {
        let list = cloud.get(list).await.expect(200);
        assert!(!list.text().contains("read:bytes"), "{}", list.text());
    }

    cloud.post(&format!("{server}/stop"), "").await.expect(204);
    stopped().await;
    cloud.server.close().await;
}

#[tokio::test]
async fn a_drives_counters_are_the_sum_over_the_servers_that_run_with_it() {
    let cloud = Cloud::new().await;
    let made = cloud.post("/drives/create", "name both\nsize 4M\nclaim:type shared").await;
    let drive = made.expect(200).value("drive").unwrap().to_owned();
    let mut servers = Vec::new();
    for name in ["a", "b"] {
        let body = format!("name {name}\ncpu 500\nmem 256\npersistent true\nblock:0 {drive}");
        let made = cloud.post("/servers/create", &body).await.expect(200);
        servers.push(made.value("server").unwrap().to_owned());
    }
    let path = format!("/drives/{drive}");
    assert_eq!(full(&cloud, &path).await.json(), with(&cloud, &path, counters("", 2)).await);
    cloud.post(&format!("/servers/{}/stop", servers[0]), "").await.expect(204);
    assert_eq!(full(&cloud, &path).await.json(), with(&cloud, &path, counters("", 1)).await);
    cloud.server.close().await;
}

#[tokio::test]
async fn what_its_host_does_not_tell_lacks_counters_and_is_answered_all_the_same() {
    let cloud = Cloud::new().await;
    let server = format!("/servers/{}", cloud.stopped_server().await);
    let drive = cloud.get("/drives/list").await.expect(200).text().trim().to_owned();
    cloud.post(&format!("{server}/start"), "").await.expect(200);
    let idle = format!("/drives/{}", cloud.drive().await);
    cloud.dial.remove(cloud.host);
    cloud.dial.cut();
    for path in [server, format!("/drives/{drive}")] {
        assert_eq!(full(&cloud, &path).await.json(), with(&cloud, &path, Map::new()).await);
    }
    assert_eq!(full(&cloud, &idle).await.json(), with(&cloud, &idle, counters("", 0)).await);
    let servers = full(&cloud, "/servers").await.json();
    assert!(servers.as_array().is_some_and(|all| all.len() == 1), "{servers}");
    assert!(!servers.to_string().contains("read:bytes"), "{servers}");
    cloud.server.close().await;
}
