//! A volume that can be taken away from whoever reads it, between two of its calls.
//!
//! Dropping a future that copies would leave a call in flight; after this, the copying fails at
//! its next call and has nothing in flight when it returns.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes as Chunk;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::units::Bytes;
use tokio_util::sync::CancellationToken;

/// A volume until `revoked` is cancelled.
pub(super) struct Revocable {
    pub volume: Arc<dyn Volume>,
    pub revoked: CancellationToken,
}

impl Revocable {
    fn allowed(&self) -> Result<&dyn Volume> {
        if self.revoked.is_cancelled() {
            return Err(Error::new(ErrorKind::JobFailed, "the job was taken back"));
        }
        Ok(self.volume.as_ref())
    }
}

#[async_trait]
impl Volume for Revocable {
    fn size(&self) -> Bytes {
        self.volume.size()
    }

    fn block_size(&self) -> Bytes {
        self.volume.block_size()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.allowed()?.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: Bytes, data: Chunk) -> Result<()> {
        self.allowed()?.write_at(offset, data).await
    }

    async fn flush(&self) -> Result<()> {
        self.allowed()?.flush().await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        self.allowed()?.discard(offset, length).await
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        self.allowed()?.next_data(offset).await
    }

    fn attachment(&self) -> Option<Attachment> {
        self.volume.attachment()
    }
}
