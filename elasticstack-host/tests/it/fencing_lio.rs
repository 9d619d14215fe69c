//! The rounds of fencing on the kernel's target, on a machine of the lab whose power is lost now and
//! then. What happened is written down outside of the machine before anything else does.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Borrowing, Lend, LendId, LendSpec, Volume};
use elasticstack_core::prelude::*;
use elasticstack_host::iscsi::initiator::Initiator;
use elasticstack_host::lend::LioLender;
use elasticstack_lab::{Lab, stage};
use tokio::runtime::Runtime;

use crate::fencing::{Agent, Desk, Dice, Ground, array, count, drive, open_store, rounds};
use crate::fencing_judge::{Breach, Event};

/// Of the machine's directory, so that it is there whatever becomes of the machine.
const JOURNAL: &str = "/lab/journal";

const STORE: &str = "/data/fencing";

struct Lio {
    bug: Option<Bug>,
}

/// A mistake: the lender answers before it has begun.
#[derive(Debug, Clone, Copy)]
struct Bug;

#[async_trait]
impl Ground for Lio {
    async fn agent(&self) -> Agent {
        let store = Arc::new(open_store(Path::new(STORE)).await);
        let lender = Arc::new(LioLender::open("10.77.0.1:3260".parse().unwrap()).await.unwrap());
        match self.bug {
            None => Agent { store, lender },
            Some(Bug) => Agent { store, lender: Arc::new(Hasty(lender)) },
        }
    }

    async fn lose_power(&self) {
        File::options().write(true).open("/proc/sysrq-trigger").unwrap().write_all(b"b").unwrap();
        std::future::pending().await
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Initiator::login(borrowing).await?))
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Hasty(Arc<LioLender>);

#[async_trait]
impl Lend for Hasty {
    fn portal(&self) -> SocketAddr {
        self.0.portal()
    }

    async fn lend(&self, spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<()> {
        self.0.lend(spec, volume).await
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        let lender = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            lender.withdraw(lend).await
        });
        Ok(())
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        self.0.lent().await
    }
}

/// Goes on where the journal ends, up to so many rounds in all.
fn goes_on(bug: Option<Bug>, power: u64, rounds_of: u64) -> Result<(), Breach> {
    let text = std::fs::read_to_string(JOURNAL).unwrap_or_default();
    // The last line may have been cut off.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| !line.is_empty());
    let events: Vec<Event> = lines.map(|line| line.parse().unwrap()).collect();
    let fenced = events.iter().rev().find_map(|event| match event {
        Event::Fenced(epoch) => Some(epoch.0),
        _ => None,
    });
    let first = fenced.map_or(1, |fenced| (fenced + 1).min(rounds_of + 1));
    std::fs::write(JOURNAL, format!("{whole}\n")).unwrap();
    let journal = File::options().append(true).open(JOURNAL).unwrap();
    let desk = Desk::new(first, Dice { kill: 20, power }).resume(&events, journal);
    let (ground, spec) = (Lio { bug }, drive(array()));
    println!("on from epoch {first}");
    Runtime::new().unwrap().block_on(rounds(&ground, &desk, &spec, first..=rounds_of + 1))
}

const ROUNDS: &str = "fencing_lio::rounds_of_fencing_by_lio_on_a_lab_machine_let_no_stale_write_in";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn rounds_of_fencing_by_lio_on_a_lab_machine_let_no_stale_write_in() {
    let told = stage();
    let told: Option<Vec<&str>> = told.as_deref().map(|told| told.split('-').collect());
    match told.as_deref() {
        Some([power, rounds]) => {
            goes_on(None, power.parse().unwrap(), rounds.parse().unwrap()).unwrap();
        }
        Some(_) => {
            let found = goes_on(Some(Bug), 0, 30).unwrap_err();
            let is_it = matches!(found, Breach::StaleAcknowledged(_) | Breach::StaleFound(_));
            assert!(is_it, "{found:?}");
        }
        None => {
            let rounds = count(10);
            let cuts = rounds / 10;
            let lab = Lab::new().unwrap();
            let mut lost = 0;
            for _ in 0..cuts {
                let mut machine = lab.boot(1).unwrap();
                // In a round the agent is between two steps half a dozen times.
                let ended = machine.run_stage(ROUNDS, &format!("{}-{rounds}", rounds * 2));
                let Err(error) = ended else { break };
                let error = format!("{error:#}");
                assert!(error.contains("the machine is gone"), "{error}");
                lost += 1;
            }
            println!("in {rounds} rounds the power was lost {lost} times");
            let mut machine = lab.boot(1).unwrap();
            machine.run_stage(ROUNDS, &format!("0-{rounds}")).unwrap();
            machine.run(&format!("rm -r {JOURNAL} {STORE}; sync")).unwrap().ok().unwrap();
            machine.run_stage(ROUNDS, "hasty").unwrap();
        }
    }
}
