//! The life of a server.
//!
//! ```text
//!            start              reported running
//!  Stopped ─────────▶ Starting ─────────────────▶ Running ◀──▶ Paused, Unresponsive
//!     ▲                  │                           │               │
//!     │  reported ended  │        stop               │ stop          │ stop
//!     ├──────────────────┴──────▶ Stopping ◀─────────┴───────────────┘
//!     │  reported ended              │
//!     └──────────────────────────────┘   any ── destroy ──▶ Destroying ── reported gone ──▶ Gone
//! ```
//! The happy path is along the top and back by `reported ended`. A start fails by ending: the run
//! is reported ended with a fault. A server that is not persistent takes `destroy` where a
//! persistent one would become `Stopped`; that rule is the caller's, who knows the flag.

use serde::{Deserialize, Serialize};

use super::{Refusal, Step, states};

states! {
    /// What a server is.
    ServerState {
        /// No run goes on. Holds no claim, no processor, no memory.
        Stopped = "stopped",
        /// A run was asked for and is not seen running yet.
        Starting = "starting",
        /// Its newest run runs.
        Running = "running",
        /// Its newest run is paused because its storage failed or is full.
        Paused = "paused",
        /// Its newest run does not answer.
        Unresponsive = "unresponsive",
        /// The end of its run was asked for and is not confirmed yet.
        Stopping = "stopping",
        /// Its destruction was asked for and is not confirmed yet. Hidden from its owner.
        Destroying = "destroying",
        /// Confirmed gone; only its usage remains.
        Gone = "gone",
    }
}

impl ServerState {
    /// The states in which a server holds claims on its drives, and processor and memory.
    pub const HOLDS_RESOURCES: &'static [Self] = &[
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Unresponsive,
        Self::Stopping,
        Self::Destroying,
    ];

    /// The states that nothing is expected to leave by itself.
    pub const FINAL: &'static [Self] = &[Self::Stopped, Self::Running, Self::Gone];
}

/// What a server's newest run does, as its host tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// It is being started.
    Starting,
    /// Its processors run.
    Running,
    /// Its storage failed or is full.
    Paused,
    /// It does not answer.
    Unresponsive,
    /// It is over and nothing of it is left.
    Ended,
}

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEvent {
    /// Its owner wants it running.
    Start,
    /// Its owner wants its power cut.
    Stop,
    /// Its owner presses the power button.
    Shutdown,
    /// Its owner presses reset.
    Reset,
    /// Its owner wants it gone.
    Destroy,
    /// Its host says what its newest run does.
    Reported(RunPhase),
    /// Its host says that it is gone.
    ReportedGone,
}

impl ServerState {
    /// What `event` makes of this state.
    ///
    /// # Errors
    /// A [`Refusal`] for a wish that this state does not admit. A report is never refused.
    pub fn step(self, event: ServerEvent) -> Result<Step<Self>, Refusal> {
        use ServerState::{
            Destroying, Gone, Paused, Running, Starting, Stopped, Stopping, Unresponsive,
        };
        let refuse =
            |wish, remedy| Err(Refusal { object: "server", state: self.as_str(), wish, remedy });
        let step = match (event, self) {
            (ServerEvent::Start, Stopped) => Step::To(Starting),
            (ServerEvent::Start, Starting | Running) => Step::Unchanged,
            (ServerEvent::Start, Paused | Unresponsive) => {
                return refuse("started", "reset it, or stop it first");
            }
            (ServerEvent::Start, Stopping) => {
                return refuse("started", "wait until it is stopped");
            }

            (ServerEvent::Stop, Starting | Running | Paused | Unresponsive) => Step::To(Stopping),
            (ServerEvent::Stop, Stopped | Stopping) => Step::Unchanged,

            (ServerEvent::Shutdown, Starting | Running | Paused | Unresponsive) => Step::Unchanged,
            (ServerEvent::Shutdown, Stopped | Stopping) => Step::Unchanged,

            (ServerEvent::Reset, Starting | Running | Paused | Unresponsive) => Step::Unchanged,
            (ServerEvent::Reset, Stopped | Stopping) => {
                return refuse("reset", "start it first");
            }

            (ServerEvent::Destroy, Destroying | Gone) => Step::Unchanged,
            (
                ServerEvent::Destroy,
                Stopped | Starting | Running | Paused | Unresponsive | Stopping,
            ) => Step::To(Destroying),
            (
                ServerEvent::Start | ServerEvent::Stop | ServerEvent::Shutdown | ServerEvent::Reset,
                Destroying | Gone,
            ) => return refuse("changed", "it is destroyed"),

            (ServerEvent::ReportedGone, Destroying) => Step::To(Gone),
            (
                ServerEvent::ReportedGone,
                Stopped | Starting | Running | Paused | Unresponsive | Stopping | Gone,
            ) => Step::Unchanged,

            (ServerEvent::Reported(_), Destroying | Gone) => Step::Unchanged,
            (ServerEvent::Reported(RunPhase::Ended), Stopped) => Step::Unchanged,
            (
                ServerEvent::Reported(RunPhase::Ended),
                Starting | Running | Paused | Unresponsive | Stopping,
            ) => Step::To(Stopped),
            (
                ServerEvent::Reported(
                    RunPhase::Starting
                    | RunPhase::Running
                    | RunPhase::Paused
                    | RunPhase::Unresponsive,
                ),
                Stopped | Stopping,
            )
            | (
                ServerEvent::Reported(RunPhase::Starting),
                Starting | Running | Paused | Unresponsive,
            ) => Step::Unchanged,
            (ServerEvent::Reported(RunPhase::Running), Starting | Paused | Unresponsive) => {
                Step::To(Running)
            }
            (ServerEvent::Reported(RunPhase::Paused), Starting | Running | Unresponsive) => {
                Step::To(Paused)
            }
            (ServerEvent::Reported(RunPhase::Unresponsive), Starting | Running | Paused) => {
                Step::To(Unresponsive)
            }
            (ServerEvent::Reported(RunPhase::Running), Running)
            | (ServerEvent::Reported(RunPhase::Paused), Paused)
            | (ServerEvent::Reported(RunPhase::Unresponsive), Unresponsive) => Step::Unchanged,
        };
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISHES: [ServerEvent; 5] = [
        ServerEvent::Start,
        ServerEvent::Stop,
        ServerEvent::Shutdown,
        ServerEvent::Reset,
        ServerEvent::Destroy,
    ];

    const REPORTS: [ServerEvent; 6] = [
        ServerEvent::Reported(RunPhase::Starting),
        ServerEvent::Reported(RunPhase::Running),
        ServerEvent::Reported(RunPhase::Paused),
        ServerEvent::Reported(RunPhase::Unresponsive),
        ServerEvent::Reported(RunPhase::Ended),
        ServerEvent::ReportedGone,
    ];

    #[test]
    fn a_report_is_never_refused_and_a_wish_granted_twice_changes_nothing_more() {
        for &state in ServerState::ALL {
            for event in REPORTS {
                assert!(state.step(event).is_ok(), "{state}: {event:?}");
            }
            for event in WISHES {
                if let Ok(step) = state.step(event) {
                    let after = step.after(state);
                    assert_eq!(after.step(event), Ok(Step::Unchanged), "{state}: {event:?} twice");
                }
            }
        }
    }

    #[test]
    fn what_ended_stays_ended_until_its_owner_starts_it() {
        for event in REPORTS {
            assert_eq!(ServerState::Stopped.step(event), Ok(Step::Unchanged), "{event:?}");
            let after = ServerState::Gone.step(event).unwrap().after(ServerState::Gone);
            assert_eq!(after, ServerState::Gone, "{event:?}");
        }
    }

    #[test]
    fn resources_are_held_exactly_while_a_run_may_exist() {
        for &state in ServerState::ALL {
            let holds = ServerState::HOLDS_RESOURCES.contains(&state);
            assert_eq!(
                holds,
                !matches!(state, ServerState::Stopped | ServerState::Gone),
                "{state}"
            );
        }
    }
}
