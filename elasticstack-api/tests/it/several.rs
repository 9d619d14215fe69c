//! Several servers on one PostgreSQL: they share the hosts by leases, never promise room twice,
//! and each goes on with what the others had begun.

use std::time::Duration;

use axum::body::Body;
use elasticstack_api::Server;
use elasticstack_api::app::LEASE;
use tokio::task::JoinSet;

use crate::cloud::{Answer, Cloud, GUARD, send};
use crate::database::TestDatabase;
use crate::fake_agent::CAPACITY;
use crate::fake_host::{World, host_id};
use crate::races::{each_quota_lets_thirteen_through, everything_that_fits_is_placed};

/// The customer sends text to one of the servers.
async fn post(cloud: &Cloud, server: &Server, path: &str, body: &str) -> Answer {
    send(server, cloud.request("POST", path).body(Body::from(body.to_owned())).unwrap()).await
}

/// Asks for a server until it should run, and does or does not.
async fn until_on(cloud: &Cloud, object: &str, runs: Runs) {
    let look = async {
        loop {
            let info = cloud.post(&format!("/servers/{object}/info"), "").await.expect(200);
            let seen = if info.value("started").is_some() { Runs::Already } else { Runs::NotYet };
            if info.value("status") == Some("active") && seen == runs {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GUARD, look).await.expect("it never came");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    NotYet,
    Already,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_lease_is_one_servers_until_it_ends_or_is_given_up() {
    let world = World::on(TestDatabase::postgres());
    let (one, two) = (world.still().await.app.clone(), world.still().await.app.clone());
    let leased = async |app: &elasticstack_api::app::App| {
        app.lease_hosts().await.unwrap().contains(&host_id())
    };
    assert!(leased(&one).await);
    assert!(!leased(&two).await);
    let nearly = LEASE - Duration::from_micros(1);
    world.pass(nearly);
    assert!(!leased(&two).await);
    assert!(leased(&one).await, "it is renewed in its last moment");
    world.pass(nearly);
    assert!(!leased(&two).await);
    world.pass(Duration::from_micros(1));
    assert!(leased(&two).await, "it has ended");
    assert!(!leased(&one).await);
    one.release_hosts().await.unwrap();
    assert!(!leased(&one).await, "what is another's cannot be given up");
    two.release_hosts().await.unwrap();
    assert!(leased(&one).await, "it is given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn only_who_follows_a_host_finds_it_silent() {
    let world = World::on(TestDatabase::postgres());
    let (one, two) = (world.still().await.app.clone(), world.still().await.app.clone());
    let status = async || {
        let info = two.host_info(host_id()).await.unwrap();
        info.value("status").unwrap().to_owned()
    };
    for _ in 0..30 {
        world.pass(LEASE / 2);
        one.lease_hosts().await.unwrap();
        one.host_answered(host_id(), &world.host.report()).await.unwrap();
        two.deadlines().await.unwrap();
        assert_eq!(status().await, "active", "the other one hears of it");
    }
    world.pass(LEASE);
    two.lease_hosts().await.unwrap();
    two.deadlines().await.unwrap();
    assert_eq!(status().await, "active", "it has only begun to listen");
    for _ in 0..30 {
        world.pass(LEASE / 2);
        two.lease_hosts().await.unwrap();
    }
    one.deadlines().await.unwrap();
    assert_eq!(status().await, "active", "it is no longer this one's to say");
    two.deadlines().await.unwrap();
    assert_eq!(status().await, "silent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_server_goes_on_with_what_a_killed_one_had_begun() {
    let mut cloud = Cloud::on(TestDatabase::postgres()).await;
    let two = cloud.another_server().await;
    let server = cloud.stopped_server().await;
    let (start, stop) = (format!("/servers/{server}/start"), format!("/servers/{server}/stop"));
    let started = post(&cloud, &two, &start, "").await.expect(200);
    assert_eq!(started.value("status"), Some("active"), "the first one sent it, the second heard");
    cloud.post(&stop, "").await.expect(204);

    // The first server writes the start down and is killed before its host has heard of it.
    cloud.dial.remove(cloud.host);
    cloud.dial.cut();
    let one = std::mem::replace(&mut cloud.server, two);
    let request = cloud.request("POST", &start).body(Body::empty()).unwrap();
    tokio::select! {
        biased;
        answer = send(&one, request) => panic!("no host can have answered: {answer:?}"),
        () = until_on(&cloud, &server, Runs::NotYet) => {}
    }
    drop(one);
    cloud.dial.insert(cloud.host, cloud.agent.router());
    until_on(&cloud, &server, Runs::Already).await;
    cloud.post(&stop, "").await.expect(204);
    cloud.post(&start, "").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn sixty_four_claimers_through_two_servers_are_promised_no_room_twice() {
    const MEMORY_MIB: usize = 8_192;
    let cloud = Cloud::on(TestDatabase::postgres()).await;
    let two = cloud.another_server().await;
    let (drive, server) = ("name d\nsize 8M", "name s\ncpu 500\nmem 600\npersistent true");
    let (mut drives, mut servers) = (JoinSet::new(), JoinSet::new());
    for claimer in 0..32 {
        let router = if claimer % 2 == 0 { cloud.server.router() } else { two.router() };
        let claim = |path: &str, body: &'static str| {
            let request = cloud.request("POST", path).body(Body::from(body)).unwrap();
            let answer = tower::ServiceExt::oneshot(router.clone(), request);
            async { Answer::of(answer.await.unwrap()).await }
        };
        drives.spawn(claim("/drives/create", drive));
        servers.spawn(claim("/servers/create", server));
    }
    let room = usize::try_from(CAPACITY >> 23).unwrap();
    for (claims, fitting, what) in
        [(drives, room, "drives"), (servers, MEMORY_MIB / 600, "servers")]
    {
        let answers = claims.join_all().await;
        let made = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(made, fitting, "{what}: {answers:?}");
        answers.into_iter().filter(|answer| answer.status != 200).for_each(|refused| {
            refused.expect(507);
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn sixty_four_claimers_through_two_servers_never_pass_a_quota() {
    let world = World::on(TestDatabase::postgres());
    let (one, two) = (world.plane().await, world.still().await);
    each_quota_lets_thirteen_through(&[one.app.clone(), two.app.clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn through_two_servers_too_whoever_is_too_slow_is_given_another_place() {
    let world = World::on(TestDatabase::postgres());
    let (one, two) = (world.still().await.app.clone(), world.still().await.app.clone());
    everything_that_fits_is_placed(&world, &[one, two]).await;
}
