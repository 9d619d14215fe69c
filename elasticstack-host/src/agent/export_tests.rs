//! Drives that are exported while others want them.

use elasticstack_core::error::ErrorKind;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{Access, Document, ObjectStatus, ServerDocument};
use http::StatusCode;

use super::data;
use super::tests::{World, drive, drive_id, server};

#[tokio::test]
async fn an_export_breaks_off_when_somebody_else_gets_the_drive() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller.push([Document::Drive(drive(1, 1))]).await;
    caller.drive(1, |_| true).await;
    let mut exporting = data::export(&caller.agent.host, drive_id(1)).await.unwrap();
    let mut whole = 0;
    while let Some(piece) = exporting.next().await.unwrap() {
        whole += u64::try_from(piece.len()).unwrap();
    }
    assert_eq!(whole, exporting.length());

    let mut exporting = data::export(&caller.agent.host, drive_id(1)).await.unwrap();
    exporting.next().await.unwrap();
    assert_eq!(caller.write(1, 0, "nobody waits for an export").await.0, StatusCode::NO_CONTENT);
    caller.push([Document::Server(server(1, 2, Access::Exclusive))]).await;
    caller.running(2).await;
    assert_eq!(exporting.next().await.unwrap_err().kind(), ErrorKind::DriveInUse);
    let refused = data::export(&caller.agent.host, drive_id(1)).await;
    assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::DriveInUse));
    caller
        .push([Document::Server(ServerDocument {
            powered: false,
            ..server(2, 2, Access::Exclusive)
        })])
        .await;
    caller
        .until(|status| match status {
            ObjectStatus::Server(server) => (server.phase == RunPhase::Ended).then_some(()),
            _ => None,
        })
        .await;
    let fenced = loop {
        match exporting.next().await {
            Ok(piece) => assert!(piece.is_some(), "it went on to its end"),
            Err(error) if error.kind() == ErrorKind::DriveInUse => tokio::task::yield_now().await,
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(fenced, ErrorKind::Fenced);
    caller.agent.close().await;
}
