//! Every changing call, killed after every commit and after every message to a host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use elasticstack_api::Server;
use elasticstack_api::app::LEASE;
use elasticstack_core::wire::calls::Call;
use tokio::task::{JoinSet, LocalSet};

use crate::asked::{Ask, Asked, changing, is_good, prepare};
use crate::copies::empty_beside;
use crate::database::TestDatabase;
use crate::ends::{Presses, end, settle, settle_as};
use crate::world::{Answer, GUARD, World, request, send};

/// More than any call takes: a walk that comes so far goes in circles.
const MOST: u64 = 60;

/// Who is killed, and when.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// The control plane, right after so many commits.
    Commit(u64),
    /// The control plane, when the agent has taken in so many messages and before it is answered.
    Message(u64),
    /// The agent of the first host, at that moment.
    Agent(u64),
    /// The agent of the second host, which borrows from the first, at that moment.
    Borrower(u64),
}

/// What the client does when the call breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It asks again under the same key until it is answered.
    Repeats,
    /// It is never heard of again.
    IsGone,
}

/// A blow, at each of its points, to a call of such a client.
#[derive(Clone, Copy)]
struct Way(fn(u64) -> Blow, Client);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fell {
    /// Nothing of the call was written down: it was another commit, or another message.
    Before,
    Yes,
    /// All was over before.
    TooLate,
}

/// How things are before a call and after it, if nobody is killed.
struct Ends {
    before: String,
    after: String,
}

impl Ends {
    async fn of(ask: Ask) -> Self {
        let (world, server) = world_for(ask).await;
        let asked = prepare(&world, &server, ask).await;
        let before = end(&world, &server).await;
        insist(&server, &asked).await;
        let after = end(&world, &server).await;
        // A new key or certificate is seen only in the answer.
        let is_secret =
            matches!(ask.call(), Call::AccountKey | Call::HostJoin | Call::ServerConsole);
        let is_seen = before != after || is_secret;
        assert!(is_seen, "{ask:?} changed nothing: it can't be seen to be done");
        server.close().await;
        Self { before, after }
    }
}

/// Asks under the same key until it is done, and tries what is told this once.
async fn insist(server: &Server, asked: &Asked) -> Answer {
    let Asked { ask, who, path, body } = asked;
    let done = async {
        loop {
            let answer = send(server, request(*who, path, Some("once"), body)).await;
            match answer.status {
                200 | 204 => return answer,
                503 => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => panic!("{asked:?} was answered {answer:?}"),
            }
        }
    };
    let answer = tokio::time::timeout(GUARD, done).await.expect("it was never done");
    is_good(server, ask.call(), &answer).await;
    answer
}

/// Which of two servers on one database is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The one that works for the hosts.
    Worker,
    /// The other one, which is asked.
    Asked,
}

/// One call at one of two servers on one database, of which one is killed; judged by the end that
/// the other one brings about.
async fn strike_one_of_two(
    database: TestDatabase,
    ask: Ask,
    ends: &Ends,
    blow: Blow,
    victim: Victim,
) -> Fell {
    let (world, first) = World::of(database, ask.hosts()).await;
    let asked = prepare(&world, &first, ask).await;
    first.close().await;
    let worker = world.serve_impatiently().await;
    let leased = worker.app().lease_hosts().await.unwrap();
    assert!(leased.contains(&world.machines[0].host), "it works for the host");
    let other = world.serve_impatiently().await;
    settle(&world, &other, &[&ends.before]).await;
    let (killed, survivor) = match victim {
        Victim::Worker => (worker, other),
        Victim::Asked => (other, worker),
    };
    // A commit is the killed server's own; a message may be the answer to what the other one asked.
    let asks = match (victim, blow) {
        (Victim::Worker, Blow::Message(_) | Blow::Agent(_) | Blow::Borrower(_)) => &survivor,
        (Victim::Worker, Blow::Commit(_)) | (Victim::Asked, _) => &killed,
    };
    let mut changes = killed.app().changes();
    let first = *changes.borrow_and_update();
    let falls = async {
        match blow {
            Blow::Commit(commits) => {
                changes.wait_for(|number| *number >= first + commits).await.unwrap();
            }
            Blow::Message(messages) | Blow::Agent(messages) | Blow::Borrower(messages) => {
                world.tap.cut_after(messages).await;
            }
        }
    };
    let fell = {
        let mut lives = std::pin::pin!(async {
            insist(asks, &asked).await;
            settle(&world, &survivor, &[&ends.after]).await;
        });
        tokio::select! {
            biased;
            () = falls => Fell::Yes,
            () = &mut lives => Fell::TooLate,
        }
    };
    drop(killed);
    world.tap.mend();
    // Nobody is to wait for an answer that was kept back.
    world.cut();
    if victim == Victim::Worker {
        world.pass(LEASE);
    }
    let answer = insist(&survivor, &asked).await;
    settle(&world, &survivor, &[&ends.after]).await;
    survivor.close().await;
    if fell == Fell::Yes && ask.has_intent() && !answer.is_replayed { Fell::Before } else { fell }
}

/// A cloud of as many hosts as the call is about.
async fn world_for(ask: Ask) -> (World, Server) {
    match ask.hosts() {
        1 => World::new().await,
        hosts => World::of(TestDatabase::new(), hosts).await,
    }
}

/// One call with one blow, judged by its end.
async fn strike(ask: Ask, ends: &Ends, blow: Blow, client: Client) -> Fell {
    let (world, server) = world_for(ask).await;
    let asked = prepare(&world, &server, ask).await;
    settle(&world, &server, &[&ends.before]).await;
    match blow {
        Blow::Agent(messages) => strike_agent(&world, 0, server, &asked, ends, messages).await,
        Blow::Borrower(messages) => strike_agent(&world, 1, server, &asked, ends, messages).await,
        Blow::Commit(_) | Blow::Message(_) => {
            strike_plane(&world, server, &asked, ends, blow, client).await
        }
    }
}

async fn strike_plane(
    world: &World,
    server: Server,
    asked: &Asked,
    ends: &Ends,
    blow: Blow,
    client: Client,
) -> Fell {
    let answered = AtomicBool::new(false);
    let mut changes = server.app().changes();
    let first = *changes.borrow_and_update();
    let falls = async {
        match blow {
            Blow::Commit(commits) => {
                changes.wait_for(|number| *number >= first + commits).await.unwrap();
            }
            Blow::Message(messages) | Blow::Agent(messages) | Blow::Borrower(messages) => {
                world.tap.cut_after(messages).await;
            }
        }
    };
    let lives = async {
        insist(&server, asked).await;
        answered.store(true, Ordering::Relaxed);
        settle(world, &server, &[&ends.after]).await;
    };
    let fell = tokio::select! {
        biased;
        () = falls => Fell::Yes,
        () = lives => Fell::TooLate,
    };
    drop(server);
    if fell == Fell::TooLate {
        return fell;
    }
    world.tap.mend();
    // Where there may be other servers, the leases of the dead one end first.
    world.pass(LEASE);
    let server = world.serve().await;
    match client {
        Client::Repeats => {
            insist(&server, asked).await;
            settle(world, &server, &[&ends.after]).await;
        }
        Client::IsGone if answered.load(Ordering::Relaxed) => {
            settle(world, &server, &[&ends.after]).await
        }
        Client::IsGone => settle(world, &server, &[&ends.before, &ends.after]).await,
    }
    server.close().await;
    fell
}

async fn strike_agent(
    world: &World,
    victim: usize,
    server: Server,
    asked: &Asked,
    ends: &Ends,
    messages: u64,
) -> Fell {
    let fell = {
        let mut lives = std::pin::pin!(async {
            insist(&server, asked).await;
            settle_as(world, &server, &[&ends.after], Presses::OnceOrAgain).await;
        });
        let fell = tokio::select! {
            biased;
            () = world.tap.cut_after(messages) => Fell::Yes,
            () = &mut lives => Fell::TooLate,
        };
        if fell == Fell::Yes {
            // Whole, whoever needs no agent meanwhile: the end is looked at when there is one again.
            let machine = &world.machines[victim];
            world.kill_agent(machine).await;
            world.tap.mend();
            world.boot_agent(machine).await;
            lives.await;
        }
        fell
    };
    server.close().await;
    fell
}

/// Between any two commits stands what else one could see, so that a call has points by its
/// commits, or by its messages if it writes nothing down.
fn has_points(ask: Ask, blow: Blow) -> bool {
    matches!(blow, Blow::Commit(_)) == ask.has_intent()
}

/// Strikes every call at every point in these ways.
async fn walk(ways: &[Way]) {
    let mut points = 0;
    for ask in changing() {
        let ends = Ends::of(ask).await;
        for &Way(blow, client) in ways {
            let mut point = 1;
            if matches!(blow(point), Blow::Borrower(_)) && ask.hosts() == 1 {
                continue;
            }
            while strike(ask, &ends, blow(point), client).await == Fell::Yes {
                point += 1;
                assert!(point < MOST, "{ask:?} goes on and on");
            }
            assert!(point > 1 || !has_points(ask, blow(point)), "{ask:?} was not struck");
            points += point - 1;
        }
    }
    println!("{points} points");
}

#[tokio::test]
async fn a_control_plane_killed_at_any_point_of_any_call_comes_to_the_same_end() {
    walk(&[Way(Blow::Commit, Client::Repeats), Way(Blow::Message, Client::IsGone)]).await;
    if is_long() {
        walk(&[Way(Blow::Commit, Client::IsGone), Way(Blow::Message, Client::Repeats)]).await;
    }
}

#[tokio::test]
async fn an_agent_killed_after_any_message_of_any_call_comes_to_the_same_end() {
    walk(&[Way(Blow::Agent, Client::Repeats), Way(Blow::Borrower, Client::Repeats)]).await;
}

/// A blow, at each of its points, to one of two servers.
#[derive(Clone, Copy)]
struct Either(fn(u64) -> Blow, Victim);

const EITHER: [Either; 4] = [
    Either(Blow::Commit, Victim::Worker),
    Either(Blow::Message, Victim::Worker),
    Either(Blow::Commit, Victim::Asked),
    Either(Blow::Message, Victim::Asked),
];

/// How many clouds are struck at a time, where each mostly waits for a lease to end.
const AT_ONCE: usize = 9;

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn of_two_servers_either_is_killed_in_any_call_and_the_other_goes_on() {
    LocalSet::new().run_until(strike_all_of_two()).await;
}

async fn strike_all_of_two() {
    let root = Arc::new(TestDatabase::postgres());
    let mut strikes = JoinSet::new();
    for ask in changing() {
        if strikes.len() == AT_ONCE {
            strikes.join_next().await.unwrap().unwrap();
        }
        let root = Arc::clone(&root);
        strikes.spawn_local(async move {
            let ends = Ends::of(ask).await;
            for either in EITHER {
                strike_at_points(&root, ask, &ends, either).await;
            }
        });
    }
    while let Some(struck) = strikes.join_next().await {
        struck.unwrap();
    }
}

/// Strikes one of two at every point of a call, or by day at the first.
async fn strike_at_points(
    root: &TestDatabase,
    ask: Ask,
    ends: &Ends,
    Either(blow, victim): Either,
) {
    // By day the one that is only asked is struck where the call surely has a point.
    if !is_long() && victim == Victim::Asked && !has_points(ask, blow(1)) {
        return;
    }
    let (mut point, mut struck) = (1, 0);
    for _ in 0..MOST {
        let blow = blow(point);
        match strike_one_of_two(empty_beside(root), ask, ends, blow, victim).await {
            // A lease was renewed just then: once more.
            Fell::Before if matches!(blow, Blow::Commit(_)) => continue,
            Fell::Before => {}
            Fell::Yes if is_long() => struck += 1,
            Fell::Yes => return,
            Fell::TooLate => {
                assert!(struck > 0 || !has_points(ask, blow), "{ask:?} was not struck");
                return;
            }
        }
        point += 1;
    }
    panic!("{ask:?} goes on and on");
}

/// Whether the nightly form is asked for.
fn is_long() -> bool {
    std::env::var_os("ELASTICSTACK_LONG_TESTS").is_some()
}
