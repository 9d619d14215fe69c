//! The control plane, as a library: accounts, what runs where, placement, usage, and the public
//! API.
//!
//! It ends in one builder that takes its traits:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use elasticstack_api::Server;
//! use elasticstack_api::hosts::MemoryDial;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let hosts = Arc::new(MemoryDial::new());
//! let server = Server::builder().database("sqlite:cloud.db").dial(hosts).build().await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8440").await?;
//! server.serve(listener, async { drop(tokio::signal::ctrl_c().await) }).await?;
//! server.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What this crate is not
//!
//! It touches no kernel facility and runs no guest: that is the agents' work, whom it dials.
#![forbid(unsafe_code)]

pub mod app;
pub mod authority;
pub mod backup;
mod db;
pub mod hosts;
pub mod http;
mod key_hash;
mod openapi;
mod runtime;
mod server;
mod usage;

pub use runtime::runtime;
pub use server::{Server, ServerBuilder};
