//! The panel as a browser sees it, over a small API in memory.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like its tests")]

mod api;
mod browser;
mod pages;
mod program;
mod safety;
