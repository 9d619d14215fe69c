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

/// The task that `tiny` is given in the first 16 bytes of its second drive.
pub const ANSWER: [u8; 16] = *b"ES-TINY-ANSWER-1";

const BLOCK: usize = 512;
const NONCE: std::ops::Range<usize> = 16..48;
const DIGEST: std::ops::Range<usize> = BLOCK..BLOCK + 32;
const BOOT_ID: std::ops::Range<usize> = BLOCK + 32..BLOCK + 68;
const SECOND_DRIVE: usize = 4 << 20;

/// What the proof is made of. Anything but the default must fail it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The magic at the start of the second drive.
    pub magic: [u8; 16],
    /// What the boot drive holds.
    pub boot: Boot,
    /// How long all of it may take.
    pub within: Duration,
}

/// What the boot drive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// The standard drive `tiny`.
    Tiny,
    /// Zeros, as after create.
    Zeros,
}

impl Default for Plan {
    fn default() -> Self {
        Self { magic: ANSWER, boot: Boot::Tiny, within: Duration::from_secs(300) }
    }
}

/// What was made on the way, destroyed at the end whatever came of it.
#[derive(Debug, Default)]
pub struct Traces {
    server: Option<String>,
    drives: Vec<String>,
    /// The second drive as it was written.
    pub sent: Vec<u8>,
}

/// Runs the proof and prints each step with its time.
///
/// # Errors
/// What went wrong, with the end of the guest's serial log where there is one.
pub async fn run<T: Transport>(client: &Client<T>, plan: &Plan) -> anyhow::Result<()> {
    let mut traces = Traces::default();
    let proof = tokio::time::timeout(plan.within, prove(client, plan, &mut traces)).await;
    let outcome = match proof {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!(
            "no answer from the guest within {} s: see --seconds",
            plan.within.as_secs()
        )),
    };
    let outcome = match (outcome, &traces.server) {
        (Err(error), Some(server)) => {
            let serial = client.read(Call::ServerSerial, &[server]).await.unwrap_or_default();
            let tail = String::from_utf8_lossy(&serial[serial.len().saturating_sub(2_000)..]);
            Err(error.context(format!("the guest's serial log ends with:\n{tail}")))
        }
        (outcome, _) => outcome,
    };
    let cleaned = clean(client, &traces).await;
    outcome.and(cleaned)
}

/// Everything up to the right answer. Leaves in `traces` what it made.
///
/// # Errors
/// What went wrong.
pub async fn prove<T: Transport>(
    client: &Client<T>,
    plan: &Plan,
    traces: &mut Traces,
) -> anyhow::Result<()> {
    let mut steps = Steps::default();

    let boot = boot_drive(client, plan.boot, traces).await?;
    steps.done("the boot drive is created and imaged");

    let second = create_drive(client, "smoke second", SECOND_DRIVE as u64, traces).await?;
    let mut block = vec![0; BLOCK];
    block[..plan.magic.len()].copy_from_slice(&plan.magic);
    getrandom::fill(&mut block[NONCE]).map_err(|error| anyhow!("drawing a nonce: {error}"))?;
    let data = bytes::Bytes::copy_from_slice(&block);
    client.write(Call::DriveWrite, &[&second], data).await.context("writing the nonce")?;
    traces.sent.clone_from(&block);
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

    until(|| async {
        let info = client.one(Call::ServerInfo, &[&server], &Record::new()).await?;
        if let Some(failed) = info.value("failed") {
            bail!("the server failed: {failed}");
        }
        Ok(info.value("status") == Some("stopped"))
    })
    .await
    .context("waiting for the guest to power itself off")?;
    until(|| async {
        let info = client.one(Call::DriveInfo, &[&second], &Record::new()).await?;
        Ok(info.value("claimed").is_none())
    })
    .await
    .context("waiting for the claim to go")?;
    steps.done("the guest has powered itself off and its claims are gone");

    let read = client.read(Call::DriveRead, &[&second, "0", &SECOND_DRIVE.to_string()]).await?;
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

/// Reads the whole second drive of a proof that was expected to fail.
///
/// # Errors
/// If the drive can't be read.
pub async fn second_drive<T: Transport>(
    client: &Client<T>,
    traces: &Traces,
) -> anyhow::Result<bytes::Bytes> {
    let drive = traces.drives.last().context("no second drive was made")?;
    Ok(client.read(Call::DriveRead, &[drive, "0", &SECOND_DRIVE.to_string()]).await?)
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
    boot: Boot,
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
    if boot == Boot::Zeros {
        return Ok(drive);
    }
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
struct Steps {
    since: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self { since: Instant::now() }
    }
}

impl Steps {
    fn done(&mut self, what: &str) {
        println!("{:>7.2} s  {what}", self.since.elapsed().as_secs_f64());
        self.since = Instant::now();
    }
}
