//! The kit of [`Vmm`]: what the process of a guest owes, as checks that run on any implementation.
//!
//! It works on the process itself and not through [`super::Guests`], so that nothing that is done
//! about a process hides what it does. What guests do once they run is the hypervisor kit's, in
//! [`elasticstack_core::hypervisor`].

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::block::{Attachment, Borrowing, LendId};
use elasticstack_core::generation::{Epoch, Run};
use elasticstack_core::hypervisor::{EndCause, Seed, ServerSpec};
use elasticstack_core::id::DriveId;
use elasticstack_core::secret::Secret;
use futures_core::future::BoxFuture;
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use super::dir::ServerDir;
use super::phase::Status;
use super::qmp::Qmp;
use super::start::{connect, spawn};
use super::{Scope, Vmm, process_name};
use crate::sys::process::Process;

/// How often a check looks for what has to come.
const LOOKS: u32 = 1_200;
/// How often it looks for what comes at once if at all.
const SOME_LOOKS: u32 = 200;
/// How often it looks for what must not come.
const FEW_LOOKS: u32 = 10;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// The run that checks start.
const RUN: Run = Run(1);
/// What no command line may have in it.
const SECRET: &str = "a-secret-of-the-kit";

/// How the kit handles an implementation under test. Each check gets a fixture of its own.
pub trait VmmFixture: Send + Sync {
    /// What is tested.
    fn vmm(&self) -> Arc<dyn Vmm>;

    /// A small server with one drive in a file and no screen, the same at each call. Its guest greets
    /// on its first serial port and then runs until it is told otherwise.
    fn server(&self) -> ServerSpec;

    /// What that guest writes soon after it starts.
    fn greeting(&self) -> &str;

    /// A directory of this fixture's own, which is there.
    fn runtime_dir(&self) -> PathBuf;

    /// Makes the guest end itself, as [`EndCause::Guest`] or as [`EndCause::Panicked`].
    ///
    /// # Errors
    /// Whatever kept the fixture from doing so.
    fn end(&self, cause: EndCause) -> io::Result<()>;
}

/// A check that an implementation does not pass.
#[derive(Debug)]
pub struct Finding {
    /// The check's name, which begins with its clause's, as `vm_1`.
    pub check: &'static str,
    /// What was found.
    pub found: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.found)
    }
}

/// The names of all checks.
pub fn checks() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// Runs all checks, each on a fixture of its own, and tells what was found: nothing if the contract is
/// kept. Takes seconds for each check that finds something.
pub async fn findings<F: VmmFixture>(new: impl Fn() -> F) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (check, test) in CHECKS {
        if let Err(found) = test(&new()).await {
            findings.push(Finding { check, found });
        }
    }
    findings
}

type Verdict = Result<(), Box<dyn Error + Send + Sync>>;
type Check = for<'a> fn(&'a dyn VmmFixture) -> BoxFuture<'a, Verdict>;

const CHECKS: [(&str, Check); 7] = [
    ("vm_1_nothing_of_the_guest_runs_until_it_is_told_to", |fixture| {
        Box::pin(nothing_runs_until_told(fixture))
    }),
    ("vm_2_the_lock_is_held_as_long_as_the_process_lives", |fixture| {
        Box::pin(lock_is_held(fixture))
    }),
    ("vm_2_the_lock_is_free_once_the_process_is_gone", |fixture| Box::pin(lock_is_free(fixture))),
    ("vm_3_a_guest_that_powers_itself_off_waits", |fixture| {
        Box::pin(ended_guest_waits(fixture, EndCause::Guest))
    }),
    ("vm_3_a_guest_that_panics_waits", |fixture| {
        Box::pin(ended_guest_waits(fixture, EndCause::Panicked))
    }),
    ("vm_4_the_process_is_found_by_its_name", |fixture| Box::pin(process_has_its_name(fixture))),
    ("vm_4_no_secret_is_an_argument", |fixture| Box::pin(no_secret_is_an_argument(fixture))),
];

async fn nothing_runs_until_told(fixture: &dyn VmmFixture) -> Verdict {
    let mut subject = Subject::start(fixture).await?;
    for _ in 0..FEW_LOOKS {
        let (status, said) = (subject.qmp.status().await?, subject.qmp.serial().await?);
        require(status == Status::Prelaunch, || format!("before `cont` it is {status:?}"))?;
        require(said.is_empty(), || format!("before `cont` it says {}", said.escape_ascii()))?;
        sleep(PAUSE).await;
    }
    subject.go_on(fixture.greeting()).await
}

async fn lock_is_held(fixture: &dyn VmmFixture) -> Verdict {
    let mut subject = Subject::start(fixture).await?;
    require(subject.dir.is_held()?, || "before `cont` the lock is free".to_owned())?;
    subject.go_on(fixture.greeting()).await?;
    require(subject.dir.is_held()?, || "while the guest runs the lock is free".to_owned())
}

async fn lock_is_free(fixture: &dyn VmmFixture) -> Verdict {
    let mut subject = Subject::start(fixture).await?;
    subject.go_on(fixture.greeting()).await?;
    subject.process.kill()?;
    subject.process.exited().await?;
    // A process lets go of its files a little later than of its pid.
    for _ in 0..SOME_LOOKS {
        if !subject.dir.is_held()? {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err("the process is gone and somebody still holds the lock".into())
}

async fn ended_guest_waits(fixture: &dyn VmmFixture, cause: EndCause) -> Verdict {
    let mut subject = Subject::start(fixture).await?;
    subject.go_on(fixture.greeting()).await?;
    fixture.end(cause)?;
    let mut status = subject.qmp.status().await?;
    for _ in 0..LOOKS {
        if status != Status::Running {
            break;
        }
        sleep(PAUSE).await;
        status = subject.qmp.status().await?;
    }
    for _ in 0..FEW_LOOKS {
        require(status == Status::Ended(cause), || format!("after {cause:?} it is {status:?}"))?;
        require(!subject.process.has_exited()?, || "its process did not wait".to_owned())?;
        require(subject.dir.is_held()?, || "after its end the lock is free".to_owned())?;
        sleep(PAUSE).await;
        status = subject.qmp.status().await?;
    }
    Ok(())
}

async fn process_has_its_name(fixture: &dyn VmmFixture) -> Verdict {
    let subject = Subject::start(fixture).await?;
    let name = process_name(fixture.server().server, RUN);
    let found = subject.dir.process(&name)?.map(|process| process.pid());
    let own = subject.process.pid();
    require(found == Some(own), || format!("{name} is process {found:?} and should be {own}"))
}

async fn no_secret_is_an_argument(fixture: &dyn VmmFixture) -> Verdict {
    let mut spec = fixture.server();
    let secret = || Secret::new(SECRET);
    spec.seed = Some(Seed { host_name: None, keys: Vec::new(), user_data: Some(secret()) });
    for slot in &mut spec.drives {
        slot.attachment = Attachment::Iscsi(Borrowing {
            portal: ([127, 0, 0, 1], 3260).into(),
            lend: LendId { drive: DriveId::from_uuid(Uuid::nil()), epoch: Epoch(1) },
            borrower: spec.server,
            secret: secret(),
        });
    }
    let mut launches = vec![fixture.vmm().launch(&spec, RUN, None)?];
    spec.screen = Some(secret());
    // Not every kind of server has a screen.
    launches.extend(fixture.vmm().launch(&spec, RUN, Some([127, 0, 0, 1].into())));
    for argument in launches.iter().flat_map(|launch| &launch.arguments) {
        require(!argument.contains(SECRET), || format!("a secret is in the argument {argument}"))?;
    }
    Ok(())
}

fn require(holds: bool, found: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(found().into()) }
}

/// A process whose guest was not told to go on yet. It is killed in the end.
struct Subject {
    dir: Arc<ServerDir>,
    process: Process,
    qmp: Qmp,
}

impl Subject {
    async fn start(fixture: &dyn VmmFixture) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (vmm, spec) = (fixture.vmm(), fixture.server());
        let dir = Arc::new(ServerDir::create(&fixture.runtime_dir(), spec.server)?);
        let lock = dir.lock()?.ok_or("the server of the fixture runs already")?;
        let launch = vmm.launch(&spec, RUN, None)?;
        let process = spawn(&Scope::Session, &dir, lock, &spec, RUN, launch).await?;
        match connect(&*vmm, &dir, &process).await {
            Ok(qmp) => Ok(Self { dir, process, qmp }),
            Err(error) => {
                process.kill()?;
                Err(error.into())
            }
        }
    }

    /// Lets the guest go on, and waits for its greeting.
    async fn go_on(&mut self, greeting: &str) -> Verdict {
        self.qmp.execute("cont", Value::Null).await?;
        let mut said = Vec::new();
        for _ in 0..LOOKS {
            said.extend(self.qmp.serial().await?);
            if said.windows(greeting.len()).any(|words| words == greeting.as_bytes()) {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        Err(format!("after `cont` it should say {greeting:?} and says {}", said.escape_ascii())
            .into())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // One that has ended is as good as killed.
        let _ = self.process.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_clause_of_a_vmm_has_a_check_and_every_check_a_clause() {
        let lines = include_str!("vmm.rs").lines();
        let ids = lines.filter_map(|line| line.strip_prefix("/// - **")?.split("**").next());
        let clauses: BTreeSet<_> = ids.map(|id| id.to_lowercase().replace('-', "_")).collect();
        assert!(clauses.contains("vm_1"), "{clauses:?}");
        let checked: BTreeSet<_> = checks().map(|check| check[..4].to_owned()).collect();
        assert_eq!(checked, clauses);
    }
}
