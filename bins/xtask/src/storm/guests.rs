//! The guests of a storm, each with a part, and the judgement of what they left on their drives.
//!
//! | part | what | what must come of it |
//! |---|---|---|
//! | steady | appends for ever, never touched after its start | one boot, still appending |
//! | ender | powers itself off while its agent is dead; persistent | one boot, every record, stopped, not resurrected |
//! | vanisher | powers itself off at any time; not persistent | one boot, every record, gone, its drives stay |
//! | churned | two servers on one trail, started and stopped all the time | one writer at a time, no more boots than starts |

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use elasticstack_core::wire::calls::Call;

use super::customer::{Customer, Plan};
use super::ledger::{Answer, Fate, Keeping, Kind, Ledger, Ran};
use super::platform::Site;
use super::trail::{self, Segment};
use super::wait::until;

const MEMORY: u32 = 256;
const TRAIL: u64 = 4 << 20;
/// How many records the ender writes: 10 a second on an idle machine, 2 or 3 in a storm.
pub(crate) const ENDER_RECORDS: u64 = 60;
const VANISHER_RECORDS: u64 = 20;
/// The two servers that share the churned trail.
pub(crate) const CHURNED: [&str; 2] = ["churn-a", "churn-b"];
pub(crate) const ENDER: &str = "ender";
const STEADY: [&str; 2] = ["steady-a", "steady-b"];
const VANISHER: &str = "vanisher";

/// The image that the guests boot.
#[derive(Debug, Clone)]
pub(crate) struct Tiny {
    packed: PathBuf,
    rawsize: u64,
    /// The id of the standard drive, where the product publishes it.
    pub(crate) standard: String,
}

impl Tiny {
    /// Reads the manifest beside the image.
    pub(crate) fn read(packed: &Path) -> Result<Self> {
        let manifest = fs::read(packed.with_extension("json")).context("read tiny's manifest")?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
        let rawsize = manifest.get("rawsize").and_then(serde_json::Value::as_u64);
        let standard = manifest.get("drive").and_then(serde_json::Value::as_str);
        Ok(Self {
            packed: packed.to_owned(),
            rawsize: rawsize.context("tiny's manifest has no rawsize")?,
            standard: standard.context("tiny's manifest has no drive")?.to_owned(),
        })
    }
}

/// All guests of a storm.
#[derive(Debug)]
pub(crate) struct Cast {
    steady: Vec<Trail>,
    pub(crate) ender: Trail,
    vanisher: Trail,
    pub(crate) churned: Trail,
}

/// A drive that guests append to.
#[derive(Debug)]
pub(crate) struct Trail {
    name: String,
    drive: String,
    file: PathBuf,
    task: Vec<u8>,
}

/// What the guests left.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Left {
    /// Records of the steady guests.
    pub(crate) steady: u64,
    /// Boots and starts of the churned ones.
    pub(crate) boots: u64,
    pub(crate) starts: u64,
}

impl Cast {
    /// Makes the guests' drives from `tiny`, and starts them; of the churned, the first.
    pub(crate) async fn enter(customer: &Customer, site: &Site, tiny: &Tiny) -> Result<Self> {
        let packed = fs::read(&tiny.packed).context("read tiny")?;
        let source = customer.first_drive("tiny", u64::try_from(packed.len())?).await?;
        customer.write(&source, packed).await?;
        let mut boot = Vec::new();
        for name in STEADY.iter().chain(&CHURNED).chain(&[ENDER, VANISHER]) {
            let drive = made(customer.create_drive(&format!("{name}-boot"), tiny.rawsize).await?)?;
            made(customer.image(Call::DriveImageGunzip, &drive, &source).await?)?;
            boot.push((*name, drive));
        }
        let trail = async |name: &str, records: u64| -> Result<Trail> {
            let drive = made(customer.create_drive(&format!("{name}-trail"), TRAIL).await?)?;
            let task = trail::task(records);
            customer.write(&drive, task.clone()).await?;
            Ok(Trail { name: name.to_owned(), file: site.raw(&drive), drive, task })
        };
        let cast = Self {
            steady: vec![trail(STEADY[0], 0).await?, trail(STEADY[1], 0).await?],
            ender: trail(ENDER, ENDER_RECORDS).await?,
            vanisher: trail(VANISHER, VANISHER_RECORDS).await?,
            churned: trail("churn", 0).await?,
        };
        until("the boot drives are imaged", async || {
            let Answer::Done(drives) = customer.list(Call::DrivesInfo).await? else {
                return Ok(Some("no answer".to_owned()));
            };
            if let Some(failed) = drives.iter().find_map(|drive| drive.value("failed")) {
                bail!("imaging a boot drive failed: {failed}");
            }
            let imaging = drives.iter().find(|drive| drive.value("imaging").is_some());
            Ok(imaging.map(|drive| format!("{:?}", drive.value("name"))))
        })
        .await?;
        for (name, boot) in &boot {
            let (trail, keeping, first) = match *name {
                ENDER => (&cast.ender, Keeping::Persistent, Fate::Active),
                VANISHER => (&cast.vanisher, Keeping::Vanishing, Fate::Active),
                steady if steady == STEADY[0] => {
                    (&cast.steady[0], Keeping::Persistent, Fate::Active)
                }
                steady if steady == STEADY[1] => {
                    (&cast.steady[1], Keeping::Persistent, Fate::Active)
                }
                first if first == CHURNED[0] => (&cast.churned, Keeping::Persistent, Fate::Active),
                _ => (&cast.churned, Keeping::Persistent, Fate::Stopped),
            };
            let drives = [boot.as_str(), trail.drive.as_str()];
            let plan = Plan { name, drives: &drives, memory: MEMORY, keeping, first };
            made(customer.create_server(&plan).await?)?;
        }
        // These two end themselves: that is how they must be found.
        let mut ledger = customer.ledger();
        for (name, fate) in [(ENDER, Fate::Stopped), (VANISHER, Fate::Absent)] {
            if let Some(entry) = ledger.entries.get_mut(name) {
                entry.may = [fate].into();
            }
        }
        drop(ledger);
        Ok(cast)
    }

    /// Waits until every steady guest has written more.
    pub(crate) async fn until_growing(&self) -> Result<()> {
        for trail in &self.steady {
            let before = trail.length()?;
            until(&format!("{} writes on", trail.name), async || {
                Ok((trail.length()? <= before).then(|| format!("it has {before} records")))
            })
            .await?;
        }
        Ok(())
    }

    /// The drives that all of them append to, which are there from before the storm to its end.
    pub(crate) fn trails(&self) -> impl Iterator<Item = &str> {
        let others = [&self.ender, &self.vanisher, &self.churned];
        self.steady.iter().chain(others).map(|trail| trail.drive.as_str())
    }

    /// Judges every trail, once no guest runs any more.
    pub(crate) fn judge(&self, ledger: &mut Ledger) -> Result<Left> {
        let mut left = Left::default();
        for trail in &self.steady {
            left.steady += trail.one_boot()?;
        }
        for (trail, wanted) in [(&self.ender, ENDER_RECORDS), (&self.vanisher, VANISHER_RECORDS)] {
            let records = trail.one_boot()?;
            ensure!(records == wanted, "{} wrote {records} records of {wanted}", trail.name);
            let kind = ledger.entries.get_mut(&trail.name).map(|entry| &mut entry.kind);
            if let Some(Kind::Server { ran, .. }) = kind {
                *ran = Ran::Seen;
            }
        }
        left.boots = u64::try_from(self.churned.boots()?.len())?;
        for name in CHURNED {
            if let Some(Kind::Server { starts, .. }) =
                ledger.entries.get(name).map(|entry| &entry.kind)
            {
                left.starts += starts;
            }
        }
        let Left { boots, starts, .. } = left;
        ensure!(boots <= starts, "the churned guests booted {boots} times in {starts} starts");
        Ok(left)
    }
}

impl Trail {
    /// How many records it has now.
    pub(crate) fn length(&self) -> Result<u64> {
        trail::length(&self.file)
    }

    /// Whether a second boot is seen to have written.
    pub(crate) fn has_booted_again(&self) -> bool {
        self.boots().is_ok_and(|boots| boots.len() > 1)
    }

    fn boots(&self) -> Result<Vec<Segment>> {
        let bytes = fs::read(&self.file).with_context(|| format!("read {}", self.name))?;
        trail::read(&bytes, &self.task)
            .with_context(|| format!("the trail of {}, {}", self.name, self.file.display()))
    }

    /// The records of its only boot.
    fn one_boot(&self) -> Result<u64> {
        match self.boots()?.as_slice() {
            [boot] => Ok(boot.records),
            boots => bail!("{} must have booted once, its trail shows {boots:?}", self.name),
        }
    }
}

/// What must succeed while nobody is killed.
pub(crate) fn made<T>(answer: Answer<T>) -> Result<T> {
    match answer {
        Answer::Done(done) => Ok(done),
        answer => bail!("nobody was killed, yet: {}", answer.obstacle().unwrap_or_default()),
    }
}
