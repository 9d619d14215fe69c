//! Usage tiles every life, whatever happens in it and wherever the control plane is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use elasticstack_api::app::OnCreate;
use elasticstack_core::biller::{Meter, Usage};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;
use proptest::prelude::*;

use crate::fake_host::{MIB, World, customer, id, sized, small_server};

#[derive(Debug, Clone, Copy)]
enum Act {
    Exchange,
    Forward,
    GuestEnds,
    Pass(u16),
    Resize(u8),
    Restart,
    SetCpu(u16),
    Start,
    Stop,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Exchange),
        1 => Just(Act::Forward),
        1 => Just(Act::GuestEnds),
        4 => (1_u16..1_000).prop_map(Act::Pass),
        1 => (1_u8..20).prop_map(Act::Resize),
        1 => Just(Act::Restart),
        1 => (500_u16..2_000).prop_map(Act::SetCpu),
        2 => Just(Act::Start),
        1 => Just(Act::Stop),
    ];
    proptest::collection::vec(act, 1..40)
}

/// Lives the acts and returns the drive's usage, the server's and the instant of its end.
async fn live(acts: Vec<Act>) -> (World, DriveId, ServerId) {
    let world = World::new();
    let mut plane = world.still().await;
    let caller = customer(&plane.app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    let server = plane.server(&caller, &[], OnCreate::LeaveStopped).await;
    for act in acts {
        let app = &plane.app;
        // What a state refuses is refused: only the usage of what happened counts here.
        match act {
            Act::Exchange => world.host.exchange(app).await,
            Act::Forward => app.forward_usage().await.unwrap(),
            Act::GuestEnds => {
                if world.host.knows(server) {
                    world.host.power_off_guest(server);
                }
            }
            Act::Pass(millis) => world.pass(Duration::from_millis(millis.into())),
            Act::Resize(quarter) => {
                let _ = app.drive_set(&caller, drive, &sized(4 * u64::from(quarter))).await;
            }
            Act::Restart => plane = world.still().await,
            Act::SetCpu(mhz) => {
                let _ = app.server_set(&caller, server, &Record::new().with("cpu", mhz)).await;
            }
            Act::Start => {
                let _ = app.server_start(&caller, server).await;
            }
            Act::Stop => {
                let _ = app.server_stop(&caller, server).await;
            }
        }
    }
    let app = &plane.app;
    world.host.exchange(app).await;
    app.drive_destroy(&caller, drive).await.unwrap();
    app.server_destroy(&caller, server).await.unwrap();
    world.host.exchange(app).await;
    app.forward_usage().await.unwrap();
    (world, drive, server)
}

/// The intervals of one resource and meter in order, checked to be closed and not to overlap.
pub(crate) fn tiles(world: &World, resource: &str, meter: Meter) -> Vec<Usage> {
    let taken = world.biller.taken.lock().unwrap();
    let mut items: Vec<Usage> = taken
        .values()
        .filter(|item| item.resource == resource && item.meter == meter)
        .cloned()
        .collect();
    items.sort_by_key(|item| (item.from, item.to));
    for item in &items {
        assert!(item.to.unwrap() >= item.from, "{item:?}");
    }
    for pair in items.windows(2) {
        assert!(pair[0].to.unwrap() <= pair[1].from, "overlap: {pair:?}");
    }
    items
}

/// Every case is a database on a disk, so few of them, unless `PROPTEST_CASES` says otherwise.
fn cases() -> u32 {
    std::env::var_os("PROPTEST_CASES").map_or(16, |_| ProptestConfig::default().cases)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn usage_tiles_every_life(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let changes_cpu = acts.iter().any(|act| matches!(act, Act::SetCpu(_)));
        let (world, drive, server) = runtime.block_on(live(acts));
        let drive_tiles = tiles(&world, &drive.to_string(), Meter::Drive);
        prop_assert_eq!(drive_tiles[0].from, Timestamp::from_micros(1_000_000_000));
        for pair in drive_tiles.windows(2) {
            prop_assert_eq!(pair[0].to.unwrap(), pair[1].from, "a gap in a drive's life");
        }
        let server = server.to_string();
        let total = |meter| -> u128 {
            tiles(&world, &server, meter).iter().map(|item| item.to.unwrap().since(item.from).as_micros()).sum()
        };
        let ran = world.host.time_run().as_micros();
        prop_assert_eq!(total(Meter::Memory), ran, "memory is metered while it ran, to the microsecond");
        // A change of ours may be later than the end that its host stamped and we had not read:
        // what was metered up to it stands.
        prop_assert!(total(Meter::Cpu) >= ran, "processor time is metered over every change of it");
        if !changes_cpu {
            prop_assert_eq!(total(Meter::Cpu), ran);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_delivered_open_and_again_with_its_end() {
    let world = World::new();
    let plane = world.plane().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let drive = plane.drive(&caller, 8).await;
    app.forward_usage().await.unwrap();
    let quantities = |world: &World| -> BTreeMap<i64, (u64, bool)> {
        let taken = world.biller.taken.lock().unwrap();
        taken
            .values()
            .map(|item| (item.from.as_micros(), (item.quantity, item.to.is_some())))
            .collect()
    };
    assert_eq!(quantities(&world), BTreeMap::from([(1_000_000_000, (8 * MIB, false))]));
    world.pass(Duration::from_secs(1));
    app.drive_set(&caller, drive, &sized(12)).await.unwrap();
    app.forward_usage().await.unwrap();
    app.forward_usage().await.unwrap();
    let expected =
        BTreeMap::from([(1_000_000_000, (8 * MIB, true)), (1_001_000_000, (12 * MIB, false))]);
    assert_eq!(quantities(&world), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_only_heard_of_after_its_end_is_metered_by_its_stamps() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let caller = customer(app, 1).await;
    let made = app.server_create(&caller, &small_server(&[]), OnCreate::Start).await.unwrap();
    let server: ServerId = id(&made, "server");
    for document in &app.outbox(crate::fake_host::host_id(), 10).await.unwrap() {
        world.host.take(document);
    }
    world.pass(Duration::from_secs(5));
    world.host.power_off_guest(server);
    world.pass(Duration::from_secs(100));
    world.host.exchange(app).await;
    app.forward_usage().await.unwrap();
    let memory = tiles(&world, &server.to_string(), Meter::Memory);
    assert_eq!(memory.len(), 1);
    assert_eq!(memory[0].from, Timestamp::from_micros(1_000_000_000));
    assert_eq!(memory[0].to, Some(Timestamp::from_micros(1_005_000_000)));
    assert_eq!(memory[0].quantity, 512);
    assert!(memory[0].change.is_some(), "it carries the change that was authorized");
}
