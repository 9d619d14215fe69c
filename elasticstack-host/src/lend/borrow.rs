//! Borrowing: how the agent itself, for a job, uses a drive that another host lends.

use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{Borrowing, Volume};
use elasticstack_core::error::Result;

use crate::iscsi::initiator::Initiator;

/// Logs in to what other hosts lend.
#[async_trait]
pub trait Borrow: Send + Sync {
    /// Logs in to a lend; the session ends when the volume is dropped. Once it has broken off, the
    /// volume is `Unavailable` for good.
    ///
    /// # Errors
    /// `Unavailable` if the portal can't be reached; `NotFound` if the drive is not lent there (yet);
    /// `BadCredentials` if it is lent to another borrower.
    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>>;
}

/// Borrows over iSCSI, by our own initiator.
#[derive(Debug, Clone, Copy, Default)]
pub struct IscsiBorrower;

#[async_trait]
impl Borrow for IscsiBorrower {
    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Initiator::login(borrowing).await?))
    }
}
