//! The control plane from outside: its use cases over a real database, with hosts played by the
//! test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake_host;
mod imaging;
mod lives;
mod races;
mod refusals;
mod restarts;
mod usage;
