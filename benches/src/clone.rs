//! What cloning a drive costs on XFS: by how much it holds, by how many extents that is in, and for
//! how long a guest's write waits meanwhile; and what the steps in which drives get room do to that. A
//! file system of its own is made in a file, which takes root and 20 GB.

mod guest;
mod layout;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use elasticstack_core::block::{BlockStore, Cloned, DriveSpec, Writers};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use uuid::Uuid;

use crate::table::{Pairs, Row, Table, Verdict};

/// One pair is the sum of so many clones of either, taken in turns.
const PAIRS: usize = 31;
const CLONES: u32 = 10;

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
    let part = if args.small { 16 } else { 1 };
    let mut rows = vec![by_size(&bench, (1 << 30) / part).await?];
    for extents in [10_000, 100_000, 200_000] {
        let extents = extents / part;
        let drive = bench.scattered(extents).await?;
        rows.push(Row::told(
            format!("clone of {extents} extents, not in use"),
            in_ms(bench.clone(drive, Writers::Volumes).await?),
        ));
        let (cloned, stall) = guest::clone_under_writes(&bench, drive).await?;
        rows.push(Row::told(
            format!("clone of {extents} extents, in use"),
            match cloned {
                Ok(took) => in_ms(took),
                Err(refused) => {
                    println!("{extents} extents in use: {refused}");
                    "refused".to_owned()
                }
            },
        ));
        rows.push(Row::alone(
            format!("a write's longest wait, {extents} extents"),
            in_ms(stall),
            format!("at most {} ms", STALL.as_millis()),
            Verdict::at_most(stall.as_secs_f64(), STALL.as_secs_f64()),
        ));
        bench.destroy(drive).await?;
    }
    layout::print(&file_system.mounted, (256 << 20) / part)?;
    Table(rows).judge()
}

/// Clones of a drive that was written from its beginning to its end, beside those of one that holds a
/// sixteenth of it. A clone is all that it takes: the new drive, the blocks, and both on the disk.
async fn by_size(bench: &Bench, unit: u64) -> Result<Row> {
    let (one, sixteen) = (bench.written(unit).await?, bench.written(16 * unit).await?);
    let mut pairs = Pairs::default();
    for _ in 0..PAIRS {
        let (mut ours, mut peers) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..CLONES {
            ours += bench.clone(sixteen, Writers::Volumes).await?;
            peers += bench.clone(one, Writers::Volumes).await?;
        }
        pairs.push(ours / CLONES, peers / CLONES);
    }
    println!("means of {CLONES} clones of 16 units beside {CLONES} of one: {pairs}");
    for drive in [one, sixteen] {
        bench.destroy(drive).await?;
    }
    let ratio = pairs.ratio();
    let verdict = match Verdict::at_least(ratio, 0.8) {
        Verdict::Met => Verdict::at_most(ratio, 1.2),
        missed => missed,
    };
    Ok(Row {
        what: "clone of a drive, 16 GiB and 1 GiB written".to_owned(),
        ours: format!("{:.2} ms", pairs.ours()),
        peers: format!("{:.2} ms", pairs.peers()),
        compared: format!("{ratio:.2} times"),
        goal: "0.8 to 1.2 times".to_owned(),
        verdict,
    })
}

fn in_ms(took: Duration) -> String {
    format!("{:.0} ms", took.as_secs_f64() * 1e3)
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

    async fn destroy(&self, drive: DriveId) -> Result<()> {
        Ok(self.store.destroy(drive, Generation::new(Era(1), 2)).await?)
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

    /// A drive of so many extents: every second block of it is written, and what lies between two of
    /// them has room and was not.
    async fn scattered(&self, extents: u64) -> Result<DriveId> {
        let drive = self.drive(extents * BLOCK).await?;
        let volume = self.store.open(drive, Epoch(1)).await?;
        let data = bytes::Bytes::from(vec![7; usize::try_from(BLOCK)?]);
        for extent in (0..extents).step_by(2) {
            volume.write_at(Bytes::try_from(extent * BLOCK)?, data.clone()).await?;
        }
        volume.flush().await?;
        Ok(drive)
    }

    /// How long it takes to make a drive and have it be a clone of this one.
    async fn clone(&self, source: DriveId, writers: Writers) -> Result<Duration> {
        let size = self.store.open(source, Epoch(1)).await?.size();
        let began = Instant::now();
        let target = self.drive(size.get()).await?;
        let cloner = self.store.cloner().context("the store clones nothing")?;
        let cloned = cloner.clone_drive(source, target, writers).await;
        let took = began.elapsed();
        self.destroy(target).await?;
        ensure!(cloned? == Cloned::Shared, "the blocks are not shared");
        Ok(took)
    }
}
