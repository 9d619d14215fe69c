//! What only whole processes show: starting anew, a hundred runs, a drive that another host lends.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::block::{
    Attachment, BlockStore as _, Borrowing, Lend as _, LendId, LendSpec, Volume, Writing,
};
use elasticstack_core::generation::{Epoch, Run};
use elasticstack_core::hypervisor::{
    Console as _, Counters as _, EndCause, Hypervisor as _, IoLimits, Observed, Phase, ServerSpec,
    Signal,
};
use elasticstack_core::id::ServerId;
use elasticstack_core::secret::Secret;
use elasticstack_core::sim::SimStore;
use elasticstack_core::units::Bytes;
use elasticstack_host::guests::Guests;
use elasticstack_host::lend::InProcessLender;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::guest_code::{self, Command};
use crate::rig::{GUARD, Rig, slot};

/// Waits until the guest has greeted so many times.
async fn until_greeted(guests: &Guests, server: ServerId, times: usize) {
    until("it greets", async || {
        let said = guests.serial(server).await.unwrap();
        String::from_utf8_lossy(&said).matches("hello\r\n").count() == times
    })
    .await;
}

async fn until_phase(guests: &Guests, spec: &ServerSpec, run: Run, phase: Phase) {
    let wanted = Observed { server: spec.server, run, phase };
    until("it is observed", async || guests.observe().await.unwrap().contains(&wanted)).await;
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is().await {
        assert!(began.elapsed() < GUARD, "{what}, never");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
async fn by_dev_kvm_a_guest_that_is_reset_or_resets_itself_starts_anew_in_the_same_run() {
    let rig = Rig::new();
    let guests = rig.agent().await;
    let spec = rig.server(1);
    guests.ensure(&spec, Run(1)).await.unwrap();
    until_greeted(&guests, spec.server, 1).await;
    guests.signal(spec.server, Signal::Reset).await.unwrap();
    until_greeted(&guests, spec.server, 2).await;
    let drive = rig.drive("1");
    guest_code::command(&drive, Command::Reset).unwrap();
    until("it has started anew", async || {
        let said = guests.serial(spec.server).await.unwrap();
        said.len() > 3 * "hello\r\n".len()
    })
    .await;
    guest_code::command(&drive, Command::Wait).unwrap();
    guests.signal(spec.server, Signal::PowerButton).await.unwrap();
    until_phase(&guests, &spec, Run(1), Phase::Running).await;
    guest_code::command(&drive, Command::Write).unwrap();
    until_phase(&guests, &spec, Run(1), Phase::Ended(EndCause::Guest)).await;
    let said = String::from_utf8(guests.serial(spec.server).await.unwrap()).unwrap();
    assert!(said.ends_with("written\r\n"), "{said}");
    let written = fs::read(&drive).unwrap();
    assert_eq!(written[63 * 512], b'w');
    guests.remove(spec.server).await.unwrap();
}

#[tokio::test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
async fn by_dev_kvm_a_hundred_starts_and_stops_leave_nothing_behind() {
    let rig = Rig::new();
    let guests = rig.agent().await;
    let spec = rig.server(1);
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for run in (1..=100).map(Run) {
        guests.ensure(&spec, run).await.unwrap();
        guests.remove(spec.server).await.unwrap();
        if run == Run(1) {
            before = open();
        }
    }
    assert_eq!(open(), before, "descriptors of the agent");
    assert_eq!(Rig::processes(spec.server), Vec::<i32>::new());
    let left: Vec<_> = fs::read_dir(rig.runtime_dir()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "but for the agent's lock: {left:?}");
    assert_eq!(guests.observe().await.unwrap(), []);
}

#[tokio::test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
async fn by_dev_kvm_a_guest_gets_what_its_drives_limits_leave_it() {
    let rig = Rig::new();
    let guests = rig.agent().await;
    let mut spec = rig.server(1);
    let limits = IoLimits { requests: Some(20), bytes: None };
    spec.drives[0].limits = limits;
    guests.ensure(&spec, Run(1)).await.unwrap();
    let device = spec.drives[0].device;
    let count = async || {
        let began = Instant::now();
        let counts = guests.counts(spec.server).await.unwrap()[&device];
        (began, counts.read_requests)
    };
    until("it reads", async || count().await.1 > 0).await;
    let (began, first) = count().await;
    until("it reads on", async || count().await.1 >= first + 20).await;
    let (ended, last) = count().await;
    // As fast as it may, give or take what was under way.
    let most = ended.duration_since(began).as_secs_f64() * 20.0 + 4.0;
    assert!(((last - first) as f64) < most, "{} requests, at most {most}", last - first);
    spec.drives[0].limits = IoLimits::default();
    guests.ensure(&spec, Run(1)).await.unwrap();
    until("it reads without limits", async || count().await.1 > last + 100).await;
    guests.remove(spec.server).await.unwrap();
}

async fn listener(at: SocketAddr) -> TcpListener {
    let began = Instant::now();
    loop {
        match TcpListener::bind(at).await {
            Ok(listener) => return listener,
            Err(error) => assert!(began.elapsed() < GUARD, "{error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs /dev/kvm: cargo xtask test"]
async fn by_dev_kvm_a_guest_lives_on_a_drive_that_is_lent_and_rides_out_its_lenders_restart() {
    let rig = Rig::new();
    let guests = rig.agent().await;
    let mut spec = rig.server(1);
    let store = SimStore::new(1, &[Bytes::from_gib(1)]);
    let drive = store.drive(Bytes::from_mib(4));
    store.create(&drive).await.unwrap();
    let volume: Arc<dyn Volume> = store.open(drive.drive, Epoch(1)).await.unwrap();
    let lend = LendSpec {
        lend: LendId { drive: drive.drive, epoch: Epoch(1) },
        borrower: spec.server,
        writing: Writing::Allowed,
        secret: Secret::new("known to both ends"),
    };
    let lender = InProcessLender::new(listener("127.0.0.1:0".parse().unwrap()).await).unwrap();
    lender.lend(&lend, Arc::clone(&volume)).await.unwrap();
    let portal = lender.portal();
    let secret = lend.secret.clone();
    spec.drives = vec![slot("block:0", "")];
    spec.drives[0].attachment =
        Attachment::Iscsi(Borrowing { portal, lend: lend.lend, borrower: spec.server, secret });
    guests.ensure(&spec, Run(1)).await.unwrap();
    let device = spec.drives[0].device;
    let reads = async || guests.counts(spec.server).await.unwrap()[&device].read_requests;
    until("it reads", async || reads().await > 0).await;
    let processes = Rig::processes(spec.server);
    let line = fs::read_to_string(format!("/proc/{}/cmdline", processes[0])).unwrap();
    assert!(!line.contains("known to both"), "{line}");

    drop(lender);
    let lender = InProcessLender::new(listener(portal).await).unwrap();
    lender.lend(&lend, Arc::clone(&volume)).await.unwrap();
    let before = reads().await;
    until("it reads on", async || reads().await > before + 3).await;
    until_phase(&guests, &spec, Run(1), Phase::Running).await;
    let command = b"w".as_slice();
    volume.write_at(Bytes::try_from(512).unwrap(), command.into()).await.unwrap();
    until_phase(&guests, &spec, Run(1), Phase::Ended(EndCause::Guest)).await;
    let mut found = [0];
    volume.read_at(Bytes::try_from(63 * 512).unwrap(), &mut found).await.unwrap();
    assert_eq!(found, *b"w");
    guests.remove(spec.server).await.unwrap();
}
