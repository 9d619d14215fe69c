//! Drives that come and go while a real guest runs, over the public API.

use bytes::Bytes;
use elasticstack_bin_allinone::smoke::{self, ANSWER, Steps, Task, Traces};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

use crate::rig::{Rig, info, serial, tiny, until};

/// The guest ejects a drive that it was given while it ran; given it again, it finds its task there
/// after a reset, which changes nothing that is plugged in, and its answer is right.
#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_lets_go_of_a_drive_that_it_was_given_and_works_on_it_when_it_has_it_again() {
    let rig = Rig::new();
    let product = rig.up(&tiny(), &[]);
    let client = product.client();
    let (mut traces, mut steps) = (Traces::default(), Steps::default());
    let idle = smoke::give(&client, *b"ES-TINY-ANSWER-2", &mut traces, &mut steps).await.unwrap();
    let server = idle.server.clone();
    serial(&client, &server, "tiny: no task, disks left alone").await;

    let made = Record::new().with("name", "more").with("size", 4 << 20);
    let made = client.one(Call::DriveCreate, &[], &made).await.unwrap();
    let drive = made.value("drive").unwrap().to_owned();
    let mut block = idle.block.clone();
    block[..ANSWER.len()].copy_from_slice(&ANSWER);
    let data = Bytes::copy_from_slice(&block);
    client.write(Call::DriveWrite, &[&drive], data).await.unwrap();

    let set = async |drive: &str| {
        let change = Record::new().with("block:1", drive);
        client.one(Call::ServerSet, &[&server], &change).await.unwrap()
    };
    let claimed = async || info(&client, Call::DriveInfo, &drive, "claimed").await;
    let counter = async |call, id: &str, key: &str| {
        info(&client, call, id, key).await.map(|count| count.parse::<u64>().unwrap())
    };
    let reads_at = async |port: &str| {
        counter(Call::ServerInfoFull, &server, &format!("{port}:read:bytes")).await
    };
    let reads = async || counter(Call::DriveInfoFull, &drive, "read:bytes").await;
    let guests = rig.guests();
    assert!(reads_at("ide:0:0").await > Some(0), "the guest has booted from it");
    assert_eq!((reads_at("block:1").await, reads().await), (None, Some(0)));
    set(&drive).await;
    assert_eq!(claimed().await, Some(server.clone()));
    until("the guest to read what it was given", async || reads_at("block:1").await > Some(0))
        .await;
    assert!(reads().await > Some(0), "the drive's counters are its servers'");
    set("").await;
    assert_eq!(claimed().await, None, "the guest let go of it");
    assert_eq!((reads_at("block:1").await, reads().await), (None, Some(0)));
    set(&drive).await;
    assert_eq!(rig.guests(), guests, "it is the same process");

    client.act(Call::ServerReset, &[&server]).await.unwrap();
    let task = Task { server: server.clone(), second: drive.clone(), block };
    smoke::judge(&client, &task, &mut steps).await.unwrap();
    assert_eq!((reads_at("ide:0:0").await, reads().await), (None, Some(0)), "it is stopped");
    smoke::clean(&client, &traces).await.unwrap();
    client.act(Call::DriveDestroy, &[&drive]).await.unwrap();
    product.terminate();
    rig.assert_nothing_is_left();
}
