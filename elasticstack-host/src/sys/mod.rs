//! Kernel facilities, one a file, each with a safe signature.

pub mod clock;
