//! Reads a volume and writes another from front to back, neither reading holes nor writing zeros.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes as Data;
use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;

/// How much is read and written at a time.
pub(super) const PIECE: usize = 1 << 20;

/// The most zeros told of at once, so that progress is seen inside a large hole too.
const HOLE: u64 = 64 << 20;

/// Zeros are looked for in units of this.
const GRAIN: usize = 4096;

static ZEROS: [u8; PIECE] = [0; PIECE];

/// The next part of a volume.
#[derive(Debug)]
pub(super) enum Chunk {
    /// So many zeros that were not read.
    Zeros(u64),
    /// Some bytes.
    Data(Data),
}

impl Chunk {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Zeros(length) => *length,
            Self::Data(data) => length_of(data.len()),
        }
    }

    /// Its bytes, zeros at most [`PIECE`] at a time.
    pub(super) fn pieces(self) -> impl Iterator<Item = Data> {
        let (mut zeros, mut data) = match self {
            Self::Zeros(length) => (length, None),
            Self::Data(data) => (0, Some(data)),
        };
        std::iter::from_fn(move || {
            if zeros == 0 {
                return data.take();
            }
            let piece = Data::from_static(&ZEROS).slice(..piece_of(zeros));
            zeros = zeros.saturating_sub(length_of(piece.len()));
            Some(piece)
        })
    }
}

/// What is read from front to back.
pub(super) trait Source: Send {
    /// The next part; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Chunk>>> + Send;
}

impl<S: Source> Source for &mut S {
    fn next(&mut self) -> impl Future<Output = Result<Option<Chunk>>> + Send {
        (**self).next()
    }
}

impl Source for Reader<'_> {
    fn next(&mut self) -> impl Future<Output = Result<Option<Chunk>>> + Send {
        self.read()
    }
}

/// Reads a volume to its end.
pub(super) struct Reader<'a> {
    source: &'a Arc<dyn Volume>,
    size: u64,
    position: u64,
    /// Data from here …
    start: u64,
    /// … to here; zeros from `position` to `start`.
    end: u64,
    progress: Progress<'a>,
}

impl<'a> Reader<'a> {
    /// Reads from `position` on. `progress` is told of what is read and dealt with.
    pub(super) fn new(
        source: &'a Arc<dyn Volume>,
        position: Bytes,
        progress: Progress<'a>,
    ) -> Self {
        let (size, position) = (source.size().get(), position.get());
        Self { source, size, position, start: position, end: position, progress }
    }

    async fn read(&mut self) -> Result<Option<Chunk>> {
        self.progress.at(self.position, self.size);
        if self.position >= self.size {
            return Ok(None);
        }
        if self.position >= self.end {
            let found = self.source.next_data(bytes(self.position)?).await?;
            (self.start, self.end) = found.map_or((self.size, self.size), |(start, length)| {
                (start.get(), start.get().saturating_add(length.get()).min(self.size))
            });
        }
        let chunk = if self.position < self.start {
            Chunk::Zeros((self.start - self.position).min(HOLE))
        } else {
            let mut buffer = vec![0; piece_of(self.end.saturating_sub(self.position))];
            self.source.read_at(bytes(self.position)?, &mut buffer).await?;
            Chunk::Data(buffer.into())
        };
        self.position = self.position.saturating_add(chunk.len());
        Ok(Some(chunk))
    }
}

/// Tells how many hundredths are done, whenever they change.
pub(super) struct Progress<'a> {
    told: u8,
    tell: &'a (dyn Fn(u8) + Send + Sync),
}

impl<'a> Progress<'a> {
    pub(super) fn new(tell: &'a (dyn Fn(u8) + Send + Sync)) -> Self {
        Self { told: 0, tell }
    }

    /// `position` of `size` is done.
    pub(super) fn at(&mut self, position: u64, size: u64) {
        let hundredths = u128::from(position) * 100;
        let done = hundredths.checked_div(u128::from(size)).unwrap_or(100);
        let done = u8::try_from(done).unwrap_or(100).min(100);
        if done > self.told {
            self.told = done;
            (self.tell)(done);
        }
    }
}

/// Writes a volume from its beginning.
pub(super) struct Writer<'a> {
    target: &'a Arc<dyn Volume>,
    size: u64,
    position: u64,
    becomes: &'static str,
}

impl<'a> Writer<'a> {
    /// Discards all that the target held. `becomes` is for the error of a target that is too
    /// small, such as `unpacks to`.
    pub(super) async fn wipe(target: &'a Arc<dyn Volume>, becomes: &'static str) -> Result<Self> {
        let size = target.size();
        target.discard(Bytes::ZERO, size).await?;
        Ok(Self { target, size: size.get(), position: 0, becomes })
    }

    /// How much can still be written.
    pub(super) fn room(&self) -> u64 {
        self.size.saturating_sub(self.position)
    }

    /// Leaves so many zeros.
    pub(super) fn skip(&mut self, zeros: u64) {
        self.position = self.position.saturating_add(zeros);
    }

    /// Writes what of the data is not zeros.
    ///
    /// # Errors
    /// `JobFailed` if it does not fit, then nothing of it is written.
    pub(super) async fn write(&mut self, data: Data) -> Result<()> {
        if length_of(data.len()) > self.room() {
            let public = format!(
                "the image {} more than the drive's {}: make a larger drive",
                self.becomes,
                bytes(self.size)?
            );
            return Err(Error::new(ErrorKind::JobFailed, public));
        }
        let mut written = 0;
        while written < data.len() {
            let rest = data.slice(written..);
            let zeros = run(&rest, is_zero);
            let run = run(&rest.slice(zeros..), |grain| !is_zero(grain));
            if run > 0 {
                let offset = self.position.saturating_add(length_of(zeros));
                self.target.write_at(bytes(offset)?, rest.slice(zeros..zeros + run)).await?;
            }
            self.skip(length_of(zeros + run));
            written += zeros + run;
        }
        Ok(())
    }
}

/// How much at the beginning consists of grains like this.
fn run(data: &[u8], like: impl Fn(&[u8]) -> bool) -> usize {
    data.chunks(GRAIN).take_while(|grain| like(grain)).map(<[u8]>::len).sum()
}

/// Whether at most [`PIECE`] bytes are all zero.
pub(super) fn is_zero(data: &[u8]) -> bool {
    ZEROS.get(..data.len()) == Some(data)
}

fn piece_of(length: u64) -> usize {
    usize::try_from(length).map_or(PIECE, |length| length.min(PIECE))
}

pub(super) fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

pub(super) fn bytes(number: u64) -> Result<Bytes> {
    Bytes::try_from(number).map_err(|error| Error::internal("imaging").source(error))
}
