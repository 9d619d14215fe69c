//! The hypervisor kit, with real guests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::Attachment;
use elasticstack_core::conformance::{
    GuestAct, HypervisorFixture, MachineView, Outcome, Violation,
};
use elasticstack_core::error::{Error, Result};
use elasticstack_core::hypervisor::{Hypervisor, ServerSpec};
use elasticstack_core::id::ServerId;
use futures_core::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::{Builder, Runtime};

use crate::guest_code::{self, Command};
use crate::rig::Rig;

/// The number of the server that can't be started.
const BROKEN: u8 = u8::MAX;

struct KvmFixture {
    rig: Rig,
    servers: Mutex<BTreeMap<u8, ServerSpec>>,
    runtime: Runtime,
}

impl KvmFixture {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { rig: Rig::new(), servers: Mutex::default(), runtime }
    }

    /// The drive of a server that was made here.
    fn drive(&self, server: ServerId) -> Result<PathBuf> {
        let servers = self.servers.lock().unwrap();
        let number = servers.iter().find(|(_, spec)| spec.server == server);
        let (number, _) = number.ok_or_else(|| Error::internal("the kit made no such server"))?;
        Ok(self.rig.drive(&number.to_string()))
    }
}

#[async_trait]
impl MachineView for KvmFixture {
    async fn traces(&self, server: ServerId) -> Result<Vec<String>> {
        let folder = self.rig.runtime_dir().join(server.to_string());
        let folder = folder.exists().then(|| folder.display().to_string());
        let processes = Rig::processes(server).into_iter();
        Ok(folder.into_iter().chain(processes.filter_map(with_start_time)).collect())
    }
}

#[async_trait]
impl HypervisorFixture for KvmFixture {
    async fn start(&self) -> Result<Arc<dyn Hypervisor>> {
        Ok(Arc::new(self.rig.agent().await))
    }

    /// Without a goodbye: the tasks of the old one end when the next one waits for its lock.
    async fn crash(&self, hypervisor: Arc<dyn Hypervisor>) -> Result<()> {
        drop(hypervisor);
        Ok(())
    }

    fn server(&self, number: u8) -> ServerSpec {
        let mut servers = self.servers.lock().unwrap();
        servers.entry(number).or_insert_with(|| self.rig.server(number)).clone()
    }

    fn broken(&self) -> ServerSpec {
        let mut spec = self.server(BROKEN);
        spec.drives[0].attachment = Attachment::File("/nowhere/drive.raw".into());
        spec
    }

    fn greeting(&self) -> &str {
        "hello\r\n"
    }

    fn can(&self, act: GuestAct) -> bool {
        // No drive of it comes or goes.
        act != GuestAct::HoldOn
    }

    /// Returns when the guest has done it, as its process says.
    async fn act(&self, server: ServerId, act: GuestAct) -> Result<()> {
        let (command, status) = match act {
            GuestAct::PowerOff => (Command::PowerOff, r#""status":"shutdown""#),
            GuestAct::Panic => (Command::Panic, r#""status":"guest-panicked""#),
            GuestAct::Hang => {
                for pid in Rig::processes(server) {
                    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
                }
                return Ok(());
            }
            // It does so of itself, over and over.
            GuestAct::Read => {
                self.rig.until_said(server, "query-blockstats", r#""rd_operations":1"#);
                return Ok(());
            }
            GuestAct::HoldOn => return Err(Error::internal("it has nothing to hold on to")),
        };
        let drive = self.drive(server)?;
        guest_code::command(&drive, command).unwrap();
        self.rig.until_said(server, "query-status", status);
        guest_code::command(&drive, Command::Wait).unwrap();
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

/// A process, by a name that no other one ever has; `None` if it has ended.
fn with_start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The second field is the program's name, in parentheses, and may hold anything.
    let start = stat.rsplit_once(") ")?.1.split(' ').nth(19)?;
    Some(format!("process {pid} since {start}"))
}

elasticstack_core::hypervisor_conformance! {
    #[ignore = "needs /dev/kvm: cargo xtask test"]
    by_dev_kvm, KvmFixture::new
}
