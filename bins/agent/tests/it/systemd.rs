//! The units of systemd that come with the project, under a real one: whatever becomes of the agent's,
//! guests and lends go on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use elasticstack_core::hypervisor::{Media, ServerKind};
use elasticstack_core::prelude::*;
use elasticstack_core::secret::Secret;
use elasticstack_core::wire::internal::{
    Access, Document, DriveDocument, Hardware, Lender, LentDrive, ServerDocument,
};
use elasticstack_lab::{Lab, Machine};

use crate::machine::{
    AGENT, CONFIG, GUARD, agent, claim, drive, join, make_drive, report, run, server, tell,
};

const CONTRIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contrib");

const SETTINGS: &str = r#"
state_dir = "/var/lib/elasticstack"

[lend]
portal = "10.77.0.1:3260"
by = "process"
user = "elasticstack-target"
"#;

/// A guest in one boot sector: 18 times a second it adds one to a number, and writes that to its disk's
/// second sector. It begins at none whenever it is started.
#[rustfmt::skip]
const GUEST: &[u8] = &[
    0x31, 0xc0,             // xor ax, ax
    0x8e, 0xd8,             // mov ds, ax
    0x8e, 0xc0,             // mov es, ax
    0x8e, 0xd0,             // mov ss, ax
    0xbc, 0x00, 0x7c,       // mov sp, 0x7c00
    0x66, 0xc7, 0x06, 0x00, 0x7e, 0, 0, 0, 0, // mov dword [0x7e00], 0
    // next:
    0xfb,                   // sti
    0xf4,                   // hlt                  ; until the timer ticks
    0x66, 0xff, 0x06, 0x00, 0x7e, // inc dword [0x7e00]
    0xb8, 0x01, 0x03,       // mov ax, 0x0301       ; write one sector:
    0xb9, 0x02, 0x00,       // mov cx, 2            ; the second
    0xba, 0x80, 0x00,       // mov dx, 0x80
    0xbb, 0x00, 0x7e,       // mov bx, 0x7e00
    0xcd, 0x13,             // int 0x13
    0xeb, 0xe9,             // jmp next
];

/// The programs go without what only a debugger reads, so that they fit into a machine's memory.
const INSTALL: &str = "
systemd-sysusers $CONTRIB/sysusers.d/elasticstack.conf
install -D -m 644 -t /etc/systemd/system $CONTRIB/systemd/*
ln -s /dev/null /etc/systemd/system/systemd-udev-settle.service
for program in agent target; do
    objcopy --strip-debug $(dirname $AGENT)/elasticstack-$program /usr/local/bin/elasticstack-$program
done
chmod 755 /usr/local/bin/elasticstack-*
mkdir -p /etc/elasticstack
ln -s $CONFIG /etc/elasticstack/agent.toml
systemctl daemon-reload
";

const CHECK: &str = "
cd /etc/systemd/system
systemd-analyze verify elasticstack*
systemd-analyze security --offline=yes --no-pager --threshold=30 elasticstack-target.service >/data/security || {
    cat /data/security
    false
}
";

fn guest(number: u128, drive: DriveId, lender: Option<Lender>) -> ServerDocument {
    let hardware = Hardware {
        kind: ServerKind::Vm,
        cpu_mhz: 500,
        vcpus: 1,
        memory_mib: 32,
        drives: vec![claim(drive, "ide:0:0", lender)],
        boot: Vec::new(),
        nics: Vec::new(),
        screen: None,
        seed: None,
    };
    server(number, hardware)
}

/// Starts two guests that write: one has its drive here, the other borrows it. Answers with the drives.
fn start_guests(machine: &mut Machine) -> [DriveId; 2] {
    let array = report(machine).arrays[0].array;
    let [local, lent] = [1, 2].map(|number| drive(number, array));
    for document in [&local, &lent] {
        make_drive(machine, document, "/lab/guest");
    }
    let borrower = guest(12, lent.drive, None).server;
    let secret = || Secret::new("a-secret-of-some");
    let lend = LentDrive {
        server: borrower,
        epoch: Epoch(1),
        access: Access::Exclusive,
        media: Media::Disk,
        secret: secret(),
    };
    let lender = Lender { portal: "10.77.0.1:3260".parse().unwrap(), secret: secret() };
    let generation = Generation::new(Era(1), 2);
    let lending = DriveDocument { generation, lends: vec![lend], ..lent.clone() };
    tell(
        machine,
        vec![
            Document::Drive(lending),
            Document::Server(guest(11, local.drive, None)),
            Document::Server(guest(12, lent.drive, Some(lender))),
        ],
    );
    [local.drive, lent.drive]
}

/// Waits until both guests have written what they did after this was called; answers with their numbers.
fn until_they_write(machine: &mut Machine, drives: [DriveId; 2]) -> [u32; 2] {
    // What was under way may end, and then no more.
    let [local, lent] = drives;
    let script = format!(
        "number() {{ od -An -tu4 -j512 -N4 /srv/fast/drives/$1.raw; }}
         for drive in {local} {lent}; do
             before=$(number $drive) SECONDS=0
             until [ $(number $drive) -gt $((before + 2)) ]; do [ $SECONDS -lt {} ]; sleep 0.1; done
             number $drive
         done",
        2 * GUARD.as_secs()
    );
    let told = run(machine, &script);
    let numbers: Vec<_> = told.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// When each process began that is to go on, by its pid and its program.
fn processes(machine: &mut Machine) -> BTreeMap<String, String> {
    let script = "for name in qemu-system-x86 elasticstack-ta; do for pid in $(pgrep -x $name); do
        echo $pid $name $(awk '{ print $22 }' /proc/$pid/stat)
    done; done";
    let told = run(machine, script);
    let line = |line: &str| {
        let (process, began) = line.rsplit_once(' ').unwrap();
        (process.to_owned(), began.to_owned())
    };
    told.lines().map(line).collect()
}

/// Has systemd do something to the agent's unit, and waits until another life of it answers.
fn and_back(machine: &mut Machine, what: &str) {
    let script = format!(
        "main() {{ systemctl show --property MainPID --value elasticstack-agent; }}
         old=$(main)
         {what}
         until [ $(main) != 0 ] && [ $(main) != $old ] &&
             (exec 3<>/dev/tcp/127.0.0.1/8444) 2>/dev/null; do sleep 0.1; done"
    );
    run(machine, &script);
    report(machine);
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_with_systemd_guests_and_lends_outlive_the_agents_unit() {
    let lab = Lab::new().unwrap().with_systemd().with_disks_of(320);
    let mut machine = lab.boot(1).unwrap();
    let mut sector = GUEST.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(4096, 0);
    fs::write(lab.directory(1).join("guest"), sector).unwrap();
    fs::write(lab.directory(1).join("agent.toml"), SETTINGS).unwrap();
    run(&mut machine, &format!("cp /lab/agent.toml {CONFIG}"));
    // Where the project lies may not be seen there.
    let contrib = lab.directory(1).join("contrib");
    for folder in ["systemd", "sysusers.d"] {
        fs::create_dir_all(contrib.join(folder)).unwrap();
        for file in fs::read_dir(Path::new(CONTRIB).join(folder)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), contrib.join(folder).join(file.file_name())).unwrap();
        }
    }
    let install = format!("CONTRIB=/lab/contrib AGENT={AGENT} CONFIG={CONFIG}\n{INSTALL}");
    run(&mut machine, &install);
    assert_eq!(run(&mut machine, CHECK), "", "what the units are found to lack");
    let create = "array create fast --level raid1 --path /srv/fast \
                  --disk LAB-DISK-1 --disk LAB-DISK-2";
    agent(&mut machine, create).ok().unwrap();
    join(&mut machine);
    // As after a boot.
    run(&mut machine, "umount /srv/fast; mdadm --quiet --stop $(by fast)");
    and_back(&mut machine, "systemctl start elasticstack-target elasticstack-agent");
    let drives = start_guests(&mut machine);
    let mut numbers = until_they_write(&mut machine, drives);
    let before = processes(&mut machine);
    assert_eq!(before.len(), 3, "two guests and a target: {before:?}");

    for what in [
        "systemctl restart elasticstack-agent",
        "systemctl kill --signal KILL elasticstack-agent",
        "systemctl stop elasticstack-agent",
    ] {
        if what.contains("stop") {
            // Also while it is away.
            run(&mut machine, what);
            until_they_write(&mut machine, drives);
            and_back(&mut machine, "systemctl start elasticstack-agent");
        } else {
            and_back(&mut machine, what);
        }
        let now = until_they_write(&mut machine, drives);
        assert_eq!(processes(&mut machine), before, "after {what}");
        let went_on = now.iter().zip(numbers).all(|(now, before)| *now > before);
        assert!(went_on, "a guest began again after {what}: {numbers:?}, {now:?}");
        numbers = now;
    }
    assert_eq!(run(&mut machine, "systemctl --state failed --plain --no-legend"), "");
    let scopes = run(&mut machine, "systemctl list-units --type scope --plain --no-legend");
    assert_eq!(scopes.matches("ElasticStack server").count(), 2, "{scopes}");
    // A stop of all of it, as when the host shuts down: the guests end before their arrays do.
    run(&mut machine, "systemctl stop elasticstack-agent elasticstack.slice; umount /srv/fast");
    assert_eq!(processes(&mut machine), BTreeMap::new());
}
