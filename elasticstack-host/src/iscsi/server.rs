//! The server: its targets, its listener, and what one connection goes through from its login to
//! its end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elasticstack_core::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::chap::Nonce;
use super::link::Link;
use super::login::{Established, Login, Refusal, Reply, refuse};
use super::negotiate::DEFAULT_SEGMENT;
use super::pdu::{Numbers, Operation, Response};
use super::reservation::Port;
use super::session::{self, Opened};
use super::target::{Membership, Target, TargetConfig};
use super::tasks::SessionId;
use super::wire::{Digests, PduReader, PduWriter, WireError};

/// What a server takes on at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most sessions, of all targets; one more is refused.
    pub sessions: usize,
    /// The most discovery sessions, which need no secret; one more is refused.
    pub discoveries: usize,
    /// The most connections that have not logged in; one more waits to be accepted.
    pub logins: usize,
    /// How long a login may take before it is cut.
    pub login_time: Duration,
}

impl Default for Limits {
    /// 1,024 sessions, which take 1 GiB if every one of them does its worst, and 16 discovery
    /// sessions; 64 logins of 10 s.
    fn default() -> Self {
        let login_time = Duration::from_secs(10);
        Self { sessions: 1024, discoveries: 16, logins: 64, login_time }
    }
}

/// An iSCSI server (RFC 7143) of any number of targets. Clones are the same server.
#[derive(Debug, Clone)]
pub struct IscsiServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    targets: Mutex<HashMap<String, Arc<Target>>>,
    sessions: Arc<Semaphore>,
    discoveries: Arc<Semaphore>,
    next_session: AtomicU64,
}

impl IscsiServer {
    /// A server without targets.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let (sessions, discoveries) = (places(limits.sessions), places(limits.discoveries));
        let (targets, next_session) = (Mutex::default(), AtomicU64::new(1));
        Self { inner: Arc::new(Inner { limits, targets, sessions, discoveries, next_session }) }
    }

    /// Lets initiators log in to a target from now on.
    ///
    /// # Errors
    /// `InvalidValue` for what is no iSCSI name, and for a CHAP secret that both sides have (RFC
    /// 7143, section 9.2.1); `DriveInUse` if a target of this name is there, or one that was
    /// revoked still has I/O in flight.
    pub fn add(&self, config: TargetConfig) -> Result<()> {
        if !is_name(&config.name) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "{:?} is no name of a target: it must begin with iqn., eui. or naa. and have \
                     at most 223 lower-case letters, digits, dots, colons and dashes",
                    config.name
                ),
            ));
        }
        // An initiator that knows its own secret could otherwise answer for us.
        let has_one_secret = config.chap.as_ref().is_some_and(|chap| {
            chap.target.as_ref().is_some_and(|ours| ours.secret == chap.initiator.secret)
        });
        if has_one_secret {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "target {:?} and its initiators have the same CHAP secret: give them two",
                    config.name
                ),
            ));
        }
        let mut targets = self.inner.targets();
        if targets.contains_key(&config.name) {
            return Err(Error::new(
                ErrorKind::DriveInUse,
                format!("target {:?} is served already: revoke it first", config.name),
            ));
        }
        targets.insert(config.name.clone(), Arc::new(Target::new(config)));
        Ok(())
    }

    /// Takes a target away: from here on nobody logs in to it, then its sessions are cut, and when
    /// this returns none of their I/O is in flight. A target that is not there is no error.
    ///
    /// # Cancel safety
    /// It takes as long as the volume's I/O does. Given up on, nobody gets in all the same; to know
    /// of the I/O, call it again.
    pub async fn revoke(&self, name: &str) {
        let Some(target) = self.inner.targets().get(name).cloned() else { return };
        target.revoke().await;
        let mut targets = self.inner.targets();
        if targets.get(name).is_some_and(|known| Arc::ptr_eq(known, &target)) {
            targets.remove(name);
        }
    }

    /// Tells the initiators of a target that its volume has another length now. A target that is not
    /// there is no error.
    pub fn resized(&self, name: &str) {
        let target = self.inner.targets().get(name).cloned();
        if let Some(target) = target {
            target.unit.resized();
        }
    }

    /// Serves initiators that connect to `listener`.
    ///
    /// # Errors
    /// `Internal` if the listener fails for good.
    ///
    /// # Cancel safety
    /// Dropping it cuts every connection that came by this listener.
    pub async fn serve(&self, listener: TcpListener) -> Result<()> {
        let cut = CancellationToken::new();
        let _guard = cut.clone().drop_guard();
        let logins = self.inner.limits.logins.clamp(1, Semaphore::MAX_PERMITS);
        let logins = Arc::new(Semaphore::new(logins));
        loop {
            let Ok(login) = Arc::clone(&logins).acquire_owned().await else { return Ok(()) };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "cannot take a connection of an initiator now");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) => {
                    return Err(Error::internal("accepting initiators").source(error));
                }
            };
            let (inner, cut) = (Arc::clone(&self.inner), cut.clone());
            tokio::spawn(async move {
                match inner.connection(stream, login, &cut).await {
                    Ok(()) | Err(EndError::Wire(WireError::Closed)) => {}
                    Err(error) => {
                        let error = Causes(&error);
                        tracing::info!(%peer, %error, "an initiator's connection was cut");
                    }
                }
            });
        }
    }
}

/// Why a connection ended before its logout.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error("the session ended")]
    Wire(#[from] WireError),
    #[error("the login was refused")]
    Refused(#[source] Refusal),
    #[error("the login was not done in {} s", .0.as_secs())]
    Slow(Duration),
    #[error("there are no random bytes for a challenge: {0}")]
    Random(getrandom::Error),
    #[error("the connection can't be set up")]
    Socket(#[source] std::io::Error),
}

/// Prints an error with all of its sources.
struct Causes<'a>(&'a EndError);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut error: &dyn std::error::Error = self.0;
        write!(f, "{error}")?;
        while let Some(source) = error.source() {
            write!(f, ": {source}")?;
            error = source;
        }
        Ok(())
    }
}

/// What a session may know of the server beside its target.
pub(super) struct Portal {
    inner: Arc<Inner>,
    address: SocketAddr,
    initiator: String,
}

impl Portal {
    /// The names of the targets that the initiator may log in to.
    pub(super) fn targets(&self) -> Vec<String> {
        let targets = self.inner.targets();
        let mut names: Vec<_> = targets
            .values()
            .filter(|target| target.admits(&self.initiator))
            .map(|target| target.name().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Where they are reached: as this connection was.
    pub(super) fn address(&self) -> String {
        format!("{},{}", self.address, super::login::PORTAL_GROUP)
    }
}

/// A login that went well.
struct LoggedIn {
    membership: Option<Membership>,
    portal: Portal,
    opened: Opened,
    digests: Digests,
    _place: OwnedSemaphorePermit,
}

impl Inner {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        login: OwnedSemaphorePermit,
        cut: &CancellationToken,
    ) -> Result<(), EndError> {
        stream.set_nodelay(true).map_err(EndError::Socket)?;
        let address = stream.local_addr().map_err(EndError::Socket)?;
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) = (PduReader::new(reader), PduWriter::new(writer));
        let time = self.limits.login_time;
        let logged_in = tokio::select! {
            () = cut.cancelled() => return Ok(()),
            done = timeout(time, self.log_in(&mut reader, &mut writer, address)) => {
                done.map_err(|_| EndError::Slow(time))??
            }
        };
        drop(login);
        let LoggedIn { membership, portal, opened, digests, _place } = logged_in;
        (reader.digests, writer.digests) = (digests, digests);
        let who = (&portal, membership.as_ref());
        let served = session::serve(reader, writer, opened, who, cut).await;
        if let Some(membership) = membership {
            membership.leave().await;
        }
        Ok(served?)
    }

    /// Goes through the login phase.
    async fn log_in<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        self: &Arc<Self>,
        reader: &mut PduReader<R>,
        writer: &mut PduWriter<W>,
        address: SocketAddr,
    ) -> Result<LoggedIn, EndError> {
        let mut nonce: Nonce = [0; 17];
        getrandom::fill(&mut nonce).map_err(EndError::Random)?;
        let id = self.next_session.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = id.to_be_bytes();
        let tsih = u16::from_be_bytes([high, low]).max(1);
        let mut login = Login::new(|name: &str| self.targets().get(name).cloned(), nonce, tsih);
        let mut stat_sn = 0_u32;
        loop {
            let (_, request) = reader.header().await?;
            let Operation::Login(asked) = request.operation else {
                return Err(WireError::Protocol("something else than a login at first").into());
            };
            let length = request.data_length;
            if usize::try_from(DEFAULT_SEGMENT).is_ok_and(|longest| length > longest) {
                return Err(WireError::Protocol("a login's data segment is too long").into());
            }
            let mut segment = BytesMut::with_capacity(length);
            reader.segment(&mut segment, length).await?;
            let tag = request.initiator_task_tag;
            let mut reply = login.step(tag, &asked, &segment);
            let mut opened = None;
            if let Some(Ok(established)) = reply.end.take() {
                match self.open(SessionId(id), established, (request.cmd_sn, address)).await {
                    Ok(done) => opened = Some(done),
                    Err(refusal) => reply = refuse(tag, &asked, refusal),
                }
            }
            let Reply { response, text, end } = reply;
            let (exp_cmd_sn, max_cmd_sn) = match &opened {
                Some(opened) => opened.opened.link.window.numbers(),
                None => (request.cmd_sn, request.cmd_sn),
            };
            send(writer, response, text, Numbers { stat_sn, exp_cmd_sn, max_cmd_sn }).await?;
            stat_sn = stat_sn.wrapping_add(1);
            if let Some(Err(refusal)) = end {
                return Err(EndError::Refused(refusal));
            }
            if let Some(mut opened) = opened {
                opened.opened.stat_sn = stat_sn;
                return Ok(opened);
            }
        }
    }

    /// Makes a session of a login that went well.
    async fn open(
        self: &Arc<Self>,
        id: SessionId,
        established: Established,
        (cmd_sn, address): (u32, SocketAddr),
    ) -> Result<LoggedIn, Refusal> {
        let Established { initiator, isid, target, parameters } = established;
        let places = if target.is_some() { &self.sessions } else { &self.discoveries };
        let place = Arc::clone(places).try_acquire_owned().map_err(|_| Refusal::TooManySessions)?;
        let membership = match target {
            Some(target) => {
                let port = Port { initiator: initiator.clone(), isid };
                Some(target.enter(id, port).await)
            }
            None => None,
        };
        let digests = Digests { header: parameters.header_digest, data: parameters.data_digest };
        let (link, queue) = Link::new(parameters, cmd_sn);
        Ok(LoggedIn {
            membership,
            portal: Portal { inner: Arc::clone(self), address, initiator },
            opened: Opened { link: Arc::new(link), queue, stat_sn: 0 },
            digests,
            _place: place,
        })
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<String, Arc<Target>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a PDU of the login phase.
async fn send<W: AsyncWrite + Unpin>(
    writer: &mut PduWriter<W>,
    response: Response,
    text: Vec<u8>,
    numbers: Numbers,
) -> Result<(), WireError> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    writer.keep(&response.header(numbers, length), Bytes::from(text));
    writer.flush().await
}

/// Whether a text is an iSCSI name (RFC 7143, section 4.2.7).
fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".:-".contains(c);
    ["iqn.", "eui.", "naa."].iter().any(|kind| name.starts_with(kind))
        && name.len() <= 223
        && name.chars().all(is_allowed)
}

/// Whether a failed accept is about one connection, or about a shortage that passes.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::ConnectionAborted | Io::ConnectionReset | Io::Interrupted)
        || matches!(
            rustix::io::Errno::from_io_error(error),
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOBUFS)
        )
}
