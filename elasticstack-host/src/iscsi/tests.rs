//! What tests of several files need.

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::prelude::*;

/// A volume that holds nothing.
pub(super) struct Nothing;

#[async_trait]
impl Volume for Nothing {
    fn size(&self) -> Bytes {
        Bytes::ZERO
    }

    fn block_size(&self) -> Bytes {
        Bytes::from_kib(4)
    }

    async fn read_at(&self, _: Bytes, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    async fn write_at(&self, _: Bytes, _: bytes::Bytes) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn discard(&self, _: Bytes, _: Bytes) -> Result<()> {
        Ok(())
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}
