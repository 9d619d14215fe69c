//! How long an object may stay in a state that is not final, and the way out of it.

use std::time::Duration;

/// One row of [`DEADLINES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// `server`, `drive`, `snapshot`, `job` or `host`.
    pub object: &'static str,
    /// The state's word.
    pub state: &'static str,
    /// How long after entering it, or for a job after its last progress.
    pub after: Duration,
    /// What happens then.
    pub way_out: WayOut,
}

/// What happens to an object at its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// Its power is cut: the run is asked to stop, and its owner can start it again.
    Stop,
    /// The document is pushed to its host again and an operator is told in the log; only the host
    /// can confirm what happened to a guest or to data.
    PushAgain,
    /// It is taken to be silent.
    FallSilent,
}

/// Every state that something else has to end, with its deadline.
pub const DEADLINES: &[Deadline] = &[
    row("server", "starting", 180, WayOut::Stop),
    row("server", "stopping", 60, WayOut::PushAgain),
    row("server", "destroying", 60, WayOut::PushAgain),
    row("server", "unresponsive", 60, WayOut::PushAgain),
    row("server", "paused", 60, WayOut::PushAgain),
    row("drive", "creating", 60, WayOut::PushAgain),
    row("drive", "destroying", 60, WayOut::PushAgain),
    row("snapshot", "creating", 60, WayOut::PushAgain),
    row("snapshot", "restoring", 600, WayOut::PushAgain),
    row("snapshot", "destroying", 60, WayOut::PushAgain),
    row("job", "running", 600, WayOut::PushAgain),
    row("host", "active", 30, WayOut::FallSilent),
];

const fn row(object: &'static str, state: &'static str, seconds: u64, way_out: WayOut) -> Deadline {
    Deadline { object, state, after: Duration::from_secs(seconds), way_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{DriveState, ServerState, SnapshotState};

    #[test]
    fn every_state_that_is_not_final_has_one_deadline() {
        let rows = |object, state| {
            DEADLINES.iter().filter(|row| (row.object, row.state) == (object, state)).count()
        };
        for &state in ServerState::ALL {
            let wanted = usize::from(!ServerState::FINAL.contains(&state));
            assert_eq!(rows("server", state.as_str()), wanted, "server {state}");
        }
        for (state, wanted) in [
            (DriveState::Creating, 1),
            (DriveState::Ready, 0),
            (DriveState::Destroying, 1),
            (DriveState::Gone, 0),
        ] {
            assert_eq!(rows("drive", state.as_str()), wanted, "drive {state}");
        }
        for &state in SnapshotState::ALL {
            let is_final = matches!(state, SnapshotState::Ready | SnapshotState::Gone);
            assert_eq!(rows("snapshot", state.as_str()), usize::from(!is_final), "{state}");
        }
    }
}
