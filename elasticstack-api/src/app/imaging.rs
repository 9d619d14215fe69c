//! Imaging: a job that copies one drive's bytes into another, on the host of the latter.
//!
//! ```text
//!  drive_image ──▶ job row + a claim on source and target ──▶ host works, reports hundredths
//!           their hosts differ: the source's lends it, for reading, to the target's, which works
//!  drive_download ──▶ the same with a file elsewhere, and a claim on the target only
//!  drive_sha256 ──▶ the same without a source: the target is read and not changed
//!  drive_clone ──▶ the same, with a new drive in the same transaction
//!  host: done or failed ──▶ claims released, job marked to be forgotten ──▶ host: gone ──▶ row gone
//! ```
//! Invariant: `imaging` and `claimed` vanish from the drive's record in one transaction, the one
//! that takes in the job's end; the target is claimed exclusively until then.

use elasticstack_core::block::borrower_of;
use elasticstack_core::hypervisor::Media;
use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveEvent, JobEvent, JobState};
use elasticstack_core::wire::internal::{
    Access, Conversion, Download, JobProgress, JobStatus, LentDrive, Sum,
};
use elasticstack_core::wire::keys::{self, Moment, Object, parse_size};
use elasticstack_core::wire::record::Record;

use super::access::{Wish, permitted};
use super::accounts::secret_key;
use super::drives::{NewDrive, in_use, record};
use super::rooms::{Look, Within};
use super::stock::heard;
use super::{App, Caller, new_id};
use crate::db::{ClaimRow, DriveRow, Holder, JobRow, OutboxRow, Subject, Summed, Writer};

impl App {
    /// Begins to image `target` from `source` and answers at once.
    ///
    /// # Errors
    /// `NotFound` for either; `InvalidValue` if the target is too small or the source itself;
    /// `DriveInUse`; `NotOffered` if they lie on different hosts and the source's does not lend.
    pub async fn drive_image(
        &self,
        caller: &Caller,
        target: DriveId,
        source: DriveId,
        conversion: Conversion,
    ) -> Result<Record> {
        let now = self.now();
        let job = new_id();
        let account = caller.account;
        self.intend(caller, Subject::Drive(target), |tx| {
            Box::pin(async move {
                let mut into = permitted(account, tx.drive(target).await?, Wish::Own)?;
                let mut from = permitted(account, tx.drive(source).await?, Wish::See)
                    .map_err(|error| error.field("source"))?;
                fitting(&from, &into, conversion)?;
                let source_epoch = claim(tx, &mut from, job, Access::Shared).await?;
                let target_epoch = claim(tx, &mut into, job, Access::Exclusive).await?;
                into.failed = None;
                tx.save_drive(&from).await?;
                tx.save_drive(&into).await?;
                if from.host != into.host {
                    lend(tx, &from, job, source_epoch).await?;
                }
                let epochs = (source_epoch, target_epoch);
                begin(tx, job, (&from, &into), epochs, conversion.into(), now).await
            })
        })
        .await?;
        self.imaged(account, target).await
    }

    /// Begins to image `target` from a file elsewhere, which its host fetches, and answers at once.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse`; `MissingKey` or `InvalidValue` for the wish. What is wrong with the
    /// file is told when the host has tried.
    pub async fn drive_download(
        &self,
        caller: &Caller,
        target: DriveId,
        wish: &Record,
    ) -> Result<Record> {
        let account = caller.account;
        permitted(account, self.db.glance().await?.drive(target).await?, Wish::Own)?;
        keys::check(Object::Download, Moment::Create, wish)?;
        let download = &Download { url: url_in(wish)?, sha256: given(wish, "sha256") };
        let conversion = match wish.value("format") {
            Some("gzip") => Conversion::Gunzip,
            _ => Conversion::None,
        };
        let (now, job) = (self.now(), new_id());
        self.intend(caller, Subject::Drive(target), |tx| {
            Box::pin(async move {
                let mut into = permitted(account, tx.drive(target).await?, Wish::Own)?;
                let epoch = claim(tx, &mut into, job, Access::Exclusive).await?;
                into.failed = None;
                tx.save_drive(&into).await?;
                let what = What { download: Some(download.clone()), ..conversion.into() };
                begin(tx, job, (&into, &into), (epoch, epoch), what, now).await
            })
        })
        .await?;
        self.imaged(account, target).await
    }

    /// Begins to make the SHA-256 of what a drive holds, and answers at once.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse`; `InvalidValue` for more bytes than the drive has. That it is
    /// another than was expected is told when the host has made it.
    pub async fn drive_sha256(
        &self,
        caller: &Caller,
        drive: DriveId,
        wish: &Record,
    ) -> Result<Record> {
        let account = caller.account;
        permitted(account, self.db.glance().await?.drive(drive).await?, Wish::Own)?;
        keys::check(Object::Sum, Moment::Create, wish)?;
        let expected = &given(wish, "sha256");
        let length = wish.value("size").and_then(parse_size);
        let (now, job) = (self.now(), new_id());
        self.intend(caller, Subject::Drive(drive), |tx| {
            Box::pin(async move {
                let mut row = permitted(account, tx.drive(drive).await?, Wish::Own)?;
                let length = length.unwrap_or(row.size);
                if length > row.size {
                    let (asked, has) = (length.get(), row.size.get());
                    let message = format!("{asked} bytes asked for: the drive has {has}");
                    return Err(Error::new(ErrorKind::InvalidValue, message).field("size"));
                }
                let epoch = claim(tx, &mut row, job, Access::Exclusive).await?;
                row.failed = None;
                tx.save_drive(&row).await?;
                let sum = Sum { length: length.get(), expected: expected.clone() };
                let what = What { sum: Some(sum), ..Conversion::None.into() };
                begin(tx, job, (&row, &row), (epoch, epoch), what, now).await
            })
        })
        .await?;
        self.imaged(account, drive).await
    }

    /// Forgets what was summed up of a drive, whose bytes are about to change.
    pub(super) async fn forget_sum(&self, drive: DriveId) -> Result<()> {
        self.db
            .write(|tx| {
                Box::pin(async move {
                    if let Some(mut row) = tx.drive(drive).await?
                        && row.summed.take().is_some()
                    {
                        tx.save_drive(&row).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// What is told of a drive that is being imaged.
    async fn imaged(&self, account: AccountId, target: DriveId) -> Result<Record> {
        let mut reader = self.db.read().await?;
        let row = permitted(account, reader.drive(target).await?, Wish::Own)?;
        record(&mut reader, account, &row).await
    }

    /// Makes a drive on the source's host and begins to image it from the source, both or neither.
    /// It waits until the drive is there, not until it is imaged.
    ///
    /// # Errors
    /// `NotFound` for the source; those of making a drive and of [`App::drive_image`].
    pub async fn drive_clone(
        &self,
        caller: &Caller,
        source: DriveId,
        wish: &Record,
        conversion: Conversion,
    ) -> Result<Record> {
        let account = caller.account;
        permitted(account, self.db.glance().await?.drive(source).await?, Wish::See)?;
        keys::check(Object::Drive, Moment::Create, wish)?;
        let new = &NewDrive::asked_for(account, wish)?;
        let change = new.authorize(self).await?;
        let (now, job) = (self.now(), new_id());
        let made = self
            .intend_placing(caller, Subject::Drive(new.drive), Look::Now, |tx, mut placing| {
                Box::pin(async move {
                    let mut from = permitted(account, tx.drive(source).await?, Wish::See)?;
                    let nearest = (&mut placing, &beside(&from)[..]);
                    let mut into = self.begin_drive(tx, new, nearest, now, change).await?;
                    fitting(&from, &into, conversion)?;
                    tx.save_drive(&into).await?;
                    let source_epoch = claim(tx, &mut from, job, Access::Shared).await?;
                    let target_epoch = hold(tx, &mut into, job, Access::Exclusive).await?;
                    tx.save_drive(&from).await?;
                    tx.save_drive(&into).await?;
                    let epochs = (source_epoch, target_epoch);
                    begin(tx, job, (&from, &into), epochs, conversion.into(), now).await?;
                    Ok(into)
                })
            })
            .await?;
        let row = self.await_drive(made).await?;
        record(&mut self.db.read().await?, account, &row).await
    }
}

/// Where to look for a place for a drive that becomes what `from` holds, best first: its array,
/// where copying may share its blocks, then its host, which imaging does not leave.
const fn beside(from: &DriveRow) -> [Within; 2] {
    [Within::Array(from.host, from.array), Within::Host(from.host)]
}

/// What a job is to do.
struct What {
    conversion: Conversion,
    download: Option<Download>,
    sum: Option<Sum>,
}

impl From<Conversion> for What {
    fn from(conversion: Conversion) -> Self {
        Self { conversion, download: None, sum: None }
    }
}

/// Makes the row of a job that holds its drives, and has their host told.
async fn begin(
    tx: &mut Writer<'_>,
    job: JobId,
    (from, into): (&DriveRow, &DriveRow),
    (source_epoch, target_epoch): (Epoch, Epoch),
    what: What,
    now: Timestamp,
) -> Result<()> {
    let What { conversion, download, sum } = what;
    let row = JobRow {
        job,
        host: into.host,
        source: from.drive,
        source_epoch,
        target: into.drive,
        target_epoch,
        conversion,
        download,
        sum,
        state: JobState::Running,
        since: now,
        generation: 1,
        percent: None,
    };
    tx.save_job(&row).await?;
    tx.queue(row.host, OutboxRow::Job(job), row.generation).await
}

/// What a wish says of a key, if anything.
fn given(wish: &Record, key: &str) -> Option<String> {
    wish.value(key).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// The address in a wish for a download that was checked.
fn url_in(wish: &Record) -> Result<Secret> {
    wish.value("url").map(Secret::new).ok_or_else(|| keys::missing(Object::Download, "url"))
}

/// Refuses a pair of drives that can't be imaged from one to the other.
fn fitting(from: &DriveRow, into: &DriveRow, conversion: Conversion) -> Result<()> {
    if from.drive == into.drive {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            "a drive cannot be imaged from itself: name another source",
        )
        .field("source"));
    }
    let rawsize = from.standard.as_ref().and_then(|standard| standard.rawsize);
    let least = match conversion {
        Conversion::None => Some(from.size),
        Conversion::Gunzip => rawsize,
        // How large the disk is stands in the image: its host refuses what does not fit.
        Conversion::Gzip | Conversion::Qcow2 | Conversion::Vmdk => None,
    };
    match least.filter(|least| *least > into.size) {
        Some(least) => Err(Error::new(
            ErrorKind::InvalidValue,
            format!(
                "the drive is too small: the source needs {} bytes, the drive has {}: set its size",
                least.get(),
                into.size.get()
            ),
        )
        .field("size")),
        None => Ok(()),
    }
}

/// Has a drive that a job has claimed lent to it, for reading, by the host that the drive lies on.
async fn lend(tx: &mut Writer<'_>, drive: &DriveRow, job: JobId, epoch: Epoch) -> Result<()> {
    if tx.host(drive.host).await?.and_then(|host| host.portal).is_none() {
        let why = "the drives lie on different hosts, and the source's lends none: clone the source \
                   instead, as a clone is made beside it";
        return Err(Error::new(ErrorKind::NotOffered, why));
    }
    let (server, secret) = (borrower_of(job), secret_key()?);
    let (access, media) = (Access::Shared, Media::Cdrom);
    let lent = LentDrive { server, epoch, access, media, secret };
    tx.lend_for_claim(drive.drive, Holder::Job(job), &lent).await
}

/// Claims a drive for a job. The caller saves the drive's row.
async fn claim(
    tx: &mut Writer<'_>,
    drive: &mut DriveRow,
    job: JobId,
    access: Access,
) -> Result<Epoch> {
    drive.state.step(DriveEvent::Use)?;
    heard(tx, drive.host).await?;
    let claims = tx.claims_on(drive.drive).await?;
    if !tolerated(&claims, access) {
        return Err(in_use(&claims, "imaged"));
    }
    hold(tx, drive, job, access).await
}

/// Claims a drive that nobody else can hold. The caller has saved its row, and saves it again.
async fn hold(
    tx: &mut Writer<'_>,
    drive: &mut DriveRow,
    job: JobId,
    access: Access,
) -> Result<Epoch> {
    drive.epoch = drive.epoch.next();
    if access == Access::Exclusive {
        drive.summed = None;
    }
    let row = ClaimRow {
        drive: drive.drive,
        holder: Holder::Job(job),
        epoch: drive.epoch,
        access,
        lent: None,
    };
    tx.insert_claim(&row).await?;
    Ok(drive.epoch)
}

/// Whether a claim of this access may stand beside these.
pub(super) fn tolerated(claims: &[ClaimRow], access: Access) -> bool {
    let shared = |access| access == Access::Shared;
    claims.is_empty() || (shared(access) && claims.iter().all(|claim| shared(claim.access)))
}

/// Takes in what a host says of a job. `false` if it was old or not about anything known.
pub(super) async fn reported(
    tx: &mut Writer<'_>,
    host: HostId,
    status: &JobStatus,
    now: Timestamp,
) -> Result<bool> {
    let Some(before) = tx.job(status.job).await?.filter(|row| row.host == host) else {
        return Ok(false);
    };
    if status.gone {
        if before.state == JobState::Running {
            return Ok(false);
        }
        tx.delete_job(before.job).await?;
        tx.unqueue(host, OutboxRow::Job(before.job), before.generation).await?;
        return Ok(true);
    }
    let event = match &status.state {
        JobProgress::Queued | JobProgress::Running(_) => JobEvent::ReportedRunning,
        JobProgress::Done | JobProgress::Summed(_) => JobEvent::ReportedDone,
        JobProgress::Failed(_) => JobEvent::ReportedFailed,
    };
    let mut row = before.clone();
    row.state = before.state.step(event).after(before.state);
    if row.state == JobState::Running {
        row.percent = match status.state {
            JobProgress::Running(percent) => Some(percent.min(100)),
            _ => None,
        };
    } else if before.state == JobState::Running {
        row.generation += 1;
        tx.delete_claims_of(Holder::Job(row.job)).await?;
        tx.queue(host, OutboxRow::Job(row.job), row.generation).await?;
        if let Some(mut target) = tx.drive(row.target).await? {
            match (&status.state, &row.sum) {
                (JobProgress::Failed(fault), _) => target.failed = Some(fault.message.clone()),
                (JobProgress::Summed(sha256), Some(sum)) => {
                    let length = Bytes::try_from(sum.length).unwrap_or(target.size);
                    target.summed = Some(Summed { sha256: sha256.clone(), length });
                }
                _ => {}
            }
            tx.save_drive(&target).await?;
        }
    }
    if row != before {
        row.since = now;
        tx.save_job(&row).await?;
    }
    Ok(true)
}
