//! Subscriptions to "something changed about this server".
//!
//! Each subscriber has a set of ids that it has not taken yet: it may lag as long as it likes,
//! loses nothing, and holds at most one id a server.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use elasticstack_core::id::ServerId;
use futures_core::Stream;
use futures_util::stream;
use tokio::sync::Notify;

/// Where changes are announced.
#[derive(Debug, Default)]
pub(super) struct Changes {
    subscribers: Mutex<Vec<Weak<Subscriber>>>,
}

#[derive(Debug, Default)]
struct Subscriber {
    pending: Mutex<BTreeSet<ServerId>>,
    news: Notify,
}

impl Changes {
    /// Tells every subscriber that something changed about `server`.
    pub(super) fn announce(&self, server: ServerId) {
        lock(&self.subscribers).retain(|subscriber| {
            let Some(subscriber) = subscriber.upgrade() else { return false };
            lock(&subscriber.pending).insert(server);
            subscriber.news.notify_one();
            true
        });
    }

    /// The ids announced from now on, without end.
    pub(super) fn subscribe(&self) -> impl Stream<Item = ServerId> + Send + use<> {
        let subscriber = Arc::new(Subscriber::default());
        lock(&self.subscribers).push(Arc::downgrade(&subscriber));
        stream::unfold(subscriber, |subscriber| async {
            loop {
                let next = lock(&subscriber.pending).pop_first();
                match next {
                    Some(server) => return Some((server, subscriber)),
                    None => subscriber.news.notified().await,
                }
            }
        })
    }
}

/// No code panics while it holds one of these locks, so what they guard is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn a_subscriber_that_lags_loses_no_server_and_gets_each_once() {
        let server = |number: u128| -> ServerId {
            format!("00000000-0000-0000-0000-{number:012x}").parse().unwrap()
        };
        let changes = Changes::default();
        changes.announce(server(9));
        let mut stream = Box::pin(changes.subscribe());
        for _ in 0..1000 {
            changes.announce(server(1));
            changes.announce(server(2));
        }
        let mut taken = Vec::new();
        while let Some(Some(id)) = stream.next().now_or_never() {
            taken.push(id);
        }
        assert_eq!(taken, [server(1), server(2)]);
        changes.announce(server(1));
        assert_eq!(stream.next().now_or_never().flatten(), Some(server(1)));
        drop(stream);
        changes.announce(server(3));
        assert!(lock(&changes.subscribers).is_empty());
    }
}
