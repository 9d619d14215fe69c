//! Operators make accounts, limit them, suspend and resume them.

use std::collections::BTreeMap;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_api::app::{AppConfig, Quota};
use elasticstack_core::wire::calls::{self, CALLS, Effect, Scope};
use elasticstack_core::wire::keys::{self, Object};
use http::Request;
use uuid::Uuid;

use crate::cloud::{Answer, Cloud, SMALL};
use crate::database::TestDatabase;

const QUOTA: &str = "quota code=quota_exceeded field=";

async fn ask(cloud: &Cloud, account: &str, key: &str, path: &str) -> Answer {
    let basic = format!("Basic {}", STANDARD.encode(format!("{account}:{key}")));
    let request = Request::post(path).header("Authorization", basic);
    cloud.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn an_account_is_made_told_changed_and_given_another_key() {
    let cloud = Cloud::new().await;
    let body = "name Ada\nemail ada@example.org\nquota:disk 1G\nquota:cpu 2000";
    let made = cloud.operate("/accounts/create", body).await.expect(200);
    let (account, key) = (made.value("account").unwrap(), made.value("secret").unwrap());
    for line in made.text().lines() {
        let key = line.split(' ').next().unwrap();
        assert!(keys::find(Object::Account, key).is_some(), "{key} is in no table");
    }
    for (key, value) in [
        ("name", "Ada"),
        ("email", "ada@example.org"),
        ("scope", "customer"),
        ("status", "active"),
        ("quota:disk", "1073741824"),
        ("quota:cpu", "2000"),
        ("used:disk", "0"),
    ] {
        assert_eq!(made.value(key), Some(value), "{key}");
    }
    assert_eq!(made.value("quota:mem"), None, "unset is no limit");
    let own = ask(&cloud, account, key, "/profile/info").await.expect(200);
    assert_eq!((own.value("quota:cpu"), own.value("used:drives")), (Some("2000"), Some("0")));

    let path = |action: &str| format!("/accounts/{account}/{action}");
    let info = cloud.operate(&path("info"), "").await.expect(200);
    assert_eq!((info.value("name"), info.value("secret")), (Some("Ada"), None), "it is told once");
    let set = cloud.operate(&path("set"), "name Eve\nquota:cpu\nquota:ip 0").await.expect(200);
    assert_eq!((set.value("name"), set.value("quota:ip")), (Some("Eve"), Some("0")));
    assert_eq!((set.value("quota:cpu"), set.value("email")), (None, Some("ada@example.org")));
    let list = cloud.operate("/accounts/list", "").await.expect(200);
    assert!(list.text().contains(account));
    let named = cloud.operate("/accounts/info?name=Eve&status=active", "").await.expect(200);
    assert_eq!(named.value("account"), Some(account));
    assert_eq!(cloud.operate("/accounts/info?status=suspended", "").await.expect(200).text(), "");

    let other = cloud.operate(&path("key"), "").await.expect(200);
    let other = other.value("secret").unwrap();
    ask(&cloud, account, key, "/profile/info").await.expect(401);
    ask(&cloud, account, other, "/profile/info").await.expect(200);

    for (body, error) in [
        ("email a@b.c", "usage code=missing_key field=name"),
        ("name a\nscope operator", "usage code=invalid_value field=scope"),
        ("name a\nquota:gpu 1", "usage code=unknown_key field=quota:gpu"),
        ("name a\nquota:cpu -1", "usage code=invalid_value field=quota:cpu"),
        ("name a\nquota:disk 1.5G", "usage code=invalid_value field=quota:disk"),
    ] {
        let refused = cloud.operate("/accounts/create", body).await.expect(400);
        assert_eq!(refused.header("x-elastic-error"), error, "{body}");
    }
    let nobody = format!("/accounts/{}/set", Uuid::new_v4());
    cloud.operate(&nobody, "name x").await.expect(404);
    cloud.server.close().await;
}

#[tokio::test]
async fn what_passes_a_quota_is_refused_with_its_name_and_makes_nothing() {
    let cloud = Cloud::new().await;
    let account = cloud.own_account().await;
    let limit = async |quotas: &str| {
        cloud.operate(&format!("/accounts/{account}/set"), quotas).await.expect(200)
    };
    let pool = "name p\nfirst 10.9.0.10\nlast 10.9.0.20\nnetmask 255.255.255.0\ngateway 10.9.0.1";
    cloud.operate("/pools/create", pool).await.expect(200);
    let (drive, server) = (cloud.drive().await, cloud.stopped_server().await);
    let (set, start) = (format!("/drives/{drive}/set"), format!("/servers/{server}/start"));
    let make = "name s\ncpu 500\nmem 128\npersistent true";
    // What a call takes of a quota, beyond what is used by then: one less is too little.
    for (quota, enough, path, body) in [
        ("drives", 3, "/drives/create", SMALL),
        ("disk", 4 << 22, "/drives/create", SMALL),
        ("disk", 5 << 22, set.as_str(), "size 8M"),
        ("disk", 7 << 22, &format!("/drives/{drive}/clone"), "name c\nsize 8M"),
        ("servers", 2, "/servers/create/stopped", make),
        ("servers", 3, "/servers/create", make),
        ("cpu", 1_500, &start, ""),
        ("mem", 768, "/servers/create", make),
        ("cpu", 2_500, &format!("/servers/{server}/set"), "cpu 1500"),
        ("ip", 1, "/resources/ip/create", ""),
        ("vlan", 1, "/resources/vlan/create", ""),
    ] {
        let before = limit(&format!("quota:{quota} {}", enough - 1)).await;
        let things = cloud.ids().await;
        let refused = cloud.post(path, body).await.expect(403);
        assert_eq!(refused.header("x-elastic-error"), format!("{QUOTA}quota:{quota}"), "{path}");
        let used = before.value(&format!("used:{quota}")).unwrap();
        assert!(
            refused
                .text()
                .starts_with(&format!("quota:{quota} is {}, {used} are used", enough - 1)),
            "{}",
            refused.text()
        );
        assert_eq!(cloud.ids().await, things, "{path}");
        limit(&format!("quota:{quota} {enough}")).await;
        cloud.post(path, body).await.expect(200);
        let after = limit(&format!("quota:{quota}")).await;
        let used = after.value(&format!("used:{quota}"));
        assert_eq!(used, Some(enough.to_string().as_str()), "{path} {quota}");
    }

    // A limit below what is used takes nothing away, and giving back makes room.
    cloud.finished_imaging(&drive).await;
    limit("quota:drives 1\nquota:mem 1\nquota:disk 1").await;
    cloud.post(&set, "name other\nsize 4M").await.expect(200);
    cloud.post("/drives/create", SMALL).await.expect(403);
    cloud.post(&format!("/servers/{server}/stop"), "").await.expect(204);
    cloud.post(&start, "").await.expect(403);
    limit("quota:mem 1024").await;
    cloud.post(&start, "").await.expect(200);

    // A snapshot counts by the size of its drive.
    let snapshot = format!("/drives/{drive}/snapshot");
    let refused = cloud.post(&snapshot, "").await.expect(403);
    assert_eq!(refused.header("x-elastic-error"), format!("{QUOTA}quota:disk"));
    let free = limit("quota:disk 1G").await;
    let used = |account: &Answer| account.value("used:disk").unwrap().parse::<u64>().unwrap();
    cloud.post(&snapshot, "").await.expect(200);
    assert!(used(&limit("quota:disk").await) > used(&free));
    cloud.server.close().await;
}

#[tokio::test]
async fn the_installations_quotas_hold_for_customers_without_their_own() {
    let quotas = BTreeMap::from([(Quota::Drives, 1)]);
    let config = AppConfig { quotas, ..AppConfig::default() };
    let cloud = Cloud::with(TestDatabase::new(), |builder| builder.config(config)).await;
    cloud.drive().await;
    let refused = cloud.post("/drives/create", SMALL).await.expect(403);
    assert_eq!(refused.header("x-elastic-error"), format!("{QUOTA}quota:drives"));
    assert_eq!(cloud.get("/profile/info").await.expect(200).value("quota:drives"), Some("1"));
    let account = cloud.own_account().await;
    cloud.operate(&format!("/accounts/{account}/set"), "quota:drives 2").await.expect(200);
    cloud.drive().await;
    for _ in 0..2 {
        cloud.operate("/drives/create", SMALL).await.expect(200);
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn a_suspended_account_reads_and_changes_nothing_and_what_runs_goes_on() {
    let cloud = Cloud::new().await;
    let (account, server) = (cloud.own_account().await, cloud.stopped_server().await);
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
    let token = cloud.post("/tokens/create", "name t").await.expect(200);
    let bearer = format!("Bearer {}", token.value("secret").unwrap());
    let (info, drive) = (format!("/servers/{server}/info"), cloud.drive().await);
    let usage = cloud.get("/usage/info").await.expect(200).body;
    let operate = async |action: &str| {
        let answer = cloud.operate(&format!("/accounts/{account}/{action}"), "").await.expect(200);
        answer.value("status").unwrap().to_owned()
    };
    assert_eq!(operate("suspend").await, "suspended");
    assert_eq!(operate("suspend").await, "suspended");
    for route in CALLS.iter().filter(|route| route.scope == Scope::Customer) {
        let object = if route.path.starts_with("/drives") { &drive } else { &server };
        let path = calls::path(route.call, &[object, "0", "1"]);
        for authorization in [&cloud.basic, &bearer] {
            let request = Request::post(&path).header("Authorization", authorization);
            let answer = cloud.send(request.body(Body::from("name x")).unwrap()).await;
            let is_refused = answer.header("x-elastic-error") == "quota code=account_suspended";
            assert_eq!(is_refused, route.effect == Effect::Changes, "{path}: {answer:?}");
        }
    }
    let seen = cloud.get(&info).await.expect(200);
    assert_eq!(seen.value("status"), Some("active"));
    assert_eq!(cloud.get("/usage/info").await.expect(200).body, usage, "it is metered as before");

    assert_eq!(operate("suspend/stop").await, "suspended");
    let stopped = async {
        while cloud.get(&info).await.expect(200).value("status") != Some("stopped") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::cloud::GUARD, stopped).await.expect("it never stopped");
    assert_eq!(operate("resume").await, "active");
    assert_eq!(cloud.get(&info).await.expect(200).value("status"), Some("stopped"));
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);

    let me = cloud.operate("/profile/info", "").await.expect(200);
    let own = format!("/accounts/{}/suspend", me.value("uuid").unwrap());
    cloud.operate(&own, "").await.expect(400);
    cloud.server.close().await;
}
