//! The real control plane and real agents over simulated hardware: killed at every point, the end
//! is the same. Nothing here is played by the test but the machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod across;
mod asked;
mod cast;
mod churn;
mod copies;
mod crash_points;
#[path = "../../../../elasticstack-api/tests/it/database.rs"]
mod database;
mod ends;
mod lends;
mod restore;
mod tap;
mod world;
