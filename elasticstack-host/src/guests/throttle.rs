//! Holds a guest's drives to their limits, whoever lends them: what QEMU says of them, made what is
//! wanted. It counts reads and writes together, in its own bucket, which lets no burst through.

use elasticstack_core::hypervisor::{Device, DriveSlot, IoLimits};
use elasticstack_core::units::Bytes;
use serde_json::{Value, json};

use super::nodes::device_of;
use super::qmp::{Qmp, QmpError};

/// A drive that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    device: Device,
    /// The guest's device, as QEMU names it.
    path: String,
    limits: IoLimits,
}

/// Makes the limits of every drive of these that is plugged in what they are to be.
pub(super) async fn throttle(qmp: &mut Qmp, wanted: &[DriveSlot]) -> Result<(), QmpError> {
    let found = found_in(&qmp.execute("query-block", Value::Null).await?);
    for Found { device, path, limits } in found {
        let slot = wanted.iter().find(|slot| slot.device == device);
        if let Some(slot) = slot.filter(|slot| slot.limits != limits) {
            qmp.execute("block_set_io_throttle", throttled(&path, slot.limits)).await?;
        }
    }
    Ok(())
}

/// What sets these limits and no other; 0 is none.
fn throttled(path: &str, IoLimits { requests, bytes }: IoLimits) -> Value {
    json!({
        "id": path,
        "iops": requests.unwrap_or(0),
        "iops_rd": 0,
        "iops_wr": 0,
        "bps": bytes.map_or(0, Bytes::get),
        "bps_rd": 0,
        "bps_wr": 0,
    })
}

fn found_in(devices: &Value) -> Vec<Found> {
    let entries = devices.as_array().into_iter().flatten();
    let found = entries.filter_map(|entry| {
        let device = device_of(entry.pointer("/inserted/node-name")?.as_str()?)?;
        let path = entry.get("qdev")?.as_str()?.to_owned();
        let limit = |name: &str| {
            entry.pointer(&format!("/inserted/{name}"))?.as_u64().filter(|limit| *limit > 0)
        };
        let limits = IoLimits {
            requests: limit("iops").and_then(|limit| limit.try_into().ok()),
            bytes: limit("bps").and_then(|limit| limit.try_into().ok()),
        };
        Some(Found { device, path, limits })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_is_read_as_the_limits_in_force() {
        let entry = |node: &str, iops: Value, bps: Value| json!({ "qdev": format!("/machine/{node}"), "inserted": { "node-name": node, "iops": iops, "bps": bps } });
        let answer = json!([
            entry("ide-0-0", json!(0), json!(0)),
            entry("block-1", json!(100), json!(1 << 20)),
            entry("scsi-0-7", json!(-1), json!("x")),
            entry("seed", json!(7), json!(7)),
            { "qdev": "/machine/empty" },
        ]);
        let seen: Vec<_> = found_in(&answer)
            .into_iter()
            .map(|found| {
                let IoLimits { requests, bytes } = found.limits;
                (found.device.to_string(), requests, bytes.map(Bytes::get))
            })
            .collect();
        let expected = [
            ("ide:0:0", None, None),
            ("block:1", Some(100), Some(1 << 20)),
            ("scsi:0:7", None, None),
        ];
        assert_eq!(seen, expected.map(|(device, one, two)| (device.to_owned(), one, two)));
        for nothing in [json!(null), json!([1, {}]), json!({ "a": 1 })] {
            assert_eq!(found_in(&nothing), []);
        }
    }
}
