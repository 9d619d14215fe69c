//! Arrays that come, and grow, while a store is used.

use std::fs::File;
use std::process::Command;

use super::tests::{
    Mounted, array, array_id, drive_id, open_arrays, open_store, refused, scratch, spec,
};
use super::*;

fn open(root: &std::path::Path, config: DirectoryArray) -> Result<OpenedArray> {
    OpenedArray::open(&mut KnownArrays::read(root).unwrap(), config)
}

#[tokio::test]
async fn an_array_is_taken_in_while_others_are_used_and_a_copy_of_one_is_not() {
    let root = scratch();
    let store = open_store(root.path());
    store.create(&spec(1, 4)).await.unwrap();
    let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();

    let third = array(root.path(), 3);
    let on_third = DriveSpec { array: array_id(3), ..spec(3, 4) };
    refused(store.create(&on_third).await, ErrorKind::NotFound);
    assert_eq!(store.state(array_id(3)), None);
    store.take_in(open(root.path(), third).unwrap()).unwrap();
    assert_eq!(store.state(array_id(3)), Some(ArrayState::Online));
    store.create(&on_third).await.unwrap();
    volume.flush().await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2);

    // Somewhere else there was a drive of the same id.
    let copy = array(root.path(), 4);
    let other = open_arrays(scratch().path(), vec![copy.clone()]);
    other.create(&DriveSpec { array: array_id(4), ..spec(1, 4) }).await.unwrap();
    drop(other);
    let opened = open(root.path(), copy).unwrap();
    let error = refused(store.check_joins(&opened), ErrorKind::ResourceInUse);
    assert!(error.public_message().contains("a drive of the same id"), "{error}");
    refused(store.take_in(opened), ErrorKind::ResourceInUse);
    let record = root.path().join(format!("4/drives/{}.json", drive_id(1)));
    std::fs::write(record, "{").unwrap();
    // Nobody can tell any more what that was, and it may not put aside what is used.
    let opened = open(root.path(), array(root.path(), 4)).unwrap();
    refused(store.take_in(opened), ErrorKind::ResourceInUse);
    assert_eq!(store.state(array_id(4)), None);
    volume.flush().await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 2, "those that are used stay");
}

#[tokio::test]
#[ignore = "needs root and loop devices: cargo xtask test"]
async fn an_array_whose_file_system_has_grown_promises_more_without_being_opened_again() {
    let (root, directory) = (scratch(), scratch());
    let (image, at) = (directory.path().join("xfs"), root.path().to_owned());
    let mounted = Mounted::xfs(&image, &at);
    let capacity = ArrayCapacity::Disk { reserve: Bytes::ZERO };
    let config = DirectoryArray { capacity, ..array(root.path(), 1) };
    let store = open_arrays(root.path(), vec![config]);
    store.create(&spec(1, 16)).await.unwrap();
    let told = async || store.capacity().await.unwrap().remove(0);
    let before = told().await;
    store.check(array_id(1));
    assert_eq!(told().await, before);

    File::options().write(true).open(&image).unwrap().set_len(640 << 20).unwrap();
    let grow = "losetup -c $(findmnt --noheadings --output SOURCE $AT) && xfs_growfs $AT";
    let output = Command::new("sh").args(["-c", grow]).env("AT", &at).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    store.check(array_id(1));
    let after = told().await;
    assert!(after.capacity.get() > before.capacity.get() + (256 << 20), "{before:?}, {after:?}");
    assert_eq!(after.promised, before.promised);
    drop(store);
    drop(mounted);
}
