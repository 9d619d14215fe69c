//! The API's own description, as it is served.

use axum::body::Body;
use elasticstack_core::wire::calls::CALLS;
use http::Request;

use crate::cloud::{Answer, Cloud};

async fn read(cloud: &Cloud, method: &str, path: &str) -> Answer {
    cloud.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_description_is_read_without_credentials() {
    let cloud = Cloud::new().await;
    let machines = read(&cloud, "GET", "/openapi.json").await.expect(200);
    assert_eq!(machines.header("content-type"), "application/json");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let golden = std::fs::read_to_string(golden).unwrap();
    assert_eq!(machines.json(), serde_json::from_str::<serde_json::Value>(&golden).unwrap());

    let people = read(&cloud, "GET", "/docs").await.expect(200);
    assert_eq!(people.header("content-type"), "text/html; charset=utf-8");
    for route in CALLS.iter() {
        assert!(people.text().contains(route.path), "{}", route.path);
    }
    for path in ["/openapi.json", "/docs"] {
        let refused = read(&cloud, "POST", path).await.expect(405);
        assert_eq!(refused.header("allow"), "GET, HEAD");
        assert_eq!(refused.header("x-elastic-error"), "method code=method_not_allowed");
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn the_page_runs_no_script_and_loads_nothing() {
    let cloud = Cloud::new().await;
    let page = read(&cloud, "GET", "/docs").await.expect(200);
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for forbidden in [
        "<script",
        "javascript:",
        "src=",
        "<link",
        "@import",
        "url(",
        " style=",
        " on",
        "http://",
        "https://",
    ] {
        let tags = page.text().split('<').filter_map(|part| part.split('>').next());
        let found: Vec<_> = tags.filter(|tag| format!("<{tag}").contains(forbidden)).collect();
        assert!(found.is_empty(), "{forbidden}: {found:?}");
    }
    cloud.server.close().await;
}
