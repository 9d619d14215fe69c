//! The hypervisor kit on QEMU, with real guests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::Attachment;
use elasticstack_core::conformance::{
    GuestAct, HypervisorFixture, MachineView, Outcome, Violation,
};
use elasticstack_core::error::{Error, Result};
use elasticstack_core::hypervisor::{
    Access, Device, DriveSlot, Hypervisor, IoLimits, Media, ServerSpec,
};
use elasticstack_core::id::ServerId;
use futures_core::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::{Builder, Runtime};

use crate::guest_code::{self, Command};
use crate::qemu_rig::Machine;

/// The number of the server that can't be started.
const BROKEN: u8 = u8::MAX;

struct QemuFixture {
    machine: Machine,
    servers: Mutex<BTreeMap<u8, ServerSpec>>,
    runtime: Runtime,
}

impl QemuFixture {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { machine: Machine::new(), servers: Mutex::default(), runtime }
    }

    /// The boot disk of a server that was made here.
    fn disk(&self, server: ServerId) -> Result<std::path::PathBuf> {
        let servers = self.servers.lock().unwrap();
        let number = servers.iter().find(|(_, spec)| spec.server == server);
        let (number, _) = number.ok_or_else(|| Error::internal("the kit made no such server"))?;
        Ok(self.machine.disk(&number.to_string()))
    }
}

#[async_trait]
impl MachineView for QemuFixture {
    async fn traces(&self, server: ServerId) -> Result<Vec<String>> {
        let folder = self.machine.runtime_dir().join(server.to_string());
        let folder = folder.exists().then(|| folder.display().to_string());
        let processes = processes(server).into_iter();
        Ok(folder.into_iter().chain(processes.filter_map(with_start_time)).collect())
    }

    async fn plugged(&self, server: ServerId) -> Result<Vec<Device>> {
        Ok(self.machine.plugged(server).await)
    }
}

#[async_trait]
impl HypervisorFixture for QemuFixture {
    async fn start(&self) -> Result<Arc<dyn Hypervisor>> {
        Ok(Arc::new(self.machine.agent().await))
    }

    /// Without a goodbye: the tasks of the old one end when the next one waits for its lock.
    async fn crash(&self, hypervisor: Arc<dyn Hypervisor>) -> Result<()> {
        drop(hypervisor);
        Ok(())
    }

    fn server(&self, number: u8) -> ServerSpec {
        let mut servers = self.servers.lock().unwrap();
        servers.entry(number).or_insert_with(|| self.machine.spec(&number.to_string())).clone()
    }

    fn broken(&self) -> ServerSpec {
        let mut spec = self.server(BROKEN);
        spec.drives[0].attachment = Attachment::File("/nowhere/drive.raw".into());
        spec
    }

    fn spare(&self) -> Option<DriveSlot> {
        let path = self.machine.disk("spare");
        guest_code::make_disk(&path).unwrap();
        Some(DriveSlot {
            device: "block:7".parse().unwrap(),
            media: Media::Disk,
            access: Access::Exclusive,
            attachment: Attachment::File(path),
            limits: IoLimits::default(),
        })
    }

    fn greeting(&self) -> &str {
        "hello\r\n"
    }

    /// Returns when the guest has done it, as seen on the operator's socket.
    async fn act(&self, server: ServerId, act: GuestAct) -> Result<()> {
        let (command, status) = match act {
            GuestAct::PowerOff => (Command::PowerOff, r#""status": "shutdown""#),
            GuestAct::Panic => (Command::Panic, r#""status": "guest-panicked""#),
            GuestAct::Hang => {
                for pid in processes(server) {
                    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
                }
                return Ok(());
            }
            GuestAct::HoldOn => {
                guest_code::command(&self.disk(server)?, Command::Keep).unwrap();
                self.machine.until_read(server).await;
                return Ok(());
            }
            // It does so of itself.
            GuestAct::Read => {
                self.machine.until_read(server).await;
                return Ok(());
            }
        };
        let disk = self.disk(server)?;
        guest_code::command(&disk, command).unwrap();
        self.machine.operator_sees(server, status).await;
        guest_code::command(&disk, Command::Wait).unwrap();
        Ok(())
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    fn block_on(
        &self,
        check: BoxFuture<'_, Result<Outcome, Violation>>,
    ) -> Result<Outcome, Violation> {
        self.runtime.block_on(check)
    }
}

/// Every process that has the server's id on its command line.
fn processes(server: ServerId) -> Vec<i32> {
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    let (server, mut found) = (server.to_string(), Vec::new());
    for pid in pids {
        // One that ended meanwhile has no command line any more.
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&server) {
            found.push(pid);
        }
    }
    found
}

/// A process, by a name that no other one ever has; `None` if it has ended.
fn with_start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field is the program's name, in parentheses, and may hold anything.
    let start = stat.rsplit_once(") ")?.1.split(' ').nth(19)?;
    Some(format!("process {pid} since {start}"))
}

elasticstack_core::hypervisor_conformance! {
    #[ignore = "needs QEMU: cargo xtask test"]
    qemu, QemuFixture::new
}
