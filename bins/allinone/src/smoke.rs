//! The proof that all of it works, as a customer sees it: over HTTP only, on a real guest.
//!
//! A server boots the standard drive `tiny` and finds a nonce on its second drive; the guest
//! itself writes back SHA-256(nonce ‖ its boot id) and powers itself off. Nobody but a guest that
//! really booted, read and wrote can produce that answer. The layout of the second drive is in
//! `docs/tiny.md`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use sha2::{Digest as _, Sha256};

use crate::demo::say;

/// The task that `tiny` is given in the first 16 bytes of its second drive.
pub const ANSWER: [u8; 16] = *b"ES-TINY-ANSWER-1";

const BLOCK: usize = 512;
const NONCE: std::ops::Range<usize> = 16..48;
const DIGEST: std::ops::Range<usize> = BLOCK..BLOCK + 32;
const BOOT_ID: std::ops::Range<usize> = BLOCK + 32..BLOCK + 68;
const SECOND_DRIVE: usize = 4 << 20;

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

/// How long a proof that failed may take to tell why and to clean up.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// Runs the proof and prints each step with its time. It is given up once `stop` completes, and
/// what it made is destroyed whatever came of it.
///
/// # Errors
/// What went wrong, with the end of the guest's serial log where there is one.
pub async fn run<T: Transport, E: Into<anyhow::Error>>(
    client: &Client<T>,
    stop: impl Future<Output = E>,
) -> anyhow::Result<()> {
    let mut traces = Traces::default();
    let outcome = tokio::select! {
        outcome = prove(client, &mut traces) => outcome,
        given_up = stop => Err(given_up.into()),
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
async fn prove<T: Transport>(client: &Client<T>, traces: &mut Traces) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let task = give(client, ANSWER, traces, &mut steps).await?;
    judge(client, &task, &mut steps).await
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
    let boot = boot_drive(client, traces).await?;
    steps.done("the boot drive is created and imaged");

    let second = create_drive(client, "smoke second", SECOND_DRIVE as u64, traces).await?;
    let mut block = vec![0; BLOCK];
    block[..magic.len()].copy_from_slice(&magic);
    getrandom::fill(&mut block[NONCE]).map_err(|error| anyhow!("drawing a nonce: {error}"))?;
    let data = bytes::Bytes::copy_from_slice(&block);
    client.write(Call::DriveWrite, &[&second], data).await.context("writing the nonce")?;
    steps.done("the nonce is written to the second drive");

    let record = Record::new()
        .with("name", "smoke")
        .with("cpu", 2_000)
        .with("mem", 1_024)
        .with("smp", "auto")
        .with("persistent", true)
        .with("ide:0:0", &boot)
        .with("ide:0:1", &second)
        .with("boot", "ide:0:0")
        .with("nic:0:model", "e1000")
        .with("nic:0:dhcp", "auto");
    let info = client.one(Call::ServerCreate, &[], &record).await.context("creating the server")?;
    let server = info.value("server").context("the new server has no id")?.to_owned();
    traces.server = Some(server.clone());
    steps.done("the server is created and started");
    Ok(Task { server, second, block })
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
    until(|| async {
        let info = client.one(Call::ServerInfo, &[server], &Record::new()).await?;
        if let Some(failed) = info.value("failed") {
            bail!("the server failed: {failed}");
        }
        Ok(info.value("status") == Some("stopped"))
    })
    .await
    .context("waiting for the guest to power itself off")?;
    until(|| async {
        let info = client.one(Call::DriveInfo, &[second], &Record::new()).await?;
        Ok(info.value("claimed").is_none())
    })
    .await
    .context("waiting for the claim to go")?;
    steps.done("the guest has powered itself off and its claims are gone");

    let read = client.read(Call::DriveRead, &[second, "0", &SECOND_DRIVE.to_string()]).await?;
    ensure!(read.len() == SECOND_DRIVE, "read {} bytes of the second drive", read.len());
    ensure!(read[..BLOCK] == block[..], "the guest changed the block that it was given");
    let digest = Sha256::new().chain_update(&block[NONCE]).chain_update(&read[BOOT_ID]).finalize();
    ensure!(
        read[DIGEST] == digest[..],
        "the guest's answer is wrong: boot id {:?}",
        String::from_utf8_lossy(&read[BOOT_ID])
    );
    steps.done("the guest's answer is right");
    Ok(())
}

/// Destroys what a proof made.
///
/// # Errors
/// If something can't be destroyed.
pub async fn clean<T: Transport>(client: &Client<T>, traces: &Traces) -> anyhow::Result<()> {
    if let Some(server) = &traces.server {
        client.act(Call::ServerDestroy, &[server]).await.context("destroying the server")?;
    }
    for drive in &traces.drives {
        until(|| async {
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

async fn boot_drive<T: Transport>(
    client: &Client<T>,
    traces: &mut Traces,
) -> anyhow::Result<String> {
    let standard = client.many(Call::DrivesInfoStandard).await.context("listing images")?;
    let tiny = standard
        .iter()
        .find(|drive| drive.value("name").is_some_and(|name| name.contains("tiny")))
        .context("there is no standard drive named tiny")?;
    let source = tiny.value("drive").context("the standard drive has no id")?;
    let size = tiny.value("rawsize").context("the standard drive has no rawsize")?;
    let drive = create_drive(client, "smoke boot", size.parse()?, traces).await?;
    client
        .one(Call::DriveImageGunzip, &[&drive, source], &Record::new())
        .await
        .context("imaging the boot drive")?;
    until(|| async {
        let info = client.one(Call::DriveInfo, &[&drive], &Record::new()).await?;
        if let Some(failed) = info.value("failed") {
            bail!("imaging failed: {failed}");
        }
        Ok(info.value("imaging").is_none() && info.value("claimed").is_none())
    })
    .await?;
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
async fn until<F, Fut>(mut holds: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    while !holds().await? {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

/// Prints what is done and how long it took.
#[derive(Debug)]
pub struct Steps {
    since: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { since: Instant::now() }
    }
}

impl Steps {
    fn done(&mut self, what: &str) {
        say(format_args!("{:>7.2} s  {what}", self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }
}
