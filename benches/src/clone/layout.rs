//! What the steps in which a file system gives files room do to how they are laid out: by the tools of
//! XFS, on files that are written as guests write their drives, in steps of any size.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use elasticstack_core::sim::SimRng;
use elasticstack_host::sys::extents;

use super::done;

/// The steps that are tried, as XFS's tools spell them; without one it chooses itself.
const STEPS: [Option<&str>; 5] = [None, Some("64k"), Some("256k"), Some("1m"), Some("4m")];

/// How a drive is written, a block at a time: which part of it, and whether it shares blocks before.
#[derive(Clone, Copy)]
enum Shape {
    Alone(u64),
    Shared(u64),
}

const SHAPES: [(&str, Shape); 4] = [
    ("5 % of a new drive", Shape::Alone(5)),
    ("all of a new drive", Shape::Alone(100)),
    ("5 % of a full one with a snapshot", Shape::Shared(5)),
    ("all of a full one with a snapshot", Shape::Shared(100)),
];

const BLOCK: usize = 4 << 10;

/// How many blocks a guest writes between two flushes.
const FLUSH: usize = 32;

/// Prints what comes of each shape with each step.
pub(super) fn print(mounted: &Path, size: u64) -> Result<()> {
    println!("\nblocks of {BLOCK} bytes written in any order to a drive of {} MiB:", size >> 20);
    let header = ["step", "extents", "occupied", "clone", "longest wait", "a write"];
    let [step, count, occupied, clone, wait, write] = header;
    println!("{:<36}{step:>5}{count:>9}{occupied:>11}{clone:>9}{wait:>14}{write:>9}", "");
    for (what, shape) in SHAPES {
        for step in STEPS {
            let file = Trial::new(mounted, step, size)?;
            let found = file.measure(shape)?;
            let ms = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1e3);
            println!(
                "{what:<36}{:>5}{:>9}{:>7} MiB{:>9}{:>14}{:>6} us",
                step.unwrap_or("none"),
                found.extents,
                found.occupied >> 20,
                ms(found.clone),
                ms(found.wait),
                found.write.as_micros(),
            );
        }
    }
    Ok(())
}

struct Found {
    extents: u64,
    occupied: u64,
    clone: Duration,
    /// The longest that a write waited which was made while it was cloned.
    wait: Duration,
    /// What a write takes, flushes included.
    write: Duration,
}

struct Trial {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Trial {
    fn new(mounted: &Path, step: Option<&str>, size: u64) -> Result<Self> {
        let path = mounted.join("trial");
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        if let Some(step) = step {
            let hints = [format!("extsize {step}"), format!("cowextsize {step}")];
            let [alone, shared] = &hints;
            done(Command::new("xfs_io").args(["-c", alone, "-c", shared]).arg(&path))?;
        }
        file.set_len(size)?;
        Ok(Self { file, path, size })
    }

    fn measure(&self, shape: Shape) -> Result<Found> {
        let (part, snapshot) = match shape {
            Shape::Alone(part) => (part, None),
            Shape::Shared(part) => {
                for piece in 0..self.size >> 20 {
                    self.file.write_all_at(&[7; 1 << 20], piece << 20)?;
                }
                (part, Some(Scratch(self.path.with_extension("snapshot"))))
            }
        };
        if let Some(snapshot) = &snapshot {
            snapshot.share(&self.file)?;
        }
        let blocks = shuffled(self.size / u64::try_from(BLOCK)?, part);
        let began = Instant::now();
        for blocks in blocks.chunks(FLUSH) {
            for block in blocks {
                self.file.write_all_at(&[9; BLOCK], block * u64::try_from(BLOCK)?)?;
            }
            self.file.sync_data()?;
        }
        let write = began.elapsed() / u32::try_from(blocks.len())?;
        let Some(extents) = extents::count(&self.file)? else {
            anyhow::bail!("XFS does not tell extents")
        };
        let occupied = self.file.metadata()?.blocks() * 512;
        let (clone, wait) = self.clone_under_writes(*blocks.first().unwrap_or(&0))?;
        Ok(Found { extents, occupied, clone, wait, write })
    }

    /// How long a clone takes, and the longest write to a block that goes on meanwhile.
    fn clone_under_writes(&self, block: u64) -> Result<(Duration, Duration)> {
        let scratch = Scratch(self.path.with_extension("clone"));
        let writer = OpenOptions::new().write(true).open(&self.path)?;
        let (ended, is_over) = std::sync::mpsc::channel::<()>();
        let offset = block * u64::try_from(BLOCK)?;
        let guest = std::thread::spawn(move || -> std::io::Result<Duration> {
            let mut longest = Duration::ZERO;
            while is_over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let began = Instant::now();
                writer.write_all_at(&[9; BLOCK], offset)?;
                longest = longest.max(began.elapsed());
            }
            Ok(longest)
        });
        let took = scratch.share(&self.file);
        drop(ended);
        let Ok(longest) = guest.join() else { anyhow::bail!("the guest broke") };
        Ok((took?, longest?))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A file that goes with this.
struct Scratch(PathBuf);

impl Scratch {
    /// Makes it share the blocks of another; how long that takes.
    fn share(&self, source: &File) -> Result<Duration> {
        let target = File::create(&self.0)?;
        source.sync_data()?;
        let began = Instant::now();
        rustix::fs::ioctl_ficlone(&target, source)?;
        let took = began.elapsed();
        ensure!(target.metadata()?.len() == source.metadata()?.len(), "the clone is shorter");
        Ok(took)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// So many percent of these blocks, in an order that is the same each time.
fn shuffled(blocks: u64, percent: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..blocks).collect();
    let mut rng = SimRng::new(4);
    all.sort_by_cached_key(|_| rng.number());
    all.truncate(usize::try_from(blocks * percent / 100).unwrap_or(usize::MAX));
    all
}
