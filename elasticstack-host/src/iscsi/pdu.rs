//! The Basic Header Segments of iSCSI PDUs (RFC 7143, section 11): what an initiator sends is
//! parsed, what a target sends is made. An initiator needs both the other way, see
//! `initiator_pdu.rs`.
//!
//! Pure: no socket and no clock, and no 48 bytes make it panic. Data segments are not touched here;
//! a header only tells how long they are.

use super::field::{array_at, put, u8_at, u16_at, u24_at, u32_at, u64_at};

/// The length of every Basic Header Segment, in bytes.
pub const BHS_LENGTH: usize = 48;

/// The tag that means no tag, of a task or a transfer.
pub const NO_TAG: u32 = u32::MAX;

pub(super) const IMMEDIATE: u8 = 0x40;
pub(super) const FINAL: u8 = 0x80;
pub(super) const CONTINUE: u8 = 0x40;

/// Why a header is none that the other side may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PduError {
    /// An opcode that no initiator uses, or one that error recovery level 0 does not know.
    #[error("opcode {0:#04x} is no request of an initiator at error recovery level 0")]
    Opcode(u8),
    /// An opcode that no target uses at error recovery level 0.
    #[error("opcode {0:#04x} is no response of a target at error recovery level 0")]
    Response(u8),
    /// A key that must name something names nothing.
    #[error("opcode {0:#04x} carries the initiator task tag that means none")]
    NoTaskTag(u8),
}

/// The header of one PDU from an initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The length of all Additional Header Segments, in bytes.
    pub ahs_length: usize,
    /// The length of the data segment without its padding, in bytes, below 2²⁴.
    pub data_length: usize,
    /// The tag that the initiator gave the task.
    pub initiator_task_tag: u32,
    /// Whether it is for immediate delivery, so that it takes no place in the command window.
    pub immediate: bool,
    /// The command's number; meaningless on data.
    pub cmd_sn: u32,
    /// What is asked.
    pub operation: Operation,
}

/// What a PDU from an initiator asks, by its opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A ping, or the answer to one of ours (section 11.18).
    NopOut {
        /// The tag of the ping that this answers, or [`NO_TAG`].
        target_transfer_tag: u32,
    },
    /// A SCSI command (section 11.3).
    ScsiCommand(ScsiCommand),
    /// A task management function (section 11.5).
    TaskManagement {
        /// Which one.
        function: u8,
        /// The logical unit.
        lun: u64,
        /// The task to act on.
        referenced_task_tag: u32,
    },
    /// A step of a login (section 11.12).
    Login(LoginRequest),
    /// A text negotiation (section 11.10).
    Text {
        /// Whether the initiator has said all.
        is_final: bool,
        /// Whether the text goes on in the next PDU.
        continues: bool,
        /// The tag of the answer that this continues, or [`NO_TAG`].
        target_transfer_tag: u32,
    },
    /// Data of a write (section 11.7).
    DataOut {
        /// Whether it ends its sequence.
        is_final: bool,
        /// The tag of the R2T that asked for it; [`NO_TAG`] if none did.
        target_transfer_tag: u32,
        /// Its number in its sequence.
        data_sn: u32,
        /// Where in the task's data it begins, in bytes.
        buffer_offset: u32,
    },
    /// The end of a session or connection (section 11.14).
    Logout {
        /// 0 closes the session, 1 the connection, 2 would recover it.
        reason: u8,
    },
}

/// The header of a SCSI Command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiCommand {
    /// Whether no unsolicited data follows.
    pub is_final: bool,
    /// Whether it expects data.
    pub read: bool,
    /// Whether it brings data.
    pub write: bool,
    /// The logical unit, as the eight bytes of SAM.
    pub lun: u64,
    /// How much data it expects or brings, in bytes.
    pub expected_data_transfer_length: u32,
    /// The Command Descriptor Block, padded with zeros.
    pub cdb: [u8; 16],
}

/// The header of a Login Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginRequest {
    /// Whether the initiator is ready for the next stage.
    pub transit: bool,
    /// Whether the text goes on in the next PDU.
    pub continues: bool,
    /// The stage that it is in: 0 security, 1 operational.
    pub current_stage: u8,
    /// The stage that it wants next; 3 is the full-feature phase.
    pub next_stage: u8,
    /// The lowest version that the initiator speaks; there is only 0.
    pub version_min: u8,
    /// The initiator's part of the session's name.
    pub isid: [u8; 6],
    /// The target's part of it; 0 for a new session.
    pub tsih: u16,
    /// The connection's id.
    pub cid: u16,
}

impl Request {
    /// Reads a header.
    ///
    /// # Errors
    /// [`PduError`]; the connection is then of no more use.
    pub fn parse(header: &[u8; BHS_LENGTH]) -> Result<Self, PduError> {
        let first = u8_at(header, 0);
        let (opcode, flags) = (first & 0x3f, u8_at(header, 1));
        let is_final = flags & FINAL != 0;
        let continues = flags & CONTINUE != 0;
        let initiator_task_tag = u32_at(header, 16);
        let target_transfer_tag = u32_at(header, 20);
        let operation = match opcode {
            0x00 => Operation::NopOut { target_transfer_tag },
            0x01 => Operation::ScsiCommand(ScsiCommand {
                is_final,
                read: flags & 0x40 != 0,
                write: flags & 0x20 != 0,
                lun: u64_at(header, 8),
                expected_data_transfer_length: u32_at(header, 20),
                cdb: array_at(header, 32),
            }),
            0x02 => Operation::TaskManagement {
                function: flags & 0x7f,
                lun: u64_at(header, 8),
                referenced_task_tag: u32_at(header, 20),
            },
            0x03 => Operation::Login(LoginRequest {
                transit: is_final,
                continues,
                current_stage: flags >> 2 & 0b11,
                next_stage: flags & 0b11,
                version_min: u8_at(header, 3),
                isid: array_at(header, 8),
                tsih: u16_at(header, 14),
                cid: u16_at(header, 20),
            }),
            0x04 => Operation::Text { is_final, continues, target_transfer_tag },
            0x05 => Operation::DataOut {
                is_final,
                target_transfer_tag,
                data_sn: u32_at(header, 36),
                buffer_offset: u32_at(header, 40),
            },
            0x06 => Operation::Logout { reason: flags & 0x7f },
            _ => return Err(PduError::Opcode(opcode)),
        };
        if initiator_task_tag == NO_TAG && !matches!(operation, Operation::NopOut { .. }) {
            return Err(PduError::NoTaskTag(opcode));
        }
        Ok(Self {
            ahs_length: usize::from(u8_at(header, 4)) * 4,
            data_length: usize::try_from(u24_at(header, 5)).unwrap_or(usize::MAX),
            initiator_task_tag,
            immediate: first & IMMEDIATE != 0,
            cmd_sn: u32_at(header, 24),
            operation,
        })
    }
}

/// The numbers that a PDU from the target carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// This status's number, or the next one's.
    pub stat_sn: u32,
    /// The command number that is expected next.
    pub exp_cmd_sn: u32,
    /// The last command number that may be sent now.
    pub max_cmd_sn: u32,
}

/// How much more or less data there was than the initiator expected (section 11.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// As much as expected.
    None,
    /// So many bytes less.
    Underflow(u32),
    /// So many bytes more, which were not transferred.
    Overflow(u32),
}

impl Residual {
    /// Of a command that means to transfer `intended` bytes while `expected` were announced.
    #[must_use]
    pub fn of(intended: u64, expected: u32) -> Self {
        let less = u64::from(expected).saturating_sub(intended);
        let more = intended.saturating_sub(u64::from(expected));
        match (u32::try_from(less), u32::try_from(more)) {
            (Ok(0), Ok(0)) => Self::None,
            (Ok(0), more) => Self::Overflow(more.unwrap_or(u32::MAX)),
            (less, _) => Self::Underflow(less.unwrap_or(u32::MAX)),
        }
    }

    fn flag_and_count(self) -> (u8, u32) {
        match self {
            Self::None => (0, 0),
            Self::Underflow(count) => (0x02, count),
            Self::Overflow(count) => (0x04, count),
        }
    }
}

/// The header of one PDU to an initiator. Its data segment is sent after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// The answer to a ping, or a ping of ours (section 11.19).
    NopIn {
        /// The ping's task tag; [`NO_TAG`] for a ping of ours.
        initiator_task_tag: u32,
        /// The tag that the answer to ours shall carry, else [`NO_TAG`].
        target_transfer_tag: u32,
    },
    /// The end of a command, with sense data as its data segment (section 11.4).
    Scsi {
        /// The task.
        initiator_task_tag: u32,
        /// The SCSI status.
        status: u8,
        /// How many R2Ts and Data-Ins the task had.
        exp_data_sn: u32,
        /// How the data differed from what was expected.
        residual: Residual,
    },
    /// The end of a task management function (section 11.6).
    TaskManagement {
        /// The function's task tag.
        initiator_task_tag: u32,
        /// What became of it.
        response: u8,
    },
    /// A step of a login (section 11.13).
    Login {
        /// The request's task tag.
        initiator_task_tag: u32,
        /// The stages, and whether to go on to the next one, as in the request.
        transit: bool,
        /// The stage that the login is in.
        current_stage: u8,
        /// The stage that it goes to, if it does.
        next_stage: u8,
        /// The initiator's part of the session's name.
        isid: [u8; 6],
        /// Ours.
        tsih: u16,
        /// Status-Class and Status-Detail, (0, 0) while all is well.
        status: (u8, u8),
    },
    /// The answer to a text (section 11.11).
    Text {
        /// The request's task tag.
        initiator_task_tag: u32,
        /// Whether this ends it.
        is_final: bool,
        /// Whether the text goes on in the next PDU.
        continues: bool,
        /// The tag that the next request shall carry, else [`NO_TAG`].
        target_transfer_tag: u32,
    },
    /// Data of a read, perhaps with a good end of the command (section 11.7).
    DataIn {
        /// The task.
        initiator_task_tag: u32,
        /// Whether it ends its sequence.
        is_final: bool,
        /// Its number in the task.
        data_sn: u32,
        /// Where in the task's data it begins, in bytes.
        buffer_offset: u32,
        /// Present if the command ends with this PDU, in the status GOOD.
        good: Option<Residual>,
    },
    /// A request for data (section 11.8).
    ReadyToTransfer {
        /// The task.
        initiator_task_tag: u32,
        /// The logical unit.
        lun: u64,
        /// The tag that the data shall carry.
        target_transfer_tag: u32,
        /// This R2T's number in the task.
        r2t_sn: u32,
        /// Where in the task's data it begins, in bytes.
        buffer_offset: u32,
        /// How much is wanted, in bytes.
        desired_data_transfer_length: u32,
    },
    /// The end of a session (section 11.15).
    Logout {
        /// The request's task tag.
        initiator_task_tag: u32,
        /// 0 if it is closed, 2 if recovery was asked for.
        response: u8,
    },
    /// A PDU that is not done, whose header is the data segment (section 11.17).
    Reject {
        /// Why.
        reason: u8,
    },
}

impl Response {
    /// Whether it takes a number of its own from StatSN.
    #[must_use]
    pub fn takes_stat_sn(&self) -> bool {
        match self {
            Self::DataIn { good, .. } => good.is_some(),
            Self::ReadyToTransfer { .. } => false,
            Self::NopIn { initiator_task_tag, .. } => *initiator_task_tag != NO_TAG,
            Self::Scsi { .. }
            | Self::TaskManagement { .. }
            | Self::Login { .. }
            | Self::Text { .. }
            | Self::Logout { .. }
            | Self::Reject { .. } => true,
        }
    }

    /// The header's bytes, of a PDU with `data_length` bytes of data.
    #[must_use]
    pub fn header(&self, numbers: Numbers, data_length: u32) -> [u8; BHS_LENGTH] {
        let mut header = [0; BHS_LENGTH];
        let mut flags = FINAL;
        let (opcode, tag) = match *self {
            Self::NopIn { initiator_task_tag, target_transfer_tag } => {
                put(&mut header, 20, target_transfer_tag.to_be_bytes());
                (0x20, initiator_task_tag)
            }
            Self::Scsi { initiator_task_tag, status, exp_data_sn, residual } => {
                let (flag, count) = residual.flag_and_count();
                flags |= flag;
                put(&mut header, 3, [status]);
                put(&mut header, 36, exp_data_sn.to_be_bytes());
                put(&mut header, 44, count.to_be_bytes());
                (0x21, initiator_task_tag)
            }
            Self::TaskManagement { initiator_task_tag, response } => {
                put(&mut header, 2, [response]);
                (0x22, initiator_task_tag)
            }
            Self::Login {
                initiator_task_tag,
                transit,
                current_stage,
                next_stage,
                isid,
                tsih,
                status: (class, detail),
            } => {
                flags = current_stage << 2;
                if transit {
                    flags |= FINAL | next_stage;
                }
                put(&mut header, 8, isid);
                put(&mut header, 14, tsih.to_be_bytes());
                put(&mut header, 36, [class, detail]);
                (0x23, initiator_task_tag)
            }
            Self::Text { initiator_task_tag, is_final, continues, target_transfer_tag } => {
                flags = if is_final { FINAL } else { 0 } | if continues { CONTINUE } else { 0 };
                put(&mut header, 20, target_transfer_tag.to_be_bytes());
                (0x24, initiator_task_tag)
            }
            Self::DataIn { initiator_task_tag, is_final, data_sn, buffer_offset, good } => {
                flags = if is_final { FINAL } else { 0 };
                if let Some(residual) = good {
                    let (flag, count) = residual.flag_and_count();
                    flags |= 0x01 | flag;
                    put(&mut header, 44, count.to_be_bytes());
                }
                put(&mut header, 20, NO_TAG.to_be_bytes());
                put(&mut header, 36, data_sn.to_be_bytes());
                put(&mut header, 40, buffer_offset.to_be_bytes());
                (0x25, initiator_task_tag)
            }
            Self::ReadyToTransfer {
                initiator_task_tag,
                lun,
                target_transfer_tag,
                r2t_sn,
                buffer_offset,
                desired_data_transfer_length,
            } => {
                put(&mut header, 8, lun.to_be_bytes());
                put(&mut header, 20, target_transfer_tag.to_be_bytes());
                put(&mut header, 36, r2t_sn.to_be_bytes());
                put(&mut header, 40, buffer_offset.to_be_bytes());
                put(&mut header, 44, desired_data_transfer_length.to_be_bytes());
                (0x31, initiator_task_tag)
            }
            Self::Logout { initiator_task_tag, response } => {
                put(&mut header, 2, [response]);
                (0x26, initiator_task_tag)
            }
            Self::Reject { reason } => {
                put(&mut header, 2, [reason]);
                (0x3f, NO_TAG)
            }
        };
        let [_, length @ ..] = data_length.to_be_bytes();
        put(&mut header, 0, [opcode, flags]);
        put(&mut header, 5, length);
        put(&mut header, 16, tag.to_be_bytes());
        // The field means nothing in a Data-In without status, where it must be zero.
        if self.takes_stat_sn() || !matches!(self, Self::DataIn { .. }) {
            put(&mut header, 24, numbers.stat_sn.to_be_bytes());
        }
        put(&mut header, 28, numbers.exp_cmd_sn.to_be_bytes());
        put(&mut header, 32, numbers.max_cmd_sn.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(fields: &[(usize, &[u8])]) -> [u8; BHS_LENGTH] {
        let mut header = [0; BHS_LENGTH];
        for (at, bytes) in fields {
            header[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        header
    }

    #[test]
    fn a_write_of_ten_blocks_is_read_as_it_stands_in_the_rfc() {
        let cdb = [0x2a, 0, 0, 0, 0, 1, 0, 0, 10, 0];
        let request = Request::parse(&header(&[
            (0, &[0x01, 0xa1, 0, 0, 0, 0, 0x14, 0]),
            (8, &[0, 1]),
            (16, &[0, 0, 0, 7, 0, 0, 0x14, 0, 0, 0, 0, 9]),
            (32, &cdb),
        ]));
        let mut padded = [0; 16];
        padded[..10].copy_from_slice(&cdb);
        let operation = Operation::ScsiCommand(ScsiCommand {
            is_final: true,
            read: false,
            write: true,
            lun: 1 << 48,
            expected_data_transfer_length: 5120,
            cdb: padded,
        });
        assert_eq!(
            request.unwrap(),
            Request {
                ahs_length: 0,
                data_length: 5120,
                initiator_task_tag: 7,
                immediate: false,
                cmd_sn: 9,
                operation,
            }
        );
    }

    #[test]
    fn what_no_initiator_may_send_is_refused() {
        for opcode in [0x10, 0x20, 0x25, 0x31, 0x3f] {
            assert_eq!(Request::parse(&header(&[(0, &[opcode])])), Err(PduError::Opcode(opcode)));
        }
        let no_tag = header(&[(0, &[0x41]), (16, &[0xff; 4])]);
        assert_eq!(Request::parse(&no_tag), Err(PduError::NoTaskTag(1)));
    }

    #[test]
    fn a_residual_tells_which_side_had_more() {
        for (intended, expected, residual) in [
            (512, 512, Residual::None),
            (512, 10_000, Residual::Underflow(9488)),
            (512, 200, Residual::Overflow(312)),
            (u64::MAX, 0, Residual::Overflow(u32::MAX)),
            (0, u32::MAX, Residual::Underflow(u32::MAX)),
        ] {
            assert_eq!(Residual::of(intended, expected), residual, "{intended} of {expected}");
        }
    }

    #[test]
    fn a_data_in_carries_a_status_number_only_with_a_status() {
        let numbers = Numbers { stat_sn: 5, exp_cmd_sn: 6, max_cmd_sn: 37 };
        let mut data = Response::DataIn {
            initiator_task_tag: 1,
            is_final: true,
            data_sn: 2,
            buffer_offset: 8192,
            good: None,
        };
        let plain = data.header(numbers, 4096);
        assert_eq!((plain[1], u32_at(&plain, 24)), (0x80, 0));
        if let Response::DataIn { good, .. } = &mut data {
            *good = Some(Residual::Overflow(3));
        }
        let last = data.header(numbers, 4096);
        assert_eq!((last[1], u32_at(&last, 24), u32_at(&last, 44)), (0x85, 5, 3));
        assert_eq!((u24_at(&last, 5), u32_at(&last, 40)), (4096, 8192));
    }

    proptest! {
        #[test]
        fn no_header_panics_it(bytes in any::<[u8; 16]>(), rest in any::<[u8; 32]>()) {
            let header = header(&[(0, &bytes), (16, &rest)]);
            if let Ok(request) = Request::parse(&header) {
                prop_assert!(request.data_length < 1 << 24);
                prop_assert!(request.ahs_length <= 255 * 4);
            }
        }
    }
}
