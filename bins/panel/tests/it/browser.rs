//! A browser without a screen: it keeps the cookie and sends what browsers send.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use elasticstack_core::client::Transport;
use elasticstack_panel::Panel;
use http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::api::{ACCOUNT, Api, KEY};

/// What came back.
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) html: String,
}

impl Page {
    pub(crate) fn location(&self) -> &str {
        self.headers.get(LOCATION).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        assert!(self.html.contains(text), "no {text:?} in {} {}", self.status, self.html);
    }

    #[track_caller]
    pub(crate) fn hides(&self, text: &str) {
        assert!(!self.html.contains(text), "{text:?} in {} {}", self.status, self.html);
    }

    /// The token of the page's forms.
    pub(crate) fn token(&self) -> &str {
        self.hidden("token")
    }

    /// What the page's forms send along unseen.
    pub(crate) fn hidden(&self, name: &str) -> &str {
        let (_, rest) = self.html.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
        rest.split_once('"').unwrap().0
    }
}

#[derive(Clone)]
pub(crate) struct Browser {
    panel: Arc<Panel>,
    router: Router,
    pub(crate) cookie: String,
}

impl Browser {
    pub(crate) fn new(api: &Arc<Api>) -> Self {
        Self::over(Arc::<Api>::clone(api))
    }

    pub(crate) fn over(api: Arc<dyn Transport>) -> Self {
        let panel = Arc::new(Panel::builder(api).build().unwrap());
        Self { router: panel.router(), panel, cookie: String::new() }
    }

    pub(crate) async fn logged_in(api: &Arc<Api>) -> Self {
        let mut browser = Self::new(api);
        let page = browser.log_in(KEY).await;
        assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/servers"));
        browser
    }

    pub(crate) async fn log_in(&mut self, key: &str) -> Page {
        self.post("/login", &[("account", ACCOUNT), ("key", key)]).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Page {
        self.send(Method::GET, path, "", &[]).await
    }

    /// Sends a form as it is.
    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace(' ', "+")))
            .collect();
        let headers = [(ORIGIN, "http://panel.test"), (HOST, "panel.test")];
        self.send(Method::POST, path, &fields.join("&"), &headers).await
    }

    /// Sends a form of a page we were shown: with the session's token.
    pub(crate) async fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.get("/drives").await;
        let mut all = vec![("token", page.token())];
        all.extend(fields);
        self.post(path, &all).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: &str,
        headers: &[(http::HeaderName, &str)],
    ) -> Page {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(COOKIE, &self.cookie)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        if let Some(cookie) = parts.headers.get(SET_COOKIE) {
            self.cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        let html = body.collect().await.unwrap().to_bytes().to_vec();
        Page {
            status: parts.status,
            headers: parts.headers,
            html: String::from_utf8(html).unwrap(),
        }
    }

    /// Ends the work behind the pages, as a restart does.
    pub(crate) async fn close_panel(&self) {
        self.panel.close().await;
    }
}
