//! Images in and out, for real: agents with stores on the disk that fetch from a web server which the
//! test is, lend each other drives over iSCSI, and are killed; a control plane; its customer.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use elasticstack_api::Server;
use elasticstack_api::hosts::MemoryDial;
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimHypervisor;
use elasticstack_host::agent::Agent;
use elasticstack_host::fetch::{AUTHORITIES, Fetcher, Networks};
use elasticstack_host::lend::InProcessLender;
use elasticstack_host::store::DirectoryStore;
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::apart::{description, store};
use crate::customer::{self, call, until, value};

const MIB: usize = 1 << 20;

/// One control plane and its hosts.
struct Cloud {
    server: Server,
    dial: Arc<MemoryDial>,
    hosts: Vec<Host>,
    _directory: TempDir,
}

/// What outlives the agents of one host.
struct Host {
    host: HostId,
    number: u32,
    directory: std::path::PathBuf,
    /// Where it lends drives, also in the next life.
    portal: SocketAddr,
    life: Mutex<Option<Life>>,
}

/// An agent in a runtime of its own, and the store that it has locked.
struct Life {
    runtime: Runtime,
    agent: Agent,
    store: Weak<DirectoryStore>,
}

impl Host {
    /// Begins a life of its agent, in a runtime with which it dies.
    async fn boot(&self, dial: &MemoryDial) {
        let runtime = Runtime::new().unwrap();
        let allowed = vec!["127.0.0.1/32".parse().unwrap()];
        let networks = Networks { allowed, ..Networks::default() };
        let store = store(&self.directory, self.number.into(), Bytes::from_gib(1));
        let locked = Arc::downgrade(&store);
        let builder = Agent::builder()
            .state_dir(self.directory.join(format!("agent{}", self.number)))
            .store(store)
            .hypervisor(Arc::new(SimHypervisor::new(MebiBytes(0))))
            .fetcher(Fetcher::new(networks, AUTHORITIES.into()))
            .description(description(0));
        let portal = self.portal;
        let begun = runtime.spawn(async move {
            let lender = InProcessLender::new(TcpListener::bind(portal).await.unwrap()).unwrap();
            builder.lender(Arc::new(lender)).build().await.unwrap()
        });
        let agent = begun.await.unwrap();
        dial.insert(self.host, agent.router());
        *self.life.lock().unwrap() = Some(Life { runtime, agent, store: locked });
    }

    /// Kills it, wherever its tasks are.
    async fn kill(&self, dial: &MemoryDial) {
        dial.remove(self.host);
        dial.cut();
        let Life { runtime, agent, store } = self.life.lock().unwrap().take().unwrap();
        drop(agent);
        let dies = move || runtime.shutdown_timeout(Duration::from_secs(60));
        tokio::task::spawn_blocking(dies).await.unwrap();
        // What it was answering ends in the test's runtime; a process's locks would be gone by now.
        until("its store is nobody's", async || store.strong_count() == 0).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(life) = self.life.lock().unwrap().take() {
            life.runtime.shutdown_background();
        }
    }
}

impl Cloud {
    async fn of(hosts: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("es-").tempdir().unwrap();
        let dial = Arc::new(MemoryDial::new());
        let database = format!("sqlite:{}", directory.path().join("api.db").display());
        let server = Server::builder().database(database).dial(dial.clone()).build().await.unwrap();
        customer::join(&server).await;
        let mut all = Vec::new();
        for number in 1..=hosts {
            let host = Host {
                host: HostId::from_uuid(Uuid::from_u128(0xA0 + u128::from(number))),
                number,
                directory: directory.path().to_owned(),
                portal: unused().await,
                life: Mutex::default(),
            };
            host.boot(&dial).await;
            let name = format!("host{number}").parse().unwrap();
            let app = server.app();
            app.host_create(host.host, &name, "memory").await.unwrap();
            until("a host answers", async || {
                app.host_info(host.host).await.unwrap().value("accelerator").is_some()
            })
            .await;
            all.push(host);
        }
        Self { server, dial, hosts: all, _directory: directory }
    }

    async fn drive(&self, mib: usize, more: &str) -> String {
        let wish = format!("name one\nsize {mib}M\n{more}");
        value(&self.server, "/drives/create", &wish, "drive").await
    }

    async fn info(&self, drive: &str) -> serde_json::Value {
        let info = call(&self.server, &format!("/drives/{drive}/info"), "").await;
        serde_json::from_slice(&info).unwrap()
    }

    /// Begins an imaging, waits for its end, and answers why it failed, if it did.
    async fn image(&self, drive: &str, with: &str, wish: &str) -> Option<String> {
        call(&self.server, &format!("/drives/{drive}/image/{with}"), wish.to_owned()).await;
        self.imaged(drive).await
    }

    async fn imaged(&self, drive: &str) -> Option<String> {
        until("it is imaged", async || self.info(drive).await.get("imaging").is_none()).await;
        self.info(drive).await.get("failed").map(|why| why.as_str().unwrap().to_owned())
    }

    async fn content(&self, drive: &str, length: usize) -> Vec<u8> {
        let mut content = Vec::new();
        while content.len() < length {
            let piece = (length - content.len()).min(4 * MIB);
            let path = format!("/drives/{drive}/read/{}/{piece}", content.len());
            content.extend(call(&self.server, &path, "").await);
        }
        content
    }

    /// Which host a drive lies on.
    fn home(&self, drive: &str) -> &Host {
        let has = |host: &&Host| {
            let array = host.directory.join(format!("array{}", host.number));
            let mut inside = vec![array];
            while let Some(directory) = inside.pop() {
                for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                    if entry.file_name().to_str().unwrap().contains(drive) {
                        return true;
                    }
                    if entry.file_type().unwrap().is_dir() {
                        inside.push(entry.path());
                    }
                }
            }
            false
        };
        self.hosts.iter().find(has).unwrap()
    }
}

/// A free address of this machine.
async fn unused() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

/// Bytes that don't repeat, with a hole in the middle.
fn disk() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut disk = vec![0; 24 * MIB];
    for (at, byte) in disk.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if !(5 * MIB..17 * MIB).contains(&at) {
            *byte = state.to_le_bytes()[3];
        }
    }
    disk
}

/// The path that a request asks for.
async fn asked(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned()
}

async fn tell_length(stream: &mut TcpStream, length: usize) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_host_fetches_gzip_and_qcow2_and_their_disks_are_the_drives() {
    let files = tempfile::tempdir().unwrap();
    let (raw, qcow2) = (files.path().join("raw"), files.path().join("qcow2"));
    let disk = disk();
    std::fs::write(&raw, &disk).unwrap();
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-q", "-f", "raw", "-O", "qcow2", "-c"]).arg(&raw).arg(&qcow2);
    assert!(convert.status().unwrap().success());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, &disk).unwrap();
    let (gzip, qcow2) = (gzip.finish().unwrap(), std::fs::read(&qcow2).unwrap());

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let file = if asked(&mut stream).await == "/gzip" { &gzip } else { &qcow2 };
            tell_length(&mut stream, file.len()).await;
            let _ = stream.write_all(file).await;
        }
    });
    let cloud = Cloud::of(1).await;
    let drive = cloud.drive(24, "").await;
    assert_eq!(cloud.image(&drive, "url", &format!("url {site}/gzip\nformat gzip")).await, None);
    assert!(cloud.content(&drive, disk.len()).await == disk);
    let (file, drive) = (cloud.drive(32, "").await, cloud.drive(28, "").await);
    assert_eq!(cloud.image(&file, "url", &format!("url {site}/qcow2")).await, None);
    assert_eq!(cloud.image(&drive, &format!("{file}/qcow2"), "").await, None);
    assert!(cloud.content(&drive, disk.len()).await == disk);
    serving.abort();
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU: cargo xtask test"]
async fn an_exported_drive_is_what_qemu_img_says_is_the_same_disk() {
    let disk = disk();
    let cloud = Cloud::of(1).await;
    let drive = cloud.drive(1024, "").await;
    for part in [0..5 * MIB, 17 * MIB..disk.len()] {
        let path = format!("/drives/{drive}/write/{}", part.start);
        call(&cloud.server, &path, disk[part].to_vec()).await;
    }
    let last = 1024 * MIB - 7;
    call(&cloud.server, &format!("/drives/{drive}/write/{last}"), "the end").await;
    let exported = call(&cloud.server, &format!("/drives/{drive}/export/qcow2"), "").await;
    assert!(exported.len() < 13 * MIB, "{} bytes of 12 MiB", exported.len());

    let files = tempfile::tempdir().unwrap();
    let (raw, qcow2) = (files.path().join("raw"), files.path().join("qcow2"));
    std::fs::write(&qcow2, exported).unwrap();
    let same = std::fs::File::create(&raw).unwrap();
    same.set_len(1024 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&same, &disk, 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&same, b"the end", (1024 << 20) - 7).unwrap();
    let judged = |arguments: &[&str], files: &[&std::path::Path]| {
        let judged = Command::new("qemu-img").args(arguments).args(files).output().unwrap();
        assert!(judged.status.success(), "{judged:?}");
    };
    judged(&["check", "-f", "qcow2"], &[&qcow2]);
    judged(&["compare", "-f", "raw", "-F", "qcow2"], &[&raw, &qcow2]);
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_fetches_again_when_its_agent_was_killed_and_nothing_from_where_it_may_not() {
    let disk = disk();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = listener.local_addr().unwrap();
    // Another address of this machine, which is not among those that are allowed.
    let inside = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let elsewhere = inside.local_addr().unwrap();
    let cloud = Cloud::of(1).await;
    let drive = cloud.drive(24, "").await;
    call(&cloud.server, &format!("/drives/{drive}/write"), "before").await;

    let why = cloud.image(&drive, "url", &format!("url http://{elsewhere}/disk")).await;
    assert!(why.is_some_and(|why| why.contains("127.0.0.2")), "it was fetched");
    let redirecting = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        asked(&mut stream).await;
        let to = format!("HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/disk\r\n\r\n");
        stream.write_all(to.as_bytes()).await.unwrap();
    };
    let wish = format!("url http://{site}/moved");
    let (why, ()) = tokio::join!(cloud.image(&drive, "url", &wish), redirecting);
    assert!(why.is_some_and(|why| why.contains("127.0.0.2")), "it was fetched");
    let nobody_came = tokio::time::timeout(Duration::from_millis(1), inside.accept()).await;
    assert!(nobody_came.is_err(), "somebody came to where nobody may");
    assert_eq!(cloud.content(&drive, 6).await, b"before");

    let path = format!("/drives/{drive}/image/url");
    call(&cloud.server, &path, format!("url http://{site}/disk")).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    asked(&mut stream).await;
    tell_length(&mut stream, disk.len()).await;
    stream.write_all(&disk[..disk.len() / 2]).await.unwrap();
    until("some of it is there", async || {
        let info = cloud.info(&drive).await;
        info.get("imaging").is_some_and(|far| far != "queued" && far != "0%")
    })
    .await;
    cloud.hosts[0].kill(&cloud.dial).await;
    drop(stream);
    cloud.hosts[0].boot(&cloud.dial).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    asked(&mut stream).await;
    tell_length(&mut stream, disk.len()).await;
    stream.write_all(&disk).await.unwrap();
    assert_eq!(cloud.imaged(&drive).await, None);
    assert!(cloud.content(&drive, disk.len()).await == disk);
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_is_imaged_over_iscsi_from_one_on_another_host_though_its_agents_are_killed() {
    let disk = disk();
    let cloud = Cloud::of(2).await;
    let source = cloud.drive(24, "").await;
    let target = cloud.drive(28, &format!("avoid {source}")).await;
    let (lender, borrower) = (cloud.home(&source), cloud.home(&target));
    assert_ne!(lender.host, borrower.host);
    call(&cloud.server, &format!("/drives/{source}/write"), disk.clone()).await;
    let stale = vec![7; 28 * MIB];
    call(&cloud.server, &format!("/drives/{target}/write"), stale.clone()).await;
    assert_eq!(cloud.image(&target, &source, "").await, None);
    let found = cloud.content(&target, 28 * MIB).await;
    assert!(found[..disk.len()] == disk && found[disk.len()..].iter().all(|byte| *byte == 0));

    for victim in [lender, borrower] {
        until("nobody uses the drive", async || cloud.info(&target).await.get("claimed").is_none())
            .await;
        call(&cloud.server, &format!("/drives/{target}/write"), stale.clone()).await;
        call(&cloud.server, &format!("/drives/{target}/image/{source}"), "").await;
        victim.kill(&cloud.dial).await;
        victim.boot(&cloud.dial).await;
        assert_eq!(cloud.imaged(&target).await, None);
        let found = cloud.content(&target, 28 * MIB).await;
        assert!(found[..disk.len()] == disk && found[disk.len()..].iter().all(|byte| *byte == 0));
    }
    let gone = async || {
        let (status, _) =
            customer::ask(&cloud.server, &format!("/drives/{source}/write"), "free").await;
        status == 204
    };
    until("the source is nobody's any more", gone).await;
    cloud.server.close().await;
}
