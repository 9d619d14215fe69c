//! What becomes of a guest, as it is asked for by [`Ask`]s and told of by [`News`]: one state machine, which
//! says what it does in QMP's words.
//!
//! ```text
//!              cont               ends itself ▸ shutdown, guest-panicked, internal-error: for good
//!  prelaunch ───────▶ running ───────┤
//!                      │  ▲ cont     resets itself ▸ a new machine, which runs
//!            stop, or  ▼  │
//!   a drive fails ▸ paused, io-error
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_core::error::Result;
use serde_json::{Value, json};

use super::ask::{Ask, Refusal, event};
use super::news::News;
use super::ring::Ring;

/// A guest that a monitor can hold, let go on and make anew.
pub(super) trait Runs {
    /// Holds it: then it executes nothing.
    fn pause(&self);
    /// Lets it go on.
    fn resume(&self);
    /// Presses its power button.
    ///
    /// # Errors
    /// `Internal`.
    fn press_button(&self) -> Result<()>;
    /// Makes it anew, held, as after its power was cut.
    ///
    /// # Errors
    /// `Internal`.
    fn renew(&mut self) -> Result<()>;
}

/// What a guest does, by QEMU's words (`RunState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Prelaunch,
    Running,
    Paused,
    StorageFailed,
    Off,
    Panicked,
    Failed,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Prelaunch => "prelaunch",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::StorageFailed => "io-error",
            Self::Off => "shutdown",
            Self::Panicked => "guest-panicked",
            Self::Failed => "internal-error",
        }
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Off | Self::Panicked | Self::Failed)
    }
}

/// A guest and what is known of it.
#[derive(Debug)]
pub(super) struct Monitor<R> {
    guest: R,
    status: Status,
    serial: Ring,
    events: Vec<Vec<u8>>,
}

impl<R: Runs> Monitor<R> {
    /// Of a guest that has not run yet, and what it writes to its serial port.
    pub(super) fn new(guest: R, serial: Ring) -> Self {
        Self { guest, status: Status::Prelaunch, serial, events: Vec::new() }
    }

    pub(super) fn guest(&self) -> &R {
        &self.guest
    }

    /// Carries out what is about the guest as a whole; `None` for what is about its drives.
    pub(super) fn carry_out(&mut self, ask: &Ask) -> Option<Result<Value, Refusal>> {
        let done = match ask {
            Ask::Capabilities => Ok(()),
            Ask::Status => {
                let status = self.status;
                let is_running = status == Status::Running;
                return Some(Ok(json!({ "status": status.word(), "running": is_running })));
            }
            Ask::Serial => return Some(Ok(STANDARD.encode(self.serial.take()).into())),
            Ask::Continue if self.status.is_over() => Err(over()),
            Ask::Continue => {
                self.go_on();
                Ok(())
            }
            Ask::Stop if self.status == Status::Running => {
                self.hold(Status::Paused);
                Ok(())
            }
            Ask::Stop => Ok(()),
            Ask::PowerButton => self.guest.press_button().map_err(|error| refused(&error)),
            Ask::Reset if self.status.is_over() => Err(over()),
            Ask::Reset => self.reset("host-qmp-system-reset").map_err(|error| refused(&error)),
            Ask::Nodes | Ask::Devices | Ask::Counts | Ask::Limit(..) => return None,
        };
        Some(done.map(|()| json!({})))
    }

    /// Takes in what the guest tells. What it tells once it is over says nothing new.
    pub(super) fn hear(&mut self, news: News) {
        if self.status.is_over() {
            return;
        }
        match news {
            News::Off => {
                self.hold(Status::Off);
                let data = json!({ "guest": true, "reason": "guest-shutdown" });
                self.events.push(event("SHUTDOWN", &data));
            }
            News::Panicked => {
                self.hold(Status::Panicked);
                self.events.push(event("GUEST_PANICKED", &json!({ "action": "pause" })));
            }
            News::Failed(why) => {
                tracing::error!(why, "a guest can't go on");
                self.hold(Status::Failed);
            }
            News::Stalled(why) => {
                tracing::warn!(why, "a drive failed: the guest waits");
                self.events.push(event("BLOCK_IO_ERROR", &json!({ "action": "stop" })));
                if self.status == Status::Running {
                    self.hold(Status::StorageFailed);
                }
            }
            News::Reset => {
                if let Err(error) = self.reset("guest-reset") {
                    tracing::error!(?error, "a guest can't start anew");
                    self.hold(Status::Failed);
                }
            }
        }
    }

    /// The lines that tell what has happened since this was last called.
    pub(super) fn events(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.events)
    }

    /// Makes it anew; it runs then if it ran before.
    fn reset(&mut self, reason: &str) -> Result<()> {
        self.guest.renew()?;
        self.events.push(event("RESET", &json!({ "guest": true, "reason": reason })));
        if self.status == Status::Running {
            self.guest.resume();
        } else if self.status == Status::StorageFailed {
            self.status = Status::Paused;
        }
        Ok(())
    }

    fn go_on(&mut self) {
        if self.status != Status::Running {
            self.events.push(event("RESUME", &json!({})));
        }
        self.status = Status::Running;
        self.guest.resume();
    }

    fn hold(&mut self, status: Status) {
        self.guest.pause();
        self.status = status;
        self.events.push(event("STOP", &json!({})));
    }
}

fn over() -> Refusal {
    Refusal("the guest has ended".to_owned())
}

fn refused(error: &elasticstack_core::error::Error) -> Refusal {
    Refusal(format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Debug, Default)]
    struct Guest {
        runs: Cell<bool>,
        renewed: u32,
    }

    impl Runs for Guest {
        fn pause(&self) {
            self.runs.set(false);
        }

        fn resume(&self) {
            self.runs.set(true);
        }

        fn press_button(&self) -> Result<()> {
            Ok(())
        }

        fn renew(&mut self) -> Result<()> {
            self.runs.set(false);
            self.renewed += 1;
            Ok(())
        }
    }

    enum Step {
        Ask(Ask),
        Hear(News),
    }

    use Step::{Ask as A, Hear as H};

    #[test]
    fn a_guest_runs_exactly_while_its_status_says_so_and_never_again_once_it_is_over() {
        let stalled = || H(News::Stalled("no disk".to_owned()));
        for (steps, status, renewed) in [
            (vec![], "prelaunch", 0),
            (vec![A(Ask::Continue)], "running", 0),
            (vec![A(Ask::Continue), A(Ask::Stop)], "paused", 0),
            (vec![A(Ask::Continue), A(Ask::Stop), A(Ask::Continue)], "running", 0),
            (vec![A(Ask::Continue), stalled()], "io-error", 0),
            (vec![A(Ask::Continue), stalled(), A(Ask::Continue)], "running", 0),
            (vec![A(Ask::Continue), stalled(), A(Ask::Reset)], "paused", 1),
            (vec![A(Ask::Continue), stalled(), A(Ask::Reset), A(Ask::Continue)], "running", 1),
            (vec![A(Ask::Continue), H(News::Off)], "shutdown", 0),
            (vec![A(Ask::Continue), H(News::Off), A(Ask::Continue)], "shutdown", 0),
            (vec![A(Ask::Continue), H(News::Off), A(Ask::Reset)], "shutdown", 0),
            (vec![A(Ask::Continue), H(News::Off), H(News::Reset)], "shutdown", 0),
            (vec![A(Ask::Continue), H(News::Panicked), H(News::Off)], "guest-panicked", 0),
            (vec![A(Ask::Continue), H(News::Failed(String::new()))], "internal-error", 0),
            (vec![A(Ask::Continue), H(News::Reset)], "running", 1),
            (vec![A(Ask::Continue), A(Ask::Reset)], "running", 1),
            (vec![A(Ask::Reset)], "prelaunch", 1),
        ] {
            let mut monitor = Monitor::new(Guest::default(), Ring::default());
            for step in steps {
                match step {
                    A(ask) => drop(monitor.carry_out(&ask)),
                    H(news) => monitor.hear(news),
                }
            }
            let told = monitor.carry_out(&Ask::Status).unwrap().unwrap();
            let runs = monitor.guest.runs.get();
            assert_eq!(told, json!({ "status": status, "running": runs }));
            assert_eq!(runs, status == "running");
            assert_eq!(monitor.guest.renewed, renewed, "{status}");
        }
    }

    #[test]
    fn an_end_and_a_reset_that_was_asked_for_are_told_as_qemu_tells_them() {
        let mut monitor = Monitor::new(Guest::default(), Ring::default());
        monitor.carry_out(&Ask::Continue).unwrap().unwrap();
        monitor.carry_out(&Ask::Reset).unwrap().unwrap();
        monitor.hear(News::Off);
        let told = monitor.events().concat();
        let told = String::from_utf8(told).unwrap();
        let expected = [
            r#"{"data":{},"event":"RESUME"}"#,
            r#"{"data":{"guest":true,"reason":"host-qmp-system-reset"},"event":"RESET"}"#,
            r#"{"data":{},"event":"STOP"}"#,
            r#"{"data":{"guest":true,"reason":"guest-shutdown"},"event":"SHUTDOWN"}"#,
        ];
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
        assert_eq!(monitor.events(), Vec::<Vec<u8>>::new());
    }
}
