//! The clauses of the block contracts, held against real directories; and what the tests of the
//! store's other files share.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use elasticstack_core::block::{ArrayState, Attachment};
use tempfile::TempDir;

use super::layout::Part;
use super::*;

pub(super) fn drive_id(number: u8) -> DriveId {
    format!("5b0e3c52-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

pub(super) fn array_id(number: u8) -> ArrayId {
    format!("a77a0000-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

pub(super) fn generation(number: u64) -> Generation {
    Generation::new(Era(1), number)
}

/// Drive `number` of `mib` MiB on array 1, generation 1.
pub(super) fn spec(number: u8, mib: u32) -> DriveSpec {
    DriveSpec {
        drive: drive_id(number),
        array: array_id(1),
        account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
        size: Bytes::from_mib(mib),
        generation: generation(1),
    }
}

/// Array `number` in a directory of that number, with room for 16 MiB.
pub(super) fn array(root: &Path, number: u8) -> DirectoryArray {
    DirectoryArray {
        array: array_id(number),
        name: format!("md{number}"),
        path: root.join(number.to_string()),
        capacity: ArrayCapacity::Fixed(Bytes::from_mib(16)),
    }
}

/// A store of these arrays, on a host that remembers in `root` which it had.
pub(super) fn open_arrays(root: &Path, arrays: Vec<DirectoryArray>) -> DirectoryStore {
    DirectoryStore::open(KnownArrays::read(root).unwrap(), arrays).unwrap()
}

/// A store of arrays 1 and 2.
pub(super) fn open_store(root: &Path) -> DirectoryStore {
    open_arrays(root, vec![array(root, 1), array(root, 2)])
}

pub(super) fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A file system in a file, mounted for as long as this lives.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn xfs(image: &Path, at: &Path) -> Self {
        fs::File::create(image).unwrap().set_len(320 << 20).unwrap();
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(image));
        run(Command::new("mount").args(["-o", "loop"]).args([image, at]));
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[track_caller]
pub(super) fn refused<T>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("this was not refused as {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error:?}");
            error
        }
    }
}

pub(super) async fn contents(volume: &dyn Volume) -> Vec<u8> {
    let mut bytes = vec![1; usize::try_from(volume.size().get()).unwrap()];
    volume.read_at(Bytes::ZERO, &mut bytes).await.unwrap();
    bytes
}

pub(super) async fn fill(volume: &dyn Volume, byte: u8) {
    let size = usize::try_from(volume.size().get()).unwrap();
    volume.write_at(Bytes::ZERO, vec![byte; size].into()).await.unwrap();
}

pub(super) fn all(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|found| *found == byte)
}

async fn specs(store: &DirectoryStore) -> Vec<DriveSpec> {
    store.list().await.unwrap().into_iter().map(|report| report.spec).collect()
}

#[tokio::test]
async fn creating_again_changes_nothing_and_creating_another_is_refused() {
    let root = scratch();
    let store = open_store(root.path());
    store.create(&spec(1, 4)).await.unwrap();
    let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
    fill(&*volume, 7).await;
    store.create(&spec(1, 4)).await.unwrap();
    assert!(all(&contents(&*volume).await, 7));

    let larger = spec(1, 5);
    let elsewhere = DriveSpec { array: array_id(2), ..spec(1, 4) };
    let others = DriveSpec {
        account: "acc00000-0000-4000-8000-000000000002".parse().unwrap(),
        ..spec(1, 4)
    };
    for other in [&larger, &elsewhere, &others] {
        refused(store.create(other).await, ErrorKind::ChangedMeanwhile);
    }
    let nowhere = DriveSpec { array: array_id(9), ..spec(2, 4) };
    refused(store.create(&nowhere).await, ErrorKind::NotFound);

    drop((store, volume));
    let store = open_store(root.path());
    store.create(&spec(1, 4)).await.unwrap();
    refused(store.create(&larger).await, ErrorKind::ChangedMeanwhile);
    let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
    assert!(all(&contents(&*volume).await, 7));
    assert_eq!(specs(&store).await, [spec(1, 4)]);
}

#[tokio::test]
async fn a_drive_is_one_private_sparse_file_of_zeros_whatever_its_size() {
    let root = scratch();
    let capacity = ArrayCapacity::Fixed(Bytes::from_gib(2048));
    let store =
        open_arrays(root.path(), vec![DirectoryArray { capacity, ..array(root.path(), 1) }]);
    let mut used = Vec::new();
    for (number, gib) in [(1, 1), (2, 1024)] {
        let size = Bytes::from_gib(gib);
        store.create(&DriveSpec { size, ..spec(number, 0) }).await.unwrap();
        let volume = store.open(drive_id(number), Epoch(1)).await.unwrap();
        let Some(Attachment::File(path)) = volume.attachment() else { panic!("no file") };
        assert!(path.is_absolute());
        let file = fs::metadata(path).unwrap();
        assert_eq!((file.len(), file.permissions().mode() & 0o777), (size.get(), 0o600));
        used.push(file.blocks());
        let mut end = [1; 512];
        let offset = size.saturating_sub(Bytes::try_from(512).unwrap());
        volume.read_at(offset, &mut end).await.unwrap();
        assert!(all(&end, 0));
        assert_eq!(volume.next_data(Bytes::ZERO).await.unwrap(), None);
    }
    assert_eq!(used, [0, 0]);
}

#[tokio::test]
async fn an_array_promises_no_more_than_its_capacity() {
    let root = scratch();
    let store = Arc::new(open_store(root.path()));
    let creating: Vec<_> = (1..=20)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create(&spec(number, 3)).await })
        })
        .collect();
    let mut made = 0;
    for create in creating {
        match create.await.unwrap() {
            Ok(()) => made += 1,
            refusal => drop(refused(refusal, ErrorKind::NoCapacity)),
        }
    }
    assert_eq!((made, specs(&store).await.len()), (5, 5));
    let reports = store.capacity().await.unwrap();
    let promised: Vec<_> = reports.iter().map(|a| (a.name.as_str(), a.promised)).collect();
    assert_eq!(promised, [("md1", Bytes::from_mib(15)), ("md2", Bytes::ZERO)]);
    store.create(&DriveSpec { array: array_id(2), ..spec(30, 16) }).await.unwrap();

    let first = specs(&store).await.remove(0).drive;
    store.destroy(first, generation(1)).await.unwrap();
    store.create(&spec(31, 4)).await.unwrap();
    let said = refused(store.create(&spec(32, 1)).await, ErrorKind::NoCapacity);
    assert!(said.to_string().contains("has room for 0 bytes more, not 1 MiB"), "{said}");
}

async fn states(store: &DirectoryStore) -> Vec<ArrayState> {
    store.capacity().await.unwrap().into_iter().map(|report| report.state).collect()
}

#[tokio::test]
async fn a_disk_promises_its_room_less_the_reserve_and_only_once() {
    let root = scratch();
    let disk = |number, mib| DirectoryArray {
        capacity: ArrayCapacity::Disk { reserve: Bytes::from_mib(mib) },
        ..array(root.path(), number)
    };
    let capacity = |store: DirectoryStore| async move {
        store.capacity().await.unwrap().first().unwrap().capacity
    };
    let all = capacity(open_arrays(root.path(), vec![disk(1, 0)])).await;
    assert!(all > Bytes::ZERO);
    let none = capacity(open_arrays(root.path(), vec![disk(1, u32::MAX)])).await;
    assert_eq!(none, all.saturating_sub(Bytes::from_mib(u32::MAX)));
    let twice = open_arrays(root.path(), vec![disk(1, 0), disk(2, 0)]);
    assert_eq!(states(&twice).await, [ArrayState::Online, ArrayState::Failed]);
}

#[tokio::test]
async fn only_a_fence_ends_the_access_of_an_epoch_and_it_does_for_good() {
    let root = scratch();
    let store = open_store(root.path());
    refused(store.open(drive_id(1), Epoch(1)).await, ErrorKind::NotFound);
    refused(store.fence(drive_id(1), Epoch(1)).await, ErrorKind::NotFound);
    store.create(&spec(1, 1)).await.unwrap();
    let epoch = async |store: &DirectoryStore| store.list().await.unwrap().remove(0).epoch;
    assert_eq!(epoch(&store).await, Epoch(0));

    let three = store.open(drive_id(1), Epoch(3)).await.unwrap();
    let five = store.open(drive_id(1), Epoch(5)).await.unwrap();
    let four = store.open(drive_id(1), Epoch(4)).await.unwrap();
    assert_eq!(epoch(&store).await, Epoch(5));
    fill(&*three, 3).await;
    fill(&*five, 5).await;
    fill(&*four, 4).await;
    for _repeated in 0..2 {
        store.fence(drive_id(1), Epoch(5)).await.unwrap();
        store.fence(drive_id(1), Epoch(2)).await.unwrap();
    }
    for old in [&three, &four] {
        refused(old.read_at(Bytes::ZERO, &mut [0]).await, ErrorKind::Fenced);
        refused(old.write_at(Bytes::ZERO, vec![9].into()).await, ErrorKind::Fenced);
        refused(old.discard(Bytes::ZERO, old.size()).await, ErrorKind::Fenced);
        refused(old.next_data(Bytes::ZERO).await, ErrorKind::Fenced);
        refused(old.flush().await, ErrorKind::Fenced);
    }
    assert!(all(&contents(&*five).await, 4));
    refused(store.open(drive_id(1), Epoch(4)).await, ErrorKind::Fenced);

    drop((store, three, four, five));
    let store = open_store(root.path());
    refused(store.open(drive_id(1), Epoch(4)).await, ErrorKind::Fenced);
    store.open(drive_id(1), Epoch(5)).await.unwrap();
    store.fence(drive_id(1), Epoch(8)).await.unwrap();
    assert_eq!(epoch(&store).await, Epoch(8));
}

#[tokio::test]
async fn a_fence_returns_only_when_no_old_access_is_in_flight() {
    let root = scratch();
    let store = Arc::new(open_store(root.path()));
    store.create(&spec(1, 1)).await.unwrap();
    let drive = store.catalogue.find(drive_id(1)).unwrap();
    let in_flight = drive.enter(Epoch(0), Bytes::ZERO, 512).await.unwrap();
    refused(drive.quiet(Duration::ZERO).await, ErrorKind::Unavailable);

    let fencing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.fence(drive_id(1), Epoch(1)).await }
    });
    // The fence stands before the access has ended …
    let standing = async {
        while drive.record().unwrap().fence < Epoch(1) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), standing).await.unwrap();
    refused(store.open(drive_id(1), Epoch(0)).await, ErrorKind::Fenced);
    for _chance in 0..100 {
        tokio::task::yield_now().await;
        assert!(!fencing.is_finished());
    }
    // … and returns after it.
    drop(in_flight);
    fencing.await.unwrap().unwrap();
    refused(drive.enter(Epoch(0), Bytes::ZERO, 512).await, ErrorKind::Fenced);
}

#[tokio::test]
async fn destroying_needs_the_generation_and_frees_the_space_of_open_volumes() {
    let root = scratch();
    let store = open_store(root.path());
    store.create(&DriveSpec { generation: generation(7), ..spec(1, 2) }).await.unwrap();
    let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
    fill(&*volume, 7).await;
    refused(store.destroy(drive_id(1), generation(6)).await, ErrorKind::Stale);
    assert!(all(&contents(&*volume).await, 7));

    let Some(Attachment::File(path)) = volume.attachment() else { panic!("no file") };
    let still_open = fs::File::open(path).unwrap();
    let late = store.catalogue.find(drive_id(1)).unwrap();
    for _repeated in 0..2 {
        store.destroy(drive_id(1), generation(7)).await.unwrap();
    }
    assert_eq!(still_open.metadata().unwrap().blocks(), 0);
    assert_eq!(specs(&store).await, []);
    refused(store.open(drive_id(1), Epoch(2)).await, ErrorKind::NotFound);

    store.create(&spec(1, 1)).await.unwrap();
    refused(volume.write_at(Bytes::ZERO, vec![9].into()).await, ErrorKind::Fenced);
    refused(volume.flush().await, ErrorKind::Fenced);
    // One that had found the old drive before it went does not destroy the new one.
    late.destroy(generation(7)).unwrap();
    let anew = store.open(drive_id(1), Epoch(1)).await.unwrap();
    assert!(all(&contents(&*anew).await, 0));
}

#[tokio::test]
async fn a_directory_brings_its_drives_along_and_opens_under_no_other_name() {
    let (root, elsewhere) = (scratch(), scratch());
    let store = open_store(root.path());
    store.create(&spec(1, 1)).await.unwrap();
    let volume = store.open(drive_id(1), Epoch(3)).await.unwrap();
    fill(&*volume, 7).await;
    let before = store.list().await.unwrap();
    drop((store, volume));

    fs::rename(root.path().join("1"), elsewhere.path().join("2")).unwrap();
    let moved = array(elsewhere.path(), 2);
    let other = open_arrays(elsewhere.path(), vec![moved.clone()]);
    assert_eq!(states(&other).await, [ArrayState::Failed]);
    drop(other);
    let moved = DirectoryArray { array: array_id(1), ..moved };
    let known = KnownArrays::read(elsewhere.path()).unwrap();
    assert_eq!(known.identify(&moved.path).unwrap(), Some(array_id(1)));
    let store = DirectoryStore::open(known, vec![moved.clone()]).unwrap();
    assert_eq!(store.list().await.unwrap(), before);
    let volume = store.open(drive_id(1), Epoch(3)).await.unwrap();
    assert!(all(&contents(&*volume).await, 7));
    drop((store, volume));

    // Drives without a label are no new array's, on no host.
    fs::remove_file(moved.path.join("array.json")).unwrap();
    for host in [elsewhere.path(), scratch().path()] {
        assert_eq!(states(&open_arrays(host, vec![moved.clone()])).await, [ArrayState::Failed]);
    }
    assert!(!moved.path.join("array.json").exists());
}

#[tokio::test]
async fn what_makes_no_sense_is_left_alone_and_stands_in_nobodys_way() {
    let root = scratch();
    let store = open_store(root.path());
    for number in 1..=6 {
        store.create(&spec(number, 1)).await.unwrap();
    }
    drop(store);
    let drives = root.path().join("1/drives");
    let path = |number, part: Part| drives.join(part.of(drive_id(number)));
    fs::write(path(1, Part::Record), "{").unwrap();
    fs::remove_file(path(2, Part::Record)).unwrap();
    fs::remove_file(path(3, Part::Raw)).unwrap();
    fs::write(path(4, Part::Raw), "short").unwrap();
    fs::copy(path(5, Part::Record), path(7, Part::Record)).unwrap();
    fs::copy(path(5, Part::Raw), path(7, Part::Raw)).unwrap();
    fs::write(drives.join("notes.txt"), "by the operator").unwrap();
    let files = || {
        let mut names: Vec<_> =
            fs::read_dir(&drives).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();

    let store = open_store(root.path());
    assert_eq!(specs(&store).await, [spec(5, 1), spec(6, 1)]);
    for number in [1, 2, 3, 4, 7] {
        refused(store.create(&spec(number, 1)).await, ErrorKind::Internal);
        refused(store.open(drive_id(number), Epoch(1)).await, ErrorKind::Internal);
        refused(store.destroy(drive_id(number), generation(9)).await, ErrorKind::Internal);
    }
    assert_eq!(files(), before);
    drop(store);

    let twin = root.path().join("2/drives");
    let json = fs::read_to_string(path(5, Part::Record)).unwrap();
    let json = json.replace(&array_id(1).to_string(), &array_id(2).to_string());
    fs::write(twin.join(Part::Record.of(drive_id(5))), json).unwrap();
    fs::copy(path(5, Part::Raw), twin.join(Part::Raw.of(drive_id(5)))).unwrap();
    let store = open_store(root.path());
    assert_eq!(specs(&store).await, [spec(6, 1)]);
}

#[tokio::test]
async fn a_create_whose_caller_went_away_is_whole_or_can_be_repeated() {
    let root = scratch();
    let store = open_store(root.path());
    for number in 1..=8 {
        let spec = spec(number, 2);
        let _ = tokio::time::timeout(Duration::ZERO, store.create(&spec)).await;
        store.create(&spec).await.unwrap();
    }
    assert_eq!(specs(&store).await.len(), 8);
}

/// What the one drive is: its report and its bytes.
async fn seen(store: &DirectoryStore) -> Option<(DriveReport, Vec<u8>)> {
    let report = store.list().await.unwrap().pop()?;
    let volume = store.open(report.spec.drive, report.epoch).await.unwrap();
    Some((report, contents(&*volume).await))
}

/// Cuts a change off before each of its steps, reopens, and checks that the drive is as before or
/// as after it, that nothing is left over, and that doing it again leads to the same end.
async fn crash_everywhere(
    prepare: impl AsyncFn(&DirectoryStore),
    change: impl AsyncFn(&DirectoryStore) -> Result<()>,
) {
    let mut outcomes = [0, 0];
    for steps in 0.. {
        let root = scratch();
        let store = open_store(root.path());
        prepare(&store).await;
        let before = seen(&store).await;
        store.catalogue.array(array_id(1)).unwrap().drives.files.fuse.set(steps);
        let result = change(&store).await;
        drop(store);

        let store = open_store(root.path());
        let found = seen(&store).await;
        let names = store.catalogue.array(array_id(1)).unwrap().drives.files.names().unwrap();
        assert_eq!(names.len(), if found.is_some() { 2 } else { 0 }, "{names:?}");
        if let Some((report, _)) = &found {
            let raw = store.catalogue.array(array_id(1)).unwrap().raw(drive_id(1));
            assert_eq!(fs::metadata(raw).unwrap().len(), report.spec.size.get());
        }
        change(&store).await.unwrap();
        let after = seen(&store).await;
        assert!(found == before || found == after, "after {steps} steps");
        assert_ne!(before, after);
        if result.is_ok() {
            assert_eq!(found, after);
            assert!(outcomes.iter().all(|seen| *seen > 0), "{outcomes:?} in {steps} steps");
            return;
        }
        outcomes[usize::from(found == after)] += 1;
    }
}

#[tokio::test]
async fn a_crash_anywhere_leaves_the_old_drive_or_the_new_one() {
    let full = async |store: &DirectoryStore| {
        store.create(&spec(1, 2)).await.unwrap();
        let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
        fill(&*volume, 7).await;
        volume.flush().await.unwrap();
    };
    let resize = async |store: &DirectoryStore, mib| {
        let spec = DriveSpec { generation: generation(2), ..spec(1, mib) };
        store.resizer().unwrap().resize(&spec).await
    };
    crash_everywhere(async |_| (), async |store| store.create(&spec(1, 2)).await).await;
    crash_everywhere(full, async |store| store.destroy(drive_id(1), generation(1)).await).await;
    crash_everywhere(full, async |store| resize(store, 3).await).await;
    crash_everywhere(full, async |store| resize(store, 1).await).await;
    crash_everywhere(full, async |store| store.fence(drive_id(1), Epoch(2)).await).await;
}

#[tokio::test]
async fn a_failed_change_leaves_a_store_that_goes_on() {
    let root = scratch();
    for steps in 0..12 {
        let store = open_store(root.path());
        let array = store.catalogue.array(array_id(1)).unwrap();
        let fuse = &array.drives.files.fuse;
        fuse.set(steps);
        let created = store.create(&spec(1, 16)).await;
        fuse.set(usize::MAX);
        store.create(&spec(1, 16)).await.unwrap();
        fuse.set(steps);
        let destroyed = store.destroy(drive_id(1), generation(1)).await;
        fuse.set(usize::MAX);
        store.destroy(drive_id(1), generation(1)).await.unwrap();
        assert_eq!(specs(&store).await, [], "{created:?} {destroyed:?}");
        assert_eq!(store.catalogue.array_reports()[0].promised, Bytes::ZERO);
    }
}
