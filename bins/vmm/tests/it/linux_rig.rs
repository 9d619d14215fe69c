//! A machine of the lab that runs containers with Linux, and an agent there. Owns what such tests share: the files
//! that the machine needs, the one server, and how its serial log is waited for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{
    Console as _, Hypervisor as _, Observed, Phase, ServerKind, ServerSpec,
};
use elasticstack_core::id::ServerId;
use elasticstack_core::units::{MebiBytes, MegaHertz, VcpuCount};
use elasticstack_host::guests::{Guests, GuestsConfig, Scope};
use elasticstack_host::kvm::Kvm;
use elasticstack_lab::{Lab, Machine};
use tokio::time::{Instant, sleep};

use crate::rig::{Rig, slot};

/// Far more than any step takes on a software processor.
pub(crate) const GUARD: Duration = Duration::from_mins(4);

const PROGRAM: &str = env!("CARGO_BIN_EXE_elasticstack-vmm");
const RUNTIME: &str = "/data/servers";

/// Gives the machine KVM and a bridge, and what it will run.
const PREPARE: &str = "set -e
modprobe kvm_amd || modprobe kvm_intel
modprobe bridge
modprobe tun
ip link add lan type bridge
ip address add 10.88.0.1/24 dev lan
ip link set lan up
mkdir /data/fast
cat $PROGRAM >/dev/null";

/// A machine that runs containers; `guest.raw` in its `/lab` is the root drive of `linux-guest.sh`.
pub(crate) fn boot(lab: &Lab) -> Machine {
    let own = lab.directory(1);
    fs::create_dir_all(&own).unwrap();
    let kit = cache().join("container");
    for file in ["kernel", "initrd.gz"] {
        fs::copy(kit.join(file), own.join(file)).unwrap();
    }
    let mut make = Command::new("bash");
    make.args(["-c", include_str!("linux-guest.sh"), "linux-guest"]);
    let made = make.arg(own.join("guest.raw")).arg(kit.join("initrd.gz")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut machine = lab.boot(1).unwrap();
    machine.run(&format!("PROGRAM={PROGRAM}\n{PREPARE}")).unwrap().ok().unwrap();
    machine
}

/// Where kernels and images are kept.
pub(crate) fn cache() -> PathBuf {
    Path::new(&std::env::var("HOME").unwrap()).join(".cache/elasticstack")
}

/// The agent's part that runs containers.
pub(crate) async fn agent() -> Guests {
    let config = GuestsConfig { runtime_dir: RUNTIME.into(), scope: Scope::Session };
    let vmm = Kvm {
        program: PROGRAM.into(),
        kernel: "/lab/kernel".into(),
        initial_disk: Some("/lab/initrd.gz".into()),
        bridge: "lan".to_owned(),
    };
    Guests::open(config, vmm).await.unwrap()
}

/// The server.
pub(crate) fn server() -> ServerId {
    "5e17e700-0000-4000-8000-000000000001".parse().unwrap()
}

/// It, with one processor and this root drive.
pub(crate) fn container(root: &str) -> ServerSpec {
    ServerSpec {
        server: server(),
        kind: ServerKind::Container,
        cpu: MegaHertz(1000),
        vcpus: VcpuCount::for_cpu(MegaHertz(1000)),
        memory: MebiBytes(256),
        drives: vec![slot("block:0", root)],
        boot: vec![],
        nics: vec![],
        screen: None,
        seed: None,
    }
}

/// What it is seen as in a run.
pub(crate) fn observed(run: Run, phase: Phase) -> [Observed; 1] {
    [Observed { server: server(), run, phase }]
}

/// All that the server said.
pub(crate) async fn serial(guests: &Guests) -> String {
    String::from_utf8_lossy(&guests.serial(server()).await.unwrap()).into_owned()
}

/// Waits until it has said this so many times; answers with all that it said.
pub(crate) async fn until_said(guests: &Guests, line: &str, times: usize) -> String {
    let began = Instant::now();
    loop {
        let said = serial(guests).await;
        if said.matches(line).count() >= times {
            return said;
        }
        let observed = guests.observe().await.unwrap();
        let runs = observed.iter().any(|observed| observed.phase == Phase::Running);
        if !runs || began.elapsed() > GUARD {
            // Why a process was ended, the kernel says.
            let log = format!("{RUNTIME}/{}/vmm.log", server());
            let mut why = Command::new("sh");
            why.args(["-c", &format!("cat {log}; dmesg | tail -n 9")]);
            let why = String::from_utf8(why.output().unwrap().stdout).unwrap();
            panic!("{line:?}, never: {said}{observed:?} {why}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Nothing of the server is left on the machine: no process, no file, no interface.
pub(crate) fn nothing_is_left() {
    assert_eq!(Rig::processes(server()), Vec::<i32>::new());
    let names = |directory: &str| {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    assert_eq!(names("/sys/class/net").filter(|name| name.starts_with("guest")).count(), 0);
    assert!(names(RUNTIME).all(|name| name != server().to_string()), "its directory is left");
}
