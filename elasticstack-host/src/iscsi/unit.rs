//! The one logical unit of a target, as its initiators' commands find it: which come through, which
//! are answered at once, and which go to the medium. Owns reservations and unit attentions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use elasticstack_core::block::{Volume, Writing};

use super::cdb::{CDB_LENGTH, CdbError, Command};
use super::exchange::{Exchange, Stop};
use super::inquiry::{self, Identity};
use super::medium::Medium;
use super::mode;
use super::opcodes;
use super::reservation::{Effects, Need, PARAMETERS, Port, Reservations};
use super::sense::{Sense, Status};

/// The most unit attentions that wait for one initiator.
const MAX_ATTENTIONS: usize = 8;

/// The logical unit 0 of a target.
pub(super) struct LogicalUnit {
    name: String,
    identity: Identity,
    medium: Medium,
    writing: Writing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reservations: Reservations,
    /// What those who are logged in are yet to be told.
    attentions: HashMap<Arc<Port>, Vec<Sense>>,
}

/// What a command came to, and what is to be done about others before that is told.
pub(super) struct Done {
    pub(super) intended: u64,
    /// Ports whose commands are to be aborted.
    pub(super) aborted: Vec<Port>,
}

impl From<u64> for Done {
    fn from(intended: u64) -> Self {
        Self { intended, aborted: Vec::new() }
    }
}

impl LogicalUnit {
    pub(super) fn new(
        name: String,
        identity: Identity,
        (volume, writing): (Arc<dyn Volume>, Writing),
    ) -> Self {
        Self { name, identity, medium: Medium::new(volume), writing, state: Mutex::default() }
    }

    /// Does a command that `port` sent to the logical unit `lun`.
    pub(super) async fn execute(
        &self,
        port: &Arc<Port>,
        lun: u64,
        cdb: &[u8; CDB_LENGTH],
        x: &mut Exchange,
    ) -> Result<Done, Stop> {
        let command = Command::parse(cdb);
        if !is_ours(lun) {
            return elsewhere(command, x).await.map(Done::from);
        }
        let answers_at_once = matches!(
            command,
            Ok(Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. })
        );
        if !answers_at_once && let Some(attention) = self.next_attention(port) {
            return Err(attention.into());
        }
        let command = command.map_err(refused)?;
        self.state().reservations.permit(port, need(command))?;
        if self.writing == Writing::Refused && changes_medium(command) {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        if let Command::PersistentReserveOut { action, scope, kind, length } = command {
            return self.reserve_persistently(port, action, (scope, kind), length, x).await;
        }
        self.perform(port, command, x).await.map(Done::from)
    }

    async fn perform(
        &self,
        port: &Arc<Port>,
        command: Command,
        x: &mut Exchange,
    ) -> Result<u64, Stop> {
        let medium = &self.medium;
        let (answer, allocation) = match command {
            Command::Read { extent } => return medium.read(x, extent).await,
            Command::Write { extent } => return medium.write(x, extent).await,
            Command::WriteAndVerify { extent, compare } => {
                return medium.write_and_verify(x, extent, compare).await;
            }
            Command::Verify { extent, compare } => return medium.verify(x, extent, compare).await,
            Command::Prefetch { extent } => return medium.prefetch(extent),
            Command::SynchronizeCache { extent } => return medium.synchronize(x, extent).await,
            Command::Unmap { length } => return medium.unmap(x, length).await,
            Command::WriteSame { extent, same } => return medium.write_same(x, extent, same).await,
            Command::CompareAndWrite { extent } => {
                return medium.compare_and_write(x, extent).await;
            }
            Command::OrWrite { extent } => return medium.or_write(x, extent).await,
            Command::GetLbaStatus { lba, allocation } => {
                (medium.lba_status(x, lba, allocation).await?, allocation)
            }
            Command::Inquiry { page, allocation } => {
                let geometry = medium.geometry();
                (inquiry::inquiry(page, &self.name, &self.identity, geometry)?, allocation)
            }
            Command::ModeSense { form, with_descriptor, control, page, subpage, allocation } => {
                let (pages, geometry) = ((page, subpage), medium.geometry());
                let answer =
                    mode::sense(form, with_descriptor, control, pages, geometry, self.writing)?;
                (answer, allocation)
            }
            Command::ReadCapacity10 => (medium.geometry().capacity_10(), u32::MAX),
            Command::ReadCapacity16 { allocation } => (medium.geometry().capacity_16(), allocation),
            Command::ReportLuns { allocation } => (inquiry::luns(), allocation),
            Command::ReportSupportedOperationCodes {
                options,
                operation,
                action,
                with_timeouts,
                allocation,
            } => (opcodes::report(options, operation, action, with_timeouts)?, allocation),
            Command::RequestSense { descriptor, allocation } => {
                let sense = self.next_attention(port).unwrap_or(Sense::NONE);
                (sense_answer(sense, descriptor), allocation)
            }
            Command::PersistentReserveIn { action, allocation } => {
                (self.state().reservations.report(action)?, allocation)
            }
            Command::Reserve6 => {
                self.state().reservations.reserve(port)?;
                return Ok(0);
            }
            Command::Release6 => {
                self.state().reservations.release(port);
                return Ok(0);
            }
            // A drive that others may use as well is not stopped; whatever else is asked of a
            // medium that can't be removed has nothing to do.
            Command::StartStopUnit { start: false, load_eject: false, power_condition: 0 } => {
                return Err(Sense::INVALID_FIELD_IN_CDB.into());
            }
            Command::PersistentReserveOut { .. }
            | Command::StartStopUnit { .. }
            | Command::PreventAllowMediumRemoval { .. }
            | Command::TestUnitReady => return Ok(0),
        };
        send_answer(x, answer, allocation).await
    }

    async fn reserve_persistently(
        &self,
        port: &Arc<Port>,
        action: u8,
        kind: (u8, u8),
        length: u32,
        x: &mut Exchange,
    ) -> Result<Done, Stop> {
        if usize::try_from(length) != Ok(PARAMETERS) {
            return Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let parameters = x.receive_all(length).await?;
        let mut state = self.state();
        let Effects { attentions, aborted } =
            state.reservations.change(port, action, kind, &parameters.bytes)?;
        for (port, sense) in attentions {
            state.establish(&port, sense);
        }
        Ok(Done { intended: u64::from(length), aborted })
    }

    /// A session of `port` begins.
    pub(super) fn arrive(&self, port: &Arc<Port>) {
        self.state().attentions.insert(Arc::clone(port), Vec::new());
    }

    /// The session of `port` is over.
    pub(super) fn leave(&self, port: &Arc<Port>) {
        let mut state = self.state();
        state.attentions.remove(port);
        state.reservations.release(port);
    }

    /// A reset, after all commands have been aborted (SAM-5, section 6.3.3). All but whoever asked
    /// for it are told.
    pub(super) fn reset(&self, by: &Port) {
        let mut state = self.state();
        state.reservations.reset();
        let others: Vec<_> =
            state.attentions.keys().filter(|port| ***port != *by).cloned().collect();
        for port in others {
            state.establish(&port, Sense::RESET);
        }
    }

    /// The volume has another length now, which everybody is told (SBC-3, section 4.7).
    pub(super) fn resized(&self) {
        let mut state = self.state();
        let ports: Vec<_> = state.attentions.keys().cloned().collect();
        for port in ports {
            state.establish(&port, Sense::CAPACITY_HAS_CHANGED);
        }
    }

    fn next_attention(&self, port: &Arc<Port>) -> Option<Sense> {
        let mut state = self.state();
        let waiting = state.attentions.get_mut(port)?;
        if waiting.is_empty() { None } else { Some(waiting.remove(0)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes that `port` is to be told, if it is logged in.
    fn establish(&mut self, port: &Port, sense: Sense) {
        if let Some(waiting) = self.attentions.get_mut(port)
            && !waiting.contains(&sense)
            && waiting.len() < MAX_ATTENTIONS
        {
            waiting.push(sense);
        }
    }
}

/// Whether a LUN is 0, in the peripheral or the flat form (SAM-5, section 4.7).
pub(super) fn is_ours(lun: u64) -> bool {
    lun == 0 || lun == 0x4000 << 48
}

/// A command to a LUN that has no logical unit.
async fn elsewhere(command: Result<Command, CdbError>, x: &mut Exchange) -> Result<u64, Stop> {
    match command {
        Ok(Command::Inquiry { page: None, allocation }) => {
            send_answer(x, inquiry::no_unit(), allocation).await
        }
        Ok(Command::ReportLuns { allocation }) => send_answer(x, inquiry::luns(), allocation).await,
        Ok(Command::RequestSense { descriptor, allocation }) => {
            let answer = sense_answer(Sense::LOGICAL_UNIT_NOT_SUPPORTED, descriptor);
            send_answer(x, answer, allocation).await
        }
        _ => Err(Sense::LOGICAL_UNIT_NOT_SUPPORTED.into()),
    }
}

fn sense_answer(sense: Sense, descriptor: bool) -> Vec<u8> {
    if descriptor { sense.descriptor().to_vec() } else { sense.fixed().to_vec() }
}

async fn send_answer(x: &mut Exchange, mut answer: Vec<u8>, allocation: u32) -> Result<u64, Stop> {
    answer.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
    let intended = u64::try_from(answer.len()).unwrap_or(u64::MAX);
    x.send(Bytes::from(answer)).await?;
    Ok(intended)
}

fn refused(error: CdbError) -> Status {
    match error {
        CdbError::InvalidOperationCode => Sense::INVALID_OPERATION_CODE.into(),
        CdbError::InvalidField => Sense::INVALID_FIELD_IN_CDB.into(),
    }
}

/// Whether a command writes to the medium, which write protection forbids (SBC-3, section 4.12).
fn changes_medium(command: Command) -> bool {
    matches!(
        command,
        Command::CompareAndWrite { .. }
            | Command::OrWrite { .. }
            | Command::Unmap { .. }
            | Command::Write { .. }
            | Command::WriteAndVerify { .. }
            | Command::WriteSame { .. }
    )
}

/// What a command needs under a reservation of somebody else (SPC-4, table 66; SBC-3, table 9).
/// PERSISTENT RESERVE OUT and RESERVE (6) have rules of their own.
fn need(command: Command) -> Need {
    match command {
        Command::Inquiry { .. }
        | Command::PersistentReserveOut { .. }
        | Command::PreventAllowMediumRemoval { prevent: false }
        | Command::Release6
        | Command::ReportLuns { .. }
        | Command::RequestSense { .. }
        | Command::Reserve6 => Need::Nothing,
        Command::PersistentReserveIn { .. }
        | Command::ReadCapacity10
        | Command::ReadCapacity16 { .. }
        | Command::ReportSupportedOperationCodes { .. }
        | Command::StartStopUnit { start: true, .. }
        | Command::TestUnitReady => Need::Attention,
        Command::GetLbaStatus { .. }
        | Command::ModeSense { .. }
        | Command::Prefetch { .. }
        | Command::Read { .. }
        | Command::Verify { .. } => Need::Read,
        Command::CompareAndWrite { .. }
        | Command::OrWrite { .. }
        | Command::PreventAllowMediumRemoval { prevent: true }
        | Command::StartStopUnit { start: false, .. }
        | Command::SynchronizeCache { .. }
        | Command::Unmap { .. }
        | Command::Write { .. }
        | Command::WriteAndVerify { .. }
        | Command::WriteSame { .. } => Need::Write,
    }
}
