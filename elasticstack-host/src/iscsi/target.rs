//! One target: who may log in, its logical unit, and the sessions that it has.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use elasticstack_core::block::{Volume, Writing};
use tokio_util::sync::CancellationToken;

use super::chap::Chap;
use super::inquiry::Identity;
use super::reservation::Port;
use super::tasks::{SessionId, TaskSet};
use super::unit::LogicalUnit;

/// What a target is made of.
#[derive(Clone)]
pub struct TargetConfig {
    /// Its iSCSI name, such as `iqn.2026-01.org.example:drive-1.epoch-3` (RFC 7143, section 4.2.7).
    pub name: String,
    /// What its logical unit 0 reads and writes.
    pub volume: Arc<dyn Volume>,
    /// What tells the drive from others.
    pub identity: Identity,
    /// How initiators prove themselves; `None` if they need not.
    pub chap: Option<Chap>,
    /// The names of the initiators that may log in; `None` for any.
    pub initiators: Option<Vec<String>>,
    /// Whether initiators may write; if not, the logical unit is write-protected.
    pub writing: Writing,
}

impl fmt::Debug for TargetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, volume: _, identity, chap, initiators, writing } = self;
        f.debug_struct("TargetConfig")
            .field("name", name)
            .field("identity", identity)
            .field("chap", chap)
            .field("initiators", initiators)
            .field("writing", writing)
            .finish_non_exhaustive()
    }
}

pub(super) struct Target {
    name: String,
    chap: Option<Chap>,
    initiators: Option<Vec<String>>,
    pub(super) unit: LogicalUnit,
    pub(super) tasks: TaskSet,
    sessions: Mutex<HashMap<SessionId, Session>>,
    revoked: CancellationToken,
}

/// One session, as seen from outside of it.
#[derive(Debug)]
struct Session {
    port: Arc<Port>,
    cut: CancellationToken,
    over: CancellationToken,
}

impl Target {
    pub(super) fn new(config: TargetConfig) -> Self {
        let TargetConfig { name, volume, identity, chap, initiators, writing } = config;
        Self {
            unit: LogicalUnit::new(name.clone(), identity, (volume, writing)),
            name,
            chap,
            initiators,
            tasks: TaskSet::default(),
            sessions: Mutex::default(),
            revoked: CancellationToken::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn chap(&self) -> Option<&Chap> {
        self.chap.as_ref()
    }

    pub(super) fn admits(&self, initiator: &str) -> bool {
        let is_named = |names: &Vec<String>| names.iter().any(|name| name == initiator);
        !self.revoked.is_cancelled() && self.initiators.as_ref().is_none_or(is_named)
    }

    /// Begins a session. One of the same port is ended first, with all of its commands, so that
    /// none of them writes after those of this one (RFC 7143, section 6.3.5).
    pub(super) async fn enter(self: &Arc<Self>, id: SessionId, port: Port) -> Membership {
        let port = Arc::new(port);
        loop {
            let before = {
                let mut sessions = self.sessions();
                let before = sessions.values().find(|session| session.port == port);
                match before {
                    Some(session) => {
                        session.cut.cancel();
                        session.over.clone()
                    }
                    None => {
                        let cut = self.revoked.child_token();
                        let over = CancellationToken::new();
                        let session = Session {
                            port: Arc::clone(&port),
                            cut: cut.clone(),
                            over: over.clone(),
                        };
                        sessions.insert(id, session);
                        self.unit.arrive(&port);
                        return Membership { target: Arc::clone(self), id, port, cut, over };
                    }
                }
            };
            before.cancelled().await;
        }
    }

    /// Lets nobody in any more, cuts every session and waits until no I/O is in flight.
    pub(super) async fn revoke(&self) {
        self.revoked.cancel();
        self.tasks.abort(|_, _| true).await;
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A session's place at its target, until this is dropped. It is left with [`Membership::leave`].
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) target: Arc<Target>,
    pub(super) id: SessionId,
    pub(super) port: Arc<Port>,
    /// Cancelled when the session is to end.
    pub(super) cut: CancellationToken,
    over: CancellationToken,
}

impl Membership {
    /// Ends the session's commands, then the session.
    pub(super) async fn leave(self) {
        self.cut.cancel();
        let id = self.id;
        self.target.tasks.abort(|task, _| task.session == id).await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.cut.cancel();
        self.target.unit.leave(&self.port);
        self.target.sessions().remove(&self.id);
        self.over.cancel();
    }
}
