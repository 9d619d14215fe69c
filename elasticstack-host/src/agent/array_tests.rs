//! Orders for arrays over the agent's API: how they are read, refused, waited for, one at a time. What they do
//! to disks is tried in the lab.

use std::sync::{Arc, Condvar, Mutex};

use axum::body::Body;
use axum::http::StatusCode;
use elasticstack_core::block::BlockStore;
use elasticstack_core::error::{ErrorKind, Result};
use elasticstack_core::wire::arrays::{
    ArrayOrder, HostArrays, MadeOf, OrderArray, OrderProgress, OrderStatus, ScrubMode,
};
use elasticstack_core::wire::internal::Fault;

use super::fakes::description;
use super::tests::{Caller, World};
use super::{Agent, locked};
use crate::array::{ArrayConfig, ConfiguredArray, Keeper};
use crate::store::{ArrayCapacity, DirectoryStore, KnownArrays};

/// A configuration with one directory, which tells it only while its gate is open.
#[derive(Clone)]
struct Gated(Arc<(Mutex<bool>, Condvar)>);

impl Gated {
    fn open(&self) {
        *locked(&self.0.0) = true;
        self.0.1.notify_all();
    }
}

impl ArrayConfig for Gated {
    fn arrays(&self) -> Result<Vec<ConfiguredArray>> {
        drop(self.0.1.wait_while(locked(&self.0.0), |open| !*open).unwrap());
        Ok(vec![ConfiguredArray {
            array: None,
            name: "old".to_owned(),
            path: "/srv/old".into(),
            capacity: ArrayCapacity::Disk { reserve: elasticstack_core::units::Bytes::ZERO },
            made: None,
        }])
    }

    fn add(&self, array: &ConfiguredArray) -> Result<()> {
        panic!("{array:?} is not to be added")
    }
}

/// An agent that takes orders for the arrays of that configuration, and its gate.
async fn agent(world: &World) -> (Caller, Gated) {
    let state = world.state.path();
    let known = KnownArrays::read(state).unwrap();
    let store = Arc::new(DirectoryStore::open(known, Vec::new()).unwrap());
    let gate = Gated(Arc::default());
    let keeper =
        Keeper::new(gate.clone(), state.to_owned()).serving(Arc::clone(&store), "/srv".into());
    let agent = Agent::builder()
        .state_dir(state.to_owned())
        .store(store as Arc<dyn BlockStore>)
        .hypervisor(Arc::clone(&world.hypervisor) as _)
        .description(description())
        .keeper(keeper);
    (Caller { agent: agent.build().await.unwrap(), cursor: None, known: Vec::new() }, gate)
}

fn scrub(name: &str) -> ArrayOrder {
    ArrayOrder::Scrub { name: name.to_owned(), mode: ScrubMode::Check }
}

async fn give(caller: &Caller, order: ArrayOrder, wait_ms: u32) -> (StatusCode, Vec<u8>) {
    let body = serde_json::to_vec(&OrderArray { order, wait_ms }).unwrap();
    caller.call("POST", "/v1/arrays", body.into()).await
}

fn fault((status, body): (StatusCode, Vec<u8>)) -> (StatusCode, Fault) {
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn an_order_is_waited_for_and_meanwhile_the_same_one_is_and_no_other_is_taken() {
    let world = World::new();
    let (caller, gate) = agent(&world).await;
    let working = OrderStatus { order: scrub("old"), progress: OrderProgress::Working };
    for _again in 0..2 {
        let status: OrderStatus = Caller::parsed(give(&caller, scrub("old"), 1).await);
        assert_eq!(status, working);
    }
    let (status, refused) = fault(give(&caller, scrub("other"), 60_000).await);
    assert_eq!(status, StatusCode::CONFLICT, "{refused:?}");
    assert_eq!(refused.code, ErrorKind::ResourceInUse.code());
    // All else is answered.
    let (status, _) = caller.call("GET", "/v1/host", Body::empty()).await;
    assert_eq!(status, StatusCode::OK);

    gate.open();
    let (status, failed) = fault(give(&caller, scrub("old"), 60_000).await);
    assert_eq!(status, StatusCode::BAD_REQUEST, "{failed:?}");
    assert_eq!(failed.field.as_deref(), Some("name"));
    assert!(failed.message.starts_with("array old is a directory"), "{failed:?}");
    let told: HostArrays = Caller::parsed(caller.call("GET", "/v1/arrays", Body::empty()).await);
    let [old] = &told.arrays[..] else { panic!("{told:?}") };
    assert_eq!((&*old.name, &*old.path, &old.made_of), ("old", "/srv/old", &MadeOf::Directory));
    let ended = OrderStatus { order: scrub("old"), progress: OrderProgress::Failed(failed) };
    assert_eq!(told.order, Some(ended));

    let (status, unknown) = fault(give(&caller, scrub("other"), 60_000).await);
    assert_eq!(status, StatusCode::NOT_FOUND, "{unknown:?}");
    caller.agent.close().await;
    let (status, _) = give(&caller, scrub("old"), 60_000).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_is_no_order_is_refused_before_anything_is_looked_at() {
    let world = World::new();
    let (caller, _gate) = agent(&world).await;
    for (body, code) in [
        ("{", ErrorKind::MalformedBody),
        (r#"{"order": {"do": "grow", "name": "old"}}"#, ErrorKind::MalformedBody),
        (r#"{"order": {"do": "erase", "name": "old"}, "wait_ms": 0}"#, ErrorKind::MalformedBody),
        (
            r#"{"order": {"do": "grow", "name": "old", "force": true}, "wait_ms": 0}"#,
            ErrorKind::MalformedBody,
        ),
        (
            r#"{"order": {"do": "add", "name": "old", "disk": ""}, "wait_ms": 0}"#,
            ErrorKind::InvalidValue,
        ),
        (
            r#"{"order": {"do": "import", "name": "../old", "path": "/srv/x"}, "wait_ms": 0}"#,
            ErrorKind::InvalidValue,
        ),
    ] {
        let (status, refused) = fault(caller.call("POST", "/v1/arrays", body.into()).await);
        assert_eq!((status, &*refused.code), (StatusCode::BAD_REQUEST, code.code()), "{body}");
    }
}

#[tokio::test]
async fn an_agent_that_makes_no_arrays_says_so() {
    let world = World::new();
    let caller = world.agent().await;
    let order: Body = r#"{"order": {"do": "grow", "name": "old"}, "wait_ms": 0}"#.into();
    for (method, path, body) in [
        ("GET", "/v1/disks", Body::empty()),
        ("GET", "/v1/arrays", Body::empty()),
        ("POST", "/v1/arrays", order),
    ] {
        let (status, refused) = fault(caller.call(method, path, body).await);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {path}");
        assert_eq!(refused.code, ErrorKind::NotOffered.code(), "{method} {path}");
    }
}
