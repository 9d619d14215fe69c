//! Jobs: makes one drive hold what another holds, here or on another host, or a file elsewhere; sums
//! a drive up.
//!
//! ```text
//!  waits for its drives ──▶ waits its turn ──▶ copies ──▶ end recorded ──▶ drives released
//! ```
//! Invariants: all of its drives that are here are held from the first turn to the end; a job ends once, and is done
//! only after its target is durable; one that was cut off, or whose source was, begins again from zero.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Borrowing, Cloned, LendId, Volume, Writers, borrower_of};
use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::generation::Epoch;
use elasticstack_core::id::{DriveId, JobId};
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::internal::{
    Access, Conversion, Fault, JobDocument, JobProgress, JobStatus, Lender, ObjectStatus, Sum,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::open::{Patience, Verdict, open};
use super::revocable::Revocable;
use super::{Rest, Work};
use crate::agent::{Holder, Host, JobEnd, claims_of};
use crate::image;

/// How long a source on another host may be away: that host may be restarting.
const AWAY: Duration = Duration::from_secs(600);

/// The work on one job.
pub(super) struct JobWork {
    host: Arc<Host>,
    job: JobId,
    /// Tells of a new document while it copies.
    wake: Arc<Notify>,
    patience: Patience,
    /// Since when the source on another host can't be read.
    away: Option<Instant>,
}

/// Why a job is not done after this pass.
enum Delay {
    /// Its drives can't be opened yet.
    NotYet,
    /// It was taken back, or the agent closes.
    Revoked,
    /// It never will be.
    Failed(Error),
}

impl From<Error> for Delay {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

#[async_trait]
impl Work for JobWork {
    async fn pass(&mut self) -> Result<Rest> {
        loop {
            let Some(record) = self.host.jobs.get(self.job) else {
                return Ok(Rest::Finished);
            };
            let document = &record.document;
            if document.gone || record.facts.end.is_some() {
                self.host.release(Holder::Job(self.job));
                self.publish(document, progress_at_end(record.facts.end.clone()));
                return Ok(Rest::Idle);
            }
            if self.host.closing.is_cancelled() {
                return Ok(Rest::Idle);
            }
            let host = Arc::clone(&self.host);
            let held = host.take(Holder::Job(self.job), &claims_of(document));
            let Some(_turn) = held.ok().and_then(|()| host.turn(document)) else {
                self.publish(document, JobProgress::Queued);
                return Ok(Rest::Stirred);
            };
            self.publish(document, JobProgress::Running(0));
            match self.attempt(document).await {
                Ok(end) => self.record_end(end).await?,
                Err(Delay::NotYet) => return Ok(Rest::Retry),
                Err(Delay::Revoked) => {}
                Err(Delay::Failed(error)) => {
                    tracing::error!(job = %self.job, error = %Chain(&error), "a job failed");
                    self.record_end(JobEnd::Failed(Fault::from(&error))).await?;
                }
            }
        }
    }
}

impl JobWork {
    pub(super) fn new(host: Arc<Host>, job: JobId, wake: Arc<Notify>) -> Self {
        Self { host, job, wake, patience: Patience::default(), away: None }
    }

    async fn attempt(&mut self, document: &JobDocument) -> Result<JobEnd, Delay> {
        let &JobDocument { source, source_epoch, target, target_epoch, conversion, .. } = document;
        if let Some(file) = &document.download {
            let to = self.open(target, target_epoch, Access::Exclusive).await?;
            let revoked = CancellationToken::new();
            let target = Arc::new(Revocable { volume: Arc::clone(&to), revoked: revoked.clone() });
            let progress = |percent| self.publish(document, JobProgress::Running(percent));
            let fetcher = &self.host.fetcher;
            let work = image::download(fetcher, file, target, conversion, &revoked, &progress);
            self.watch(work, &revoked).await?;
            to.flush().await?;
            return Ok(JobEnd::Done);
        }
        if let Some(sum) = &document.sum {
            return self.sum_up(document, sum).await;
        }
        if source == target {
            let message = "source and target are one drive: name two";
            return Err(Error::new(ErrorKind::InvalidValue, message).into());
        }
        if let Some(lender) = &document.lender {
            return self.attempt_from(lender, document).await;
        }
        let from = self.open(source, source_epoch, Access::Shared).await?;
        let to = self.open(target, target_epoch, Access::Exclusive).await?;
        if conversion == Conversion::None
            && let Some(cloner) = self.host.store.cloner()
            && cloner.clone_drive(source, target, self.writers(source)).await? == Cloned::Shared
        {
            to.flush().await?;
            return Ok(JobEnd::Done);
        }
        self.copy(document, from, Arc::clone(&to)).await?;
        to.flush().await?;
        Ok(JobEnd::Done)
    }

    /// Images from what another host lends.
    async fn attempt_from(
        &mut self,
        lender: &Lender,
        document: &JobDocument,
    ) -> Result<JobEnd, Delay> {
        let to = self.open(document.target, document.target_epoch, Access::Exclusive).await?;
        let Lender { portal, secret } = lender.clone();
        let lend = LendId { drive: document.source, epoch: document.source_epoch };
        let borrowing = Borrowing { portal, lend, borrower: borrower_of(self.job), secret };
        let copied = match self.host.borrower.borrow(&borrowing).await {
            Ok(from) => {
                self.away = None;
                self.copy(document, from, Arc::clone(&to)).await
            }
            Err(error) => Err(Delay::Failed(error)),
        };
        match copied {
            Ok(()) => {
                to.flush().await?;
                Ok(JobEnd::Done)
            }
            Err(Delay::Failed(error))
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound) =>
            {
                let since = *self.away.get_or_insert_with(Instant::now);
                if since.elapsed() < AWAY {
                    return Err(Delay::NotYet);
                }
                // No half an image is left of what was copied before.
                to.discard(Bytes::ZERO, to.size()).await?;
                to.flush().await?;
                let why = "the host that the source lies on has not lent it for ten minutes: image \
                           again once it is there";
                Err(Error::new(ErrorKind::JobFailed, why).source(error).into())
            }
            Err(delay) => Err(delay),
        }
    }

    /// Makes the SHA-256 of the target, and refuses one that is not as expected.
    async fn sum_up(&mut self, document: &JobDocument, sum: &Sum) -> Result<JobEnd, Delay> {
        let volume = self.open(document.target, document.target_epoch, Access::Exclusive).await?;
        let revoked = CancellationToken::new();
        let volume = Arc::new(Revocable { volume, revoked: revoked.clone() });
        let progress = |percent| self.publish(document, JobProgress::Running(percent));
        let work = image::sum(volume, sum.length, &progress);
        let found = self.watch(work, &revoked).await?;
        match sum.expected.as_ref().filter(|expected| **expected != found) {
            None => Ok(JobEnd::Summed(found)),
            Some(expected) => {
                let length = sum.length;
                let message = format!(
                    "the SHA-256 of the drive's first {length} bytes is {found}, and {expected} was \
                     expected: write the file again, or name the sum and the size that it has"
                );
                Err(Error::new(ErrorKind::JobFailed, message).into())
            }
        }
    }

    /// Who may write to a drive that the job holds beside others.
    fn writers(&self, drive: DriveId) -> Writers {
        let is_lent = self.host.lends().iter().any(|lend| lend.drive == drive);
        let is_attached = is_lent || !self.host.servers_with(drive).is_empty();
        if is_attached { Writers::Attached } else { Writers::Volumes }
    }

    async fn open(
        &mut self,
        drive: DriveId,
        epoch: Epoch,
        access: Access,
    ) -> Result<Arc<dyn Volume>, Delay> {
        let opened = open(&self.host, drive, epoch, access).await;
        opened.map_err(|error| match self.patience.judge(&self.host, drive, error) {
            Verdict::Wait => Delay::NotYet,
            Verdict::GiveUp(error) => Delay::Failed(error),
        })
    }

    /// Copies the bytes.
    async fn copy(
        &self,
        document: &JobDocument,
        from: Arc<dyn Volume>,
        to: Arc<dyn Volume>,
    ) -> Result<(), Delay> {
        let revoked = CancellationToken::new();
        let from = Arc::new(Revocable { volume: from, revoked: revoked.clone() });
        let progress = |percent| self.publish(document, JobProgress::Running(percent));
        let work = image::image(from, to, document.conversion, &progress);
        self.watch(work, &revoked).await
    }

    /// Does the work, and looks up from it whenever the job is woken.
    async fn watch<T>(
        &self,
        work: impl Future<Output = Result<T>>,
        revoked: &CancellationToken,
    ) -> Result<T, Delay> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return match done {
                    Err(_) if revoked.is_cancelled() => Err(Delay::Revoked),
                    done => Ok(done?),
                },
                () = self.wake.notified() => {
                    if self.host.jobs.get(self.job).is_none_or(|record| record.document.gone) {
                        revoked.cancel();
                    }
                }
                () = self.host.closing.cancelled(), if !revoked.is_cancelled() => revoked.cancel(),
            }
        }
    }

    async fn record_end(&self, end: JobEnd) -> Result<()> {
        let job = self.job;
        self.host.on_disk(move |host| host.jobs.amend(job, |facts| facts.end = Some(end))).await
    }

    fn publish(&self, document: &JobDocument, state: JobProgress) {
        self.host.board.publish(ObjectStatus::Job(JobStatus {
            job: self.job,
            generation: document.generation,
            gone: document.gone,
            state,
        }));
    }
}

/// What to say of a job that is over, or that was taken back before its end.
fn progress_at_end(end: Option<JobEnd>) -> JobProgress {
    match end {
        Some(JobEnd::Done) => JobProgress::Done,
        Some(JobEnd::Summed(sum)) => JobProgress::Summed(sum),
        Some(JobEnd::Failed(fault)) => JobProgress::Failed(fault),
        None => {
            let taken_back =
                Error::new(ErrorKind::JobFailed, "the job was taken back before its end");
            JobProgress::Failed(Fault::from(&taken_back))
        }
    }
}
