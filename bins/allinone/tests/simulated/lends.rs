//! Servers apart from their drives: two hosts that lend each other drives, through the public API.

use std::time::Duration;

use elasticstack_api::Server;
use elasticstack_core::block::{Attachment, BlockStore as _, Borrowing, Lend as _};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::hypervisor::{Hypervisor as _, Phase};
use elasticstack_core::units::Bytes;

use crate::cast::drive;
use crate::database::TestDatabase;
use crate::world::{GUARD, Machine, Who, World, post, request, send};

/// Two hosts. The one with the drives runs a server that leaves no memory there.
struct Apart {
    world: World,
    server: Server,
    /// Drives of one host.
    drives: [String; 2],
    /// A server that runs on the other host, with the first of them.
    borrower: String,
}

impl Apart {
    async fn new() -> Self {
        let (world, server) = World::of(TestDatabase::new(), 2).await;
        let mut made = Vec::new();
        let drives = loop {
            made.push(drive(&server, "lent").await);
            let mut there = Vec::new();
            for drive in &made {
                if home(&world, drive).await.host == home(&world, &made[0]).await.host {
                    there.push(drive.clone());
                }
            }
            if let Ok(drives) = <[String; 3]>::try_from(there) {
                break drives;
            }
        };
        let [filler, first, second] = drives;
        run(&server, "filler", 65_000, &filler).await;
        let borrower = run(&server, "borrower", 1_024, &first).await;
        Self { world, server, drives: [first, second], borrower }
    }

    async fn lender(&self) -> &Machine {
        home(&self.world, &self.drives[0]).await
    }

    async fn host_of_borrower(&self) -> &Machine {
        let lender = self.lender().await.host;
        self.world.machines.iter().find(|machine| machine.host != lender).unwrap()
    }

    /// How the borrower has what is plugged in to it.
    async fn borrowings(&self) -> Vec<Borrowing> {
        let hypervisor = &self.host_of_borrower().await.hypervisor;
        let plugged = hypervisor.plugged(self.borrower.parse().unwrap());
        let borrowing = |slot: elasticstack_core::hypervisor::DriveSlot| match slot.attachment {
            Attachment::Iscsi(borrowing) => borrowing,
            other => panic!("{other:?} is not borrowed"),
        };
        plugged.into_iter().map(borrowing).collect()
    }

    async fn call(&self, call: &str, body: &str) {
        post(&self.server, &format!("/servers/{}/{call}", self.borrower), body).await;
    }

    /// Waits until so many drives are lent.
    async fn lent(&self, count: usize) {
        let lender = &self.lender().await.lender;
        let so_many = async {
            while lender.lent().await.unwrap().len() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GUARD, so_many).await.expect("another number of lends");
    }

    /// What a drive begins with, once it can be read.
    async fn content(&self, drive: &str) -> String {
        let path = format!("/drives/{drive}/read/0/4");
        let read = async {
            loop {
                let answer = send(&self.server, request(Who::Customer, &path, None, b"")).await;
                match answer.status {
                    200 => return String::from_utf8(answer.body).unwrap(),
                    409 => tokio::time::sleep(Duration::from_millis(5)).await,
                    _ => panic!("{answer:?}"),
                }
            }
        };
        tokio::time::timeout(GUARD, read).await.expect("it was never free")
    }

    async fn write(&self, borrowing: &Borrowing, text: &'static [u8]) -> Result<(), ErrorKind> {
        let volume = self.world.network.borrow(borrowing).map_err(|error| error.kind())?;
        let written = volume.write_at(Bytes::ZERO, text.into()).await;
        written.map_err(|error| error.kind())
    }
}

/// The host that a drive lies on.
pub(crate) async fn home<'a>(world: &'a World, drive: &str) -> &'a Machine {
    for machine in &world.machines {
        let there = machine.store.list().await.unwrap();
        if there.iter().any(|report| report.spec.drive.to_string() == drive) {
            return machine;
        }
    }
    panic!("no host has {drive}")
}

/// Has a server run with this drive.
async fn run(server: &Server, name: &str, mem: u32, drive: &str) -> String {
    let body = format!("name {name}\ncpu 500\nmem {mem}\npersistent true\nblock:0 {drive}");
    let made = post(server, "/servers/create/stopped", &body).await.value("server");
    let started = post(server, &format!("/servers/{made}/start"), "").await;
    assert_eq!(started.value("status"), "active");
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_runs_apart_from_its_drive_where_that_is_the_only_fit() {
    let apart = Apart::new().await;
    let [first, _] = &apart.drives;
    let [borrowing] = apart.borrowings().await.try_into().unwrap();
    assert_eq!(borrowing.portal, apart.lender().await.lender.portal());
    apart.write(&borrowing, b"once").await.unwrap();
    let read = format!("/drives/{first}/read/0/4");
    let answer = send(&apart.server, request(Who::Customer, &read, None, b"")).await;
    assert_eq!(answer.status, 409, "{answer:?}");

    apart.call("reset", "").await;
    apart.write(&borrowing, b"more").await.unwrap();
    apart.call("stop", "").await;
    assert_eq!(apart.content(first).await, "more");
    apart.lent(0).await;
    assert_eq!(apart.write(&borrowing, b"late").await, Err(ErrorKind::NotFound));

    apart.call("start", "").await;
    let [again] = apart.borrowings().await.try_into().unwrap();
    assert!(again.lend.epoch > borrowing.lend.epoch);
    assert_ne!(again.secret, borrowing.secret);
    assert_eq!(apart.write(&borrowing, b"late").await, Err(ErrorKind::NotFound));
    apart.write(&again, b"last").await.unwrap();
    apart.call("destroy", "").await;
    assert_eq!(apart.content(first).await, "last");
    post(&apart.server, &format!("/drives/{first}/destroy"), "").await;
    apart.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_borrowed_drive_comes_and_goes_while_its_server_runs() {
    let apart = Apart::new().await;
    let [_, second] = &apart.drives;
    apart.call("set", &format!("block:1 {second}")).await;
    apart.lent(2).await;
    let plugged = async {
        while apart.borrowings().await.len() != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(GUARD, plugged).await.expect("it was never plugged in");
    let [_, borrowing] = apart.borrowings().await.try_into().unwrap();
    apart.write(&borrowing, b"more").await.unwrap();
    apart.call("set", "block:1").await;
    assert_eq!(apart.content(second).await, "more");
    apart.lent(1).await;
    assert_eq!(apart.write(&borrowing, b"late").await, Err(ErrorKind::NotFound));
    apart.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_hosts_and_the_target_may_die_under_a_borrower() {
    let apart = Apart::new().await;
    let [first, _] = &apart.drives;
    let [borrowing] = apart.borrowings().await.try_into().unwrap();
    for machine in &apart.world.machines {
        apart.world.kill_agent(machine).await;
        apart.write(&borrowing, b"kept").await.unwrap();
        apart.world.boot_agent(machine).await;
    }
    // The host that lends restarts: the borrower goes on as soon as it is lent to again.
    let lender = apart.lender().await;
    apart.world.kill_agent(lender).await;
    lender.lender.crash();
    assert_eq!(apart.write(&borrowing, b"void").await, Err(ErrorKind::NotFound));
    apart.world.boot_agent(lender).await;
    apart.lent(1).await;
    apart.write(&borrowing, b"back").await.unwrap();

    // The host that borrows restarts: its run is over, and its drives are free.
    let host = apart.host_of_borrower().await;
    apart.world.kill_agent(host).await;
    host.hypervisor.host_crash();
    apart.world.boot_agent(host).await;
    assert_eq!(apart.content(first).await, "back");
    apart.lent(0).await;
    assert!(host.hypervisor.observe().await.unwrap().iter().all(|run| run.phase != Phase::Running));
    apart.server.close().await;
}
