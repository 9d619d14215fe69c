//! A lender in the process of whoever lends: our target of iSCSI, for any volume. Its lends end with
//! the process, or when it is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Lend, LendId, LendSpec, Volume};
use elasticstack_core::prelude::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::iscsi::{Chap, Credentials, Identity, IscsiServer, Limits, TargetConfig};

/// How long a withdrawal waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// The shortest secret of CHAP (RFC 7143, section 12.1.3), in bytes.
const SHORTEST_SECRET: usize = 12;

/// Lends volumes by our own target of iSCSI, in this process.
pub struct InProcessLender {
    server: IscsiServer,
    portal: SocketAddr,
    lends: Mutex<BTreeMap<LendId, Lent>>,
    serving: JoinHandle<()>,
}

struct Lent {
    spec: LendSpec,
    volume: Arc<dyn Volume>,
    /// What its borrower was told of the drive's length.
    size: Bytes,
    is_ending: bool,
}

impl InProcessLender {
    /// A lender that lends nothing yet, whose borrowers connect to `listener`. Needs a runtime.
    ///
    /// # Errors
    /// `Internal` if the listener does not tell its address.
    pub fn new(listener: TcpListener) -> Result<Self> {
        let portal = listener
            .local_addr()
            .map_err(|error| Error::internal("asking where borrowers connect").source(error))?;
        let server = IscsiServer::new(Limits::default());
        let own = server.clone();
        let serving = tokio::spawn(async move {
            if let Err(error) = own.serve(listener).await {
                tracing::error!(error = %Chain(&error), "borrowers can't connect any more");
            }
        });
        Ok(Self { server, portal, lends: Mutex::default(), serving })
    }

    /// What serves the lends, to be served elsewhere too.
    pub(super) fn server(&self) -> &IscsiServer {
        &self.server
    }

    fn lends(&self) -> MutexGuard<'_, BTreeMap<LendId, Lent>> {
        self.lends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProcessLender {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl fmt::Debug for InProcessLender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessLender").field("portal", &self.portal).finish_non_exhaustive()
    }
}

#[async_trait]
impl Lend for InProcessLender {
    fn portal(&self) -> SocketAddr {
        self.portal
    }

    async fn lend(&self, spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<()> {
        let mut lends = self.lends();
        match lends.get_mut(&spec.lend) {
            Some(lent) if lent.is_ending => Err(draining(spec.lend)),
            Some(lent) if lent.spec == *spec => {
                let size = lent.volume.size();
                if std::mem::replace(&mut lent.size, size) != size {
                    self.server.resized(&spec.lend.target());
                }
                Ok(())
            }
            Some(_) => Err(Error::new(
                ErrorKind::ChangedMeanwhile,
                format!("{} is lent otherwise: withdraw that first", spec.lend),
            )),
            None => {
                self.server.add(config(spec, Arc::clone(&volume))?)?;
                let (spec, size) = (spec.clone(), volume.size());
                lends.insert(spec.lend, Lent { spec, volume, size, is_ending: false });
                Ok(())
            }
        }
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        match self.lends().get_mut(&lend) {
            Some(lent) => lent.is_ending = true,
            None => return Ok(()),
        }
        let target = lend.target();
        timeout(DRAIN, self.server.revoke(&target)).await.map_err(|_| draining(lend))?;
        self.lends().remove(&lend);
        Ok(())
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        Ok(self.lends().keys().copied().collect())
    }
}

/// The target of a lend.
fn config(spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<TargetConfig> {
    if spec.secret.expose().len() < SHORTEST_SECRET {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!("the secret of {} is shorter than {SHORTEST_SECRET} bytes", spec.lend),
        ));
    }
    let initiator = Credentials { user: spec.initiator(), secret: spec.secret.clone() };
    Ok(TargetConfig {
        name: spec.lend.target(),
        volume,
        identity: Identity::of(&spec.lend.drive.to_string()),
        chap: Some(Chap { initiator, target: None }),
        initiators: Some(vec![spec.initiator()]),
        writing: spec.writing,
    })
}

fn draining(lend: LendId) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("I/O of {lend} is still in flight: nobody gets in any more, withdraw it again"),
    )
}
