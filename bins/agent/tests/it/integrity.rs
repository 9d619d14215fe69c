//! Disks that err without saying so, below a mirror with checksums: whatever is read is right, or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use elasticstack_lab::{Lab, Machine};
use rustix::fs::OFlags;

use crate::machine::{AGENT, PAST_CACHE, agent, boot, run};

const BLOCK: u64 = 4096;

/// Blocks of the file that is kept on the array.
const BLOCKS: u64 = 8 << 10;

/// How many of them are read at once; one by one if that fails.
const AT_ONCE: usize = 32;

/// How the device is closed that nothing may hold bytes of in memory, and opened again.
const DOWN: &str = "umount /srv/safe; mdadm --quiet --stop --scan
    for name in /dev/mapper/elasticstack-*; do integritysetup close ${name##*/}; done";

/// Numbers that are as good as random and the same each time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What block `number` of the file holds; no other block of it does.
fn block(number: u64) -> Vec<u8> {
    let mut dice = Dice(number);
    let words = (0..BLOCK / 8).map(|_| dice.next().to_le_bytes());
    words.flatten().collect()
}

/// A disk of the machine, seen from outside.
struct Leg(File);

impl Leg {
    fn of(lab: &Lab, disk: u8) -> Self {
        let path = lab.directory(1).join(format!("disk{disk}"));
        Self(File::options().read(true).write(true).open(path).unwrap())
    }

    /// Where on the disk each block of the file lies.
    fn places(&self) -> BTreeMap<u64, u64> {
        let beginnings: BTreeMap<u64, u64> =
            (0..BLOCKS).map(|number| (Dice(number).next(), number)).collect();
        let end = self.0.metadata().unwrap().len() / BLOCK * BLOCK;
        let mut found = BTreeMap::new();
        for place in (0..end).step_by(4096) {
            let mut word = [0; 8];
            self.0.read_exact_at(&mut word, place).unwrap();
            // What is also in a journal lies behind it too.
            if let Some(&number) = beginnings.get(&u64::from_le_bytes(word))
                && self.holds(place, number)
            {
                found.insert(number, place);
            }
        }
        assert_eq!(found.len() as u64, BLOCKS, "the file is on the disk");
        found
    }

    fn holds(&self, place: u64, number: u64) -> bool {
        let mut bytes = vec![0; 4096];
        self.0.read_exact_at(&mut bytes, place).unwrap();
        bytes == block(number)
    }

    /// Changes between one and eight bytes of the 4 KiB at `place`.
    fn corrupt(&self, place: u64, dice: &mut Dice) {
        for _ in 0..=dice.below(8) {
            self.flip(place + dice.below(BLOCK), dice);
        }
    }

    /// Changes the byte at `at`.
    fn flip(&self, at: u64, dice: &mut Dice) {
        let mut byte = [0];
        self.0.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= u8::try_from(1 + dice.below(255)).unwrap();
        self.0.write_all_at(&byte, at).unwrap();
    }
}

/// The blocks of the file that can't be read; all others are read, and right.
fn unreadable(machine: &mut Machine) -> BTreeSet<u64> {
    run(machine, &format!("echo 3 >/proc/sys/vm/drop_caches; cat {AGENT} >/dev/null"));
    let test = "integrity::on_a_lab_machine_a_mirror_with_checksums_never_gives_wrong_bytes";
    let printed = machine.run_stage(test, "read").unwrap();
    let numbers = printed.lines().filter_map(|line| line.strip_prefix("can't read "));
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// On the machine: reads the file, past its cache, which fails by more than a block; tells which
/// blocks can't be read.
fn read_all() {
    let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap();
    let file = File::options().read(true).custom_flags(direct).open("/srv/safe/file").unwrap();
    let mut room = vec![0_u8; AT_ONCE * 4096 + 4096];
    let start = room.as_ptr().align_offset(4096);
    let blocks: Vec<u64> = (0..BLOCKS).collect();
    for numbers in blocks.chunks(AT_ONCE) {
        let bytes = &mut room[start..][..numbers.len() * 4096];
        if file.read_exact_at(bytes, numbers[0] * BLOCK).is_ok() {
            for (number, bytes) in numbers.iter().zip(bytes.chunks(4096)) {
                assert!(bytes == block(*number), "block {number} was read, and is wrong");
            }
            continue;
        }
        for number in numbers {
            let bytes = &mut room[start..][..4096];
            match file.read_exact_at(bytes, number * BLOCK) {
                Ok(()) => assert!(bytes == block(*number), "block {number} was read, and is wrong"),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(5), "an input/output error");
                    println!("\ncan't read {number}");
                }
            }
        }
    }
}

/// Read errors corrected on each of the disks, by serial number.
fn corrected(machine: &mut Machine) -> BTreeMap<String, u64> {
    let status = agent(machine, "array status").ok().unwrap();
    let of = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let count = words.iter().position(|word| *word == "read")?.checked_sub(1)?;
        Some((words[1].to_owned(), words[count].parse().unwrap()))
    };
    status.lines().filter_map(of).collect()
}

/// A machine with the file on a mirror with checksums.
fn with_file(lab: &Lab) -> Machine {
    let mut machine = boot(lab);
    let create = "array create safe --level raid1 --integrity --path /srv/safe \
                  --disk LAB-DISK-1 --disk LAB-DISK-2";
    agent(&mut machine, create).ok().unwrap();
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("whole") && status.contains("LAB-DISK-2"), "{status}");
    let content: Vec<u8> = (0..BLOCKS).flat_map(block).collect();
    fs::write(lab.directory(1).join("file"), content).unwrap();
    run(&mut machine, "cp /lab/file /srv/safe/file; sync");
    machine
}

fn is_long() -> bool {
    std::env::var_os("ELASTICSTACK_LONG_TESTS").is_some()
}

/// How many blocks are corrupted: more by night.
fn many() -> u64 {
    if is_long() { 1_000 } else { 60 }
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_mirror_with_checksums_never_gives_wrong_bytes() {
    if elasticstack_lab::stage().is_some() {
        return read_all();
    }
    let lab = Lab::new().unwrap().with_disks_of(320);
    let mut machine = with_file(&lab);
    run(&mut machine, &format!("{DOWN}; sync"));

    // One leg lies, and the machine is another one.
    let (one, other) = (Leg::of(&lab, 1), Leg::of(&lab, 2));
    let (places, others) = (one.places(), other.places());
    let mut dice = Dice(246);
    let mut corrupted = BTreeSet::new();
    for _ in 0..many() {
        let number = dice.below(BLOCKS);
        one.corrupt(places[&number], &mut dice);
        corrupted.insert(number);
    }
    // The checksums of 16 MiB lie before them.
    let in_order: BTreeSet<_> = places.values().copied().collect();
    let begins = |place: &u64| *place != 0 && !in_order.contains(&(place - BLOCK));
    let runs: Vec<_> = in_order.iter().copied().filter(begins).skip(1).collect();
    assert!(!runs.is_empty());
    for start in runs {
        one.corrupt(start - BLOCK, &mut dice);
    }
    machine.cut_power().unwrap();
    let mut machine = boot(&lab);
    agent(&mut machine, "array up").ok().unwrap();
    assert_eq!(unreadable(&mut machine), BTreeSet::new());
    agent(&mut machine, "array scrub safe").ok().unwrap();
    run(&mut machine, "mdadm --wait $(by safe) || true");
    let counts = corrected(&mut machine);
    // What the scrub finds on the disk that it compares the other one with, it counts as mismatches.
    assert!(counts["LAB-DISK-1"] > 0, "{counts:?}");
    assert_eq!(counts["LAB-DISK-2"], 0);
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("whole"), "{status}");
    run(&mut machine, &format!("{DOWN}; sync"));
    let is_left = |number: &&u64| !one.holds(places[number], **number);
    assert_eq!(corrupted.iter().filter(is_left).count(), 0, "the scrub repaired all");

    // Both lie about the same blocks.
    let lost: BTreeSet<_> = (0..5).map(|_| dice.below(BLOCKS)).collect();
    for number in &lost {
        one.corrupt(places[number], &mut dice);
        other.corrupt(others[number], &mut dice);
    }
    agent(&mut machine, "array up").ok().unwrap();
    assert_eq!(unreadable(&mut machine), lost);
}

/// Where the journal lies: the superblock is before it, and it is larger than that.
const JOURNAL: std::ops::Range<u64> = BLOCK..1 << 20;

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn by_night_on_a_lab_machine_a_disk_whose_journal_or_superblock_is_corrupt_gives_no_wrong_bytes() {
    let lab = Lab::new().unwrap().with_disks_of(320);
    let mut machine = with_file(&lab);
    // The power goes while the journal holds writes.
    run(
        &mut machine,
        "setsid bash -c 'while true; do dd if=/dev/urandom of=/srv/safe/other bs=4k count=256 \
             conv=notrunc,fsync 2>/dev/null; done' </dev/null >/dev/null 2>&1 &
         until [ -s /srv/safe/other ]; do sleep 0.1; done",
    );
    machine.cut_power().unwrap();
    let (one, other, mut dice) = (Leg::of(&lab, 1), Leg::of(&lab, 2), Dice(256));
    // What is in it and the checksums of that, but not the number that ends each sector, by which
    // it is told what is to be written: that it may not be is found by the checksums alone.
    for sector in JOURNAL.step_by(512) {
        one.flip(sector + dice.below(504), &mut dice);
    }
    let mut machine = boot(&lab);
    goes_on_without(&mut machine, 1);

    run(&mut machine, &format!("{DOWN}; sync"));
    other.0.write_all_at(&block(BLOCKS), 0).unwrap();
    goes_on_without(&mut machine, 2);

    if is_long() {
        // All of the journal.
        run(&mut machine, &format!("{DOWN}; sync"));
        for place in JOURNAL.step_by(4096) {
            one.corrupt(place, &mut dice);
        }
        goes_on_without(&mut machine, 1);
    }
    assert_eq!(unreadable(&mut machine), BTreeSet::new());
    agent(&mut machine, "array scrub safe").ok().unwrap();
    run(&mut machine, "mdadm --wait $(by safe) || true");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("whole") && !status.contains("mismatches"), "{status}");
}

/// Brings the array up, which does without the disk, reads all, and adds the disk as a new one.
fn goes_on_without(machine: &mut Machine, disk: u8) {
    agent(machine, "array up").ok().unwrap();
    let status = agent(machine, "array status").ok().unwrap();
    let its = format!("LAB-DISK-{disk}");
    assert!(status.contains("lacks 1 of 2") && !status.contains(&its), "{status}");
    assert_eq!(unreadable(machine), BTreeSet::new());
    agent(machine, &format!("array add safe {its}")).ok().unwrap();
    run(machine, "until grep -qx 0 /sys/block/md*/md/degraded; do sleep 0.1; done");
    let status = agent(machine, "array status").ok().unwrap();
    assert!(status.contains("whole") && status.contains(&its), "{status}");
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn by_night_on_a_lab_machine_disks_with_checksums_are_replaced_lost_and_come_back() {
    let lab = Lab::new().unwrap().with_disks_of(320);
    let mut machine = boot(&lab);
    let create = "array create safe --level raid1 --integrity --path /srv/safe \
                  --disk LAB-DISK-1 --disk LAB-DISK-2";
    agent(&mut machine, create).ok().unwrap();
    run(&mut machine, "echo kept >/srv/safe/word; sync");
    agent(&mut machine, "array replace safe LAB-DISK-1 LAB-DISK-3").ok().unwrap();
    run(&mut machine, "mdadm --wait $(by safe) || true");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("whole") && status.contains("LAB-DISK-3"), "{status}");
    machine.pull(2).unwrap();
    run(&mut machine, "echo more >>/srv/safe/word; sync");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("lacks 1 of 2"), "{status}");
    machine.plug(2).unwrap();
    run(&mut machine, "until [ \"$(of 2)\" ]; do sleep 0.1; done; echo again >>/srv/safe/word");
    agent(&mut machine, "array add safe LAB-DISK-2").ok().unwrap();
    run(&mut machine, "mdadm --wait $(by safe) || true");
    // Somebody looks at the disk that is taken out.
    run(&mut machine, "setsid sleep 3 </dev/mapper/elasticstack-LAB-DISK-3 >/dev/null 2>&1 &");
    agent(&mut machine, "array remove safe LAB-DISK-3").ok().unwrap();
    assert_eq!(run(&mut machine, "ls /dev/mapper | grep DISK-3 || true"), "");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(!status.contains("LAB-DISK-3") && status.contains("lacks 1 of 2"), "{status}");
    agent(&mut machine, "array add safe LAB-DISK-1").ok().unwrap();
    run(&mut machine, "mdadm --wait $(by safe) || true");
    let status = agent(&mut machine, "array status").ok().unwrap();
    assert!(status.contains("whole"), "{status}");
    assert_eq!(run(&mut machine, &format!("{PAST_CACHE} /srv/safe/word")), "kept\nmore\nagain\n");
    // Another machine takes it over.
    run(&mut machine, "sync; rm -r /data/agent.toml /data/state; sync");
    machine.cut_power().unwrap();
    let mut machine = boot(&lab);
    agent(&mut machine, "array import safe --integrity --path /srv/other").ok().unwrap();
    assert_eq!(run(&mut machine, "cat /srv/other/word"), "kept\nmore\nagain\n");
}
