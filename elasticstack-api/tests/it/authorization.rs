//! Who is let through, for every call of the table. A new call is covered by its row alone; a call
//! on a new kind of object fails here until [`Possessions`] has one.
//!
//! That a repeated `Idempotency-Key` changes nothing twice is a walk of the same table in `once`.

use std::time::SystemTime;

use axum::body::Body;
use elasticstack_api::ServerBuilder;
use elasticstack_api::http::Limits;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{CALLS, Effect, Route, Scope, path};
use elasticstack_core::wire::headers::refusal_headers;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::parameters::Names;
use http::Request;

use crate::cloud::{Answer, Cloud};
use crate::database::TestDatabase;

const NOBODY: &str = "Basic N2YwMDAwMDEtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAxOmtleQ==";

const NOTHING: &str = "3d6a2f10-0000-4000-8000-00000000b001";

/// One object of each kind that customers have.
struct Possessions {
    drive: String,
    server: String,
    vlan: String,
    token: String,
    snapshot: String,
}

impl Possessions {
    async fn of(cloud: &Cloud) -> Self {
        let vlan = cloud.post("/resources/vlan/create", "name v").await.expect(200);
        let vlan = vlan.value("resource").unwrap().to_owned();
        let token = cloud.post("/tokens/create", "name t").await.expect(200);
        let token = token.value("token").unwrap().to_owned();
        let (drive, server) = (cloud.drive().await, cloud.stopped_server().await);
        let snapshot = cloud.snapshot(&drive).await;
        Self { drive, server, vlan, token, snapshot }
    }

    fn id(&self, object: Object, host: &str) -> String {
        match object {
            Object::Drive => self.drive.clone(),
            Object::Server => self.server.clone(),
            Object::Host => host.to_owned(),
            Object::Resource => self.vlan.clone(),
            Object::Account | Object::Array | Object::Pool | Object::Stray => NOTHING.to_owned(),
            Object::Token => self.token.clone(),
            Object::Snapshot => self.snapshot.clone(),
            Object::Capabilities
            | Object::Capacity
            | Object::Console
            | Object::Download
            | Object::Event
            | Object::Profile
            | Object::Sum
            | Object::Usage => {
                unreachable!("no path names a {object:?}")
            }
        }
    }

    fn owns(&self, text: &str) -> bool {
        let ids = [&self.drive, &self.server, &self.vlan, &self.token, &self.snapshot];
        ids.iter().any(|id| text.contains(*id))
    }
}

/// The route's path with what `id` says for each parameter that names an object, by its position
/// among those.
fn spelled(route: &Route, id: impl Fn(usize, Object) -> String) -> String {
    let mut position = 0..;
    let parameters: Vec<String> = route
        .parameters()
        .map(|parameter| match parameter.names {
            Names::Object(object) => id(position.next().unwrap(), object),
            Names::OneOf(words) => words.last().unwrap().to_string(),
            Names::Amount | Names::Size => "4096".to_owned(),
        })
        .collect();
    path(route.call, &parameters.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The path of a route that names no object.
fn plain(route: &Route) -> String {
    spelled(route, |_, object| unreachable!("{}: {object:?}", route.path))
}

fn objects(route: &Route) -> usize {
    route.parameters().filter(|parameter| matches!(parameter.names, Names::Object(_))).count()
}

async fn call(cloud: &Cloud, path: &str, basic: Option<&str>) -> Answer {
    let mut request = Request::builder().method("POST").uri(path);
    if let Some(basic) = basic {
        request = request.header("Authorization", basic);
    }
    cloud.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_call_is_refused_without_credentials() {
    let cloud = Cloud::new().await;
    let (own, host) = (Possessions::of(&cloud).await, cloud.host.to_string());
    for route in CALLS.iter() {
        let path = spelled(route, |_, object| own.id(object, &host));
        for basic in [None, Some("Basic"), Some("Bearer x"), Some(NOBODY)] {
            let answer = call(&cloud, &path, basic).await;
            assert_eq!(answer.status, 401, "{path} with {basic:?}: {answer:?}");
            assert_eq!(answer.header("x-elastic-error"), "auth code=bad_credentials", "{path}");
            assert!(answer.header("www-authenticate").starts_with("Basic "), "{path}");
            assert!(!own.owns(answer.text()), "{path}");
        }
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn every_call_on_anothers_object_is_refused_as_if_it_were_missing() {
    let mut cloud = Cloud::new().await;
    let (owners, host) = (Possessions::of(&cloud).await, cloud.host.to_string());
    let stranger = cloud.stranger().await;
    let owner = std::mem::replace(&mut cloud.basic, stranger.clone());
    let strangers = Possessions::of(&cloud).await;
    cloud.basic = owner;
    let before = everything(&cloud).await;
    for route in CALLS.iter().filter(|route| route.scope == Scope::Customer) {
        // Each object of the path in turn is another's, the rest are the caller's own.
        for anothers in 0..objects(route) {
            let path = spelled(route, |position, object| {
                let whose = if position == anothers { &owners } else { &strangers };
                whose.id(object, &host)
            });
            let answer = call(&cloud, &path, Some(&stranger)).await;
            assert_eq!(answer.status, 404, "{path}: {answer:?}");
            let error = answer.header("x-elastic-error");
            assert!(error.starts_with("missing code=not_found"), "{path}: {error}");
            assert!(!owners.owns(answer.text()), "{path}: {}", answer.text());
        }
        if objects(route) == 0 {
            let answer = call(&cloud, &plain(route), Some(&stranger)).await;
            assert!(!owners.owns(answer.text()), "{}: {}", route.path, answer.text());
            let is_served = answer.status == 200;
            assert!(is_served || route.effect == Effect::Changes, "{}: {answer:?}", route.path);
        }
    }
    assert_eq!(everything(&cloud).await, before, "a stranger changed something");
    cloud.server.close().await;
}

#[tokio::test]
async fn every_call_of_operators_is_refused_to_customers() {
    let cloud = Cloud::new().await;
    let host = cloud.host.to_string();
    for route in CALLS.iter().filter(|route| route.scope == Scope::Operator) {
        let path = spelled(route, |_, object| match object {
            Object::Host => host.clone(),
            Object::Account | Object::Array | Object::Pool | Object::Stray => NOTHING.to_owned(),
            other => unreachable!("{}: no {other:?} is an operator's", route.path),
        });
        let answer = call(&cloud, &path, Some(&cloud.basic)).await;
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
        assert_eq!(answer.header("x-elastic-error"), "quota code=out_of_scope", "{path}");
        assert!(!answer.text().contains(&host), "{path}");
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn every_answer_has_the_headers_that_its_documentation_promises() {
    let cloud = Cloud::new().await;
    let (own, host) = (Possessions::of(&cloud).await, cloud.host.to_string());
    for route in CALLS.iter() {
        let path = spelled(route, |_, object| own.id(object, &host));
        let basic = match route.scope {
            Scope::Customer => &cloud.basic,
            Scope::Operator => &cloud.operator,
        };
        let answer = call(&cloud, &path, Some(basic)).await;
        let promised: Vec<_> = if answer.status < 300 {
            route.answer_headers().collect()
        } else {
            refusal_headers(answer.status).map(|(header, _)| (header, true)).collect()
        };
        assert!(promised.len() >= 4, "{path}");
        for (header, _) in promised.iter().filter(|(_, always)| *always) {
            assert!(!answer.header(header.name).is_empty(), "{path}: {}: {answer:?}", header.name);
        }
        let unknown = call(&cloud, &path, Some(NOBODY)).await.expect(401);
        for (header, _) in refusal_headers(401).filter(|(_, always)| *always) {
            assert!(!unknown.header(header.name).is_empty(), "{path}: {}", header.name);
        }
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn no_call_is_served_to_who_has_called_too_often() {
    let limits = Limits { burst: 100, per_second: 1, ..Limits::default() };
    let now = Timestamp::from(SystemTime::now());
    let choose =
        |builder: ServerBuilder| builder.limits(limits).clock(std::sync::Arc::new(move || now));
    let cloud = Cloud::with(TestDatabase::new(), choose).await;
    while call(&cloud, "/drives/list", Some(&cloud.operator)).await.status != 429 {}
    for route in CALLS.iter() {
        let path = spelled(route, |_, _| NOTHING.to_owned());
        let refused = call(&cloud, &path, Some(&cloud.operator)).await.expect(429);
        assert_eq!(refused.header("retry-after"), "1", "{path}");
    }
    cloud.server.close().await;
}

/// What the owner sees of all that customers have.
async fn everything(cloud: &Cloud) -> String {
    let mut seen = String::new();
    let reads = |route: &&Route| {
        route.effect == Effect::Reads && route.scope == Scope::Customer && objects(route) == 0
    };
    for route in CALLS.iter().filter(reads) {
        seen += cloud.get(&plain(route)).await.expect(200).text();
    }
    seen
}
