//! `bench boot`: how long a container takes from the start of its process to its init, and what the process
//! takes beside the guest's own memory. Beside it is QEMU as `q35` and as `microvm`, with the same kernel,
//! RAM disk and root drive, held by the same agent's code, in turns. Ours tells the kernel beside that there is no PCI.
//!
//! Runs where KVM runs such a kernel: on a machine of the lab.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use elasticstack_core::block::Attachment;
use elasticstack_core::hypervisor::{
    Access, Console as _, DriveSlot, Hypervisor as _, IoLimits, Media, ServerKind, ServerSpec,
};
use elasticstack_core::prelude::*;
use elasticstack_host::guests::{Guests, GuestsConfig, Launch, Scope, Vmm, process_name};
use elasticstack_host::kvm::Kvm;
use uuid::Uuid;

use crate::by_hand::process_with;
use crate::footprint;
use crate::table::{Pairs, Row, Table, Verdict};

/// What `tiny-root` says first (docs/tiny.md).
const UP: &str = "tiny: up";
/// How long a guest may take to say so.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often it is asked, which takes its processor from it.
const POLL: Duration = Duration::from_millis(50);

const MEMORY: MebiBytes = MebiBytes(256);

/// What a container's kernel is told too.
const COMMAND_LINE: &str = "console=ttyS0 quiet cryptomgr.notests panic=-1 rw root=/dev/vda";

/// Ours may take this part of what `q35` takes.
const Q35_GOAL: f64 = 1.0 / 3.0;
/// And this part of `microvm`.
const MICROVM_GOAL: f64 = 1.0;
/// Beyond the guest's memory.
const MEMORY_GOAL_MIB: f64 = 8.0;

/// What is booted, and by what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// `elasticstack-vmm`
    #[arg(long)]
    vmm: PathBuf,
    #[arg(long)]
    kernel: PathBuf,
    #[arg(long)]
    initial_disk: PathBuf,
    /// A raw drive with `tiny-root`
    #[arg(long)]
    root: PathBuf,
    /// How often each is booted
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// An empty directory
    #[arg(long)]
    directory: PathBuf,
}

/// Measures, prints, and fails if a goal is missed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let ours = Kvm {
        program: args.vmm.clone(),
        kernel: args.kernel.clone(),
        initial_disk: Some(args.initial_disk.clone()),
        bridge: "none".to_owned(),
    };
    let peer = |model| Peer {
        model,
        kernel: args.kernel.clone(),
        initial_disk: args.initial_disk.clone(),
    };
    let ours = Booter::open(args, "ours", ours).await?;
    let q35 = Booter::open(args, "q35", peer(&Q35)).await?;
    let microvm = Booter::open(args, "microvm", peer(&MICROVM)).await?;
    let (mut beside_q35, mut beside_microvm) = (Pairs::default(), Pairs::default());
    let mut largest = [0.0_f64; 3];
    for round in 0..=args.rounds {
        let mut took = [Duration::ZERO; 3];
        for (at, booter) in [&ours, &q35, &microvm].into_iter().enumerate() {
            let booted = booter.boot(Run(u64::from(round) + 1)).await?;
            println!("  round {round}: {}: {booted}", booter.name);
            took[at] = booted.took;
            largest[at] = largest[at].max(booted.beside_mib);
        }
        let [ours, q35, microvm] = took;
        // In the first, whatever is done once is done.
        if round > 0 {
            beside_q35.push(ours, q35);
            beside_microvm.push(ours, microvm);
        }
    }
    report(&beside_q35, &beside_microvm, largest).judge()
}

fn report(beside_q35: &Pairs, beside_microvm: &Pairs, [ours, q35, microvm]: [f64; 3]) -> Table {
    let row = |peer: &str, pairs: &Pairs, goal: f64| Row {
        what: format!("a container's init runs, beside {peer}'s"),
        ours: format!("{:.0} ms", pairs.ours()),
        peers: format!("{:.0} ms", pairs.peers()),
        compared: format!("x{:.2}", pairs.ratio()),
        goal: format!("at most x{goal:.2}"),
        verdict: Verdict::at_most(pairs.ratio(), goal),
    };
    Table(vec![
        row("q35", beside_q35, Q35_GOAL),
        row("microvm", beside_microvm, MICROVM_GOAL),
        Row {
            what: "memory beyond the guest's own".to_owned(),
            ours: format!("{ours:.1} MiB"),
            peers: format!("{q35:.1}, {microvm:.1} MiB"),
            compared: String::new(),
            goal: format!("at most {MEMORY_GOAL_MIB} MiB"),
            verdict: Verdict::at_most(ours, MEMORY_GOAL_MIB),
        },
    ])
}

/// One way to boot the same guest.
struct Booter {
    name: &'static str,
    /// What its root drive is a copy of, so that none has a journal of the boot before to go through.
    image: PathBuf,
    root: PathBuf,
    guests: Guests,
}

/// How it went.
struct Booted {
    took: Duration,
    beside_mib: f64,
}

impl std::fmt::Display for Booted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} s, {:.1} MiB", self.took.as_secs_f64(), self.beside_mib)
    }
}

impl Booter {
    async fn open(args: &Args, name: &'static str, vmm: impl Vmm + 'static) -> Result<Self> {
        let config = GuestsConfig { runtime_dir: args.directory.join(name), scope: Scope::Session };
        let guests = Guests::open(config, vmm).await?;
        let (image, root) = (args.root.clone(), args.directory.join(format!("{name}.raw")));
        Ok(Self { name, image, root, guests })
    }

    async fn boot(&self, run: Run) -> Result<Booted> {
        fs::copy(&self.image, &self.root).context("copy the root drive")?;
        let spec = spec(&self.root)?;
        let began = Instant::now();
        self.guests.ensure(&spec, run).await?;
        while !self.is_up(spec.server).await? {
            ensure!(began.elapsed() < PATIENCE, "{} is not up: see its serial log", self.name);
            tokio::time::sleep(POLL).await;
        }
        let took = began.elapsed();
        let beside =
            footprint::pss_beside(process_with(&process_name(spec.server, run))?.0, MEMORY)?;
        self.guests.remove(spec.server).await?;
        Ok(Booted { took, beside_mib: f64::from(beside) / 1024.0 })
    }

    async fn is_up(&self, server: ServerId) -> Result<bool> {
        let said = self.guests.serial(server).await?;
        Ok(String::from_utf8_lossy(&said).contains(UP))
    }
}

fn spec(root: &Path) -> Result<ServerSpec> {
    Ok(ServerSpec {
        server: ServerId::from_uuid(Uuid::from_u128(1)),
        kind: ServerKind::Container,
        cpu: MegaHertz(1_000),
        vcpus: VcpuCount::for_cpu(MegaHertz(1_000)),
        memory: MEMORY,
        drives: vec![DriveSlot {
            device: "block:0".parse()?,
            media: Media::Disk,
            access: Access::Exclusive,
            attachment: Attachment::File(root.to_owned()),
            limits: IoLimits::default(),
        }],
        boot: vec![],
        nics: vec![],
        screen: None,
        seed: None,
    })
}

/// A machine of QEMU's, with no more than a container has.
#[derive(Debug)]
struct Model {
    machine: &'static str,
    /// The device of the root drive.
    drive: &'static str,
}

const Q35: Model = Model { machine: "q35", drive: "virtio-blk-pci" };

/// As QEMU's own page on it says that it is quickest, but for the serial port.
const MICROVM: Model = Model {
    machine: "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on",
    drive: "virtio-blk-device",
};

/// QEMU as such a machine.
#[derive(Debug)]
struct Peer {
    model: &'static Model,
    kernel: PathBuf,
    initial_disk: PathBuf,
}

impl Vmm for Peer {
    fn launch(
        &self,
        spec: &ServerSpec,
        run: Run,
        _screen: Option<Ipv4Addr>,
    ) -> elasticstack_core::error::Result<Launch> {
        let text = |path: &Path| path.display().to_string();
        let [DriveSlot { attachment: Attachment::File(root), .. }] = &spec.drives[..] else {
            return Err(Error::internal("the bench has one drive"));
        };
        let drive = format!("driver=file,node-name=block-0,filename={}", text(root));
        let device = format!("{},drive=block-0", self.model.drive);
        let (memory, vcpus) = (spec.memory.0, spec.vcpus);
        let options = [
            ("-name", process_name(spec.server, run)),
            ("-machine", self.model.machine.to_owned()),
            ("-accel", "kvm".to_owned()),
            ("-cpu", "host".to_owned()),
            ("-smp", vcpus.to_string()),
            ("-m", format!("{memory}M")),
            ("-display", "none".to_owned()),
            ("-action", "shutdown=pause,panic=pause".to_owned()),
            ("-qmp", "unix:qmp,server=on,wait=off".to_owned()),
            ("-chardev", "ringbuf,id=serial0,size=65536".to_owned()),
            ("-serial", "chardev:serial0".to_owned()),
            ("-kernel", text(&self.kernel)),
            ("-initrd", text(&self.initial_disk)),
            ("-append", COMMAND_LINE.to_owned()),
            ("-blockdev", drive),
            ("-device", device),
        ];
        let options = options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
        let flags = ["-no-user-config", "-nodefaults", "-S"].map(str::to_owned);
        Ok(Launch {
            program: "qemu-system-x86_64".into(),
            arguments: flags.into_iter().chain(options).collect(),
            environment: Vec::new(),
            files: Vec::new(),
        })
    }

    fn reason(&self, _last_words: &str) -> Option<&'static str> {
        None
    }
}
