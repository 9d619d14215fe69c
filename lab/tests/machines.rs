//! What is promised of machines, on real ones.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use elasticstack_lab::{Lab, Machine};

/// Sets `$1`, `$2` and so on to the devices of the disks with these numbers.
fn disks(numbers: &[u8]) -> String {
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    format!(
        "of() {{ for number; do for disk in /sys/block/sd*; do \
         grep -aq \"LAB-DISK-$number$\" $disk/device/vpd_pg80 && echo /dev/${{disk##*/}}; \
         done; done; }}\nset -e\nset -- $(of {})\n",
        numbers.join(" ")
    )
}

fn run(machine: &mut Machine, disks_of: &[u8], script: &str) -> String {
    machine.run(&(disks(disks_of) + script)).unwrap().ok().unwrap()
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_lab_machine_keeps_what_it_flushed_when_its_power_is_cut_and_tells_why_its_kernel_died() {
    let lab = Lab::new().unwrap();
    let mut machine = lab.boot(1).unwrap();
    run(&mut machine, &[], "echo kept >/data/word; sync /data/word; echo lost >/tmp/word");
    run(&mut machine, &[3], "echo raw | dd of=$1 oflag=direct bs=512 conv=sync");
    machine.cut_power().unwrap();
    let mut machine = lab.boot(1).unwrap();
    assert_eq!(run(&mut machine, &[], "cat /data/word"), "kept\n");
    assert_eq!(run(&mut machine, &[3], "head -c 3 $1"), "raw");
    assert_ne!(machine.run("cat /tmp/word").unwrap().status, 0);
    let gone = machine.run("echo c >/proc/sysrq-trigger; sleep 100").unwrap_err();
    let gone = format!("{gone:#}");
    assert!(gone.contains("Kernel panic") && gone.contains("guest-reset"), "{gone}");
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_lab_machine_loses_a_disk_and_gets_it_back_and_its_mirror_goes_on() {
    let lab = Lab::new().unwrap();
    let mut machine = lab.boot(1).unwrap();
    let create = "modprobe raid1; mdadm --create /dev/md0 --run --level 1 --raid-devices 2 \
         --bitmap internal --metadata 1.2 $1 $2; mdadm --wait /dev/md0 || true";
    run(&mut machine, &[1, 2], create);
    machine.pull(2).unwrap();
    let fails = "echo noticed | dd of=/dev/md0 oflag=direct bs=4096 conv=sync; \
         until grep -q '\\[U_\\]' /proc/mdstat; do sleep 0.1; done";
    run(&mut machine, &[1], fails);
    machine.plug(2).unwrap();
    let again = "until [ \"$2\" ]; do sleep 0.1; set -- $(of 1 2); done; \
         mdadm /dev/md0 --remove detached; mdadm /dev/md0 --re-add $2; \
         until grep -q '\\[UU\\]' /proc/mdstat; do sleep 0.1; done; head -c 7 /dev/md0";
    assert!(run(&mut machine, &[1, 2], again).ends_with("noticed"));
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_lab_machines_disk_is_slowed_and_corrupted_from_outside() {
    let lab = Lab::new().unwrap();
    let mut machine = lab.boot(1).unwrap();
    let read = "dd if=$1 of=/dev/null iflag=direct bs=4096 count=20 2>/dev/null; cat /proc/uptime";
    let seconds = |machine: &mut Machine| -> f64 {
        let uptime = run(machine, &[4], read);
        uptime.split(' ').next().unwrap().parse().unwrap()
    };
    machine.slow(4, 10).unwrap();
    let before = seconds(&mut machine);
    assert!(seconds(&mut machine) - before > 1.0, "20 reads at 10 a second");
    machine.slow(4, 0).unwrap();
    machine.corrupt(4, 4096, b"rotten").unwrap();
    let found = run(
        &mut machine,
        &[4],
        "dd if=$1 iflag=direct bs=4096 skip=1 count=1 2>/dev/null | head -c 6",
    );
    assert_eq!(found, "rotten");
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn two_lab_machines_reach_each_other_and_no_other_lab() {
    let (lab, other) = (Lab::new().unwrap(), Lab::new().unwrap());
    let mut machine = lab.boot(1).unwrap();
    let peer = lab.boot(2).unwrap();
    let _stranger = other.boot(3).unwrap();
    let ping = format!("ping -c 1 -W 20 {}", peer.address());
    machine.run(&ping).unwrap().ok().unwrap();
    assert_ne!(machine.run("ping -c 1 -W 2 10.77.0.3").unwrap().status, 0);
    let mut peer = peer;
    peer.unplug_network().unwrap();
    assert_ne!(machine.run(&ping.replace("20", "2")).unwrap().status, 0);
    peer.plug_network().unwrap();
    machine.run(&format!("until {ping}; do sleep 0.1; done")).unwrap().ok().unwrap();
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_lab_machine_has_systemd_for_its_first_program_if_that_is_asked_for() {
    let lab = Lab::new().unwrap().with_systemd();
    let mut machine = lab.boot(1).unwrap();
    let script = "systemd-run --quiet --unit one -p Type=oneshot -p PrivateTmp=yes touch /data/one
        systemd-run --quiet --scope --unit two sleep 99 &
        until systemctl is-active --quiet two.scope; do sleep 0.1; done
        cat /proc/1/comm; ls /data; systemctl --state failed --plain --no-legend
        systemctl is-system-running";
    let told = run(&mut machine, &[], script);
    assert_eq!(told, "systemd\none\nrunning\n");
}
