//! Power cuts under a store on XFS on a mirror of md: all that one leg is told is kept in order
//! (dm-log-writes), and the leg brought back as a cut at one point or another would have left it: with what
//! was surely written, and a part of the rest drawn by lot. What the store had confirmed by then is there.
//!
//! While the mirror is written it has two legs, and a write-intent bitmap as ours have. It comes up on the
//! one that was logged, as if the other were lost with the power: two logs have no common order, and a flush
//! of one leg says nothing of the other, so that legs of two instants could be ones that never were together.
//! Whatever else md may read after a crash, it reads one leg, which it brings the others in line with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use elasticstack_core::block::{BlockStore, DriveSpec, Volume, Writers};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;
use elasticstack_host::array::MadeArray;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use elasticstack_lab::{Lab, stage};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::lio::run;
use crate::other_initiators::bash;
use crate::write_log::{Point, WriteLog};

const CUTS: &str =
    "power_loss::on_a_lab_machine_what_a_store_confirmed_outlives_a_power_cut_at_any_point";

/// How many things are done to the store.
const STEPS: usize = 40;
/// A drive's blocks, each of one byte over and over.
const BLOCK: u64 = 16 << 10;
const BLOCKS: u64 = 8;

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_what_a_store_confirmed_outlives_a_power_cut_at_any_point() {
    match stage().as_deref() {
        None => {
            let lab = Lab::new().unwrap().with_disks_of(1024);
            println!("{}", lab.boot(1).unwrap().run_stage(CUTS, "cuts").unwrap());
        }
        Some(_) => {
            let is_long = std::env::var_os("ELASTICSTACK_LONG_TESTS").is_some();
            let (cuts, lost) = cut(Honesty::Flushes, if is_long { usize::MAX } else { 12 });
            println!("{cuts} power cuts, {} of them lost something: {lost:?}", lost.len());
            assert!(cuts > 6 && lost.is_empty());
            let (_, lost) = cut(Honesty::ForgetsToFlush, 8);
            assert!(!lost.is_empty(), "a flush that is left out is not found");
        }
    }
}

/// Whether a write is confirmed only once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Honesty {
    Flushes,
    /// A planted mistake.
    ForgetsToFlush,
}

/// What the store has confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Confirmed {
    drives: BTreeMap<DriveId, Drive>,
    snapshots: BTreeMap<SnapshotId, Drive>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Drive {
    blocks: u64,
    epoch: Epoch,
    /// What each block that was ever written may hold; all others hold zeros.
    written: BTreeMap<u64, BTreeSet<u8>>,
}

impl Drive {
    fn holds(&self, block: u64, byte: u8) -> bool {
        self.written.get(&block).map_or(byte == 0, |bytes| bytes.contains(&byte))
    }
}

/// How the mirror is taken down, and the device below it, which is to be named behind.
const DOWN: &str = "umount /srv/cut; mdadm --quiet --stop --scan; DM_DISABLE_UDEV=1 dmsetup remove";

/// Cuts the power at so many points at most, all along the way; tells how many there were, and what
/// each that lost something lost.
fn cut(honesty: Honesty, most: usize) -> (usize, Vec<String>) {
    let array =
        MadeArray { md: Uuid::from_u128(4), filesystem: Uuid::from_u128(5), integrity: None };
    let MadeArray { md, filesystem, .. } = array;
    bash(&format!(
        "MD={md} FS={filesystem}
         of() {{ for disk in /sys/block/sd*; do \
         grep -aq \"LAB-DISK-$1\\$\" $disk/device/vpd_pg80 && echo /dev/${{disk##*/}}; done; true; }}
         export DM_DISABLE_UDEV=1; modprobe dm-log-writes; modprobe dm-snapshot
         mkdir -p /srv/cut /run/disks
         for disk in 1 2 3 4 5; do ln -sfn $(of $disk) /run/disks/$disk; done
         blkdiscard -f -z /run/disks/3; blkdiscard -f -z /run/disks/1
         dmsetup create logged --table \"0 655360 log-writes $(of 1) $(of 2)\"
         modprobe raid1
         mdadm --create /dev/md/cut --run --metadata=1.2 --homehost=any --bitmap=internal \
             --assume-clean --level=raid1 --raid-devices=2 --uuid=$MD \
             /dev/mapper/logged $(of 5)
         mkfs.xfs -q -K -f -m reflink=1,uuid=$FS /dev/md/cut
         mount /dev/md/cut /srv/cut"
    ));
    let history = run(go_through_steps(honesty));
    // Or the mirror would come up on what these hold in the end.
    bash(&format!("{DOWN} logged; mdadm --zero-superblock /run/disks/1 /run/disks/5"));
    let log = WriteLog::open(Path::new("/run/disks/2")).unwrap();
    let points: Vec<Point> =
        log.points().into_iter().filter(|point| point.mark.is_some()).collect();
    let every = points.len().div_ceil(most);
    let (mut sure, mut cuts, mut lost) = (0, 0, Vec::new());
    let mut rng = SimRng::new(4);
    for point in points.iter().step_by(every) {
        log.replay(Path::new("/run/disks/3"), sure..point.sure, || true).unwrap();
        sure = point.sure;
        bash(
            "DM_DISABLE_UDEV=1 dmsetup create cut \
             --table \"0 655360 snapshot $(readlink /run/disks/3) $(readlink /run/disks/4) N 8\"",
        );
        log.replay(Path::new("/dev/mapper/cut"), sure..point.told, || rng.below(2) == 0).unwrap();
        array.bring_up(Path::new("/srv/cut")).unwrap();
        let mark = point.mark.unwrap();
        let after = history.get(mark + 1).unwrap_or(&history[mark]);
        if let Err(reason) = run(check(&history[mark], after)) {
            lost.push(format!("{point:?}: {reason}"));
        }
        bash(&format!("{DOWN} cut"));
        cuts += 1;
        if honesty == Honesty::ForgetsToFlush && !lost.is_empty() {
            break;
        }
    }
    (cuts, lost)
}

fn open() -> DirectoryStore {
    let array = DirectoryArray {
        array: "a77a0000-0000-4000-8000-000000000001".parse().unwrap(),
        name: "cut".to_owned(),
        path: "/srv/cut/array".into(),
        capacity: ArrayCapacity::Fixed(Bytes::from_mib(200)),
    };
    let state = Path::new("/data/state");
    let _ = fs::remove_dir_all(state);
    fs::create_dir_all(state).unwrap();
    DirectoryStore::open(KnownArrays::read(state).unwrap(), vec![array]).unwrap()
}

/// Marks in the log that the step of this number is confirmed.
fn mark(step: usize) {
    bash(&format!("dmsetup message logged 0 mark {step}"));
}

fn bytes(count: u64) -> Bytes {
    Bytes::try_from(count).unwrap()
}

fn spec(drive: DriveId, blocks: u64, generation: u64) -> DriveSpec {
    DriveSpec {
        drive,
        array: "a77a0000-0000-4000-8000-000000000001".parse().unwrap(),
        account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
        size: bytes(blocks * BLOCK),
        generation: Generation::new(Era(1), generation),
    }
}

/// What was confirmed after each step, from the start on.
async fn go_through_steps(honesty: Honesty) -> Vec<Confirmed> {
    let store = open();
    let mut rng = SimRng::new(3);
    let mut confirmed = Confirmed::default();
    let mut history = vec![confirmed.clone()];
    mark(0);
    for step in 1..=STEPS {
        let drives: Vec<DriveId> = confirmed.drives.keys().copied().collect();
        let chosen = match &drives[..] {
            [] => None,
            drives => drives.iter().copied().cycle().nth(usize::try_from(rng.below(64)).unwrap()),
        };
        let generation = step as u64 + 1;
        match (rng.below(10), chosen) {
            (0 | 1, _) | (_, None) => {
                let drive = rng.id();
                store.create(&spec(drive, BLOCKS, generation)).await.unwrap();
                let new = Drive { blocks: BLOCKS, epoch: Epoch(0), written: BTreeMap::new() };
                confirmed.drives.insert(drive, new);
            }
            (2, Some(drive)) => {
                let drive_now = confirmed.drives.get_mut(&drive).unwrap();
                drive_now.blocks += 1;
                let grown = spec(drive, drive_now.blocks, generation);
                store.resizer().unwrap().resize(&grown).await.unwrap();
            }
            (3, Some(drive)) => {
                let (snapshot, taken) = (rng.id(), confirmed.drives[&drive].clone());
                let snapshots = store.snapshots().unwrap();
                snapshots.take_snapshot(snapshot, drive, Writers::Volumes).await.unwrap();
                confirmed.snapshots.insert(snapshot, taken);
            }
            (4, Some(drive)) => {
                store.destroy(drive, Generation::new(Era(1), generation)).await.unwrap();
                confirmed.drives.remove(&drive);
                confirmed.snapshots.clear();
                let snapshots = store.snapshots().unwrap();
                for taken in snapshots.list_snapshots().await.unwrap() {
                    snapshots.destroy_snapshot(taken.snapshot).await.unwrap();
                }
            }
            (5, Some(drive)) => {
                let drive_now = confirmed.drives.get_mut(&drive).unwrap();
                drive_now.epoch = drive_now.epoch.next();
                store.fence(drive, drive_now.epoch).await.unwrap();
            }
            (_, Some(drive)) => {
                let drive_now = confirmed.drives.get_mut(&drive).unwrap();
                let volume = store.open(drive, drive_now.epoch).await.unwrap();
                write(&*volume, &mut rng, drive_now, honesty).await;
            }
        }
        mark(step);
        history.push(confirmed.clone());
    }
    history
}

/// Writes blocks and confirms them, then writes more, of which nothing is promised.
async fn write(volume: &dyn Volume, rng: &mut SimRng, drive: &mut Drive, honesty: Honesty) {
    let put = async |rng: &mut SimRng| {
        let (block, byte) = (rng.below(drive.blocks), 1 + u8::try_from(rng.below(255)).unwrap());
        let data = vec![byte; usize::try_from(BLOCK).unwrap()];
        volume.write_at(bytes(block * BLOCK), data.into()).await.unwrap();
        (block, byte)
    };
    let sure = [put(rng).await, put(rng).await];
    if honesty == Honesty::Flushes {
        volume.flush().await.unwrap();
    }
    let unsure = put(rng).await;
    for (block, byte) in sure {
        drive.written.insert(block, BTreeSet::from([byte]));
    }
    let may_be = drive.written.entry(unsure.0).or_insert_with(|| BTreeSet::from([0]));
    may_be.insert(unsure.1);
}

/// Whether all that was confirmed is there; the step after it may have happened, or not.
async fn check(before: &Confirmed, after: &Confirmed) -> Result<(), String> {
    let store = open();
    let listed = store.list().await.map_err(|error| format!("no list: {error}"))?;
    let found: BTreeMap<DriveId, _> =
        listed.iter().map(|report| (report.spec.drive, report)).collect();
    let known: BTreeSet<DriveId> =
        found.keys().chain(before.drives.keys()).chain(after.drives.keys()).copied().collect();
    for drive in known {
        let report = found.get(&drive);
        let candidates = [before.drives.get(&drive), after.drives.get(&drive)];
        let mut reasons = Vec::new();
        for candidate in candidates {
            match (candidate, report) {
                (None, None) => reasons.clear(),
                (None, Some(_)) => reasons.push("it is there".to_owned()),
                (Some(_), None) => reasons.push("it is gone".to_owned()),
                (Some(wanted), Some(report)) => {
                    let size = bytes(wanted.blocks * BLOCK);
                    if report.spec.size != size || report.epoch < wanted.epoch {
                        reasons.push(format!("{report:?} is not of {size}, {}", wanted.epoch));
                        continue;
                    }
                    let volume = store.open(drive, report.epoch).await.unwrap();
                    match compare(volume, before.drives.get(&drive), after.drives.get(&drive)).await
                    {
                        Ok(()) => {}
                        Err(reason) => reasons.push(reason),
                    }
                }
            }
        }
        if reasons.len() == candidates.len() {
            return Err(format!("drive {drive}: {reasons:?}"));
        }
    }
    check_snapshots(&store, before, after).await
}

/// Each block is as it was before the step, or after it.
async fn compare(
    volume: Arc<dyn Volume>,
    before: Option<&Drive>,
    after: Option<&Drive>,
) -> Result<(), String> {
    let mut data = vec![0; usize::try_from(volume.size().get()).unwrap()];
    volume.read_at(Bytes::ZERO, &mut data).await.map_err(|error| error.to_string())?;
    for (number, block) in (0..).zip(data.chunks(usize::try_from(BLOCK).unwrap())) {
        // A write that was never confirmed may be there in part.
        let may_be =
            |byte: u8| [before, after].into_iter().flatten().any(|drive| drive.holds(number, byte));
        if let Some(wrong) = block.iter().find(|byte| !may_be(**byte)) {
            return Err(format!("block {number} holds {wrong}"));
        }
    }
    Ok(())
}

async fn check_snapshots(
    store: &DirectoryStore,
    before: &Confirmed,
    after: &Confirmed,
) -> Result<(), String> {
    let snapshots = store.snapshots().unwrap();
    let listed = snapshots.list_snapshots().await.map_err(|error| error.to_string())?;
    let found: BTreeSet<SnapshotId> = listed.iter().map(|report| report.snapshot).collect();
    for snapshot in before.snapshots.keys().filter(|it| after.snapshots.contains_key(it)) {
        if !found.contains(snapshot) {
            return Err(format!("snapshot {snapshot} is gone"));
        }
    }
    for report in &listed {
        let of = [before, after].map(|confirmed| confirmed.snapshots.get(&report.snapshot));
        let is_there = |it: &Confirmed| it.drives.contains_key(&report.drive);
        if of == [None, None] || !(is_there(before) && is_there(after)) {
            continue;
        }
        let epoch = Epoch(1_000_000);
        let restored = snapshots.restore_snapshot(report.snapshot, epoch).await;
        restored.map_err(|error| format!("snapshot {}: {error}", report.snapshot))?;
        let volume = store.open(report.drive, epoch).await.unwrap();
        compare(volume, of[0], of[1]).await.map_err(|reason| format!("snapshot: {reason}"))?;
    }
    Ok(())
}
