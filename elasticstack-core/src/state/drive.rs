//! The life of a drive.
//!
//! ```text
//!  Creating ── reported ready ──▶ Ready ── destroy ──▶ Destroying ── reported gone ──▶ Gone
//!     └────────────────────── destroy ─────────────────────▲
//! ```
//! A drive that its host cannot make stays `Creating` with the host's reason; destroying it is the
//! way out. Whether it is claimed or being imaged is said by its claims, not by its state.

use super::{Refusal, Step, states};

states! {
    /// What a drive is.
    DriveState {
        /// Asked for and not confirmed by its host.
        Creating = "creating",
        /// Its host has it, in the size last asked for or about to be.
        Ready = "ready",
        /// Its destruction was asked for and is not confirmed yet. Hidden from its owner; its
        /// room is still taken.
        Destroying = "destroying",
        /// Confirmed gone; only its usage remains.
        Gone = "gone",
    }
}

impl DriveState {
    /// The states in which a drive takes room on its array.
    pub const HOLDS_ROOM: &'static [Self] = &[Self::Creating, Self::Ready, Self::Destroying];
}

/// What happens to a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveEvent {
    /// Its owner wants it gone. The caller has checked that nothing claims it.
    Destroy,
    /// Something wants to read, write, resize or claim it.
    Use,
    /// Its host says that it is there.
    Reported,
    /// Its host says that it is gone.
    ReportedGone,
}

impl DriveState {
    /// What `event` makes of this state.
    ///
    /// # Errors
    /// A [`Refusal`] for a wish that this state does not admit. A report is never refused.
    pub fn step(self, event: DriveEvent) -> Result<Step<Self>, Refusal> {
        use DriveState::{Creating, Destroying, Gone, Ready};
        let refuse =
            |wish, remedy| Err(Refusal { object: "drive", state: self.as_str(), wish, remedy });
        match (event, self) {
            (DriveEvent::Destroy, Creating | Ready) => Ok(Step::To(Destroying)),
            (DriveEvent::Destroy, Destroying | Gone) => Ok(Step::Unchanged),
            (DriveEvent::Use, Ready) => Ok(Step::Unchanged),
            (DriveEvent::Use, Creating) => refuse("used", "wait until its host has made it"),
            (DriveEvent::Use, Destroying | Gone) => refuse("used", "it is destroyed"),
            (DriveEvent::Reported, Creating) => Ok(Step::To(Ready)),
            (DriveEvent::Reported, Ready | Destroying | Gone) => Ok(Step::Unchanged),
            (DriveEvent::ReportedGone, Destroying) => Ok(Step::To(Gone)),
            (DriveEvent::ReportedGone, Creating | Ready | Gone) => Ok(Step::Unchanged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wish_to_destroy_leads_to_gone() {
        for &state in DriveState::ALL {
            for event in [DriveEvent::Use, DriveEvent::Reported, DriveEvent::ReportedGone] {
                let after = state.step(event).map_or(state, |step| step.after(state));
                let was_doomed = matches!(state, DriveState::Destroying | DriveState::Gone);
                assert!(after != DriveState::Gone || was_doomed, "{state}: {event:?}");
            }
        }
        let doomed = DriveState::Ready.step(DriveEvent::Destroy);
        assert_eq!(doomed, Ok(Step::To(DriveState::Destroying)));
    }
}
