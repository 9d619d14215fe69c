//! Who is let through, for every call of the table. A new call is covered by its row alone; a call
//! on a new kind of object fails here until [`Possessions`] has one.
//!
//! That a repeated `Idempotency-Key` changes nothing twice belongs here too, as a walk of the same
//! table.

use axum::body::Body;
use elasticstack_core::wire::calls::{CALLS, Effect, Route, Scope, path};
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::parameters::Names;
use http::Request;

use crate::cloud::{Answer, Cloud};

const NOBODY: &str = "Basic N2YwMDAwMDEtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAxOmtleQ==";

/// One object of each kind that customers have.
struct Possessions {
    drive: String,
    server: String,
}

impl Possessions {
    async fn of(cloud: &Cloud) -> Self {
        Self { drive: cloud.drive().await, server: cloud.stopped_server().await }
    }

    fn id(&self, object: Object, host: &str) -> String {
        match object {
            Object::Drive => self.drive.clone(),
            Object::Server => self.server.clone(),
            Object::Host => host.to_owned(),
            Object::Profile => unreachable!("a profile has no id"),
        }
    }

    fn owns(&self, text: &str) -> bool {
        text.contains(&self.drive) || text.contains(&self.server)
    }
}

/// The route's path with what `id` says for each parameter that names an object, by its position.
fn spelled(route: &Route, id: impl Fn(usize, Object) -> String) -> String {
    let parameters: Vec<String> = route
        .parameters()
        .enumerate()
        .map(|(position, parameter)| match parameter.names {
            Names::Object(object) => id(position, object),
            Names::Size => "4096".to_owned(),
        })
        .collect();
    path(route.call, &parameters.iter().map(String::as_str).collect::<Vec<_>>())
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
    for route in CALLS {
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
        if objects(route) == 0 && route.effect == Effect::Reads {
            let answer = call(&cloud, route.path, Some(&stranger)).await.expect(200);
            assert!(!owners.owns(answer.text()), "{}: {}", route.path, answer.text());
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
            other => unreachable!("{}: no {other:?} is an operator's", route.path),
        });
        let answer = call(&cloud, &path, Some(&cloud.basic)).await;
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
        assert_eq!(answer.header("x-elastic-error"), "quota code=out_of_scope", "{path}");
        assert!(!answer.text().contains(&host), "{path}");
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
        seen += cloud.get(route.path).await.expect(200).text();
    }
    seen
}
