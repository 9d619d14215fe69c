//! What is to hold on PostgreSQL only.

use std::time::Duration;

use elasticstack_core::wire::record::Record;
use tokio::task::JoinSet;

use crate::database::{TestDatabase, client};
use crate::fake_host::{World, customer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn statistics_are_made_of_few_rows_of_every_table_as_each_minute_others_would_wait_for_them()
{
    let database = TestDatabase::postgres();
    let TestDatabase::Postgres { socket, name, .. } = &database else { unreachable!() };
    let check = "DO $$ BEGIN \
         ASSERT (SELECT COUNT(*) > 100 FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid \
             WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND attnum > 0); \
         ASSERT NOT EXISTS (SELECT FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid \
             WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND attnum > 0 \
             AND NOT attisdropped AND attstattarget IS DISTINCT FROM 1); END $$";
    let (socket, name) = (socket.clone(), name.clone());
    let world = World::on(database);
    let _plane = world.still().await;
    client("psql", &socket, &["--set", "ON_ERROR_STOP=1", "--dbname", &name, "--command", check]);
}

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
