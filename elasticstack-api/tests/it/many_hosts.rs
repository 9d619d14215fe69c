//! What many hosts say at the same time, and what one says again and again.

use std::time::Duration;

use elasticstack_api::app::App;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Cursor, HostReport};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::fake_host::{World, host_id};

/// Longer than any host may be silent.
const SILENCE: Duration = Duration::from_secs(3_600);

fn host(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(0xF00 + number))
}

/// What a host with so much memory, in MiB, and no array says of itself.
fn report(world: &World, memory_mib: u32) -> HostReport {
    HostReport { memory_mib, arrays: Vec::new(), ..world.host.report() }
}

/// How much memory a host is known to have, in MiB.
async fn memory(app: &App, host: HostId) -> u32 {
    let host = app.host_info(host).await.unwrap();
    host.value("mem:total").unwrap().parse().unwrap()
}

async fn make_known(app: &App, hosts: u128) {
    for number in 0..hosts {
        let name = format!("many{number}").parse().unwrap();
        app.host_create(host(number), &name, "127.0.0.1:1").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_another_was_taken_in_is_taken_in_together() {
    const HOSTS: u128 = 40;
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    make_known(app, HOSTS).await;
    let before = *app.changes().borrow();
    let (one, news) = (report(&world, 1_007), report(&world, 1_008));
    let all = (0..HOSTS).map(|number| app.host_answered(host(number), &one));
    join_all(all).await.into_iter().collect::<Result<Vec<_>>>().unwrap();
    let transactions = *app.changes().borrow() - before;
    assert!(transactions <= 3, "{transactions} transactions for what {HOSTS} hosts said at once");
    for number in 0..HOSTS {
        assert_eq!(memory(app, host(number)).await, 1_007);
    }
    app.host_answered(host(0), &news).await.unwrap();
    assert_eq!(memory(app, host(0)).await, 1_008);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_reports_are_taken_in_is_noted_and_news_to_nobody() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    make_known(app, 2).await;
    let before = *app.changes().borrow();
    for sequence in [7, 8] {
        let cursor = Cursor { life: "one".to_owned(), sequence };
        app.taken_in(host(0), &cursor).await.unwrap();
        assert_eq!(app.cursor(host(0)).await.unwrap(), Some(cursor));
    }
    assert_eq!(app.cursor(host(1)).await.unwrap(), None);
    assert_eq!(*app.changes().borrow(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_one_hosts_word_is_not_held_against_others() {
    const HOSTS: u128 = 20;
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    make_known(app, HOSTS).await;
    let said = report(&world, 1_007);
    // The last one is not known.
    let all = (0..=HOSTS).map(|number| app.host_answered(host(number), &said));
    let mut outcomes = join_all(all).await;
    let refused = outcomes.pop().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    outcomes.into_iter().collect::<Result<Vec<_>>>().unwrap();
    for number in 0..HOSTS {
        assert_eq!(memory(app, host(number)).await, 1_007);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_while_taking_in_holds_up_nobody() {
    const HOSTS: u128 = 10;
    let world = World::new();
    let plane = world.still().await;
    make_known(&plane.app, HOSTS).await;
    for round in 1..=20 {
        let said = report(&world, 1_000 + round);
        let mut all: Vec<_> = (0..HOSTS)
            .map(|number| {
                let (app, said) = (plane.app.clone(), said.clone());
                tokio::spawn(async move { app.host_answered(host(number), &said).await })
            })
            .collect();
        tokio::task::yield_now().await;
        all.swap_remove(0).abort();
        for other in join_all(all).await {
            other.unwrap().unwrap();
        }
        for number in 1..HOSTS {
            assert_eq!(memory(&plane.app, host(number)).await, said.memory_mib);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_of_life_is_written_down_only_if_it_says_something_new() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let said = world.host.report();
    app.host_answered(host_id(), &said).await.unwrap();
    let before = *app.changes().borrow();
    app.host_still_answers(host_id(), &said).await.unwrap();
    assert_eq!(*app.changes().borrow(), before);
    let mut more = said;
    more.memory_mib += 1;
    app.host_still_answers(host_id(), &more).await.unwrap();
    let host = app.host_info(host_id()).await.unwrap();
    assert_eq!(host.value("mem:total"), Some(more.memory_mib.to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_taken_for_silent_is_active_by_saying_what_it_said_before() {
    let world = World::new();
    let plane = world.still().await;
    let app = &plane.app;
    let status = async || {
        let host = app.host_info(host_id()).await.unwrap();
        host.value("status").unwrap().to_owned()
    };
    app.lease_hosts().await.unwrap();
    app.host_answered(host_id(), &world.host.report()).await.unwrap();
    for _ in 0..2 {
        world.pass(SILENCE);
        app.deadlines().await.unwrap();
        assert_eq!(status().await, "silent");
        app.lease_hosts().await.unwrap();
        app.host_still_answers(host_id(), &world.host.report()).await.unwrap();
        assert_eq!(status().await, "active");
    }
}
