//! A machine of the lab that runs containers with Linux, and an agent there. Owns what such tests share: the files
//! that the machine needs, the one server, and how its serial log is waited for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{
    Console as _, EndCause, Hypervisor as _, Observed, Phase, ServerSpec, Signal,
};
use elasticstack_core::id::ServerId;
use elasticstack_core::units::{MebiBytes, MegaHertz};
use elasticstack_host::guests::{Guests, GuestsConfig, Scope};
use elasticstack_host::kvm::Kvm;
use elasticstack_lab::{Lab, Machine};
use tokio::time::{Instant, sleep};

use crate::rig::Rig;

/// Far more than any step takes on a software processor.
const GUARD: Duration = Duration::from_mins(4);

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

/// Makes the root drive of `linux-guest.sh`, which is `/lab/guest.raw` on the machine.
pub(crate) fn make_root(lab: &Lab) {
    let own = lab.directory(1);
    fs::create_dir_all(&own).unwrap();
    let mut make = Command::new("bash");
    make.args(["-c", include_str!("linux-guest.sh"), "linux-guest"]);
    make.arg(own.join("guest.raw")).arg(cache().join("container/initrd.gz"));
    let made = make.output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A machine that runs containers.
pub(crate) fn boot(lab: &Lab) -> Machine {
    let own = lab.directory(1);
    fs::create_dir_all(&own).unwrap();
    let kit = cache().join("container");
    for file in ["kernel", "initrd.gz"] {
        fs::copy(kit.join(file), own.join(file)).unwrap();
    }
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
    crate::rig::container(server(), MegaHertz(1000), MebiBytes(256), root)
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

/// Ends the server by its power button.
pub(crate) async fn shut_down(guests: &Guests, run: Run) {
    guests.signal(server(), Signal::PowerButton).await.unwrap();
    let began = Instant::now();
    while guests.observe().await.unwrap() != observed(run, Phase::Ended(EndCause::Guest)) {
        assert!(began.elapsed() < GUARD, "it does not hear it: {}", serial(guests).await);
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
