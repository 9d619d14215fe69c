//! A raw file, served over iSCSI by the target that hosts lend their drives with.
//!
//! `cargo run -p elasticstack-examples --bin serve_a_file -- FILE --listen 127.0.0.1:3260`, and any
//! initiator: `qemu-img info iscsi://127.0.0.1:3260/iqn.2026-01.org.example:file/0`. The file is
//! neither made nor made longer. `RawFile` is all that a volume needs to be; yours may talk to any
//! hardware.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use clap::Parser;
use elasticstack_core::block::{Attachment, Volume, Writing};
use elasticstack_core::prelude::*;
use elasticstack_core::secret::Secret;
use elasticstack_host::iscsi::{Chap, Credentials, Identity, IscsiServer, Limits, TargetConfig};
use rustix::fs::{FallocateFlags, SeekFrom};
use tokio::signal::unix::{SignalKind, signal};

/// A file as a volume. Every access is one system call in a thread that may block.
struct RawFile {
    file: Arc<File>,
    size: Bytes,
}

impl RawFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = Bytes::try_from(file.metadata()?.len())?;
        Ok(Self { file: Arc::new(file), size })
    }

    async fn access<T: Send + 'static>(
        &self,
        action: &'static str,
        (offset, length): (Bytes, u64),
        work: impl FnOnce(&File) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        if offset.get().checked_add(length).is_none_or(|end| end > self.size.get()) {
            let reach = format!("{length} bytes at {offset} reach past the end at {}", self.size);
            return Err(Error::new(ErrorKind::InvalidValue, reach));
        }
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || work(&file))
            .await
            .map_err(|error| Error::internal(action).source(error))?
            .map_err(|error| Error::internal(action).source(error))
    }
}

#[async_trait]
impl Volume for RawFile {
    fn size(&self) -> Bytes {
        self.size
    }

    fn block_size(&self) -> Bytes {
        Bytes::from_kib(4)
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len();
        let bytes = self
            .access("reading", (offset, length_of(length)), move |file| {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset.get()).map(|()| bytes)
            })
            .await?;
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        let range = (offset, length_of(data.len()));
        self.access("writing", range, move |file| file.write_all_at(&data, offset.get())).await
    }

    async fn flush(&self) -> Result<()> {
        self.access("syncing", (Bytes::ZERO, 0), File::sync_data).await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        if length == Bytes::ZERO {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.access("discarding", (offset, length.get()), move |file| {
            Ok(rustix::fs::fallocate(file, flags, offset.get(), length.get())?)
        })
        .await
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        let size = self.size.get();
        let found = self.access("seeking", (offset, 0), move |file| {
            let start = match rustix::fs::seek(file, SeekFrom::Data(offset.get())) {
                Ok(start) => start.min(size),
                Err(rustix::io::Errno::NXIO) => return Ok((size, size)),
                Err(error) => return Err(error.into()),
            };
            Ok((start, rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size)))
        });
        let (start, end) = found.await?;
        let range =
            Bytes::try_from(start).ok().zip(Bytes::try_from(end.saturating_sub(start)).ok());
        Ok(range.filter(|(_, length)| *length > Bytes::ZERO))
    }

    /// The one way to it is this program.
    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[derive(Parser)]
struct Args {
    /// The file, of some multiple of 512 bytes
    file: PathBuf,
    /// Where initiators connect
    #[arg(long, default_value = "127.0.0.1:3260")]
    listen: SocketAddr,
    /// The target's name
    #[arg(long, default_value = "iqn.2026-01.org.example:file")]
    name: String,
    /// Let nobody write
    #[arg(long)]
    read_only: bool,
    /// A file that holds USER:SECRET, which initiators must then know
    #[arg(long)]
    credentials: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let volume = RawFile::open(&args.file)
        .with_context(|| format!("cannot open {}", args.file.display()))?;
    let size = volume.size();
    if size == Bytes::ZERO {
        bail!("{} is empty: make it as long as the disk shall be", args.file.display());
    }
    let chap = args.credentials.as_deref().map(read_credentials).transpose()?;
    let server = IscsiServer::new(Limits::default());
    server.add(TargetConfig {
        identity: Identity::of(&args.file.display().to_string()),
        volume: Arc::new(volume),
        name: args.name.clone(),
        chap,
        initiators: None,
        writing: if args.read_only { Writing::Refused } else { Writing::Allowed },
    })?;
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("READY {size} at iscsi://{}/{}/0", listener.local_addr()?, args.name);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = server.serve(listener) => served?,
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminate.recv() => {}
    }
    server.revoke(&args.name).await;
    Ok(())
}

/// Reads a secret from a file, because everybody on the machine sees a program's arguments.
fn read_credentials(path: &Path) -> anyhow::Result<Chap> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (user, secret) = text
        .trim_end()
        .split_once(':')
        .with_context(|| format!("{} does not hold USER:SECRET", path.display()))?;
    let initiator = Credentials { user: user.to_owned(), secret: Secret::new(secret) };
    Ok(Chap { initiator, target: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_a_volume_that_keeps_what_was_flushed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let at = |offset: u64| Bytes::try_from(offset).unwrap();
        let volume = RawFile::open(file.path()).unwrap();
        volume.write_at(at(8192), bytes::Bytes::from_static(&[7; 4096])).await.unwrap();
        volume.flush().await.unwrap();
        drop(volume);

        let volume = RawFile::open(file.path()).unwrap();
        let mut buffer = [0; 4096];
        volume.read_at(at(8192), &mut buffer).await.unwrap();
        assert_eq!(buffer, [7; 4096]);
        let data = volume.next_data(Bytes::ZERO).await.unwrap().unwrap();
        assert!(data.0 <= at(8192), "{data:?}");
        volume.discard(at(8192), at(4096)).await.unwrap();
        volume.read_at(at(8192), &mut buffer).await.unwrap();
        assert_eq!(buffer, [0; 4096]);
        let past = volume.read_at(at((1 << 20) - 1), &mut buffer).await.unwrap_err();
        assert_eq!(past.kind(), ErrorKind::InvalidValue);
    }
}
