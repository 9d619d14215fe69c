//! Images one volume into another: copies, packs, unpacks or reads the disk out of qcow2 or VMDK, and
//! leaves nothing of what the target held before.
//!
//! Works on any [`Volume`]. Holds a few mebibytes whatever the sizes; packing and unpacking run in
//! threads that may be busy. Does not claim the drives and does not remember jobs: after a crash
//! the caller begins again.

mod download;
mod export;
pub mod gunzip;
pub mod layout;
pub mod qcow2;
mod sparse;
mod sum;
#[cfg(test)]
pub(crate) mod tests;
mod unfold;
#[cfg(test)]
mod unfold_tests;
pub mod vmdk;

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes as Data;
use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Conversion;
use flate2::Compression;
use flate2::write::GzEncoder;

pub use download::download;
pub use export::Export;
use gunzip::{Gunzip, GunzipError, MAGIC};
use layout::{ImageError, Layout};
use sparse::{Chunk, PIECE, Progress, Reader, Source, Writer, is_zero};
pub use sum::sum;

/// Makes `target` what `source` becomes by `conversion`; the rest of it reads as zeros. All of it
/// is durable on return. Holes and zeros take no space in the target.
///
/// `progress` is told the hundredths of the source that are read, whenever they change.
///
/// # Errors
/// `JobFailed`, with a sentence for the owner, if the source can't be converted or does not fit. If
/// that is seen at first sight the target stays as it is, else it reads as zeros: no half an image
/// is left to boot from. Else as the volumes say, and the target's content is undefined.
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
    let work = Work::look(&source, target.size(), conversion).await?;
    let progress = Progress::new(progress);
    let writer = Writer::wipe(&target, work.becomes()).await?;
    let converted = match work {
        Work::Copy => copy(Reader::new(&source, Bytes::ZERO, progress), writer).await,
        Work::Pack => pack(Reader::new(&source, Bytes::ZERO, progress), writer).await,
        Work::Unpack => unpack(Reader::new(&source, Bytes::ZERO, progress), writer).await,
        Work::Unfold(layout) => unfold::unfold(&source, layout, writer, progress).await,
    };
    settle(&target, converted).await
}

/// Leaves no half an image, and the target durable.
async fn settle(target: &Arc<dyn Volume>, converted: Result<()>) -> Result<()> {
    if converted.as_ref().is_err_and(|error| error.kind() == ErrorKind::JobFailed) {
        target.discard(Bytes::ZERO, target.size()).await?;
    }
    target.flush().await?;
    converted
}

/// What is to be done.
enum Work {
    Copy,
    Pack,
    Unpack,
    Unfold(Layout),
}

impl Work {
    /// Refuses what is seen at first sight to come to nothing.
    async fn look(source: &Arc<dyn Volume>, room: Bytes, conversion: Conversion) -> Result<Self> {
        let layout = match conversion {
            Conversion::None => {
                check_tail(source, room).await?;
                return Ok(Self::Copy);
            }
            Conversion::Gzip => return Ok(Self::Pack),
            Conversion::Gunzip => {
                check_magic(source).await?;
                return Ok(Self::Unpack);
            }
            Conversion::Qcow2 => unfold::qcow2_in(source).await?,
            Conversion::Vmdk => unfold::vmdk_in(source).await?,
        };
        let size = sparse::bytes(layout.size)?;
        if size > room {
            let format = layout.format();
            let public = format!(
                "the {format} image is of a disk of {size}, more than the drive's {room}: make a \
                 drive of {size}"
            );
            return Err(Error::new(ErrorKind::JobFailed, public));
        }
        Ok(Self::Unfold(layout))
    }

    /// For the error of a target that is too small.
    const fn becomes(&self) -> &'static str {
        match self {
            Self::Copy | Self::Unfold(_) => "comes to",
            Self::Pack => "packs to",
            Self::Unpack => "unpacks to",
        }
    }
}

/// Refuses a source that holds anything but zeros where the target has ended.
async fn check_tail(source: &Arc<dyn Volume>, end: Bytes) -> Result<()> {
    let mut tail = Reader::new(source, end, Progress::new(&|_| {}));
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

async fn unpack(mut reader: impl Source, mut writer: Writer<'_>) -> Result<()> {
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

fn refused(error: ImageError) -> Error {
    Error::new(ErrorKind::JobFailed, error.to_string())
}

fn packing_failed(error: std::io::Error) -> Error {
    Error::internal("packing").source(error)
}
