//! What a guest that runs tells of itself.

use std::fmt;
use std::sync::Arc;

/// Something that happened to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It has turned itself off.
    Off,
    /// It wants to start anew.
    Reset,
    /// It has crashed, and said so on its panic device.
    Panicked,
    /// A drive of it failed, for this reason. The request waits until the guest is resumed, and is then
    /// tried again.
    Stalled(String),
    /// KVM can't go on with it, for this reason.
    Failed(String),
}

/// Whom a machine tells. Clones are the same.
#[derive(Clone)]
pub(super) struct Listener(Arc<dyn Fn(News) + Send + Sync>);

impl Listener {
    pub(super) fn new(hear: impl Fn(News) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(super) fn tell(&self, news: News) {
        (self.0)(news);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
