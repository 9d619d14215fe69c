//! All of ElasticStack in one process: the agent's internal API is served to the control plane's
//! ordinary client over an in-memory stream, everything else is as in production.

pub mod cloud;
pub mod demo;
mod first_boot;
pub mod identity;
pub mod port;
pub mod run;
pub mod smoke;
