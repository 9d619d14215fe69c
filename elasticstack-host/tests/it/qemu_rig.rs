//! What the tests of the QEMU hypervisor share: a machine with a runtime directory and disks of its
//! own, and a hypervisor on it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use elasticstack_core::block::Attachment;
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{
    Access, Console, Device, DriveSlot, Hypervisor, IoLimits, Media, Observed, Phase, ServerKind,
    ServerSpec,
};
use elasticstack_core::id::ServerId;
use elasticstack_core::units::{MebiBytes, MegaHertz, VcpuCount};
use elasticstack_host::guests::{Guests, GuestsConfig, Scope};
use elasticstack_host::qemu::{Accelerator, Qemu};
use elasticstack_host::sys::process::Process;
use futures_util::StreamExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::guest_code;

/// Far more than any step takes, so that only a step that never ends fails.
const GUARD: Duration = Duration::from_secs(120);

/// Where guests of one test run: a runtime directory, disks, and how to run QEMU. Kills what is left
/// at its end.
pub(crate) struct Machine {
    folder: TempDir,
    pub(crate) config: GuestsConfig,
    pub(crate) vmm: Qemu,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with_program("#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n")
    }

    /// Runs QEMU through a script. Its directory's name is longer than a socket's may be.
    pub(crate) fn with_program(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let runtime_dir = folder.path().join("a-long-name".repeat(12));
        let config = GuestsConfig { runtime_dir, scope: Scope::Session };
        Self { folder, config, vmm: Qemu { program, accelerator: Accelerator::detect().0 } }
    }

    /// What runs the guests.
    pub(crate) async fn agent(&self) -> Guests {
        Guests::open(self.config.clone(), self.vmm.clone()).await.unwrap()
    }

    pub(crate) fn runtime_dir(&self) -> &Path {
        &self.config.runtime_dir
    }

    /// The path of a disk of this machine's.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.raw"))
    }

    /// A small server with one new disk that boots [`guest_code`].
    pub(crate) fn spec(&self, disk: &str) -> ServerSpec {
        let path = self.disk(disk);
        guest_code::make_disk(&path).unwrap();
        let number = fs::read_dir(self.folder.path()).unwrap().count();
        ServerSpec {
            server: format!("5b0e3c52-0000-4000-8000-{:08x}{number:04x}", std::process::id())
                .parse()
                .unwrap(),
            kind: ServerKind::Vm,
            cpu: MegaHertz(2_000),
            vcpus: VcpuCount::for_cpu(MegaHertz(2_000)),
            memory: MebiBytes(32),
            drives: vec![DriveSlot {
                device: "ide:0:0".parse().unwrap(),
                media: Media::Disk,
                access: Access::Exclusive,
                attachment: Attachment::File(path),
                limits: IoLimits::default(),
            }],
            boot: vec![],
            nics: vec![],
            screen: None,
            seed: None,
        }
    }

    /// Waits until QEMU says so on the operator's socket.
    pub(crate) async fn operator_sees(&self, server: ServerId, words: &str) {
        let folder = File::open(self.runtime_dir().join(server.to_string())).unwrap();
        let folder = format!("{}/operator.qmp", folder.as_raw_fd());
        let path = Path::new("/proc/self/fd").join(folder);
        let mut socket = BufReader::new(UnixStream::connect(path).await.unwrap());
        socket.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await.unwrap();
        let seen = async {
            let mut line = String::new();
            while !line.contains(words) {
                socket.write_all(b"{\"execute\":\"query-status\"}\n").await.unwrap();
                line.clear();
                socket.read_line(&mut line).await.unwrap();
            }
        };
        timeout(GUARD, seen).await.expect("QEMU never says so");
    }

    /// What QEMU answers on the operator's socket.
    pub(crate) async fn operator_asks(&self, server: ServerId, command: &str) -> Value {
        let folder = File::open(self.runtime_dir().join(server.to_string())).unwrap();
        let folder = format!("{}/operator.qmp", folder.as_raw_fd());
        let path = Path::new("/proc/self/fd").join(folder);
        let mut socket = BufReader::new(UnixStream::connect(path).await.unwrap());
        let answered = async {
            for command in ["qmp_capabilities", command] {
                let line = format!("{{\"execute\":\"{command}\",\"id\":\"{command}\"}}\n");
                socket.write_all(line.as_bytes()).await.unwrap();
            }
            loop {
                let mut line = String::new();
                assert!(socket.read_line(&mut line).await.unwrap() > 0, "QEMU hung up");
                let mut message: Value = serde_json::from_str(&line).unwrap();
                if message["id"] == command {
                    return message["return"].take();
                }
            }
        };
        timeout(GUARD, answered).await.expect("QEMU never answers")
    }

    /// Where drives are plugged in to a guest.
    pub(crate) async fn plugged(&self, server: ServerId) -> Vec<Device> {
        let answer = self.operator_asks(server, "query-block").await;
        let names = answer.as_array().unwrap().iter();
        let names = names.filter_map(|entry| entry["inserted"]["node-name"].as_str());
        names.filter_map(|name| name.replace('-', ":").parse().ok()).collect()
    }

    /// Waits until the guest has read its disk anew, twice.
    pub(crate) async fn until_read(&self, server: ServerId) {
        let reads = async || {
            let answer = self.operator_asks(server, "query-blockstats").await;
            let stats = answer.as_array().unwrap().iter();
            let reads = stats.map(|entry| entry["stats"]["rd_operations"].as_u64().unwrap());
            reads.sum::<u64>()
        };
        let before = reads().await;
        let read = async {
            while reads().await < before + 2 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(GUARD, read).await.expect("the guest reads no more");
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, holds: impl Fn() -> bool) {
        let seen = async {
            while !holds() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(GUARD, seen).await.expect("it never holds");
    }

    pub(crate) fn process(&self, spec: &ServerSpec, run: Run) -> Option<Process> {
        let lock = self.runtime_dir().join(spec.server.to_string()).join("lock");
        let name = format!("{}.{run}", spec.server);
        Process::with_stdin(&fs::metadata(lock).ok()?, &name).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.runtime_dir()).into_iter().flatten().flatten() {
            let Ok(lock) = fs::metadata(entry.path().join("lock")) else { continue };
            for run in 0..10 {
                let name = format!("{}.{run}", entry.file_name().display());
                if let Ok(Some(process)) = Process::with_stdin(&lock, &name) {
                    let _ = process.kill();
                }
            }
        }
    }
}

/// A hypervisor on a machine of its own.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) qemu: Guests,
}

impl Rig {
    pub(crate) async fn open() -> Self {
        Self::on(Machine::new()).await
    }

    /// Runs QEMU through a script.
    pub(crate) async fn with_program(script: &str) -> Self {
        Self::on(Machine::with_program(script)).await
    }

    /// Puts guests elsewhere.
    pub(crate) async fn with_scope(scope: Scope) -> Self {
        let mut machine = Machine::new();
        machine.config.scope = scope;
        Self::on(machine).await
    }

    async fn on(machine: Machine) -> Self {
        let qemu = machine.agent().await;
        Self { machine, qemu }
    }

    pub(crate) async fn reopen(&mut self) {
        self.reopen_after(async |_| {}).await;
    }

    /// Ends this agent, does something meanwhile, and begins the next one.
    pub(crate) async fn reopen_after(&mut self, meanwhile: impl AsyncFnOnce(&Machine)) {
        let elsewhere = self.machine.folder.path().join("elsewhere");
        let nothing = GuestsConfig { runtime_dir: elsewhere, ..self.machine.config.clone() };
        let idle = Guests::open(nothing, self.machine.vmm.clone()).await.unwrap();
        std::mem::replace(&mut self.qemu, idle).close().await;
        meanwhile(&self.machine).await;
        self.qemu = self.machine.agent().await;
    }

    pub(crate) async fn observe(&self) -> Vec<(ServerId, Run, Phase)> {
        let seen = self.qemu.observe().await.unwrap();
        seen.into_iter().map(|Observed { server, run, phase }| (server, run, phase)).collect()
    }

    /// Waits, woken by nothing but events, until the server is seen in `phase`.
    pub(crate) async fn until(&self, spec: &ServerSpec, phase: Phase) {
        let mut events = self.qemu.events();
        let seen = async {
            while !self.observe().await.iter().any(|seen| (seen.0, seen.2) == (spec.server, phase))
            {
                events.next().await;
            }
        };
        if timeout(GUARD, seen).await.is_err() {
            panic!("never {phase:?}: {:?}", self.observe().await);
        }
    }

    /// Waits until the guest has written exactly this.
    pub(crate) async fn until_serial(&self, spec: &ServerSpec, expected: &[u8]) {
        let mut serial = Vec::new();
        let written = async {
            while serial != expected {
                sleep(Duration::from_millis(20)).await;
                serial = self.qemu.serial(spec.server).await.unwrap();
            }
        };
        if timeout(GUARD, written).await.is_err() {
            panic!("the guest wrote {:?}", String::from_utf8_lossy(&serial));
        }
    }

    pub(crate) async fn assert_nothing_left(&self) {
        assert_eq!(self.observe().await, []);
        let names = fs::read_dir(self.machine.runtime_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [OsString::from("agent.lock")]);
    }
}
