//! The restore drill: a backup of a control plane at work is restored after a thousand changes that
//! it does not know, over hosts that have moved on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use elasticstack_api::{Server, backup};
use elasticstack_core::block::BlockStore as _;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::hypervisor::{Hypervisor as _, Phase};
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::sim::SimRng;
use elasticstack_core::wire::record::Record;

use crate::cast::{AS_IT_WAS, Cast, Strangers, drive};
use crate::churn::{Things, live};
use crate::copies::{back_up, bring_back, empty_beside};
use crate::database::TestDatabase;
use crate::ends::{records, tiled};
use crate::world::{GUARD, Who, World, operate, post, request, send};

const HOSTS: u64 = 3;
const CHANGES: usize = 1_000;

/// What lies on the hosts: each drive's size, each guest by a name that no two starts share, and
/// which drive is plugged in to which guest.
#[derive(Debug, Default, PartialEq, Eq)]
struct OnHosts {
    drives: BTreeMap<DriveId, u64>,
    guests: BTreeMap<ServerId, Vec<String>>,
    plugged: BTreeMap<DriveId, ServerId>,
}

async fn on_hosts(world: &World) -> OnHosts {
    let mut found = OnHosts::default();
    for machine in &world.machines {
        for report in machine.store.list().await.unwrap() {
            found.drives.insert(report.spec.drive, report.spec.size.get());
        }
        for guest in machine.hypervisor.observe().await.unwrap() {
            assert_eq!(guest.phase, Phase::Running);
            found.guests.insert(guest.server, machine.hypervisor.traces(guest.server));
        }
        for record in records(machine, "servers") {
            let server = id(&record["document"]["server"]);
            let drives = record["facts"]["plugged"].as_array().unwrap();
            if found.guests.contains_key(&server) {
                found.plugged.extend(drives.iter().map(|claim| (id(&claim["drive"]), server)));
            }
        }
    }
    found
}

fn id<T: std::str::FromStr<Err: Debug>>(value: &serde_json::Value) -> T {
    value.as_str().unwrap().parse().unwrap()
}

async fn list(server: &Server, path: &str) -> Vec<Record> {
    let answer = send(server, request(Who::Operator, path, None, b"")).await.expect(200);
    Record::list_from_json(&answer.body).unwrap()
}

async fn own(server: &Server, path: &str) -> Vec<Record> {
    let answer = send(server, request(Who::Customer, path, None, b"")).await.expect(200);
    Record::list_from_json(&answer.body).unwrap()
}

async fn status(server: &Server, path: &str) -> u16 {
    send(server, request(Who::Customer, path, None, b"")).await.status
}

fn drive_of(record: &Record) -> DriveId {
    record.value("drive").unwrap().parse().unwrap()
}

fn server_of(record: &Record) -> ServerId {
    record.value("server").unwrap().parse().unwrap()
}

fn at(server: &str, call: &str) -> String {
    format!("/servers/{server}/{call}")
}

/// Looks again and again until there is nothing amiss.
async fn until_well<E: Debug>(mut look: impl AsyncFnMut() -> Result<(), E>) {
    let mut amiss = None;
    let well = async {
        while let Err(why) = look().await {
            amiss = Some(why);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(GUARD / 2, well).await.is_err() {
        panic!("it stays so: {amiss:?}");
    }
}

/// Waits until nothing is to be sent and nothing of the customer's is on its way.
async fn at_rest(server: &Server) {
    until_well(async || {
        let told = server.app().hosts_to_tell().await.unwrap();
        let mut moving = own(server, "/servers/info").await;
        moving.retain(|record| {
            record.value("status") == Some("active") && record.value("started").is_none()
        });
        for path in ["/drives/info", "/snapshots/info"] {
            let all = own(server, path).await;
            moving.extend(all.into_iter().filter(|it| it.value("status") != Some("active")));
        }
        if told.is_empty() && moving.is_empty() { Ok(()) } else { Err((told, moving)) }
    })
    .await;
}

/// Begins on what the backup holds, as soon as the leases in it have ended.
async fn restore(database: &TestDatabase, file: &Path) {
    let file = bring_back(database, file);
    let restored = async {
        while let Err(error) = backup::restore(&database.url(), file).await {
            assert_eq!(error.kind(), ErrorKind::ServerBusy, "{error:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(GUARD, restored).await.expect("the leases never ended");
}

/// A customer who counts on two objects in turns: at any one instant the first is as far as the
/// second, or one ahead.
struct Pair {
    first: String,
    second: String,
    counted: AtomicU64,
}

impl Pair {
    async fn new(server: &Server) -> Self {
        let vlan = post(server, "/resources/vlan/create", "").await.value("resource");
        let first = format!("/resources/vlan/{vlan}");
        let second = format!("/drives/{}", drive(server, "counts").await);
        Self { first, second, counted: AtomicU64::new(0) }
    }

    async fn count(&self, server: &Server, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            let number = self.counted.load(Ordering::Relaxed) + 1;
            for object in [&self.first, &self.second] {
                post(server, &format!("{object}/set"), &format!("user:count {number}")).await;
            }
            self.counted.store(number, Ordering::Relaxed);
        }
    }

    async fn is_of_one_instant(&self, server: &Server) {
        let mut counts = Vec::new();
        for object in [&self.first, &self.second] {
            let count =
                own(server, &format!("{object}/info")).await[0].value("user:count").map(str::parse);
            counts.push(count.unwrap().unwrap());
        }
        let [first, second]: [u64; 2] = counts.try_into().unwrap();
        assert!(first == second || first == second + 1, "{first} {second}");
    }
}

/// Makes a backup while customers work.
async fn back_up_at_work(
    world: &World,
    server: &Server,
    file: &Path,
    things: &mut Things,
    rng: &mut SimRng,
) -> Pair {
    let (pair, is_over) = (Pair::new(server).await, AtomicBool::new(false));
    let begun = AtomicU64::new(0);
    let copies = async {
        // What is asked at once is under way, and both were counted on.
        until_well(async || {
            let [begun, counted] = [&begun, &pair.counted].map(|it| it.load(Ordering::Relaxed));
            if begun > 50 && counted > 0 { Ok(()) } else { Err((begun, counted)) }
        })
        .await;
        back_up(world.database(), file).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let lives = live(server, things, rng, |number| {
        begun.store(u64::try_from(number).unwrap(), Ordering::Relaxed);
        !is_over.load(Ordering::Relaxed)
    });
    tokio::join!(copies, lives, pair.count(server, &is_over));
    pair
}

/// A control plane that goes on from a backup, over hosts that are as `before` has them.
struct Restored<'a> {
    world: &'a World,
    server: Server,
    before: OnHosts,
    drives: Vec<Record>,
    known: BTreeSet<DriveId>,
    servers: Vec<Record>,
    ours: BTreeSet<ServerId>,
    _database: TestDatabase,
}

impl<'a> Restored<'a> {
    async fn from(world: &'a World, file: &Path, pair: &Pair) -> Self {
        let before = on_hosts(world).await;
        let database = empty_beside(world.database());
        restore(&database, file).await;
        for machine in &world.machines {
            world.kill_agent(machine).await;
        }
        // Before any host has told what it has.
        let server = world.serve_on(&database).await;
        pair.is_of_one_instant(&server).await;
        let in_backup = own(&server, "/drives/info").await;
        for machine in &world.machines {
            world.boot_agent(machine).await;
        }
        world.until_hosts_answered(&server).await;
        at_rest(&server).await;
        // One that was just being made, and was destroyed afterwards, nobody has heard of.
        let is_unheard = |drive: &DriveId| !before.drives.contains_key(drive);
        let made = in_backup.iter().filter(|record| record.value("status") != Some("active"));
        let unheard: BTreeSet<_> = made.map(drive_of).filter(is_unheard).collect();
        let mut now = on_hosts(world).await;
        now.drives.retain(|drive, _| !unheard.contains(drive));
        assert_eq!(now, before, "no drive is lost or changed, no guest is ended");

        let drives = own(&server, "/drives/info").await;
        let known: BTreeSet<_> = drives.iter().map(drive_of).collect();
        let there: BTreeSet<_> = before.drives.keys().copied().chain(unheard).collect();
        let in_backup = in_backup.iter().map(drive_of).collect();
        assert_eq!(known, &there & &in_backup, "what was destroyed is gone, what is new unknown");
        let servers = own(&server, "/servers/info").await;
        let ours = servers.iter().map(server_of).collect();
        Self { world, server, before, drives, known, servers, ours, _database: database }
    }

    /// What the backup knows is as the hosts have it.
    async fn is_as_hosts_have_it(&self, cast: &Cast, usurper: &String) {
        let Self { server, before, .. } = self;
        for record in &self.drives {
            let size = before.drives.get(&drive_of(record)).map_or(4 << 20, |size| *size);
            assert_eq!(record.value("size"), Some(size.to_string().as_str()), "{record:?}");
        }
        assert_eq!(status(server, &format!("/drives/{}/info", cast.doomed)).await, 404);
        assert_eq!(status(server, &format!("/snapshots/{}/info", cast.goes)).await, 404);
        until_well(async || {
            let mut wrong = own(server, "/servers/info").await;
            wrong.retain(|record| {
                let runs = before.guests.contains_key(&server_of(record));
                (record.value("status") == Some("active")) != runs
            });
            let drives = own(server, "/drives/info").await.into_iter();
            wrong.extend(drives.filter(|record| {
                let holder = before.plugged.get(&drive_of(record));
                let holder = holder.filter(|server| self.ours.contains(server));
                record.value("claimed") != holder.map(ToString::to_string).as_deref()
            }));
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        })
        .await;
        for (drive, holder) in [
            (&cast.kept, Some(&cast.stays)),
            (&cast.taken, Some(&cast.starts)),
            (&cast.given, Some(&cast.taker)),
            (&cast.inherited, Some(&cast.heir)),
            (&cast.usurped, Some(usurper)),
            (&cast.freed, None),
        ] {
            let found = before.plugged.get(&drive.parse().unwrap()).map(ToString::to_string);
            assert_eq!(found.as_ref(), holder, "this is what was to be restored over");
        }
    }

    /// What it does not know is kept, and told to operators. An operator ends who is unknown and
    /// has a known drive.
    async fn ends_strays_with_known_drives(&self, strangers: &Strangers) -> BTreeSet<ServerId> {
        let Self { world, server, before, known, .. } = self;
        let strays = list(server, "/quarantine/info").await;
        let strays_of = |kind: &str| -> BTreeMap<&str, &str> {
            let of_kind = strays.iter().filter(|stray| stray.value("type") == Some(kind));
            of_kind.map(|it| (it.value("object").unwrap(), it.value("stray").unwrap())).collect()
        };
        let told: BTreeSet<DriveId> =
            strays_of("drive").keys().map(|drive| drive.parse().unwrap()).collect();
        let there = before.drives.keys().copied().collect();
        assert_eq!(told, &there - known);
        assert!(told.contains(&strangers.strange.parse().unwrap()));
        let servers = strays_of("server");
        for unknown in [&strangers.stranger, &strangers.usurper] {
            assert!(servers.contains_key(unknown.as_str()), "{strays:?}");
            assert_eq!(status(server, &at(unknown, "info")).await, 404);
        }
        for machine in &world.machines {
            for record in records(machine, "drives") {
                let drive = id(&record["document"]["drive"]);
                let is_new = record["document"]["generation"]["era"].as_u64().unwrap() > 1;
                assert_eq!(is_new, known.contains(&drive), "{record}");
            }
        }
        let mut ended = BTreeSet::new();
        for (object, stray) in servers {
            let object: ServerId = object.parse().unwrap();
            let mut has = before.plugged.iter().filter(|(_, holder)| **holder == object);
            if has.any(|(drive, _)| known.contains(drive)) {
                operate(server, &format!("/quarantine/{stray}/destroy"), "").await;
                ended.insert(object);
            }
        }
        until_well(async || {
            let guests = on_hosts(world).await.guests;
            let left: Vec<_> = ended.iter().filter(|it| guests.contains_key(it)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        ended
    }

    /// Every host does what it is told about what is known, until nothing of that is left.
    async fn obeys(&self, cast: &Cast) {
        let Self { world, server, before, .. } = self;
        let runs = |record: &&Record| before.guests.contains_key(&server_of(record));
        for record in self.servers.iter().filter(runs) {
            post(server, &at(record.value("server").unwrap(), "stop"), "").await;
        }
        for record in &self.servers {
            let id = record.value("server").unwrap();
            for (key, value) in record.iter().filter(|(key, _)| key.starts_with("block:")) {
                if value.parse().is_ok_and(|drive: DriveId| !self.known.contains(&drive)) {
                    post(server, &at(id, "set"), key).await;
                }
            }
            post(server, &at(id, "start"), "").await;
            let after = on_hosts(world).await;
            let ran = before.guests.get(&server_of(record));
            assert_ne!(after.guests.get(&server_of(record)), ran, "it is another run");
            post(server, &at(id, "destroy"), "").await;
        }
        post(server, &format!("/snapshots/{}/restore", cast.returns), "").await;
        let bytes = format!("/drives/{}/read/0/{}", cast.returned, AS_IT_WAS.len());
        let read = send(server, request(Who::Customer, &bytes, None, b"")).await.expect(200);
        assert_eq!(read.body, AS_IT_WAS.as_bytes(), "it is restored when it is said to be");
        for snapshot in own(server, "/snapshots/info").await {
            let id = snapshot.value("snapshot").unwrap();
            post(server, &format!("/snapshots/{id}/restore"), "").await;
            post(server, &format!("/snapshots/{id}/destroy"), "").await;
        }
        for record in &self.drives {
            let id = record.value("drive").unwrap();
            let info = own(server, &format!("/drives/{id}/info")).await;
            assert_eq!(info[0].value("claimed"), None, "{info:?}");
            post(server, &format!("/drives/{id}/set"), "size 20M").await;
            post(server, &format!("/drives/{id}/destroy"), "").await;
        }
    }

    /// What the backup knows nothing of is as it was, but for guests that an operator `ended`.
    async fn left_others_alone(&self, ended: &BTreeSet<ServerId>) {
        let Self { before, known, ours, .. } = self;
        let after = on_hosts(self.world).await;
        for (drive, size) in before.drives.iter().filter(|(drive, _)| !known.contains(drive)) {
            assert_eq!(after.drives.get(drive), Some(size), "{drive} was nobody's to touch");
        }
        let others = |guest: &ServerId| !ours.contains(guest) && !ended.contains(guest);
        for (guest, trace) in before.guests.iter().filter(|(guest, _)| others(guest)) {
            assert_eq!(after.guests.get(guest), Some(trace), "{guest} was nobody's to end");
        }
    }
}

async fn drill(database: TestDatabase) {
    let (world, server) = World::of(database, HOSTS).await;
    let (mut things, mut rng) = (Things::default(), SimRng::new(7));
    live(&server, &mut things, &mut rng, |number| number < 80).await;
    let cast = Cast::new(&world, &server).await;
    at_rest(&server).await;
    let file = world.directory().join("backup");
    let pair = back_up_at_work(&world, &server, &file, &mut things, &mut rng).await;
    let strangers = cast.go_on(&server).await;
    live(&server, &mut things, &mut rng, |number| number < CHANGES).await;
    at_rest(&server).await;
    server.close().await;

    let restored = Restored::from(&world, &file, &pair).await;
    restored.is_as_hosts_have_it(&cast, &strangers.usurper).await;
    let ended = restored.ends_strays_with_known_drives(&strangers).await;
    restored.obeys(&cast).await;
    live(&restored.server, &mut Things::default(), &mut rng, |number| number < 50).await;
    at_rest(&restored.server).await;
    restored.left_others_alone(&ended).await;
    tiled(&list(&restored.server, "/usage/info/all?limit=10000").await);
    restored.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_backup_loses_no_drive_and_gives_every_host_back() {
    drill(TestDatabase::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn an_old_backup_on_postgresql_loses_no_drive_and_gives_every_host_back() {
    drill(TestDatabase::postgres()).await;
}
