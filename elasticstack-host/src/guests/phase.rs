//! What QEMU's words mean for a run: pure tables from its status and its events.

use elasticstack_core::hypervisor::{EndCause, Phase};
use serde_json::{Map, Value};

/// What QEMU says its guest is doing (`query-status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Its processors have never run since power-on or the last reset.
    Prelaunch,
    /// Its processors run, or sleep until the guest's own alarm.
    Running,
    /// QEMU stopped it because its storage failed or is full; `cont` tries again.
    StorageFailed,
    /// Something else stopped it, such as an operator.
    Stopped,
    /// It is over.
    Ended(EndCause),
}

impl Status {
    /// Understands the word that QEMU uses.
    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "prelaunch" => Self::Prelaunch,
            "running" | "suspended" => Self::Running,
            "io-error" => Self::StorageFailed,
            "shutdown" => Self::Ended(EndCause::Guest),
            "guest-panicked" => Self::Ended(EndCause::Panicked),
            // KVM could not go on with this guest, and never can again.
            "internal-error" => Self::Ended(EndCause::Lost),
            _ => Self::Stopped,
        }
    }

    /// How this is told at the hypervisor's boundary.
    pub(super) fn phase(self) -> Phase {
        match self {
            Self::Running => Phase::Running,
            Self::Prelaunch | Self::StorageFailed | Self::Stopped => Phase::Paused,
            Self::Ended(cause) => Phase::Ended(cause),
        }
    }
}

/// What an event tells about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is over. An event says so for good: a reset may wipe the status that says it too.
    Ended(EndCause),
    /// Its status may have changed.
    Changed,
    /// It went through a reset that was asked for over QMP.
    Reset,
}

impl Notice {
    /// Understands an event; `None` for one that says nothing about the run.
    pub(super) fn from_event(name: &str, data: &Map<String, Value>) -> Option<Self> {
        match name {
            "SHUTDOWN" if data.get("guest") == Some(&Value::Bool(true)) => {
                Some(Self::Ended(EndCause::Guest))
            }
            "GUEST_PANICKED" => Some(Self::Ended(EndCause::Panicked)),
            "STOP" | "RESUME" | "BLOCK_IO_ERROR" => Some(Self::Changed),
            "RESET" if data.get("reason")? == "host-qmp-system-reset" => Some(Self::Reset),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_status_has_its_phase() {
        for (word, phase) in [
            ("running", Phase::Running),
            ("suspended", Phase::Running),
            ("prelaunch", Phase::Paused),
            ("paused", Phase::Paused),
            ("io-error", Phase::Paused),
            ("a word of some later QEMU", Phase::Paused),
            ("shutdown", Phase::Ended(EndCause::Guest)),
            ("guest-panicked", Phase::Ended(EndCause::Panicked)),
            ("internal-error", Phase::Ended(EndCause::Lost)),
        ] {
            assert_eq!(Status::from_word(word).phase(), phase, "{word}");
        }
    }

    #[test]
    fn only_a_guest_ends_itself() {
        for (name, data, notice) in [
            (
                "SHUTDOWN",
                json!({ "guest": true, "reason": "guest-shutdown" }),
                Some(Notice::Ended(EndCause::Guest)),
            ),
            ("SHUTDOWN", json!({ "guest": false, "reason": "host-signal" }), None),
            (
                "GUEST_PANICKED",
                json!({ "action": "pause" }),
                Some(Notice::Ended(EndCause::Panicked)),
            ),
            ("BLOCK_IO_ERROR", json!({ "action": "stop" }), Some(Notice::Changed)),
            ("RESET", json!({ "reason": "host-qmp-system-reset" }), Some(Notice::Reset)),
            ("RESET", json!({ "reason": "guest-reset" }), None),
            ("RESET", json!({}), None),
            ("RTC_CHANGE", json!({}), None),
        ] {
            let data = data.as_object().unwrap();
            assert_eq!(Notice::from_event(name, data), notice, "{name} {data:?}");
        }
    }
}
