//! A guest that writes a drive past its store while that is cloned.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use elasticstack_core::block::{Attachment, BlockStore as _, Writers};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;

use super::{BLOCK, Bench};

/// How long a clone took, or why it was refused; and for how long a write waited at most.
pub(super) async fn clone_under_writes(
    bench: &Bench,
    source: DriveId,
) -> Result<(Result<Duration>, Duration)> {
    let volume = bench.store.open(source, Epoch(1)).await?;
    let Some(Attachment::File(path)) = volume.attachment() else { bail!("it is no file") };
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let (begun, begins) = tokio::sync::oneshot::channel();
    let guest = std::thread::spawn(move || -> std::io::Result<Duration> {
        let file = OpenOptions::new().write(true).open(path)?;
        let (mut longest, mut begun) = (Duration::ZERO, Some(begun));
        let mut rng = SimRng::new(3);
        while !over.load(Ordering::SeqCst) {
            let began = Instant::now();
            file.write_all_at(&[9; 4096], rng.below(300) * 2 * BLOCK)?;
            longest = longest.max(began.elapsed());
            if let Some(begun) = begun.take() {
                // Whoever waits for it has failed.
                let _ = begun.send(());
            }
        }
        Ok(longest)
    });
    let began = begins.await;
    let took = bench.clone(source, Writers::Attached).await;
    is_over.store(true, Ordering::SeqCst);
    let Ok(longest) = guest.join() else { bail!("the guest broke") };
    began?;
    Ok((took, longest?))
}
