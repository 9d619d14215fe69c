//! The runtime that programs serve this library on.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{self, Runtime};

use crate::db::file_of;

/// A runtime with a thread for each core, or with twice as many where `database`, as
/// [`ServerBuilder::database`](crate::ServerBuilder::database) takes it, is SQLite's: there a commit
/// waits for the disk on the thread that made it, and its core would wait too.
///
/// # Errors
/// Those of starting threads.
pub fn runtime(database: &str) -> io::Result<Runtime> {
    let cores = available_parallelism()?.get();
    let a_core = if matches!(file_of(database), Ok(Some(_))) { 2 } else { 1 };
    let threads = cores.saturating_mul(a_core);
    runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
