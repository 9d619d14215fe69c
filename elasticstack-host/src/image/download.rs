//! Makes a volume of a file that is fetched from elsewhere, as its bytes come.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as Data;
use elasticstack_core::block::Volume;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Conversion, Download};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::sparse::{Chunk, PIECE, Progress, Source, Writer, length_of};
use super::sum::hex;
use super::{settle, unpack};
use crate::fetch::{Fetched, Fetcher};

/// How long a piece of a file may take.
const SLOWEST: Duration = Duration::from_secs(120);

/// Makes `target` what the file becomes by `conversion`; the rest of it reads as zeros. All of it is
/// durable on return. `progress` is told hundredths of the file, if its server tells its length.
///
/// # Errors
/// `JobFailed`, with a sentence for the owner, if the file can't be fetched, is not the one that was
/// meant, or does not fit: the target stays as it is if that is seen at first sight, else it reads as
/// zeros. `NotOffered` for a conversion that needs all of the file at once. Else as the volume says.
///
/// # Cancel safety
/// As of [`image`](super::image). Where that will not do, `revoked` ends it while it waits for the
/// network.
pub async fn download(
    fetcher: &Fetcher,
    file: &Download,
    target: Arc<dyn Volume>,
    conversion: Conversion,
    revoked: &CancellationToken,
    progress: &(dyn Fn(u8) + Send + Sync),
) -> Result<()> {
    if !matches!(conversion, Conversion::None | Conversion::Gunzip) {
        let message =
            "a file is fetched raw or gzip: fetch it to a drive and image another from it";
        return Err(Error::new(ErrorKind::NotOffered, message));
    }
    let fetched = unless(revoked, fetcher.fetch(&file.url)).await?;
    let room = target.size();
    if conversion == Conversion::None
        && let Some(length) = fetched.length().filter(|length| *length > room.get())
    {
        let message = format!(
            "the file has {length} bytes, more than the drive's {room}: make a larger drive"
        );
        return Err(Error::new(ErrorKind::JobFailed, message));
    }
    let mut coming = Coming {
        length: fetched.length().unwrap_or(u64::MAX),
        fetched,
        sum: Sha256::new(),
        done: 0,
        revoked,
        progress: Progress::new(progress),
    };
    let written = if conversion == Conversion::Gunzip {
        unpack(&mut coming, Writer::wipe(&target, "unpacks to").await?).await
    } else {
        write(&mut coming, Writer::wipe(&target, "comes to").await?).await
    };
    settle(&target, written.and_then(|()| coming.check(file.sha256.as_deref()))).await
}

async fn write(coming: &mut Coming<'_>, mut writer: Writer<'_>) -> Result<()> {
    while let Some(chunk) = coming.next().await? {
        for piece in chunk.pieces() {
            writer.write(piece).await?;
        }
    }
    Ok(())
}

/// Waits, but no longer than it is allowed to.
async fn unless<T>(
    revoked: &CancellationToken,
    wait: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = wait => done,
        () = revoked.cancelled() => {
            Err(Error::new(ErrorKind::JobFailed, "the job was taken back"))
        }
    }
}

/// A file, and what there is to tell of what came of it.
struct Coming<'a> {
    fetched: Fetched,
    sum: Sha256,
    done: u64,
    length: u64,
    revoked: &'a CancellationToken,
    progress: Progress<'a>,
}

impl Coming<'_> {
    async fn piece(&mut self) -> Result<Option<Chunk>> {
        let Self { fetched, sum, revoked, .. } = self;
        let gather = async {
            let mut piece = Vec::new();
            while piece.len() < PIECE {
                let Some(data) = fetched.next().await? else { break };
                sum.update(&data);
                piece.extend_from_slice(&data);
            }
            Ok(piece)
        };
        let too_slow = || {
            let text = "the file comes slower than 1 MiB in two minutes";
            Error::new(ErrorKind::JobFailed, text)
        };
        let gather = async { timeout(SLOWEST, gather).await.map_err(|_| too_slow())? };
        let piece: Vec<u8> = unless(revoked, gather).await?;
        self.done = self.done.saturating_add(length_of(piece.len()));
        self.progress.at(self.done, self.length);
        Ok((!piece.is_empty()).then(|| Chunk::Data(Data::from(piece))))
    }

    /// Refuses a file that is not the one of this sum.
    fn check(&self, expected: Option<&str>) -> Result<()> {
        let Some(expected) = expected else { return Ok(()) };
        let found = hex(self.sum.clone())?;
        if found == expected {
            return Ok(());
        }
        let message = format!("the file's SHA-256 is {found}, and {expected} was expected");
        Err(Error::new(ErrorKind::JobFailed, message))
    }
}

impl Source for Coming<'_> {
    fn next(&mut self) -> impl Future<Output = Result<Option<Chunk>>> + Send {
        self.piece()
    }
}
