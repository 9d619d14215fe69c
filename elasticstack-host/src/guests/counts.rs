//! What QEMU counts of a guest's drives (`query-blockstats`): requests of the guest, not of QEMU.

use std::collections::BTreeMap;

use elasticstack_core::hypervisor::{Device, IoCounts};
use serde_json::Value;

use super::nodes::device_of;
use super::qmp::{Qmp, QmpError};

/// The counts of every drive that is plugged in.
pub(super) async fn look(qmp: &mut Qmp) -> Result<BTreeMap<Device, IoCounts>, QmpError> {
    Ok(counts_in(&qmp.execute("query-blockstats", Value::Null).await?))
}

/// The seed's CD, and whatever else is no drive of the server's, is passed over.
fn counts_in(answer: &Value) -> BTreeMap<Device, IoCounts> {
    let entries = answer.as_array().into_iter().flatten();
    let counts = entries.filter_map(|entry| {
        let device = device_of(entry.get("node-name")?.as_str()?)?;
        let count = |name: &str| entry.pointer(&format!("/stats/{name}"))?.as_u64();
        let counts = IoCounts {
            read_bytes: count("rd_bytes")?,
            read_requests: count("rd_operations")?,
            write_bytes: count("wr_bytes")?,
            write_requests: count("wr_operations")?,
        };
        Some((device, counts))
    });
    counts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_qemu_counts_is_read_for_the_drives_that_it_has() {
        let stats = |n: u64| json!({ "rd_bytes": n, "rd_operations": 1, "wr_bytes": 0, "wr_operations": 2, "flush_operations": 9 });
        let answer = json!([
            { "device": "", "node-name": "ide-0-1", "qdev": "/machine/a", "stats": stats(512) },
            { "device": "", "node-name": "block-7", "stats": stats(u64::MAX) },
            { "device": "", "node-name": "seed", "stats": stats(2048) },
            { "device": "", "qdev": "/machine/empty", "stats": stats(1) },
            { "device": "", "node-name": "scsi-0-0", "stats": { "rd_bytes": -1 } },
        ]);
        let found = counts_in(&answer);
        let seen: Vec<_> =
            found.iter().map(|(device, counts)| (device.to_string(), *counts)).collect();
        let counts = |read_bytes| IoCounts {
            read_bytes,
            read_requests: 1,
            write_bytes: 0,
            write_requests: 2,
        };
        let expected = [("block:7", counts(u64::MAX)), ("ide:0:1", counts(512))];
        assert_eq!(seen, expected.map(|(device, counts)| (device.to_owned(), counts)));
        for nothing in [json!(null), json!([1, {}]), json!({ "a": 1 })] {
            assert_eq!(counts_in(&nothing), BTreeMap::new());
        }
    }
}
