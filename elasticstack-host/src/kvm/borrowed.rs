//! A drive that another host lends, as a guest has it: one session after the other. While there is none
//! requests wait, and the guest sees nothing of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes as Data;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::error::{ErrorKind, Result};
use elasticstack_core::units::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::iscsi::initiator::{Address, Initiator};

/// How soon it is tried again to log in.
const AGAIN: Duration = Duration::from_millis(500);

/// The drive.
#[derive(Debug)]
pub(super) struct Borrowed {
    address: Address,
    /// Where sessions live, longer than a guest's devices do.
    runtime: Handle,
    session: Mutex<Arc<Initiator>>,
    first: Arc<Initiator>,
}

impl Borrowed {
    /// Logs in. The session, and those after it, live in the runtime that this is called in.
    ///
    /// # Errors
    /// As [`Initiator::login_to`].
    pub(super) async fn log_in(address: Address) -> Result<Self> {
        let first = Arc::new(Initiator::login_to(&address).await?);
        let session = Mutex::new(Arc::clone(&first));
        Ok(Self { address, runtime: Handle::current(), session, first })
    }

    async fn session(&self) -> Arc<Initiator> {
        Arc::clone(&*self.session.lock().await)
    }

    /// Logs in until that succeeds, unless somebody else has since `broken`.
    async fn log_in_again(&self, broken: &Arc<Initiator>) {
        let mut session = self.session.lock().await;
        while Arc::ptr_eq(&session, broken) {
            let address = self.address.clone();
            let login = self.runtime.spawn(async move { Initiator::login_to(&address).await });
            match login.await {
                Ok(Ok(new)) => *session = Arc::new(new),
                Ok(Err(error)) => {
                    tracing::warn!(
                        ?error,
                        target = self.address.target,
                        "a lender does not answer"
                    );
                    sleep(AGAIN).await;
                }
                // The runtime ends, and this process with it.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// Does it by one session after the other, until one does not break off.
macro_rules! again {
    ($self:ident, $session:ident, $call:expr) => {
        loop {
            let $session = $self.session().await;
            match $call.await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    $self.log_in_again(&$session).await;
                }
                done => return done,
            }
        }
    };
}

#[async_trait]
impl Volume for Borrowed {
    fn size(&self) -> Bytes {
        self.first.size()
    }

    fn block_size(&self) -> Bytes {
        self.first.block_size()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        again!(self, session, session.read_at(offset, buffer))
    }

    async fn write_at(&self, offset: Bytes, data: Data) -> Result<()> {
        again!(self, session, session.write_at(offset, data.clone()))
    }

    async fn flush(&self) -> Result<()> {
        again!(self, session, session.flush())
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        again!(self, session, session.discard(offset, length))
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}
