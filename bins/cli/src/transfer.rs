//! Files to drives and back, in chunks, so that what breaks off can go on.
//!
//! A byte has the same offset in the file and in the drive, and `--offset` means both.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use elasticstack_core::amount::shown;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::error::{Error, ErrorKind};
use elasticstack_core::id::DriveId;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

use crate::failure::{Failure, Result};
use crate::screen::Screen;

/// What is moved at a time: the most that one read may ask for.
const CHUNK: Bytes = Bytes::from_mib(4);

/// Uploads `file` from `offset` on, and answers its length.
///
/// # Errors
/// `File`, or `Interrupted` with the offset to go on from.
pub(crate) async fn upload<T: Transport>(
    client: &Client<T>,
    screen: &mut Screen<'_>,
    drive: DriveId,
    file: &Path,
    offset: Bytes,
) -> Result<u64> {
    let failed = |cause| file_failed("reading", file, cause);
    let id = drive.to_string();
    let mut source = File::open(file).map_err(failed)?;
    let total = source.seek(SeekFrom::End(0)).map_err(failed)?;
    source.seek(SeekFrom::Start(offset.get())).map_err(failed)?;
    let mut done = offset.get();
    loop {
        let mut chunk = Vec::new();
        (&mut source).take(CHUNK.get()).read_to_end(&mut chunk).map_err(failed)?;
        if chunk.is_empty() {
            break;
        }
        let length = size_of_chunk(&chunk);
        let parameters = [&*id, &*done.to_string()];
        client
            .write(Call::DriveWriteAt, &parameters, chunk.into())
            .await
            .map_err(|error| interrupted(done, error.into()))?;
        done = done.saturating_add(length);
        screen.progress(&progress("written", done, total.max(done)));
    }
    screen.progress_ends();
    let written = amount(done.saturating_sub(offset.get()));
    screen.done("drive", &id, &format!("{written} written"))?;
    Ok(done)
}

/// Downloads `length` bytes of a drive, or all, from `offset` on.
///
/// # Errors
/// `File`, `Output`, or `Interrupted` with the offset to go on from.
pub(crate) async fn download<T: Transport>(
    client: &Client<T>,
    screen: &mut Screen<'_>,
    drive: DriveId,
    file: &Path,
    offset: Bytes,
    length: Option<Bytes>,
) -> Result<()> {
    let id = drive.to_string();
    let end = match length {
        Some(length) => offset.get().saturating_add(length.get()),
        None => size(client, &id).await?,
    };
    let mut target = Target::open(file, offset)?;
    let mut done = offset.get();
    while done < end {
        let wanted = (end - done).min(CHUNK.get());
        let parameters = [&*id, &*done.to_string(), &*wanted.to_string()];
        let chunk = client
            .read(Call::DriveRead, &parameters)
            .await
            .map_err(|error| interrupted(done, error.into()))?;
        if size_of_chunk(&chunk) != wanted {
            let cause = Error::new(
                ErrorKind::Unavailable,
                format!("the server sent {} of {wanted} bytes", chunk.len()),
            );
            return Err(interrupted(done, cause.into()));
        }
        target.write(screen, &chunk)?;
        done += wanted;
        screen.progress(&progress("read", done, end));
    }
    screen.progress_ends();
    match target {
        Target::File(..) => {
            let read = amount(done.saturating_sub(offset.get()));
            screen.done("drive", &id, &format!("{read} read"))
        }
        Target::Output => Ok(()),
    }
}

/// Where a download goes.
enum Target<'a> {
    File(&'a Path, File),
    Output,
}

impl<'a> Target<'a> {
    fn open(path: &'a Path, offset: Bytes) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Output);
        }
        let failed = |cause| file_failed("writing", path, cause);
        // What an earlier download wrote below the offset stays.
        let fresh = offset == Bytes::ZERO;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(fresh)
            .open(path)
            .map_err(failed)?;
        file.seek(SeekFrom::Start(offset.get())).map_err(failed)?;
        Ok(Self::File(path, file))
    }

    fn write(&mut self, screen: &mut Screen<'_>, chunk: &[u8]) -> Result<()> {
        match self {
            Self::File(path, file) => {
                file.write_all(chunk).map_err(|cause| file_failed("writing", path, cause))
            }
            Self::Output => screen.bytes(chunk),
        }
    }
}

async fn size<T: Transport>(client: &Client<T>, drive: &str) -> Result<u64> {
    let record = client.one(Call::DriveInfo, &[drive], &Record::new()).await?;
    record.value("size").and_then(|size| size.parse().ok()).ok_or_else(|| {
        Error::new(ErrorKind::Internal, "the server does not tell the drive's size: give --length")
            .into()
    })
}

fn size_of_chunk(chunk: &[u8]) -> u64 {
    u64::try_from(chunk.len()).unwrap_or(u64::MAX)
}

fn amount(bytes: u64) -> String {
    Bytes::try_from(bytes).map_or_else(|_| bytes.to_string(), shown)
}

fn progress(what: &str, done: u64, total: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    format!("{what} {} of {} ({percent}%)", amount(done), amount(total))
}

fn interrupted(done: u64, cause: Failure) -> Failure {
    Failure::Interrupted { done, cause: Box::new(cause) }
}

fn file_failed(what: &str, file: &Path, cause: io::Error) -> Failure {
    Failure::File { what: format!("{what} {}", file.display()), cause }
}
