//! The life of a host.
//!
//! ```text
//!  Joining ── answered ──▶ Active ── silent ──▶ Silent ── answered ──▶ Active
//! ```
//! A silent host keeps all it holds: nothing is started elsewhere on a guess.

use super::{Step, states};

states! {
    /// What a host is.
    HostState {
        /// Known by name and address, and not heard of yet: never, or not since the control plane
        /// was restored from a backup.
        Joining = "joining",
        /// Answers, and takes what the scheduler sends.
        Active = "active",
        /// Has not answered for longer than its deadline. Takes nothing new.
        Silent = "silent",
    }
}

/// What happens to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostEvent {
    /// It answered.
    Answered,
    /// It has not answered for too long.
    FellSilent,
}

impl HostState {
    /// What `event` makes of this state.
    #[must_use]
    pub fn step(self, event: HostEvent) -> Step<Self> {
        match (event, self) {
            (HostEvent::Answered, Self::Joining | Self::Silent) => Step::To(Self::Active),
            (HostEvent::FellSilent, Self::Active) => Step::To(Self::Silent),
            (HostEvent::Answered, Self::Active)
            | (HostEvent::FellSilent, Self::Joining | Self::Silent) => Step::Unchanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_answers_is_active_again() {
        for &state in HostState::ALL {
            assert_eq!(state.step(HostEvent::Answered).after(state), HostState::Active);
        }
    }
}
