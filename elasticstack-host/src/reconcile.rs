//! What to do next for one server: a pure function of what its document asks for, what is known
//! durably of its newest run, and what the hypervisor shows.
//!
//! ```text
//!            Begin                   RecordStart                       RecordEnd      Remove
//!  nothing ────────▶ begun, unseen ─────────────▶ started, running ──────────▶ ended ───────▶ nothing
//!                        │   ▲ Begin, again          │ Remove                   ▲
//!                        │   └ (same boot only)      ▼                          │
//!                        └───────────────────▶ gone from sight ─────────────────┘
//! ```
//! Invariants:
//! - a run begins only if the document asks for it and it is newer than every run begun here; one
//!   that has started, or was begun before the host's last boot, never begins again;
//! - a run is begun only while nothing of an older one is seen;
//! - an ending that the hypervisor shows is recorded before the hypervisor may forget it;
//! - each action changes what the next decision sees, so that a quiet world comes to `Nothing`.
//!
//! The driver carries the actions out; this module touches nothing.

use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{EndCause, Phase};
use elasticstack_core::wire::internal::{ClaimedDrive, Ended, ServerDocument, Stamp};
use serde::{Deserialize, Serialize};

/// What is known durably of a server's newest run here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    /// The newest run begun here; 0 if none.
    pub run: Run,
    /// What that run holds until nothing of it is left: all that may be plugged in to it.
    pub claims: Vec<ClaimedDrive>,
    /// What was last known to be plugged in to it, and nothing else.
    #[serde(default)]
    pub plugged: Vec<ClaimedDrive>,
    /// When it was begun, before anything was done for it.
    pub begun: Option<Stamp>,
    /// When its processors were known to run.
    pub started: Option<Stamp>,
    /// When and how it ended.
    pub ended: Option<Ended>,
    /// The newest reset carried out, or lost with its run.
    pub reset: u64,
    /// The newest shutdown passed on, or lost with its run.
    pub shutdown: u64,
}

impl Past {
    /// Whether something of the newest run may exist or is still to come.
    pub(crate) fn is_open(&self) -> bool {
        self.run > Run::default() && self.ended.is_none()
    }
}

/// A server's run as the hypervisor shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Which run.
    pub run: Run,
    /// What it is doing.
    pub phase: Phase,
}

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// All is as it should be.
    Nothing,
    /// Record the document's run as begun, then open its drives and start it. The resets and
    /// shutdowns asked for so far are lost with the runs before it.
    Begin,
    /// Take over a run that is seen and of which nothing is known.
    Adopt(Run),
    /// Record that the run started: it is seen to run.
    RecordStart,
    /// Record that the run is over.
    RecordEnd(EndCause),
    /// End what is seen, whatever it does, and make the hypervisor forget it.
    Remove,
    /// Make the drives of the run that goes on the document's: claim what is new before it is
    /// plugged in, let go of what is gone once it is unplugged.
    Replug,
    /// Press reset, then record that this number is done.
    Reset(u64),
    /// Press the power button, then record that this number is done.
    Shutdown(u64),
    /// Record that the numbers asked for are done: there is no run to do them to.
    SkipSignals,
}

/// Decides. `boot` is the id of the host's present boot.
pub(crate) fn next(
    document: &ServerDocument,
    past: &Past,
    seen: Option<Seen>,
    boot: &str,
) -> Action {
    match seen {
        Some(seen) if seen.run > past.run => Action::Adopt(seen.run),
        Some(seen) if seen.run < past.run || past.ended.is_some() => Action::Remove,
        Some(Seen { phase: Phase::Ended(cause), .. }) => Action::RecordEnd(cause),
        Some(_) if must_end(document, past) => Action::Remove,
        Some(_) if past.started.is_none() => Action::RecordStart,
        Some(_) if document.reset > past.reset => Action::Reset(document.reset),
        Some(_) if document.shutdown > past.shutdown => Action::Shutdown(document.shutdown),
        Some(Seen { phase: Phase::Running, run })
            if document.run == run && document.hardware.drives != past.plugged =>
        {
            Action::Replug
        }
        Some(_) => Action::Nothing,
        None if past.is_open() => out_of_sight(document, past, boot),
        None if wants_newer(document, past) => Action::Begin,
        None if document.reset > past.reset || document.shutdown > past.shutdown => {
            Action::SkipSignals
        }
        None => Action::Nothing,
    }
}

/// A run that has no end yet and that the hypervisor does not know.
fn out_of_sight(document: &ServerDocument, past: &Past, boot: &str) -> Action {
    let same_boot = past.begun.as_ref().is_some_and(|begun| begun.boot == boot);
    if !same_boot {
        Action::RecordEnd(EndCause::Lost)
    } else if must_end(document, past) {
        Action::RecordEnd(EndCause::Stopped)
    } else if past.started.is_some() || document.run < past.run {
        Action::RecordEnd(EndCause::Lost)
    } else {
        Action::Begin
    }
}

/// Whether the run begun last has no reason to go on.
fn must_end(document: &ServerDocument, past: &Past) -> bool {
    document.gone || !document.powered || document.run > past.run
}

fn wants_newer(document: &ServerDocument, past: &Past) -> bool {
    !document.gone && document.powered && document.run > past.run
}

#[cfg(test)]
mod tests;
