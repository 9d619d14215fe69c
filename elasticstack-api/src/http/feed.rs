//! The feed of events as a stream that does not end: server-sent events, as `EventSource` reads them.
//!
//! ```text
//!  id: CURSOR          one event each; who comes back names the last id it has in Last-Event-ID
//!  data: {JSON}
//!
//!  : nothing new       every 15 s without an event, with the cursor to come back with
//!  id: CURSOR
//! ```
//! Invariants: a stream lasts no longer than what its caller proved himself with, and ends with the
//! server; it reads on only as its client does, so that a slow one takes no memory.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{Effect, Route, Scope};
use elasticstack_core::wire::keys::Object;
use futures_util::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Credentials;
use crate::app::{App, BATCH, Events, Follower, Whose};

/// After how long without an event a client is told that there is none.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The media type of a stream.
pub(super) const MEDIA_TYPE: &str = "text/event-stream";

struct Feed {
    app: Arc<App>,
    credentials: Credentials,
    scope: Scope,
    follower: Follower,
    /// What is known and not told yet.
    next: Option<Events>,
    beat: Instant,
    end: CancellationToken,
}

/// The events of those from behind the cursor `after` on, and all that are still to happen.
///
/// # Errors
/// `InvalidValue` for what is no cursor; `CursorLost` for one from before what is kept;
/// `Throttled` beside too many others.
pub(super) async fn open(
    app: &Arc<App>,
    route: &Route,
    whose: Whose,
    after: Option<&str>,
    credentials: Credentials,
    end: CancellationToken,
) -> Result<Body> {
    let mut follower = app.follow(whose, after).await?;
    let next = Some(app.look(&mut follower, BATCH).await?);
    let (app, beat, scope) = (Arc::clone(app), Instant::now() + HEARTBEAT, route.scope);
    let feed = Feed { app, credentials, scope, follower, next, beat, end };
    Ok(Body::from_stream(stream::unfold(feed, |mut feed| async {
        let told = feed.told().await?;
        Some((Ok::<_, Infallible>(told), feed))
    })))
}

impl Feed {
    /// The next part of the stream; `None` at its end.
    async fn told(&mut self) -> Option<Bytes> {
        let events = match self.next.take() {
            Some(events) => events,
            None => self.awaited().await?,
        };
        if events.records.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX) {
            self.next = Some(self.looked().await?);
        }
        self.beat = Instant::now() + HEARTBEAT;
        Some(text(&events).into())
    }

    /// What happens next, or nothing if that takes long.
    async fn awaited(&mut self) -> Option<Events> {
        loop {
            let is_late = tokio::select! {
                () = self.end.cancelled() => return None,
                () = self.follower.woken() => false,
                () = tokio::time::sleep_until(self.beat) => true,
            };
            let events = self.looked().await?;
            if is_late || !events.records.is_empty() {
                return Some(events);
            }
        }
    }

    /// What has happened, unless the caller may hear of it no more.
    async fn looked(&mut self) -> Option<Events> {
        let looked = async {
            let caller = self.credentials.caller(&self.app).await?;
            caller.covers(self.scope, Effect::Reads)?;
            self.app.look(&mut self.follower, BATCH).await
        };
        let ended = |error| tracing::debug!(error = %Chain(&error), "a stream of events ended");
        looked.await.map_err(ended).ok()
    }
}

fn text(events: &Events) -> String {
    let mut text = String::new();
    for record in &events.records {
        let cursor = record.value("cursor").unwrap_or_default();
        let _ = write!(text, "id: {cursor}\ndata: {}\n\n", record.to_json(Object::Event));
    }
    if events.records.is_empty() {
        let _ = write!(text, ": nothing new\nid: {}\n\n", events.cursor);
    }
    text
}
