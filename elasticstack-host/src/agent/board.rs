//! What every object looks like now, with the place of its last change in this life's count, and
//! the long poll on it.
//!
//! Memory only: each life of the process observes anew and counts anew, so a cursor of another
//! life gets everything. Not here: what must survive ([`super::records`]).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use elasticstack_core::generation::Generation;
use elasticstack_core::id::{DriveId, JobId, ServerId, SnapshotId};
use elasticstack_core::wire::internal::{
    Cursor, DriveStatus, ObjectStatus, Reports, SnapshotStatus,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::locked;

/// How long a status that is about to change waits for what becomes of it, so that both are one
/// report.
const PASSING: Duration = Duration::from_millis(250);

/// Names one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Drive(DriveId),
    Job(JobId),
    Server(ServerId),
    Snapshot(SnapshotId),
}

impl Key {
    fn of(status: &ObjectStatus) -> Self {
        match status {
            ObjectStatus::Drive(status) => Self::Drive(status.drive),
            ObjectStatus::Job(status) => Self::Job(status.job),
            ObjectStatus::Server(status) => Self::Server(status.server),
            ObjectStatus::Snapshot(status) => Self::Snapshot(status.snapshot),
        }
    }
}

/// A status that says `gone` and that the reader has made durable on its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub key: Key,
    pub generation: Generation,
    sequence: u64,
}

/// Every status.
#[derive(Debug)]
pub(crate) struct Board {
    life: String,
    entries: Mutex<HashMap<Key, Entry>>,
    marks: watch::Sender<Marks>,
}

/// The sequences of the newest changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    newest: u64,
    /// Of those that are worth a report of their own.
    settled: u64,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    status: ObjectStatus,
}

impl Board {
    pub(crate) fn new() -> Self {
        let life = Uuid::new_v4().to_string();
        Self { life, entries: Mutex::default(), marks: watch::Sender::default() }
    }

    /// Shows a status in place of the object's last. One that says nothing new is no change.
    pub(crate) fn publish(&self, status: ObjectStatus) {
        self.show(status, true);
    }

    /// As [`Board::publish`], of a status that is about to change: readers who have nothing else to
    /// read are given [`PASSING`] later what it is then.
    pub(crate) fn publish_passing(&self, status: ObjectStatus) {
        self.show(status, false);
    }

    fn show(&self, status: ObjectStatus, is_settled: bool) {
        let mut entries = locked(&self.entries);
        let key = Key::of(&status);
        let sequence = match entries.get(&key) {
            Some(entry) if entry.status == status => entry.sequence,
            _ => {
                let sequence = self.newest().saturating_add(1);
                entries.insert(key, Entry { sequence, status });
                sequence
            }
        };
        self.marks.send_if_modified(|marks| {
            let before = *marks;
            marks.newest = marks.newest.max(sequence);
            if is_settled {
                marks.settled = marks.settled.max(sequence);
            }
            *marks != before
        });
    }

    fn newest(&self) -> u64 {
        self.marks.borrow().newest
    }

    /// What a drive looks like.
    pub(crate) fn drive(&self, drive: DriveId) -> Option<DriveStatus> {
        match &locked(&self.entries).get(&Key::Drive(drive))?.status {
            ObjectStatus::Drive(status) => Some(status.clone()),
            ObjectStatus::Job(_) | ObjectStatus::Server(_) | ObjectStatus::Snapshot(_) => None,
        }
    }

    /// What a snapshot looks like.
    pub(crate) fn snapshot(&self, snapshot: SnapshotId) -> Option<SnapshotStatus> {
        match &locked(&self.entries).get(&Key::Snapshot(snapshot))?.status {
            ObjectStatus::Snapshot(status) => Some(status.clone()),
            ObjectStatus::Drive(_) | ObjectStatus::Job(_) | ObjectStatus::Server(_) => None,
        }
    }

    /// What changed after `cursor`: at once if any of it is settled, [`PASSING`] after the first of
    /// what is about to change, and nothing after `patience`.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was not answered is newer than the caller's next cursor too.
    pub(crate) async fn reports(&self, after: Option<&Cursor>, patience: Duration) -> Reports {
        let after = after.filter(|cursor| cursor.life == self.life).map_or(0, |c| c.sequence);
        let mut marks = self.marks.subscribe();
        // Neither running out of patience nor the end of this life is an error: the answer tells.
        let _ = tokio::time::timeout(patience, async {
            let _ = marks.wait_for(|marks| marks.newest > after).await;
            let settled = marks.wait_for(|marks| marks.settled > after);
            let _ = tokio::time::timeout(PASSING, settled).await;
        })
        .await;
        self.newer_than(after)
    }

    fn newer_than(&self, after: u64) -> Reports {
        let entries = locked(&self.entries);
        let mut newer: Vec<_> = entries.values().filter(|e| e.sequence > after).collect();
        newer.sort_by_key(|entry| entry.sequence);
        Reports {
            next: Cursor { life: self.life.clone(), sequence: self.newest() },
            objects: newer.into_iter().map(|entry| entry.status.clone()).collect(),
        }
    }

    /// What is gone, and known durably to be gone by whoever sends this cursor.
    pub(crate) fn acknowledged(&self, cursor: &Cursor) -> Vec<Acknowledged> {
        if cursor.life != self.life {
            return Vec::new();
        }
        let entries = locked(&self.entries);
        let read = entries.iter().filter(|(_, entry)| entry.sequence <= cursor.sequence);
        read.filter_map(|(&key, entry)| {
            let (gone, generation) = match &entry.status {
                ObjectStatus::Drive(status) => (status.gone, status.generation),
                ObjectStatus::Job(status) => (status.gone, status.generation),
                ObjectStatus::Server(status) => (status.gone, status.generation),
                ObjectStatus::Snapshot(status) => (status.gone, status.generation),
            };
            gone.then_some(Acknowledged { key, generation, sequence: entry.sequence })
        })
        .collect()
    }

    /// Takes down a status, unless it changed since.
    pub(crate) fn forget(&self, acknowledged: Acknowledged) {
        let mut entries = locked(&self.entries);
        let same = |entry: &Entry| entry.sequence == acknowledged.sequence;
        if entries.get(&acknowledged.key).is_some_and(same) {
            entries.remove(&acknowledged.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::generation::{Epoch, Era};

    use super::*;

    fn status(n: u8, size: u64, gone: bool) -> ObjectStatus {
        ObjectStatus::Drive(DriveStatus {
            drive: format!("5b0e3c52-0000-4000-8000-0000000000{n:02x}").parse().unwrap(),
            generation: Generation::new(Era(1), 1),
            gone,
            size,
            epoch: Epoch(0),
            fault: None,
            home: None,
        })
    }

    #[tokio::test]
    async fn a_cursor_gets_the_newest_of_what_changed_after_it() {
        let board = Board::new();
        board.publish(status(1, 1, false));
        board.publish(status(2, 1, false));
        let first = board.reports(None, Duration::ZERO).await;
        assert_eq!(first.objects, [status(1, 1, false), status(2, 1, false)]);
        board.publish(status(1, 2, false));
        board.publish(status(1, 3, false));
        board.publish(status(2, 1, false));
        let second = board.reports(Some(&first.next), Duration::ZERO).await;
        assert_eq!(second.objects, [status(1, 3, false)]);
        let third = board.reports(Some(&second.next), Duration::ZERO).await;
        assert_eq!((third.objects.len(), &third.next), (0, &second.next));
        let foreign = Cursor { life: "another".to_owned(), sequence: u64::MAX };
        assert_eq!(board.reports(Some(&foreign), Duration::ZERO).await.objects.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_about_to_change_is_reported_with_what_becomes_of_it_or_a_moment_later() {
        let board = Board::new();
        let patience = Duration::from_secs(20);
        board.publish_passing(status(1, 1, false));
        let (both, ()) = tokio::join!(board.reports(None, patience), async {
            tokio::time::sleep(PASSING / 2).await;
            board.publish(status(1, 2, false));
        });
        assert_eq!(both.objects, [status(1, 2, false)]);
        board.publish_passing(status(1, 3, false));
        let begun = tokio::time::Instant::now();
        let alone = board.reports(Some(&both.next), patience).await;
        assert_eq!(alone.objects, [status(1, 3, false)]);
        assert_eq!(begun.elapsed(), PASSING);
        board.publish_passing(status(1, 4, false));
        board.publish(status(1, 4, false));
        let begun = tokio::time::Instant::now();
        let alone = board.reports(Some(&alone.next), patience).await;
        assert_eq!(alone.objects, [status(1, 4, false)]);
        assert_eq!(begun.elapsed(), Duration::ZERO, "it stays as it is");
        assert_eq!(board.reports(Some(&alone.next), Duration::ZERO).await.objects, []);
    }

    #[tokio::test]
    async fn only_what_was_read_as_gone_is_forgotten() {
        let board = Board::new();
        board.publish(status(1, 0, true));
        board.publish(status(2, 1, false));
        let read = board.reports(None, Duration::ZERO).await.next;
        board.publish(status(3, 0, true));
        let acknowledged = board.acknowledged(&read);
        assert_eq!(acknowledged.len(), 1);
        board.publish(status(1, 1, true));
        board.forget(acknowledged[0]);
        assert_eq!(board.reports(None, Duration::ZERO).await.objects.len(), 3, "changed since");
        board.forget(board.acknowledged(&board.newer_than(0).next)[0]);
        assert_eq!(board.reports(None, Duration::ZERO).await.objects.len(), 2);
    }
}
