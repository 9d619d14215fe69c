//! Lists are kept ready by each server. What they show is what the rows say, whoever changed them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use elasticstack_api::app::{App, Caller, Listed, OnCreate, Page};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;
use elasticstack_core::wire::internal::{Conversion, JobProgress};
use elasticstack_core::wire::record::Record;
use http_body::Body as _;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::cloud::{Answer, Cloud};
use crate::database::TestDatabase;
use crate::fake_host::{World, customer, id, sized, small_server};

/// What a customer should have, and the servers of the control plane through which he asks.
struct History {
    world: World,
    apps: Vec<Arc<App>>,
    caller: Caller,
    rng: SimRng,
    drives: BTreeSet<DriveId>,
    servers: BTreeSet<ServerId>,
}

impl History {
    async fn new(world: World, apps: Vec<Arc<App>>, seed: u64) -> Self {
        world.host.leave_jobs();
        let caller = customer(&apps[0], seed.into()).await;
        let (drives, servers) = (BTreeSet::new(), BTreeSet::new());
        Self { world, apps, caller, rng: SimRng::new(seed), drives, servers }
    }

    fn app(&mut self) -> Arc<App> {
        let apps = u64::try_from(self.apps.len()).unwrap();
        self.apps[usize::try_from(self.rng.below(apps)).unwrap()].clone()
    }

    fn one_of<T: Copy>(&mut self, all: &BTreeSet<T>) -> Option<T> {
        let among = u64::try_from(all.len()).unwrap();
        all.iter().nth(usize::try_from(self.rng.below(among)).unwrap()).copied()
    }

    fn change(&mut self) -> Record {
        let texts = ["", "a", "b", "a b", "\"quoted\" \\ \t", "ümlaut"];
        let mut text = || texts[usize::try_from(self.rng.below(6)).unwrap()];
        let mut record = Record::new().with("user:note", text()).with("tags", text());
        record.set("name", if text() == "a" { "a" } else { "b" });
        record
    }

    /// One thing happens. Whether it may is not the question here.
    async fn step(&mut self) {
        let (app, caller, change) = (self.app(), self.caller.clone(), self.change());
        let drive = self.one_of(&self.drives.clone());
        let server = self.one_of(&self.servers.clone());
        let what = self.rng.below(14);
        match (what, drive, server) {
            (0 | 1, ..) => {
                let record = small_server(drive.as_slice()).with("persistent", what == 0);
                let record = record.with("mem", "0128").with("cpu", "00500");
                let on = if what == 0 { OnCreate::LeaveStopped } else { OnCreate::Start };
                if let Ok(made) = app.server_create(&caller, &record, on).await {
                    self.servers.insert(id(&made, "server"));
                }
            }
            (2, ..) => {
                if let Ok(made) = app.drive_create(&caller, &sized(8)).await {
                    self.drives.insert(id(&made, "drive"));
                }
            }
            (3, Some(drive), _) => {
                let wish = sized(8);
                if let Ok(made) = app.drive_clone(&caller, drive, &wish, Conversion::None).await {
                    self.drives.insert(id(&made, "drive"));
                }
            }
            (4, _, Some(server)) => drop(app.server_set(&caller, server, &change).await),
            (5, Some(drive), _) => drop(app.drive_set(&caller, drive, &change).await),
            (6, _, Some(server)) => drop(app.server_start(&caller, server).await),
            (7, _, Some(server)) => drop(app.server_stop(&caller, server).await),
            (8, _, Some(server)) => {
                if app.server_destroy(&caller, server).await.is_ok() {
                    self.servers.remove(&server);
                }
            }
            (9, Some(drive), _) => {
                if app.drive_destroy(&caller, drive).await.is_ok() {
                    self.drives.remove(&drive);
                }
            }
            (10, ..) => {
                for job in self.world.host.jobs() {
                    let progress = match self.rng.below(4) {
                        0 => JobProgress::Done,
                        percent => JobProgress::Running(u8::try_from(percent).unwrap()),
                    };
                    self.world.host.change_that_job(&job, progress);
                }
            }
            _ => self.world.host.exchange(&app).await,
        }
        // A server that does not keep itself goes when its host says that it has ended.
        for server in self.servers.clone() {
            if app.server_info(&caller, server).await.is_err() {
                self.servers.remove(&server);
            }
        }
    }

    /// Every list of every server is what the objects are, one by one.
    async fn check(&mut self) {
        for app in self.apps.clone() {
            let mut drives = Vec::new();
            for drive in &self.drives {
                let record = app.drive_info(&self.caller, *drive).await.unwrap();
                drives.push((*drive.as_uuid(), record));
            }
            let mut servers = Vec::new();
            for server in &self.servers {
                let record = app.server_info(&self.caller, *server).await.unwrap();
                servers.push((*server.as_uuid(), record));
            }
            let all = Page::default();
            assert_same(&app.drives_info(&self.caller, &all).await.unwrap(), &drives);
            assert_same(&app.servers_info(&self.caller, &all).await.unwrap(), &servers);
            let page = self.page(&drives);
            let found = app.drives_info(&self.caller, &page).await.unwrap();
            assert_same(&found, &part(&drives, &page));
            let page = self.page(&servers);
            let found = app.servers_info(&self.caller, &page).await.unwrap();
            assert_same(&found, &part(&servers, &page));
        }
    }

    /// The room that a refusal of something new tells is what is left by the rows, which a refusal
    /// to grow tells.
    async fn check_room(&mut self) {
        let told = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::NoCapacity, "{error}");
            let sentence = error.public_message().to_owned();
            sentence.rsplit_once("to be had is ").unwrap().1.parse::<u64>().unwrap()
        };
        let running = Record::new().with("cpu", 100_000);
        for app in self.apps.clone() {
            let caller = &self.caller;
            let new = app.drive_create(caller, &sized(1 << 20)).await.unwrap_err();
            if let Some(drive) = self.one_of(&self.drives.clone()) {
                let caller = &self.caller;
                match app.drive_set(caller, drive, &sized(1 << 20)).await.unwrap_err() {
                    grown if grown.kind() == ErrorKind::DriveInUse => {}
                    grown => assert_eq!(told(grown), told(new)),
                }
            }
            let record = small_server(&[]).with("cpu", 100_000).with("mem", 128);
            let caller = &self.caller;
            let new = app.server_create(caller, &record, OnCreate::Start).await.unwrap_err();
            for server in &self.servers {
                let info = app.server_info(caller, *server).await.unwrap();
                if info.value("status") == Some("active") {
                    let grown = app.server_set(caller, *server, &running).await.unwrap_err();
                    assert_eq!(told(grown), told(new));
                    break;
                }
            }
        }
    }

    fn page(&mut self, all: &[(Uuid, Record)]) -> Page {
        let among = u64::try_from(all.len()).unwrap();
        let mut maybe = |text: &str| self.rng.one_in(3).then(|| text.to_owned());
        let (tag, status, name) = (maybe("a"), maybe("active"), maybe("b"));
        let after = all.get(usize::try_from(self.rng.below(among * 2)).unwrap());
        let limit = self.rng.one_in(2).then_some(3);
        Page {
            tag,
            status,
            name,
            limit,
            after: after.map(|(id, _)| id.to_string()),
            ..Page::default()
        }
    }
}

/// What of all is on a page, by the words of its promise.
fn part(all: &[(Uuid, Record)], page: &Page) -> Vec<(Uuid, Record)> {
    let has = |record: &Record, key: &str, wanted: &Option<String>| {
        let value = record.value(key).unwrap_or_default();
        wanted.as_deref().is_none_or(|wanted| match key {
            "tags" => value.split(' ').any(|tag| tag == wanted),
            _ => value == wanted,
        })
    };
    let found = all.iter().filter(|(id, record)| {
        page.after.as_ref().is_none_or(|after| id.to_string() > *after)
            && has(record, "tags", &page.tag)
            && has(record, "status", &page.status)
            && has(record, "name", &page.name)
    });
    found.take(page.limit.map_or(usize::MAX, |limit| limit as usize)).cloned().collect()
}

/// The same records, and byte by byte the same JSON.
#[track_caller]
fn assert_same(listed: &Listed, all: &[(Uuid, Record)]) {
    assert_eq!(listed.ids().collect::<Vec<_>>(), all.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    let records: Vec<Record> = all.iter().map(|(_, record)| record.clone()).collect();
    assert_eq!(listed.records().unwrap(), records);
    for (index, record) in records.iter().enumerate() {
        assert_eq!(listed.json(index).unwrap(), record.to_json(listed.object()).to_string());
    }
}

async fn live(world: World, servers: usize, seed: u64) {
    let mut apps = Vec::new();
    for _ in 0..servers {
        apps.push(world.still().await.app.clone());
    }
    let mut history = History::new(world, apps, seed).await;
    for round in 0..200 {
        history.step().await;
        if round % 3 == 0 {
            history.check().await;
            history.check_room().await;
        }
    }
    history.check().await;
    let all = history.drives.len() + history.servers.len();
    assert!(all > 5, "it was about {all} objects");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_what_their_objects_are_one_by_one() {
    for seed in 0..3 {
        live(World::new(), 1, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn lists_of_two_servers_are_what_their_objects_are_one_by_one() {
    live(World::on(TestDatabase::postgres()), 2, 7).await;
}

/// Twelve customers' hands at once, each of which looks for what it has just been told is done.
async fn read_their_writes(apps: &[Arc<App>]) {
    let caller = customer(&apps[0], 1).await;
    let mut hands = JoinSet::new();
    for hand in 0..12 {
        let (caller, apps) = (caller.clone(), apps.to_vec());
        hands.spawn(async move {
            let [through, other] = [&apps[hand % apps.len()], &apps[(hand + 1) % apps.len()]];
            let listed = async |name: &str| {
                let page = Page { name: Some(name.to_owned()), ..Page::default() };
                let page = other.servers_info(&caller, &page).await.unwrap();
                page.ids().map(ServerId::from_uuid).collect::<Vec<_>>()
            };
            for round in 0..10 {
                let (first, second) = (format!("{hand}-{round}"), format!("{hand}-{round}-b"));
                let record = small_server(&[]).with("name", &first);
                let made = through.server_create(&caller, &record, OnCreate::LeaveStopped).await;
                let server: ServerId = id(&made.unwrap(), "server");
                assert_eq!(listed(&first).await, [server]);
                let renamed = Record::new().with("name", &second);
                through.server_set(&caller, server, &renamed).await.unwrap();
                assert_eq!(listed(&second).await, [server]);
                assert_eq!(listed(&first).await, []);
                through.server_destroy(&caller, server).await.unwrap();
                assert_eq!(listed(&second).await, []);
            }
        });
    }
    hands.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_is_listed_at_once() {
    let world = World::new();
    read_their_writes(&[world.still().await.app.clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn what_is_done_through_one_server_is_listed_by_the_other_at_once() {
    let world = World::on(TestDatabase::postgres());
    let (one, two) = (world.still().await.app.clone(), world.still().await.app.clone());
    read_their_writes(&[one, two]).await;
}

#[tokio::test]
async fn a_long_list_is_one_answer_however_many_pieces_it_is_sent_in() {
    let cloud = Cloud::new().await;
    let note = "n".repeat(4_000);
    let empty = cloud.post_json("/servers/info", "").await.expect(200);
    assert_eq!(empty.text(), "[]");
    let mut servers = Vec::new();
    for _ in 0..40 {
        let body = format!("cpu 500\nmem 128\npersistent true\nuser:note {note}");
        let made = cloud.post("/servers/create/stopped", &body).await.expect(200);
        servers.push(made.value("server").unwrap().to_owned());
    }
    servers.sort();
    let mut infos = Vec::new();
    for server in servers {
        let info = cloud.post_json(&format!("/servers/{server}/info"), "").await.expect(200);
        infos.push(info.text().to_owned());
    }
    let list = cloud.request("GET", "/servers/info").header("Accept", "application/json");
    let response = cloud.server.router().oneshot(list.body(Body::empty()).unwrap()).await.unwrap();
    let promised = response.body().size_hint().exact();
    let list = Answer::of(response).await;
    assert_eq!(list.text(), format!("[{}]", infos.join(",")));
    assert_eq!(promised, Some(list.body.len() as u64));
    cloud.server.close().await;
}
