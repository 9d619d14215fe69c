//! The proof that all of it works, as a customer sees it: over HTTP only, on a real guest.
//!
//! A server boots a standard drive and finds a nonce on its second drive; the guest itself writes
//! back SHA-256(nonce ‖ its boot id) and powers itself off. Nobody but a guest that really booted,
//! read and wrote can produce that answer. The layout of the second drive is in `docs/tiny.md`. The
//! drive `tiny` does the task by itself; one with cloud-init is told to (`first_boot`).

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use sha2::{Digest as _, Sha256};

use crate::demo::say;
use crate::first_boot;

/// The task that `tiny` is given in the first 16 bytes of its second drive.
pub const ANSWER: [u8; 16] = *b"ES-TINY-ANSWER-1";

const BLOCK: usize = 512;
const NONCE: std::ops::Range<usize> = 16..48;
const DIGEST: std::ops::Range<usize> = BLOCK..BLOCK + 32;
const BOOT_ID: std::ops::Range<usize> = BLOCK + 32..BLOCK + 68;
const SECOND_DRIVE: usize = 4 << 20;

/// Which guest proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prover {
    /// The standard drive `tiny`, which knows the task.
    Tiny,
    /// The standard drive of this id, whose cloud-init is told what to do.
    CloudInit(String),
}

/// What was made on the way, destroyed at the end whatever came of it.
#[derive(Debug, Default)]
pub struct Traces {
    server: Option<String>,
    drives: Vec<String>,
}

/// A task that a guest was given.
#[derive(Debug)]
pub struct Task {
    /// The server.
    pub server: String,
    /// Its second drive.
    pub second: String,
    /// What the second drive was given to begin with; behind it are zeros.
    pub block: Vec<u8>,
}

/// How long a proof that is given up may take to end the call it is at, and how long to tell why
/// and to clean up.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Runs the proof and prints each step with its time. It is given up once `stop` completes, and
/// what it made is destroyed whatever came of it.
///
/// # Errors
/// What went wrong, with the end of the guest's serial log where there is one.
pub async fn run<T: Transport, E: Into<anyhow::Error>>(
    client: &Client<T>,
    prover: &Prover,
    stop: impl Future<Output = E>,
) -> anyhow::Result<()> {
    let mut traces = Traces::default();
    let mut steps = Steps::default();
    let given_up = Arc::clone(&steps.given_up);
    let outcome = {
        let mut proof = pin!(prove(client, prover, &mut traces, &mut steps));
        tokio::select! {
            outcome = &mut proof => outcome,
            why = stop => {
                // Not dropped: what the call under way makes would be nobody's to destroy.
                given_up.store(true, Ordering::Relaxed);
                let _ = tokio::time::timeout(LAST_WORDS, proof).await;
                Err(why.into())
            }
        }
    };
    let last_words = async {
        let outcome = match (outcome, &traces.server) {
            (Err(error), Some(server)) => Err(with_serial_log(client, server, error).await),
            (outcome, _) => outcome,
        };
        let cleaned = clean(client, &traces).await;
        outcome.and(cleaned)
    };
    tokio::time::timeout(LAST_WORDS, last_words).await.unwrap_or_else(|_| {
        Err(anyhow!("what the proof made could not be destroyed within {LAST_WORDS:?}"))
    })
}

async fn with_serial_log<T: Transport>(
    client: &Client<T>,
    server: &str,
    error: anyhow::Error,
) -> anyhow::Error {
    match client.read(Call::ServerSerial, &[server]).await {
        Ok(log) if log.is_empty() => error.context("the guest wrote nothing to its serial port"),
        Ok(log) => {
            let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(2_000)..]);
            error.context(format!("the guest's serial log ends with:\n{tail}"))
        }
        Err(unread) => error.context(format!("the guest's serial log can't be read: {unread}")),
    }
}

/// Everything up to the right answer. Leaves in `traces` what it made.
async fn prove<T: Transport>(
    client: &Client<T>,
    prover: &Prover,
    traces: &mut Traces,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let task = match prover {
        Prover::Tiny => give(client, ANSWER, traces, steps).await?,
        Prover::CloudInit(drive) => first_boot::give(client, drive, traces, steps).await?,
    };
    judge(client, &task, steps).await
}

/// Makes a server that boots `tiny` and has a second drive which begins with `magic` and a nonce.
///
/// # Errors
/// What the API says.
pub async fn give<T: Transport>(
    client: &Client<T>,
    magic: [u8; 16],
    traces: &mut Traces,
    steps: &mut Steps,
) -> anyhow::Result<Task> {
    let standard = client.many(Call::DrivesInfoStandard).await.context("listing images")?;
    let tiny = standard
        .iter()
        .find(|drive| drive.value("name").is_some_and(|name| name.contains("tiny")))
        .context("there is no standard drive named tiny")?;
    let boot = boot_drive(client, tiny, Bytes::ZERO, traces, steps).await?;
    let (second, block) = second_drive(client, magic, traces, steps).await?;
    let record = hardware(&boot).with("ide:0:1", &second);
    let server = create_server(client, &record, traces, steps).await?;
    Ok(Task { server, second, block })
}

/// Makes the drive with the task: `magic` and a nonce. Answers its id and its first block.
pub(crate) async fn second_drive<T: Transport>(
    client: &Client<T>,
    magic: [u8; 16],
    traces: &mut Traces,
    steps: &mut Steps,
) -> anyhow::Result<(String, Vec<u8>)> {
    let second = create_drive(client, "smoke second", SECOND_DRIVE as u64, traces).await?;
    let mut block = vec![0; BLOCK];
    block[..magic.len()].copy_from_slice(&magic);
    getrandom::fill(&mut block[NONCE]).map_err(|error| anyhow!("drawing a nonce: {error}"))?;
    let data = bytes::Bytes::copy_from_slice(&block);
    client.write(Call::DriveWrite, &[&second], data).await.context("writing the nonce")?;
    steps.done("the nonce is written to the second drive")?;
    Ok((second, block))
}

/// A server as customers of old make it, booting from `boot`.
pub(crate) fn hardware(boot: &str) -> Record {
    Record::new()
        .with("name", "smoke")
        .with("cpu", 2_000)
        .with("mem", 1_024)
        .with("smp", "auto")
        .with("persistent", true)
        .with("ide:0:0", boot)
        .with("boot", "ide:0:0")
        .with("nic:0:model", "e1000")
        .with("nic:0:dhcp", "auto")
}

/// Makes the server and answers its id once it runs.
pub(crate) async fn create_server<T: Transport>(
    client: &Client<T>,
    record: &Record,
    traces: &mut Traces,
    steps: &mut Steps,
) -> anyhow::Result<String> {
    let info = client.one(Call::ServerCreate, &[], record).await.context("creating the server")?;
    let server = info.value("server").context("the new server has no id")?.to_owned();
    traces.server = Some(server.clone());
    steps.done("the server is created and started")?;
    Ok(server)
}

/// Waits until the guest has powered itself off and its claims are gone, then reads its answer.
///
/// # Errors
/// What the API says, or what is wrong with the answer.
pub async fn judge<T: Transport>(
    client: &Client<T>,
    task: &Task,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let Task { server, second, block } = task;
    until(steps, || async {
        let info = client.one(Call::ServerInfo, &[server], &Record::new()).await?;
        if let Some(failed) = info.value("failed") {
            bail!("the server failed: {failed}");
        }
        Ok(info.value("status") == Some("stopped"))
    })
    .await
    .context("waiting for the guest to power itself off")?;
    until(steps, || async {
        let info = client.one(Call::DriveInfo, &[second], &Record::new()).await?;
        Ok(info.value("claimed").is_none())
    })
    .await
    .context("waiting for the claim to go")?;
    steps.done("the guest has powered itself off and its claims are gone")?;

    let read = client.read(Call::DriveRead, &[second, "0", &SECOND_DRIVE.to_string()]).await?;
    ensure!(read.len() == SECOND_DRIVE, "read {} bytes of the second drive", read.len());
    ensure!(read[..BLOCK] == block[..], "the guest changed the block that it was given");
    let digest = Sha256::new().chain_update(&block[NONCE]).chain_update(&read[BOOT_ID]).finalize();
    ensure!(
        read[DIGEST] == digest[..],
        "the guest's answer is wrong: boot id {:?}",
        String::from_utf8_lossy(&read[BOOT_ID])
    );
    steps.done("the guest's answer is right")
}

/// Destroys what a proof made.
///
/// # Errors
/// If something can't be destroyed.
pub async fn clean<T: Transport>(client: &Client<T>, traces: &Traces) -> anyhow::Result<()> {
    let steps = Steps::default();
    if let Some(server) = &traces.server {
        client.act(Call::ServerDestroy, &[server]).await.context("destroying the server")?;
    }
    for drive in &traces.drives {
        until(&steps, || async {
            match client.act(Call::DriveDestroy, &[drive]).await {
                Ok(()) => Ok(true),
                Err(busy) if busy.kind() == ErrorKind::DriveInUse => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
        .context("destroying a drive")?;
    }
    Ok(())
}

/// Makes a drive of what a standard drive holds, with this much room beside it.
pub(crate) async fn boot_drive<T: Transport>(
    client: &Client<T>,
    standard: &Record,
    room: Bytes,
    traces: &mut Traces,
    steps: &mut Steps,
) -> anyhow::Result<String> {
    let source = standard.value("drive").context("the standard drive has no id")?;
    let size = standard.value("rawsize").context("the standard drive has no rawsize")?;
    let size = size.parse::<u64>()?.saturating_add(room.get());
    let drive = create_drive(client, "smoke boot", size, traces).await?;
    steps.go_on()?;
    client
        .one(Call::DriveImageGunzip, &[&drive, source], &Record::new())
        .await
        .context("imaging the boot drive")?;
    until(steps, || async {
        let info = client.one(Call::DriveInfo, &[&drive], &Record::new()).await?;
        if let Some(failed) = info.value("failed") {
            bail!("imaging failed: {failed}");
        }
        Ok(info.value("imaging").is_none() && info.value("claimed").is_none())
    })
    .await?;
    steps.done("the boot drive is created and imaged")?;
    Ok(drive)
}

async fn create_drive<T: Transport>(
    client: &Client<T>,
    name: &str,
    size: u64,
    traces: &mut Traces,
) -> anyhow::Result<String> {
    let record = Record::new().with("name", name).with("size", size);
    let info = client.one(Call::DriveCreate, &[], &record).await.context("creating a drive")?;
    let drive = info.value("drive").context("the new drive has no id")?.to_owned();
    traces.drives.push(drive.clone());
    Ok(drive)
}

/// Asks every quarter of a second; the proof as a whole is what is bounded.
async fn until<F, Fut>(steps: &Steps, mut holds: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    while !holds().await? {
        steps.go_on()?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

/// Prints what is done and how long it took, and asks between calls whether to go on.
#[derive(Debug)]
pub struct Steps {
    since: Instant,
    given_up: Arc<AtomicBool>,
}

impl Default for Steps {
    fn default() -> Self {
        Self { since: Instant::now(), given_up: Arc::default() }
    }
}

impl Steps {
    fn done(&mut self, what: &str) -> anyhow::Result<()> {
        say(format_args!("{:>7.2} s  {what}", self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
        self.go_on()
    }

    fn go_on(&self) -> anyhow::Result<()> {
        ensure!(!self.given_up.load(Ordering::Relaxed), "given up");
        Ok(())
    }
}
