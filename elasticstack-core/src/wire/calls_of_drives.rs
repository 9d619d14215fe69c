//! The calls about drives. Rows of [`super::calls::CALLS`]: of two whose paths could match, the one
//! with fewer parameters comes first.

use super::calls::Call;
use super::keys::Object::{Download, Drive, Sum};
use super::route::Answer::{Ids, Many, Nothing, One};
use super::route::Body::{Ignored, Record};
use super::route::{Answer, Body, Route, change, read};

/// The rows.
pub(super) const ROWS: &[Route] = &[
    read(Call::DrivesList, "/drives/list", Ids(Drive), "The ids of your drives."),
    read(
        Call::DrivesListStandard,
        "/drives/list/standard",
        Ids(Drive),
        "The ids of the images everybody may use.",
    ),
    read(Call::DrivesInfo, "/drives/info", Many(Drive), "All your drives."),
    read(
        Call::DrivesInfoFull,
        "/drives/info/full",
        Many(Drive),
        "All your drives with their counters.",
    ),
    read(
        Call::DrivesInfoStandard,
        "/drives/info/standard",
        Many(Drive),
        "The images everybody may use.",
    ),
    change(
        Call::DriveCreate,
        "/drives/create",
        Record(Drive),
        One(Drive),
        "Makes a drive of zeros.",
    ),
    read(Call::DriveInfo, "/drives/DRIVE/info", One(Drive), "One drive."),
    read(
        Call::DriveInfoFull,
        "/drives/DRIVE/info/full",
        One(Drive),
        "One drive with its counters.",
    ),
    change(
        Call::DriveSet,
        "/drives/DRIVE/set",
        Record(Drive),
        One(Drive),
        "Changes a drive; a new size resizes it, size 0 leaves it.",
    ),
    change(
        Call::DriveDestroy,
        "/drives/DRIVE/destroy",
        Ignored,
        Nothing,
        "Destroys a drive that nothing uses and that has no snapshots.",
    ),
    change(
        Call::DriveImageUrl,
        "/drives/DRIVE/image/url",
        Record(Download),
        One(Drive),
        "Begins to copy a file from elsewhere into the drive; imaging in its info tells how far it is.",
    ),
    change(
        Call::DriveImage,
        "/drives/DRIVE/image/SOURCE",
        Ignored,
        One(Drive),
        "Begins to copy the source's bytes into the drive; imaging in its info tells how far it is.",
    ),
    change(
        Call::DriveImageGunzip,
        "/drives/DRIVE/image/SOURCE/gunzip",
        Ignored,
        One(Drive),
        "As image, decompressing on the way.",
    ),
    change(
        Call::DriveImageGzip,
        "/drives/DRIVE/image/SOURCE/gzip",
        Ignored,
        One(Drive),
        "As image, compressing on the way.",
    ),
    change(
        Call::DriveImageQcow2,
        "/drives/DRIVE/image/SOURCE/qcow2",
        Ignored,
        One(Drive),
        "As image, of the disk that the source holds a qcow2 image of.",
    ),
    change(
        Call::DriveImageVmdk,
        "/drives/DRIVE/image/SOURCE/vmdk",
        Ignored,
        One(Drive),
        "As image, of the disk that the source holds a VMDK image of.",
    ),
    change(
        Call::DriveSha256,
        "/drives/DRIVE/sha256",
        Record(Sum),
        One(Drive),
        "Begins to make the SHA-256 of a drive that nothing uses; imaging in its info tells how far it is, then sha256 what it is.",
    ),
    change(
        Call::DriveClone,
        "/drives/SOURCE/clone",
        Record(Drive),
        One(Drive),
        "Makes a drive and begins to copy the source's bytes into it; the answer is the new drive.",
    ),
    change(
        Call::DriveCloneGunzip,
        "/drives/SOURCE/clone/gunzip",
        Record(Drive),
        One(Drive),
        "As clone, decompressing on the way.",
    ),
    change(
        Call::DriveCloneGzip,
        "/drives/SOURCE/clone/gzip",
        Record(Drive),
        One(Drive),
        "As clone, compressing on the way.",
    ),
    read(
        Call::DriveRead,
        "/drives/DRIVE/read/OFFSET/SIZE",
        Answer::Bytes,
        "At most 4 MiB from a byte offset on, gzip of them under Accept-Encoding: gzip; offset and size may carry k, M, G or T.",
    ),
    read(
        Call::DriveExportQcow2,
        "/drives/DRIVE/export/qcow2",
        Answer::Bytes,
        "All of a drive as a qcow2 image, without what holds no data; it breaks off if a server gets the drive; write nothing meanwhile.",
    ),
    change(
        Call::DriveWrite,
        "/drives/DRIVE/write",
        Body::Bytes,
        Nothing,
        "Writes the body at the drive's start, at most 64 MiB.",
    ),
    change(
        Call::DriveWriteAt,
        "/drives/DRIVE/write/OFFSET",
        Body::Bytes,
        Nothing,
        "Writes the body at a byte offset, at most 64 MiB.",
    ),
];
