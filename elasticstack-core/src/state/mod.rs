//! The states of servers, drives, snapshots, jobs and hosts as the control plane sees them, and every way
//! from one to another. Pure: a transition is a value.

mod deadline;
mod drive;
mod host;
mod job;
mod server;
mod snapshot;

pub use deadline::{DEADLINES, Deadline, WayOut};
pub use drive::{DriveEvent, DriveState};
pub use host::{HostEvent, HostState};
pub use job::{JobEvent, JobState};
pub use server::{RunPhase, ServerEvent, ServerState};
pub use snapshot::{SnapshotEvent, SnapshotState};

use crate::error::{Error, ErrorKind};

/// What an event does to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<S> {
    /// It moves on to this state.
    To(S),
    /// It is there already: nothing changes, and nobody is told off for asking twice.
    Unchanged,
}

impl<S: PartialEq + Copy> Step<S> {
    /// The state after the step.
    #[must_use]
    pub fn after(self, before: S) -> S {
        match self {
            Self::To(state) => state,
            Self::Unchanged => before,
        }
    }
}

/// An event that a state does not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {object} is {state} and cannot be {wish} now: {remedy}")]
pub struct Refusal {
    /// `server`, `drive`, `snapshot`, `host` or `job`.
    pub object: &'static str,
    /// The state it is in.
    pub state: &'static str,
    /// What was wished, as a past participle.
    pub wish: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.object {
            "drive" | "snapshot" => ErrorKind::DriveInUse,
            _ => ErrorKind::ServerBusy,
        };
        Self::new(kind, refusal.to_string())
    }
}

/// Declares a state enum with the words that databases and messages use.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// The state of this word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
use states;
