//! A drive that our own target lends, as a disk of Linux, by open-iscsi and the kernel's initiator. On a
//! machine of the lab, since this is about a kernel's.

use std::fs;
use std::path::Path;

use elasticstack_core::block::{BlockStore as _, Lend as _, LendSpec, Writing};
use elasticstack_core::prelude::*;
use elasticstack_host::lend::InProcessLender;
use elasticstack_host::store::DirectoryStore;
use elasticstack_lab::{Lab, stage};
use tokio::net::TcpListener;

use crate::lio::{drive_spec, lend_spec, run, store};
use crate::other_initiators::{OpenIscsi, bash, borrowing};

const USES: &str = "linux_initiator::on_a_lab_machine_linux_uses_what_our_target_lends_as_any_disk";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_linux_uses_what_our_target_lends_as_any_disk() {
    if stage().is_some() {
        return run(uses_it_as_any_disk());
    }
    let lab = Lab::new().unwrap();
    lab.boot(1).unwrap().run_stage(USES, "uses").unwrap();
}

async fn uses_it_as_any_disk() {
    let store = store(Path::new("/data/fast"));
    let listener = TcpListener::bind("10.77.0.1:3260").await.unwrap();
    let lender = InProcessLender::new(listener).unwrap();
    let (first, second) = (drive_spec(1, 64, 1), drive_spec(2, 64, 1));
    for spec in [&first, &second] {
        store.create(spec).await.unwrap();
    }
    let spec = lend_spec(first.drive, 1);
    lend(&store, &lender, &spec).await;
    let of = borrowing(&spec, lender.portal());
    let linux = OpenIscsi::start(&of.initiator());

    // Nobody logs in with another secret.
    let mut stranger = borrowing(&spec, lender.portal());
    stranger.secret = Secret::new("another-secret");
    linux.log_in(&stranger).unwrap_err();

    let device = linux.log_in(&of).unwrap();
    let shown = device.display().to_string();
    let block = Path::new("/sys/block").join(device.file_name().unwrap());
    let told = |name: &str| fs::read_to_string(block.join(name)).unwrap().trim().to_owned();
    assert_eq!(told("queue/write_cache"), "write through");
    assert_ne!(told("queue/discard_max_bytes"), "0");
    assert_eq!(told("ro"), "0");

    // What a file system keeps there is there for who logs in later, and what it frees is free.
    bash(&format!(
        "mkfs.ext4 -q {shown} && mkdir -p /mnt/lent && mount {shown} /mnt/lent
         head -c 24M /dev/urandom >/mnt/lent/bytes && sha256sum /mnt/lent/bytes >/tmp/sum
         head -c 16M /dev/zero >/mnt/lent/freed && sync && rm /mnt/lent/freed && fstrim /mnt/lent
         umount /mnt/lent && iscsiadm --mode node --logoutall all"
    ));
    let shown = linux.log_in(&of).unwrap().display().to_string();
    bash(&format!("mount -o ro {shown} /mnt/lent && sha256sum --check --quiet /tmp/sum"));

    // What grows is longer once it is asked for.
    bash("umount /mnt/lent");
    store.resizer().unwrap().resize(&drive_spec(1, 96, 2)).await.unwrap();
    lend(&store, &lender, &spec).await;
    bash("iscsiadm --mode session --rescan");
    assert_eq!(bash(&format!("blockdev --getsize64 {shown}")).trim(), (96 << 20).to_string());

    // Where writes are refused, Linux sees that and none comes through.
    let refused = LendSpec { writing: Writing::Refused, ..lend_spec(second.drive, 1) };
    lend(&store, &lender, &refused).await;
    let read_only = linux.log_in(&borrowing(&refused, lender.portal())).unwrap();
    let shown = read_only.display();
    bash(&format!(
        "[ $(blockdev --getro {shown}) = 1 ] && ! dd if=/dev/urandom of={shown} bs=4k count=1 \
         oflag=direct"
    ));

    // After the end nobody gets in.
    bash("iscsiadm --mode node --logoutall all");
    lender.withdraw(spec.lend).await.unwrap();
    linux.log_in(&of).unwrap_err();
}

async fn lend(store: &DirectoryStore, lender: &InProcessLender, spec: &LendSpec) {
    let volume = store.open(spec.lend.drive, spec.lend.epoch).await.unwrap();
    lender.lend(spec, volume).await.unwrap();
}
