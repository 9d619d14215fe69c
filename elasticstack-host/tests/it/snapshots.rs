//! Snapshots of a drive that a real guest uses, on a file system that shares blocks.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command as Program;

use elasticstack_core::block::{Attachment, BlockStore, DriveSpec, Writers};
use elasticstack_core::generation::{Epoch, Era, Generation, Run};
use elasticstack_core::hypervisor::{EndCause, Hypervisor, Phase};
use elasticstack_core::id::{ArrayId, DriveId, SnapshotId};
use elasticstack_core::units::Bytes;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};

use crate::guest_code::{self, Command};
use crate::qemu_rig::Rig;

const SECTOR: usize = 512;
/// Where the guest writes.
const WRITTEN: u64 = 63 * 512;

/// An XFS in a file, mounted for as long as this lives.
struct Xfs(PathBuf);

impl Xfs {
    fn new(image: &Path, at: &Path) -> Self {
        File::create(image).unwrap().set_len(320 << 20).unwrap();
        fs::create_dir(at).unwrap();
        run(Program::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(image));
        run(Program::new("mount").args(["-o", "loop"]).args([image, at]));
        Self(at.to_owned())
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        run(Program::new("umount").arg(&self.0));
    }
}

#[track_caller]
fn run(program: &mut Program) {
    let output = program.output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    assert!(output.status.success(), "{program:?}: {output:?}");
}

/// What the guest is told to write next, after the command itself.
fn tell(disk: &Path, text: &[u8]) {
    OpenOptions::new().write(true).open(disk).unwrap().write_all_at(text, 513).unwrap();
    guest_code::command(disk, Command::Write).unwrap();
}

fn array(path: PathBuf, array: ArrayId) -> DirectoryArray {
    let capacity = ArrayCapacity::Fixed(Bytes::from_mib(64));
    DirectoryArray { array, name: "xfs".to_owned(), path, capacity }
}

/// A guest writes `old` and powers itself off; the next run of it writes `new` after a snapshot was
/// taken beside it. Restored, the drive holds what was written before the snapshot.
#[tokio::test]
#[ignore = "needs QEMU, root and loop devices: cargo xtask test"]
async fn what_a_guest_wrote_before_a_snapshot_is_there_again_after_its_restore() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Xfs::new(&folder.path().join("image"), &folder.path().join("array"));
    let known = KnownArrays::read(&folder.path().join("state")).unwrap();
    let id: ArrayId = "a77a0000-0000-4000-8000-000000000001".parse().unwrap();
    let arrays = vec![array(folder.path().join("array"), id)];
    let store = DirectoryStore::open(known, arrays).unwrap();
    let drive: DriveId = "5b0e3c52-0000-4000-8000-00000000d001".parse().unwrap();
    let spec = DriveSpec {
        drive,
        array: id,
        account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
        size: Bytes::from_mib(1),
        generation: Generation::new(Era(1), 1),
    };
    store.create(&spec).await.unwrap();
    let volume = store.open(drive, Epoch(1)).await.unwrap();
    let attachment = volume.attachment().unwrap();
    let Attachment::File(disk) = attachment.clone() else { panic!("no file") };
    guest_code::make_disk(&disk).unwrap();
    let rig = Rig::open().await;
    let mut server = rig.machine.spec("unused");
    server.drives[0].attachment = attachment;

    rig.qemu.ensure(&server, Run(1)).await.unwrap();
    rig.until_serial(&server, b"hello\r\n").await;
    tell(&disk, b"old");
    rig.until(&server, Phase::Ended(EndCause::Guest)).await;
    rig.qemu.remove(server.server).await.unwrap();

    guest_code::command(&disk, Command::Wait).unwrap();
    rig.qemu.ensure(&server, Run(2)).await.unwrap();
    rig.until_serial(&server, b"hello\r\n").await;
    let snapshot: SnapshotId = "5a000000-0000-4000-8000-000000000001".parse().unwrap();
    let snapshots = store.snapshots().unwrap();
    snapshots.take_snapshot(snapshot, drive, Writers::Attached).await.unwrap();
    tell(&disk, b"new");
    rig.until(&server, Phase::Ended(EndCause::Guest)).await;
    rig.qemu.remove(server.server).await.unwrap();
    drop(volume);

    let written = async |epoch| {
        let volume = store.open(drive, epoch).await.unwrap();
        let mut sector = [0; SECTOR];
        volume.read_at(Bytes::try_from(WRITTEN).unwrap(), &mut sector).await.unwrap();
        sector
    };
    assert_eq!(written(Epoch(1)).await[..4], *b"wnew");
    snapshots.restore_snapshot(snapshot, Epoch(2)).await.unwrap();
    assert_eq!(written(Epoch(2)).await[..4], *b"wold");

    // And what was restored boots.
    let volume = store.open(drive, Epoch(2)).await.unwrap();
    server.drives[0].attachment = volume.attachment().unwrap();
    guest_code::command(&disk, Command::Wait).unwrap();
    rig.qemu.ensure(&server, Run(3)).await.unwrap();
    rig.until_serial(&server, b"hello\r\n").await;
    rig.qemu.remove(server.server).await.unwrap();
    drop((volume, store, mounted));
}
