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
    /// A set of its own within this one, which ends with it or before it.
    pub(super) fn branch(&self) -> Self {
        Self { tracker: self.tracker.clone(), stop: self.stop.child_token() }
    }

    /// Runs `future` until it completes or the set is closed, at whichever await that finds it.
    ///
    /// Once the set is closed it is not polled again: it shall not see another of the set, such as
    /// the connection it waits on, end before it, and take that for a failure.
    pub(super) fn spawn<F>(&self, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stop = self.stop.clone();
        // In the box it is moved about without another place kept for it each time.
        let future = Box::pin(future);
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn no_task_sees_another_of_its_set_end_before_it() {
        // Chance would have to be kind a hundred times.
        for _ in 0..100 {
            let tasks = Tasks::default();
            let (waits, saw) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
            let (connection, broken) = tokio::sync::oneshot::channel::<()>();
            tasks.spawn(async move {
                let _open = connection;
                std::future::pending::<()>().await;
            });
            let (waiting, seen) = (Arc::clone(&waits), Arc::clone(&saw));
            tasks.spawn(async move {
                waiting.notify_one();
                let _ = broken.await;
                seen.store(true, Ordering::Relaxed);
            });
            waits.notified().await;
            tasks.close().await;
            assert!(!saw.load(Ordering::Relaxed), "it took the end for a failure");
        }
    }
}
