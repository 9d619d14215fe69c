//! The control plane from outside: its use cases over a real database with hosts played by the
//! test, and its public API as clients see it. `whole_suite` runs all of it on both databases.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod accounts;
mod arrays;
mod authorization;
mod clones;
mod cloud;
mod compatibility;
mod console;
mod containers;
mod counters;
mod database;
mod documents;
mod errors;
mod events;
mod fake_agent;
mod fake_host;
mod fake_services;
mod feed;
mod hosts;
mod imaging;
mod limits;
mod lives;
mod many_hosts;
mod once;
mod paging;
mod plugs;
mod postgres;
mod quarantine;
mod races;
mod refusals;
mod resources;
mod restarts;
mod secrets;
mod seeds;
mod several;
mod snapshots;
mod stock;
mod tokens;
mod usage;
mod views;
mod whole_suite;
