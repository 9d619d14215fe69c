//! Headers of PDUs as an initiator needs them: requests are made, responses parsed. [`super::pdu`]
//! has the same for a target.
//!
//! Pure: no 48 bytes make it panic.

use super::field::{array_at, put, u8_at, u16_at, u24_at, u32_at, u64_at};
use super::pdu::{
    BHS_LENGTH, CONTINUE, FINAL, IMMEDIATE, Numbers, Operation, PduError, Request, Residual,
    Response,
};

/// The header of one PDU from a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The length of the data segment without its padding, in bytes, below 2²⁴.
    pub data_length: usize,
    /// Its numbers; the status number means nothing in a Data-In without status.
    pub numbers: Numbers,
    /// What it is.
    pub response: Response,
}

impl Request {
    /// The header's bytes. `exp_stat_sn` is the number of the status that is expected next.
    #[must_use]
    pub fn header(&self, exp_stat_sn: u32) -> [u8; BHS_LENGTH] {
        let mut header = [0; BHS_LENGTH];
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let (opcode, flags) = match self.operation {
            Operation::NopOut { target_transfer_tag } => {
                put(&mut header, 20, target_transfer_tag.to_be_bytes());
                (0x00, FINAL)
            }
            Operation::ScsiCommand(command) => {
                put(&mut header, 8, command.lun.to_be_bytes());
                put(&mut header, 20, command.expected_data_transfer_length.to_be_bytes());
                put(&mut header, 32, command.cdb);
                let direction = flag(command.read, 0x40) | flag(command.write, 0x20);
                // A simple task.
                (0x01, flag(command.is_final, FINAL) | direction | 1)
            }
            Operation::TaskManagement { function, lun, referenced_task_tag } => {
                put(&mut header, 8, lun.to_be_bytes());
                put(&mut header, 20, referenced_task_tag.to_be_bytes());
                (0x02, FINAL | function)
            }
            Operation::Login(login) => {
                put(&mut header, 2, [0, login.version_min]);
                put(&mut header, 8, login.isid);
                put(&mut header, 14, login.tsih.to_be_bytes());
                put(&mut header, 20, login.cid.to_be_bytes());
                let stages = (login.current_stage & 0b11) << 2 | login.next_stage & 0b11;
                (0x03, flag(login.transit, FINAL) | flag(login.continues, CONTINUE) | stages)
            }
            Operation::Text { is_final, continues, target_transfer_tag } => {
                put(&mut header, 20, target_transfer_tag.to_be_bytes());
                (0x04, flag(is_final, FINAL) | flag(continues, CONTINUE))
            }
            Operation::DataOut { is_final, target_transfer_tag, data_sn, buffer_offset } => {
                put(&mut header, 20, target_transfer_tag.to_be_bytes());
                put(&mut header, 36, data_sn.to_be_bytes());
                put(&mut header, 40, buffer_offset.to_be_bytes());
                (0x05, flag(is_final, FINAL))
            }
            Operation::Logout { reason } => (0x06, FINAL | reason),
        };
        put(&mut header, 0, [opcode | flag(self.immediate, IMMEDIATE), flags]);
        let length = u32::try_from(self.data_length).unwrap_or(u32::MAX);
        let [_, length @ ..] = length.to_be_bytes();
        put(&mut header, 5, length);
        put(&mut header, 16, self.initiator_task_tag.to_be_bytes());
        if !matches!(self.operation, Operation::DataOut { .. }) {
            put(&mut header, 24, self.cmd_sn.to_be_bytes());
        }
        put(&mut header, 28, exp_stat_sn.to_be_bytes());
        header
    }
}

impl Response {
    /// Reads a header.
    ///
    /// # Errors
    /// [`PduError`]; the connection is then of no more use.
    pub fn parse(header: &[u8; BHS_LENGTH]) -> Result<Received, PduError> {
        let (opcode, flags) = (u8_at(header, 0) & 0x3f, u8_at(header, 1));
        let is_final = flags & FINAL != 0;
        let continues = flags & CONTINUE != 0;
        let initiator_task_tag = u32_at(header, 16);
        let target_transfer_tag = u32_at(header, 20);
        let residual = match flags & 0x06 {
            0x02 => Residual::Underflow(u32_at(header, 44)),
            0x04 => Residual::Overflow(u32_at(header, 44)),
            _ => Residual::None,
        };
        let response = match opcode {
            0x20 => Self::NopIn { initiator_task_tag, target_transfer_tag },
            // A response other than "completed at target" tells of no status.
            0x21 => match u8_at(header, 2) {
                0 => Self::Scsi {
                    initiator_task_tag,
                    status: u8_at(header, 3),
                    exp_data_sn: u32_at(header, 36),
                    residual,
                },
                _ => return Err(PduError::Response(opcode)),
            },
            0x22 => Self::TaskManagement { initiator_task_tag, response: u8_at(header, 2) },
            0x23 => Self::Login {
                initiator_task_tag,
                transit: is_final,
                current_stage: flags >> 2 & 0b11,
                next_stage: if is_final { flags & 0b11 } else { 0 },
                isid: array_at(header, 8),
                tsih: u16_at(header, 14),
                status: (u8_at(header, 36), u8_at(header, 37)),
            },
            0x24 => Self::Text { initiator_task_tag, is_final, continues, target_transfer_tag },
            0x25 => Self::DataIn {
                initiator_task_tag,
                is_final,
                data_sn: u32_at(header, 36),
                buffer_offset: u32_at(header, 40),
                good: match (flags & 0x01, u8_at(header, 3)) {
                    (0, _) => None,
                    (_, 0) => Some(residual),
                    // Only good ends come with data (section 11.7.3).
                    _ => return Err(PduError::Response(opcode)),
                },
            },
            0x26 => Self::Logout { initiator_task_tag, response: u8_at(header, 2) },
            0x31 => Self::ReadyToTransfer {
                initiator_task_tag,
                lun: u64_at(header, 8),
                target_transfer_tag,
                r2t_sn: u32_at(header, 36),
                buffer_offset: u32_at(header, 40),
                desired_data_transfer_length: u32_at(header, 44),
            },
            0x3f => Self::Reject { reason: u8_at(header, 2) },
            _ => return Err(PduError::Response(opcode)),
        };
        let numbers = Numbers {
            stat_sn: u32_at(header, 24),
            exp_cmd_sn: u32_at(header, 28),
            max_cmd_sn: u32_at(header, 32),
        };
        let data_length = usize::try_from(u24_at(header, 5)).unwrap_or(usize::MAX);
        Ok(Received { data_length, numbers, response })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pdu::{LoginRequest, ScsiCommand};
    use super::*;

    #[test]
    fn what_no_target_may_send_is_refused() {
        let mut header = [0; BHS_LENGTH];
        for opcode in [0x00, 0x01, 0x1f, 0x32, 0x3e] {
            header[0] = opcode;
            assert_eq!(Response::parse(&header), Err(PduError::Response(opcode)));
        }
        // A failure of the target without a status, and data with a bad one.
        for (opcode, flags, response, status) in [(0x21, 0x80, 1, 0), (0x25, 0x81, 0, 2)] {
            let mut header = [0; BHS_LENGTH];
            header[..4].copy_from_slice(&[opcode, flags, response, status]);
            assert_eq!(Response::parse(&header), Err(PduError::Response(opcode)));
        }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let command = (any::<[bool; 3]>(), any::<u64>(), any::<u32>(), any::<[u8; 16]>());
        let login = (any::<[bool; 2]>(), 0..4_u8, 0..4_u8, any::<[u8; 6]>(), any::<[u16; 2]>());
        prop_oneof![
            any::<u32>().prop_map(|target_transfer_tag| Operation::NopOut { target_transfer_tag }),
            command.prop_map(|([is_final, read, write], lun, length, cdb)| {
                let expected_data_transfer_length = length;
                Operation::ScsiCommand(ScsiCommand {
                    is_final,
                    read,
                    write,
                    lun,
                    expected_data_transfer_length,
                    cdb,
                })
            }),
            login.prop_map(
                |([transit, continues], current_stage, next_stage, isid, [tsih, cid])| {
                    Operation::Login(LoginRequest {
                        transit,
                        continues,
                        current_stage,
                        next_stage,
                        version_min: 0,
                        isid,
                        tsih,
                        cid,
                    })
                }
            ),
            any::<(bool, u32, u32, u32)>().prop_map(|(is_final, target_transfer_tag, sn, at)| {
                Operation::DataOut { is_final, target_transfer_tag, data_sn: sn, buffer_offset: at }
            }),
            (0..128_u8).prop_map(|reason| Operation::Logout { reason }),
        ]
    }

    proptest! {
        #[test]
        fn a_target_reads_what_an_initiator_writes(
            operation in operation(),
            data_length in 0..1_usize << 24,
            initiator_task_tag in 0..u32::MAX,
            cmd_sn: u32,
            immediate: bool,
        ) {
            let is_data = matches!(operation, Operation::DataOut { .. });
            let cmd_sn = if is_data { 0 } else { cmd_sn };
            let request =
                Request { ahs_length: 0, data_length, initiator_task_tag, immediate, cmd_sn, operation };
            prop_assert_eq!(Request::parse(&request.header(7)), Ok(request));
        }

        #[test]
        fn what_is_read_of_a_target_is_what_it_would_write(
            bytes in any::<[u8; 16]>(), rest in any::<[u8; 32]>(),
            opcode in proptest::sample::select(vec![0x20_u8, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x3f]),
        ) {
            let mut header = [0; BHS_LENGTH];
            header[..16].copy_from_slice(&bytes);
            header[16..].copy_from_slice(&rest);
            let _ = Response::parse(&header);
            header[0] = opcode;
            if let Ok(received) = Response::parse(&header) {
                let length = u32::try_from(received.data_length).unwrap();
                let again = Response::parse(&received.response.header(received.numbers, length));
                prop_assert_eq!(again.unwrap().response, received.response);
            }
        }
    }
}
