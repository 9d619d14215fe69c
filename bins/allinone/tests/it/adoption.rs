//! Guests and the program live apart: each may end without the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use elasticstack_bin_allinone::smoke::{self, Steps, Traces};
use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::wire::calls::Call;

use crate::rig::{Rig, info, read, serial, tiny, until};

const APPEND: [u8; 16] = *b"ES-TINY-APPEND-1";

/// Makes a guest and waits for the first word of it, if it is to say any.
async fn guest(client: &Client<HyperTransport>, magic: [u8; 16]) -> smoke::Task {
    let (mut traces, mut steps) = (Traces::default(), Steps::default());
    smoke::give(client, magic, &mut traces, &mut steps).await.unwrap()
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_is_adopted_after_an_end_and_a_crash_of_the_program_and_stops_with_it() {
    let (rig, image) = (Rig::new(), tiny());
    let status = async |client: &Client<HyperTransport>, task: &smoke::Task| {
        info(client, Call::ServerInfo, &task.server, "status").await.unwrap()
    };

    let product = rig.up(&image, &["--keep"]);
    let writer = guest(&product.client(), APPEND).await;
    serial(&product.client(), &writer.server, "tiny: appending from block 1").await;
    let process = rig.guests();
    assert_eq!(process.len(), 1, "{process:?}");
    product.terminate();
    assert_eq!(rig.guests(), process, "it goes on alone");

    let product = rig.up(&image, &["--keep"]);
    assert_eq!(status(&product.client(), &writer).await, "active");
    assert_eq!(rig.guests(), process, "it was adopted, not started");

    // This one ends by itself while nobody is there to see it.
    let answerer = guest(&product.client(), smoke::ANSWER).await;
    product.kill();
    let operator = rig.data_dir().join("servers").join(&answerer.server).join("operator.qmp");
    until("the guest's end", async || qemu_status(&operator) == "shutdown").await;
    assert_eq!(rig.guests().len(), 2, "its process waits until somebody has seen its end");

    let product = rig.up(&image, &[]);
    let client = product.client();
    assert_eq!(status(&client, &writer).await, "active");
    smoke::judge(&client, &answerer, &mut Steps::default()).await.unwrap();
    until("the ended guest's process to go", async || rig.guests() == process).await;

    product.terminate();
    rig.assert_nothing_is_left();

    let product = rig.up(&image, &[]);
    let client = product.client();
    for task in [&writer, &answerer] {
        // The host may not have been asked yet what became of its guests.
        until("its end is known", async || status(&client, task).await == "stopped").await;
        assert_eq!(info(&client, Call::DriveInfo, &task.second, "claimed").await, None);
    }
    assert_one_boot_wrote(&read(&client, &writer.second).await);
    product.terminate();
    rig.assert_nothing_is_left();
}

/// Every record is of the same boot, and each counts one more than the last.
fn assert_one_boot_wrote(drive: &[u8]) {
    let records: Vec<&str> = drive
        .chunks(512)
        .skip(1)
        .take_while(|record| record[0] != 0)
        .map(|record| std::str::from_utf8(&record[..47]).unwrap())
        .collect();
    let (boot, _) = records[0].split_once(' ').unwrap();
    for (record, count) in records.iter().zip(1..) {
        assert_eq!(*record, format!("{boot} {count:010}"));
    }
    let rest = &drive[512 * (records.len() + 1)..];
    assert!(rest.iter().all(|byte| *byte == 0), "nothing lies behind the last record");
}

/// What QEMU says of a guest, through the socket that is the operator's.
fn qemu_status(socket: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}").unwrap();
    let answers = BufReader::new(stream).lines().map_while(Result::ok);
    let mut statuses = answers.filter_map(|line| {
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        answer["return"]["status"].as_str().map(str::to_owned)
    });
    statuses.next().unwrap()
}
