//! Throw-away machines for tests of what only a kernel can do: RAID, device mapper, iSCSI, cgroups;
//! and a throw-away [`Postgres`].
//!
//! A machine is QEMU on a software CPU with Debian's own kernel. Its root is the root of this
//! machine, read-only, with what it writes in memory; so every program that is installed here is
//! there too, and so is the test that started it. Its disks are files, which outlive it. From
//! outside its disks are pulled, slowed and corrupted, its network cable is pulled, and its power is cut.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = elasticstack_lab::Lab::new()?;
//! let mut machine = lab.boot(1)?;
//! machine.run("modprobe raid1 && cat /proc/mdstat")?.ok()?;
//! machine.pull(2)?;
//! machine.cut_power()?;
//! let again = lab.boot(1)?; // on the same disks
//! # Ok(())
//! # }
//! ```

mod job;
mod machine;
mod postgres;
mod pulse;
mod qmp;
mod stage;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use self::pulse::Pulse;

pub use job::Ended;
pub use machine::Machine;
pub use postgres::{Postgres, Socket};
pub use stage::stage;

/// Machines that share a network, each with a directory of its own for as long as this lives.
#[derive(Debug)]
pub struct Lab {
    kit: PathBuf,
    directory: TempDir,
    /// Of the network, on loopback.
    port: u16,
    _pulse: Pulse,
    console: Console,
    first: First,
    /// Bytes of each disk that arrays are made of.
    disk_size: u64,
}

/// Who is at the second serial port of machine 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Console {
    Nobody,
    /// Whoever started this process.
    Terminal,
}

/// A machine's first program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// What hears of its jobs.
    Jobs,
    /// systemd, and that beside it.
    Systemd,
}

/// The group of all labs' networks.
const NETWORK: Ipv4Addr = Ipv4Addr::new(239, 77, 0, 1);

/// How many labs this process has made.
static LABS: AtomicU16 = AtomicU16::new(0);

impl Lab {
    /// A lab without machines yet.
    ///
    /// # Errors
    /// What machines boot is not built.
    pub fn new() -> Result<Self> {
        let home = std::env::var_os("HOME").context("HOME is not set")?;
        let kit = Path::new(&home).join(".cache/elasticstack/lab");
        ensure!(
            kit.join("inputs.json").exists(),
            "{} is missing: build it with `cargo xtask lab`",
            kit.display()
        );
        let directory = tempfile::Builder::new().prefix("elasticstack-lab-").tempdir()?;
        // Four labs of one process have a network each, and so have those of processes whose ids
        // differ modulo 10,000.
        let own = u32::from(LABS.fetch_add(1, Ordering::Relaxed) % 4);
        let port = u16::try_from(20_000 + std::process::id() % 10_000 * 4 + own)?;
        Ok(Self {
            kit,
            directory,
            port,
            _pulse: Pulse::start(port).context("send to the lab's network")?,
            console: Console::Nobody,
            first: First::Jobs,
            disk_size: 1 << 30,
        })
    }

    /// The same, with disks of so many MiB for arrays instead of 1024: what copies whole disks is then
    /// done sooner.
    #[must_use]
    pub fn with_disks_of(mut self, mebibytes: u32) -> Self {
        self.disk_size = u64::from(mebibytes) << 20;
        self
    }

    /// The same, with this process's terminal at `/dev/ttyS1` of the first machine.
    #[must_use]
    pub fn with_terminal(self) -> Self {
        Self { console: Console::Terminal, ..self }
    }

    /// The same, with systemd as the first program of each machine. It starts its journal and nothing
    /// else: of this machine's units those are there, and none is wanted.
    #[must_use]
    pub fn with_systemd(self) -> Self {
        Self { first: First::Systemd, ..self }
    }

    /// Boots machine `number`, 1 to 254, on the disks that it had before or on new ones.
    ///
    /// # Errors
    /// QEMU can't be started, or the machine is not up in time.
    pub fn boot(&self, number: u8) -> Result<Machine> {
        Machine::boot(self, number)
    }

    /// What machine `number` has as `/lab`.
    #[must_use]
    pub fn directory(&self, number: u8) -> PathBuf {
        self.directory.path().join(number.to_string())
    }
}
