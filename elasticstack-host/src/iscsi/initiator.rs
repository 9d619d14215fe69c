//! An initiator: a drive that another host lends, as a [`Volume`].
//!
//! It logs in as the lend's borrower, with CHAP and, where the target can, a digest over each
//! header. A session that breaks off is not mended, because whether its last commands were done is
//! then for whoever sent them to find out: from there on everything is `Unavailable`.
//!
//! What the target sends comes from outside: it can end a session, no more.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use elasticstack_core::block::{Attachment, Borrowing, Volume};
use elasticstack_core::prelude::*;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::chap::Credentials;
use super::field::{put, u8_at, u32_at, u64_at};
use super::initiator_login::{Agreed, Breach, Login, LoginError, Next};
use super::initiator_pdu::Received;
use super::initiator_session::{Data, Ended, Lost, Session};
use super::negotiate::{DEFAULT_SEGMENT, Digest};
use super::pdu::{LoginRequest, Numbers, Operation, Request, Response};
use super::wire::{Digests, PduReader, PduWriter, WireError};

/// How long a connection may take, and a login after it.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const LOGIN_TIME: Duration = Duration::from_secs(10);

/// How long a logout may take before the connection is cut.
const LOGOUT_TIME: Duration = Duration::from_secs(2);

/// The most that one command reads or writes, in bytes.
const PIECE: u64 = 512 << 10;

/// The most blocks that one command frees, unless the target says less.
const FREED: u32 = 1 << 20;

/// How often a command is repeated because the target has something to tell first.
const ATTENTIONS: usize = 10;

/// Checks that a lend can be used: connects to its portal, logs in as its borrower, asks how long
/// the drive is, and logs out. Others of the borrower's sessions are left alone.
///
/// # Errors
/// `Unavailable` if the portal can't be reached or breaks off; `NotFound` if there is no such
/// target; `BadCredentials` if it does not let this borrower in. The error's sources say which step
/// failed, and what to look at.
pub async fn probe(borrowing: &Borrowing) -> Result<Bytes> {
    let initiator = Initiator::login(borrowing).await?;
    let size = initiator.size();
    initiator.log_out().await;
    Ok(size)
}

/// What an initiator logs in to, and as whom.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where the target is served.
    pub portal: SocketAddr,
    /// Its name.
    pub target: String,
    /// Which of its logical units, below 256.
    pub lun: u8,
    /// The initiator's name, which is the one of CHAP too, and the secret; an empty one is none.
    pub own: Credentials,
}

impl From<&Borrowing> for Address {
    fn from(borrowing: &Borrowing) -> Self {
        let (user, secret) = (borrowing.initiator(), borrowing.secret.clone());
        let own = Credentials { user, secret };
        Self { portal: borrowing.portal, target: borrowing.lend.target(), lun: 0, own }
    }
}

/// A session with one target, one of whose logical units is the volume. Dropping it cuts the connection.
#[derive(Debug)]
pub struct Initiator {
    session: Arc<Session>,
    size: AtomicU64,
    /// The length of a logical and of a physical block, in bytes.
    block: u64,
    physical: Bytes,
    /// The most blocks that the target frees by one command; 0 if it frees none.
    freed: u32,
    /// Entered alone by what changes less than a block, which is read first.
    edges: RwLock<()>,
}

impl Initiator {
    /// Logs in to a lend's target.
    ///
    /// # Errors
    /// As [`probe`].
    ///
    /// # Cancel safety
    /// Dropping it cuts the connection.
    pub async fn login(borrowing: &Borrowing) -> Result<Self> {
        Self::login_to(&borrowing.into()).await
    }

    /// Logs in to any target.
    ///
    /// # Errors
    /// As [`probe`].
    ///
    /// # Cancel safety
    /// Dropping it cuts the connection.
    pub async fn login_to(address: &Address) -> Result<Self> {
        let session = log_in(address).await?;
        let mut initiator = Self {
            session,
            size: AtomicU64::new(0),
            block: 512,
            physical: Bytes::from_kib(4),
            freed: 0,
            edges: RwLock::default(),
        };
        let capacity = initiator.ask(READ_CAPACITY, 32).await?;
        let (block, size) = geometry(&capacity)?;
        initiator.block = block;
        initiator.size.store(size, Ordering::Release);
        let physical = block.checked_shl(u32::from(u8_at(&capacity, 13) & 0x0f));
        if let Some(physical) = physical.and_then(|physical| Bytes::try_from(physical).ok()) {
            initiator.physical = physical;
        }
        // Only what surely reads as zeros afterwards is freed (LBPME and LBPRZ).
        if u8_at(&capacity, 14) & 0xc0 == 0xc0 {
            initiator.freed = initiator.freed_at_once().await;
        }
        Ok(initiator)
    }

    /// Ends the session in good order.
    pub async fn log_out(self) {
        let _ = timeout(LOGOUT_TIME, self.session.log_out()).await;
    }

    /// How many blocks one WRITE SAME may free, by the page of limits (SBC-3, section 6.6.4).
    async fn freed_at_once(&self) -> u32 {
        const PAGE: u8 = 0xb0;
        match self.ask(cdb6(0x12, [1, PAGE, 0, 64, 0]), 64).await {
            Ok(limits) if limits.len() >= 44 => match u64_at(&limits, 36) {
                0 => FREED,
                most => u32::try_from(most).map_or(FREED, |most| most.min(FREED)),
            },
            _ => 0,
        }
    }

    /// Asks for an answer of at most `length` bytes.
    async fn ask(&self, cdb: [u8; 16], length: usize) -> Result<bytes::Bytes> {
        self.run(cdb, Data::Read(length)).await
    }

    /// Does a command, once the target has told all that it has to tell.
    async fn run(&self, cdb: [u8; 16], data: Data) -> Result<bytes::Bytes> {
        for _ in 0..ATTENTIONS {
            let ended = self.session.command(cdb, data.clone()).await.map_err(lost)?;
            match Outcome::of(&ended) {
                Outcome::Good => return Ok(ended.data),
                Outcome::Attention => {}
                Outcome::Resized => self.measure().await?,
                Outcome::Failed(error) => return Err(error),
            }
        }
        Err(unusable("it has no end of unit attentions"))
    }

    /// Learns the drive's size anew.
    async fn measure(&self) -> Result<()> {
        for _ in 0..ATTENTIONS {
            let command = self.session.command(READ_CAPACITY, Data::Read(32));
            let ended = command.await.map_err(lost)?;
            match Outcome::of(&ended) {
                Outcome::Good => {
                    let (block, size) = geometry(&ended.data)?;
                    if block != self.block {
                        return Err(unusable("the length of its blocks changed"));
                    }
                    self.size.store(size, Ordering::Release);
                    return Ok(());
                }
                Outcome::Attention | Outcome::Resized => {}
                Outcome::Failed(error) => return Err(error),
            }
        }
        Err(unusable("it has no end of unit attentions"))
    }

    /// Checks a range of bytes, and tells where it ends.
    async fn check(&self, offset: Bytes, length: u64) -> Result<u64> {
        let end = offset.get().checked_add(length);
        let fits = || end.filter(|end| *end <= self.size.load(Ordering::Acquire));
        if let Some(end) = fits() {
            return Ok(end);
        }
        // It may have grown.
        self.measure().await?;
        fits().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidValue,
                format!("{length} bytes from {} on are past the end of the drive", offset.get()),
            )
        })
    }

    /// Reads whole blocks, as many as there is room for in `into`.
    async fn read_blocks(&self, mut offset: u64, into: &mut [u8]) -> Result<()> {
        let piece = usize::try_from(PIECE).unwrap_or(usize::MAX);
        for into in into.chunks_mut(piece) {
            let cdb = self.cdb16(0x88, offset, length_of(into.len()));
            let data = self.run(cdb, Data::Read(into.len())).await?;
            if data.len() != into.len() {
                return Err(unusable("it reads less than what was asked for"));
            }
            into.copy_from_slice(&data);
            offset = offset.saturating_add(length_of(into.len()));
        }
        Ok(())
    }

    /// Writes whole blocks.
    async fn write_blocks(&self, mut offset: u64, mut data: bytes::Bytes) -> Result<()> {
        while !data.is_empty() {
            let most = usize::try_from(PIECE).unwrap_or(usize::MAX);
            let now = data.split_to(most.min(data.len()));
            let length = length_of(now.len());
            self.run(self.cdb16(0x8a, offset, length), Data::Write(now)).await?;
            offset = offset.saturating_add(length);
        }
        Ok(())
    }

    /// Writes to less than whole blocks, which are read first.
    async fn write_within(&self, start: u64, end: u64, data: &[u8]) -> Result<()> {
        let (first, after) = (self.floor(start), self.floor(end.saturating_add(self.block - 1)));
        let mut blocks = self.zeros(after.saturating_sub(first));
        self.read_blocks(first, &mut blocks).await?;
        let at = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        for (to, from) in blocks.iter_mut().skip(at).zip(data) {
            *to = *from;
        }
        self.write_blocks(first, blocks.freeze()).await
    }

    /// Frees whole blocks, or writes zeros to them where the target frees none.
    async fn free_blocks(&self, mut offset: u64, end: u64) -> Result<()> {
        const UNMAP: u8 = 0x08;
        let freed = u64::from(self.freed).saturating_mul(self.block);
        while offset < end {
            let left = end.saturating_sub(offset);
            let now = if freed > 0 { left.min(freed) } else { left.min(PIECE) };
            if freed > 0 {
                let mut cdb = self.cdb16(0x93, offset, now);
                put(&mut cdb, 1, [UNMAP]);
                self.run(cdb, Data::Write(self.zeros(self.block).freeze())).await?;
            } else {
                self.write_blocks(offset, self.zeros(now).freeze()).await?;
            }
            offset = offset.saturating_add(now);
        }
        Ok(())
    }

    /// A command on whole blocks.
    fn cdb16(&self, operation: u8, offset: u64, length: u64) -> [u8; 16] {
        let mut cdb = [0; 16];
        put(&mut cdb, 0, [operation]);
        put(&mut cdb, 2, (offset / self.block).to_be_bytes());
        let blocks = u32::try_from(length / self.block).unwrap_or(u32::MAX);
        put(&mut cdb, 10, blocks.to_be_bytes());
        cdb
    }

    /// The last beginning of a block at or before `offset`.
    fn floor(&self, offset: u64) -> u64 {
        offset / self.block * self.block
    }

    fn zeros(&self, length: u64) -> BytesMut {
        BytesMut::zeroed(usize::try_from(length).unwrap_or(0))
    }
}

impl Drop for Initiator {
    fn drop(&mut self) {
        self.session.cut();
    }
}

#[async_trait]
impl Volume for Initiator {
    fn size(&self) -> Bytes {
        Bytes::try_from(self.size.load(Ordering::Acquire)).unwrap_or(Bytes::ZERO)
    }

    fn block_size(&self) -> Bytes {
        self.physical
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        let end = self.check(offset, length_of(buffer.len())).await?;
        if buffer.is_empty() {
            return self.run(TEST_UNIT_READY, Data::None).await.map(drop);
        }
        let start = offset.get();
        let (first, after) = (self.floor(start), self.floor(end.saturating_add(self.block - 1)));
        if (first, after) == (start, end) {
            return self.read_blocks(start, buffer).await;
        }
        let mut blocks = self.zeros(after.saturating_sub(first));
        self.read_blocks(first, &mut blocks).await?;
        let at = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        for (to, from) in buffer.iter_mut().zip(blocks.iter().skip(at)) {
            *to = *from;
        }
        Ok(())
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        let end = self.check(offset, length_of(data.len())).await?;
        let start = offset.get();
        if data.is_empty() {
            return Ok(());
        }
        if self.floor(start) == start && self.floor(end) == end {
            let _shared = self.edges.read().await;
            return self.write_blocks(start, data).await;
        }
        let _alone = self.edges.write().await;
        self.write_within(start, end, &data).await
    }

    async fn flush(&self) -> Result<()> {
        self.run(self.cdb16(0x91, 0, 0), Data::None).await.map(drop)
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        let end = self.check(offset, length.get()).await?;
        let start = offset.get();
        let (inner, after) = (self.floor(start.saturating_add(self.block - 1)), self.floor(end));
        if inner > after {
            let zeros = self.zeros(end.saturating_sub(start));
            let _alone = self.edges.write().await;
            return self.write_within(start, end, &zeros).await;
        }
        for (from, to) in [(start, inner), (after, end)] {
            if from < to {
                let zeros = self.zeros(to.saturating_sub(from));
                let _alone = self.edges.write().await;
                self.write_within(from, to, &zeros).await?;
            }
        }
        let _shared = self.edges.read().await;
        self.free_blocks(inner, after).await
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

const TEST_UNIT_READY: [u8; 16] = [0; 16];

/// READ CAPACITY (16), with room for an answer of 32 bytes.
const READ_CAPACITY: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];

fn cdb6(operation: u8, rest: [u8; 5]) -> [u8; 16] {
    let mut cdb = [0; 16];
    put(&mut cdb, 0, [operation]);
    put(&mut cdb, 1, rest);
    cdb
}

/// The length of a block and of the drive in bytes, from the answer to READ CAPACITY (16).
fn geometry(answer: &[u8]) -> Result<(u64, u64)> {
    let block = u64::from(u32_at(answer, 8));
    if answer.len() < 16 || !block.is_power_of_two() || !(512..=64 << 10).contains(&block) {
        return Err(unusable("it tells of blocks that are none"));
    }
    let size = u64_at(answer, 0).checked_add(1).and_then(|blocks| blocks.checked_mul(block));
    let size = size.filter(|size| Bytes::try_from(*size).is_ok());
    Ok((block, size.ok_or_else(|| unusable("it tells of more blocks than there can be"))?))
}

/// What the end of a command means to whoever asked for it.
enum Outcome {
    Good,
    /// The target had something to tell, and did nothing.
    Attention,
    /// It had to tell that the drive has another size now.
    Resized,
    Failed(Error),
}

impl Outcome {
    fn of(ended: &Ended) -> Self {
        const GOOD: u8 = 0x00;
        const CHECK_CONDITION: u8 = 0x02;
        const RESERVATION_CONFLICT: u8 = 0x18;
        match ended.status {
            GOOD => Self::Good,
            CHECK_CONDITION => Self::of_sense(&ended.data),
            RESERVATION_CONFLICT => Self::Failed(Error::new(
                ErrorKind::Fenced,
                "the drive is reserved for somebody else or taken over under a newer epoch",
            )),
            status => Self::Failed(
                Error::new(ErrorKind::Unavailable, "the drive is busy on its host: try again")
                    .context(format!("the target ended a command with status {status:#04x}")),
            ),
        }
    }

    /// By sense data in fixed or descriptor format (SPC-4, section 4.5).
    fn of_sense(sense: &[u8]) -> Self {
        let (key, code, qualifier) = match u8_at(sense, 0) & 0x7f {
            0x72 | 0x73 => (u8_at(sense, 1) & 0x0f, u8_at(sense, 2), u8_at(sense, 3)),
            _ => (u8_at(sense, 2) & 0x0f, u8_at(sense, 12), u8_at(sense, 13)),
        };
        let told = format!("the target tells sense {key:#x}, {code:#04x}, {qualifier:#04x}");
        let failed = |kind, public| Self::Failed(Error::new(kind, public).context(told.clone()));
        match (key, code, qualifier) {
            (0x6, 0x2a, 0x09) => Self::Resized,
            (0x6, ..) => Self::Attention,
            (0x2, ..) => failed(
                ErrorKind::Unavailable,
                "the drive can't be used on its host now: try again later",
            ),
            (0x5, 0x21, _) => {
                failed(ErrorKind::InvalidValue, "the drive ends before what was asked for")
            }
            (0x7, 0x27, 0x07) => {
                failed(ErrorKind::NoCapacity, "the array that the drive lies on is full")
            }
            (0x7, ..) => failed(ErrorKind::OutOfScope, "the drive is lent for reading only"),
            _ => Self::Failed(Error::internal(told)),
        }
    }
}

fn lost(lost: Lost) -> Error {
    Error::new(ErrorKind::Unavailable, "the drive can't be used over the network now").source(lost)
}

/// The target does what no disk does.
fn unusable(what: &'static str) -> Error {
    Error::internal(format!("a lent drive can't be used: {what}"))
}

fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Connects and goes through the login.
async fn log_in(address: &Address) -> Result<Arc<Session>, LoginError> {
    let portal = address.portal;
    let stream = match timeout(CONNECT_TIME, TcpStream::connect(portal)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(LoginError::Refused(portal));
        }
        Ok(Err(error)) => return Err(LoginError::NoRoute(portal, error)),
        Err(_) => return Err(LoginError::Silent(portal, CONNECT_TIME.as_secs())),
    };
    timeout(LOGIN_TIME, negotiate(address, stream))
        .await
        .unwrap_or(Err(LoginError::Silent(portal, LOGIN_TIME.as_secs())))
}

async fn negotiate(address: &Address, stream: TcpStream) -> Result<Arc<Session>, LoginError> {
    let portal = address.portal;
    let broken = |breach: Breach| LoginError::Broken(portal, breach);
    stream.set_nodelay(true).map_err(|error| LoginError::NoRoute(portal, error))?;
    let (reader, writer) = stream.into_split();
    let (mut reader, mut writer) = (PduReader::new(reader), PduWriter::new(writer));
    // A random one, so that no other session of this name is taken for this one.
    let mut isid = [0x80, 0, 0, 0, 0, 0];
    getrandom::fill(isid.get_mut(1..).unwrap_or_default()).map_err(LoginError::Random)?;
    let mut login = Login::new(address.own.clone(), address.target.clone(), isid);
    let (mut request, mut text) = login.begin();
    loop {
        let asked = ask(&mut reader, &mut writer, request, text).await;
        let (received, segment) = asked.map_err(|error| broken(error.into()))?;
        if let Response::Login { status: (class, detail), .. } = received.response
            && (class, detail) != (0, 0)
        {
            return Err(refused(address, class, detail));
        }
        match login.step(&received.response, &segment).map_err(broken)? {
            Next::Ask(next, answer) => (request, text) = (next, answer),
            Next::Done(agreed) => {
                let lun = u64::from(address.lun) << 48;
                return Ok(begin((reader, writer), (agreed, lun), received.numbers));
            }
        }
    }
}

fn begin(
    (mut reader, mut writer): (PduReader<OwnedReadHalf>, PduWriter<OwnedWriteHalf>),
    (agreed, lun): (Agreed, u64),
    numbers: Numbers,
) -> Arc<Session> {
    let digests = Digests { header: agreed.header_digest, data: Digest::None };
    (reader.digests, writer.digests) = (digests, digests);
    let (session, work) = Session::begin((reader, writer), (agreed, lun), numbers);
    tokio::spawn(work);
    session
}

/// Sends one request of a login and reads its response.
async fn ask<R, W>(
    reader: &mut PduReader<R>,
    writer: &mut PduWriter<W>,
    login: LoginRequest,
    text: Vec<u8>,
) -> Result<(Received, BytesMut), WireError>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let request = Request {
        ahs_length: 0,
        data_length: text.len(),
        initiator_task_tag: 0,
        immediate: true,
        cmd_sn: 1,
        operation: Operation::Login(login),
    };
    writer.keep(&request.header(0), text.into());
    writer.flush().await?;
    let received = Response::parse(&reader.bytes().await?).map_err(WireError::Header)?;
    let length = received.data_length;
    if usize::try_from(DEFAULT_SEGMENT).is_ok_and(|longest| length > longest) {
        return Err(WireError::Protocol("a data segment of a login that is too long"));
    }
    let mut segment = BytesMut::with_capacity(length);
    reader.segment(&mut segment, length).await?;
    Ok((received, segment))
}

/// By Status-Class and Status-Detail (RFC 7143, section 11.13.5). A redirection is not followed.
fn refused(address: &Address, class: u8, detail: u8) -> LoginError {
    let portal = address.portal;
    match (class, detail) {
        (2, 3) => LoginError::NoTarget { portal, target: address.target.clone() },
        (2, 1 | 2) => {
            LoginError::NotAdmitted { portal, initiator: address.own.user.clone(), class, detail }
        }
        _ => LoginError::Status { portal, class, detail },
    }
}
