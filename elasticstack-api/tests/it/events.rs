//! What happened is told to whom it happened to: every change once, in order, however often a
//! reader breaks off and comes back, and through whichever server.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use elasticstack_api::Server;
use elasticstack_api::app::{KEPT, MOST_FOLLOWERS};
use elasticstack_core::prelude::*;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::cloud::{Answer, Cloud, GUARD};
use crate::database::TestDatabase;
use crate::feed::{Event, Feed, ask, events, now, told_since};

/// What comes of a call. It has been answered, and with it all that its host had to report.
async fn told(cloud: &Cloud, path: &str, body: &str) -> (Answer, Vec<[String; 4]>) {
    let router = cloud.server.router();
    let before = now(&router, &cloud.basic).await;
    let answer = cloud.post(path, body).await;
    assert!(matches!(answer.status, 200 | 204), "{path}: {answer:?}");
    let (events, _) = told_since(&router, &cloud.basic, &before).await;
    (answer, events.into_iter().map(|(_, what)| what).collect())
}

#[tokio::test]
async fn every_change_that_an_owner_sees_is_one_event_and_what_he_does_not_see_is_none() {
    let cloud = Cloud::new().await;
    let what = |kind: &str, id: &str, event: &str, status: &str| {
        [kind, id, event, status].map(str::to_owned)
    };
    let (made, drive_made) = told(&cloud, "/drives/create", "name d\nsize 4M").await;
    let drive = made.value("drive").unwrap().to_owned();
    assert_eq!(
        drive_made,
        [what("drive", &drive, "created", "inactive"), what("drive", &drive, "changed", "active")]
    );
    let set = format!("/drives/{drive}/set");
    let renamed = told(&cloud, &set, "name e").await.1;
    assert_eq!(renamed, [what("drive", &drive, "changed", "active")]);
    let again = told(&cloud, &set, "name e").await.1;
    assert!(again.is_empty(), "it is so already: {again:?}");

    let (made, taken) = told(&cloud, &format!("/drives/{drive}/snapshot"), "name s").await;
    let snapshot = made.value("snapshot").unwrap().to_owned();
    let taking = ["created", "changed"].into_iter().zip(["inactive", "active"]);
    let expected: Vec<_> =
        taking.map(|(event, status)| what("snapshot", &snapshot, event, status)).collect();
    assert_eq!(taken, expected, "and nothing of its drive");
    let restored = told(&cloud, &format!("/snapshots/{snapshot}/restore"), "").await.1;
    let of_snapshot = restored.iter().filter(|event| event[0] == "snapshot").cloned();
    let restoring = ["restoring", "active"];
    let expected = restoring.map(|status| what("snapshot", &snapshot, "changed", status));
    assert_eq!(of_snapshot.collect::<Vec<_>>(), expected);
    let destroyed = told(&cloud, &format!("/snapshots/{snapshot}/destroy"), "").await.1;
    assert_eq!(destroyed, [what("snapshot", &snapshot, "destroyed", "")]);

    let body = format!("name s\ncpu 500\nmem 128\npersistent true\nide:0:0 {drive}\nboot ide:0:0");
    let (made, server_made) = told(&cloud, "/servers/create/stopped", &body).await;
    let server = made.value("server").unwrap().to_owned();
    assert_eq!(server_made, [what("server", &server, "created", "stopped")]);
    let act = |action: &str| format!("/servers/{server}/{action}");
    assert_eq!(
        told(&cloud, &act("start"), "").await.1,
        [
            what("drive", &drive, "changed", "active"),
            what("server", &server, "changed", "active"),
            what("server", &server, "changed", "active"),
        ],
        "it is to run, and has the drive; it runs"
    );
    assert_eq!(told(&cloud, &act("reset"), "").await.1.len(), 0, "nobody sees a reset");
    assert_eq!(
        told(&cloud, &act("stop"), "").await.1,
        [what("drive", &drive, "changed", "active"), what("server", &server, "changed", "stopped")]
    );
    let destroyed = told(&cloud, &act("destroy"), "").await.1;
    assert_eq!(destroyed, [what("server", &server, "destroyed", "")]);
    let destroyed = told(&cloud, &format!("/drives/{drive}/destroy"), "").await.1;
    assert_eq!(destroyed, [what("drive", &drive, "destroyed", "")]);

    let (made, vlan_made) = told(&cloud, "/resources/vlan/create", "name v").await;
    let vlan = made.value("resource").unwrap().to_owned();
    assert_eq!(vlan_made, [what("vlan", &vlan, "created", "")]);
    let path = |action: &str| format!("/resources/vlan/{vlan}/{action}");
    let set = told(&cloud, &path("set"), "tags t").await.1;
    assert_eq!(set, [what("vlan", &vlan, "changed", "")]);
    let body = format!("name n\ncpu 500\nmem 128\nnic:1:vlan {vlan}");
    let (made, running) = told(&cloud, "/servers/create", &body).await;
    assert!(running.contains(&what("vlan", &vlan, "changed", "")), "it is claimed: {running:?}");
    let server = made.value("server").unwrap();
    assert_eq!(
        told(&cloud, &format!("/servers/{server}/stop"), "").await.1,
        [what("vlan", &vlan, "changed", ""), what("server", server, "destroyed", "")],
        "it is free, as who does not keep himself vanishes"
    );
    let destroyed = told(&cloud, &path("destroy"), "").await.1;
    assert_eq!(destroyed, [what("vlan", &vlan, "destroyed", "")]);

    let (made, token_made) = told(&cloud, "/tokens/create", "name t").await;
    let token = made.value("token").unwrap().to_owned();
    assert_eq!(token_made, [what("token", &token, "created", "")]);
    let destroyed = told(&cloud, &format!("/tokens/{token}/destroy"), "").await.1;
    assert_eq!(destroyed, [what("token", &token, "destroyed", "")]);
    let account = cloud.get("/profile/info").await.value("uuid").unwrap().to_owned();
    let renamed = told(&cloud, "/profile/set", "name other").await.1;
    assert_eq!(renamed, [what("account", &account, "changed", "active")]);
    cloud.server.close().await;
}

#[tokio::test]
async fn imaging_is_told_of_the_drive_that_is_written() {
    let cloud = Cloud::new().await;
    let (source, target) = (cloud.drive().await, cloud.drive().await);
    let router = cloud.server.router();
    let before = now(&router, &cloud.basic).await;
    cloud.post(&format!("/drives/{target}/image/{source}"), "").await.expect(200);
    cloud.finished_imaging(&target).await;
    let (events, _) = told_since(&router, &cloud.basic, &before).await;
    let of = |id: &String| events.iter().filter(|(_, what)| what[1] == *id).count();
    assert!(of(&source) >= 2, "it is claimed and released: {events:?}");
    assert!(of(&target) >= 2, "{events:?}");
    assert!(events.iter().all(|(_, what)| what[2] == "changed"), "{events:?}");
    cloud.server.close().await;
}

#[tokio::test]
async fn events_are_told_to_whom_they_happened_and_to_operators() {
    let cloud = Cloud::new().await;
    let (router, stranger) = (cloud.server.router(), cloud.stranger().await);
    let drive = cloud.drive().await;
    now(&router, &cloud.basic).await;
    let tells = async |basic: &str, path: &str| {
        ask(&router, basic, path).await.expect(200).text().contains(&drive)
    };
    assert!(tells(&cloud.basic, "/events/info").await);
    assert!(!tells(&stranger, "/events/info").await);
    assert!(!tells(&cloud.operator, "/events/info").await, "an operator's own are his own");
    assert!(tells(&cloud.operator, "/events/info/all").await);
    ask(&router, &stranger, "/events/info/all").await.expect(403);
    let request = cloud.request("GET", "/events/info/all").header("Accept", "text/event-stream");
    cloud.send(request.body(Body::empty()).unwrap()).await.expect(403);
    let text = cloud.get("/events/info?limit=1").await.expect(200);
    assert_eq!(text.value("event"), Some("created"));
    assert_eq!(text.value("user"), cloud.get("/profile/info").await.value("uuid"));
    cloud.server.close().await;
}

#[tokio::test]
async fn a_wait_ends_when_something_happens_or_its_time_is_up() {
    let cloud = Cloud::new().await;
    let (router, stranger) = (cloud.server.router(), cloud.stranger().await);
    let strangers = now(&router, &stranger).await;
    let (none, cursor) = events(&router, &stranger, &format!("?after={strangers}&wait=1")).await;
    assert_eq!(none, [], "and its cursor is one to go on with");
    let before = now(&router, &cloud.basic).await;
    let query = format!("?after={before}&wait=60");
    let waits = events(&router, &cloud.basic, &query);
    let makes = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cloud.post("/resources/vlan/create", "").await.expect(200)
    };
    let ((happened, after), made) = tokio::join!(waits, makes);
    assert_eq!(happened.len(), 1);
    assert_eq!(happened[0].1[1], made.value("resource").unwrap());
    assert_eq!(events(&router, &cloud.basic, &format!("?after={after}")).await.0, []);
    assert_eq!(events(&router, &stranger, &format!("?after={cursor}")).await.0, []);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_stream_goes_on_where_the_last_one_broke_off() {
    let cloud = Cloud::new().await;
    let router = cloud.server.router();
    now(&router, &cloud.basic).await;
    let (past, cursor) = events(&router, &cloud.basic, "").await;
    assert!(!past.is_empty());
    let mut feed = Feed::open(&router, &cloud.basic, "", None).await;
    assert_eq!(feed.next().await.unwrap(), (past.clone(), past.last().unwrap().0.clone()));
    let mut feed = Feed::open(&router, &cloud.basic, "?after=now", None).await;
    let (none, mut last) = feed.next().await.unwrap();
    assert_eq!(none, [], "it says from where on it tells");
    let mut met = Vec::new();
    for round in 0..6 {
        let made = cloud.post("/resources/vlan/create", "").await.expect(200);
        if round % 2 == 0 {
            // What happens between two streams is in the second.
            feed = Feed::open(&router, &cloud.basic, "?after=now", Some(&last)).await;
        }
        let (events, id) = loop {
            let part = feed.next().await.unwrap();
            if !part.0.is_empty() {
                break part;
            }
        };
        assert_eq!(events[0].1[1], made.value("resource").unwrap());
        met.extend(events);
        last = id;
    }
    assert_eq!(met, told_since(&router, &cloud.basic, &cursor).await.0);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_stream_lasts_no_longer_than_what_opened_it_and_an_account_has_so_many() {
    let cloud = Cloud::new().await;
    let router = cloud.server.router();
    let made = cloud.post("/tokens/create", "name t\naccess read").await.expect(200);
    let bearer = format!("Bearer {}", made.value("secret").unwrap());
    now(&router, &cloud.basic).await;
    let mut feeds = Vec::new();
    for _ in 0..MOST_FOLLOWERS {
        let mut feed = Feed::open(&router, &bearer, "?after=now", None).await;
        feed.next().await.unwrap();
        feeds.push(feed);
    }
    let refused = ask(&router, &cloud.basic, "/events/info?wait=1&after=now").await.expect(429);
    assert_eq!(refused.header("x-elastic-error"), "busy code=throttled");
    ask(&router, &cloud.basic, "/events/info").await.expect(200);
    ask(&router, &cloud.stranger().await, "/events/info?wait=1").await.expect(200);
    let destroy = format!("/tokens/{}/destroy", made.value("token").unwrap());
    cloud.post(&destroy, "").await.expect(204);
    for feed in &mut feeds {
        assert!(feed.next().await.is_none(), "not even its own end is told");
    }
    drop(feeds);
    ask(&router, &cloud.basic, "/events/info?wait=1&after=now").await.expect(200);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_cursor_that_something_may_be_missing_behind_is_refused() {
    let clock = Arc::new(AtomicI64::new(1_800_000_000_000_000));
    let time = clock.clone();
    let time = Arc::new(move || Timestamp::from_micros(time.load(Ordering::SeqCst)));
    let cloud = Cloud::with(TestDatabase::new(), |builder| builder.clock(time)).await;
    let (router, app) = (cloud.server.router(), cloud.server.app());
    let pass = |time: Duration| {
        clock.fetch_add(i64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst)
    };
    now(&router, &cloud.basic).await;
    let (old, first) = events(&router, &cloud.basic, "?limit=1").await;
    pass(KEPT);
    now(&router, &cloud.basic).await;
    app.deadlines().await.unwrap();
    assert_eq!(events(&router, &cloud.basic, "?limit=1").await.0, old, "it is kept that long");
    pass(Duration::from_secs(120));
    app.deadlines().await.unwrap();
    let (kept, last) = events(&router, &cloud.basic, "").await;
    assert_eq!(kept.len(), 1, "what is younger is kept: {kept:?}");
    let lost = async |cursor: &str| {
        let path = format!("/events/info?after={cursor}");
        let refused = ask(&router, &cloud.basic, &path).await.expect(400);
        assert_eq!(refused.header("x-elastic-error"), "usage code=cursor_lost field=after");
        assert!(refused.text().contains("begin anew with after=now"), "{}", refused.text());
    };
    lost(&first).await;
    lost(&old[0].0).await;
    let (era, place) = last.split_once('.').unwrap();
    let another = u32::from_str_radix(era, 16).unwrap() + 1;
    lost(&format!("{another:x}.{place}")).await;
    lost(&format!("{era}.{:x}.0", i64::MAX)).await;
    // All that is left grows old: whoever has met it all goes on, and nothing that comes is lost.
    pass(KEPT + Duration::from_secs(120));
    app.deadlines().await.unwrap();
    let query = format!("?after={last}");
    assert_eq!(ask(&router, &cloud.basic, &format!("/events/info{query}")).await.status, 400);
    let (none, anew) = events(&router, &cloud.basic, "?after=now").await;
    assert_eq!(none, []);
    now(&router, &cloud.basic).await;
    assert_eq!(events(&router, &cloud.basic, &format!("?after={anew}")).await.0.len(), 1);
    assert_eq!(events(&router, &cloud.basic, "").await.0.len(), 1);
    for odd in ["x", "1.2", "now.", "%20"] {
        let path = format!("/events/info?after={odd}");
        let refused = ask(&router, &cloud.basic, &path).await.expect(400);
        assert_eq!(refused.header("x-elastic-error"), "usage code=invalid_value field=after");
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn streams_and_waits_end_with_the_server() {
    // While time stands still, what an account may still ask says how often it has asked.
    let still = Timestamp::from(SystemTime::now());
    let cloud =
        Cloud::with(TestDatabase::new(), |builder| builder.clock(Arc::new(move || still))).await;
    let router = cloud.server.router();
    now(&router, &cloud.basic).await;
    let asked = async || {
        let answer = ask(&router, &cloud.basic, "/drives/list").await.expect(200);
        let left: u32 = answer.header("ratelimit-remaining").parse().unwrap();
        10_000 - left
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serves = cloud.server.serve(listener, async {
        let _ = stopped.await;
    });
    let uses = async {
        let (before, mut asks) = (asked().await, 0);
        let mut streams = Vec::new();
        for (query, accept, end) in [
            ("?after=now", "text/event-stream", "\r\n0\r\n\r\n"),
            ("?after=now&wait=60", "application/json", "\r\n\r\n[]"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!(
                "GET /events/info{query} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\
                 Authorization: {}\r\n\r\n",
                cloud.basic
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            streams.push((stream, end));
        }
        // Until both are under way.
        while asked().await < before + asks + 3 {
            asks += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let begun = Instant::now();
        stop.send(()).unwrap();
        for (mut stream, end) in streams {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(end), "{answer:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "they were cut, not ended");
    };
    let (served, ()) =
        tokio::time::timeout(GUARD, async { tokio::join!(serves, uses) }).await.unwrap();
    served.unwrap();
    cloud.server.close().await;
}

/// A transaction of somebody else's on the same PostgreSQL, which has its number and does not end.
struct Held(std::process::Child);

impl Held {
    fn begin(url: &str) -> Self {
        let mut client = Command::new("/usr/lib/postgresql/15/bin/psql")
            .args(["--quiet", "--no-align", "--tuples-only", "--dbname", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let begin = b"BEGIN;\nSELECT pg_current_xact_id();\n";
        client.stdin.as_mut().unwrap().write_all(begin).unwrap();
        let mut number = String::new();
        BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut number).unwrap();
        assert!(number.trim().parse::<u64>().is_ok(), "{number:?}");
        Self(client)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn what_an_older_transaction_may_still_come_before_is_told_only_once_that_is_over() {
    let cloud = Cloud::on(TestDatabase::postgres()).await;
    let router = cloud.server.router();
    let before = now(&router, &cloud.basic).await;
    let held = Held::begin(&cloud.database_url());
    let made = cloud.post("/resources/vlan/create", "").await.expect(200);
    let query = format!("?after={before}");
    let (none, same) = events(&router, &cloud.basic, &format!("{query}&wait=1")).await;
    assert_eq!(none, [], "an older one may still have something to tell");
    assert_eq!(same, before);
    let waits = format!("{query}&wait=60");
    let (happened, ()) = tokio::join!(events(&router, &cloud.basic, &waits), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        held.end();
    });
    assert_eq!(happened.0.len(), 1);
    assert_eq!(happened.0[0].1[1], made.value("resource").unwrap());
}

/// Numbers that look like chance and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// How many changes each object sees.
const CHANGES: u64 = 6;

/// Makes VLANs, changes each one so many times and destroys every other one. Returns what it has
/// destroyed.
async fn writes(router: Router, basic: String, rounds: u64) -> Vec<String> {
    let post = async |path: String, body: String| {
        let request = Request::post(path).header("Authorization", &basic).body(Body::from(body));
        Answer::of(router.clone().oneshot(request.unwrap()).await.unwrap()).await
    };
    let mut destroyed = Vec::new();
    for round in 0..rounds {
        let made = post("/resources/vlan/create".to_owned(), String::new()).await.expect(200);
        let vlan = made.value("resource").unwrap().to_owned();
        for change in 1..=CHANGES {
            let path = format!("/resources/vlan/{vlan}/set");
            post(path, format!("user:changes {change}")).await.expect(200);
        }
        if round % 2 == 0 {
            post(format!("/resources/vlan/{vlan}/destroy"), String::new()).await.expect(204);
            destroyed.push(vlan);
        }
    }
    destroyed
}

/// Reads from `cursor` on until what happens last is told, through one server after the other, by waits and streams,
/// breaking off at random.
async fn reads(
    routers: Vec<Router>,
    basic: String,
    mut cursor: String,
    seed: u64,
    last: Arc<OnceLock<String>>,
) -> Vec<Event> {
    let (mut met, mut dice) = (Vec::new(), Dice(seed));
    loop {
        let router = &routers[usize::try_from(dice.below(2)).unwrap()];
        let (some, next) = match dice.below(3) {
            0 => {
                let mut feed = Feed::open(router, &basic, "", Some(&cursor)).await;
                let mut part = feed.next().await.unwrap();
                for _ in 0..dice.below(4) {
                    let next = tokio::time::timeout(Duration::from_millis(50), feed.next()).await;
                    let Ok(Some((some, next))) = next else { break };
                    part.0.extend(some);
                    part.1 = next;
                }
                part
            }
            1 => {
                let query = format!("?after={cursor}&limit={}&wait=1", 1 + dice.below(5));
                events(router, &basic, &query).await
            }
            _ => {
                // It goes on from the last event rather than from what the answer says.
                let (some, next) = events(router, &basic, &format!("?after={cursor}")).await;
                let last = some.last().map(|(cursor, _)| cursor.clone());
                (some, last.unwrap_or(next))
            }
        };
        met.extend(some);
        cursor = next;
        if last.get().is_some_and(|last| met.iter().any(|(_, what)| what[1] == *last)) {
            return met;
        }
    }
}

/// Writers through one server or two, of which the first is then killed half way, and readers of
/// both. Every reader meets every change of every object once, and all in the same order.
async fn stress(cloud: &mut Cloud, two: Option<Server>, rounds: u64) {
    let second = two.as_ref().unwrap_or(&cloud.server).router();
    let routers = vec![cloud.server.router(), second];
    let begin = now(&routers[0], &cloud.basic).await;
    let before = ask(&routers[0], &cloud.basic, "/resources/list").await.expect(200);
    let last = Arc::new(OnceLock::new());
    let mut readers = JoinSet::new();
    for seed in 0..4 {
        let (basic, last) = (cloud.basic.clone(), Arc::clone(&last));
        readers.spawn(reads(routers.clone(), basic, begin.clone(), seed, last));
    }
    let (mut doomed, mut writers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..3 {
        doomed.spawn(writes(routers[0].clone(), cloud.basic.clone(), u64::MAX));
        writers.spawn(writes(routers[1].clone(), cloud.basic.clone(), rounds));
    }
    let mut destroyed = writers.join_next().await.unwrap().unwrap();
    // The first server is gone with all it was at; the second goes on.
    doomed.shutdown().await;
    if let Some(two) = two {
        drop(std::mem::replace(&mut cloud.server, two));
    }
    destroyed.extend(writers.join_all().await.into_iter().flatten());
    // What happens last of all is told last, however long it is held up.
    let made = cloud.post("/resources/vlan/create", "").await.expect(200);
    last.set(made.value("resource").unwrap().to_owned()).unwrap();
    let met: Vec<Vec<Event>> =
        tokio::time::timeout(GUARD, readers.join_all()).await.expect("a reader never ended");

    let all = events(&routers[1], &cloud.basic, &format!("?after={begin}&limit=10000")).await.0;
    for one in &met {
        let differs = one.iter().zip(&all).position(|(met, told)| met != told);
        let differs = differs.map(|place| (&one[place], &all[place]));
        assert_eq!(differs, None, "a reader lost something or met it twice");
        assert_eq!(one.len(), all.len(), "a reader missed the end or met it twice");
    }
    let infos = ask(&routers[1], &cloud.basic, "/resources/info").await.expect(200).json();
    let mut wanted = BTreeMap::new();
    for info in infos.as_array().unwrap() {
        let changes = info["user:changes"].as_str().map_or(0, |text| text.parse().unwrap());
        let resource = info["resource"].as_str().unwrap().to_owned();
        if !before.text().contains(&resource) {
            wanted.insert(resource, changes);
        }
    }
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for (_, [_, id, event, _]) in all {
        found.entry(id).or_default().push(event);
    }
    for id in &destroyed {
        assert_eq!(found[id].last().unwrap(), "destroyed", "{id}");
    }
    for (id, events) in found {
        let is_there = wanted.get(&id);
        let mut expected = vec!["created".to_owned()];
        let changes = is_there.copied().unwrap_or(CHANGES);
        expected.extend((0..changes).map(|_| "changed".to_owned()));
        if is_there.is_none() {
            expected.push("destroyed".to_owned());
        }
        assert_eq!(events, expected, "{id}");
        wanted.remove(&id);
    }
    assert_eq!(wanted, BTreeMap::new(), "nothing was told of these");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn readers_of_two_servers_that_come_and_go_meet_every_change_once_and_in_order() {
    let mut cloud = Cloud::on(TestDatabase::postgres()).await;
    let two = cloud.another_server().await;
    stress(&mut cloud, Some(two), 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_come_and_go_meet_every_change_once_and_in_order() {
    let mut cloud = Cloud::new().await;
    stress(&mut cloud, None, 12).await;
}
