//! The one customer of a control plane within this process, and waiting.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_api::Server;
use elasticstack_core::prelude::*;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use uuid::Uuid;

const CUSTOMER: AccountId = AccountId::from_uuid(Uuid::from_u128(0xC1));
const KEY: &str = "a-key-that-only-tests-know";

/// A guard against a hang, for the slowest machine.
const GUARD: Duration = Duration::from_secs(300);

/// Makes the account.
pub(crate) async fn join(server: &Server) {
    let (name, mail) = ("customer".parse().unwrap(), "c@example.org");
    server.app().account_create(CUSTOMER, &name, mail, &Secret::new(KEY)).await.unwrap();
}

/// Asks, and takes any answer.
pub(crate) async fn ask(server: &Server, path: &str, body: impl Into<Body>) -> (u16, Vec<u8>) {
    let credentials = STANDARD.encode(format!("{CUSTOMER}:{KEY}"));
    let request = Request::post(path)
        .header("Authorization", format!("Basic {credentials}"))
        .header("Accept", "application/json")
        .body(body.into())
        .unwrap();
    let answer = tokio::time::timeout(GUARD, server.router().oneshot(request));
    let answer = answer.await.expect("no answer").unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// Asks for what is done at once.
pub(crate) async fn call(server: &Server, path: &str, body: impl Into<Body>) -> Vec<u8> {
    let (status, body) = ask(server, path, body).await;
    assert!(matches!(status, 200 | 204), "{path}: {status} {}", String::from_utf8_lossy(&body));
    body
}

/// Asks for an object, and takes one of its values.
pub(crate) async fn value(server: &Server, path: &str, body: &str, key: &str) -> String {
    let answer = call(server, path, body.to_owned()).await;
    let record: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    record[key].as_str().unwrap_or_else(|| panic!("{path}: {record}")).to_owned()
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(GUARD, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}
