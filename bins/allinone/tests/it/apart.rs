//! A server apart from its drive, for real: one host keeps drives and lends them over iSCSI, another
//! one runs guests under QEMU and has no room for drives.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use elasticstack_api::Server;
use elasticstack_api::hosts::MemoryDial;
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimHypervisor;
use elasticstack_host::agent::{Agent, HostDescription};
use elasticstack_host::guests::{self, GuestsConfig, Scope};
use elasticstack_host::lend::InProcessLender;
use elasticstack_host::qemu::{Accelerator, Qemu};
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use elasticstack_host::sys::process::Process;
use tempfile::TempDir;
use uuid::Uuid;

use crate::customer::{self, ask, call, until, value};
use crate::guest_code::{self, Command};

/// A host with drives and one with guests, under one control plane.
struct Cloud {
    server: Server,
    keeper: Agent,
    runner: Agent,
    _guests: Guests,
}

impl Cloud {
    async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("es-").tempdir().unwrap();
        let keeper = Agent::builder()
            .state_dir(directory.path().join("keeper"))
            .store(store(directory.path(), 1, Bytes::from_gib(1)))
            .lender(Arc::new(lender()))
            .hypervisor(Arc::new(SimHypervisor::new(MebiBytes(0))))
            .description(description(0));
        let runner = Agent::builder()
            .state_dir(directory.path().join("runner"))
            .store(store(directory.path(), 2, Bytes::ZERO))
            .hypervisor(Arc::new(qemu(directory.path()).await))
            .description(description(1_024));
        let (keeper, runner) = (keeper.build().await.unwrap(), runner.build().await.unwrap());
        let dial = Arc::new(MemoryDial::new());
        let database = format!("sqlite:{}", directory.path().join("api.db").display());
        let server = Server::builder().database(database).dial(dial.clone()).build().await.unwrap();
        let app = server.app();
        customer::join(&server).await;
        for (number, name, agent) in [(1, "keeper", &keeper), (2, "runner", &runner)] {
            let host = HostId::from_uuid(Uuid::from_u128(0xA0 + number));
            dial.insert(host, agent.router());
            app.host_create(host, &name.parse().unwrap(), "memory").await.unwrap();
            until("a host answers", async || {
                app.host_info(host).await.unwrap().value("accelerator").is_some()
            })
            .await;
        }
        Self { server, keeper, runner, _guests: Guests(directory) }
    }

    /// What the server wrote to its serial port.
    async fn serial(&self, server: &str) -> String {
        let (_, serial) = ask(&self.server, &format!("/servers/{server}/serial"), "").await;
        String::from_utf8_lossy(&serial).into_owned()
    }

    async fn until_serial(&self, server: &str, expected: &str) {
        until(expected, async || self.serial(server).await == expected).await;
    }

    async fn until_status(&self, server: &str, expected: &str) {
        let path = format!("/servers/{server}/info");
        until(expected, async || value(&self.server, &path, "", "status").await == expected).await;
    }

    /// Writes to a drive, or reads from it, once nobody has it any more.
    async fn when_free(&self, path: &str, body: Vec<u8>) -> Vec<u8> {
        let mut found = Vec::new();
        until("the drive is free", async || {
            let (status, answer) = ask(&self.server, path, body.clone()).await;
            assert!(matches!(status, 200 | 204 | 409), "{path}: {status}");
            found = answer;
            status != 409
        })
        .await;
        found
    }
}

/// The directory of what runs; no guest outlives a test that fails.
struct Guests(TempDir);

impl Drop for Guests {
    fn drop(&mut self) {
        for entry in
            std::fs::read_dir(self.0.path().join("servers")).into_iter().flatten().flatten()
        {
            let Ok(lock) = std::fs::metadata(entry.path().join("lock")) else { continue };
            for run in 1..5 {
                let name = format!("{}.{run}", entry.file_name().display());
                if let Ok(Some(process)) = Process::with_stdin(&lock, &name) {
                    let _ = process.kill();
                }
            }
        }
    }
}

pub(crate) fn description(memory_mib: u32) -> HostDescription {
    HostDescription {
        cpu_mhz: 20_000,
        memory_mib,
        accelerator: "of a test".to_owned(),
        cpu_limits: "none".to_owned(),
        containers: false,
    }
}

pub(crate) fn store(directory: &Path, number: u128, capacity: Bytes) -> Arc<DirectoryStore> {
    let array = DirectoryArray {
        array: ArrayId::from_uuid(Uuid::from_u128(0xB0 + number)),
        name: "local".to_owned(),
        path: directory.join(format!("array{number}")),
        capacity: ArrayCapacity::Fixed(capacity),
    };
    let state = directory.join(format!("state{number}"));
    std::fs::create_dir_all(&state).unwrap();
    Arc::new(DirectoryStore::open(KnownArrays::read(&state).unwrap(), vec![array]).unwrap())
}

fn lender() -> InProcessLender {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    InProcessLender::new(tokio::net::TcpListener::from_std(listener).unwrap()).unwrap()
}

async fn qemu(directory: &Path) -> guests::Guests {
    let config = GuestsConfig { runtime_dir: directory.join("servers"), scope: Scope::Session };
    let accelerator = Accelerator::detect().0;
    let qemu = Qemu { program: "qemu-system-x86_64".into(), accelerator };
    guests::Guests::open(config, qemu).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_runs_on_one_host_from_a_drive_on_another_through_reset_and_restart() {
    let cloud = Cloud::new().await;
    let drive = value(&cloud.server, "/drives/create", "name boots\nsize 1M", "drive").await;
    let write = format!("/drives/{drive}/write");
    call(&cloud.server, &write, guest_code::boot_sector()).await;
    let wish =
        format!("name apart\ncpu 500\nmem 256\npersistent true\nide:0:0 {drive}\nboot ide:0:0");
    let server = value(&cloud.server, "/servers/create", &wish, "server").await;
    cloud.until_serial(&server, "hello\r\n").await;
    let (status, _) = ask(&cloud.server, &format!("/drives/{drive}/read/0/4"), "").await;
    assert_eq!(status, 409, "it is its server's");

    call(&cloud.server, &format!("/servers/{server}/reset"), "").await;
    cloud.until_serial(&server, "hello\r\nhello\r\n").await;
    call(&cloud.server, &format!("/servers/{server}/stop"), "").await;
    cloud.when_free(&format!("{write}/512"), vec![Command::Write.byte()]).await;
    call(&cloud.server, &format!("/servers/{server}/start"), "").await;
    cloud.until_status(&server, "stopped").await;
    // It was started again to write there, and has powered itself off.
    let sector = format!("/drives/{drive}/read/{}/512", 63 * 512);
    let found = cloud.when_free(&sector, Vec::new()).await;
    assert!(found.iter().any(|byte| *byte != 0), "what the guest wrote is not on its drive");

    call(&cloud.server, &format!("/servers/{server}/destroy"), "").await;
    call(&cloud.server, &format!("/drives/{drive}/destroy"), "").await;
    cloud.server.close().await;
    cloud.runner.stop_guests().await.unwrap();
    cloud.keeper.close().await;
}
