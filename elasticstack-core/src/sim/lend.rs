//! Drives that are lent to nobody but the test: [`SimLend`], and the hosts that do so to each other:
//! [`SimNetwork`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::lock;
use crate::block::{Attachment, Borrowing, Lend, LendId, LendSpec, Volume, Writing};
use crate::error::{Error, ErrorKind, Result};
use crate::units::Bytes;

/// A lender without a network, whose borrowers call [`SimLend::borrow`]. Clones are the same lender,
/// and so are the lives of a process that lends by it.
#[derive(Clone)]
pub struct SimLend {
    portal: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// The storage network of simulated hosts. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct SimNetwork(Arc<Mutex<BTreeMap<SocketAddr, SimLend>>>);

impl SimNetwork {
    /// The lender at this place of the network, made when it is first asked for.
    #[must_use]
    pub fn lender(&self, portal: SocketAddr) -> SimLend {
        let mut lenders = lock(&self.0);
        lenders.entry(portal).or_insert_with(|| SimLend::at(portal)).clone()
    }

    /// Logs in as a borrower does, at its portal.
    ///
    /// # Errors
    /// `Unavailable` if nobody is there; as [`SimLend::borrow`].
    pub fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        let lender = lock(&self.0).get(&borrowing.portal).cloned();
        let nobody = || format!("nobody lends drives at {}", borrowing.portal);
        lender.ok_or_else(|| Error::new(ErrorKind::Unavailable, nobody()))?.borrow(borrowing)
    }
}

#[derive(Default)]
struct State {
    lends: BTreeMap<LendId, Lent>,
    /// Counts lends, so that a borrower of an older one has nothing of a newer one.
    births: u64,
}

struct Lent {
    spec: LendSpec,
    volume: Arc<dyn Volume>,
    /// What its borrower knows of the drive's size.
    size: Bytes,
    birth: u64,
    in_flight: usize,
    is_ending: bool,
}

impl Default for SimLend {
    fn default() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 3260)))
    }
}

impl SimLend {
    fn at(portal: SocketAddr) -> Self {
        Self { portal, state: Arc::default() }
    }

    /// Ends the target's process, as a restart of its host does: nothing is lent any more.
    pub fn crash(&self) {
        lock(&self.state).lends.clear();
    }

    /// Logs in as a borrower does.
    ///
    /// # Errors
    /// `NotFound` if there is no such lend; `BadCredentials` if it is another's.
    pub fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        let state = lock(&self.state);
        let lent = state.lends.get(&borrowing.lend).filter(|lent| !lent.is_ending);
        let Some(lent) = lent else {
            return Err(Error::new(ErrorKind::NotFound, format!("no lend of {}", borrowing.lend)));
        };
        if (lent.spec.borrower, &lent.spec.secret) != (borrowing.borrower, &borrowing.secret) {
            return Err(Error::new(
                ErrorKind::BadCredentials,
                format!("{} is lent to somebody else", borrowing.lend),
            ));
        }
        let (lender, birth, size) = (self.clone(), lent.birth, Mutex::new(lent.size));
        Ok(Arc::new(Borrowed { lender, lend: borrowing.lend, birth, size }))
    }
}

impl fmt::Debug for SimLend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(lock(&self.state).lends.keys()).finish()
    }
}

#[async_trait]
impl Lend for SimLend {
    fn portal(&self) -> SocketAddr {
        self.portal
    }

    async fn lend(&self, spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<()> {
        let State { lends, births } = &mut *lock(&self.state);
        match lends.get_mut(&spec.lend) {
            Some(lent) if lent.spec == *spec && !lent.is_ending => {
                lent.size = volume.size();
                Ok(())
            }
            Some(_) => Err(Error::new(
                ErrorKind::ChangedMeanwhile,
                format!("{} is lent otherwise: withdraw that first", spec.lend),
            )),
            None => {
                *births += 1;
                let (spec, size, birth) = (spec.clone(), volume.size(), *births);
                let lent = Lent { spec, volume, size, birth, in_flight: 0, is_ending: false };
                lends.insert(lent.spec.lend, lent);
                Ok(())
            }
        }
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        let lends = &mut lock(&self.state).lends;
        match lends.get_mut(&lend) {
            Some(lent) if lent.in_flight > 0 => {
                lent.is_ending = true;
                Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("I/O of {lend} is still in flight: call again"),
                ))
            }
            _ => {
                lends.remove(&lend);
                Ok(())
            }
        }
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        Ok(lock(&self.state).lends.keys().copied().collect())
    }
}

/// A lent drive, as its borrower sees it.
struct Borrowed {
    lender: SimLend,
    lend: LendId,
    birth: u64,
    /// The last one known.
    size: Mutex<Bytes>,
}

/// One access to a lent drive, until this is dropped.
struct Access<'a> {
    borrowed: &'a Borrowed,
    volume: Arc<dyn Volume>,
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        self.borrowed.with(|lent| lent.in_flight = lent.in_flight.saturating_sub(1));
    }
}

impl Borrowed {
    fn with<T>(&self, work: impl FnOnce(&mut Lent) -> T) -> Option<T> {
        let lends = &mut lock(&self.lender.state).lends;
        lends.get_mut(&self.lend).filter(|lent| lent.birth == self.birth).map(work)
    }

    fn enter(&self, wants: Writing) -> Result<Access<'_>> {
        let entered = self.with(|lent| {
            if wants == Writing::Allowed && lent.spec.writing == Writing::Refused {
                return Err(Error::new(
                    ErrorKind::OutOfScope,
                    "the drive is lent for reading only",
                ));
            }
            if lent.is_ending {
                return Ok(None);
            }
            lent.in_flight += 1;
            Ok(Some(Arc::clone(&lent.volume)))
        });
        match entered.transpose()?.flatten() {
            Some(volume) => Ok(Access { borrowed: self, volume }),
            None => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{} is not lent any more", self.lend),
            )),
        }
    }
}

#[async_trait]
impl Volume for Borrowed {
    fn size(&self) -> Bytes {
        let now = self.with(|lent| lent.size);
        let mut size = lock(&self.size);
        *size = now.unwrap_or(*size);
        *size
    }

    fn block_size(&self) -> Bytes {
        self.with(|lent| lent.volume.block_size()).unwrap_or(Bytes::from_kib(4))
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        let access = self.enter(Writing::Refused)?;
        access.volume.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        let access = self.enter(Writing::Allowed)?;
        access.volume.write_at(offset, data).await?;
        access.volume.flush().await
    }

    async fn flush(&self) -> Result<()> {
        let access = self.enter(Writing::Refused)?;
        access.volume.flush().await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        let access = self.enter(Writing::Allowed)?;
        access.volume.discard(offset, length).await?;
        access.volume.flush().await
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}
