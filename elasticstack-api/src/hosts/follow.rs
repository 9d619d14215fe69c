//! The two tasks of one host: intent goes down, reports come up.
//!
//! Both may be cut off at any await and begun again: a document that is sent twice and a report
//! that is taken in twice change nothing. There are as many of them as hosts, and nearly all only
//! wait: what they do then is in a box that is there for as long as it is done.

use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::error::{Chain, Error, Result};
use elasticstack_core::wire::internal::Cursor;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::HostClient;
use crate::app::App;

/// How many documents go in one request.
const BATCH: u32 = 64;

/// How often a host that answers is noted as such.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// How often it is noted how far a host's reports are taken in. What it said since then is asked
/// for again by whoever follows it next, and that is how the objects that changed are now.
const NOTE: Duration = Duration::from_secs(60);

/// The least time from one report without news to the next question, should a host not wait.
const NO_NEWS: Duration = Duration::from_millis(100);

/// Sends the host its documents, now and whenever `call` says that there are any.
pub(super) async fn push(app: Arc<App>, client: Arc<HostClient>, call: Arc<Notify>) {
    let mut outages = Outages::new("sending intent to a host");
    loop {
        match Box::pin(push_all(&app, &client)).await {
            Ok(()) => {
                outages.over();
                call.notified().await;
            }
            Err(error) => outages.wait_after(&error).await,
        }
    }
}

async fn push_all(app: &App, client: &HostClient) -> Result<()> {
    loop {
        let documents = app.outbox(client.id(), BATCH).await?;
        if documents.is_empty() {
            return Ok(());
        }
        let accepted = client.documents(documents.clone()).await?;
        if accepted.ignored > 0 {
            let (host_id, ignored) = (client.id(), accepted.ignored);
            tracing::warn!(
                %host_id,
                ignored,
                "the host had newer documents: was a backup brought back without \
                 `elasticstack-api restore`?"
            );
        }
        app.delivered(client.id(), &documents).await?;
        if documents.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
            // What was written down since then has called for itself.
            return Ok(());
        }
    }
}

/// Takes in what the host reports, for as long as it exists.
pub(super) async fn follow(app: Arc<App>, client: Arc<HostClient>) {
    let mut outages = Outages::new("following a host");
    loop {
        let Err(error) = follow_while_it_answers(&app, &client, &mut outages).await;
        outages.wait_after(&error).await;
    }
}

async fn follow_while_it_answers(
    app: &App,
    client: &HostClient,
    outages: &mut Outages,
) -> Result<std::convert::Infallible> {
    let mut cursor = Box::pin(greet(app, client)).await?;
    let (mut heard, mut noted, mut noted_at) = (Instant::now(), cursor.clone(), Instant::now());
    loop {
        let asked = Instant::now();
        let reports = client.reports(cursor.clone()).await?;
        if reports.objects.is_empty() && cursor.as_ref() == Some(&reports.next) {
            tokio::time::sleep_until(asked + NO_NEWS).await;
        } else {
            Box::pin(app.ingest(client.id(), &reports)).await?;
        }
        outages.over();
        if heard.elapsed() >= SIGN_OF_LIFE {
            Box::pin(still_answers(app, client)).await?;
            heard = Instant::now();
        }
        if noted_at.elapsed() >= NOTE && noted.as_ref() != Some(&reports.next) {
            Box::pin(app.taken_in(client.id(), &reports.next)).await?;
            (noted, noted_at) = (Some(reports.next.clone()), Instant::now());
        }
        cursor = Some(reports.next);
    }
}

/// Takes in what the host is, and after a restore what it has; answers how far its reports are read.
async fn greet(app: &App, client: &HostClient) -> Result<Option<Cursor>> {
    let report = client.host().await?;
    app.host_answered(client.id(), &report).await?;
    if app.is_unheard(client.id()).await? {
        app.take_stock(client.id(), &report, &client.stock().await?).await?;
    }
    app.cursor(client.id()).await
}

async fn still_answers(app: &App, client: &HostClient) -> Result<()> {
    app.host_still_answers(client.id(), &client.host().await?).await
}

/// One line in the log when something begins to fail and one when it works again, and longer and
/// longer pauses between.
#[derive(Debug)]
pub(super) struct Outages {
    what: &'static str,
    failures: u32,
}

impl Outages {
    const FIRST_PAUSE: Duration = Duration::from_millis(100);
    const LONGEST_PAUSE: Duration = Duration::from_secs(5);

    pub(super) const fn new(what: &'static str) -> Self {
        Self { what, failures: 0 }
    }

    /// It failed.
    pub(super) fn note(&mut self, error: &Error) {
        if self.failures == 0 {
            tracing::error!(what = self.what, error = %Chain(error), "failed, tried until it works");
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// It failed, and is not to be tried again at once.
    pub(super) async fn wait_after(&mut self, error: &Error) {
        self.note(error);
        tokio::time::sleep(self.pause()).await;
    }

    /// It worked.
    pub(super) fn over(&mut self) {
        if self.failures > 0 {
            tracing::info!(what = self.what, failures = self.failures, "works again");
        }
        self.failures = 0;
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(10);
        (Self::FIRST_PAUSE * 2_u32.pow(doublings)).min(Self::LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::error::ErrorKind;

    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_success() {
        let mut outages = Outages::new("test");
        let error = Error::new(ErrorKind::Unavailable, "no");
        let mut last = Duration::ZERO;
        for _ in 0..100 {
            outages.note(&error);
            assert!(outages.pause() >= last && outages.pause() <= Outages::LONGEST_PAUSE);
            last = outages.pause();
        }
        assert_eq!(last, Outages::LONGEST_PAUSE);
        outages.over();
        outages.note(&error);
        assert_eq!(outages.pause(), Outages::FIRST_PAUSE);
    }
}
