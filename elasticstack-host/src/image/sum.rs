//! The SHA-256 of what a volume holds.

use std::fmt::Write as _;
use std::sync::Arc;

use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;
use sha2::{Digest as _, Sha256};

use super::busy;
use super::sparse::{Progress, Reader, Source as _, length_of};

/// The SHA-256 of the volume's first `length` bytes, in lower-case hexadecimal digits. Holes are not
/// read. `progress` is told the hundredths of them that are summed up, whenever they change.
///
/// # Errors
/// `InvalidValue` if the volume is shorter; as the volume says.
///
/// # Cancel safety
/// Dropping the future ends the work after the request to the volume that is in flight.
pub async fn sum(
    volume: Arc<dyn Volume>,
    length: u64,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<String> {
    let size = volume.size().get();
    if length > size {
        let message = format!("{length} bytes are to be summed up: the drive has {size}");
        return Err(Error::new(ErrorKind::InvalidValue, message).field("size"));
    }
    let mut reader = Reader::new(&volume, Bytes::ZERO, Progress::new(&|_| {}));
    let mut progress = Progress::new(progress);
    let (mut sum, mut done) = (Sha256::new(), 0);
    while done < length {
        let Some(chunk) = reader.next().await? else { break };
        for mut piece in chunk.pieces() {
            let left = usize::try_from(length.saturating_sub(done)).unwrap_or(usize::MAX);
            piece.truncate(left);
            done = done.saturating_add(length_of(piece.len()));
            sum = busy(move || sum.chain_update(&piece)).await?;
            progress.at(done, length);
        }
    }
    hex(sum)
}

/// The digits of a sum.
pub(super) fn hex(sum: Sha256) -> Result<String> {
    let mut digits = String::new();
    for byte in sum.finalize() {
        write!(digits, "{byte:02x}").map_err(|error| Error::internal("a sum").source(error))?;
    }
    Ok(digits)
}
