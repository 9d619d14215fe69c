//! What takes minutes on a machine of the lab: a container that is started and stopped a hundred times, and one whose
//! root is a full Debian.

use std::fs::{self, File};
use std::process::Command;

use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{Hypervisor as _, Seed, ServerSpec};
use elasticstack_core::secret::Secret;
use elasticstack_core::units::MebiBytes;
use elasticstack_lab::{Lab, stage};

use crate::linux_rig::{
    agent, boot, cache, container, make_root, nothing_is_left, server, shut_down, until_said,
};

const STARTS: u64 = 100;
/// Every so many starts, the guest comes up and is shut down.
const WHOLE: u64 = 10;

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn by_night_on_a_lab_machine_a_hundred_starts_and_stops_of_linux_leave_nothing() {
    const TEST: &str =
        "linux_long::by_night_on_a_lab_machine_a_hundred_starts_and_stops_of_linux_leave_nothing";
    if stage().is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(start_and_stop());
    }
    let lab = Lab::new().unwrap();
    make_root(&lab);
    let mut machine = boot(&lab);
    machine.run("cp --sparse=always /lab/guest.raw /data/root.raw").unwrap().ok().unwrap();
    println!("{}", machine.run_stage(TEST, "starts").unwrap());
}

async fn start_and_stop() {
    let guests = agent().await;
    let spec = container("/data/root.raw");
    let mut open = None;
    for run in (1..=STARTS).map(Run) {
        guests.ensure(&spec, run).await.unwrap();
        if run.0 % WHOLE == 0 {
            until_said(&guests, "guest: counts 1\r", 1).await;
            shut_down(&guests, run).await;
        } else {
            // It runs: its kernel speaks first of what it can't find.
            until_said(&guests, "\n", 1).await;
        }
        guests.remove(server()).await.unwrap();
        nothing_is_left();
        let now = fs::read_dir("/proc/self/fd").unwrap().count();
        assert_eq!(*open.get_or_insert(now), now, "files of the agent's after {} starts", run.0);
    }
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn by_night_on_a_lab_machine_a_full_debian_is_a_container_and_does_what_its_seed_says() {
    const TEST: &str = "linux_long::by_night_on_a_lab_machine_a_full_debian_is_a_container_and_does_what_its_seed_says";
    if stage().is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(be_seeded());
    }
    let lab = Lab::new().unwrap();
    let own = lab.directory(1);
    fs::create_dir_all(&own).unwrap();
    let mut unpack = Command::new("gunzip");
    unpack.arg("-c").arg(cache().join("images/debian-12.gz"));
    let unpacked = unpack.stdout(File::create(own.join("debian.raw")).unwrap()).status().unwrap();
    assert!(unpacked.success(), "{unpacked}");
    let mut machine = boot(&lab);
    println!("{}", machine.run_stage(TEST, "debian").unwrap());
}

async fn be_seeded() {
    let guests = agent().await;
    let told = "#cloud-config\nruncmd:\n  - echo \"$(hostname) says $(uname -r)\" >/dev/ttyS0\n";
    let spec = ServerSpec {
        memory: MebiBytes(512),
        seed: Some(Seed {
            host_name: Some("told".to_owned()),
            keys: vec![],
            user_data: Some(Secret::new(told)),
        }),
        ..container("/lab/debian.raw")
    };
    guests.ensure(&spec, Run(1)).await.unwrap();
    until_said(&guests, "told says 6.1.0-", 1).await;
    shut_down(&guests, Run(1)).await;
    guests.remove(server()).await.unwrap();
    nothing_is_left();
}
