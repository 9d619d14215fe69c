//! The control plane from outside: its use cases over a real database with hosts played by the
//! test, and its public API as clients see it. `database` says how all of it runs on both.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod authorization;
mod clones;
mod cloud;
mod compatibility;
mod database;
mod documents;
mod errors;
mod fake_agent;
mod fake_host;
mod hosts;
mod imaging;
mod limits;
mod lives;
mod once;
mod paging;
mod races;
mod refusals;
mod resources;
mod restarts;
mod several;
mod tokens;
mod usage;
