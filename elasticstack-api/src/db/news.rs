//! Whom a commit of this process wakes: whoever waits for an object that it saved, and whoever
//! sends to a host for which it queued something.
//!
//! Without it each commit would have everybody who waits look at the database, and work would grow
//! with the square of how much is going on. Invariant: a wake-up is a reason to look, no more; some
//! come for nothing, none is left out. What other processes commit wakes everybody.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use elasticstack_core::id::HostId;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Objects share so many bells. Who waits is now and then woken for another's sake, so seldom that
/// a bell of its own for each would not pay.
const BELLS: u8 = u8::MAX;

/// What a transaction did that somebody may be waiting for.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    saved: BTreeSet<u8>,
    queued: BTreeSet<HostId>,
}

impl Tidings {
    /// It saved this object.
    pub(super) fn saved(&mut self, object: &Uuid) {
        self.saved.insert(bell(object));
    }

    /// It queued something for this host.
    pub(super) fn queued(&mut self, host: HostId) {
        self.queued.insert(host);
    }
}

/// The bells, and the hosts for which something was queued that nobody has asked for yet.
#[derive(Debug)]
pub(super) struct News {
    bells: Vec<watch::Sender<()>>,
    queued: Mutex<BTreeSet<HostId>>,
    ring: Notify,
}

impl News {
    pub(super) fn new() -> Self {
        let bells = (0..=BELLS).map(|_| watch::Sender::new(())).collect();
        Self { bells, queued: Mutex::default(), ring: Notify::new() }
    }

    /// A transaction was committed, or may have been.
    pub(super) fn tell(&self, tidings: Tidings) {
        let Tidings { saved, queued } = tidings;
        saved.into_iter().filter_map(|bell| self.bells.get(usize::from(bell))).for_each(ring);
        if !queued.is_empty() {
            self.queued.lock().unwrap_or_else(PoisonError::into_inner).extend(queued);
            self.ring.notify_one();
        }
    }

    /// Another process committed something.
    pub(super) fn tell_all(&self) {
        self.bells.iter().for_each(ring);
    }

    /// Whether anybody waits for an object.
    pub(super) fn is_awaited(&self) -> bool {
        self.bells.iter().any(|bell| bell.receiver_count() > 0)
    }

    /// Yields after every commit that saved this object, and now and then for nothing.
    pub(super) fn of(&self, object: &Uuid) -> watch::Receiver<()> {
        match self.bells.get(usize::from(bell(object))) {
            Some(bell) => bell.subscribe(),
            // There is a bell for each byte.
            None => watch::Sender::new(()).subscribe(),
        }
    }

    /// The hosts for which this process queued something since they were last asked for, as soon
    /// as there is one. Asked for by one task.
    pub(super) async fn queued_for(&self) -> BTreeSet<HostId> {
        loop {
            let hosts =
                std::mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner));
            if !hosts.is_empty() {
                return hosts;
            }
            self.ring.notified().await;
        }
    }
}

/// The last byte of an id is random in every version of UUID that is in use here.
fn bell(object: &Uuid) -> u8 {
    let [.., last] = object.as_bytes();
    *last
}

fn ring(bell: &watch::Sender<()>) {
    bell.send_replace(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_commit_wakes_who_waits_for_its_objects_and_hosts_and_nobody_else() {
        let news = News::new();
        let [saved, other] = [Uuid::from_u128(7), Uuid::from_u128(8)];
        let host = HostId::from_uuid(Uuid::from_u128(9));
        let (woken, quiet) = (news.of(&saved), news.of(&other));
        assert!(news.is_awaited());
        let mut tidings = Tidings::default();
        tidings.saved(&saved);
        tidings.queued(host);
        news.tell(tidings);
        assert!(woken.has_changed().unwrap() && !quiet.has_changed().unwrap());
        assert_eq!(news.queued_for().await, BTreeSet::from([host]));
        news.tell_all();
        assert!(quiet.has_changed().unwrap());
    }

    #[test]
    fn every_id_has_a_bell() {
        let news = News::new();
        for last in 0..=u128::from(u8::MAX) {
            assert!(usize::from(bell(&Uuid::from_u128(last))) < news.bells.len());
        }
    }
}
