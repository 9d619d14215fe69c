//! A call under an idempotency key is done once, however often and from wherever it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_api::app::REMEMBERED;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{self, Body as Takes, CALLS, Call, Effect};
use elasticstack_core::wire::record::Record;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::cloud::{Answer, Cloud, GUARD, SMALL, send, served};
use crate::console::open;
use crate::database::TestDatabase;

/// The calls that are done once for each key.
fn remembered() -> impl Iterator<Item = Call> {
    let changing = CALLS.iter().filter(|route| route.effect == Effect::Changes);
    changing.filter(|route| route.body != Takes::Bytes).map(|route| route.call)
}

/// What a call is to be asked: its path and its body, about objects that are there for it.
async fn request_of(cloud: &Cloud, call: Call) -> (String, String) {
    let on = |parameters: &[&str]| calls::path(call, parameters);
    let running = async || {
        let server = cloud.stopped_server().await;
        cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
        server
    };
    let sized = "name s\ncpu 500\nmem 128\npersistent true".to_owned();
    match call {
        Call::DriveCreate => (on(&[]), SMALL.to_owned()),
        Call::DriveSet => (on(&[&cloud.drive().await]), "size 8M\nname other".to_owned()),
        Call::DriveDestroy => (on(&[&cloud.drive().await]), String::new()),
        Call::DriveImage
        | Call::DriveImageGunzip
        | Call::DriveImageGzip
        | Call::DriveImageQcow2
        | Call::DriveImageVmdk => {
            (on(&[&cloud.drive().await, &cloud.drive().await]), String::new())
        }
        Call::DriveImageUrl => (on(&[&cloud.drive().await]), "url http://[::1]/".to_owned()),
        Call::DriveSha256 => (on(&[&cloud.drive().await]), "size 1k".to_owned()),
        Call::DriveClone | Call::DriveCloneGunzip | Call::DriveCloneGzip => {
            (on(&[&cloud.drive().await]), SMALL.to_owned())
        }
        Call::DriveSnapshot => (on(&[&cloud.drive().await]), "name s".to_owned()),
        Call::SnapshotSet | Call::SnapshotRestore | Call::SnapshotDestroy => {
            let snapshot = cloud.snapshot(&cloud.drive().await).await;
            (on(&[&snapshot]), if call == Call::SnapshotSet { "name s" } else { "" }.to_owned())
        }
        Call::ServerCreate | Call::ServerCreateStopped => (on(&[]), sized),
        Call::ServerSet => (on(&[&running().await]), "cpu 1500".to_owned()),
        Call::ServerStart => (on(&[&cloud.stopped_server().await]), String::new()),
        Call::ServerConsole => (on(&[&running().await]), String::new()),
        Call::ServerStop | Call::ServerShutdown | Call::ServerReset | Call::ServerDestroy => {
            (on(&[&running().await]), String::new())
        }
        Call::ResourceCreate => (on(&["vlan"]), "name v".to_owned()),
        Call::ResourceSet | Call::ResourceDestroy => {
            let made = cloud.post("/resources/vlan/create", "").await.expect(200);
            (on(&["vlan", made.value("resource").unwrap()]), "tags seen".to_owned())
        }
        Call::AccountCreate => (on(&[]), "name a\nquota:disk 1G".to_owned()),
        Call::AccountSet | Call::AccountSuspend | Call::AccountSuspendStop => {
            (on(&[&cloud.account().await]), "quota:cpu 2000".to_owned())
        }
        Call::AccountResume | Call::AccountKey => (on(&[&cloud.account().await]), String::new()),
        Call::StrayAdopt => {
            (on(&[&cloud.stray().await.0, &cloud.own_account().await]), String::new())
        }
        Call::StrayDestroy => (on(&[&cloud.stray().await.0]), String::new()),
        Call::HostSet | Call::HostRevoke | Call::HostJoin => {
            let body = format!("name {}\naddress h:1", Uuid::new_v4().simple());
            let made = cloud.operate("/hosts/create", &body).await.expect(200);
            (on(&[made.value("host").unwrap()]), "placements closed".to_owned())
        }
        Call::ArraySet => {
            let arrays = cloud.operate("/arrays/list", "").await.expect(200);
            (on(&[arrays.text().trim()]), "placements open".to_owned())
        }
        Call::PoolCreate => (on(&[]), pool()),
        Call::ProfileSet => (on(&[]), format!("name {}", Uuid::new_v4().simple())),
        Call::HostCreate => (on(&[]), format!("name {}\naddress h:1", Uuid::new_v4().simple())),
        Call::TokenCreate => (on(&[]), "name t".to_owned()),
        Call::TokenDestroy => {
            let made = cloud.post("/tokens/create", "name t").await.expect(200);
            (on(&[made.value("token").unwrap()]), String::new())
        }
        other => panic!("say here how {other:?} is asked"),
    }
}

/// A pool of addresses that no other one has.
fn pool() -> String {
    static POOLS: AtomicU64 = AtomicU64::new(0);
    let net = format!("10.9.{}", POOLS.fetch_add(1, Ordering::Relaxed));
    format!("name p\nfirst {net}.10\nlast {net}.20\nnetmask 255.255.255.0\ngateway {net}.1")
}

/// Whoever may ask this.
fn credentials(cloud: &Cloud, call: Call) -> &str {
    match calls::route(call).scope {
        calls::Scope::Customer => &cloud.basic,
        calls::Scope::Operator => &cloud.operator,
    }
}

fn keyed(basic: &str, key: &str, path: &str, body: &str) -> http::Request<Body> {
    let request = http::Request::post(path).header("Authorization", basic);
    request.header("Idempotency-Key", key).body(Body::from(body.to_owned())).unwrap()
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == "true"
}

/// What an answer tells this once is good for what it is for.
async fn is_good(cloud: &Cloud, call: Call, answer: &Answer) {
    let told = Record::from_text(&answer.body).unwrap();
    let value = |key: &str| told.value(key).unwrap_or_else(|| panic!("{call:?} told no {key}"));
    let opens = async |authorization: String| {
        let request = http::Request::get("/profile/info").header("Authorization", authorization);
        cloud.send(request.body(Body::empty()).unwrap()).await.expect(200)
    };
    match call {
        Call::AccountCreate | Call::AccountKey => {
            let account = value("account");
            let key = STANDARD.encode(format!("{account}:{}", value("secret")));
            assert_eq!(opens(format!("Basic {key}")).await.value("uuid"), Some(account));
        }
        Call::TokenCreate => {
            let profile = opens(format!("Bearer {}", value("secret"))).await;
            assert_eq!(profile.value("uuid"), Some(&*cloud.own_account().await));
        }
        Call::HostCreate | Call::HostJoin => {
            let certificate = CertificateDer::from_pem_slice(value("bundle").as_bytes()).unwrap();
            let digest = Sha256::digest(&certificate);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = format!("/hosts/{}/info", value("host"));
            let info = cloud.operate(&path, "").await.expect(200);
            assert_eq!(info.value("certificate"), Some(&*digest), "{call:?}");
        }
        Call::ServerConsole => {
            let opened = served(&cloud.server, async |at| open(at, value("path")).await.map(drop));
            assert_eq!(opened.await, Ok(()), "{call:?}");
        }
        _ => {
            let is_secret = |(key, _): (&str, &str)| ["bundle", "secret", "ticket"].contains(&key);
            assert!(!told.iter().any(is_secret), "say here what {call:?} tells: {told:?}");
        }
    }
}

#[tokio::test]
async fn every_changing_call_is_done_once_for_each_key() {
    let cloud = Cloud::new().await;
    for call in remembered() {
        let (path, body) = request_of(&cloud, call).await;
        let key = Uuid::new_v4().to_string();
        let basic = credentials(&cloud, call);
        let first = cloud.send(keyed(basic, &key, &path, &body)).await;
        assert!(matches!(first.status, 200 | 204), "{call:?}: {first:?}");
        assert!(!is_replayed(&first), "{call:?}");
        let objects = cloud.ids().await;
        let again = cloud.send(keyed(basic, &key, &path, &body)).await;
        assert!(is_replayed(&again), "{call:?}: {again:?}");
        assert_eq!((again.status, again.text()), (first.status, first.text()), "{call:?}");
        assert_eq!(cloud.ids().await, objects, "{call:?}");
        is_good(&cloud, call, &again).await;

        let other = format!("{}\nname x", body.trim_end());
        let reused = cloud.send(keyed(basic, &key, &path, &other)).await;
        if calls::route(call).body == Takes::Ignored {
            assert!(is_replayed(&reused), "{call:?}: what it ignores makes no difference");
        } else {
            let refused = reused.expect(409);
            let error = refused.header("x-elastic-error");
            assert_eq!(error, "busy code=key_reused field=Idempotency-Key", "{call:?}");
        }
        let elsewhere =
            if call == Call::DriveCreate { "/servers/create" } else { "/drives/create" };
        cloud.send(keyed(basic, &key, elsewhere, &body)).await.expect(409);
    }
    cloud.server.close().await;
}

/// The answer is lost right after the first commit, which is what a crash there comes to. That
/// may have been another's commit: then the call was not begun, and is tried again.
#[tokio::test]
async fn every_changing_call_that_is_cut_off_after_its_commit_is_answered_and_not_done_again() {
    for call in remembered() {
        let cloud = Cloud::new().await;
        let (mut key, mut again, mut objects) = (String::new(), None, Vec::new());
        let mut request = (String::new(), String::new());
        for _ in 0..8 {
            request = request_of(&cloud, call).await;
            key = Uuid::new_v4().to_string();
            cut_off(&cloud, call, keyed(credentials(&cloud, call), &key, &request.0, &request.1))
                .await;
            objects = cloud.ids().await;
            let basic = credentials(&cloud, call);
            let answer = cloud.send(keyed(basic, &key, &request.0, &request.1)).await;
            assert!(matches!(answer.status, 200 | 204), "{call:?}: {answer:?}");
            if is_replayed(&answer) {
                again = Some(answer);
                break;
            }
        }
        let again =
            again.unwrap_or_else(|| panic!("{call:?} does not write its key down with its intent"));
        assert_eq!(cloud.ids().await, objects, "{call:?}");
        let basic = credentials(&cloud, call);
        let third = cloud.send(keyed(basic, &key, &request.0, &request.1)).await;
        assert_eq!((third.status, third.text()), (again.status, again.text()), "{call:?}");
        is_good(&cloud, call, &again).await;
        cloud.server.close().await;
    }
}

/// Sends a request and hangs up at the next commit.
async fn cut_off(cloud: &Cloud, call: Call, request: http::Request<Body>) {
    let mut changes = cloud.server.app().changes();
    let before = *changes.borrow_and_update();
    tokio::select! {
        biased;
        _ = changes.wait_for(|number| *number > before) => {}
        answer = send(&cloud.server, request) => {
            panic!("{call:?} committed nothing before it answered: {answer:?}")
        }
    }
}

#[tokio::test]
async fn concurrent_twins_get_one_answer() {
    let cloud = Cloud::new().await;
    let requests = (0..8).map(|_| keyed(&cloud.basic, "twin", "/drives/create", SMALL));
    let answers = requests.map(|request| send(&cloud.server, request));
    let answers = futures_util::future::join_all(answers).await;
    assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1, "{answers:?}");
    for answer in &answers {
        assert_eq!((answer.status, answer.text()), (200, answers[0].text()));
    }
    assert_eq!(cloud.get("/drives/list").await.text().lines().count(), 1);
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn twins_at_two_servers_get_one_answer() {
    let cloud = Cloud::on(TestDatabase::postgres()).await;
    let two = cloud.another_server().await;
    for round in 0..8 {
        let key = format!("round {round}").replace(' ', "-");
        let ask = || keyed(&cloud.basic, &key, "/drives/create", SMALL);
        let (one, other) = tokio::join!(send(&cloud.server, ask()), send(&two, ask()));
        assert_eq!((one.status, one.text()), (200, other.text()), "{other:?}");
    }
    assert_eq!(cloud.get("/drives/list").await.text().lines().count(), 8);
}

#[tokio::test]
async fn what_was_refused_may_be_asked_again_under_its_key() {
    let cloud = Cloud::new().await;
    let (drive, server) = (cloud.drive().await, cloud.stopped_server().await);
    let reset = format!("/servers/{server}/reset");
    for (path, body, status) in [
        ("/drives/create", "size 1T", 507),
        ("/drives/create", "size x", 400),
        (reset.as_str(), "", 409),
    ] {
        for _ in 0..2 {
            let refused = cloud.send(keyed(&cloud.basic, "k", path, body)).await.expect(status);
            assert!(!is_replayed(&refused));
        }
    }
    let made = cloud.send(keyed(&cloud.basic, "k", "/drives/create", SMALL)).await.expect(200);
    assert!(!is_replayed(&made), "none of them was kept");
    let odd = cloud.send(keyed(&cloud.basic, "two words", "/drives/create", SMALL)).await;
    assert_eq!(
        odd.expect(400).header("x-elastic-error"),
        "usage code=invalid_value field=Idempotency-Key"
    );
    let write = format!("/drives/{drive}/write");
    for _ in 0..2 {
        let written = cloud.send(keyed(&cloud.basic, "k", &write, "bytes")).await.expect(204);
        assert!(!is_replayed(&written), "a write needs no key");
    }
    let stranger = cloud.stranger().await;
    let theirs = cloud.send(keyed(&stranger, "k", "/drives/create", SMALL)).await.expect(200);
    assert_ne!(theirs.text(), made.text(), "a key is its account's");
    cloud.server.close().await;
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let ahead = Arc::new(AtomicU64::new(0));
    let clock = ahead.clone();
    let clock = Arc::new(move || {
        Timestamp::from(SystemTime::now()).plus(Duration::from_secs(clock.load(Ordering::SeqCst)))
    });
    let cloud = Cloud::with(TestDatabase::new(), |builder| builder.clock(clock)).await;
    let ask = async || {
        let app = cloud.server.app();
        app.deadlines().await.unwrap();
        // A host is silent after so long, until it answers again.
        let made = async {
            loop {
                let answer = cloud.send(keyed(&cloud.basic, "k", "/drives/create", SMALL)).await;
                if answer.status != 507 {
                    return answer.expect(200);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, made).await.expect("there never was room")
    };
    let first = ask().await;
    ahead.store(REMEMBERED.as_secs() - 600, Ordering::SeqCst);
    assert_eq!(ask().await.text(), first.text());
    ahead.store(REMEMBERED.as_secs() + 1, Ordering::SeqCst);
    let anew = ask().await;
    assert!(!is_replayed(&anew));
    assert_ne!(anew.value("drive"), first.value("drive"));
    cloud.server.close().await;
}

#[tokio::test]
async fn no_secret_of_an_answer_is_at_rest() {
    let cloud = Cloud::new().await;
    let (path, body) = request_of(&cloud, Call::HostCreate).await;
    let made = cloud.send(keyed(&cloud.operator, "k", &path, &body)).await.expect(200);
    let again = cloud.send(keyed(&cloud.operator, "k", &path, &body)).await.expect(200);
    let bundle = made.value("bundle").unwrap();
    assert_eq!(again.value("bundle"), Some(bundle));
    let url = cloud.database_url();
    if let Some(path) = url.strip_prefix("sqlite:") {
        let mut kept = Vec::new();
        for file in [path.to_owned(), format!("{path}-wal")] {
            kept.extend(std::fs::read(file).unwrap_or_default());
        }
        let has = |text: &str| kept.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("idempotency_keys") && has(made.value("host").unwrap()), "it is the database");
        let middle = bundle.len() / 2;
        assert!(!has(&bundle[middle..middle + 40]));
    }
    cloud.server.close().await;
}
