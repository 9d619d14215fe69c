//! Starting a run: from a spec to a guest whose processors run, or back to nothing.
//!
//! ```text
//! reach what is lent ▸ lock ▸ record `starting` ▸ spawn, paused ▸ scope ▸ QMP ▸ VNC password
//!   ▸ limits ▸ record `released` ▸ cont
//! ```
//! A crash up to `released` leaves a process that has executed nothing: the next start of this
//! agent ends it, removes its scope and, last of all, its directory. A crash after it leaves a run to adopt.

use std::env;
use std::fs::File;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::ServerSpec;
use elasticstack_core::id::ServerId;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::dir::{Record, ServerDir, Stage};
use super::guest::Guest;
use super::nodes::{borrowing, process_name, secret};
use super::qmp::{Qmp, QmpError};
use super::reach::reach;
use super::throttle::throttle;
use super::{Launch, SEED, Scope, Shared, Vmm, blocking, screen, seed};
use crate::sys::process::Process;

/// How long a process may take until it answers for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// How long a killed process may take to be gone, which a dying disk can stretch.
const DEATH: Duration = Duration::from_secs(15);
/// How often is looked again where nothing wakes us.
const POLL: Duration = Duration::from_millis(5);

/// Starts a run of which nothing exists.
pub(super) async fn start(shared: &Arc<Shared>, spec: &ServerSpec, run: Run) -> Result<Guest> {
    reach(&spec.drives).await?;
    let (root, server) = (shared.root.clone(), spec.server);
    let claim = move || {
        let dir = ServerDir::create(&root, server)?;
        Ok(dir.lock()?.map(|lock| (Arc::new(dir), lock)))
    };
    let Some((dir, lock)) = blocking("claiming a server's directory", claim).await? else {
        let message = "the server's last run has not ended yet: try again later";
        return Err(Error::new(ErrorKind::ServerBusy, message));
    };
    let failure = match launch(shared, &dir, lock, spec, run).await {
        Ok(guest) => return Ok(guest),
        Err(failure) => failure,
    };
    match clear(shared, &dir, server, run).await {
        Ok(()) => Err(failure),
        Err(worse) => Err(worse.context("after a failed start").source(failure)),
    }
}

/// Ends whatever process runs the server, removes its scope and deletes its directory.
pub(super) async fn clear(
    shared: &Arc<Shared>,
    dir: &Arc<ServerDir>,
    server: ServerId,
    run: Run,
) -> Result<()> {
    cut_power(dir, server, run).await?;
    let deadline = Instant::now() + DEATH;
    let dissolve = || {
        let shared = Arc::clone(shared);
        blocking("removing a guest's scope", move || shared.scope.dissolve(server))
    };
    // A process lets go of its files, and so of its lock, a little earlier than of its group.
    while !dissolve().await? {
        if Instant::now() >= deadline {
            let message = "the server's end is not confirmed yet: try again later";
            return Err(Error::new(ErrorKind::Unavailable, message)
                .context(format!("processes are left in the scope of {server}")));
        }
        sleep(POLL).await;
    }
    let dir = Arc::clone(dir);
    blocking("deleting a server's directory", move || dir.delete()).await
}

/// Returns once no process runs the server. Its lock is free only when every thread that had its
/// files open is gone, so no I/O of it can follow either.
pub(super) async fn cut_power(dir: &Arc<ServerDir>, server: ServerId, run: Run) -> Result<()> {
    let deadline = Instant::now() + DEATH;
    let name = Arc::new(process_name(server, run));
    loop {
        let (looked_at, name) = (Arc::clone(dir), Arc::clone(&name));
        let look = move || match looked_at.is_held()? {
            true => Ok(Some(looked_at.process(&name)?)),
            false => Ok(None),
        };
        let Some(process) = blocking("finding a guest's process", look).await? else {
            return Ok(());
        };
        if let Some(process) = process {
            process.kill().map_err(|error| Error::internal("killing a guest").source(error))?;
            // Past the deadline the lock decides.
            let _ = timeout_at(deadline, process.exited()).await;
        }
        if Instant::now() >= deadline {
            let message = "the server's end is not confirmed yet: try again later";
            return Err(Error::new(ErrorKind::Unavailable, message)
                .context(format!("{} is still locked", dir.path().display())));
        }
        sleep(POLL).await;
    }
}

async fn launch(
    shared: &Arc<Shared>,
    dir: &Arc<ServerDir>,
    lock: File,
    spec: &ServerSpec,
    run: Run,
) -> Result<Guest> {
    let mut record = Record { run, stage: Stage::Starting, screen: None };
    if spec.screen.is_some() {
        let address = screen::free_address(spec.server, run);
        record.screen = Some(address.ok_or_else(|| {
            Error::new(ErrorKind::JobFailed, "this host has no free address for the screen")
                .context("something here listens on port 5900 of every address: end it")
        })?);
    }
    let launch = shared.vmm.launch(spec, run, record.screen)?;
    let here = Arc::clone(dir);
    blocking("recording a start", move || here.write_record(&record)).await?;
    let process = spawn(&shared.scope, dir, lock, spec, run, launch).await?;

    let mut qmp = connect(&*shared.vmm, dir, &process).await?;
    let failed = |failure: QmpError| Error::internal("starting a guest").source(failure);
    if let Some(password) = &spec.screen {
        let arguments = json!({ "protocol": "vnc", "password": password.expose() });
        qmp.execute("set_password", arguments).await.map_err(failed)?;
    }
    throttle(&mut qmp, &spec.drives).await.map_err(failed)?;
    record.stage = Stage::Released;
    let here = Arc::clone(dir);
    blocking("recording a run", move || here.write_record(&record)).await?;
    qmp.execute("cont", Value::Null).await.map_err(failed)?;
    Ok(Guest::follow(shared, spec.server, Arc::clone(dir), record, Some((qmp, process))))
}

/// The process of a run, just spawned and in its scope. Of its guest nothing runs yet.
pub(super) async fn spawn(
    scope: &Scope,
    dir: &Arc<ServerDir>,
    lock: File,
    spec: &ServerSpec,
    run: Run,
    launch: Launch,
) -> Result<Process> {
    let seed = spec.seed.as_ref().map(|seed| seed::disk(spec.server, seed)).transpose()?;
    let secrets: Vec<_> = spec
        .drives
        .iter()
        .filter_map(|slot| Some((secret(slot.device), borrowing(slot)?.secret.clone())))
        .collect();
    let (scope, here, server) = (scope.clone(), Arc::clone(dir), spec.server);
    let spawn = move || {
        let Launch { program, arguments, environment, files } = launch;
        if let Some(seed) = seed {
            here.write_private(SEED, &seed)?;
        }
        for (name, secret) in &secrets {
            here.write_private(name, secret.expose().as_bytes())?;
        }
        for (name, content) in &files {
            here.write_private(name, content)?;
        }
        let log = here.create_log()?;
        let child = scope
            .command(&format!("server {}", process_name(server, run)))
            .arg(program)
            .args(arguments)
            // The rest of the environment is not its business.
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .envs(environment)
            .current_dir(here.path())
            .stdin(Stdio::from(lock))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .spawn()?;
        let process = Process::of_child(&child)?;
        scope.enclose(&server.to_string(), &process)?;
        Ok(process)
    };
    blocking("starting a guest's process", spawn).await
}

/// The first connection to a process that is just starting.
pub(super) async fn connect(vmm: &dyn Vmm, dir: &Arc<ServerDir>, process: &Process) -> Result<Qmp> {
    let deadline = Instant::now() + FIRST_ANSWER;
    loop {
        let failure = match Qmp::connect(&dir.qmp_socket()).await {
            Ok(qmp) => return Ok(qmp),
            Err(failure) => failure,
        };
        let gone = process.has_exited();
        if gone
            .map_err(|error| Error::internal("watching a guest's process start").source(error))?
        {
            let here = Arc::clone(dir);
            let log =
                blocking("reading the log of a guest's process", move || here.log_tail()).await?;
            let unknown = "its host cannot run it: tell support if this persists";
            let reason = vmm.reason(&log).unwrap_or(unknown);
            return Err(Error::new(ErrorKind::JobFailed, reason)
                .context(format!("its process ended at once: {log}")));
        }
        if Instant::now() >= deadline {
            let message = "the server did not start in time: try again later";
            return Err(Error::new(ErrorKind::JobFailed, message).source(failure));
        }
        sleep(POLL).await;
    }
}
