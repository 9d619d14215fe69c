//! The runtime that programs serve this library on.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// A runtime with twice as many threads as there are cores: on SQLite a commit waits for the disk on
/// the thread that made it, and with one thread for each core that core would wait too.
///
/// # Errors
/// Those of starting threads.
pub fn runtime() -> io::Result<Runtime> {
    let cores = available_parallelism()?.get();
    Builder::new_multi_thread().worker_threads(cores.saturating_mul(2)).enable_all().build()
}
