//! Waiting on a state, with a generous guard.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long the product may take to come to rest, whatever happened to it.
pub(crate) const GUARD: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

/// One wait.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    what: &'a str,
    began: Instant,
}

impl<'a> Wait<'a> {
    /// Begins to wait for `what`.
    pub(crate) fn new(what: &'a str) -> Self {
        Self { what, began: Instant::now() }
    }

    /// Waits a little, because `obstacle` still stands in the way.
    ///
    /// # Errors
    /// It has lasted longer than [`GUARD`].
    pub(crate) async fn pause(&self, obstacle: &str) -> Result<()> {
        if self.began.elapsed() > GUARD {
            bail!("{}: not after {} s: {obstacle}", self.what, GUARD.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// Asks again and again what still stands in the way of `what`, until nothing does.
///
/// # Errors
/// Asking failed, or something still stood in the way after [`GUARD`].
pub(crate) async fn until(
    what: &str,
    mut obstacle: impl AsyncFnMut() -> Result<Option<String>>,
) -> Result<()> {
    let wait = Wait::new(what);
    while let Some(obstacle) = obstacle().await? {
        wait.pause(&obstacle).await?;
    }
    Ok(())
}
