//! The feed of events as a client reads it: by calls, and as a stream.

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::cloud::{Answer, GUARD};

/// One event: its cursor, and the kind and id of the object with what happened to it.
pub(crate) type Event = (String, [String; 4]);

fn event(record: &serde_json::Value) -> Event {
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
    (text("cursor"), ["object", "id", "event", "status"].map(text))
}

pub(crate) async fn ask(router: &Router, basic: &str, path: &str) -> Answer {
    let request = Request::get(path).header("Authorization", basic);
    let request = request.header("Accept", "application/json").body(Body::empty()).unwrap();
    let answer = tokio::time::timeout(GUARD, router.clone().oneshot(request));
    Answer::of(answer.await.expect("no answer").unwrap()).await
}

/// The events behind a cursor, and the cursor behind those.
pub(crate) async fn events(router: &Router, basic: &str, query: &str) -> (Vec<Event>, String) {
    let answer = ask(router, basic, &format!("/events/info{query}")).await.expect(200);
    let events = answer.json().as_array().unwrap().iter().map(event).collect();
    (events, answer.header("events-cursor").to_owned())
}

/// A stream of events, read part by part.
pub(crate) struct Feed(Body);

impl Feed {
    pub(crate) async fn open(
        router: &Router,
        basic: &str,
        query: &str,
        last: Option<&str>,
    ) -> Self {
        let mut request = Request::get(format!("/events/info{query}"))
            .header("Authorization", basic)
            .header("Accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert!(answer.headers().contains_key("x-request-id"));
        Self(answer.into_body())
    }

    /// The events of the next part, and the last id in it; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(Vec<Event>, String)> {
        let frame = tokio::time::timeout(GUARD, self.0.frame()).await.expect("no part came");
        let part = frame?.unwrap().into_data().unwrap();
        let part = std::str::from_utf8(&part).unwrap();
        assert!(part.ends_with("\n\n"), "{part:?} is cut");
        let mut last = "";
        let mut events = Vec::new();
        for line in part.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                last = id;
            } else if let Some(data) = line.strip_prefix("data: ") {
                events.push(event(&serde_json::from_str(data).unwrap()));
                assert_eq!(events.last().unwrap().0, last, "an event's id is its cursor");
            }
        }
        assert!(!last.is_empty(), "{part:?} names no place to come back to");
        Some((events, last.to_owned()))
    }
}

/// What has happened behind `cursor`, and the cursor behind that.
///
/// On PostgreSQL a transaction of anybody's, also in another database, holds up what is told. So
/// something is made to happen, and what is told before it is what had happened.
pub(crate) async fn told_since(router: &Router, basic: &str, cursor: &str) -> (Vec<Event>, String) {
    let request = Request::post("/resources/vlan/create").header("Authorization", basic);
    let made = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let made = Answer::of(made).await.expect(200);
    let marker = made.value("resource").unwrap();
    let (mut told, mut cursor) = (Vec::new(), cursor.to_owned());
    let all = async {
        loop {
            let query = format!("?after={cursor}&wait=60&limit=1");
            let (one, next) = events(router, basic, &query).await;
            if one.iter().any(|(_, what)| what[1] == marker) {
                return (told, next);
            }
            told.extend(one);
            cursor = next;
        }
    };
    tokio::time::timeout(GUARD, all).await.expect("it was never told")
}

/// The cursor behind all that has happened.
pub(crate) async fn now(router: &Router, basic: &str) -> String {
    let (_, now) = events(router, basic, "?after=now").await;
    told_since(router, basic, &now).await.1
}
