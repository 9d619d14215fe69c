//! Arrays that can't be opened, held against real directories: each fails alone, and nothing of it
//! is taken for gone.

use std::fs::{self, File};
use std::path::Path;

use elasticstack_core::block::{ArrayState, Writers};

use super::tests::{
    all, array, array_id, contents, drive_id, fill, generation, open_arrays, open_store, refused,
    scratch, spec,
};
use super::*;

/// A way in which array 1 below the directory can't be used; it answers with what mends that.
type Breakage = fn(&Path) -> Mend;

type Mend = Box<dyn FnOnce()>;

/// Puts `place` aside, and `instead` in its place.
fn exchange(place: &Path, instead: impl FnOnce(&Path)) -> Mend {
    let (place, aside) = (place.to_owned(), place.with_extension("aside"));
    fs::rename(&place, &aside).unwrap();
    instead(&place);
    Box::new(move || {
        // One of the two it is, if anything.
        let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
        fs::rename(&aside, &place).unwrap();
    })
}

const BREAKAGES: [(&str, Breakage); 6] = [
    ("its disk is not mounted", |root| {
        exchange(&root.join("1"), |mount_point| fs::create_dir(mount_point).unwrap())
    }),
    ("its directory is not there", |root| exchange(&root.join("1"), |_| {})),
    ("its label can't be read", |root| {
        exchange(&root.join("1/array.json"), |label| fs::write(label, "{").unwrap())
    }),
    ("it is another array", |root| {
        exchange(&root.join("1/array.json"), |label| {
            let mine = fs::read_to_string(label.with_extension("aside")).unwrap();
            let other = mine.replace(&array_id(1).to_string(), &array_id(9).to_string());
            fs::write(label, other).unwrap();
        })
    }),
    ("its drives can't be listed", |root| {
        exchange(&root.join("1/drives"), |drives| fs::write(drives, "").unwrap())
    }),
    ("another process has it open", |root| {
        let lock = File::create(root.join("1/lock")).unwrap();
        lock.try_lock().unwrap();
        Box::new(move || lock.unlock().unwrap())
    }),
];

/// A drive on array 2.
fn on_two(number: u8) -> DriveSpec {
    DriveSpec { array: array_id(2), ..spec(number, 1) }
}

/// Drive 1 was on array 1, drive 2 is on array 2.
async fn one_has_failed_and_two_works(store: &DirectoryStore, before: &[DriveReport]) {
    let mut arrays = store.capacity().await.unwrap();
    arrays.sort_by_key(|report| report.array);
    let room: Vec<_> = arrays.iter().map(|a| (a.array, a.capacity, a.state)).collect();
    let failed = (array_id(1), Bytes::ZERO, ArrayState::Failed);
    let works = (array_id(2), Bytes::from_mib(16), ArrayState::Online);
    assert_eq!(room, [failed, works]);

    let gone = ErrorKind::Unavailable;
    refused(store.open(drive_id(1), Epoch(3)).await, gone);
    refused(store.fence(drive_id(1), Epoch(4)).await, gone);
    refused(store.destroy(drive_id(1), generation(9)).await, gone);
    let larger = DriveSpec { generation: generation(9), ..spec(1, 2) };
    refused(store.resizer().unwrap().resize(&larger).await, gone);
    refused(
        store.cloner().unwrap().clone_drive(drive_id(2), drive_id(1), Writers::Volumes).await,
        gone,
    );
    refused(store.create(&spec(1, 1)).await, gone);
    refused(store.create(&spec(3, 1)).await, gone);

    store.create(&on_two(4)).await.unwrap();
    store.open(drive_id(4), Epoch(1)).await.unwrap();
    store.destroy(drive_id(4), generation(1)).await.unwrap();
    assert_eq!(store.list().await.unwrap(), before[1..]);
}

#[tokio::test]
async fn an_array_that_fails_does_so_alone_and_loses_nothing() {
    for (breakage, break_it) in BREAKAGES {
        let root = scratch();
        let store = open_store(root.path());
        store.create(&spec(1, 1)).await.unwrap();
        fill(&*store.open(drive_id(1), Epoch(3)).await.unwrap(), 7).await;
        store.create(&on_two(2)).await.unwrap();
        let before = store.list().await.unwrap();
        drop(store);

        let mend = break_it(root.path());
        let store = open_store(root.path());
        one_has_failed_and_two_works(&store, &before).await;
        drop(store);

        mend();
        let store = open_store(root.path());
        assert_eq!(store.list().await.unwrap(), before, "{breakage}");
        let volume = store.open(drive_id(1), Epoch(3)).await.unwrap();
        assert!(all(&contents(&*volume).await, 7), "{breakage}");
    }
}

#[tokio::test]
async fn an_array_that_fails_while_it_is_open_does_so_alone_and_loses_nothing() {
    let root = scratch();
    let store = open_store(root.path());
    store.create(&spec(1, 1)).await.unwrap();
    let volume = store.open(drive_id(1), Epoch(3)).await.unwrap();
    fill(&*volume, 7).await;
    store.create(&on_two(2)).await.unwrap();
    let snapshot = SnapshotId::from_uuid(uuid::Uuid::from_u128(5));
    let snapshots = store.snapshots().unwrap();
    snapshots.take_snapshot(snapshot, drive_id(1), Writers::Volumes).await.unwrap();
    let before = store.list().await.unwrap();

    // A file system that works is no reason to give its array up.
    store.check(array_id(1));
    assert_eq!(store.list().await.unwrap(), before);
    store.give_up(array_id(1), "the test says so");
    one_has_failed_and_two_works(&store, &before).await;
    assert_eq!(snapshots.list_snapshots().await.unwrap(), []);
    refused(snapshots.destroy_snapshot(snapshot).await, ErrorKind::Unavailable);
    let restored = snapshots.restore_snapshot(snapshot, Epoch(9)).await;
    refused(restored, ErrorKind::Unavailable);
    drop((volume, store));

    let store = open_store(root.path());
    assert_eq!(store.list().await.unwrap(), before);
    let volume = store.open(drive_id(1), Epoch(3)).await.unwrap();
    assert!(all(&contents(&*volume).await, 7));
}

#[tokio::test]
async fn how_the_disks_of_an_array_are_is_told_whether_it_works_or_not() {
    let root = scratch();
    let store = open_store(root.path());
    let disks = Disks { count: 2, missing: 1, work: None, mismatches: 0, each: Vec::new() };
    let told = async |store: &DirectoryStore| {
        let arrays = store.capacity().await.unwrap();
        arrays.into_iter().find(|report| report.array == array_id(1)).unwrap().disks
    };
    assert_eq!(told(&store).await, None);
    store.note_disks(array_id(1), Some(disks.clone()));
    assert_eq!(told(&store).await, Some(disks.clone()));
    store.give_up(array_id(1), "the test says so");
    assert_eq!(told(&store).await, Some(disks));
    store.note_disks(array_id(1), None);
    assert_eq!(told(&store).await, None);
}

#[tokio::test]
async fn a_mount_point_without_its_disk_is_no_new_array() {
    let root = scratch();
    let path = root.path().join("1");
    fs::create_dir(&path).unwrap();
    let known = || KnownArrays::read(root.path()).unwrap();
    assert_eq!(known().identify(&path).unwrap(), None);
    drop(open_arrays(root.path(), vec![array(root.path(), 1)]));
    assert_eq!(DirectoryArray::label(&path).unwrap(), Some(array_id(1)));

    fs::rename(&path, root.path().join("disk")).unwrap();
    fs::create_dir(&path).unwrap();
    for _start in 0..2 {
        assert_eq!(known().identify(&path).unwrap(), Some(array_id(1)));
        let store = open_arrays(root.path(), vec![array(root.path(), 1)]);
        assert_eq!(store.capacity().await.unwrap()[0].state, ArrayState::Failed);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is made below the mount");
    }

    // Its disk may come back elsewhere, and a new one may then take its place.
    let moved = DirectoryArray { path: root.path().join("disk"), ..array(root.path(), 1) };
    let new = DirectoryArray { path: path.clone(), ..array(root.path(), 2) };
    let store = open_arrays(root.path(), vec![moved, new]);
    let states: Vec<_> = store.capacity().await.unwrap().iter().map(|a| a.state).collect();
    assert_eq!(states, [ArrayState::Online; 2]);
}

#[tokio::test]
async fn an_array_is_listed_once() {
    let root = scratch();
    let twice = vec![array(root.path(), 1), array(root.path(), 1)];
    let opened = DirectoryStore::open(KnownArrays::read(root.path()).unwrap(), twice);
    let refusal = refused(opened, ErrorKind::Internal);
    assert!(format!("{refusal:?}").contains("listed twice"), "{refusal:?}");
}
