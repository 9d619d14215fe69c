//! Calls that are cut off while PostgreSQL is at work for them.

use std::time::Duration;

use elasticstack_core::wire::record::Record;
use tokio::task::JoinSet;

use crate::database::TestDatabase;
use crate::fake_host::{World, customer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn calls_that_are_cut_off_leave_whole_connections_to_those_that_follow() {
    let world = World::on(TestDatabase::postgres());
    let plane = world.still().await;
    let caller = customer(&plane.app, 1).await;
    // One drive, so that they are in each other's way too.
    let drive = plane.drive(&caller, 8).await;
    let named = |name: &str| Record::new().with("name", name);
    let mut cut_off = JoinSet::new();
    for task in 0..8_u64 {
        let (app, caller) = (plane.app.clone(), caller.clone());
        cut_off.spawn(async move {
            let mut ended = 0;
            for step in 0..100 {
                // From before the first statement to after the commit.
                let time = Duration::from_micros(100 * step + 13 * task);
                let wanted = named("cut");
                let call = app.drive_set(&caller, drive, &wanted);
                ended += u32::from(tokio::time::timeout(time, call).await.is_ok());
            }
            ended
        });
    }
    let ended: u32 = cut_off.join_all().await.into_iter().sum();
    assert!(ended < 800, "none was cut off");
    // At once more than there are connections.
    let mut whole = JoinSet::new();
    for _ in 0..64 {
        let (app, caller) = (plane.app.clone(), caller.clone());
        whole.spawn(async move { app.drive_set(&caller, drive, &named("whole")).await });
    }
    for outcome in whole.join_all().await {
        outcome.unwrap();
    }
}
