//! Every changing call, killed after every commit and after every message to a host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use elasticstack_api::Server;
use elasticstack_api::app::LEASE;
use elasticstack_core::wire::calls::Call;
use tokio::task::{JoinSet, LocalSet};

use crate::asked::{Ask, Asked, changing, prepare};
use crate::copies::empty_beside;
use crate::database::TestDatabase;
use crate::ends::{Presses, end, settle, settle_as};
use crate::world::{GUARD, World, request, send};

/// More than any call takes: a walk that comes so far goes in circles.
const MOST: u64 = 60;

/// Who is killed, and when.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// The control plane, right after so many commits.
    Commit(u64),
    /// The control plane, when the agent has taken in so many messages and before it is answered.
    Message(u64),
    /// The agent, at that moment.
    Agent(u64),
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
        let (world, server) = World::new().await;
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

/// Asks under the same key until it is done.
async fn insist(server: &Server, asked: &Asked) {
    let done = async {
        loop {
            let answer = ask(server, asked).await;
            match answer {
                200 | 204 => return,
                503 => tokio::time::sleep(Duration::from_millis(10)).await,
                refused => panic!("{asked:?} was answered {refused}"),
            }
        }
    };
    tokio::time::timeout(GUARD, done).await.expect("it was never done");
}

async fn ask(server: &Server, Asked { who, path, body, .. }: &Asked) -> u16 {
    send(server, request(*who, path, Some("once"), body)).await.status
}

/// One call at one of two servers on one database, of which the one that works for the hosts is
/// killed; judged by the end that the other one brings about.
async fn strike_one_of_two(database: TestDatabase, ask: Ask, ends: &Ends, blow: Blow) -> Fell {
    let (world, one) = World::of(database, 1).await;
    let two = world.serve().await;
    let asked = prepare(&world, &one, ask).await;
    settle(&world, &two, &[&ends.before]).await;
    let mut changes = one.app().changes();
    let first = *changes.borrow_and_update();
    let falls = async {
        match blow {
            Blow::Commit(commits) => {
                changes.wait_for(|number| *number >= first + commits).await.unwrap();
            }
            Blow::Message(messages) | Blow::Agent(messages) => world.tap.cut_after(messages).await,
        }
    };
    // A commit is the killed server's own; a message may be the answer to what the other one asked.
    let asks = match blow {
        Blow::Commit(_) => &one,
        Blow::Message(_) | Blow::Agent(_) => &two,
    };
    let fell = {
        let mut lives = std::pin::pin!(async {
            insist(asks, &asked).await;
            settle(&world, &two, &[&ends.after]).await;
        });
        tokio::select! {
            biased;
            () = falls => Fell::Yes,
            () = &mut lives => Fell::TooLate,
        }
    };
    drop(one);
    world.tap.mend();
    world.pass(LEASE);
    insist(&two, &asked).await;
    settle(&world, &two, &[&ends.after]).await;
    two.close().await;
    fell
}

/// One call with one blow, judged by its end.
async fn strike(ask: Ask, ends: &Ends, blow: Blow, client: Client) -> Fell {
    let (world, server) = World::new().await;
    let asked = prepare(&world, &server, ask).await;
    settle(&world, &server, &[&ends.before]).await;
    match blow {
        Blow::Agent(messages) => strike_agent(&world, server, &asked, ends, messages).await,
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
            Blow::Message(messages) | Blow::Agent(messages) => world.tap.cut_after(messages).await,
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
    server: Server,
    asked: &Asked,
    ends: &Ends,
    messages: u64,
) -> Fell {
    let falls = async {
        world.tap.cut_after(messages).await;
        let machine = &world.machines[0];
        world.kill_agent(machine).await;
        world.tap.mend();
        world.boot_agent(machine).await;
    };
    let fell = {
        let mut lives = std::pin::pin!(async {
            insist(&server, asked).await;
            settle_as(world, &server, &[&ends.after], Presses::OnceOrAgain).await;
        });
        tokio::select! {
            biased;
            () = falls => {
                lives.await;
                Fell::Yes
            }
            () = &mut lives => Fell::TooLate,
        }
    };
    server.close().await;
    fell
}

/// Strikes every call at every point in these ways. Between any two commits stands what else one
/// could see, so that a call has points by its commits, or by its messages if it writes nothing
/// down.
async fn walk(ways: &[Way]) {
    let mut points = 0;
    for ask in changing() {
        let ends = Ends::of(ask).await;
        for &Way(blow, client) in ways {
            let mut point = 1;
            while strike(ask, &ends, blow(point), client).await == Fell::Yes {
                point += 1;
                assert!(point < MOST, "{ask:?} goes on and on");
            }
            let has_points = matches!(blow(0), Blow::Commit(_)) == ask.has_intent();
            assert!(point > 1 || !has_points, "{ask:?} was not struck");
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
    walk(&[Way(Blow::Agent, Client::Repeats)]).await;
}

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
            for blow in [Blow::Commit, Blow::Message] {
                let mut point = 1;
                while strike_one_of_two(empty_beside(&root), ask, &ends, blow(point)).await
                    == Fell::Yes
                    && is_long()
                {
                    point += 1;
                    assert!(point < MOST, "{ask:?} goes on and on");
                }
            }
        });
    }
    while let Some(struck) = strikes.join_next().await {
        struck.unwrap();
    }
}

/// Whether the nightly form is asked for.
fn is_long() -> bool {
    std::env::var_os("ELASTICSTACK_LONG_TESTS").is_some()
}
