//! What handlers take from a request: whose it is, the form it brings, the object its path names,
//! the address it comes from. Each is checked here, so that a handler can't forget to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Form, FromRequest, FromRequestParts, Path, Request};
use elasticstack_core::id::{IdKind, TypedId};
use http::HeaderMap;
use http::header::COOKIE;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Scheme;
use crate::app::App;
use crate::fault::Fault;
use crate::sessions::{Session, Token};

/// The session of a request; who is logged out is sent to log in.
pub(crate) struct LoggedIn(Arc<Session>);

impl LoggedIn {
    /// The session, for work that outlives the request.
    pub(crate) fn shared(&self) -> Arc<Session> {
        Arc::clone(&self.0)
    }
}

impl Deref for LoggedIn {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl FromRequestParts<Arc<App>> for LoggedIn {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        session_cookie(&parts.headers)
            .and_then(|token| app.sessions.find(token, Instant::now()))
            .map(Self)
            .ok_or(Fault::LoggedOut)
    }
}

/// A form of a logged-in page, whose token is right.
pub(crate) struct Sent<T> {
    pub(crate) session: LoggedIn,
    pub(crate) fields: T,
}

/// A form without fields of its own: a button.
#[derive(Deserialize)]
pub(crate) struct Button {}

#[derive(Deserialize)]
struct Envelope<T> {
    token: String,
    #[serde(flatten)]
    fields: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Sent<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Fault> {
        let (mut parts, body) = request.into_parts();
        let session = LoggedIn::from_request_parts(&mut parts, app).await?;
        let request = Request::from_parts(parts, body);
        let Form(envelope) =
            Form::<Envelope<T>>::from_request(request, app).await.map_err(|_| Fault::Forged)?;
        if session.form_token.is(&envelope.token) {
            Ok(Self { session, fields: envelope.fields })
        } else {
            Err(Fault::Forged)
        }
    }
}

/// The object that a path names. What is no id names nothing.
pub(crate) struct Named<K>(pub(crate) TypedId<K>);

impl<K: IdKind + Send + 'static> FromRequestParts<Arc<App>> for Named<K> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let Path(text) = path.map_err(|_| Fault::Missing)?;
        text.parse().map(Self).map_err(|_| Fault::Missing)
    }
}

/// Where a request comes from: its peer, or what a proxy that we believe says of its own.
pub(crate) struct Origin(pub(crate) IpAddr);

impl FromRequestParts<Arc<App>> for Origin {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Fault> {
        // Without a peer (served on no socket) all requests count as one address.
        let peer = ConnectInfo::<SocketAddr>::from_request_parts(parts, app)
            .await
            .map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| peer.ip().to_canonical());
        Ok(Self(origin(&parts.headers, peer, &app.proxies)))
    }
}

fn origin(headers: &HeaderMap, peer: IpAddr, proxies: &[IpAddr]) -> IpAddr {
    if !proxies.contains(&peer) {
        return peer;
    }
    // Each proxy adds the address it was asked from at the end; the client wrote the rest.
    let lines =
        headers.get_all("x-forwarded-for").into_iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    hops.iter()
        .rev()
        .map_while(|hop| hop.parse::<IpAddr>().ok())
        .find(|hop| !proxies.contains(hop))
        .unwrap_or(peer)
}

const NAME: &str = "session";

/// The token in a request's cookie.
pub(crate) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))
}

/// The cookie that keeps a browser logged in until it is closed.
pub(crate) fn cookie(token: &Token, scheme: Scheme) -> String {
    format!("{NAME}={}; {}", token.expose(), attributes(scheme))
}

/// The cookie that ends a session in the browser.
pub(crate) fn ended_cookie(scheme: Scheme) -> String {
    format!("{NAME}=; Max-Age=0; {}", attributes(scheme))
}

fn attributes(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "Path=/; HttpOnly; SameSite=Strict",
        Scheme::Https => "Path=/; HttpOnly; SameSite=Strict; Secure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_proxy_is_believed_about_the_origin() {
        let [proxy, client, other] =
            ["10.0.0.1", "192.0.2.7", "192.0.2.8"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "203.0.113.9, 192.0.2.7, 10.0.0.1".parse().unwrap());
        assert_eq!(origin(&headers, other, &[proxy]), other, "the header is the client's own");
        assert_eq!(origin(&headers, proxy, &[proxy]), client, "the last that is no proxy");
        assert_eq!(origin(&headers, proxy, &[]), proxy);
        headers.insert("x-forwarded-for", "nonsense".parse().unwrap());
        assert_eq!(origin(&headers, proxy, &[proxy]), proxy);
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "theme=dark; session=abc; sessions=no".parse().unwrap());
        assert_eq!(session_cookie(&headers), Some("abc"));
        headers.insert(COOKIE, "sessions=no".parse().unwrap());
        assert_eq!(session_cookie(&headers), None);
    }
}
