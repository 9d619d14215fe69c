//! How arrays are reaches whoever asks the agent, and one that fails does so alone.

use std::time::Instant;

use elasticstack_core::block::{ArrayState, DiskReport, DiskState, Warning, WarningKind};
use elasticstack_core::wire::internal::ArrayStatus;
use elasticstack_lab::{Lab, Machine};

use crate::machine::{
    GUARD, agent, begins_with, boot, drive, make_drive, report, run, serve, write,
};

const NAMES: [&str; 2] = ["fast", "slow"];

/// What the agent says of the arrays fast and slow, once it is as told.
fn until(
    machine: &mut Machine,
    what: &str,
    is: impl Fn(&ArrayStatus, &ArrayStatus) -> bool,
) -> [ArrayStatus; 2] {
    let began = Instant::now();
    loop {
        let report = report(machine);
        let named = |name| report.arrays.iter().find(|array| array.name == name).unwrap().clone();
        let [fast, slow] = NAMES.map(named);
        if is(&fast, &slow) {
            return [fast, slow];
        }
        assert!(began.elapsed() < GUARD, "{what}, never: {report:?}");
    }
}

fn is_whole(array: &ArrayStatus) -> bool {
    let is_whole =
        array.disks.as_ref().is_some_and(|disks| disks.missing == 0 && disks.work.is_none());
    array.state == ArrayState::Online && is_whole
}

fn disk<'a>(array: &'a ArrayStatus, serial: &str) -> &'a DiskReport {
    let disks = array.disks.as_ref().unwrap();
    disks.each.iter().find(|disk| disk.name == serial).unwrap()
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn by_night_on_a_lab_machine_a_disk_that_is_slow_beside_others_is_told_and_no_more_once_it_is_not()
{
    let lab = Lab::new().unwrap().with_disks_of(320);
    let mut machine = boot(&lab);
    let create =
        "array create fast --level raid1 --path /srv/fast --disk LAB-DISK-1 --disk LAB-DISK-2";
    agent(&mut machine, create).ok().unwrap();
    serve(&mut machine);
    run(
        &mut machine,
        "mdadm --wait $(by fast) || true
         setsid bash -c 'while true; do dd if=/dev/zero of=/srv/fast/load bs=4k count=64 oflag=direct \
             conv=notrunc; done' </dev/null >/dev/null 2>&1 &",
    );
    machine.slow(2, 5).unwrap();
    let warnings = until_warned(&mut machine, 1);
    assert_eq!(warnings[0].kind, WarningKind::DiskSlow);
    assert_eq!(warnings[0].disk.as_deref(), Some("LAB-DISK-2"));
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("disk_slow: disk LAB-DISK-2 takes"), "{status}");
    // The lab has no smartctl: it is said, and all else is as ever.
    assert!(status.contains("install smartmontools"), "{status}");
    machine.slow(2, 0).unwrap();
    until_warned(&mut machine, 0);
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(!status.contains("disk_slow"), "{status}");
}

/// What is to be looked at of the only array, once that is so many things.
fn until_warned(machine: &mut Machine, count: usize) -> Vec<Warning> {
    let began = Instant::now();
    loop {
        let warnings = report(machine).arrays.remove(0).warnings;
        if warnings.len() == count {
            return warnings;
        }
        assert!(began.elapsed() < GUARD, "{warnings:?}");
    }
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_an_array_that_loses_all_its_disks_takes_its_own_drives_and_no_other() {
    let lab = Lab::new().unwrap().with_disks_of(320);
    let mut machine = boot(&lab);
    for (name, disks) in NAMES.into_iter().zip([[1, 2], [3, 4]]) {
        let disks = disks.map(|disk| format!("--disk LAB-DISK-{disk}")).join(" ");
        let create = format!("array create {name} --level raid1 --path /srv/{name} {disks}");
        agent(&mut machine, &create).ok().unwrap();
    }
    run(&mut machine, "for file in first second; do head -c 1M /dev/urandom >/data/$file; done");
    serve(&mut machine);
    let arrays =
        until(&mut machine, "both are whole", |fast, slow| is_whole(fast) && is_whole(slow));
    let [on_fast, on_slow] = [0, 1].map(|number| {
        let drive = drive(number as u128 + 1, arrays[number].array);
        make_drive(&mut machine, &drive, "/data/first");
        drive.drive
    });
    // Another of each is written without an end, and how each write ended noted: one caller has a drive.
    for (number, name) in NAMES.into_iter().enumerate() {
        let busy = drive(number as u128 + 11, arrays[number].array);
        make_drive(&mut machine, &busy, "/data/first");
        let drive = busy.drive;
        let load = format!(
            "cd /data/keys; while true; do curl --silent --cert control.pem --key control.key \
             --insecure --output /dev/null --write-out '%{{http_code}}\\n' --data-binary @/data/first \
             'https://127.0.0.1:8444/v1/drives/{drive}/data?offset=4194304'; sleep 0.5; done"
        );
        run(
            &mut machine,
            &format!("setsid bash -c \"{load}\" >/data/load.{name} 2>&1 </dev/null &"),
        );
    }

    machine.pull(1).unwrap();
    let [fast, slow] = until(&mut machine, "fast lacks a disk", |fast, _| {
        fast.disks.as_ref().is_some_and(|disks| disks.missing == 1)
    });
    assert!(fast.state == ArrayState::Online && fast.capacity > 0, "{fast:?}");
    assert_eq!(disk(&fast, "LAB-DISK-1").state, DiskState::Faulty);
    assert_eq!(disk(&fast, "LAB-DISK-2").state, DiskState::InSync);
    assert!(is_whole(&slow), "{slow:?}");
    assert!(begins_with(&mut machine, on_fast, "/data/first"));

    machine.pull(2).unwrap();
    let [fast, slow] =
        until(&mut machine, "fast has failed", |fast, _| fast.state == ArrayState::Failed);
    assert_eq!(fast.capacity, 0);
    assert!(is_whole(&slow) && slow.capacity > 0, "{slow:?}");
    let refused = write(&mut machine, on_fast, "/data/second");
    assert!(refused.ends_with(" 503"), "{refused}");
    let written = write(&mut machine, on_slow, "/data/second");
    assert!(written.ends_with(" 204"), "{written}");
    assert!(begins_with(&mut machine, on_slow, "/data/second"));
    make_drive(&mut machine, &drive(3, slow.array), "/data/first");
    let ends = run(&mut machine, "sort -u /data/load.slow; test -s /data/load.fast");
    assert_eq!(ends, "204\n", "no write to the other array failed");

    // What it held is there again with its disks.
    machine.plug(1).unwrap();
    machine.plug(2).unwrap();
    machine.cut_power().unwrap();
    let mut machine = boot(&lab);
    serve(&mut machine);
    until(&mut machine, "fast is back", |fast, slow| {
        fast.state == ArrayState::Online && slow.state == ArrayState::Online
    });
    assert!(begins_with(&mut machine, on_fast, "/data/first"));
    assert!(begins_with(&mut machine, on_slow, "/data/second"));
}
