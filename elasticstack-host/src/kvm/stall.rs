//! What a drive that fails does to its guest: the request waits, the machine's owner is told, and when the
//! guest is resumed the request is tried again. The guest sees no error.

use elasticstack_core::error::Error;
use tokio::sync::watch;

use super::news::{Listener, News};

/// Where a guest's requests wait; one for all of its drives. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Stall {
    listener: Listener,
    resumed: watch::Sender<()>,
}

impl Stall {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener, resumed: watch::Sender::new(()) }
    }

    /// Says that a request failed, and waits until the guest is resumed.
    pub(super) async fn wait(&self, error: &Error) {
        let mut resumed = self.resumed.subscribe();
        self.listener.tell(News::Stalled(format!("{error:?}")));
        // An error means that the machine is gone, and this with it.
        let _ = resumed.changed().await;
    }

    /// Lets all that wait try again.
    pub(super) fn end(&self) {
        self.resumed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_request_that_failed_is_told_of_and_waits_for_the_next_resume() {
        let (tell, told) = channel();
        let stall = Stall::new(Listener::new(move |news| tell.send(news).unwrap()));
        stall.end();
        let error = Error::internal("a disk is gone");
        let mut waits = Box::pin(stall.wait(&error));
        assert!((&mut waits).now_or_never().is_none());
        assert!(
            matches!(told.try_recv(), Ok(News::Stalled(why)) if why.contains("a disk is gone"))
        );
        stall.end();
        assert!(waits.now_or_never().is_some());
    }
}
