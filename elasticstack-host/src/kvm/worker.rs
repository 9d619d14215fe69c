//! The thread that serves a device whenever its driver has it set up. It is there for as long as the device
//! is, so that a guest which sets a device up starts none.

use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use elasticstack_core::error::{Error, Result};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::bell::{Bell, Ear};
use super::mmio::Serving;

/// What serves a device, until its driver breaks its queue.
type Work = Pin<Box<dyn Future<Output = Result<(), virtio_queue::Error>>>>;

/// Makes it, on the thread, where the bell is heard.
type MakeWork = Box<dyn FnOnce(Ear) -> Work + Send>;

/// A device's thread. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Worker {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

struct Order {
    make: MakeWork,
    bell: Bell,
    end: CancellationToken,
    /// Closed when the work has ended.
    ended: Sender<()>,
}

/// A device at work. Dropped, it ends; what was under way is given up.
#[derive(Debug)]
struct AtWork {
    end: CancellationToken,
    ended: Receiver<()>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Internal` if there can't be one.
    pub(super) fn new(name: &'static str) -> Result<Self> {
        let failed = |error| Error::internal("starting a device's thread").source(error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (orders, ordered) = channel();
        let work = move || work(name, &runtime, &ordered);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Has it do what `make` makes. That the driver breaks its queue ends the work, and the device does
    /// nothing more until it is reset.
    pub(super) fn serve<F>(
        &self,
        bell: Bell,
        make: impl FnOnce(Ear) -> F + Send + 'static,
    ) -> Option<Box<dyn Serving>>
    where
        F: Future<Output = Result<(), virtio_queue::Error>> + 'static,
    {
        let end = CancellationToken::new();
        let (ending, ended) = channel();
        let make: MakeWork = Box::new(|ear| Box::pin(make(ear)));
        let order = Order { make, bell, end: end.clone(), ended: ending };
        self.orders.as_ref()?.send(order).ok()?;
        Some(Box::new(AtWork { end, ended }))
    }
}

fn work(name: &str, runtime: &Runtime, ordered: &Receiver<Order>) {
    // Once: a guest can break its queue as often as it likes.
    let mut is_told = false;
    for Order { make, bell, end, ended } in ordered {
        runtime.block_on(async {
            match bell.listen() {
                Ok(ear) => {
                    if let Some(Err(error)) = end.run_until_cancelled(make(ear)).await
                        && !is_told
                    {
                        is_told = true;
                        tracing::warn!(%error, device = name, "a guest's driver broke its queue");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, device = name, "a guest's device does not hear it");
                }
            }
        });
        drop(ended);
    }
}

impl Serving for AtWork {}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.end.cancel();
        // Nothing is ever sent: this is its end, or the thread's.
        let _ = self.ended.recv();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a guest's device panicked");
        }
    }
}
