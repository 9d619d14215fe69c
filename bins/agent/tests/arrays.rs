//! `elasticstack-agent array` on disks of a real machine, with a real md and XFS.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use elasticstack_lab::{Ended, Lab, Machine};

const AGENT: &str = env!("CARGO_BIN_EXE_elasticstack-agent");
const CONFIG: &str = "/data/agent.toml";

/// What the agent says to these arguments, and whether it did what they ask.
fn agent(machine: &mut Machine, arguments: &str) -> Ended {
    machine.run(&format!("{AGENT} --config {CONFIG} {arguments}")).unwrap()
}

fn run(machine: &mut Machine, script: &str) -> String {
    machine.run(&format!("set -e\n{DISKS}{script}")).unwrap().ok().unwrap()
}

/// `of N` prints the device of disk N.
const DISKS: &str = "of() { for disk in /sys/block/sd*; do \
    grep -aq \"LAB-DISK-$1$\" $disk/device/vpd_pg80 && echo /dev/${disk##*/}; done; true; }\n";

fn machine(lab: &Lab) -> Machine {
    let mut machine = lab.boot(1).unwrap();
    run(&mut machine, &format!("test -e {CONFIG} || echo 'state_dir = \"/data/state\"' >{CONFIG}"));
    machine
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_mirror_is_made_of_named_disks_and_comes_up_after_a_power_cut() {
    let lab = Lab::new().unwrap();
    let mut machine = machine(&lab);
    let create = "array create fast --level raid1 --path /srv/fast \
                  --disk LAB-DISK-1 --disk LAB-DISK-2 --spare LAB-DISK-3";
    agent(&mut machine, create).ok().unwrap();
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.starts_with("fast  /srv/fast  /dev/md") && status.contains("raid1"), "{status}");
    assert!(status.contains("spare") && !status.contains("lacks"), "{status}");
    run(&mut machine, "cp --reflink=always /srv/fast/array.json /srv/fast/copy; sync");
    let label = run(&mut machine, "cat /srv/fast/copy");
    machine.cut_power().unwrap();
    let mut machine = self::machine(&lab);
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert_eq!(status, "fast  /srv/fast  not put together\n");
    agent(&mut machine, "array up").ok().unwrap();
    run(&mut machine, "mountpoint -q /srv/fast");
    assert_eq!(run(&mut machine, "cat /srv/fast/copy"), label);
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_no_disk_is_taken_that_is_in_use_or_holds_what_was_not_given_up() {
    let lab = Lab::new().unwrap();
    let mut machine = machine(&lab);
    let device =
        |machine: &mut Machine, disk: u8| run(machine, &format!("of {disk}")).trim().to_owned();
    let (first, second) = (device(&mut machine, 1), device(&mut machine, 2));
    let refused = |machine: &mut Machine, disks: &str, why: &str| {
        let create = format!("array create fast --level raid1 --path /srv/fast {disks}");
        let Ended { status, output } = agent(machine, &create);
        assert_ne!(status, 0, "{output}");
        assert!(output.contains(why), "{output}");
    };
    let by_path = format!("--disk {first} --disk {second}");
    run(&mut machine, "mkfs.xfs -q $(of 1)");
    refused(&mut machine, &by_path, "holds xfs: name it by its serial number, LAB-DISK-1,");
    run(&mut machine, "wipefs -qa $(of 1); echo mine | dd of=$(of 1) bs=512 seek=8 conv=sync");
    refused(&mut machine, &by_path, "holds bytes of no known kind");
    run(
        &mut machine,
        "mkfs.xfs -qf $(of 1); mkdir -p /mine; mount $(of 1) /mine; touch /mine/file",
    );
    let by_serial = "--disk LAB-DISK-1 --disk LAB-DISK-2";
    refused(&mut machine, by_serial, "is in use");
    refused(&mut machine, "--disk LAB-DISK-2 --disk LAB-DISK-2", "named twice");
    refused(&mut machine, "--disk LAB-DISK-2 --disk LAB-DISK-99", "no disk has the serial number");
    refused(&mut machine, "--disk LAB-DISK-2", "raid1 takes 2 disks or more, not 1");
    refused(&mut machine, "--disk LAB-DISK-2 --disk /dev/null", "is not a whole disk");
    assert_eq!(run(&mut machine, "ls /mine; wipefs -n $(of 2)"), "file\n");
    run(&mut machine, "umount /mine");
    agent(&mut machine, &format!("array create fast --level raid1 --path /srv/fast {by_serial}"))
        .ok()
        .unwrap();
    refused(&mut machine, "--disk LAB-DISK-3 --disk LAB-DISK-4", "is not empty");
    let more = "array create more --level raid1 --path /srv/more";
    let taken = agent(&mut machine, &format!("{more} {by_serial}"));
    assert!(taken.status != 0 && taken.output.contains("is in use by md"), "{}", taken.output);
}
