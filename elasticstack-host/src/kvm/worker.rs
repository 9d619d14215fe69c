//! The thread that serves a device while its driver has it set up.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::mmio::Serving;

/// A thread that serves a device. Dropped, it ends; what was under way is given up.
#[derive(Debug)]
pub(super) struct Worker {
    bell: Arc<Notify>,
    ended: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts what `serve` makes; the bell rings when the driver has given something. That the driver
    /// breaks its queue ends the work, and the device does nothing more until it is reset.
    pub(super) fn start<S, F>(name: &'static str, serve: S) -> Option<Box<dyn Serving>>
    where
        S: FnOnce(Arc<Notify>) -> F + Send + 'static,
        F: Future<Output = Result<(), virtio_queue::Error>>,
    {
        let (bell, ended) = (Arc::new(Notify::new()), CancellationToken::new());
        let (rings, end) = (Arc::clone(&bell), ended.clone());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    let served = end.run_until_cancelled(serve(rings));
                    if let Some(Err(error)) = runtime.block_on(served) {
                        tracing::warn!(%error, device = name, "a guest's driver broke its queue");
                    }
                }
                Err(error) => tracing::error!(%error, device = name, "a device is not served"),
            }
        };
        match thread::Builder::new().name(name.to_owned()).spawn(work) {
            Ok(thread) => Some(Box::new(Self { bell, ended, thread: Some(thread) })),
            Err(error) => {
                tracing::error!(%error, device = name, "a device is not served");
                None
            }
        }
    }
}

impl Serving for Worker {
    fn ring(&self, _queue: u16) {
        self.bell.notify_one();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ended.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a guest's device panicked");
        }
    }
}
