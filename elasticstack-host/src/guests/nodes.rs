//! How a run and its drives are called by QMP's words, and what is said of a drive to plug it in.
//!
//! Invariants: drives are always opened as raw, so what a guest writes to its first block can't turn into
//! another format; the secret that a lent drive is logged in with is named, never told.

use elasticstack_core::block::{Attachment, Borrowing};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{Access, Bus, Device, DriveSlot, Media};
use elasticstack_core::id::ServerId;
use serde_json::{Value, json};

/// The id of the serial port's ring buffer.
pub(crate) const SERIAL: &str = "serial0";
/// The size of that ring, in bytes: a power of two, which QEMU wants.
pub(crate) const SERIAL_RING: usize = 65_536;

/// The name by which a run's process is known on its command line.
#[must_use]
pub fn process_name(server: ServerId, run: Run) -> String {
    format!("{server}.{run}")
}

/// The name of a drive in QMP, such as `ide-0-1`.
pub(crate) fn node(device: Device) -> String {
    device.to_string().replace(':', "-")
}

/// The drive of this name in QMP, if it is one of the server's.
pub(crate) fn device_of(node: &str) -> Option<Device> {
    node.replace('-', ":").parse().ok()
}

/// What the word for a node's file contains if it is this drive: the name of its file or target.
pub(crate) fn mark_of(slot: &DriveSlot) -> Option<String> {
    match &slot.attachment {
        Attachment::File(path) => path.to_str().map(str::to_owned),
        Attachment::Iscsi(borrowing) => Some(borrowing.lend.target()),
        _ => None,
    }
}

/// How a drive is borrowed, if it is.
pub(crate) fn borrowing(slot: &DriveSlot) -> Option<&Borrowing> {
    match &slot.attachment {
        Attachment::Iscsi(borrowing) => Some(borrowing),
        _ => None,
    }
}

/// The id of a lent drive's secret in QMP, and the name of its file.
pub(crate) fn secret(device: Device) -> String {
    format!("secret-{}", node(device))
}

/// The node of a drive: its file or target, always raw.
pub(crate) fn blockdev_value(slot: &DriveSlot) -> Option<Value> {
    let read_only = matches!(slot.media, Media::Cdrom);
    let medium = match &slot.attachment {
        Attachment::File(path) => json!({
            "driver": "file",
            "filename": path.to_str()?,
            "read-only": read_only,
            "discard": "unmap",
        }),
        Attachment::Iscsi(borrowing) => json!({
            "driver": "iscsi",
            "transport": "tcp",
            "portal": borrowing.portal.to_string(),
            "target": borrowing.lend.target(),
            "lun": 0,
            "initiator-name": borrowing.initiator(),
            "user": borrowing.initiator(),
            "password-secret": secret(slot.device),
            "header-digest": "crc32c",
            "read-only": read_only,
            "discard": "unmap",
        }),
        _ => return None,
    };
    Some(json!({
        "driver": "raw",
        "node-name": node(slot.device),
        "read-only": read_only,
        "discard": "unmap",
        "cache": { "direct": false, "no-flush": false },
        "file": medium,
    }))
}

/// What plugs a drive in to a guest that runs, where drives come and go.
pub(crate) fn attach(slot: &DriveSlot) -> Value {
    let device = slot.device;
    let mut attach = match (device.bus(), slot.media) {
        (Bus::Scsi, media) => json!({
            "driver": if media == Media::Disk { "scsi-hd" } else { "scsi-cd" },
            "bus": "scsi.0",
            "channel": 0,
            "scsi-id": device.unit(),
            "lun": 0,
        }),
        (Bus::Ata | Bus::Block | Bus::Ide, _) => json!({ "driver": "virtio-blk-pci" }),
    };
    attach["drive"] = node(device).into();
    attach["werror"] = "stop".into();
    attach["rerror"] = "stop".into();
    if slot.access == Access::Shared {
        attach["share-rw"] = true.into();
    }
    attach
}
