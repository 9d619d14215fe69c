//! The restore drill: a backup is restored after a thousand changes that it does not know, over
//! hosts that have moved on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use elasticstack_api::{Server, backup};
use elasticstack_core::block::BlockStore as _;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::hypervisor::{Hypervisor as _, Phase};
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::sim::SimRng;
use elasticstack_core::wire::record::Record;
use tokio::task::JoinSet;

use crate::copies::{back_up, bring_back, empty_beside};
use crate::database::TestDatabase;
use crate::ends::{records, tiled};
use crate::world::{GUARD, Who, World, pass_to, post, request, send};

const HOSTS: u64 = 3;
const CHANGES: usize = 1_000;

/// How many calls are under way at a time.
const AT_ONCE: usize = 16;

/// What a customer has, as it knows it.
#[derive(Default)]
struct Things {
    drives: Vec<String>,
    /// Each with a drive of its own, and whether it runs.
    servers: Vec<(String, bool)>,
}

/// One change of one thing.
enum Change {
    MakeDrive,
    MakeServer,
    Resize(String, u64),
    DestroyDrive(String),
    Start(String),
    Stop(String),
    DestroyServer(String),
}

impl Change {
    fn path_and_body(&self) -> (String, String) {
        match self {
            Self::MakeDrive => ("/drives/create".to_owned(), "name d\nsize 4M".to_owned()),
            Self::MakeServer => {
                let body = "name s\ncpu 500\nmem 256\npersistent true";
                ("/servers/create".to_owned(), body.to_owned())
            }
            Self::Resize(id, mib) => (format!("/drives/{id}/set"), format!("size {mib}M")),
            Self::DestroyDrive(id) => (format!("/drives/{id}/destroy"), String::new()),
            Self::Start(id) => (format!("/servers/{id}/start"), String::new()),
            Self::Stop(id) => (format!("/servers/{id}/stop"), String::new()),
            Self::DestroyServer(id) => (format!("/servers/{id}/destroy"), String::new()),
        }
    }
}

impl Things {
    /// Takes one thing out and says what happens to it.
    fn next(&mut self, rng: &mut SimRng) -> Change {
        let pick = |rng: &mut SimRng, count: usize| {
            usize::try_from(rng.below(u64::try_from(count).unwrap())).unwrap()
        };
        if self.drives.len() < 8 || rng.one_in(4) {
            return Change::MakeDrive;
        }
        if self.servers.len() < 8 || rng.one_in(6) {
            return Change::MakeServer;
        }
        if rng.one_in(2) {
            let drive = self.drives.swap_remove(pick(rng, self.drives.len()));
            if rng.one_in(3) {
                return Change::DestroyDrive(drive);
            }
            return Change::Resize(drive, 4 * (1 + rng.below(4)));
        }
        let (server, runs) = self.servers.swap_remove(pick(rng, self.servers.len()));
        match (runs, rng.one_in(5)) {
            (_, true) => Change::DestroyServer(server),
            (true, false) => Change::Stop(server),
            (false, false) => Change::Start(server),
        }
    }

    /// Puts the thing back as it is after the change.
    fn changed(&mut self, change: Change, made: &Record) {
        match change {
            Change::MakeDrive => self.drives.push(made.value("drive").unwrap().to_owned()),
            Change::MakeServer => {
                self.servers.push((made.value("server").unwrap().to_owned(), true));
            }
            Change::Resize(drive, _) => self.drives.push(drive),
            Change::Start(server) => self.servers.push((server, true)),
            Change::Stop(server) => self.servers.push((server, false)),
            Change::DestroyDrive(_) | Change::DestroyServer(_) => {}
        }
    }
}

/// Has so many changes made, many at a time.
async fn live(server: &Server, things: &mut Things, rng: &mut SimRng, changes: usize) {
    let mut under_way = JoinSet::new();
    for number in 0..changes + AT_ONCE {
        if under_way.len() == AT_ONCE || number >= changes {
            let Some(done) = under_way.join_next().await else { break };
            let (change, made) = done.unwrap();
            things.changed(change, &made);
        }
        if number < changes {
            let change = things.next(rng);
            let (path, body) = change.path_and_body();
            let asked =
                pass_to(server.router(), request(Who::Customer, &path, None, body.as_bytes()));
            under_way.spawn(async move {
                let answer = asked.await;
                assert!(matches!(answer.status, 200 | 204), "{path}: {answer:?}");
                let made = Record::from_json(&answer.body).unwrap_or_default();
                (change, made)
            });
        }
    }
}

/// What lies on the hosts: each drive's size, and each guest by a name that no two starts share.
#[derive(Debug, PartialEq, Eq)]
struct OnHosts {
    drives: BTreeMap<DriveId, u64>,
    guests: BTreeMap<ServerId, Vec<String>>,
}

async fn on_hosts(world: &World) -> OnHosts {
    let mut found = OnHosts { drives: BTreeMap::new(), guests: BTreeMap::new() };
    for machine in &world.machines {
        for report in machine.store.list().await.unwrap() {
            found.drives.insert(report.spec.drive, report.spec.size.get());
        }
        for guest in machine.hypervisor.observe().await.unwrap() {
            assert_eq!(guest.phase, Phase::Running);
            found.guests.insert(guest.server, machine.hypervisor.traces(guest.server));
        }
    }
    found
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

/// Waits until nothing is to be sent and no server is on its way.
async fn at_rest(server: &Server) {
    let rest = async {
        loop {
            let told = server.app().hosts_to_tell().await.unwrap().is_empty();
            let servers = own(server, "/servers/info").await;
            let on_its_way = |record: &Record| {
                record.value("status") == Some("active") && record.value("started").is_none()
            };
            if told && !servers.iter().any(on_its_way) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GUARD, rest).await.expect("it never came to rest");
}

/// A server that boots from a drive of its own.
async fn with_drive(server: &Server, name: &str) -> (String, String) {
    let drive = post(server, "/drives/create", &format!("name {name}\nsize 8M")).await;
    let drive = drive.value("drive");
    let body = format!("name {name}\ncpu 500\nmem 256\npersistent true\nide:0:0 {drive}");
    let made = post(server, "/servers/create/stopped", &body).await.value("server");
    (made, drive)
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

async fn drill(database: TestDatabase) {
    let (world, server) = World::of(database, HOSTS).await;
    let (mut things, mut rng) = (Things::default(), SimRng::new(7));
    live(&server, &mut things, &mut rng, 80).await;
    let at = |id: &str, call: &str| format!("/servers/{id}/{call}");
    let (stays, kept) = with_drive(&server, "stays").await;
    let (restarts, _) = with_drive(&server, "restarts").await;
    let (starts, taken) = with_drive(&server, "starts").await;
    let (stops, freed) = with_drive(&server, "stops").await;
    let (vanishes, _) = with_drive(&server, "vanishes").await;
    for id in [&stays, &restarts, &stops, &vanishes] {
        post(&server, &at(id, "start"), "").await;
    }
    let grows = post(&server, "/drives/create", "name grows\nsize 4M").await.value("drive");
    let doomed = post(&server, "/drives/create", "name doomed\nsize 4M").await.value("drive");
    at_rest(&server).await;
    let in_backup: BTreeSet<_> = own(&server, "/drives/info").await.iter().map(drive_of).collect();

    let file = world.directory().join("backup");
    back_up(world.database(), &file).await;

    post(&server, &at(&restarts, "stop"), "").await;
    post(&server, &at(&restarts, "start"), "").await;
    post(&server, &at(&starts, "start"), "").await;
    post(&server, &at(&stops, "stop"), "").await;
    post(&server, &at(&vanishes, "destroy"), "").await;
    post(&server, &format!("/drives/{grows}/set"), "size 16M").await;
    post(&server, &format!("/drives/{doomed}/destroy"), "").await;
    let (stranger, strange) = with_drive(&server, "stranger").await;
    post(&server, &at(&stranger, "start"), "").await;
    live(&server, &mut things, &mut rng, CHANGES).await;
    at_rest(&server).await;
    server.close().await;
    let before = on_hosts(&world).await;

    let restored = empty_beside(world.database());
    restore(&restored, &file).await;
    let server = world.serve_on(&restored).await;
    world.until_hosts_answered(&server).await;
    at_rest(&server).await;
    assert_eq!(on_hosts(&world).await, before, "no drive is lost or changed, no guest is ended");

    // What the backup knows is as the hosts have it.
    let drives = own(&server, "/drives/info").await;
    let known: BTreeSet<_> = drives.iter().map(drive_of).collect();
    let there: BTreeSet<_> = before.drives.keys().copied().collect();
    assert_eq!(known, &in_backup & &there, "what was destroyed is gone, what is new is unknown");
    for record in &drives {
        let size = before.drives[&drive_of(record)].to_string();
        assert_eq!(record.value("size"), Some(size.as_str()), "{record:?}");
        assert_eq!(record.value("status"), Some("active"), "{record:?}");
    }
    assert_eq!(status(&server, &format!("/drives/{doomed}/info")).await, 404);
    let servers = own(&server, "/servers/info").await;
    for record in &servers {
        let runs = before.guests.contains_key(&server_of(record));
        let shown = record.value("status") == Some("active");
        assert_eq!(shown, runs, "{record:?}");
    }
    let claimed = |drive: &str| {
        let drive: DriveId = drive.parse().unwrap();
        let record = drives.iter().find(|record| drive_of(record) == drive).unwrap();
        record.value("claimed").map(str::to_owned)
    };
    assert_eq!((claimed(&kept), claimed(&taken)), (Some(stays.clone()), Some(starts.clone())));
    assert_eq!(claimed(&freed), None);

    // What it does not know is kept, and told to operators.
    let strays = list(&server, "/quarantine/info").await;
    let strays_of = |kind: &str| -> BTreeSet<String> {
        let of_kind = strays.iter().filter(|stray| stray.value("type") == Some(kind));
        of_kind.map(|stray| stray.value("object").unwrap().to_owned()).collect()
    };
    let strange_drives = there.difference(&known).map(ToString::to_string).collect();
    assert_eq!(strays_of("drive"), strange_drives);
    assert!(strays_of("server").contains(&stranger), "{strays:?}");
    let strange: DriveId = strange.parse().unwrap();
    assert!(!known.contains(&strange) && there.contains(&strange));
    assert_eq!(status(&server, &at(&stranger, "info")).await, 404);
    for machine in &world.machines {
        for record in records(machine, "drives") {
            let drive: DriveId = record["document"]["drive"].as_str().unwrap().parse().unwrap();
            let is_new = record["document"]["generation"]["era"].as_u64().unwrap() > 1;
            assert_eq!(is_new, known.contains(&drive), "{record}");
        }
    }

    // Every host does what it is told, and the rest stays as it is.
    for record in &servers {
        let id = record.value("server").unwrap();
        let ran = before.guests.get(&server_of(record));
        if ran.is_some() {
            post(&server, &at(id, "stop"), "").await;
        }
        post(&server, &at(id, "start"), "").await;
        let after = on_hosts(&world).await;
        assert_ne!(after.guests.get(&server_of(record)), ran, "it is another run");
        post(&server, &at(id, "destroy"), "").await;
    }
    for record in &drives {
        let id = record.value("drive").unwrap();
        let info = own(&server, &format!("/drives/{id}/info")).await;
        assert_eq!(info[0].value("claimed"), None, "{info:?}");
        post(&server, &format!("/drives/{id}/set"), "size 20M").await;
        post(&server, &format!("/drives/{id}/destroy"), "").await;
    }
    live(&server, &mut Things::default(), &mut rng, 50).await;
    at_rest(&server).await;
    let after = on_hosts(&world).await;
    for (drive, size) in before.drives.iter().filter(|(drive, _)| !known.contains(drive)) {
        assert_eq!(after.drives.get(drive), Some(size), "{drive} was nobody's to touch");
    }
    let ours: BTreeSet<_> = servers.iter().map(server_of).collect();
    for (guest, trace) in before.guests.iter().filter(|(guest, _)| !ours.contains(guest)) {
        assert_eq!(after.guests.get(guest), Some(trace), "{guest} was nobody's to end");
    }
    tiled(&list(&server, "/usage/info/all?limit=1000").await);
    server.close().await;
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
