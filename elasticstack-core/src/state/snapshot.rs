//! The life of a snapshot.
//!
//! ```text
//!               reported there            restore
//!  Creating ──────────────────▶ Ready ◀────────────▶ Restoring
//!     │                           │    reported over
//!     └───────── destroy ─────────┴──▶ Destroying ── reported gone ──▶ Gone
//! ```
//! A snapshot that its host cannot take is destroyed by the report that says so. While its drive is
//! made what the snapshot holds, that drive is claimed.

use super::{Refusal, Step, states};

states! {
    /// What a snapshot is.
    SnapshotState {
        /// Asked for and not confirmed by its host.
        Creating = "creating",
        /// Its host has it.
        Ready = "ready",
        /// Its drive is being made what it holds.
        Restoring = "restoring",
        /// Its destruction was asked for and is not confirmed yet. Hidden from its owner; its
        /// room is still taken.
        Destroying = "destroying",
        /// Confirmed gone; only its usage remains.
        Gone = "gone",
    }
}

impl SnapshotState {
    /// The states in which a snapshot takes room on its array.
    pub const HOLDS_ROOM: &'static [Self] =
        &[Self::Creating, Self::Ready, Self::Restoring, Self::Destroying];

    /// The states in which its owner sees it, and its drive can't be destroyed.
    pub const IS_THERE: &'static [Self] = &[Self::Creating, Self::Ready, Self::Restoring];
}

/// What happens to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// Its owner wants it gone.
    Destroy,
    /// Its owner wants the drive to hold what it does. The caller has checked that nothing else
    /// claims the drive.
    Restore,
    /// Its host says that it is there.
    Reported,
    /// Its host says that the newest restore is over.
    ReportedRestored,
    /// Its host says that it is gone.
    ReportedGone,
}

impl SnapshotState {
    /// What `event` makes of this state.
    ///
    /// # Errors
    /// A [`Refusal`] for a wish that this state does not admit. A report is never refused.
    pub fn step(self, event: SnapshotEvent) -> Result<Step<Self>, Refusal> {
        use SnapshotState::{Creating, Destroying, Gone, Ready, Restoring};
        let refuse =
            |wish, remedy| Err(Refusal { object: "snapshot", state: self.as_str(), wish, remedy });
        match (event, self) {
            (SnapshotEvent::Destroy, Creating | Ready) => Ok(Step::To(Destroying)),
            (SnapshotEvent::Destroy, Restoring) => {
                refuse("destroyed", "wait until its drive is restored")
            }
            (SnapshotEvent::Restore, Ready) => Ok(Step::To(Restoring)),
            (SnapshotEvent::Restore, Creating) => {
                refuse("restored", "wait until its host has taken it")
            }
            (SnapshotEvent::Restore, Destroying | Gone) => refuse("restored", "it is destroyed"),
            (SnapshotEvent::Reported, Creating) | (SnapshotEvent::ReportedRestored, Restoring) => {
                Ok(Step::To(Ready))
            }
            (SnapshotEvent::ReportedGone, Destroying) => Ok(Step::To(Gone)),
            (SnapshotEvent::Destroy, Destroying | Gone)
            | (SnapshotEvent::Restore, Restoring)
            | (SnapshotEvent::Reported, Ready | Restoring | Destroying | Gone)
            | (SnapshotEvent::ReportedRestored, Creating | Ready | Destroying | Gone)
            | (SnapshotEvent::ReportedGone, Creating | Ready | Restoring | Gone) => {
                Ok(Step::Unchanged)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wish_to_destroy_leads_to_gone_and_only_a_ready_one_is_restored() {
        let reports =
            [SnapshotEvent::Reported, SnapshotEvent::ReportedRestored, SnapshotEvent::ReportedGone];
        for &state in SnapshotState::ALL {
            for event in reports {
                let after = state.step(event).unwrap().after(state);
                let was_doomed = matches!(state, SnapshotState::Destroying | SnapshotState::Gone);
                assert!(after != SnapshotState::Gone || was_doomed, "{state}: {event:?}");
            }
            let restored = state.step(SnapshotEvent::Restore);
            let begins = restored == Ok(Step::To(SnapshotState::Restoring));
            assert_eq!(begins, state == SnapshotState::Ready, "{state}");
            let holds = SnapshotState::HOLDS_ROOM.contains(&state);
            assert_eq!(holds, state != SnapshotState::Gone, "{state}");
        }
    }
}
