//! The life of a job.
//!
//! ```text
//!  Running ──▶ Done | Failed ── claims released, end reported to the owner ──▶ forgotten
//! ```
//! A job is not undone: killed anywhere, its host begins it again from zero, and the target is
//! claimed and unbootable until `Done`.

use super::{Step, states};

states! {
    /// What a job is.
    JobState {
        /// Queued or at work on its host.
        Running = "running",
        /// The target is whole and durable.
        Done = "done",
        /// It ended without success, for a reason that its owner can read.
        Failed = "failed",
    }
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// Its host says that it goes on.
    ReportedRunning,
    /// Its host says that it is done.
    ReportedDone,
    /// Its host says that it failed.
    ReportedFailed,
}

impl JobState {
    /// What `event` makes of this state. A job ends once: later reports change nothing.
    #[must_use]
    pub fn step(self, event: JobEvent) -> Step<Self> {
        match (event, self) {
            (JobEvent::ReportedDone, Self::Running) => Step::To(Self::Done),
            (JobEvent::ReportedFailed, Self::Running) => Step::To(Self::Failed),
            (JobEvent::ReportedRunning, _)
            | (JobEvent::ReportedDone | JobEvent::ReportedFailed, Self::Done | Self::Failed) => {
                Step::Unchanged
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ends_once() {
        for end in [JobState::Done, JobState::Failed] {
            for event in
                [JobEvent::ReportedRunning, JobEvent::ReportedDone, JobEvent::ReportedFailed]
            {
                assert_eq!(end.step(event), Step::Unchanged);
            }
        }
    }
}
