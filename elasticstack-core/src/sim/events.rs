//! The stream behind `Hypervisor::events`: a queue a subscriber, and a waker.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::lock;
use crate::id::ServerId;

#[derive(Debug, Default)]
struct Queue {
    ids: VecDeque<ServerId>,
    reader: Option<Waker>,
    closed: bool,
}

/// One subscription; it ends when its [`Events`] closes.
#[derive(Debug)]
struct Subscription(Arc<Mutex<Queue>>);

/// Everybody who listens.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<Weak<Mutex<Queue>>>);

impl Events {
    pub(super) fn subscribe(&mut self) -> impl Stream<Item = ServerId> + Send + use<> {
        let queue = Arc::default();
        self.0.push(Arc::downgrade(&queue));
        Subscription(queue)
    }

    pub(super) fn tell(&mut self, server: ServerId) {
        self.each(|queue| queue.ids.push_back(server));
    }

    /// Ends every subscription once it has read what was told.
    pub(super) fn close(&mut self) {
        self.each(|queue| queue.closed = true);
        self.0.clear();
    }

    fn each(&mut self, change: impl Fn(&mut Queue)) {
        self.0.retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            let mut queue = lock(&queue);
            change(&mut queue);
            if let Some(reader) = queue.reader.take() {
                reader.wake();
            }
            true
        });
    }
}

impl Stream for Subscription {
    type Item = ServerId;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ServerId>> {
        let mut queue = lock(&self.0);
        match queue.ids.pop_front() {
            Some(server) => Poll::Ready(Some(server)),
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::thread;

    use super::*;
    use crate::sim::{SimRng, block_on};

    #[test]
    fn a_sleeping_reader_is_woken_by_an_event_and_by_the_end() {
        let mut events = Events::default();
        let stream = events.subscribe();
        let server = SimRng::new(1).id();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                block_on(async {
                    let mut stream = pin!(stream);
                    let first = poll_fn(|context| stream.as_mut().poll_next(context)).await;
                    let last = poll_fn(|context| stream.as_mut().poll_next(context)).await;
                    (first, last)
                })
            });
            events.tell(server);
            events.close();
            assert_eq!(reader.join().unwrap(), (Some(server), None));
        });
    }
}
