//! `elasticstack-agent array`, and the same by the API of a running agent, on disks of a real machine, with a
//! real md and XFS.

use std::time::Instant;

use elasticstack_core::block::ArrayState;
use elasticstack_core::wire::arrays::{
    ArrayOrder, DiskContent, HostArrays, HostDisks, MadeOf, OrderArray, OrderProgress, OrderStatus,
    RaidStatus, ScrubMode,
};
use elasticstack_core::wire::internal::Fault;
use elasticstack_lab::{Ended, Lab, Machine};
use serde::de::DeserializeOwned;

use crate::machine::{
    GUARD, PAST_CACHE, agent, ask, begins_with, boot, drive, join, make_drive, report, run, serve,
    start,
};

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_mirror_is_made_of_named_disks_and_comes_up_after_a_power_cut() {
    let lab = Lab::new().unwrap();
    let mut machine = boot(&lab);
    let create = "array create fast --level raid1 --path /srv/fast \
                  --disk LAB-DISK-1 --disk LAB-DISK-2 --spare LAB-DISK-3";
    agent(&mut machine, create).ok().unwrap();
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.starts_with("fast  /srv/fast  /dev/md") && status.contains("raid1"), "{status}");
    assert!(status.contains("spare") && !status.contains("lacks"), "{status}");
    run(&mut machine, "cp --reflink=always /srv/fast/array.json /srv/fast/copy; sync");
    let label = run(&mut machine, "cat /srv/fast/copy");
    machine.cut_power().unwrap();
    let mut machine = boot(&lab);
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
    let mut machine = boot(&lab);
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
    refused(&mut machine, "--disk LAB-DISK-3 --disk LAB-DISK-4", "there is an array fast already");
    let more = "array create more --level raid1 --path /srv/more";
    let taken = agent(&mut machine, &format!("{more} {by_serial}"));
    assert!(taken.status != 0 && taken.output.contains("is in use by md"), "{}", taken.output);
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_disk_is_replaced_another_lost_and_none_taken_that_is_needed() {
    let lab = Lab::new().unwrap().with_disks_of(384);
    let mut machine = boot(&lab);
    let create = "array create fast --level raid1 --path /srv/fast \
                  --disk LAB-DISK-1 --disk LAB-DISK-2";
    agent(&mut machine, create).ok().unwrap();
    run(&mut machine, "mdadm --wait /dev/md/fast || true; echo kept >/srv/fast/word; sync");
    agent(&mut machine, "array replace fast LAB-DISK-1 LAB-DISK-3").ok().unwrap();
    run(&mut machine, "mdadm --wait /dev/md/fast || true");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("whole") && status.contains("faulty"), "{status}");
    machine.pull(2).unwrap();
    run(&mut machine, "echo more >>/srv/fast/word; sync");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("degraded") && status.contains("lacks 1 of 2"), "{status}");
    let refused = agent(&mut machine, "array remove fast LAB-DISK-3");
    assert!(
        refused.status != 0 && refused.output.contains("can't do without"),
        "{}",
        refused.output
    );
    machine.plug(2).unwrap();
    run(&mut machine, "until [ \"$(of 2)\" ]; do sleep 0.1; done; echo again >>/srv/fast/word");
    agent(&mut machine, "array add fast LAB-DISK-2").ok().unwrap();
    run(&mut machine, "mdadm --wait /dev/md/fast || true");
    agent(&mut machine, "array remove fast LAB-DISK-3").ok().unwrap();
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(!status.contains("faulty") && status.contains("lacks 1 of 2"), "{status}");
    agent(&mut machine, "array add fast LAB-DISK-4").ok().unwrap();
    run(&mut machine, "mdadm --wait /dev/md/fast || true");
    agent(&mut machine, "array scrub fast").ok().unwrap();
    run(&mut machine, "mdadm --wait /dev/md/fast || true");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("whole") && !status.contains("mismatches"), "{status}");
    assert_eq!(run(&mut machine, &format!("{PAST_CACHE} /srv/fast/word")), "kept\nmore\nagain\n");
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_raid_5_grows_by_a_disk_and_another_machine_takes_it_over() {
    let lab = Lab::new().unwrap().with_disks_of(200);
    let mut machine = boot(&lab);
    let create = "array create large --level raid5 --path /srv/large \
                  --disk LAB-DISK-1 --disk LAB-DISK-2 --disk LAB-DISK-3";
    agent(&mut machine, create).ok().unwrap();
    run(&mut machine, "mdadm --wait /dev/md/large || true; echo kept >/srv/large/word; sync");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("raid5") && status.contains("not discarded"), "{status}");
    let size = "df --output=size -BM /srv/large | tail -1 | tr -d ' M'; \
                cat /sys/block/$(basename $(readlink -f /dev/md/large))/md/consistency_policy";
    let told = run(&mut machine, size);
    let (before, policy) = told.split_once('\n').unwrap();
    assert_eq!(policy.trim(), "ppl");
    agent(&mut machine, "array grow large LAB-DISK-4").ok().unwrap();
    let told = run(&mut machine, size);
    let (after, policy) = told.split_once('\n').unwrap();
    assert_eq!(policy.trim(), "ppl");
    let megabytes = |text: &str| text.parse::<u32>().unwrap();
    assert!(megabytes(after) > megabytes(before) + 150, "{before} to {after}");
    // Another machine: these disks, and nothing of what this one knew.
    run(&mut machine, "sync; rm -r /data/agent.toml /data/state; sync");
    machine.cut_power().unwrap();
    let mut machine = boot(&lab);
    let missing = agent(&mut machine, "array import small --path /srv/small");
    assert!(missing.status != 0 && missing.output.contains("[\"large\"]"), "{}", missing.output);
    agent(&mut machine, "array import large --path /srv/other").ok().unwrap();
    assert_eq!(run(&mut machine, "cat /srv/other/word"), "kept\n");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(
        status.starts_with("large  /srv/other  /dev/md") && status.contains("whole"),
        "{status}"
    );
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_raid_6_that_lacked_a_disk_when_it_crashed_stays_down_and_others_come_up() {
    let lab = Lab::new().unwrap().with_disks_of(200);
    let mut machine = boot(&lab);
    for (name, level, disks) in [("six", "raid6", [1, 2, 3, 4]), ("ten", "raid10", [5, 6, 7, 8])] {
        let disks = disks.map(|disk| format!("--disk LAB-DISK-{disk}")).join(" ");
        let create = format!("array create {name} --level {level} --path /srv/{name} {disks}");
        agent(&mut machine, &create).ok().unwrap();
    }
    run(&mut machine, "mdadm --wait $(by six) $(by ten) || true; echo kept >/srv/ten/word; sync");
    machine.pull(1).unwrap();
    machine.pull(5).unwrap();
    // So that there are writes under way whenever the power goes.
    run(
        &mut machine,
        "for number in 1 2 3; do setsid bash -c 'while true; do dd if=/dev/urandom bs=4k count=64 \
         oflag=direct conv=notrunc of=/srv/six/'$number' 2>/dev/null; done' </dev/null >/dev/null 2>&1 & done
         until grep -q active /sys/block/$(basename $(by six))/md/array_state; do sleep 0.1; done",
    );
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert_eq!(status.matches("lacks 1 of 4").count(), 2, "{status}");
    machine.cut_power().unwrap();
    let mut machine = boot(&lab);
    let up = agent(&mut machine, "array up");
    assert!(up.status != 0 && up.output.contains("array six can't be brought up"), "{}", up.output);
    assert_eq!(
        run(&mut machine, "cat /srv/ten/word; mountpoint -q /srv/six || echo down"),
        "kept\ndown\n"
    );
}

/// What a running agent answers to a call about its arrays.
#[track_caller]
fn told<T: DeserializeOwned>(machine: &mut Machine, path: &str) -> T {
    let answer = ask(machine, path, "");
    serde_json::from_str(answer.strip_suffix(" 200").expect(&answer)).unwrap()
}

/// Gives a running agent an order; answers with how far it is, or with its refusal.
fn order(machine: &mut Machine, order: &ArrayOrder, wait_ms: u32) -> Result<OrderProgress, Fault> {
    let json = serde_json::to_string(&OrderArray { order: order.clone(), wait_ms }).unwrap();
    let answer = ask(machine, "arrays", &format!("--data '{json}'"));
    let (body, status) = answer.rsplit_once(' ').unwrap();
    if status == "200" {
        let status: OrderStatus = serde_json::from_str(body).expect(&answer);
        assert_eq!(status.order, *order);
        return Ok(status.progress);
    }
    Err(serde_json::from_str(body).expect(&answer))
}

fn mirror(name: &str, disks: [&str; 2], path: &str) -> ArrayOrder {
    ArrayOrder::Create {
        name: name.to_owned(),
        level: "raid1".to_owned(),
        disks: disks.map(str::to_owned).to_vec(),
        spares: Vec::new(),
        integrity: false,
        path: path.to_owned(),
    }
}

/// The RAID of the first array that the agent tells of, once it is as told.
fn until_raid(machine: &mut Machine, what: &str, is: impl Fn(&RaidStatus) -> bool) -> RaidStatus {
    let began = Instant::now();
    loop {
        let arrays: HostArrays = told(machine, "arrays");
        match &arrays.arrays[0].made_of {
            MadeOf::Raid(raid) if is(raid) => return raid.clone(),
            other => assert!(began.elapsed() < GUARD, "{what}, never: {other:?}"),
        }
    }
}

fn is_online(machine: &mut Machine, name: &str) -> bool {
    let mut arrays = report(machine).arrays.into_iter();
    arrays.any(|array| array.name == name && array.state == ArrayState::Online)
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_running_agent_makes_an_array_by_its_api_uses_it_at_once_and_tends_it() {
    let lab = Lab::new().unwrap().with_disks_of(320);
    let mut machine = boot(&lab);
    serve(&mut machine);
    assert_eq!(report(&mut machine).arrays, []);
    let device = run(&mut machine, "of 1; mkfs.xfs -q $(of 1)").trim().to_owned();
    let disks: HostDisks = told(&mut machine, "disks");
    let held = |number: u8| {
        let serial = format!("LAB-DISK-{number}");
        let disk = disks.disks.iter().find(|disk| disk.serial.as_ref() == Some(&serial)).unwrap();
        (disk.device.clone(), disk.holds.clone())
    };
    assert_eq!(held(1), (device.clone(), DiskContent::Types(vec!["xfs".to_owned()])));
    assert_eq!(held(2).1, DiskContent::Nothing);

    let (first, second) = ("LAB-DISK-1", "LAB-DISK-2");
    for (wish, field, why) in [
        (
            mirror("fast", [&device, second], "/srv/fast"),
            "disk",
            "by its serial number, LAB-DISK-1",
        ),
        (mirror("fast", [second, second], "/srv/fast"), "disk", "named twice"),
        (mirror("fast", [first, second], "/etc/fast"), "path", "is not below /srv"),
        (mirror("../fast", [first, second], "/srv/fast"), "name", "can't name an array"),
    ] {
        let refused = order(&mut machine, &wish, 60_000).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field), "{refused:?}");
        assert!(refused.message.contains(why), "{refused:?}");
    }
    assert_eq!(run(&mut machine, "wipefs -n $(of 1) | grep -c xfs; wipefs -n $(of 2)"), "1\n");

    let fast = mirror("fast", [first, second], "/srv/fast");
    for _again in 0..2 {
        assert_eq!(order(&mut machine, &fast, 60_000), Ok(OrderProgress::Done));
    }
    let array = report(&mut machine).arrays.remove(0);
    assert_eq!((&*array.name, array.state), ("fast", ArrayState::Online));
    run(&mut machine, "head -c 1M /dev/urandom >/data/first");
    let kept = drive(1, array.array);
    make_drive(&mut machine, &kept, "/data/first");
    let other = mirror("fast", [first, "LAB-DISK-3"], "/srv/fast");
    let refused = order(&mut machine, &other, 60_000).unwrap_err();
    assert!(refused.message.contains("there is an array fast already"), "{refused:?}");

    until_raid(&mut machine, "it is whole", |raid| raid.work.is_none());
    machine.pull(1).unwrap();
    run(&mut machine, "echo >/srv/fast/word; sync");
    let raid = until_raid(&mut machine, "it lacks a disk", |raid| raid.missing == 1);
    assert_eq!(raid.health, "degraded", "{raid:?}");
    let needed = ArrayOrder::Remove { name: "fast".to_owned(), disk: second.to_owned() };
    let refused = order(&mut machine, &needed, 60_000).unwrap_err();
    assert!(refused.message.contains("can't do without"), "{refused:?}");
    let add = ArrayOrder::Add { name: "fast".to_owned(), disk: "LAB-DISK-3".to_owned() };
    for _again in 0..2 {
        assert_eq!(order(&mut machine, &add, 60_000), Ok(OrderProgress::Done));
    }
    until_raid(&mut machine, "it is whole", |raid| raid.missing == 0 && raid.work.is_none());
    let scrub = ArrayOrder::Scrub { name: "fast".to_owned(), mode: ScrubMode::Check };
    assert_eq!(order(&mut machine, &scrub, 60_000), Ok(OrderProgress::Done));
    let raid = until_raid(&mut machine, "it is scrubbed", |raid| raid.work.is_none());
    assert_eq!((&*raid.health, raid.mismatches), ("whole", 0));
    assert!(begins_with(&mut machine, kept.drive, "/data/first"));

    // The program beside it makes another one, which the agent takes in when it is asked for the same.
    let create =
        "array create slow --level raid1 --path /srv/slow --disk LAB-DISK-4 --disk LAB-DISK-5";
    agent(&mut machine, create).ok().unwrap();
    assert!(!is_online(&mut machine, "slow"));
    let slow = mirror("slow", ["LAB-DISK-4", "LAB-DISK-5"], "/srv/slow");
    assert_eq!(order(&mut machine, &slow, 60_000), Ok(OrderProgress::Done));
    assert!(is_online(&mut machine, "slow"));
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_an_array_is_made_though_the_agent_is_killed_meanwhile_and_is_there_at_its_start()
 {
    let lab = Lab::new().unwrap().with_disks_of(384);
    let mut machine = boot(&lab);
    let ArrayOrder::Create { name, level, disks, spares, path, .. } =
        mirror("sure", ["LAB-DISK-1", "LAB-DISK-2"], "/srv/sure")
    else {
        unreachable!()
    };
    let sure = ArrayOrder::Create { name, level, disks, spares, path, integrity: true };
    join(&mut machine);
    // Killed as soon as each of these is done; a short run takes every other one.
    let each = [
        "test -e /data/state/making/sure.json",
        "test -e /dev/mapper/elasticstack-LAB-DISK-1",
        "test -e /dev/md/sure",
        "grep -q '\"is_formatted\":true' /data/state/making/sure.json || grep -q sure /data/agent.toml",
        "mountpoint -q /srv/sure",
    ];
    let is_long = std::env::var_os("ELASTICSTACK_LONG_TESTS").is_some();
    let (first, step) = if is_long { (0, 1) } else { (1, 2) };
    for done in each.into_iter().skip(first).step_by(step) {
        start(&mut machine);
        let begun = order(&mut machine, &sure, 0);
        run(
            &mut machine,
            &format!(
                "until {done}; do sleep 0.02; done
                 kill -9 $(pidof elasticstack-agent)
                 while pidof integritysetup mdadm mkfs.xfs >/dev/null; do sleep 0.1; done"
            ),
        );
        assert!(begun.is_ok(), "{done}: {begun:?}");
    }
    start(&mut machine);
    assert_eq!(order(&mut machine, &sure, 60_000), Ok(OrderProgress::Done));
    let array = report(&mut machine).arrays.remove(0);
    run(
        &mut machine,
        "head -c 1M /dev/urandom >/data/first; test ! -e /data/state/making/sure.json",
    );
    let kept = drive(1, array.array);
    make_drive(&mut machine, &kept, "/data/first");
    run(&mut machine, "kill -9 $(pidof elasticstack-agent)");
    start(&mut machine);
    assert!(is_online(&mut machine, "sure"));
    assert_eq!(order(&mut machine, &sure, 60_000), Ok(OrderProgress::Done));
    assert!(begins_with(&mut machine, kept.drive, "/data/first"));
}
