//! The targets: ours, in its process as an agent starts it, and its peers, tgt and the kernel's. They end
//! with these values.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use elasticstack_core::block::{
    Attachment, BlockStore as _, Borrowing, DriveSpec, Lend, LendId, LendSpec, Volume, Writing,
};
use elasticstack_core::prelude::*;
use elasticstack_host::guests::Scope;
use elasticstack_host::iscsi::Credentials;
use elasticstack_host::iscsi::initiator::Address;
use elasticstack_host::lend::{LioLender, ProcessConfig, ProcessLender};
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};

/// How long each file is.
const LENGTH: Bytes = Bytes::from_mib(256);

/// A target that is asked and looked at.
pub(super) struct Served {
    pub(super) name: &'static str,
    pub(super) address: Address,
    worker: Worker,
    file: PathBuf,
}

/// Whose processor time the target's is.
#[derive(Debug, Clone, Copy)]
enum Worker {
    /// A process's.
    Process(u32),
    /// That of all of the kernel's threads, whatever else they do.
    Kernel,
}

impl Worker {
    /// The directories of its threads.
    fn threads(self) -> Result<Vec<PathBuf>> {
        let listed = |directory: &str| -> Result<Vec<PathBuf>> {
            let found = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
            found.collect()
        };
        match self {
            Self::Process(pid) => listed(&format!("/proc/{pid}/task")),
            Self::Kernel => {
                Ok(listed("/proc")?.into_iter().filter(|path| is_the_kernels(path)).collect())
            }
        }
    }
}

/// Whether this directory of `/proc` is of a thread of the kernel: a child of its second process.
fn is_the_kernels(path: &Path) -> bool {
    let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
    // The name may have anything in it but this.
    let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
    parent == Some("2")
}

impl Served {
    /// The processor time that its threads took until now.
    pub(super) fn cpu(&self) -> Result<Cpu> {
        let mut threads = HashMap::new();
        for thread in self.worker.threads()? {
            // One that has just ended has none.
            let Ok(stat) = fs::read_to_string(thread.join("schedstat")) else { continue };
            let nanos = stat.split_whitespace().next().context("an empty line of /proc")?;
            threads.insert(thread, nanos.parse()?);
        }
        Ok(Cpu(threads))
    }

    /// Has its file in the page cache, and nothing of it yet to be written.
    pub(super) fn warm(&self) -> Result<()> {
        let mut file = fs::File::open(&self.file)?;
        file.sync_all()?;
        std::io::copy(&mut file, &mut std::io::sink())?;
        Ok(())
    }

    /// The most memory that its process ever had at once.
    pub(super) fn peak_mib(&self) -> Result<f64> {
        let Worker::Process(pid) = self.worker else { bail!("{} is no process", self.name) };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
        Ok(f64::from(kib.parse::<u32>()?) / 1024.0)
    }
}

/// Processor time, in nanoseconds of each thread.
pub(super) struct Cpu(HashMap<PathBuf, u64>);

impl Cpu {
    /// How much more this is. What threads took that have ended since is left out: none ends before
    /// it was idle for seconds.
    pub(super) fn since(&self, before: &Self) -> Duration {
        let more = |(thread, now): (&PathBuf, &u64)| {
            now.saturating_sub(before.0.get(thread).copied().unwrap_or(0))
        };
        Duration::from_nanos(self.0.iter().map(more).sum())
    }
}

/// A drive of a store, full of bytes, that is to be lent.
struct Drive {
    _store: DirectoryStore,
    volume: Arc<dyn Volume>,
    file: PathBuf,
    spec: LendSpec,
}

impl Drive {
    async fn create(directory: &Path) -> Result<Self> {
        let array = DirectoryArray {
            array: "a77a0000-0000-4000-8000-000000000001".parse()?,
            name: "bench".to_owned(),
            path: directory.join("array"),
            capacity: ArrayCapacity::Fixed(LENGTH),
        };
        let spec = DriveSpec {
            drive: "5b0e3c52-0000-4000-8000-000000000001".parse()?,
            array: array.array,
            account: "acc00000-0000-4000-8000-000000000001".parse()?,
            size: LENGTH,
            generation: Generation::new(Era(1), 1),
        };
        fs::create_dir(directory)?;
        let store = DirectoryStore::open(KnownArrays::read(directory)?, vec![array])?;
        store.create(&spec).await?;
        let volume = store.open(spec.drive, Epoch(1)).await?;
        for mib in 0..LENGTH.get() >> 20 {
            volume.write_at(Bytes::try_from(mib << 20)?, vec![1; 1 << 20].into()).await?;
        }
        volume.flush().await?;
        let Some(Attachment::File(file)) = volume.attachment() else { bail!("no file is lent") };
        let lend = LendId { drive: spec.drive, epoch: Epoch(1) };
        let borrower = "5b0e3c52-0000-4000-8000-000000000002".parse()?;
        let (writing, secret) = (Writing::Allowed, Secret::new("a-secret-of-some"));
        let spec = LendSpec { lend, borrower, writing, secret };
        Ok(Self { _store: store, volume, file, spec })
    }

    /// Lends it, and says where.
    async fn lend(&self, lender: &dyn Lend) -> Result<Address> {
        lender.lend(&self.spec, Arc::clone(&self.volume)).await?;
        let LendSpec { lend, borrower, secret, .. } = self.spec.clone();
        Ok((&Borrowing { portal: lender.portal(), lend, borrower, secret }).into())
    }
}

/// Ours.
pub(super) struct Ours {
    served: Served,
    pid: u32,
    _lender: ProcessLender,
    _drive: Drive,
}

impl Ours {
    pub(super) async fn start(program: &Path, directory: &Path) -> Result<Self> {
        let drive = Drive::create(&directory.join("ours")).await?;
        let dir = directory.join("lend");
        let lender = ProcessLender::open(ProcessConfig {
            program: program.to_owned(),
            dir: dir.clone(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            user: Some("nobody".to_owned()),
            scope: Scope::Session,
        })
        .await?;
        let address = drive.lend(&lender).await?;
        let pid = process_with(&dir.join("socket"))?;
        let (worker, file) = (Worker::Process(pid), drive.file.clone());
        let served = Served { name: "ours", address, worker, file };
        Ok(Self { served, pid, _lender: lender, _drive: drive })
    }

    pub(super) fn served(&self) -> &Served {
        &self.served
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The process that has this argument.
fn process_with(argument: &Path) -> Result<u32> {
    let wanted = argument.as_os_str().as_encoded_bytes();
    let found = fs::read_dir("/proc")?.find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        arguments.split(|byte| *byte == 0).any(|argument| argument == wanted).then_some(pid)
    });
    found.context("our target does not run")
}

/// What ours is compared with.
pub(super) enum Peer {
    Tgt(Tgt),
    Lio(Lio),
}

impl Peer {
    pub(super) fn served(&self) -> &Served {
        match self {
            Self::Tgt(Tgt { served, .. }) | Self::Lio(Lio { served, .. }) => served,
        }
    }
}

/// The kernel's target. What it lends is lent until the machine ends, which is one of the lab.
pub(super) struct Lio {
    served: Served,
    _lender: LioLender,
    _drive: Drive,
}

impl Lio {
    pub(super) async fn start(directory: &Path) -> Result<Self> {
        let drive = Drive::create(&directory.join("lio")).await?;
        let lender = LioLender::open(SocketAddr::from((Ipv4Addr::LOCALHOST, 3260))).await?;
        let address = drive.lend(&lender).await?;
        let file = drive.file.clone();
        let served = Served { name: "lio", address, worker: Worker::Kernel, file };
        Ok(Self { served, _lender: lender, _drive: drive })
    }
}

/// Debian's tgt.
pub(super) struct Tgt {
    served: Served,
    tgtd: Child,
}

impl Tgt {
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let file = directory.join("tgt.raw");
        fs::write(&file, vec![1; usize::try_from(LENGTH.get())?])?;
        fs::File::open(&file)?.sync_all()?;
        let portal = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let socket = directory.join("tgtd");
        let mut tgtd = Command::new("/usr/sbin/tgtd");
        tgtd.args(["--foreground", "--iscsi", &format!("portal={portal}")]);
        tgtd.env("TGT_IPC_SOCKET", &socket).stdout(Stdio::null()).stderr(Stdio::null());
        let tgtd = tgtd.spawn().context("starting tgtd")?;
        let own = Credentials {
            user: "iqn.2026-01.org.example:bench".to_owned(),
            secret: Secret::new(""),
        };
        let target = "iqn.2026-01.org.example:tgt".to_owned();
        let address = Address { portal, target, lun: 1, own };
        let tgt = Self {
            served: Served {
                name: "tgt",
                address,
                worker: Worker::Process(tgtd.id()),
                file: file.clone(),
            },
            tgtd,
        };
        let administer = |args: &str| -> Result<()> {
            let mut tgtadm = Command::new("/usr/sbin/tgtadm");
            tgtadm.args(["--lld", "iscsi"]).args(args.split(' ')).env("TGT_IPC_SOCKET", &socket);
            let output = tgtadm.output().context("starting tgtadm")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        let target = &tgt.served.address.target;
        let make = format!("--op new --mode target --tid 1 --targetname {target}");
        for attempt in 0.. {
            match administer(&make) {
                Ok(()) => break,
                Err(error) if attempt == 50 => return Err(error.context("tgtd does not come up")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        let unit = "--mode logicalunit --tid 1 --lun 1";
        administer(&format!("--op new {unit} --backing-store {}", file.display()))?;
        // The caching page with WCE=0, as ours has it: each write is then on the disk first.
        let page = "8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0";
        administer(&format!("--op update {unit} --params mode_page={page}"))?;
        administer("--op bind --mode target --tid 1 --initiator-address ALL")?;
        Ok(tgt)
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        let _ = self.tgtd.kill().and_then(|()| self.tgtd.wait());
    }
}
