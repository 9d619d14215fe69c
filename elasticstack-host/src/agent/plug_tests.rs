//! Drives that come and go while a server runs, from the agent's API down to a simulated guest, also
//! across restarts of the agent.

use std::sync::Arc;

use elasticstack_core::block::BlockStore as _;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::generation::{Epoch, Era, Generation};
use elasticstack_core::hypervisor::{EndCause, Media};
use elasticstack_core::id::ArrayId;
use elasticstack_core::sim::{SimHypervisor, SimLend, SimStore};
use elasticstack_core::units::{Bytes, MebiBytes};
use elasticstack_core::wire::internal::{
    Access, ClaimedDrive, Document, DriveDocument, IoLimits, Plugged, ServerDocument, ServerStatus,
};
use http::StatusCode;
use tempfile::TempDir;

use super::Agent;
use super::fakes::description;
use super::tests::{Caller, MIB, drive, drive_id, server, server_id};

pub(super) struct Rig {
    state: TempDir,
    store: SimStore,
    pub(super) hypervisor: SimHypervisor,
}

impl Rig {
    pub(super) fn new() -> Self {
        let store = SimStore::new(1, &[Bytes::from_mib(64)]);
        let hypervisor = SimHypervisor::new(MebiBytes(8_192));
        Self { state: tempfile::tempdir().unwrap(), store, hypervisor }
    }

    async fn agent(&self) -> Caller {
        let agent = Agent::builder()
            .state_dir(self.state.path().to_owned())
            .store(Arc::new(self.store.clone()))
            .lender(Arc::new(SimLend::default()))
            .hypervisor(Arc::new(self.hypervisor.clone()))
            .description(description());
        Caller { agent: agent.build().await.unwrap(), cursor: None, known: Vec::new() }
    }

    pub(super) async fn array(&self) -> ArrayId {
        self.store.capacity().await.unwrap()[0].array
    }

    /// An agent with drives 1 and 2.
    pub(super) async fn with_drives(&self) -> Caller {
        let mut caller = self.agent().await;
        let array = self.array().await;
        for n in [1, 2] {
            let document = DriveDocument { array, ..drive(n, 1) };
            caller.push([Document::Drive(document)]).await;
            caller.drive(n, |status| status.size == 2 * MIB).await;
        }
        caller
    }

    /// The same with a server that runs with the first.
    async fn running(&self) -> Caller {
        let mut caller = self.with_drives().await;
        caller.push([Document::Server(server(1, 1, Access::Exclusive))]).await;
        caller.running(1).await;
        caller
    }

    fn plugged(&self) -> Vec<String> {
        let plugged = self.hypervisor.plugged(server_id());
        plugged.iter().map(|slot| slot.device.to_string()).collect()
    }
}

/// The server's run with drive 2 beside the first.
fn with_more(number: u64) -> ServerDocument {
    let mut document = server(number, 1, Access::Exclusive);
    document.hardware.drives.push(ClaimedDrive {
        drive: drive_id(2),
        epoch: Epoch(1),
        access: Access::Exclusive,
        device: "block:1".parse().unwrap(),
        media: Media::Disk,
        lender: None,
        limits: IoLimits::default(),
    });
    document
}

/// What is said of the drives in this version of the document.
async fn said(caller: &mut Caller, number: u64, wanted: fn(&Plugged) -> bool) -> ServerStatus {
    let generation = Generation::new(Era(1), number);
    let fits = |status: &ServerStatus| {
        status.generation == generation && status.plugged.as_ref().is_some_and(wanted)
    };
    caller.server(fits).await
}

fn as_asked(plugged: &Plugged) -> bool {
    *plugged == Plugged::AsAsked
}

fn not_yet(plugged: &Plugged) -> bool {
    matches!(plugged, Plugged::NotYet(fault) if fault.code == ErrorKind::Unavailable.code())
}

/// Whether somebody else may write to drive 2.
async fn is_free(caller: &Caller) -> bool {
    match caller.write(2, 0, "x").await.0 {
        StatusCode::NO_CONTENT => true,
        StatusCode::CONFLICT => false,
        status => panic!("{status}"),
    }
}

#[tokio::test]
async fn drives_come_and_go_while_a_server_runs_and_the_next_agent_knows_of_them() {
    let rig = Rig::new();
    let mut caller = rig.running().await;
    let begun = rig.hypervisor.traces(server_id());
    assert!(is_free(&caller).await);
    caller.push([Document::Server(with_more(2))]).await;
    said(&mut caller, 2, as_asked).await;
    assert_eq!(rig.plugged(), ["ide:0:0", "block:1"]);
    assert!(!is_free(&caller).await);

    caller.agent.close().await;
    let mut caller = rig.agent().await;
    said(&mut caller, 2, as_asked).await;
    assert!(!is_free(&caller).await);
    caller.push([Document::Server(server(3, 1, Access::Exclusive))]).await;
    said(&mut caller, 3, as_asked).await;
    assert_eq!(rig.plugged(), ["ide:0:0"]);
    assert!(is_free(&caller).await);
    assert_eq!(rig.hypervisor.traces(server_id()), begun, "it is the same guest");
    caller.agent.close().await;
}

#[tokio::test]
async fn a_drive_that_the_guest_holds_on_to_is_free_only_when_the_guest_is_gone() {
    let rig = Rig::new();
    let mut caller = rig.running().await;
    caller.push([Document::Server(with_more(2))]).await;
    said(&mut caller, 2, as_asked).await;
    rig.hypervisor.holds_on(server_id()).unwrap();
    caller.push([Document::Server(server(3, 1, Access::Exclusive))]).await;
    said(&mut caller, 3, not_yet).await;
    assert!(!is_free(&caller).await);

    caller.agent.close().await;
    let mut caller = rig.agent().await;
    said(&mut caller, 3, not_yet).await;
    assert_eq!(rig.plugged(), ["ide:0:0", "block:1"]);
    assert!(!is_free(&caller).await);

    // What it is asked for otherwise is done meanwhile.
    let reset = ServerDocument { reset: 1, ..server(4, 1, Access::Exclusive) };
    caller.push([Document::Server(reset)]).await;
    caller.server(|status| status.reset == 1).await;
    let stop = ServerDocument { powered: false, reset: 1, ..server(5, 1, Access::Exclusive) };
    caller.push([Document::Server(stop)]).await;
    assert_eq!(caller.ended(1).await.0, EndCause::Stopped);
    while !is_free(&caller).await {
        tokio::task::yield_now().await;
    }
    caller.agent.close().await;
}
