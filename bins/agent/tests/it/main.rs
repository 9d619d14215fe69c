//! The agent on machines of the lab, with real disks.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arrays;
mod containers;
mod health;
mod integrity;
mod machine;
mod systemd;
