//! The commands of a target that are under way, of all of its sessions: who may abort which, and
//! when the last of their I/O has ended. A command is never dropped in the middle of its I/O.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::reservation::Port;

/// A session's number, unique in the life of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// A command's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TaskId {
    pub(super) session: SessionId,
    pub(super) initiator_task_tag: u32,
}

/// The commands under way.
#[derive(Debug, Default)]
pub(super) struct TaskSet {
    tasks: Arc<Mutex<HashMap<TaskId, Task>>>,
}

#[derive(Debug)]
struct Task {
    port: Arc<Port>,
    aborted: CancellationToken,
    ended: CancellationToken,
}

impl TaskSet {
    /// Enters a command, which is aborted when `cut` is cancelled or by [`TaskSet::abort`]; `None`
    /// if one of this name is under way.
    pub(super) fn begin(
        &self,
        id: TaskId,
        port: &Arc<Port>,
        cut: &CancellationToken,
    ) -> Option<Running> {
        let (aborted, ended) = (cut.child_token(), CancellationToken::new());
        let mut tasks = lock(&self.tasks);
        if tasks.contains_key(&id) {
            return None;
        }
        let task = Task { port: Arc::clone(port), aborted: aborted.clone(), ended: ended.clone() };
        tasks.insert(id, task);
        Some(Running { tasks: Arc::clone(&self.tasks), id, aborted, ended })
    }

    /// Aborts commands and waits until the last of them has ended, as long as their I/O lasts. What
    /// it returns is how many there were.
    pub(super) async fn abort(&self, goes: impl Fn(TaskId, &Port) -> bool) -> usize {
        let ends: Vec<_> = lock(&self.tasks)
            .iter()
            .filter(|(id, task)| goes(**id, &task.port))
            .map(|(_, task)| {
                task.aborted.cancel();
                task.ended.clone()
            })
            .collect();
        for end in &ends {
            end.cancelled().await;
        }
        ends.len()
    }
}

/// A command under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    tasks: Arc<Mutex<HashMap<TaskId, Task>>>,
    id: TaskId,
    /// Cancelled once there is nobody to answer.
    pub(super) aborted: CancellationToken,
    ended: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.tasks).remove(&self.id);
        self.ended.cancel();
    }
}

fn lock(tasks: &Mutex<HashMap<TaskId, Task>>) -> MutexGuard<'_, HashMap<TaskId, Task>> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_abort_waits_for_those_that_it_means_and_for_no_other() {
        let set = TaskSet::default();
        let port = Arc::new(Port { initiator: "iqn.a".to_owned(), isid: [0; 6] });
        let cut = CancellationToken::new();
        let id = |initiator_task_tag| TaskId { session: SessionId(1), initiator_task_tag };
        let first = set.begin(id(1), &port, &cut).unwrap();
        let second = set.begin(id(2), &port, &cut).unwrap();
        assert!(set.begin(id(2), &port, &cut).is_none());

        let abort = set.abort(|task, _| task == id(1));
        tokio::pin!(abort);
        assert!(futures_util::poll!(&mut abort).is_pending());
        assert!(first.aborted.is_cancelled() && !second.aborted.is_cancelled());
        drop(first);
        assert_eq!(abort.await, 1);
        assert_eq!(set.abort(|task, _| task == id(1)).await, 0);
    }

    #[tokio::test]
    async fn a_command_that_begins_after_the_cut_is_aborted_from_the_start() {
        let set = TaskSet::default();
        let port = Arc::new(Port { initiator: "iqn.a".to_owned(), isid: [0; 6] });
        let cut = CancellationToken::new();
        cut.cancel();
        let id = TaskId { session: SessionId(1), initiator_task_tag: 1 };
        assert!(set.begin(id, &port, &cut).unwrap().aborted.is_cancelled());
    }
}
