//! The lender: lends are made and ended one step at a time in configfs.
//!
//! What is asked of one lend is done one after the other, each to its end, in a thread that may
//! block; whoever asks waits for that as long as [`PATIENCE`]. Lends wait for each other nowhere: a
//! disk that does not answer holds up what is lent of it, and nothing else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Lend, LendId, LendSpec, Volume};
use elasticstack_core::prelude::*;
use tokio::sync::Mutex as Turn;

use super::configfs::Configfs;
use super::plan::{
    BACKSTORES, Places, Step, TARGETS, held, holding, lend_of_backstore, lending, withdrawing,
};
use crate::store::blocking;

/// How long to wait for a lend to be made or ended before saying that it is not.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lengths of a secret that are taken, in bytes: RFC 7143, section 12.1.3, and the kernel's.
const SECRET: std::ops::RangeInclusive<usize> = 12..=255;

/// Lends by LIO, the target of iSCSI in the kernel. Needs root.
///
/// Drives are lent as the files that they are, write-through, with discard, and without reservations:
/// those would hold towards the one borrower and not towards the drive's others. A drive that grows is
/// longer for its borrower once it is lent again, which LIO does not tell of: the borrower has to ask.
#[derive(Debug)]
pub struct LioLender {
    portal: SocketAddr,
    configfs: Configfs,
    /// Of each lend that something was asked of lately.
    turns: Mutex<Vec<(LendId, Arc<Turn<()>>)>>,
}

impl LioLender {
    /// Lends at `portal`, an address of this host and a port that nobody else listens at. Loads the
    /// kernel's modules and mounts configfs, where that is to be done. From then on LIO answers
    /// no discovery that does not prove itself, whoever made its targets, and listens at `portal`
    /// until another one is opened, whether anything is lent or not.
    ///
    /// # Errors
    /// `NotOffered` if the kernel has no LIO; `Internal` if it can't be used, or not at `portal`.
    pub async fn open(portal: SocketAddr) -> Result<Self> {
        let configfs = blocking(move || {
            let configfs = Configfs::open()?;
            hold(&configfs, portal)?;
            Ok(configfs)
        })
        .await?;
        Ok(Self { portal, configfs, turns: Mutex::default() })
    }

    /// Does `work` on a lend once nothing else is done on it, if that ends before patience does.
    async fn in_turn(
        &self,
        lend: LendId,
        work: impl FnOnce(&Configfs) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let turn = self.turn(lend);
        let configfs = self.configfs.clone();
        let done = async {
            let turn = turn.lock_owned().await;
            blocking(move || {
                let done = work(&configfs);
                drop(turn);
                done
            })
            .await
        };
        tokio::time::timeout(PATIENCE, done).await.unwrap_or_else(|_| {
            let public = "what is lent is still in use: try again";
            Err(Error::new(ErrorKind::Unavailable, public)
                .context(format!("{lend} is not done with after {PATIENCE:?}")))
        })
    }

    fn turn(&self, lend: LendId) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|(_, turn)| Arc::strong_count(turn) > 1);
        if let Some((_, turn)) = turns.iter().find(|(other, _)| *other == lend) {
            return Arc::clone(turn);
        }
        let turn = Arc::default();
        turns.push((lend, Arc::clone(&turn)));
        turn
    }
}

#[async_trait]
impl Lend for LioLender {
    fn portal(&self) -> SocketAddr {
        self.portal
    }

    async fn lend(&self, spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<()> {
        let file = file_of(&*volume)?;
        let secret = spec.secret.expose();
        // LIO takes a password that begins with NULL for none.
        let is_taken = SECRET.contains(&secret.len())
            && !secret.starts_with("NULL")
            && secret.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_taken {
            let public = "a secret of CHAP has 12 to 255 printable characters, not NULL first";
            return Err(Error::new(ErrorKind::InvalidValue, public));
        }
        let (lend, borrower) = (spec.lend, spec.initiator());
        let steps = lending(spec, self.portal, &file, volume.size());
        self.in_turn(lend, move |configfs| {
            let borrowers = configfs.list(&Places::of(lend).borrowers())?;
            if let Some(other) = borrowers.iter().find(|other| **other != borrower) {
                let public = "the drive is lent to another server under this epoch";
                return Err(Error::new(ErrorKind::ChangedMeanwhile, public)
                    .context(format!("{lend} is lent to {other}, not {borrower}")));
            }
            steps.iter().try_for_each(|step| configfs.make(step))
        })
        .await
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        self.in_turn(lend, move |configfs| {
            let places = Places::of(lend);
            let borrowers = configfs.list(&places.borrowers())?;
            let portals = configfs.list(&places.portals())?;
            let steps = withdrawing(lend, &borrowers, &portals);
            steps.iter().try_for_each(|step| configfs.make(step))
        })
        .await
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        let configfs = self.configfs.clone();
        blocking(move || {
            // What a kill left half made or half withdrawn may be one of the two.
            let targets = configfs.list(TARGETS.as_ref())?;
            let backstores = configfs.list(BACKSTORES.as_ref())?;
            let targets = targets.iter().filter_map(|name| LendId::of_target(name));
            let backstores = backstores.iter().filter_map(|name| lend_of_backstore(name));
            let lent: BTreeSet<_> = targets.chain(backstores).collect();
            Ok(lent.into_iter().collect())
        })
        .await
    }
}

/// Has LIO listen at this portal and, but for what is lent elsewhere already, at no other.
fn hold(configfs: &Configfs, portal: SocketAddr) -> Result<()> {
    holding(portal).iter().try_for_each(|step| configfs.make(step)).map_err(|error| {
        Error::internal(format!(
            "listening at {portal}: if `ss -tlnp` shows another's process there, end that; if it \
             shows a listener of no process, a kill left it in the kernel: restart the host or lend \
             at another port"
        ))
        .source(error)
    })?;
    let before = configfs.list(&held())?;
    let before = before.into_iter().filter(|other| *other != portal.to_string());
    before
        .map(|other| Step::NoDirectory(held().join(other)))
        .try_for_each(|step| configfs.make(&step))
}

/// The file that a volume is, in words that the kernel takes.
fn file_of(volume: &dyn Volume) -> Result<String> {
    let Some(Attachment::File(path)) = volume.attachment() else {
        let public = "this drive can't be lent by the kernel's target";
        return Err(Error::new(ErrorKind::NotOffered, public).context("it is no file"));
    };
    let file = path.to_str().filter(|file| file.len() < 256 && !file.contains([',', '\n']));
    file.map(str::to_owned).ok_or_else(|| {
        Error::internal(format!(
            "lending {path:?}: LIO takes names of up to 255 bytes, with no comma and no line's end"
        ))
    })
}
