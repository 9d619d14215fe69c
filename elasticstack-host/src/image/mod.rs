//! Imaging: one drive becomes what another holds.

use std::sync::Arc;

use bytes::Bytes as Chunk;
use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Conversion;

/// Makes `target` what `source` holds.
///
/// # Errors
/// What the volumes say.
pub async fn image(
    source: Arc<dyn Volume>,
    target: Arc<dyn Volume>,
    _conversion: Conversion,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<()> {
    let mut at = 0_u64;
    let size = source.size().get();
    while at < size {
        let length = usize::try_from((size - at).min(1 << 20)).unwrap_or(1 << 20);
        let mut buffer = vec![0; length];
        let offset = Bytes::try_from(at).unwrap_or(Bytes::ZERO);
        source.read_at(offset, &mut buffer).await?;
        target.write_at(offset, Chunk::from(buffer)).await?;
        at = (at + (1 << 20)).min(size);
        progress(u8::try_from(at * 100 / size).unwrap_or(100));
    }
    target.flush().await
}
