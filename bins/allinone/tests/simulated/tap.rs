//! The wire between the control plane and an agent, with a count of what passes and a cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::Method;
use tokio::sync::watch;

/// Counts the messages that an agent has taken in, and keeps back what it answers from the one on
/// that is to be the last.
pub(crate) struct Tap {
    answered: watch::Sender<u64>,
    last: AtomicU64,
}

impl Tap {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { answered: watch::Sender::new(0), last: AtomicU64::new(u64::MAX) })
    }

    /// The agent's router, seen through this.
    pub(crate) fn on(self: &Arc<Self>, agent: Router) -> Router {
        agent.layer(from_fn_with_state(Arc::clone(self), pass))
    }

    /// Completes once the agent has taken in this many more messages. The answer to the last of
    /// them, and all later ones, reach nobody until [`Tap::mend`].
    pub(crate) async fn cut_after(&self, messages: u64) {
        let last = *self.answered.borrow() + messages;
        self.last.store(last, Ordering::Relaxed);
        let mut answered = self.answered.subscribe();
        answered.wait_for(|count| *count >= last).await.unwrap();
    }

    /// Answers pass again.
    pub(crate) fn mend(&self) {
        self.last.store(u64::MAX, Ordering::Relaxed);
    }
}

async fn pass(State(tap): State<Arc<Tap>>, request: Request, next: Next) -> Response {
    // A look at a drive's bytes or at a serial log changes nothing and is no step of anything.
    let counts = request.method() == Method::POST || request.uri().path() == "/v1/host";
    let response = next.run(request).await;
    if counts {
        tap.answered.send_modify(|count| *count += 1);
        if *tap.answered.borrow() >= tap.last.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
    }
    response
}
