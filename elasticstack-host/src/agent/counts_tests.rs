//! What is told of servers' and drives' reads and writes, from the agent's API down to simulated guests.

use elasticstack_core::generation::Epoch;
use elasticstack_core::hypervisor::{Media, Phase};
use elasticstack_core::id::ServerId;
use elasticstack_core::secret::Secret;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{
    Access, Counts, CountsOf, Document, DriveCounts, DriveDocument, IoCounts, LentDrive,
    ServerCounts, ServerDocument,
};

use super::plug_tests::Rig;
use super::tests::{Caller, drive, drive_id, id, server, server_id};

/// A second server, which has drive 1 too.
fn other() -> ServerId {
    id(0x52).parse().unwrap()
}

fn documents(number: u64) -> [ServerDocument; 2] {
    let first = server(number, 1, Access::Shared);
    [first.clone(), ServerDocument { server: other(), ..first }]
}

const fn counts(reads: u64, writes: u64) -> IoCounts {
    IoCounts {
        read_bytes: 512 * reads,
        read_requests: reads,
        write_bytes: 512 * writes,
        write_requests: writes,
    }
}

/// What is told of both servers and both drives: each server's counts of drive 1, then the drives'.
async fn told(caller: &Caller) -> ([Option<IoCounts>; 2], [Option<IoCounts>; 2]) {
    let (servers, drives) = ([server_id(), other()], [drive_id(1), drive_id(2)]);
    let asked = CountsOf { servers: servers.to_vec(), drives: drives.to_vec() };
    let body = serde_json::to_vec(&asked).unwrap();
    let told: Counts = Caller::parsed(caller.call("POST", "/v1/counts", body.into()).await);
    let port = "ide:0:0".parse().unwrap();
    let of_server = |server| {
        let its = |told: &&ServerCounts| told.server == server;
        told.servers.iter().find(its).and_then(|told| told.devices.get(&port)).copied()
    };
    let of_drive = |drive| {
        let its = |told: &&DriveCounts| told.drive == drive;
        told.drives.iter().find(its).map(|told| told.counts)
    };
    (servers.map(of_server), drives.map(of_drive))
}

#[tokio::test]
async fn a_shared_drives_counts_are_the_sum_of_its_servers_and_nobody_waits_for_a_silent_one() {
    let rig = Rig::new();
    let mut caller = rig.with_drives().await;
    let zero = Some(counts(0, 0));
    assert_eq!(told(&caller).await, ([None, None], [zero, zero]), "nothing runs");
    caller.push(documents(1).map(Document::Server)).await;
    for server in [server_id(), other()] {
        let runs = |phase| phase == RunPhase::Running;
        caller.server(|status| status.server == server && runs(status.phase)).await;
    }
    assert_eq!(told(&caller).await, ([zero, zero], [zero, zero]));
    let port = "ide:0:0".parse().unwrap();
    rig.hypervisor.transfers(server_id(), port, counts(2, 0)).unwrap();
    rig.hypervisor.transfers(other(), port, counts(1, 3)).unwrap();
    let (first, second) = (Some(counts(2, 0)), Some(counts(1, 3)));
    assert_eq!(told(&caller).await, ([first, second], [Some(counts(3, 3)), zero]));

    rig.hypervisor.becomes(other(), Phase::Unresponsive).unwrap();
    assert_eq!(told(&caller).await, ([first, None], [None, zero]), "half a sum is none");
    rig.hypervisor.becomes(other(), Phase::Running).unwrap();

    let [_, stopped] = documents(2);
    caller.push([Document::Server(ServerDocument { powered: false, ..stopped })]).await;
    caller.server(|status| status.server == other() && status.phase == RunPhase::Ended).await;
    assert_eq!(told(&caller).await, ([first, None], [first, zero]), "what stopped counts no more");

    let lent = LentDrive {
        server: other(),
        epoch: Epoch(1),
        access: Access::Exclusive,
        media: Media::Disk,
        secret: Secret::new("a secret of CHAP"),
    };
    let array = rig.array().await;
    let lending = DriveDocument { array, lends: vec![lent], ..drive(2, 2) };
    caller.push([Document::Drive(lending)]).await;
    caller.drive(2, |status| status.epoch == Epoch(1)).await;
    assert_eq!(told(&caller).await.1, [first, None], "what a borrower does is counted elsewhere");
    caller.agent.close().await;
}
