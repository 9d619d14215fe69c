//! Drives that come and go while a guest runs: what QEMU says is plugged in, made what is wanted.
//!
//! Nothing is remembered here, so that it does not matter where an earlier attempt was cut off: a
//! node (the open file) without a device is a plug that was not finished, or an unplug.
//!
//! ```text
//!  plug:    (secret) ──▶ blockdev-add ──▶ device_add
//!  unplug:  device_del ──▶ the guest lets go ──▶ blockdev-del ──▶ (no secret)
//! ```
//! A drive of virtio-scsi goes at once; one of virtio-blk is a PCI card, which the guest ejects.

use elasticstack_core::hypervisor::{Device, DriveSlot};
use serde_json::{Value, json};
use tracing::debug;

use super::nodes::{attach, blockdev_value, borrowing, device_of, mark_of, node, secret};
use super::qmp::{Qmp, QmpError};

/// Where an attempt led.
#[derive(Debug)]
pub(super) enum Plugged {
    /// All is as wanted.
    AsWanted,
    /// The guest has not let go of this one yet.
    Held(Device),
    /// This one can't be plugged in.
    Refused(Device, QmpError),
}

/// A drive that QEMU has where drives come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    device: Device,
    /// What it calls the open file.
    file: String,
    /// The path of the guest's device; `None` for a node without one.
    path: Option<String>,
}

/// Does what can be done now to make the hot drives of a guest what is `wanted`.
pub(super) async fn plug(qmp: &mut Qmp, wanted: &[DriveSlot]) -> Result<Plugged, QmpError> {
    let wanted: Vec<&DriveSlot> = wanted.iter().filter(|slot| slot.device.bus().is_hot()).collect();
    for found in look(qmp).await? {
        let stays = wanted.iter().any(|slot| is_of(&found, slot));
        match &found.path {
            Some(path) if !stays => {
                // Refused while an earlier one is under way: the next look tells.
                tolerate(qmp.execute("device_del", json!({ "id": path })).await)?;
            }
            None if !stays => close(qmp, found.device).await?,
            Some(_) | None => {}
        }
    }
    let found = look(qmp).await?;
    let held = found.iter().find(|found| !wanted.iter().any(|slot| is_of(found, slot)));
    let held = held.map(|found| found.device);
    for slot in wanted {
        let there = found.iter().find(|found| found.device == slot.device);
        let opened = match there {
            Some(found) if found.path.is_some() || !is_of(found, slot) => continue,
            Some(_) => Ok(()),
            None => open(qmp, slot).await?,
        };
        let added = match opened {
            Ok(()) => refusal(qmp.execute("device_add", attach(slot)).await)?,
            refused => refused,
        };
        if let Err(refused) = added {
            close(qmp, slot.device).await?;
            return Ok(Plugged::Refused(slot.device, refused));
        }
    }
    Ok(held.map_or(Plugged::AsWanted, Plugged::Held))
}

/// Those of these drives for which QEMU has no node.
pub(super) async fn unopened(
    qmp: &mut Qmp,
    mut drives: Vec<DriveSlot>,
) -> Result<Vec<DriveSlot>, QmpError> {
    let found = look(qmp).await?;
    drives.retain(|slot| !found.iter().any(|found| is_of(found, slot)));
    Ok(drives)
}

async fn open(qmp: &mut Qmp, slot: &DriveSlot) -> Result<Result<(), QmpError>, QmpError> {
    let Some(node) = blockdev_value(slot) else {
        let description = "it is no file with a name in UTF-8".to_owned();
        return Ok(Err(QmpError::Refused { command: "blockdev-add", description }));
    };
    if let Some(borrowing) = borrowing(slot) {
        let id = secret(slot.device);
        tolerate(qmp.execute("object-del", json!({ "id": id })).await)?;
        let object = json!({ "qom-type": "secret", "id": id, "data": borrowing.secret.expose() });
        if let Err(refused) = refusal(qmp.execute("object-add", object).await)? {
            return Ok(Err(refused));
        }
    }
    refusal(qmp.execute("blockdev-add", node).await)
}

/// Closes a node; one that is still in use is closed the next time.
async fn close(qmp: &mut Qmp, device: Device) -> Result<(), QmpError> {
    tolerate(qmp.execute("blockdev-del", json!({ "node-name": node(device) })).await)?;
    tolerate(qmp.execute("object-del", json!({ "id": secret(device) })).await)
}

/// Tells a refusal of this command from a failure of the connection.
fn refusal(answer: Result<Value, QmpError>) -> Result<Result<(), QmpError>, QmpError> {
    match answer {
        Ok(_) => Ok(Ok(())),
        Err(refused @ QmpError::Refused { .. }) => Ok(Err(refused)),
        Err(failure) => Err(failure),
    }
}

fn tolerate(answer: Result<Value, QmpError>) -> Result<(), QmpError> {
    if let Err(refused) = refusal(answer)? {
        debug!(error = &refused as &dyn std::error::Error, "tried again at the next look");
    }
    Ok(())
}

/// The hot drives that QEMU has.
async fn look(qmp: &mut Qmp) -> Result<Vec<Found>, QmpError> {
    let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
    let devices = qmp.execute("query-block", Value::Null).await?;
    Ok(found_in(&nodes, &devices))
}

fn found_in(nodes: &Value, devices: &Value) -> Vec<Found> {
    let text = |value: &Value, pointer: &str| value.pointer(pointer)?.as_str().map(str::to_owned);
    let each = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let nodes = each(nodes).into_iter().filter_map(|entry| {
        let name = text(&entry, "/node-name")?;
        let device = device_of(&name)?;
        let of_it = |other: &Value| text(other, "/inserted/node-name").as_ref() == Some(&name);
        let path = each(devices).iter().find(|other| of_it(other)).and_then(|other| {
            let path = text(other, "/qdev")?;
            Some(path.strip_suffix("/virtio-backend").unwrap_or(&path).to_owned())
        });
        let file = text(&entry, "/file").unwrap_or_default();
        device.bus().is_hot().then_some(Found { device, file, path })
    });
    nodes.collect()
}

/// Whether this is the drive that is wanted there. QEMU may tell of it with its options.
fn is_of(found: &Found, slot: &DriveSlot) -> bool {
    found.device == slot.device && mark_of(slot).is_some_and(|mark| found.file.contains(&mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_is_read_as_the_drives_that_it_has() {
        let node = |name: &str, file: &str| json!({ "node-name": name, "file": file });
        let nodes = json!([
            node("block-0", "/a/0.raw"),
            node("#block123", "/a/0.raw"),
            node("scsi-0-7", "json:{\"driver\": \"raw\", \"file\": \"/a/1.raw\"}"),
            node("block-3", "/a/3.raw"),
            node("ide-0-0", "/a/2.raw"),
            node("block-9", "/a/9.raw"),
        ]);
        let device = |qdev: &str, node: &str| json!({ "device": "", "qdev": qdev, "inserted": { "node-name": node } });
        let devices = json!([
            device("/machine/peripheral-anon/device[2]/virtio-backend", "block-0"),
            device("/machine/peripheral-anon/device[4]", "scsi-0-7"),
            device("/machine/peripheral-anon/device[1]", "ide-0-0"),
            { "device": "", "qdev": "/machine/peripheral-anon/device[9]" },
        ]);
        let found = found_in(&nodes, &devices);
        let seen: Vec<_> = found
            .iter()
            .map(|found| (found.device.to_string(), found.path.as_deref().unwrap_or("none")))
            .collect();
        assert_eq!(
            seen,
            [
                ("block:0".to_owned(), "/machine/peripheral-anon/device[2]"),
                ("scsi:0:7".to_owned(), "/machine/peripheral-anon/device[4]"),
                ("block:3".to_owned(), "none"),
            ]
        );
        for nothing in [json!(null), json!([{}]), json!({ "a": 1 })] {
            assert_eq!(found_in(&nothing, &nothing), []);
        }
    }
}
