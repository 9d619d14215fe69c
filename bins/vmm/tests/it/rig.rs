//! Where guests of one test run, and how they are asked without the agent.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use elasticstack_core::block::Attachment;
use elasticstack_core::hypervisor::{Access, DriveSlot, IoLimits, Media, ServerKind, ServerSpec};
use elasticstack_core::id::ServerId;
use elasticstack_core::units::{MebiBytes, MegaHertz, VcpuCount};
use elasticstack_host::guests::{Guests, GuestsConfig, Scope};
use elasticstack_host::kvm::Kvm;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::guest_code;

/// Far more than any step takes, so that only a step that never ends fails.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

/// A runtime directory, drives, and a kernel. Kills what is left at its end.
pub(crate) struct Rig {
    folder: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        guest_code::make_kernel(&folder.path().join("kernel")).unwrap();
        Self { folder }
    }

    /// What an agent has.
    pub(crate) async fn agent(&self) -> Guests {
        let config = GuestsConfig { runtime_dir: self.runtime_dir(), scope: Scope::Session };
        Guests::open(config, self.vmm()).await.unwrap()
    }

    /// What runs the guests.
    pub(crate) fn vmm(&self) -> Kvm {
        Kvm {
            program: env!("CARGO_BIN_EXE_elasticstack-vmm").into(),
            kernel: self.folder.path().join("kernel"),
            initial_disk: None,
            bridge: "none".to_owned(),
        }
    }

    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.folder.path().join("servers")
    }

    pub(crate) fn drive(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.raw"))
    }

    /// A server with one drive of its own, which its guest hears commands from.
    pub(crate) fn server(&self, number: u8) -> ServerSpec {
        let path = self.drive(&number.to_string());
        guest_code::make_drive(&path).unwrap();
        // Its own: tests run side by side, and processes are found by it.
        let server = ServerId::from_uuid(uuid::Uuid::new_v4());
        container(server, MegaHertz(500), MebiBytes(16), path)
    }

    /// Waits until the guest's process says over QMP what has this in it.
    pub(crate) fn until_said(&self, server: ServerId, command: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let said = self.ask(server, command);
            if said.contains(wanted) {
                return;
            }
            assert!(began.elapsed() < GUARD, "{wanted}, never: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the guest's process answers to a command over QMP.
    fn ask(&self, server: ServerId, command: &str) -> String {
        // A socket's path is short, so it is not by the directory's own name.
        let directory = fs::File::open(self.runtime_dir().join(server.to_string())).unwrap();
        let path = format!("/proc/self/fd/{}/qmp", std::os::fd::AsRawFd::as_raw_fd(&directory));
        let mut stream = UnixStream::connect(path).unwrap();
        for command in ["qmp_capabilities", command] {
            writeln!(stream, "{{\"execute\": \"{command}\"}}").unwrap();
        }
        let lines = BufReader::new(stream).lines().map(|line| line.unwrap());
        // The greeting, and the answer to the first.
        lines.filter(|line| !line.contains("\"event\"")).nth(2).unwrap()
    }

    /// Every process that has the server's id on its command line.
    pub(crate) fn processes(server: ServerId) -> Vec<i32> {
        let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let pids = names.filter_map(|name| name.to_str()?.parse().ok());
        let server = server.to_string();
        let is_its = |pid: &i32| {
            // One that ended meanwhile has no command line any more.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&server)
        };
        pids.filter(is_its).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let servers = fs::read_dir(self.runtime_dir()).into_iter().flatten().flatten();
        for name in servers.filter_map(|entry| entry.file_name().into_string().ok()) {
            let Ok(server) = name.parse() else { continue };
            for pid in Self::processes(server) {
                // It may have ended meanwhile.
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

/// A container with one drive and nothing else.
pub(crate) fn container(
    server: ServerId,
    cpu: MegaHertz,
    memory: MebiBytes,
    root: impl AsRef<Path>,
) -> ServerSpec {
    ServerSpec {
        server,
        kind: ServerKind::Container,
        cpu,
        vcpus: VcpuCount::for_cpu(cpu),
        memory,
        drives: vec![slot("block:0", root)],
        boot: vec![],
        nics: vec![],
        screen: None,
        seed: None,
    }
}

pub(crate) fn slot(device: &str, path: impl AsRef<Path>) -> DriveSlot {
    DriveSlot {
        device: device.parse().unwrap(),
        media: Media::Disk,
        access: Access::Exclusive,
        attachment: Attachment::File(path.as_ref().to_owned()),
        limits: IoLimits::default(),
    }
}
