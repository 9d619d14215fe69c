//! Images one volume into another: copies, packs or unpacks, and leaves nothing of what the target
//! held before.
//!
//! Works on any [`Volume`]. Holds a few mebibytes whatever the sizes; packing and unpacking run in
//! threads that may be busy. Does not claim the drives and does not remember jobs: after a crash
//! the caller begins again.

pub mod gunzip;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes as Data;
use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Conversion;
use flate2::Compression;
use flate2::write::GzEncoder;

use gunzip::{Gunzip, GunzipError, MAGIC};
use sparse::{Chunk, PIECE, Reader, Writer, is_zero};

/// Makes `target` what `source` becomes by `conversion`; the rest of it reads as zeros. All of it
/// is durable on return. Holes and zeros take no space in the target.
///
/// `progress` is told the hundredths of the source that are read, whenever they change.
///
/// # Errors
/// `JobFailed`, with a sentence for the owner, if the source can't be converted or does not fit;
/// else as the volumes say. If the source is seen to be unfit before the first change the target
/// stays as it is; after any other error its content is undefined.
///
/// # Cancel safety
/// Dropping the future ends the work after the request to a volume that is in flight. The target's
/// content is then undefined.
pub async fn image(
    source: Arc<dyn Volume>,
    target: Arc<dyn Volume>,
    conversion: Conversion,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<()> {
    let reader = Reader::new(&source, Bytes::ZERO, progress);
    match conversion {
        Conversion::None => {
            check_tail(&source, target.size()).await?;
            copy(reader, Writer::wipe(&target, "comes to").await?).await?;
        }
        Conversion::Gzip => pack(reader, Writer::wipe(&target, "packs to").await?).await?,
        Conversion::Gunzip => {
            check_magic(&source).await?;
            unpack(reader, Writer::wipe(&target, "unpacks to").await?).await?;
        }
    }
    target.flush().await
}

/// Refuses a source that holds anything but zeros where the target has ended.
async fn check_tail(source: &Arc<dyn Volume>, end: Bytes) -> Result<()> {
    let mut tail = Reader::new(source, end, &|_| {});
    while let Some(chunk) = tail.next().await? {
        if matches!(&chunk, Chunk::Data(data) if !is_zero(data)) {
            let size = source.size();
            let public = format!(
                "the source has {size} and holds data beyond the drive's {end}: make a drive of {size}"
            );
            return Err(Error::new(ErrorKind::JobFailed, public));
        }
    }
    Ok(())
}

/// Refuses a source that is no gzip at first sight.
async fn check_magic(source: &Arc<dyn Volume>) -> Result<()> {
    let mut first = [0; 2];
    if source.size().get() >= 2 {
        source.read_at(Bytes::ZERO, &mut first).await?;
    }
    if first == MAGIC { Ok(()) } else { Err(job_failed(GunzipError::NotGzip)) }
}

async fn copy(mut reader: Reader<'_>, mut writer: Writer<'_>) -> Result<()> {
    while let Some(chunk) = reader.next().await? {
        match chunk {
            Chunk::Zeros(zeros) => writer.skip(zeros),
            Chunk::Data(mut data) => {
                // What does not fit is zeros, as was checked.
                data.truncate(usize::try_from(writer.room()).unwrap_or(usize::MAX));
                writer.write(data).await?;
            }
        }
    }
    Ok(())
}

async fn pack(mut reader: Reader<'_>, mut writer: Writer<'_>) -> Result<()> {
    // The source is read once and so is what is written: time counts more than space.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    while let Some(chunk) = reader.next().await? {
        for piece in chunk.pieces() {
            let packed;
            (encoder, packed) = busy(move || {
                encoder.write_all(&piece)?;
                let packed = std::mem::take(encoder.get_mut());
                Ok((encoder, packed))
            })
            .await?
            .map_err(packing_failed)?;
            writer.write(packed.into()).await?;
        }
    }
    let packed = busy(move || encoder.finish()).await?.map_err(packing_failed)?;
    writer.write(packed.into()).await
}

async fn unpack(mut reader: Reader<'_>, mut writer: Writer<'_>) -> Result<()> {
    let mut unpacker = Unpacker::default();
    while let Some(chunk) = reader.next().await? {
        if unpacker.gunzip.is_padding() && matches!(chunk, Chunk::Zeros(_)) {
            continue;
        }
        for mut piece in chunk.pieces() {
            while !piece.is_empty() {
                (unpacker, piece) =
                    busy(move || unpacker.fill(piece)).await?.map_err(job_failed)?;
                if unpacker.filled == PIECE {
                    writer.write(unpacker.take()).await?;
                }
            }
        }
    }
    unpacker.gunzip.finish().map_err(job_failed)?;
    writer.write(unpacker.take()).await
}

/// Unpacks into one buffer after the other, so that every write but the last is a full piece.
#[derive(Default)]
struct Unpacker {
    gunzip: Gunzip,
    buffer: Vec<u8>,
    filled: usize,
}

impl Unpacker {
    /// Fills the buffer from `input` and returns what of the input is left.
    fn fill(mut self, mut input: Data) -> Result<(Self, Data), GunzipError> {
        self.buffer.resize(PIECE, 0);
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let step = self.gunzip.unpack(&input, free)?;
        self.filled += step.produced;
        let rest = input.split_off(step.consumed);
        Ok((self, rest))
    }

    /// Takes what the buffer holds.
    fn take(&mut self) -> Data {
        self.buffer.truncate(std::mem::take(&mut self.filled));
        std::mem::take(&mut self.buffer).into()
    }
}

/// Does work that keeps a processor busy in a thread for such.
async fn busy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("a thread that images a drive ended").source(error))
}

fn job_failed(error: GunzipError) -> Error {
    Error::new(ErrorKind::JobFailed, error.to_string())
}

fn packing_failed(error: std::io::Error) -> Error {
    Error::internal("packing").source(error)
}
