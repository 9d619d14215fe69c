//! What a driver rings when it has given its device something. It is an eventfd, so that KVM rings it by
//! itself and the processor goes on (`KVM_IOEVENTFD`: Documentation/virt/kvm/api.rst, 4.59).
#![expect(unsafe_code, reason = "an eventfd is watched by its descriptor")]

use std::io;
use std::sync::Arc;

use elasticstack_core::error::{Error, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The bell. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Bell(Arc<EventFd>);

/// One who listens to it.
#[derive(Debug)]
pub(super) struct Ear(AsyncFd<Arc<EventFd>>);

impl Bell {
    /// # Errors
    /// `Internal` if the process can have no more files.
    pub(super) fn new() -> Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK);
        let event = event.map_err(|error| Error::internal("making a bell").source(error))?;
        Ok(Self(Arc::new(event)))
    }

    pub(super) fn ring(&self) {
        // Its count is never taken, and is not full in ten thousand years.
        let _ = self.0.write(1);
    }

    /// For whoever rings it in its own way.
    pub(super) fn event(&self) -> &EventFd {
        &self.0
    }

    /// Listens, on the runtime of whoever asks. If it was ever rung, that is heard at once.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub(super) fn listen(&self) -> io::Result<Ear> {
        let event = Arc::clone(&self.0);
        // JUSTIFICATION: tokio has no safe call for a file that it does not open itself.
        // SAFETY: the descriptor is the same and open for as long as the answer lives, which owns a part of it.
        let ear = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) };
        Ok(Ear(ear?))
    }
}

impl Ear {
    /// Waits until it is rung after this was last heard.
    pub(super) async fn rung(&self) {
        // Each ring is an edge of its own, without the count being taken. A wait fails only when its runtime
        // is gone, and this with it.
        if let Ok(mut ready) = self.0.readable().await {
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Long enough for what is to come, and for nothing to have come.
    const SILENCE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn each_ring_is_heard_once_and_none_is_lost_that_nobody_waited_for() {
        let bell = Bell::new().unwrap();
        bell.ring();
        let ear = bell.listen().unwrap();
        for _ in 0..3 {
            ear.rung().await;
            assert!(tokio::time::timeout(SILENCE, ear.rung()).await.is_err(), "nobody rang");
            bell.ring();
            bell.ring();
        }
        let other = bell.clone();
        std::thread::spawn(move || other.ring()).join().unwrap();
        ear.rung().await;
    }
}
