//! The full-feature phase of one connection, which is the whole of its session (RFC 7143, section
//! 4.2): reads PDUs and hands each to its task, and sends what the tasks answer.
//!
//! Error recovery level 0: whatever can't be gone on with cuts the connection, and so ends the
//! session and its tasks. Only a command's own mistakes are answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exchange::{Announced, Exchange, Stop};
use super::link::{Buffer, Entry, Expected, Link, Outgoing, Slot, Window};
use super::pdu::{BHS_LENGTH, NO_TAG, Numbers, Operation, Request, Response, ScsiCommand};
use super::sense::Status;
use super::server::Portal;
use super::target::{Membership, Target};
use super::tasks::TaskId;
use super::text::{self, MAX_TEXT};
use super::wire::{PduReader, PduWriter, WireError};

/// A connection on which nothing came for so long is asked for a sign of life, and cut if none
/// comes for as long again.
const SILENCE: Duration = Duration::from_secs(60);

/// The longest ping that is sent back, in bytes.
const MAX_PING: usize = 4 << 10;

/// How much may be kept before it is sent, in bytes.
const BATCH: usize = 128 << 10;

/// Why a PDU is rejected (section 11.17.1).
const TASK_IN_PROGRESS: u8 = 0x07;
const TOO_MANY_IMMEDIATE: u8 = 0x06;
const INVALID_PDU_FIELD: u8 = 0x09;

/// What is left of a login.
pub(super) struct Opened {
    pub(super) link: Arc<Link>,
    pub(super) queue: mpsc::Receiver<Outgoing>,
    /// The number of the next status.
    pub(super) stat_sn: u32,
}

/// Serves a session until one side ends it, or `cut` is cancelled.
pub(super) async fn serve<R, W>(
    reader: PduReader<R>,
    writer: PduWriter<W>,
    opened: Opened,
    (portal, membership): (&Portal, Option<&Membership>),
    cut: &CancellationToken,
) -> Result<(), WireError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Opened { link, queue, stat_sn } = opened;
    let window = Arc::clone(&link.window);
    let mut session =
        Session { reader, link, portal, membership, text: Vec::new(), answer: Vec::new() };
    tokio::select! {
        read = session.read() => read,
        written = write(writer, queue, &window, stat_sn) => written,
        () = cut.cancelled() => Ok(()),
        () = async {
            match membership {
                Some(membership) => membership.cut.cancelled().await,
                None => std::future::pending().await,
            }
        } => Ok(()),
    }
}

/// Sends what is queued, until a logout.
async fn write<W: AsyncWrite + Unpin>(
    mut writer: PduWriter<W>,
    mut queue: mpsc::Receiver<Outgoing>,
    window: &Window,
    mut stat_sn: u32,
) -> Result<(), WireError> {
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(Outgoing { response, data, slot, running }) = next {
            // The command is over before its initiator is told, who may use its tag and its place.
            drop((slot, running));
            let (exp_cmd_sn, max_cmd_sn) = window.numbers();
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let header = response.header(Numbers { stat_sn, exp_cmd_sn, max_cmd_sn }, length);
            if response.takes_stat_sn() {
                stat_sn = stat_sn.wrapping_add(1);
            }
            writer.keep(&header, data);
            if matches!(response, Response::Logout { .. }) {
                return writer.flush().await;
            }
            if writer.pending() >= BATCH {
                writer.flush().await?;
            }
            next = queue.try_recv().ok();
        }
        writer.flush().await?;
    }
    Ok(())
}

struct Session<'a, R> {
    reader: PduReader<R>,
    link: Arc<Link>,
    portal: &'a Portal,
    /// `None` in a discovery session.
    membership: Option<&'a Membership>,
    /// What has come of a text that goes on.
    text: Vec<u8>,
    /// What is yet to be sent of the answer to one.
    answer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Session<'_, R> {
    async fn read(&mut self) -> Result<(), WireError> {
        loop {
            if timeout(SILENCE, self.reader.ready()).await.is_err() {
                let ping = Response::NopIn {
                    initiator_task_tag: NO_TAG,
                    target_transfer_tag: self.link.transfer_tag(),
                };
                self.link.send(Outgoing::new(ping)).await;
                timeout(SILENCE, self.reader.ready()).await.map_err(|_| WireError::Slow)??;
            }
            let (header, request) = self.reader.header().await?;
            let longest = usize::try_from(self.link.parameters.max_receive_segment);
            if longest.is_ok_and(|longest| request.data_length > longest) {
                return Err(WireError::Protocol("a data segment longer than what was agreed"));
            }
            if let Operation::DataOut { is_final, target_transfer_tag, data_sn, buffer_offset } =
                request.operation
            {
                let key = (request.initiator_task_tag, target_transfer_tag);
                self.data_out(key, is_final, (data_sn, buffer_offset), request.data_length).await?;
                continue;
            }
            match self.link.window.enter(request.cmd_sn, request.immediate) {
                Entry::Admitted(slot) => self.take(&header, &request, slot).await?,
                Entry::Ignored => self.reader.skip(request.data_length).await?,
                Entry::TooMany => {
                    self.reader.skip(request.data_length).await?;
                    self.reject(&header, TOO_MANY_IMMEDIATE).await;
                }
                Entry::Gap => return Err(WireError::Protocol("a command number was left out")),
            }
        }
    }

    /// Takes a PDU that has a place in the window.
    async fn take(
        &mut self,
        header: &[u8; BHS_LENGTH],
        request: &Request,
        slot: Slot,
    ) -> Result<(), WireError> {
        let tag = request.initiator_task_tag;
        let length = request.data_length;
        match request.operation {
            Operation::ScsiCommand(command) => {
                return self.command(header, (tag, length), command, slot).await;
            }
            Operation::NopOut { .. } if length > MAX_PING => {
                self.reader.skip(length).await?;
                self.reject(header, INVALID_PDU_FIELD).await;
            }
            Operation::NopOut { .. } => {
                let mut data = BytesMut::with_capacity(length);
                self.reader.segment(&mut data, length).await?;
                // One without a tag answers a ping of ours and wants nothing.
                if tag != NO_TAG {
                    let response =
                        Response::NopIn { initiator_task_tag: tag, target_transfer_tag: NO_TAG };
                    let most = usize::try_from(self.link.parameters.max_send_segment);
                    data.truncate(most.unwrap_or(usize::MAX));
                    let slot = Some(slot);
                    let outgoing =
                        Outgoing { data: data.freeze(), slot, ..Outgoing::new(response) };
                    self.link.send(outgoing).await;
                }
            }
            Operation::TaskManagement { function, lun, referenced_task_tag } => {
                self.reader.skip(length).await?;
                self.manage(tag, function, lun, referenced_task_tag, slot).await;
            }
            Operation::Text { is_final, continues, target_transfer_tag } => {
                self.take_text(length).await?;
                if continues {
                    self.send_text(tag, slot, false, Vec::new()).await;
                } else {
                    self.answer_text(tag, is_final, target_transfer_tag, slot).await?;
                }
            }
            Operation::Logout { reason } => {
                self.reader.skip(length).await?;
                const NO_RECOVERY: u8 = 2;
                let response = if reason > 1 { NO_RECOVERY } else { 0 };
                let response = Response::Logout { initiator_task_tag: tag, response };
                self.link.send(Outgoing { slot: Some(slot), ..Outgoing::new(response) }).await;
                if reason <= 1 {
                    // The writer ends the session once that is sent.
                    std::future::pending::<()>().await;
                }
            }
            Operation::Login(_) | Operation::DataOut { .. } => {
                return Err(WireError::Protocol("a login after the login"));
            }
        }
        Ok(())
    }

    /// Begins a SCSI command.
    async fn command(
        &mut self,
        header: &[u8; BHS_LENGTH],
        (tag, length): (u32, usize),
        command: ScsiCommand,
        slot: Slot,
    ) -> Result<(), WireError> {
        let ScsiCommand { is_final, read, write, lun, cdb, .. } = command;
        let expected = command.expected_data_transfer_length;
        let parameters = &self.link.parameters;
        let unasked = parameters.unsolicited_limit().min(if write { expected } else { 0 });
        let unasked = usize::try_from(unasked).unwrap_or(0);
        if length > unasked || length > 0 && !parameters.immediate_data {
            return Err(WireError::Protocol("more immediate data than what was agreed"));
        }
        if !is_final && (parameters.initial_r2t || !write) {
            return Err(WireError::Protocol("unsolicited data that was not agreed on"));
        }
        let Some(membership) = self.membership else {
            return Err(WireError::Protocol("a SCSI command in a discovery session"));
        };
        let mut immediate = Buffer::of_window(length);
        self.reader.segment(&mut immediate.bytes, length).await?;

        let id = TaskId { session: membership.id, initiator_task_tag: tag };
        let target = Arc::clone(&membership.target);
        let Some(running) = target.tasks.begin(id, &membership.port, &membership.cut) else {
            self.reject(header, TASK_IN_PROGRESS).await;
            return Ok(());
        };
        let unsolicited = (!is_final).then(|| {
            let rest = unasked.saturating_sub(length);
            let expected = Expected {
                initiator_task_tag: tag,
                target_transfer_tag: NO_TAG,
                offset: u32::try_from(length).unwrap_or(0),
                length: u32::try_from(rest).unwrap_or(0),
            };
            self.link.expect(expected, Buffer::of_window(rest))
        });
        let announced = Announced {
            takes: if read && !write { expected } else { 0 },
            brings: if write { expected } else { 0 },
            immediate: immediate.freeze(),
            unsolicited,
        };
        let link = Arc::clone(&self.link);
        let port = Arc::clone(&membership.port);
        tokio::spawn(async move {
            let mut exchange = Exchange::new(link, (tag, lun), announced, running.aborted.clone());
            let done = target.unit.execute(&port, lun, &cdb, &mut exchange).await;
            let (status, intended) = match done {
                Ok(done) => {
                    if !done.aborted.is_empty() {
                        target
                            .tasks
                            .abort(|task, port| task != id && done.aborted.contains(port))
                            .await;
                    }
                    (Status::Good, done.intended)
                }
                Err(Stop::Status(status)) => (status, 0),
                Err(Stop::Aborted) => return,
            };
            // An initiator that is gone or has aborted it is told nothing.
            let _ = exchange.finish(status, intended, (slot, running)).await;
        });
        Ok(())
    }

    /// Takes data that a command awaits. Data that nothing awaits, such as of an aborted one, is
    /// dropped.
    async fn data_out(
        &mut self,
        key: (u32, u32),
        is_final: bool,
        (data_sn, offset): (u32, u32),
        length: usize,
    ) -> Result<(), WireError> {
        let Some(mut burst) = self.link.take_burst(key) else {
            return self.reader.skip(length).await;
        };
        if burst.continues_with(data_sn, offset, length) {
            self.reader.segment(&mut burst.buffer.bytes, length).await?;
        } else {
            self.reader.skip(length).await?;
        }
        // The command ends when the burst does, whatever came (section 11.4.2).
        if is_final {
            burst.finish();
        } else {
            self.link.return_burst(burst);
        }
        Ok(())
    }

    /// Does a task management function, beside whatever else goes on (section 11.5).
    async fn manage(&self, tag: u32, function: u8, lun: u64, referenced: u32, slot: Slot) {
        const COMPLETE: u8 = 0;
        const NO_TASK: u8 = 1;
        const NO_LUN: u8 = 2;
        const NOT_SUPPORTED: u8 = 5;
        const FAILED: u8 = 255;
        let link = Arc::clone(&self.link);
        let answer = move |response| {
            let response = Response::TaskManagement { initiator_task_tag: tag, response };
            Outgoing { slot: Some(slot), ..Outgoing::new(response) }
        };
        let Some(membership) = self.membership else {
            link.send(answer(FAILED)).await;
            return;
        };
        let (target, port) = (Arc::clone(&membership.target), Arc::clone(&membership.port));
        let session = membership.id;
        tokio::spawn(async move {
            let tasks = &target.tasks;
            let is_there = super::unit::is_ours(lun);
            let response = match function {
                1 => {
                    let meant = TaskId { session, initiator_task_tag: referenced };
                    if tasks.abort(|task, _| task == meant).await == 0 { NO_TASK } else { COMPLETE }
                }
                2 | 4 | 5 if !is_there => NO_LUN,
                2 => {
                    tasks.abort(|task, _| task.session == session).await;
                    COMPLETE
                }
                4 => {
                    tasks.abort(|_, _| true).await;
                    COMPLETE
                }
                5 | 6 => {
                    tasks.abort(|_, _| true).await;
                    target.unit.reset(&port);
                    COMPLETE
                }
                _ => NOT_SUPPORTED,
            };
            link.send(answer(response)).await;
        });
    }

    async fn take_text(&mut self, length: usize) -> Result<(), WireError> {
        let mut data = BytesMut::with_capacity(length);
        self.reader.segment(&mut data, length).await?;
        if self.text.len().saturating_add(length) > MAX_TEXT {
            return Err(WireError::Protocol("a text that is too long"));
        }
        self.text.extend_from_slice(&data);
        Ok(())
    }

    /// Answers a text, or goes on with an answer that was too long for one PDU.
    async fn answer_text(
        &mut self,
        tag: u32,
        is_final: bool,
        target_transfer_tag: u32,
        slot: Slot,
    ) -> Result<(), WireError> {
        let text = std::mem::take(&mut self.text);
        if target_transfer_tag == NO_TAG {
            let pairs =
                text::parse(&text).map_err(|_| WireError::Protocol("a text that is none"))?;
            self.answer.clear();
            for (key, value) in pairs {
                match key {
                    "SendTargets" => {
                        let own = self.membership.map(|member| Arc::clone(&member.target));
                        self.send_targets(value, own.as_deref());
                    }
                    _ => text::push(&mut self.answer, key, "Reject"),
                }
            }
        }
        let most = usize::try_from(self.link.parameters.max_send_segment).unwrap_or(usize::MAX);
        let now: Vec<u8> = self.answer.drain(..most.min(self.answer.len())).collect();
        let ends = is_final && self.answer.is_empty();
        self.send_text(tag, slot, ends, now).await;
        Ok(())
    }

    /// Tells of targets (appendix C): of all in a discovery session, else of the session's own.
    fn send_targets(&mut self, value: &str, own: Option<&Target>) {
        let names = match (own, value) {
            (None, "All") => self.portal.targets(),
            (Some(own), "") => vec![own.name().to_owned()],
            (Some(own), name) if name == own.name() => vec![name.to_owned()],
            (None, name) => {
                let mut names = self.portal.targets();
                names.retain(|known| known == name);
                names
            }
            (Some(_), _) => Vec::new(),
        };
        for name in names {
            text::push(&mut self.answer, "TargetName", &name);
            text::push(&mut self.answer, "TargetAddress", &self.portal.address());
        }
    }

    async fn send_text(&self, tag: u32, slot: Slot, is_final: bool, text: Vec<u8>) {
        let response = Response::Text {
            initiator_task_tag: tag,
            is_final,
            continues: !self.answer.is_empty(),
            target_transfer_tag: if is_final { NO_TAG } else { self.link.transfer_tag() },
        };
        let (data, slot) = (Bytes::from(text), Some(slot));
        self.link.send(Outgoing { data, slot, ..Outgoing::new(response) }).await;
    }

    async fn reject(&self, header: &[u8; BHS_LENGTH], reason: u8) {
        let data = Bytes::copy_from_slice(header);
        self.link.send(Outgoing { data, ..Outgoing::new(Response::Reject { reason }) }).await;
    }
}
