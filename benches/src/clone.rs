//! What cloning a drive costs on XFS: by how much it holds, and by how many extents that is in; and for
//! how long a guest's write waits meanwhile. A file system of its own is made in a file, which
//! takes root and 20 GB.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use elasticstack_core::block::{Attachment, BlockStore, Cloned, DriveSpec};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use uuid::Uuid;

use crate::table::{Pairs, Row, Table, Verdict};

const PAIRS: usize = 9;

/// What one write is at a time, and what an extent is of.
const PIECE: usize = 1 << 20;
const BLOCK: u64 = 4 << 10;

/// The longest that a guest's write may wait.
const STALL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clones a sixteenth of it, to try the bench itself
    #[arg(long)]
    small: bool,
    /// Where the file is made that the file system is in
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measures, prints, and fails if a goal is missed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let directory = tempfile::tempdir_in(&args.dir)?;
    let file_system = FileSystem::make(directory.path())?;
    let bench = Bench::open(&file_system.mounted)?;
    let unit = if args.small { 64 << 20 } else { 1 << 30 };
    let (one, sixteen) = (bench.written(unit).await?, bench.written(16 * unit).await?);
    let mut pairs = Pairs::default();
    for _ in 0..PAIRS {
        pairs.push(bench.clone(sixteen).await?, bench.clone(one).await?);
    }
    let ratio = pairs.ratio();
    let verdict = match Verdict::at_least(ratio, 0.8) {
        Verdict::Met => Verdict::at_most(ratio, 1.2),
        missed => missed,
    };
    println!("{pairs}");
    let mut rows = vec![Row {
        what: "clone of a drive, 16 GiB and 1 GiB written".to_owned(),
        ours: format!("{:.1} ms", pairs.ours()),
        peers: format!("{:.1} ms", pairs.peers()),
        compared: format!("{ratio:.2} times"),
        goal: "0.8 to 1.2 times".to_owned(),
        verdict,
    }];
    for extents in [10_000, 100_000, 200_000] {
        let extents = if args.small { extents / 16 } else { extents };
        let drive = bench.scattered(extents).await?;
        let (took, stall) = bench.clone_under_writes(drive).await?;
        let took = took.as_secs_f64() * 1e3;
        let what = format!("clone of {extents} extents");
        rows.push(Row::told(what, format!("{took:.0} ms")));
        rows.push(Row::alone(
            format!("a write's longest wait, {extents} extents"),
            format!("{:.0} ms", stall.as_secs_f64() * 1e3),
            format!("at most {} ms", STALL.as_millis()),
            Verdict::at_most(stall.as_secs_f64(), STALL.as_secs_f64()),
        ));
    }
    Table(rows).judge()
}

/// An XFS in a file, mounted until this is dropped.
struct FileSystem {
    mounted: PathBuf,
}

impl FileSystem {
    fn make(directory: &Path) -> Result<Self> {
        let (image, mounted) = (directory.join("xfs"), directory.join("mounted"));
        std::fs::File::create(&image)?.set_len(64 << 30)?;
        std::fs::create_dir(&mounted)?;
        done(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))?;
        done(Command::new("mount").args(["-o", "loop"]).args([&image, &mounted]))?;
        Ok(Self { mounted })
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        if let Err(error) = done(Command::new("umount").arg(&self.mounted)) {
            eprintln!("{error:#}");
        }
    }
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

struct Bench {
    store: DirectoryStore,
    array: ArrayId,
}

impl Bench {
    fn open(mounted: &Path) -> Result<Self> {
        let (array, state) = (SimRng::new(1).id(), mounted.join("state"));
        std::fs::create_dir(&state)?;
        let config = DirectoryArray {
            array,
            name: "bench".to_owned(),
            path: mounted.join("array"),
            capacity: ArrayCapacity::Fixed(Bytes::from_gib(1 << 10)),
        };
        let store = DirectoryStore::open(KnownArrays::read(&state)?, vec![config])?;
        Ok(Self { store, array })
    }

    async fn drive(&self, size: u64) -> Result<DriveId> {
        let drive = DriveId::from_uuid(Uuid::new_v4());
        let spec = DriveSpec {
            drive,
            array: self.array,
            account: SimRng::new(2).id(),
            size: Bytes::try_from(size)?,
            generation: Generation::new(Era(1), 1),
        };
        self.store.create(&spec).await?;
        Ok(drive)
    }

    /// A drive that was written from its beginning to its end.
    async fn written(&self, size: u64) -> Result<DriveId> {
        let drive = self.drive(size).await?;
        let volume = self.store.open(drive, Epoch(1)).await?;
        let data = bytes::Bytes::from(vec![7; PIECE]);
        for offset in (0..size).step_by(PIECE) {
            volume.write_at(Bytes::try_from(offset)?, data.clone()).await?;
        }
        volume.flush().await?;
        Ok(drive)
    }

    /// A drive of so many extents: every second block of it is written.
    async fn scattered(&self, extents: u64) -> Result<DriveId> {
        let drive = self.drive(extents * 2 * BLOCK).await?;
        let volume = self.store.open(drive, Epoch(1)).await?;
        let data = bytes::Bytes::from(vec![7; usize::try_from(BLOCK)?]);
        for extent in 0..extents {
            volume.write_at(Bytes::try_from(extent * 2 * BLOCK)?, data.clone()).await?;
        }
        volume.flush().await?;
        Ok(drive)
    }

    /// How long a clone of it takes.
    async fn clone(&self, source: DriveId) -> Result<Duration> {
        let size = self.store.open(source, Epoch(1)).await?.size();
        let target = self.drive(size.get()).await?;
        let cloner = self.store.cloner().context("the store clones nothing")?;
        let began = Instant::now();
        let cloned = cloner.clone_drive(source, target).await?;
        let took = began.elapsed();
        ensure!(cloned == Cloned::Shared, "the blocks are not shared");
        self.store.destroy(target, Generation::new(Era(1), 2)).await?;
        Ok(took)
    }

    /// The same, while the drive is written past the store, as a guest does; and for how long one of
    /// those writes waited at most.
    async fn clone_under_writes(&self, source: DriveId) -> Result<(Duration, Duration)> {
        let volume = self.store.open(source, Epoch(1)).await?;
        let Some(Attachment::File(path)) = volume.attachment() else { bail!("it is no file") };
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let guest = std::thread::spawn(move || -> std::io::Result<Duration> {
            let file = OpenOptions::new().write(true).open(path)?;
            let (mut longest, mut begun) = (Duration::ZERO, Some(begun));
            let mut rng = SimRng::new(3);
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                file.write_all_at(&[9; 4096], rng.below(1_000) * 2 * BLOCK)?;
                longest = longest.max(began.elapsed());
                if let Some(begun) = begun.take() {
                    // Whoever waits for it has failed.
                    let _ = begun.send(());
                }
            }
            Ok(longest)
        });
        begins.await.context("the guest writes nothing")?;
        let took = self.clone(source).await;
        is_over.store(true, Ordering::SeqCst);
        let Ok(longest) = guest.join() else { bail!("the guest broke") };
        Ok((took?, longest?))
    }
}
