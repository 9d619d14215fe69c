//! The tasks of a fleet: each ends when the fleet does, and is joined.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks that end with all others of the same set.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs `future` until it completes or the set is closed, at whichever await that finds it.
    pub(super) fn spawn<F>(&self, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = future => {}
            }
        });
    }

    /// Ends every task, and what is spawned later at once.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends every task and waits until none is left.
    pub(super) async fn close(&self) {
        self.stop();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Lets hyper run its own tasks in the set.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}
