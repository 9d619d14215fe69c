//! What is granted to callers, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_api::http::Limits;
use elasticstack_core::prelude::*;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::cloud::{Answer, Cloud, GUARD, served};
use crate::database::TestDatabase;

/// A cloud under these limits whose time stands still unless it is moved.
async fn limited(limits: Limits) -> (Cloud, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(1_000_000_000));
    let time = clock.clone();
    let time = Arc::new(move || Timestamp::from_micros(time.load(Ordering::SeqCst)));
    let choose = |builder: elasticstack_api::ServerBuilder| builder.limits(limits).clock(time);
    (Cloud::with(TestDatabase::new(), choose).await, clock)
}

/// Where a proxy is listed at the address that requests without a link come from.
fn behind_a_proxy() -> Limits {
    Limits { proxies: vec!["127.0.0.1".parse().unwrap()], ..Limits::default() }
}

/// Credentials of the customer with another key.
fn wrong(cloud: &Cloud) -> String {
    let decoded = STANDARD.decode(&cloud.basic["Basic ".len()..]).unwrap();
    let account = std::str::from_utf8(&decoded).unwrap().split_once(':').unwrap().0.to_owned();
    format!("Basic {}", STANDARD.encode(format!("{account}:{}", Uuid::new_v4())))
}

async fn ask(cloud: &Cloud, basic: &str, from: &str) -> Answer {
    let request = Request::get("/drives/list").header("Authorization", basic);
    cloud.send(request.header("X-Forwarded-For", from).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn an_account_is_told_what_it_may_still_ask_and_when_to_go_on() {
    let limits = Limits { burst: 500, per_second: 2, ..Limits::default() };
    let (cloud, clock) = limited(limits).await;
    let stranger = cloud.stranger().await;
    let mut left = 500;
    while left > 0 {
        left -= 1;
        let answer = ask(&cloud, &stranger, "").await.expect(200);
        assert_eq!(answer.header("ratelimit-limit"), "500");
        assert_eq!(answer.header("ratelimit-remaining"), left.to_string());
    }
    let refused = ask(&cloud, &stranger, "").await.expect(429);
    assert_eq!(refused.header("x-elastic-error"), "busy code=throttled");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.text().contains("2 a second, and 500 in a row"), "{}", refused.text());
    cloud.get("/drives/list").await.expect(200);
    clock.fetch_add(500_000, Ordering::SeqCst);
    let answer = ask(&cloud, &stranger, "").await.expect(200);
    assert_eq!(answer.header("ratelimit-remaining"), "0");
    assert_eq!(answer.header("ratelimit-reset"), "250");
    cloud.server.close().await;
}

#[tokio::test]
async fn guessing_is_throttled_by_address_and_the_right_key_from_elsewhere_is_not() {
    let (cloud, clock) = limited(behind_a_proxy()).await;
    let wrong = wrong(&cloud);
    let mut tries = 0;
    let refused = loop {
        let answer = ask(&cloud, &wrong, "192.0.2.1").await;
        if answer.status == 429 {
            break answer;
        }
        answer.expect(401);
        tries += 1;
        assert!(tries < 100, "nothing stops a guesser");
    };
    assert_eq!(refused.header("x-elastic-error"), "busy code=throttled");
    let wait: i64 = refused.header("retry-after").parse().unwrap();
    ask(&cloud, &cloud.basic, "192.0.2.1").await.expect(429);
    ask(&cloud, &cloud.basic, "192.0.2.1, 192.0.2.2").await.expect(200);
    ask(&cloud, &cloud.basic, "").await.expect(200);
    clock.fetch_add(wait * 1_000_000, Ordering::SeqCst);
    ask(&cloud, &cloud.basic, "192.0.2.1").await.expect(200);
    for _ in 0..100 {
        let none = Request::get("/drives/list").body(Body::empty()).unwrap();
        cloud.send(none).await.expect(401);
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn an_account_that_is_guessed_at_from_everywhere_is_open_to_who_was_never_wrong() {
    let (cloud, clock) = limited(behind_a_proxy()).await;
    let wrong = wrong(&cloud);
    let guesser = |number: u8| format!("192.0.2.{number}");
    for number in 0..100 {
        ask(&cloud, &wrong, &guesser(number)).await.expect(401);
    }
    for key in [&wrong, &cloud.basic] {
        let refused = ask(&cloud, key, &guesser(0)).await.expect(429);
        assert_eq!(refused.header("x-elastic-error"), "busy code=throttled");
        assert_eq!(refused.header("retry-after"), "3", "far less than an address waits");
    }
    ask(&cloud, &cloud.basic, "").await.expect(429);
    ask(&cloud, &cloud.basic, "198.51.100.1").await.expect(200);
    ask(&cloud, &cloud.stranger().await, &guesser(0)).await.expect(200);
    clock.fetch_add(3_000_000, Ordering::SeqCst);
    ask(&cloud, &cloud.basic, &guesser(0)).await.expect(200);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_request_is_called_in_its_answer_what_its_client_called_it() {
    let cloud = Cloud::new().await;
    for (given, kept) in [("my-trace.7", true), ("two words", false)] {
        let request = cloud.request("GET", "/drives/list").header("X-Request-Id", given);
        let answer = cloud.send(request.body(Body::empty()).unwrap()).await.expect(200);
        assert_eq!(answer.header("x-request-id") == given, kept);
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn an_address_has_so_many_requests_under_way_and_no_more() {
    let limits = Limits { requests_each: 2, ..behind_a_proxy() };
    let (cloud, _clock) = limited(limits).await;
    served(&cloud.server, async |address| {
        // Each waits for a body that does not come.
        let begin = async |from: &str| {
            let head = format!(
                "POST /profile/set HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\
                 X-Forwarded-For: {from}\r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
                cloud.basic
            );
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream
        };
        let answer = async |mut stream: TcpStream| {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            std::str::from_utf8(&answer[9..]).unwrap().to_owned()
        };
        let finish = async |mut stream: TcpStream| {
            stream.write_all(b"name same").await.unwrap();
            answer(stream).await
        };
        let (one, two) = (begin("192.0.2.1").await, begin("192.0.2.1").await);
        // Those two may not have been seen yet.
        let full = async {
            loop {
                let third = begin("192.0.2.1").await;
                let refused = tokio::time::timeout(Duration::from_millis(100), answer(third)).await;
                if let Ok(status) = refused {
                    return status;
                }
            }
        };
        assert_eq!(tokio::time::timeout(GUARD, full).await.expect("there is no limit"), "429");
        assert_eq!(finish(begin("192.0.2.2").await).await, "200", "another address is free");
        assert_eq!(finish(begin("").await).await, "200", "so is who is nobody we know");
        assert_eq!(finish(one).await, "200");
        let freed = async {
            while finish(begin("192.0.2.1").await).await != "200" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, freed).await.expect("the place stays taken");
        drop(two);
    })
    .await;
    cloud.server.close().await;
}
