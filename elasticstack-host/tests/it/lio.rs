//! Drives of a real store, on XFS, lent by the kernel's target to initiators that others wrote. The
//! tests run themselves on machines of the lab, since what they are about is a kernel's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::block::{
    Attachment, BlockStore, Borrowing, DriveSpec, Lend, LendId, LendSpec, Volume, Writing,
};
use elasticstack_core::prelude::*;
use elasticstack_host::lend::LioLender;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use elasticstack_lab::{Lab, stage};

use crate::other_initiators::{OpenIscsi, Session, bash, borrowing, qemu, qemu_as};

/// A host that lends: one array, and the kernel's target.
pub(crate) struct Host {
    pub(crate) store: DirectoryStore,
    pub(crate) lender: LioLender,
}

impl Host {
    pub(crate) async fn open(array: &Path) -> Self {
        let lender = LioLender::open("10.77.0.1:3260".parse().unwrap()).await.unwrap();
        Self { store: store(array), lender }
    }

    pub(crate) async fn create(&self, number: u8, mib: u32) -> DriveId {
        let spec = drive_spec(number, mib, 1);
        self.store.create(&spec).await.unwrap();
        spec.drive
    }

    /// Opens the drive and lends it.
    pub(crate) async fn lend(&self, spec: &LendSpec) -> Borrowing {
        let volume = self.store.open(spec.lend.drive, spec.lend.epoch).await.unwrap();
        self.lender.lend(spec, volume).await.unwrap();
        borrowing(spec, self.lender.portal())
    }

    async fn file(&self, lend: LendId) -> PathBuf {
        let volume = self.store.open(lend.drive, lend.epoch).await.unwrap();
        let Some(Attachment::File(file)) = volume.attachment() else { panic!("it is no file") };
        file
    }
}

/// A store with one array, in this directory.
pub(crate) fn store(array: &Path) -> DirectoryStore {
    let config = DirectoryArray {
        array: "a77a0000-0000-4000-8000-000000000001".parse().unwrap(),
        name: "fast".to_owned(),
        path: array.to_owned(),
        capacity: ArrayCapacity::Fixed(Bytes::from_mib(4096)),
    };
    let state = array.with_extension("state");
    fs::create_dir_all(&state).unwrap();
    DirectoryStore::open(KnownArrays::read(&state).unwrap(), vec![config]).unwrap()
}

pub(crate) fn drive_spec(number: u8, mib: u32, generation: u64) -> DriveSpec {
    DriveSpec {
        drive: format!("5b0e3c52-0000-4000-8000-0000000000{number:02x}").parse().unwrap(),
        array: "a77a0000-0000-4000-8000-000000000001".parse().unwrap(),
        account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
        size: Bytes::from_mib(mib),
        generation: Generation::new(Era(1), generation),
    }
}

/// Lends the drive to server 9 under this epoch.
pub(crate) fn lend_spec(drive: DriveId, epoch: u64) -> LendSpec {
    LendSpec {
        lend: LendId { drive, epoch: Epoch(epoch) },
        borrower: "5e17e700-0000-4000-8000-000000000009".parse().unwrap(),
        writing: Writing::Allowed,
        secret: Secret::new(format!("secret-of-epoch-{epoch}")),
    }
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

const LENDS: &str = "lio::on_a_lab_machine_lio_lends_to_the_borrower_and_to_nobody_else";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_lio_lends_to_the_borrower_and_to_nobody_else() {
    match stage().as_deref() {
        Some("before") => run(lends_to_the_borrower_and_to_nobody_else()),
        Some(_) => run(lends_again_after_a_power_cut()),
        None => {
            let lab = Lab::new().unwrap();
            let mut machine = lab.boot(1).unwrap();
            machine.run_stage(LENDS, "before").unwrap();
            machine.cut_power().unwrap();
            let mut machine = lab.boot(1).unwrap();
            machine.run_stage(LENDS, "after").unwrap();
        }
    }
}

async fn lends_to_the_borrower_and_to_nobody_else() {
    let elsewhere = LioLender::open("10.77.0.1:3261".parse().unwrap()).await.unwrap();
    assert_eq!(listening(), ["10.77.0.1:3261"]);
    assert_eq!(elsewhere.lent().await.unwrap(), []);
    let host = Host::open(Path::new("/data/fast")).await;
    assert_eq!(listening(), ["10.77.0.1:3260"]);
    let spec = lend_spec(host.create(1, 64).await, 1);
    let of = host.lend(&spec).await;
    qemu(&of, &["write -P 7 4k 64k", "read -P 7 4k 64k", "discard 4k 64k", "read -P 0 0 1M"])
        .unwrap();

    let other = Secret::new("another-secret");
    qemu_as(&of, &of.initiator(), Some(&other), &[], &["length"]).unwrap_err();
    qemu_as(&of, &of.initiator(), None, &[], &["length"]).unwrap_err();
    qemu_as(&of, "iqn.2026-01.org.elasticstack:server.other", Some(&of.secret), &[], &["length"])
        .unwrap_err();

    let linux = OpenIscsi::start(&of.initiator());
    linux.discover(of.portal).unwrap_err();
    let device = linux.log_in(&of).unwrap();
    is_as_it_should_be(&device, &spec);
    let shown = device.display();
    bash(&format!("mkfs.ext4 -q {shown} && mkdir /mnt/lent && mount {shown} /mnt/lent"));
    bash("echo kept >/mnt/lent/word; sync /mnt/lent/word");

    // Lent again, by another life of the agent: nobody is cut off, and what grew is longer.
    let grown = drive_spec(1, 96, 2);
    host.store.resizer().unwrap().resize(&grown).await.unwrap();
    let again = LioLender::open(host.lender.portal()).await.unwrap();
    let volume = host.store.open(spec.lend.drive, spec.lend.epoch).await.unwrap();
    again.lend(&spec, volume.clone()).await.unwrap();
    assert_eq!(again.lent().await.unwrap(), [spec.lend]);
    bash("echo more >>/mnt/lent/word; sync /mnt/lent/word");
    assert!(qemu(&of, &["length"]).unwrap().contains("96 MiB"));
    let stranger = LendSpec {
        borrower: "5e17e700-0000-4000-8000-00000000000a".parse().unwrap(),
        ..spec.clone()
    };
    let refusal = again.lend(&stranger, volume.clone()).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::ChangedMeanwhile);
    bash("umount /mnt/lent; iscsiadm --mode node --logoutall all");

    what_refuses_writes_takes_none(&host).await;
    a_lend_that_ends_takes_no_other_along(&host, &spec, &volume).await;

    // What is acknowledged last is there after the power is cut, which is now.
    let last = lend_spec(host.create(3, 64).await, 1);
    let mut session = Session::open(&host.lend(&last).await);
    for megabyte in 0..8 {
        let wrote = session.does(&format!("write -P {} {megabyte}M 128k", megabyte + 1)).unwrap();
        assert!(wrote.starts_with("wrote"), "{wrote}");
    }
    std::mem::forget(session);
}

/// Where this host listens on the network of storage.
fn listening() -> Vec<String> {
    let told = bash("ss -Htln src 10.77.0.1");
    told.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}

/// As the kernel sees a lent drive that it has logged in to.
fn is_as_it_should_be(device: &Path, spec: &LendSpec) {
    let block = Path::new("/sys/block").join(device.file_name().unwrap());
    let told = |name: &str| fs::read_to_string(block.join(name)).unwrap().trim().to_owned();
    assert_eq!(told("queue/write_cache"), "write through");
    assert_eq!(told("queue/logical_block_size"), "512");
    assert_ne!(told("queue/discard_max_bytes"), "0");
    assert_eq!(told("ro"), if spec.writing == Writing::Refused { "1" } else { "0" });
    let serial = fs::read(block.join("device/vpd_pg80")).unwrap();
    assert!(String::from_utf8_lossy(&serial).contains(&spec.lend.drive.to_string()));
}

async fn what_refuses_writes_takes_none(host: &Host) {
    let drive = host.create(2, 64).await;
    let spec = LendSpec { writing: Writing::Refused, ..lend_spec(drive, 1) };
    let of = host.lend(&spec).await;
    let file = host.file(spec.lend).await;
    fs::write(&file, vec![7; 64 << 20]).unwrap();
    qemu_as(&of, &of.initiator(), Some(&of.secret), &["-r"], &["read -P 7 0 1M"]).unwrap();
    qemu(&of, &["write -P 8 0 1M"]).unwrap_err();
    let device = OpenIscsi.log_in(&of).unwrap();
    is_as_it_should_be(&device, &spec);
    let shown = device.display();
    bash(&format!("! dd if=/dev/zero of={shown} oflag=direct bs=4k count=1; ! blkdiscard {shown}"));
    bash("iscsiadm --mode node --logoutall all");
    assert!(fs::read(&file).unwrap().iter().all(|byte| *byte == 7));
    host.lender.withdraw(spec.lend).await.unwrap();
}

async fn a_lend_that_ends_takes_no_other_along(
    host: &Host,
    first: &LendSpec,
    volume: &Arc<dyn Volume>,
) {
    let second = lend_spec(first.lend.drive, 2);
    let of = [first, &second].map(|spec| borrowing(spec, host.lender.portal()));
    host.lender.lend(&second, volume.clone()).await.unwrap();
    let mut sessions = of.each_ref().map(Session::open);
    for session in &mut sessions {
        assert!(session.does("write -P 1 95M 4k").unwrap().starts_with("wrote"));
    }
    host.lender.withdraw(first.lend).await.unwrap();
    host.lender.withdraw(first.lend).await.unwrap();
    let [ended, left] = &mut sessions;
    ended.begins("write -P 2 95M 4k");
    qemu(&of[0], &["length"]).unwrap_err();
    assert!(left.does("read -P 1 95M 4k").unwrap().starts_with("read"));
    assert_eq!(host.lender.lent().await.unwrap(), [second.lend]);
    host.lender.withdraw(second.lend).await.unwrap();
    assert_eq!(host.lender.lent().await.unwrap(), []);
}

async fn lends_again_after_a_power_cut() {
    let host = Host::open(Path::new("/data/fast")).await;
    assert_eq!(host.lender.lent().await.unwrap(), []);
    let first = host.lend(&lend_spec(drive_spec(1, 96, 2).drive, 3)).await;
    let device = OpenIscsi::start(&first.initiator()).log_in(&first).unwrap();
    let shown = device.display();
    assert_eq!(
        bash(&format!("mkdir -p /mnt/lent; mount {shown} /mnt/lent; cat /mnt/lent/word")),
        "kept\nmore\n"
    );
    bash("umount /mnt/lent; iscsiadm --mode node --logoutall all");
    let last = host.lend(&lend_spec(drive_spec(3, 64, 1).drive, 2)).await;
    let reads: Vec<_> =
        (0..8).map(|megabyte| format!("read -P {} {megabyte}M 128k", megabyte + 1)).collect();
    qemu(&last, &reads.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
}

const WITHDRAWS: &str =
    "lio::on_a_lab_machine_lio_withdraws_though_a_disk_hangs_or_an_agent_is_killed";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_lio_withdraws_though_a_disk_hangs_or_an_agent_is_killed() {
    match stage().as_deref() {
        Some("hang") => run(withdraws_from_a_disk_that_hangs()),
        Some("kill") => kills_agents(),
        Some(_) => run(lends_and_withdraws_until_killed()),
        None => {
            let lab = Lab::new().unwrap();
            let mut machine = lab.boot(1).unwrap();
            machine.run_stage(WITHDRAWS, "hang").unwrap();
            machine.run_stage(WITHDRAWS, "kill").unwrap();
        }
    }
}

async fn withdraws_from_a_disk_that_hangs() {
    bash(
        "of() { for disk in /sys/block/sd*; do \
         grep -aq 'LAB-DISK-1$' $disk/device/vpd_pg80 && echo /dev/${disk##*/}; done; true; }
         export DM_DISABLE_UDEV=1
         dmsetup create hangs --table \"0 $(blockdev --getsz $(of)) linear $(of) 0\"
         mkfs.xfs -q /dev/mapper/hangs; mkdir /srv/hangs; mount /dev/mapper/hangs /srv/hangs",
    );
    let hangs = Host::open(Path::new("/srv/hangs/array")).await;
    let works = Host::open(Path::new("/data/works")).await;
    let stuck = lend_spec(hangs.create(1, 64).await, 1);
    let mut session = Session::open(&hangs.lend(&stuck).await);
    assert!(session.does("write -P 1 0 4k").unwrap().starts_with("wrote"));
    let free = lend_spec(works.create(2, 64).await, 1);
    let free_of = works.lend(&free).await;

    bash("DM_DISABLE_UDEV=1 dmsetup suspend --noflush --nolockfs hangs");
    let commands = format!(
        "/sys/kernel/config/target/core/fileio_3260/{}.1/statistics/scsi_lu/num_cmds",
        stuck.lend.drive
    );
    let commands = || fs::read_to_string(&commands).unwrap();
    let before = commands();
    session.begins("write -P 2 0 4k");
    while commands() == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let others = async {
        while !is_draining(&stuck) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        qemu(&borrowing(&stuck, hangs.lender.portal()), &["length"]).unwrap_err();
        qemu(&free_of, &["write -P 7 0 1M", "read -P 7 0 1M"]).unwrap();
        works.lender.withdraw(free.lend).await.unwrap();
        let newer = lend_spec(free.lend.drive, 2);
        qemu(&works.lend(&newer).await, &["read -P 7 0 1M"]).unwrap();
        works.lender.withdraw(newer.lend).await.unwrap();
        assert_eq!(works.lender.lent().await.unwrap(), [stuck.lend]);
    };
    let (refusal, ()) = tokio::join!(hangs.lender.withdraw(stuck.lend), others);
    assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(is_draining(&stuck));
    bash("DM_DISABLE_UDEV=1 dmsetup resume hangs");
    hangs.lender.withdraw(stuck.lend).await.unwrap();
    assert_eq!(hangs.lender.lent().await.unwrap(), []);
}

/// Whether the kernel is about to cut the borrower's session, and waits for what that asked for.
fn is_draining(of: &LendSpec) -> bool {
    let told = format!(
        "/sys/kernel/config/target/iscsi/{}/tpgt_1/acls/{}/info",
        of.lend.target(),
        of.initiator()
    );
    fs::read_to_string(told).unwrap().contains("CLEANUP_WAIT")
}

/// Where the victims of kills have their drive.
const VICTIMS: &str = "/data/victims";

async fn lends_and_withdraws_until_killed() {
    let host = Host::open(Path::new(VICTIMS)).await;
    let spec = lend_spec(drive_spec(1, 64, 1).drive, 1);
    loop {
        host.lend(&spec).await;
        host.lender.withdraw(spec.lend).await.unwrap();
    }
}

/// Kills agents at instants all over the steps of lending and withdrawing, and mends what is left
/// by asking again for either.
fn kills_agents() {
    const ROUNDS: u32 = 24;
    let spec = lend_spec(drive_spec(1, 64, 1).drive, 1);
    run(async { Host::open(Path::new(VICTIMS)).await.create(1, 64).await });
    let mut left = 0;
    for round in 0..ROUNDS {
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WITHDRAWS, "--include-ignored"])
            .env("ELASTICSTACK_LAB_STAGE", "victim")
            .spawn()
            .unwrap();
        // A turn of lending and withdrawing takes some hundred milliseconds here.
        std::thread::sleep(Duration::from_millis(500 + u64::from(round) * 37 % 400));
        victim.kill().unwrap();
        victim.wait().unwrap();
        run(async {
            let host = Host::open(Path::new(VICTIMS)).await;
            let lent = host.lender.lent().await.unwrap();
            left += lent.len();
            if round % 2 == 0 {
                let of = host.lend(&spec).await;
                qemu(&of, &["write -P 7 0 4k", "read -P 7 0 4k"]).unwrap();
            }
            host.lender.withdraw(spec.lend).await.unwrap();
            assert_eq!(host.lender.lent().await.unwrap(), []);
            let rest = "find /sys/kernel/config/target -name '*5b0e3c52*'";
            assert_eq!(bash(rest), "");
            // Beginning to listen is what no kill may come into, for it is never mended.
            assert_eq!(listening(), ["10.77.0.1:3260"]);
        });
    }
    assert!(left > 0, "no kill came in between");
}
