//! Who gets in, whose forms count, and what a page never shows.

use std::io;
use std::sync::{Arc, Mutex};

use elasticstack_core::client::HyperTransport;
use elasticstack_core::wire::record::Record;
use http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use http::{HeaderName, Method, StatusCode};

use crate::api::{ACCOUNT, Api, KEY};
use crate::browser::Browser;

const ID: &str = "5b0e3c52-0000-4000-8000-000000000001";

/// Every page that needs a session, by method.
fn private() -> Vec<(Method, String)> {
    let mut all = vec![(Method::POST, "/logout".to_owned())];
    for path in ["/servers", "/drives", "/servers/create"] {
        all.push((Method::GET, path.to_owned()));
    }
    all.push((Method::POST, "/servers/create".to_owned()));
    for path in ["", "/serial", "/destroy"] {
        all.push((Method::GET, format!("/servers/{ID}{path}")));
    }
    for action in ["start", "shutdown", "stop", "reset", "destroy"] {
        all.push((Method::POST, format!("/servers/{ID}/{action}")));
    }
    for action in ["destroy", "build"] {
        all.push((Method::GET, format!("/drives/{ID}/{action}")));
        all.push((Method::POST, format!("/drives/{ID}/{action}")));
    }
    all
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_login_and_asks_the_api_nothing() {
    let api = Api::new();
    for cookie in ["", "session=", "session=0000"] {
        for (method, path) in private() {
            let mut browser = Browser::new(&api);
            browser.cookie = cookie.to_owned();
            let from_us = [(ORIGIN, "http://panel.test"), (HOST, "panel.test")];
            let page = browser.send(method.clone(), &path, "token=x", &from_us).await;
            assert_eq!(page.status, StatusCode::SEE_OTHER, "{method} {path}");
            assert_eq!(page.location(), "/login", "{method} {path}");
        }
    }
    assert!(api.state().calls.is_empty());
}

#[tokio::test]
async fn a_form_that_is_not_ours_changes_nothing() {
    let api = Api::new();
    api.has_server("web", "active");
    let mut browser = Browser::logged_in(&api).await;
    let token = browser.get("/drives").await.token().to_owned();
    let before = api.state().calls.len();
    let ours = [(ORIGIN, "http://panel.test"), (HOST, "panel.test")];
    let theirs = [(ORIGIN, "http://evil.test"), (HOST, "panel.test")];
    let fetch = HeaderName::from_static("sec-fetch-site");
    let cross = [(fetch, "cross-site"), (ORIGIN, "http://panel.test"), (HOST, "panel.test")];
    for (method, path) in private() {
        if method == Method::GET {
            continue;
        }
        let right = format!("token={token}");
        for (body, headers) in [
            (right.as_str(), theirs.as_slice()),
            (right.as_str(), cross.as_slice()),
            (right.as_str(), &[]),
            ("token=wrong", ours.as_slice()),
            ("", ours.as_slice()),
        ] {
            let page = browser.send(Method::POST, &path, body, headers).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{path} {body} {headers:?}");
            page.shows("This form was not sent from here");
        }
    }
    assert_eq!(api.state().calls.len(), before, "the API was asked for something");
    browser.get("/servers").await.shows("web");
}

#[tokio::test]
async fn a_token_of_one_session_is_worth_nothing_in_another() {
    let api = Api::new();
    let (mut one, mut two) = (Browser::logged_in(&api).await, Browser::new(&api));
    let token = one.get("/drives").await.token().to_owned();
    two.log_in(KEY).await;
    let page = two.post("/logout", &[("token", &token)]).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn hostile_names_are_text() {
    let api = Api::new();
    let hostile = "<script>alert(1)</script>\"'><img src=x>";
    let server = api.has_server(hostile, "<b>odd</b>");
    let drive = Record::new().with("name", hostile).with("failed", hostile);
    let drive = api.has_drive(&drive.with("user:panel:cpu", 1));
    let mut browser = Browser::logged_in(&api).await;
    for path in [
        "/servers".to_owned(),
        "/drives".to_owned(),
        "/servers/create".to_owned(),
        format!("/servers/{server}"),
        format!("/servers/{server}/serial"),
        format!("/servers/{server}/destroy"),
        format!("/drives/{drive}/destroy"),
        format!("/drives/{drive}/build"),
    ] {
        let page = browser.get(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        for raw in ["<script", "<img src=x", "<b>", "<i>", "\"'>"] {
            page.hides(raw);
        }
        if path != "/servers/create" {
            page.shows("&lt;script&gt;");
        }
        page.shows("Ann &lt;b&gt;");
    }
}

#[tokio::test]
async fn a_wrong_key_says_so_and_ten_of_them_wait() {
    let api = Api::new();
    let mut browser = Browser::new(&api);
    for _ in 0..10 {
        let page = browser.log_in("wrong").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        page.shows("The account or its key is wrong.");
        page.shows(ACCOUNT);
        page.hides("wrong\"");
    }
    let asked = api.state().calls.len();
    let page = browser.log_in(KEY).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "the right one waits too");
    page.shows("Wait 5 min");
    assert_eq!(api.state().calls.len(), asked);
}

#[tokio::test]
async fn logging_out_ends_the_session_on_the_panels_side() {
    let mut browser = Browser::logged_in(&Api::new()).await;
    let cookie = browser.cookie.clone();
    assert_eq!(browser.submit("/logout", &[]).await.location(), "/login");
    browser.cookie = cookie;
    assert_eq!(browser.get("/servers").await.location(), "/login");
}

#[tokio::test]
async fn every_answer_tells_the_browser_to_run_and_frame_nothing() {
    let mut browser = Browser::logged_in(&Api::new()).await;
    for path in ["/servers", "/login", "/nowhere", "/style.css", "/logo.svg", "/servers/x"] {
        let page = browser.get(path).await;
        let header = |name: &str| page.headers[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        if !path.contains('.') {
            assert_eq!(header("cache-control"), "no-store", "{path}");
            for inline in [" style=", "<style", "<script", " onclick="] {
                page.hides(inline);
            }
        }
    }
    assert_eq!(browser.get("/nowhere").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_api_out_of_reach_is_said_without_its_address() {
    let nowhere = Arc::new(HyperTransport::new("http://127.0.0.1:1").unwrap());
    let page = Browser::over(nowhere).log_in(KEY).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    page.shows("The cloud can&#39;t be reached at the moment");
    page.hides("127.0.0.1");
}

/// Collects what the panel logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn keys_and_session_tokens_stand_in_no_page_and_no_log() {
    let log = Log::default();
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || lines.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let api = Api::new();
    let mut browser = Browser::new(&api);
    let mut pages = vec![browser.log_in(&format!("{KEY}x")).await];
    let entered = browser.log_in(KEY).await;
    let cookie = entered.headers[SET_COOKIE].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let away = elasticstack_core::error::ErrorKind::Unavailable;
    api.state().refusals.insert("/drives/info/standard", (away, "away"));
    for path in ["/servers", "/drives", "/servers/create", "/login"] {
        pages.push(browser.get(path).await);
    }
    let session = browser.cookie.strip_prefix("session=").unwrap();
    assert_eq!(session.len(), 64, "{COOKIE} has 256 bits");
    for page in &pages {
        page.hides(KEY);
        page.hides(session);
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("the API refused"), "the log is empty: {log}");
    assert!(!log.contains(KEY) && !log.contains(session), "{log}");
}
