//! Linux as an agent has it run by KVM: on a root drive of its own and one that is lent, with a card on a bridge,
//! whatever becomes of the agent meanwhile. On a machine of the lab, since the `/dev/kvm` of others may run no
//! such kernel.

use std::fs;
use std::num::NonZeroU8;
use std::path::Path;

use elasticstack_core::block::{
    Attachment, BlockStore as _, Borrowing, DriveSpec, Lend as _, LendId, LendSpec, Writing,
};
use elasticstack_core::generation::{Epoch, Era, Generation, Run};
use elasticstack_core::hypervisor::{
    Counters as _, Hypervisor as _, Nic, NicModel, Phase, ServerSpec, Signal,
};
use elasticstack_core::secret::Secret;
use elasticstack_core::units::{Bytes, VcpuCount};
use elasticstack_host::lend::LioLender;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use elasticstack_lab::{Lab, stage};
use rustix::process::{Signal as Deadly, getpid, kill_process};

use crate::linux_rig::{
    agent, boot, container, make_root, nothing_is_left, observed, serial, server, shut_down,
    until_said,
};
use crate::rig::{Rig, slot};

const TEST: &str =
    "linux::on_a_lab_machine_linux_lives_on_its_drives_and_network_whatever_becomes_of_the_agent";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_linux_lives_on_its_drives_and_network_whatever_becomes_of_the_agent() {
    if let Some(stage) = stage() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(async {
            match &*stage {
                "start" => start().await,
                _ => adopt().await,
            }
        });
    }
    let lab = Lab::new().unwrap();
    make_root(&lab);
    let mut machine = boot(&lab);
    machine.run("cp --sparse=always /lab/guest.raw /data/root.raw").unwrap().ok().unwrap();
    let killed = machine.run_stage(TEST, "start").unwrap_err().to_string();
    assert!(killed.starts_with("the job ended with 137"), "{killed}");
    println!("{}", machine.run_stage(TEST, "adopt").unwrap());
}

/// Lends a drive by the kernel's target, which goes on without us.
async fn lend() -> Attachment {
    let config = DirectoryArray {
        array: "a77a0000-0000-4000-8000-000000000001".parse().unwrap(),
        name: "fast".to_owned(),
        path: "/data/fast".into(),
        capacity: ArrayCapacity::Fixed(Bytes::from_mib(64)),
    };
    let drive = DriveSpec {
        drive: "5b0e3c52-0000-4000-8000-000000000001".parse().unwrap(),
        array: config.array,
        account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
        size: Bytes::from_mib(4),
        generation: Generation::new(Era(1), 1),
    };
    let known = KnownArrays::read(Path::new("/data")).unwrap();
    let store = DirectoryStore::open(known, vec![config]).unwrap();
    store.create(&drive).await.unwrap();
    let spec = LendSpec {
        lend: LendId { drive: drive.drive, epoch: Epoch(1) },
        borrower: server(),
        writing: Writing::Allowed,
        secret: Secret::new("known-to-both-ends"),
    };
    let lender = LioLender::open("10.77.0.1:3260".parse().unwrap()).await.unwrap();
    let volume = store.open(drive.drive, Epoch(1)).await.unwrap();
    lender.lend(&spec, volume).await.unwrap();
    let LendSpec { lend, borrower, secret, .. } = spec;
    Attachment::Iscsi(Borrowing { portal: lender.portal(), lend, borrower, secret })
}

async fn start() {
    let mut lent = slot("block:1", "");
    lent.attachment = lend().await;
    let mut spec = container("/data/root.raw");
    spec.drives.push(lent);
    let spec = ServerSpec {
        vcpus: VcpuCount(NonZeroU8::new(2).unwrap()),
        nics: vec![Nic { model: NicModel::Virtio }],
        ..spec
    };
    let guests = agent().await;
    guests.ensure(&spec, Run(1)).await.unwrap();
    let said = until_said(&guests, "guest: counts 3\r", 1).await;
    for line in [
        "guest: up with 2 processors on /dev/vda / ext4 rw",
        "guest: 3 packets transmitted, 3 packets received, 0% packet loss",
        "guest: /own is read back",
        "guest: /dev/vdb is read back",
    ] {
        assert!(said.contains(line), "no {line:?}: {said}");
    }
    assert!(!said.contains("failed"), "{said}");
    guests.signal(server(), Signal::Reset).await.unwrap();
    let said = until_said(&guests, "guest: counts 3\r", 2).await;
    assert!(said.contains("guest: finds what it wrote"), "{said}");
    fs::write("/data/before", format!("{:?}", Rig::processes(server()))).unwrap();
    rustix::fs::sync();
    kill_process(getpid(), Deadly::KILL).unwrap();
}

async fn adopt() {
    let guests = agent().await;
    assert_eq!(guests.observe().await.unwrap(), observed(Run(1), Phase::Running));
    let processes = format!("{:?}", Rig::processes(server()));
    assert_eq!(fs::read_to_string("/data/before").unwrap(), processes);
    // What it said while nobody listened is there too.
    let said = serial(&guests).await;
    let counted = said.matches("guest: counts").count();
    assert!(counted >= 6, "{said}");
    let last = said.rsplit("guest: counts ").next().unwrap();
    let last: u32 = last.split_whitespace().next().unwrap().parse().unwrap();
    until_said(&guests, &format!("guest: counts {}\r", last + 2), 1).await;
    for (device, counts) in guests.counts(server()).await.unwrap() {
        assert!(
            counts.read_bytes > 1 << 20 && counts.write_bytes > 1 << 20,
            "{device}: {counts:?}"
        );
    }
    shut_down(&guests, Run(1)).await;
    guests.remove(server()).await.unwrap();
    nothing_is_left();
}
