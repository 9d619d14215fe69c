//! Drives that are lent and borrowed, from the agent's API down to a lender, a store and a
//! hypervisor in memory, also across restarts of the agent.

use elasticstack_core::block::{
    Attachment, BlockStore as _, Borrowing, Lend as _, LendId, LendSpec, Writing,
};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::generation::{Epoch, Era, Generation};
use elasticstack_core::hypervisor::Media;
use elasticstack_core::id::ServerId;
use elasticstack_core::secret::Secret;
use elasticstack_core::wire::internal::{
    Access, Document, DriveDocument, DriveStatus, HostReport, Lender, LentDrive,
};
use http::StatusCode;

use super::locked;
use super::tests::{Caller, World, drive, drive_id, id, server, server_id};

fn elsewhere(n: u8) -> ServerId {
    id(0xe0 + n).parse().unwrap()
}

fn secret() -> Secret {
    Secret::new("a secret of CHAP")
}

fn lent(epoch: u64, access: Access) -> LentDrive {
    let (epoch, media) = (Epoch(epoch), Media::Disk);
    LentDrive { server: elsewhere(1), epoch, access, media, secret: secret() }
}

/// Drive 1, lent to whom these are.
fn lending(number: u64, lends: impl IntoIterator<Item = LentDrive>) -> Document {
    Document::Drive(DriveDocument { lends: lends.into_iter().collect(), ..drive(1, number) })
}

fn exclusively(epoch: u64) -> [LentDrive; 1] {
    [lent(epoch, Access::Exclusive)]
}

async fn made(caller: &mut Caller, number: u64) -> DriveStatus {
    let generation = Generation::new(Era(1), number);
    caller.drive(1, |status| status.generation == generation && status.fault.is_none()).await
}

/// Waits for what the agent does without telling.
async fn eventually(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_drive_is_lent_to_whom_its_document_names_and_is_nobody_elses_meanwhile() {
    let world = World::new();
    let mut caller = world.agent().await;
    let host: HostReport = Caller::parsed(caller.call("GET", "/v1/host", "".into()).await);
    assert_eq!(host.portal, Some(world.lender.portal()));

    caller.push([lending(1, exclusively(3))]).await;
    assert_eq!(made(&mut caller, 1).await.epoch, Epoch(3));
    assert_eq!(world.lender.epochs(), [3]);
    assert_eq!(caller.write(1, 0, "x").await.0, StatusCode::CONFLICT);
    caller.push([Document::Server(server(1, 4, Access::Exclusive))]).await;
    assert!(locked(&world.hypervisor.started).is_empty());

    // Nothing else waits for the borrower, so now the server's turn has come.
    caller.push([lending(2, [])]).await;
    caller.running(4).await;
    assert!(world.lender.epochs().is_empty());
    caller.agent.close().await;
}

#[tokio::test]
async fn the_next_agent_lends_what_was_lost_and_ends_what_is_wanted_no_more() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller.push([lending(1, exclusively(1))]).await;
    made(&mut caller, 1).await;
    caller.agent.close().await;

    // The target's host has restarted, and the agent with it.
    world.lender.crash();
    let mut caller = world.agent().await;
    assert_eq!(caller.write(1, 0, "x").await.0, StatusCode::CONFLICT, "held before it is lent");
    made(&mut caller, 1).await;
    assert_eq!(world.lender.epochs(), [1]);

    // The target alone has crashed.
    world.lender.crash();
    eventually(|| world.lender.epochs() == [1]).await;

    // The agent ends between the document that ends the lend and doing so.
    *locked(&world.lender.stuck) = true;
    caller.push([lending(2, [])]).await;
    caller.drive(1, |status| status.fault.is_some()).await;
    caller.agent.close().await;
    let mut caller = world.agent().await;
    let busy = caller.drive(1, |status| status.fault.is_some()).await;
    assert_eq!(busy.fault.unwrap().code, ErrorKind::Unavailable.code());
    assert_eq!(caller.write(1, 0, "x").await.0, StatusCode::CONFLICT, "its I/O is in flight");
    *locked(&world.lender.stuck) = false;
    made(&mut caller, 2).await;
    assert!(world.lender.epochs().is_empty());
    assert_eq!(caller.write(1, 0, "x").await.0, StatusCode::NO_CONTENT);
    caller.agent.close().await;
}

#[tokio::test]
async fn a_newer_lend_begins_once_the_older_one_has_ended() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller.push([lending(1, exclusively(1))]).await;
    made(&mut caller, 1).await;
    *locked(&world.lender.stuck) = true;
    // The lender in memory fails the test if it is told of two epochs.
    caller.push([lending(2, exclusively(2))]).await;
    caller.drive(1, |status| status.fault.is_some()).await;
    assert_eq!(world.lender.epochs(), [1]);
    *locked(&world.lender.stuck) = false;
    assert_eq!(made(&mut caller, 2).await.epoch, Epoch(2));
    assert_eq!(world.lender.epochs(), [2]);
    caller.agent.close().await;
}

#[tokio::test]
async fn shared_lends_stand_side_by_side_and_go_with_the_drive() {
    let world = World::new();
    let mut caller = world.agent().await;
    let second = LentDrive { server: elsewhere(2), ..lent(1, Access::Shared) };
    caller.push([lending(1, [second])]).await;
    made(&mut caller, 1).await;
    assert_eq!(caller.read(1, 0, 4).await.0, StatusCode::OK);
    assert_eq!(caller.write(1, 0, "x").await.0, StatusCode::CONFLICT);

    let tombstone = DriveDocument { gone: true, ..drive(1, 2) };
    caller.push([Document::Drive(tombstone)]).await;
    caller.drive(1, |status| status.gone).await;
    assert!(world.lender.epochs().is_empty());
    assert_eq!(world.store.content(drive_id(1)), None);
    caller.agent.close().await;
}

#[tokio::test]
async fn a_lend_that_no_record_knows_is_ended_before_the_drive_is_anothers() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller.push([Document::Drive(drive(1, 1))]).await;
    caller.drive(1, |status| status.size > 0).await;
    let lend = LendId { drive: drive_id(1), epoch: Epoch(1) };
    let (borrower, writing) = (elsewhere(1), Writing::Allowed);
    world.lender.remember(LendSpec { lend, borrower, writing, secret: secret() });
    *locked(&world.lender.stuck) = true;
    caller.push([Document::Server(server(1, 2, Access::Exclusive))]).await;
    caller.server(|status| status.run.0 == 2).await;
    assert_eq!(world.store.list().await.unwrap()[0].epoch, Epoch(0));
    assert!(locked(&world.hypervisor.started).is_empty());
    *locked(&world.lender.stuck) = false;
    caller.running(2).await;
    assert!(world.lender.epochs().is_empty());
    caller.agent.close().await;
}

#[tokio::test]
async fn a_server_borrows_a_drive_of_another_host_and_waits_until_that_lends_it() {
    let world = World::new();
    let mut caller = world.agent().await;
    let mut borrower = server(1, 7, Access::Exclusive);
    let portal = "[2001:db8::1]:3260".parse().unwrap();
    borrower.hardware.drives[0].lender = Some(Lender { portal, secret: secret() });
    *locked(&world.hypervisor.unreachable) = true;
    caller.push([Document::Server(borrower.clone())]).await;
    eventually(|| !locked(&world.hypervisor.attached).is_empty()).await;
    assert!(locked(&world.hypervisor.started).is_empty());
    *locked(&world.hypervisor.unreachable) = false;
    caller.running(7).await;
    let lend = LendId { drive: drive_id(1), epoch: Epoch(7) };
    let borrowing = Borrowing { portal, lend, borrower: server_id(), secret: secret() };
    assert_eq!(*locked(&world.hypervisor.attached), [Attachment::Iscsi(borrowing)]);
    assert!(world.store.list().await.unwrap().is_empty(), "it is no drive of this host");

    caller.agent.close().await;
    let mut caller = world.agent().await;
    caller.running(7).await;
    let stop = elasticstack_core::wire::internal::ServerDocument {
        generation: Generation::new(Era(1), 2),
        powered: false,
        ..borrower
    };
    caller.push([Document::Server(stop)]).await;
    caller.ended(7).await;
    caller.agent.close().await;
}
