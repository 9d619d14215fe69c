//! One SCSI command's exchange with its initiator: the data that it sends, the data that it asks
//! for, and its end. Owns the residual counts and the division into PDUs (RFC 7143, sections 4.2.5,
//! 11.4, 11.7 and 11.8); knows nothing of what the data means.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::link::{Awaited, Buffer, Expected, Link, NoData, Outgoing, Slot};
use super::pdu::{Residual, Response};
use super::sense::{Sense, Status};
use super::tasks::Running;

/// Why a command goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is aborted, or its connection gone: there is nobody to answer.
    Aborted,
    /// It ends with this status.
    Status(Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Sense> for Stop {
    fn from(sense: Sense) -> Self {
        Self::Status(sense.into())
    }
}

/// What a command's PDU says of its data.
#[derive(Debug)]
pub(super) struct Announced {
    /// How much the initiator takes, in bytes.
    pub(super) takes: u32,
    /// How much it brings, in bytes.
    pub(super) brings: u32,
    /// What came with the command.
    pub(super) immediate: Bytes,
    /// What follows unasked.
    pub(super) unsolicited: Option<Awaited>,
}

/// One command's data, both ways.
#[derive(Debug)]
pub(super) struct Exchange {
    link: Arc<Link>,
    initiator_task_tag: u32,
    lun: u64,
    announced: Announced,
    aborted: CancellationToken,
    /// How many bytes of data came in; those of an R2T begin here.
    received: u32,
    /// How many bytes were sent, without those held back.
    sent: u32,
    /// The last Data-In, which may yet carry the status.
    held: Option<Bytes>,
    /// How many bytes of the current burst were sent.
    in_burst: u32,
    /// How many R2Ts or Data-Ins there were.
    data_sn: u32,
}

impl Exchange {
    pub(super) fn new(
        link: Arc<Link>,
        (initiator_task_tag, lun): (u32, u64),
        announced: Announced,
        aborted: CancellationToken,
    ) -> Self {
        Self {
            link,
            initiator_task_tag,
            lun,
            announced,
            aborted,
            received: 0,
            sent: 0,
            held: None,
            in_burst: 0,
            data_sn: 0,
        }
    }

    /// How much data the initiator brings, in bytes.
    pub(super) fn brings(&self) -> u32 {
        self.announced.brings
    }

    /// How much more data the initiator takes, in bytes.
    pub(super) fn still_takes(&self) -> u32 {
        let held = self.held.as_ref().map_or(0, |held| u32::try_from(held.len()).unwrap_or(0));
        self.announced.takes.saturating_sub(self.sent).saturating_sub(held)
    }

    /// The longest piece in which data is best moved, in bytes.
    pub(super) fn piece(&self) -> u32 {
        self.link.parameters.max_burst
    }

    /// Fails once the command is aborted, for whoever does much without asking for data or memory.
    pub(super) fn check(&self) -> Result<(), Stop> {
        if self.aborted.is_cancelled() { Err(Stop::Aborted) } else { Ok(()) }
    }

    /// An empty buffer for `length` bytes of data to send, once the connection has the memory.
    pub(super) async fn buffer(&mut self, length: usize) -> Result<Buffer, Stop> {
        // What is held back holds memory, and others wait for it.
        self.send_held(false).await?;
        tokio::select! {
            biased;
            () = self.aborted.cancelled() => Err(Stop::Aborted),
            buffer = self.link.buffer(length) => Ok(buffer),
        }
    }

    /// Sends data, of which what the initiator does not take is left out.
    pub(super) async fn send(&mut self, mut data: Bytes) -> Result<(), Stop> {
        data.truncate(usize::try_from(self.still_takes()).unwrap_or(usize::MAX));
        while !data.is_empty() {
            self.send_held(false).await?;
            let parameters = &self.link.parameters;
            let room = parameters.max_burst.saturating_sub(self.in_burst).max(1);
            let most = usize::try_from(room.min(parameters.max_send_segment)).unwrap_or(usize::MAX);
            self.held = Some(data.split_to(most.min(data.len())));
        }
        Ok(())
    }

    async fn send_held(&mut self, is_last: bool) -> Result<(), Stop> {
        let Some(data) = self.held.take() else { return Ok(()) };
        let outgoing = self.data_in(data, is_last, None);
        self.put_out(outgoing).await
    }

    fn data_in(&mut self, data: Bytes, is_last: bool, good: Option<Residual>) -> Outgoing {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.in_burst = self.in_burst.saturating_add(length);
        let is_final = is_last || self.in_burst >= self.link.parameters.max_burst;
        if is_final {
            self.in_burst = 0;
        }
        let response = Response::DataIn {
            initiator_task_tag: self.initiator_task_tag,
            is_final,
            data_sn: self.data_sn,
            buffer_offset: self.sent,
            good,
        };
        self.data_sn = self.data_sn.wrapping_add(1);
        self.sent = self.sent.saturating_add(length);
        Outgoing { data, ..Outgoing::new(response) }
    }

    async fn put_out(&self, outgoing: Outgoing) -> Result<(), Stop> {
        tokio::select! {
            biased;
            () = self.aborted.cancelled() => Err(Stop::Aborted),
            () = self.link.send(outgoing) => Ok(()),
        }
    }

    /// The next data, at most `want` bytes of it; empty only if `want` is zero or the initiator
    /// brings no more.
    pub(super) async fn receive(&mut self, want: u32) -> Result<Bytes, Stop> {
        let data = self.take_unasked(want).await?;
        let left = want.min(self.to_come()).min(self.piece());
        if !data.is_empty() || left == 0 {
            return Ok(data);
        }
        let buffer = self.buffer(usize::try_from(left).unwrap_or(usize::MAX)).await?;
        Ok(self.solicit(left, buffer).await?.freeze())
    }

    /// The next `want` bytes in one buffer, or as many as the initiator brings.
    pub(super) async fn receive_all(&mut self, want: u32) -> Result<Buffer, Stop> {
        let mut all = self.buffer(usize::try_from(want).unwrap_or(usize::MAX)).await?;
        let mut left = want.min(self.to_come());
        while left > 0 {
            let data = self.take_unasked(left).await?;
            let mut now = u32::try_from(data.len()).unwrap_or(u32::MAX);
            if data.is_empty() {
                now = left.min(self.piece());
                all = self.solicit(now, all).await?;
            } else {
                all.bytes.extend_from_slice(&data);
            }
            left = left.saturating_sub(now);
        }
        Ok(all)
    }

    /// How much data the initiator still brings, in bytes.
    fn to_come(&self) -> u32 {
        self.announced.brings.saturating_sub(self.received)
    }

    /// Data that came unasked, if there is any; what is not wanted now is kept.
    async fn take_unasked(&mut self, want: u32) -> Result<Bytes, Stop> {
        if want == 0 {
            return Ok(Bytes::new());
        }
        if self.announced.immediate.is_empty() {
            self.announced.immediate = self.await_unsolicited().await?;
        }
        let unasked = &mut self.announced.immediate;
        let most = usize::try_from(want).unwrap_or(usize::MAX).min(unasked.len());
        let data = unasked.split_to(most);
        self.received = self.received.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
        Ok(data)
    }

    async fn await_unsolicited(&mut self) -> Result<Bytes, Stop> {
        match self.announced.unsolicited.take() {
            Some(mut unsolicited) => Ok(self.awaited(&mut unsolicited).await?.freeze()),
            None => Ok(Bytes::new()),
        }
    }

    /// Asks for the next data, which comes behind what is in `buffer`.
    async fn solicit(&mut self, length: u32, buffer: Buffer) -> Result<Buffer, Stop> {
        let target_transfer_tag = self.link.transfer_tag();
        let expected = Expected {
            initiator_task_tag: self.initiator_task_tag,
            target_transfer_tag,
            offset: self.received,
            length,
        };
        let mut awaited = self.link.expect(expected, buffer);
        let response = Response::ReadyToTransfer {
            initiator_task_tag: self.initiator_task_tag,
            lun: self.lun,
            target_transfer_tag,
            r2t_sn: self.data_sn,
            buffer_offset: self.received,
            desired_data_transfer_length: length,
        };
        self.data_sn = self.data_sn.wrapping_add(1);
        self.put_out(Outgoing::new(response)).await?;
        let buffer = self.awaited(&mut awaited).await?;
        self.received = self.received.saturating_add(length);
        Ok(buffer)
    }

    async fn awaited(&self, awaited: &mut Awaited) -> Result<Buffer, Stop> {
        tokio::select! {
            biased;
            () = self.aborted.cancelled() => Err(Stop::Aborted),
            buffer = awaited.data() => buffer.map_err(|error| match error {
                NoData::Wrong => Sense::INCORRECT_AMOUNT_OF_DATA.into(),
                NoData::Gone => Stop::Aborted,
            }),
        }
    }

    /// Ends the command, which means to transfer `intended` bytes, and frees its place.
    pub(super) async fn finish(
        mut self,
        status: Status,
        intended: u64,
        (slot, running): (Slot, Running),
    ) -> Result<(), Stop> {
        // A status goes out after all that comes unasked has come (section 11.4.2).
        let status = match self.await_unsolicited().await {
            Err(Stop::Status(wrong)) => wrong,
            Err(Stop::Aborted) => return Err(Stop::Aborted),
            Ok(_) => status,
        };
        let expected = self.announced.takes.max(self.announced.brings);
        let mut outgoing = match (status, self.held.take()) {
            (Status::Good, Some(data)) => {
                self.data_in(data, true, Some(Residual::of(intended, expected)))
            }
            (_, held) => {
                self.held = held;
                self.send_held(true).await?;
                let transferred = match status {
                    Status::Good => intended,
                    Status::CheckCondition(_) | Status::ReservationConflict => {
                        u64::from(self.sent.max(self.received))
                    }
                };
                let response = Response::Scsi {
                    initiator_task_tag: self.initiator_task_tag,
                    status: status.code(),
                    exp_data_sn: self.data_sn,
                    residual: Residual::of(transferred, expected),
                };
                Outgoing { data: sense_data(status), ..Outgoing::new(response) }
            }
        };
        (outgoing.slot, outgoing.running) = (Some(slot), Some(running));
        self.put_out(outgoing).await
    }
}

/// The data segment of a response: the sense data behind its length (section 11.4.7).
fn sense_data(status: Status) -> Bytes {
    match status {
        Status::CheckCondition(sense) => {
            let fixed = sense.fixed();
            let length = u16::try_from(fixed.len()).unwrap_or(0).to_be_bytes();
            Bytes::from([&length[..], &fixed[..]].concat())
        }
        Status::Good | Status::ReservationConflict => Bytes::new(),
    }
}
