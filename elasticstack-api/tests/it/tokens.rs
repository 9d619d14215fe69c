//! Tokens open what they are for, while they are good, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{self, CALLS, Effect, Scope};
use http::Request;
use uuid::Uuid;

use crate::cloud::{Answer, Cloud};
use crate::database::TestDatabase;

const NOW_S: i64 = 1_800_000_000;

async fn ask(cloud: &Cloud, authorization: &str, path: &str, body: &str) -> Answer {
    let request = Request::post(path).header("Authorization", authorization);
    cloud.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn a_token_opens_what_it_is_for_until_it_ends_or_is_taken_away() {
    let clock = Arc::new(AtomicI64::new(NOW_S * 1_000_000));
    let time = clock.clone();
    let time = Arc::new(move || Timestamp::from_micros(time.load(Ordering::SeqCst)));
    let cloud = Cloud::with(TestDatabase::new(), |builder| builder.clock(time)).await;
    let drive = cloud.drive().await;
    let list = "/drives/list";
    let body = format!("name ci\naccess read\nexpires {}", NOW_S + 60);
    let made = cloud.post("/tokens/create", &body).await.expect(200);
    let (id, secret) = (made.value("token").unwrap(), made.value("secret").unwrap().to_owned());
    let profile = cloud.get("/profile/info").await.expect(200);
    let account = profile.value("uuid").unwrap();
    let bearer = format!("Bearer {secret}");
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));

    for authorization in [&bearer, &basic(account)] {
        let seen = ask(&cloud, authorization, list, "").await.expect(200);
        assert_eq!(seen.text(), format!("{drive}\n"));
    }
    let cut = &bearer[..bearer.len() - 1];
    let flipped = format!("{cut}{}", if bearer.ends_with('0') { '1' } else { '0' });
    let other = Uuid::new_v4().to_string();
    for wrong in [cut, &flipped, &basic(&other), "Bearer es_", "Bearer x", "Bearer "] {
        ask(&cloud, wrong, list, "").await.expect(401);
    }
    for authorization in [&cloud.basic, &bearer] {
        let info = ask(&cloud, authorization, &format!("/tokens/{id}/info"), "").await.expect(200);
        assert_eq!(info.value("name"), Some("ci"));
        assert_eq!(info.value("access"), Some("read"));
        assert_eq!(info.value("secret"), None, "it is told once");
    }
    clock.fetch_add(59 * 1_000_000, Ordering::SeqCst);
    ask(&cloud, &bearer, list, "").await.expect(200);
    clock.fetch_add(1_000_000, Ordering::SeqCst);
    ask(&cloud, &bearer, list, "").await.expect(401);

    let made = cloud.post("/tokens/create", "name full").await.expect(200);
    let (id, full) = (made.value("token").unwrap(), made.value("secret").unwrap());
    let full = format!("Bearer {full}");
    ask(&cloud, &full, &format!("/drives/{drive}/set"), "name x").await.expect(200);
    let stranger = cloud.stranger().await;
    ask(&cloud, &stranger, &format!("/tokens/{id}/destroy"), "").await.expect(404);
    ask(&cloud, &full, &format!("/tokens/{id}/destroy"), "").await.expect(204);
    ask(&cloud, &full, list, "").await.expect(401);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_token_never_opens_more_than_it_says_or_its_account_does() {
    let cloud = Cloud::new().await;
    let token = async |body: &str| {
        let made = cloud.post("/tokens/create", body).await.expect(200);
        format!("Bearer {}", made.value("secret").unwrap())
    };
    let (read, full) = (token("name r\naccess read").await, token("name f\naccess full").await);
    for route in CALLS.iter() {
        let nothing = Uuid::new_v4().to_string();
        let path = calls::path(route.call, &[&nothing, "0", "1"]);
        let by_read = ask(&cloud, &read, &path, "").await;
        let by_full = ask(&cloud, &full, &path, "").await;
        let is_operators = route.scope == Scope::Operator;
        let is_refused = |answer: &Answer| answer.status == 403;
        let changes = route.effect == Effect::Changes;
        assert_eq!(is_refused(&by_read), is_operators || changes, "{}", route.path);
        let makes_more = route.path == "/tokens/create";
        assert_eq!(is_refused(&by_full), is_operators || makes_more, "{}", route.path);
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn usage_is_told_to_who_used_it_and_to_operators() {
    let cloud = Cloud::new().await;
    let stranger = cloud.stranger().await;
    let drive = cloud.drive().await;
    let used = |answer: Answer| answer.expect(200).text().contains(&drive);
    assert!(used(cloud.get("/usage/info").await));
    assert!(!used(ask(&cloud, &stranger, "/usage/info", "").await));
    assert!(used(ask(&cloud, &cloud.operator, "/usage/info/all", "").await));
    ask(&cloud, &stranger, "/usage/info/all", "").await.expect(403);
    assert!(!used(cloud.get("/usage/info?to=1000").await), "it was later");
    assert!(used(cloud.get("/usage/info?from=1000").await), "it goes on");
    let first = cloud.get("/usage/info?limit=1").await.expect(200);
    let rest = cloud.get(&format!("/usage/info?after={}", first.value("interval").unwrap())).await;
    assert!(!rest.expect(200).text().contains(first.value("interval").unwrap()));
    let offered = cloud.get("/capabilities/info").await.expect(200);
    assert_eq!(offered.value("offer:hosts"), Some("yes"));
    assert_eq!(offered.value("limit:write_bytes"), Some("67108864"));
    assert_eq!(offered.value("limit:calls_in_a_row"), Some("10000"));
    assert_eq!(offered.value("limit:calls_per_second"), Some("2000"));
    cloud.server.close().await;
}
