//! What the start of a server takes on a drive that is lent to it, beside one on a local drive: the
//! same QEMU, the same store, and our target on loopback, so that no network's delay is in it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use elasticstack_core::block::{
    Attachment, BlockStore as _, Borrowing, DriveSpec, Lend as _, LendId, LendSpec, Writing,
};
use elasticstack_core::hypervisor::{
    Access, DriveSlot, Hypervisor as _, IoLimits, Media, ServerKind, ServerSpec,
};
use elasticstack_core::prelude::*;
use elasticstack_host::guests::{Guests, GuestsConfig, Scope};
use elasticstack_host::lend::InProcessLender;
use elasticstack_host::qemu::{Accelerator, Qemu};
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::table::Pairs;

const SIZE: Bytes = Bytes::from_mib(64);
const EPOCH: Epoch = Epoch(1);

/// Starts so many servers on a lent drive and as many on a local one, in turns.
pub(crate) async fn starts(count: usize) -> Result<Pairs> {
    let directory = tempfile::tempdir()?;
    let host = Host::open(directory.path()).await?;
    let (lent, local) = (host.create(1).await?, host.create(2).await?);
    let (mut runs, mut pairs) = (1.., Pairs::default());
    let mut next = || runs.next().map(Run).context("out of runs");
    // Not counted: whatever is done once is done now.
    host.start_on_lent(lent, next()?).await?;
    host.start_on_local(local, next()?).await?;
    for pair in 0..count {
        let (ours, peers);
        if pair % 2 == 0 {
            ours = host.start_on_lent(lent, next()?).await?;
            peers = host.start_on_local(local, next()?).await?;
        } else {
            peers = host.start_on_local(local, next()?).await?;
            ours = host.start_on_lent(lent, next()?).await?;
        }
        pairs.push(ours, peers);
    }
    host.guests.close().await;
    Ok(pairs)
}

/// One that lends to itself.
struct Host {
    store: DirectoryStore,
    lender: InProcessLender,
    guests: Guests,
}

impl Host {
    async fn open(directory: &Path) -> Result<Self> {
        let array = DirectoryArray {
            array: ArrayId::from_uuid(Uuid::from_u128(1)),
            name: "bench".to_owned(),
            path: directory.join("array"),
            capacity: ArrayCapacity::Fixed(Bytes::from_gib(1)),
        };
        let store = DirectoryStore::open(KnownArrays::read(directory)?, vec![array])?;
        let lender = InProcessLender::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)?;
        let config = GuestsConfig { runtime_dir: directory.join("servers"), scope: Scope::Session };
        let accelerator = Accelerator::detect().0;
        let qemu = Qemu { program: "qemu-system-x86_64".into(), accelerator };
        Ok(Self { store, lender, guests: Guests::open(config, qemu).await? })
    }

    async fn create(&self, number: u128) -> Result<DriveId> {
        let spec = DriveSpec {
            drive: DriveId::from_uuid(Uuid::from_u128(number)),
            array: ArrayId::from_uuid(Uuid::from_u128(1)),
            account: AccountId::from_uuid(Uuid::from_u128(1)),
            size: SIZE,
            generation: Generation::new(Era(1), 1),
        };
        self.store.create(&spec).await?;
        self.store.fence(spec.drive, EPOCH).await?;
        Ok(spec.drive)
    }

    async fn start_on_local(&self, drive: DriveId, run: Run) -> Result<Duration> {
        let began = Instant::now();
        let volume = self.store.open(drive, EPOCH).await?;
        let file = volume.attachment().context("the drive is no file")?;
        self.start(file, run, began).await
    }

    async fn start_on_lent(&self, drive: DriveId, run: Run) -> Result<Duration> {
        let lend = LendId { drive, epoch: EPOCH };
        let (borrower, secret) = (server(), Secret::new("only-this-bench-knows"));
        let spec = LendSpec { lend, borrower, writing: Writing::Allowed, secret: secret.clone() };
        let began = Instant::now();
        self.lender.lend(&spec, self.store.open(drive, EPOCH).await?).await?;
        let portal = self.lender.portal();
        let borrowing = Attachment::Iscsi(Borrowing { portal, lend, borrower, secret });
        let took = self.start(borrowing, run, began).await?;
        self.lender.withdraw(lend).await?;
        Ok(took)
    }

    /// Starts a server and ends it; answers how long it was until its processors ran.
    async fn start(&self, attachment: Attachment, run: Run, began: Instant) -> Result<Duration> {
        let (media, access) = (Media::Disk, Access::Exclusive);
        let limits = IoLimits::default();
        let spec = ServerSpec {
            server: server(),
            kind: ServerKind::Vm,
            cpu: MegaHertz(2_000),
            vcpus: VcpuCount::for_cpu(MegaHertz(2_000)),
            memory: MebiBytes(1_024),
            drives: vec![DriveSlot {
                device: "ide:0:0".parse()?,
                media,
                access,
                attachment,
                limits,
            }],
            boot: vec![],
            nics: vec![],
            screen: None,
            seed: None,
        };
        self.guests.ensure(&spec, run).await?;
        let took = began.elapsed();
        self.guests.remove(spec.server).await?;
        Ok(took)
    }
}

fn server() -> ServerId {
    ServerId::from_uuid(Uuid::from_u128(1))
}
