//! Lists come in pages and in parts, and a change may be tied to what its caller has seen.

use axum::body::Body;

use crate::cloud::{Answer, Cloud};

#[tokio::test]
async fn pages_meet_everything_once_while_others_come_and_go() {
    let cloud = Cloud::new().await;
    let (mut drives, mut newcomers) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        drives.push(cloud.drive().await);
    }
    drives.sort();
    let (mut met, mut after) = (Vec::new(), String::new());
    loop {
        let page = cloud.get(&format!("/drives/list?limit=2{after}")).await.expect(200);
        let ids: Vec<String> = page.text().lines().map(str::to_owned).collect();
        let Some(last) = ids.last() else { break };
        assert!(ids.len() <= 2);
        after = format!("&after={last}");
        // The one that the next page begins after goes, and others come wherever their ids put them.
        cloud.post(&format!("/drives/{last}/destroy"), "").await.expect(204);
        if met.len() < drives.len() {
            newcomers.push(cloud.drive().await);
        }
        met.extend(ids);
    }
    let mut once = met.clone();
    once.dedup();
    assert_eq!(once, met, "nothing is met twice, and the order is that of ids");
    met.retain(|drive| !newcomers.contains(drive));
    assert_eq!(met, drives);
    cloud.server.close().await;
}

#[tokio::test]
async fn every_kind_of_list_comes_in_pages_by_name() {
    let cloud = Cloud::new().await;
    for (name, first) in [("p", 10), ("q", 30)] {
        let body = format!(
            "name {name}\nfirst 192.0.2.{first}\nlast 192.0.2.{}\nnetmask 255.255.255.0\n\
             gateway 192.0.2.1",
            first + 9
        );
        cloud.operate("/pools/create", &body).await.expect(200);
    }
    for (kind, name) in [("ip", "a"), ("ip", "b"), ("vlan", "a"), ("vlan", "c")] {
        let body = format!("name {name}\ntags of-{name}");
        cloud.post(&format!("/resources/{kind}/create"), &body).await.expect(200);
    }
    for name in ["a", "b", "c"] {
        cloud.post("/tokens/create", &format!("name {name}")).await.expect(200);
    }
    let ids = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split(' ').next_back()).map(str::to_owned).collect()
    };
    for (list, all, named, count) in [
        ("/resources/list", 4, "name=a", 2),
        ("/resources/list", 4, "tag=of-a", 2),
        ("/resources/ip/list", 2, "name=b", 1),
        ("/resources/vlan/list", 2, "tag=of-b", 0),
        ("/tokens/list", 3, "name=c", 1),
        ("/pools/list", 2, "name=q", 1),
    ] {
        let ask = async |query: &str| {
            let answer = operators_or_owner(&cloud, &format!("{list}?{query}")).await.expect(200);
            ids(answer.text())
        };
        let whole = ask("limit=100").await;
        assert_eq!(whole.len(), all, "{list}");
        let mut met = ask("limit=1").await;
        while met.len() < all {
            let next = ask(&format!("limit=1&after={}", met.last().unwrap())).await;
            assert_eq!(next.len(), 1, "{list}");
            met.extend(next);
        }
        assert_eq!(met, whole, "{list}");
        assert_eq!(ask(named).await.len(), count, "{list}?{named}");
        let infos = format!("{}?{named}", list.replace("/list", "/info"));
        let infos = operators_or_owner(&cloud, &infos).await.expect(200);
        let told = infos.text().split("\n\n").filter(|record| !record.trim().is_empty()).count();
        assert_eq!(told, count, "{list}?{named}");
    }
    cloud.server.close().await;
}

/// What whoever may see the list is answered.
async fn operators_or_owner(cloud: &Cloud, path: &str) -> Answer {
    if path.starts_with("/pools") { cloud.operate(path, "").await } else { cloud.get(path).await }
}

#[tokio::test]
async fn lists_are_searched_by_tag_status_and_name() {
    let cloud = Cloud::new().await;
    let make = async |path: &str, body: &str, key: &str| {
        cloud.post(path, body).await.expect(200).value(key).unwrap().to_owned()
    };
    let web = make("/drives/create", "size 4M\nname my web\ntags a web b", "drive").await;
    let webs = make("/drives/create", "size 4M\ntags webs", "drive").await;
    let case = make("/drives/create", "size 4M\nname MY WEB\nuser:tags web", "drive").await;
    let server = "cpu 500\nmem 128\npersistent true\ntags web";
    let stopped = make("/servers/create/stopped", &format!("{server}\nname s"), "server").await;
    let active = make("/servers/create", &format!("{server}\nname t"), "server").await;
    for (path, wanted) in [
        ("/drives/list?tag=web", vec![&web]),
        ("/drives/list?tag=we", vec![]),
        ("/drives/list?tag=%25", vec![]),
        ("/drives/list?name=my+web", vec![&web]),
        ("/drives/list?name=MY%20WEB", vec![&case]),
        (&format!("/drives/list?name={webs}"), vec![&webs]),
        ("/drives/list?status=active&tag=webs", vec![&webs]),
        ("/drives/list?status=inactive", vec![]),
        ("/servers/list?tag=web&status=stopped", vec![&stopped]),
        ("/servers/list?status=active", vec![&active]),
        ("/servers/list?status=paused", vec![]),
        ("/servers/list?name=t&status=active&tag=web&limit=9", vec![&active]),
    ] {
        let list = cloud.get(path).await.expect(200);
        assert_eq!(list.text().lines().collect::<Vec<_>>(), wanted, "{path}");
        let infos = cloud.get(&path.replace("/list", "/info")).await.expect(200);
        for id in wanted {
            assert!(infos.text().contains(id.as_str()), "{path}");
        }
    }
    cloud.post(&format!("/drives/{web}/set"), "tags c\nname x").await.expect(200);
    assert_eq!(cloud.get("/drives/list?tag=web").await.text(), "");
    assert_eq!(cloud.get("/drives/list?tag=c&name=x").await.text(), format!("{web}\n"));
    cloud.server.close().await;
}

#[tokio::test]
async fn a_parameter_that_a_call_does_not_have_is_refused() {
    let cloud = Cloud::new().await;
    for (path, error) in [
        ("/drives/list?limits=1", "unknown_key field=limits"),
        ("/drives/info?limit=0", "invalid_value field=limit"),
        ("/drives/info?limit=x", "invalid_value field=limit"),
        ("/servers/list?after=x", "invalid_value field=after"),
        ("/servers/info?status=gone", "invalid_value field=status"),
        ("/profile/info?limit=1", "unknown_key field=limit"),
    ] {
        let refused = cloud.get(path).await.expect(400);
        assert_eq!(refused.header("x-elastic-error"), format!("usage code={error}"), "{path}");
    }
    let request = http::Request::get("/hosts/info?tag=x").header("Authorization", &cloud.operator);
    cloud.send(request.body(Body::empty()).unwrap()).await.expect(400);
    let request = http::Request::get("/hosts/info?status=active&name=h1&limit=1")
        .header("Authorization", &cloud.operator);
    let hosts = cloud.send(request.body(Body::empty()).unwrap()).await.expect(200);
    assert_eq!(hosts.value("name"), Some("h1"));
    cloud.server.close().await;
}

#[tokio::test]
async fn a_change_that_was_made_for_another_version_is_not_made() {
    let cloud = Cloud::new().await;
    let (drive, server) = (cloud.drive().await, cloud.stopped_server().await);
    let taken = cloud.post(&format!("/drives/{drive}/snapshot"), "").await.expect(200);
    let snapshot = taken.value("snapshot").unwrap();
    for (object, actions) in [
        (format!("/servers/{server}"), &["set", "start", "set", "stop", "destroy"][..]),
        (format!("/snapshots/{snapshot}"), &["set", "restore", "destroy"]),
        (format!("/drives/{drive}"), &["set", "set", "destroy"]),
    ] {
        let mut outdated = "\"never\"".to_owned();
        for (round, action) in actions.iter().enumerate() {
            let info = cloud.get(&format!("{object}/info")).await.expect(200);
            let version = info.header("etag").to_owned();
            let body = match (*action, round) {
                ("set", 1) if object.starts_with("/drives") => "claim:type shared".to_owned(),
                ("set", _) => format!("name {round}"),
                _ => String::new(),
            };
            let ask = async |version: &str, key: &str| {
                let request = cloud
                    .request("POST", &format!("{object}/{action}"))
                    .header("If-Match", version)
                    .header("Idempotency-Key", format!("{object}/{action}-{round}-{key}"));
                cloud.send(request.body(Body::from(body.clone())).unwrap()).await
            };
            let refused = ask(&outdated, "a").await.expect(412);
            let error = refused.header("x-elastic-error");
            assert_eq!(error, "busy code=precondition_failed field=If-Match");
            let same = cloud.get(&format!("{object}/info")).await.expect(200);
            assert_eq!(same.header("etag"), version, "nothing was done");
            let done = ask(&format!("{outdated}, {version}"), "b").await;
            assert!(matches!(done.status, 200 | 204), "{action}: {done:?}");
            let again = ask(&format!("{outdated}, {version}"), "b").await;
            assert_eq!(again.status, done.status, "its answer is not lost to its own change");
            outdated = version;
        }
    }
    let drive = cloud.drive().await;
    let seen = cloud.get(&format!("/drives/{drive}/info")).await.expect(200);
    for (version, code) in [("\"never\"", 412), (seen.header("etag"), 200)] {
        // A snapshot is taken of the version that was seen.
        let request = cloud.request("POST", &format!("/drives/{drive}/snapshot"));
        let request = request.header("If-Match", version).body(Body::empty()).unwrap();
        cloud.send(request).await.expect(code);
    }
    let request = cloud.request("POST", "/drives/create").header("If-Match", "\"x\"");
    cloud.send(request.body(Body::from("size 4M")).unwrap()).await.expect(412);
    let drive = cloud.drive().await;
    for path in ["/drives/x/set".to_owned(), format!("/drives/{drive}/image/x")] {
        let request = cloud.request("POST", &path).header("If-Match", "\"never\"");
        // What is wrong with the request itself comes first.
        cloud.send(request.body(Body::empty()).unwrap()).await.expect(404);
    }
    for (path, body, code) in [
        (format!("/drives/{drive}/set"), "size no", "invalid_value field=size"),
        (format!("/drives/{drive}/set"), "colour red", "unknown_key field=colour"),
        (format!("/drives/{drive}/sha256"), "sha256 12", "invalid_value field=sha256"),
        (format!("/drives/{drive}/image/url"), "", "missing_key field=url"),
        (format!("/servers/{server}/set"), "cpu fast", "invalid_value field=cpu"),
    ] {
        let request = cloud.request("POST", &path).header("If-Match", "\"never\"");
        let refused = cloud.send(request.body(Body::from(body)).unwrap()).await.expect(400);
        assert_eq!(refused.header("x-elastic-error"), format!("usage code={code}"), "{path}");
    }
    cloud.server.close().await;
}
