//! An initiator's session once it is logged in: its commands in flight, the data that goes with
//! them both ways, and pings.
//!
//! A target can hold it up and end it, no more: what it sends is read into memory that a command
//! set aside before, and what it asks for is sent from there. Whatever breaks the rules ends the
//! session, with every command in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::field::{array_at, put, u16_at};
use super::initiator_login::{Agreed, MAX_RECEIVE};
use super::initiator_pdu::Received;
use super::pdu::{NO_TAG, Numbers, Operation, Request, Response, ScsiCommand};
use super::wire::{PduReader, PduWriter, WireError};

/// A target that sends nothing for so long is asked for a sign of life, and given up on if none
/// comes for as long again.
const SILENCE: Duration = Duration::from_secs(15);

/// The most commands in flight, whatever the target would take.
const MOST: usize = 32;

/// The most pings of the target's that wait for their answer.
const MAX_PINGS: usize = 8;

/// The tag of our own pings; of a logout it is the one before.
const PING: u32 = NO_TAG - 1;
const LOGOUT: u32 = PING - 1;

/// The most sense data that is read, in bytes.
const MAX_SENSE: usize = 4 << 10;

/// What goes with a command.
#[derive(Debug, Clone)]
pub(super) enum Data {
    None,
    /// So many bytes come with it, or less.
    Read(usize),
    Write(Bytes),
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: u8,
    /// What it read; with a bad status its sense data.
    pub(super) data: Bytes,
}

/// The session is over, and with it the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session with the target is over")]
pub(super) struct Lost;

/// A session. Its commands end when it is cut.
#[derive(Debug)]
pub(super) struct Session {
    agreed: Agreed,
    lun: u64,
    state: Mutex<State>,
    /// Told when there may be room for one more command.
    opened: Notify,
    places: Arc<Semaphore>,
    out: mpsc::UnboundedSender<Out>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct State {
    cmd_sn: u32,
    max_cmd_sn: u32,
    exp_stat_sn: u32,
    next_tag: u32,
    pings: usize,
    tasks: HashMap<u32, Task>,
    is_over: bool,
}

/// One command in flight.
#[derive(Debug)]
struct Task {
    /// What was read so far, of at most `expected` bytes.
    read: BytesMut,
    expected: usize,
    /// What is written.
    write: Bytes,
    /// Whether a burst that was asked for is yet to be sent.
    owes: bool,
    done: oneshot::Sender<Ended>,
    _place: OwnedSemaphorePermit,
}

/// What waits to be sent: for each command one of these at most.
#[derive(Debug)]
enum Out {
    Command { tag: u32, cmd_sn: u32, command: ScsiCommand, immediate: Bytes },
    Burst { tag: u32, target_transfer_tag: u32, offset: u32, data: Bytes },
    Ping,
    Pong { target_transfer_tag: u32, lun: [u8; 8] },
    Logout,
}

impl Session {
    /// The session of a connection that is logged in, and the work that keeps it going, which ends
    /// with it.
    pub(super) fn begin<R, W>(
        (reader, writer): (PduReader<R>, PduWriter<W>),
        (agreed, lun): (Agreed, u64),
        numbers: Numbers,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send)
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let (out, queue) = mpsc::unbounded_channel();
        let state = State {
            cmd_sn: numbers.exp_cmd_sn,
            max_cmd_sn: numbers.max_cmd_sn,
            exp_stat_sn: numbers.stat_sn.wrapping_add(1),
            next_tag: 0,
            pings: 0,
            tasks: HashMap::new(),
            is_over: false,
        };
        let session = Arc::new(Self {
            agreed,
            lun,
            state: Mutex::new(state),
            opened: Notify::new(),
            places: Arc::new(Semaphore::new(MOST)),
            out,
            cut: CancellationToken::new(),
        });
        let own = Arc::clone(&session);
        (session, async move {
            let ended = tokio::select! {
                read = own.read(reader) => read,
                written = own.write(writer, queue) => written,
                () = own.cut.cancelled() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::info!(%error, "a session with a target broke off");
            }
            own.end();
        })
    }

    /// Ends it at once. What is in flight may or may not have been done.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Tells the target that it ends and returns once that has answered, or has hung up.
    pub(super) async fn log_out(&self) {
        let _ = self.out.send(Out::Logout);
        self.cut.cancelled().await;
    }

    /// Does one command. Given up on, it may still be done.
    pub(super) async fn command(&self, cdb: [u8; 16], data: Data) -> Result<Ended, Lost> {
        let mut place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Lost)?;
        let ended = loop {
            let opened = self.opened.notified();
            match self.try_command(cdb, &data, place)? {
                Ok(ended) => break ended,
                Err(again) => place = again,
            }
            opened.await;
        };
        ended.await.map_err(|_| Lost)
    }

    /// Begins a command, unless the target takes none now.
    fn try_command(
        &self,
        cdb: [u8; 16],
        data: &Data,
        place: OwnedSemaphorePermit,
    ) -> Result<Result<oneshot::Receiver<Ended>, OwnedSemaphorePermit>, Lost> {
        let (read, write) = match data {
            Data::None => (0, Bytes::new()),
            Data::Read(length) => (*length, Bytes::new()),
            Data::Write(data) => (0, data.clone()),
        };
        let mut state = self.state();
        if state.is_over {
            return Err(Lost);
        }
        // What is more than half of all numbers ahead is behind.
        if state.max_cmd_sn.wrapping_sub(state.cmd_sn) >= 1 << 31 {
            return Ok(Err(place));
        }
        let tag = state.free_tag();
        let cmd_sn = state.cmd_sn;
        state.cmd_sn = cmd_sn.wrapping_add(1);
        let most = usize::try_from(self.agreed.immediate).unwrap_or(0);
        let immediate = write.slice(..most.min(write.len()));
        let length = u32::try_from(read.max(write.len())).unwrap_or(u32::MAX);
        let command = ScsiCommand {
            is_final: true,
            read: read > 0,
            write: !write.is_empty(),
            lun: self.lun,
            expected_data_transfer_length: length,
            cdb,
        };
        let (done, ended) = oneshot::channel();
        let read_into = BytesMut::with_capacity(read);
        let (owes, _place) = (false, place);
        state
            .tasks
            .insert(tag, Task { read: read_into, expected: read, write, owes, done, _place });
        // Sent while the numbers are held, so that they go out in their order.
        let _ = self.out.send(Out::Command { tag, cmd_sn, command, immediate });
        Ok(Ok(ended))
    }

    fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.tasks.clear();
        drop(state);
        self.cut.cancel();
        self.places.close();
        self.opened.notify_waiters();
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut reader: PduReader<R>) -> Result<(), WireError> {
        loop {
            if timeout(SILENCE, reader.ready()).await.is_err() {
                let _ = self.out.send(Out::Ping);
                timeout(SILENCE, reader.ready()).await.map_err(|_| WireError::Slow)??;
            }
            let header = reader.bytes().await?;
            let received = Response::parse(&header).map_err(WireError::Header)?;
            let Received { data_length, numbers, response } = received;
            if u32::try_from(data_length).map_or(true, |length| length > MAX_RECEIVE) {
                return Err(WireError::Protocol("a data segment longer than what was agreed"));
            }
            self.advance(&response, numbers);
            match response {
                Response::DataIn { initiator_task_tag: tag, buffer_offset, good, .. } => {
                    self.data_in(&mut reader, tag, buffer_offset, data_length).await?;
                    if good.is_some() {
                        self.finish(tag, 0, None)?;
                    }
                }
                Response::Scsi { initiator_task_tag, status, .. } => {
                    let sense = sense(&mut reader, data_length).await?;
                    self.finish(initiator_task_tag, status, Some(sense))?;
                }
                Response::ReadyToTransfer { .. } => {
                    reader.skip(data_length).await?;
                    self.owe(response)?;
                }
                Response::NopIn { target_transfer_tag, .. } => {
                    reader.skip(data_length).await?;
                    if target_transfer_tag != NO_TAG {
                        self.pong(target_transfer_tag, array_at(&header, 8))?;
                    }
                }
                Response::Logout { .. } => return Ok(()),
                Response::Reject { .. } => {
                    return Err(WireError::Protocol("the target rejects what was sent"));
                }
                Response::TaskManagement { .. }
                | Response::Login { .. }
                | Response::Text { .. } => {
                    return Err(WireError::Protocol("a response to what was not asked"));
                }
            }
        }
    }

    /// Takes the numbers of a PDU.
    fn advance(&self, response: &Response, numbers: Numbers) {
        let mut state = self.state();
        if response.takes_stat_sn() {
            state.exp_stat_sn = numbers.stat_sn.wrapping_add(1);
        }
        // A number that is behind is of an older PDU (section 4.2.2.1).
        let ahead = numbers.max_cmd_sn.wrapping_sub(state.max_cmd_sn);
        if ahead != 0 && ahead < 1 << 31 {
            state.max_cmd_sn = numbers.max_cmd_sn;
            drop(state);
            self.opened.notify_waiters();
        }
    }

    /// Reads what comes for a command. In its order: error recovery level 0 knows no other.
    async fn data_in<R: AsyncRead + Unpin>(
        &self,
        reader: &mut PduReader<R>,
        tag: u32,
        offset: u32,
        length: usize,
    ) -> Result<(), WireError> {
        let mut into = {
            let mut state = self.state();
            let task = state.tasks.get_mut(&tag).ok_or(NO_TASK)?;
            let fits = length <= task.expected.saturating_sub(task.read.len());
            if usize::try_from(offset) != Ok(task.read.len()) || !fits {
                return Err(WireError::Protocol("data that was not asked for"));
            }
            std::mem::take(&mut task.read)
        };
        reader.segment(&mut into, length).await?;
        self.state().tasks.get_mut(&tag).ok_or(NO_TASK)?.read = into;
        Ok(())
    }

    fn finish(&self, tag: u32, status: u8, sense: Option<Bytes>) -> Result<(), WireError> {
        let task = self.state().tasks.remove(&tag).ok_or(NO_TASK)?;
        let data = match sense {
            Some(sense) if status != 0 => sense,
            _ => task.read.freeze(),
        };
        // Whoever asked may have given up.
        let _ = task.done.send(Ended { status, data });
        Ok(())
    }

    /// Queues a burst that the target asks for.
    fn owe(&self, response: Response) -> Result<(), WireError> {
        let Response::ReadyToTransfer {
            initiator_task_tag: tag,
            target_transfer_tag,
            buffer_offset: offset,
            desired_data_transfer_length: length,
            ..
        } = response
        else {
            return Ok(());
        };
        let mut state = self.state();
        let task = state.tasks.get_mut(&tag).ok_or(NO_TASK)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        let is_right = length > 0 && length <= self.agreed.max_burst && end <= task.write.len();
        if task.owes || !is_right {
            return Err(WireError::Protocol("a request for data that is none"));
        }
        task.owes = true;
        let data = task.write.slice(start..end);
        let _ = self.out.send(Out::Burst { tag, target_transfer_tag, offset, data });
        Ok(())
    }

    fn pong(&self, target_transfer_tag: u32, lun: [u8; 8]) -> Result<(), WireError> {
        let mut state = self.state();
        if state.pings >= MAX_PINGS {
            return Err(WireError::Protocol("more pings than can be answered"));
        }
        state.pings = state.pings.saturating_add(1);
        let _ = self.out.send(Out::Pong { target_transfer_tag, lun });
        Ok(())
    }

    async fn write<W: AsyncWrite + Unpin>(
        &self,
        mut writer: PduWriter<W>,
        mut queue: mpsc::UnboundedReceiver<Out>,
    ) -> Result<(), WireError> {
        while let Some(first) = queue.recv().await {
            let mut next = Some(first);
            while let Some(out) = next {
                self.keep(&mut writer, out);
                next = queue.try_recv().ok();
            }
            writer.flush().await?;
        }
        Ok(())
    }

    fn keep<W: AsyncWrite + Unpin>(&self, writer: &mut PduWriter<W>, out: Out) {
        let (next_cmd_sn, exp_stat_sn) = {
            let state = self.state();
            (state.cmd_sn, state.exp_stat_sn)
        };
        let header = |initiator_task_tag, cmd_sn, data_length, operation| {
            let is_command = matches!(operation, Operation::ScsiCommand(_));
            let immediate = !is_command && !matches!(operation, Operation::DataOut { .. });
            let ahs_length = 0;
            Request { ahs_length, data_length, initiator_task_tag, immediate, cmd_sn, operation }
                .header(exp_stat_sn)
        };
        let ping = |target_transfer_tag| Operation::NopOut { target_transfer_tag };
        match out {
            Out::Command { tag, cmd_sn, command, immediate } => {
                let operation = Operation::ScsiCommand(command);
                writer.keep(&header(tag, cmd_sn, immediate.len(), operation), immediate);
            }
            Out::Burst { tag, target_transfer_tag, mut offset, mut data } => {
                let most = usize::try_from(self.agreed.max_send_segment).unwrap_or(usize::MAX);
                let mut data_sn = 0_u32;
                while !data.is_empty() {
                    let now = data.split_to(most.min(data.len()));
                    let (is_final, buffer_offset) = (data.is_empty(), offset);
                    let operation = Operation::DataOut {
                        is_final,
                        target_transfer_tag,
                        data_sn,
                        buffer_offset,
                    };
                    data_sn = data_sn.wrapping_add(1);
                    offset = offset.saturating_add(u32::try_from(now.len()).unwrap_or(u32::MAX));
                    writer.keep(&header(tag, 0, now.len(), operation), now);
                }
                if let Some(task) = self.state().tasks.get_mut(&tag) {
                    task.owes = false;
                }
            }
            Out::Ping => writer.keep(&header(PING, next_cmd_sn, 0, ping(NO_TAG)), Bytes::new()),
            Out::Pong { target_transfer_tag, lun } => {
                let mut header = header(NO_TAG, next_cmd_sn, 0, ping(target_transfer_tag));
                put(&mut header, 8, lun);
                writer.keep(&header, Bytes::new());
                let mut state = self.state();
                state.pings = state.pings.saturating_sub(1);
            }
            Out::Logout => {
                let operation = Operation::Logout { reason: 0 };
                writer.keep(&header(LOGOUT, next_cmd_sn, 0, operation), Bytes::new());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_TASK: WireError = WireError::Protocol("a response to a command that is not in flight");

impl State {
    /// A tag that no command in flight has.
    fn free_tag(&mut self) -> u32 {
        loop {
            let tag = self.next_tag;
            self.next_tag = if tag >= LOGOUT - 1 { 0 } else { tag + 1 };
            if !self.tasks.contains_key(&tag) {
                return tag;
            }
        }
    }
}

/// Reads a response's sense data, without its length (section 11.4.7).
async fn sense<R: AsyncRead + Unpin>(
    reader: &mut PduReader<R>,
    length: usize,
) -> Result<Bytes, WireError> {
    if length > MAX_SENSE {
        reader.skip(length).await?;
        return Ok(Bytes::new());
    }
    let mut data = BytesMut::with_capacity(length);
    reader.segment(&mut data, length).await?;
    let end = usize::from(u16_at(&data, 0)).saturating_add(2).min(length);
    Ok(data.freeze().slice(2.min(end)..end))
}
