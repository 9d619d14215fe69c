//! The rounds of fencing on the process that lends: it outlives the agent's kills, and is killed itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "a journal is for who loses the power of a whole machine")]
#[path = "../../../elasticstack-host/tests/it/fencing.rs"]
mod fencing;
#[path = "../../../elasticstack-host/tests/it/fencing_judge.rs"]
mod fencing_judge;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Borrowing, Volume};
use elasticstack_core::prelude::*;
use elasticstack_host::guests::Scope;
use elasticstack_host::iscsi::initiator::Initiator;
use elasticstack_host::lend::{ProcessConfig, ProcessLender};
use rustix::process::{Pid, Signal, kill_process};

use fencing::{Agent, Desk, Dice, Ground, array, count, drive, open_store, rounds};

struct Process {
    root: PathBuf,
    listen: SocketAddr,
}

#[async_trait]
impl Ground for Process {
    async fn agent(&self) -> Agent {
        let store = open_store(&self.root).await;
        let lender = ProcessLender::open(ProcessConfig {
            program: env!("CARGO_BIN_EXE_elasticstack-target").into(),
            dir: self.root.join("lend"),
            listen: self.listen,
            user: None,
            scope: Scope::Session,
        });
        Agent { store: Arc::new(store), lender: Arc::new(lender.await.unwrap()) }
    }

    // Only what lends loses it.
    async fn lose_power(&self) {
        kill_targets(&self.root);
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Initiator::login(borrowing).await?))
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        kill_targets(&self.root);
    }
}

/// Kills the process that lends, which has its socket's path among its arguments.
fn kill_targets(root: &Path) {
    let socket = root.join("lend/socket");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        // One that is gone by now has none.
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let wanted = socket.as_os_str().as_encoded_bytes();
        if arguments.split(|byte| *byte == 0).any(|argument| argument == wanted) {
            kill_process(pid, Signal::KILL).unwrap();
        }
    }
}

#[test]
fn rounds_of_fencing_by_the_process_that_lends_let_no_stale_write_in() {
    let root = tempfile::tempdir().unwrap();
    // The next process is to be found where the one before was.
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Process { root: root.path().to_owned(), listen };
    let (desk, spec) = (Desk::new(4, Dice { kill: 20, power: 40 }), drive(array()));
    let work = rounds(&process, &desk, &spec, 1..=count(50) + 1);
    tokio::runtime::Runtime::new().unwrap().block_on(work).unwrap();
}
