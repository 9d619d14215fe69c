//! Command Descriptor Blocks (SPC-4, SBC-3): which command, on what. Pure; no bytes make it panic.
//!
//! A command that is parsed is one that we do; whether its blocks exist is the logical unit's to
//! say. Protection information is not kept, so a command that asks for it has an invalid field.

use super::field::{u8_at, u16_at, u24_at, u32_at, u64_at};

/// The length of the longest CDB that we take, in bytes.
pub const CDB_LENGTH: usize = 16;

/// Why a CDB is none that we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CdbError {
    /// No such command.
    #[error("an operation code that is not offered")]
    InvalidOperationCode,
    /// A field holds what the command does not allow, or we do not offer.
    #[error("a field of the CDB that is invalid")]
    InvalidField,
}

/// Logical blocks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first one.
    pub lba: u64,
    /// How many.
    pub blocks: u32,
}

/// Against what a VERIFY checks the medium (the field BYTCHK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// It is read and no more.
    Nothing,
    /// Against as many blocks of data as it covers.
    Blocks,
    /// Each of its blocks against one block of data.
    OneBlock,
}

/// What a WRITE SAME writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Same {
    /// Whether blocks may be freed instead, if that reads the same.
    pub unmap: bool,
    /// Whether it brings a block; without one (NDOB) it is zeros.
    pub has_data: bool,
}

/// One of two lengths of a command's parameter data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// That of the six byte CDB.
    Six,
    /// That of the ten byte CDB.
    Ten,
}

/// A command. An `allocation` is the most of its answer that is sent, in bytes; a `length` is how
/// many bytes of parameters it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the standards, by their names")]
pub enum Command {
    CompareAndWrite {
        extent: Extent,
    },
    GetLbaStatus {
        lba: u64,
        allocation: u32,
    },
    Inquiry {
        page: Option<u8>,
        allocation: u32,
    },
    ModeSense {
        form: Form,
        with_descriptor: bool,
        control: u8,
        page: u8,
        subpage: u8,
        allocation: u32,
    },
    OrWrite {
        extent: Extent,
    },
    PersistentReserveIn {
        action: u8,
        allocation: u32,
    },
    PersistentReserveOut {
        action: u8,
        scope: u8,
        kind: u8,
        length: u32,
    },
    Prefetch {
        extent: Extent,
    },
    PreventAllowMediumRemoval {
        prevent: bool,
    },
    Read {
        extent: Extent,
    },
    ReadCapacity10,
    ReadCapacity16 {
        allocation: u32,
    },
    Release6,
    ReportLuns {
        allocation: u32,
    },
    ReportSupportedOperationCodes {
        options: u8,
        operation: u8,
        action: u16,
        with_timeouts: bool,
        allocation: u32,
    },
    RequestSense {
        descriptor: bool,
        allocation: u32,
    },
    Reserve6,
    StartStopUnit {
        start: bool,
        load_eject: bool,
        power_condition: u8,
    },
    SynchronizeCache {
        extent: Extent,
    },
    TestUnitReady,
    Unmap {
        length: u32,
    },
    Verify {
        extent: Extent,
        compare: Compare,
    },
    Write {
        extent: Extent,
    },
    WriteAndVerify {
        extent: Extent,
        compare: Compare,
    },
    WriteSame {
        extent: Extent,
        same: Same,
    },
}

impl Command {
    /// Reads a CDB, padded with zeros.
    ///
    /// # Errors
    /// [`CdbError`], which a command ends with.
    pub fn parse(cdb: &[u8; CDB_LENGTH]) -> Result<Self, CdbError> {
        let (operation, flags) = (u8_at(cdb, 0), u8_at(cdb, 1));
        let extent = || extent_of(cdb, operation);
        let allocation16 = u32::from(u16_at(cdb, 7));
        Ok(match operation {
            0x00 => Self::TestUnitReady,
            0x03 => Self::RequestSense {
                descriptor: flags & 1 != 0,
                allocation: u32::from(u8_at(cdb, 4)),
            },
            0x08 => Self::Read { extent: extent() },
            0x0a => Self::Write { extent: extent() },
            0x12 => inquiry(cdb)?,
            0x16 => Self::Reserve6,
            0x17 => Self::Release6,
            0x1a => mode_sense(cdb, Form::Six, u32::from(u8_at(cdb, 4))),
            0x1b => start_stop(cdb),
            0x1e => Self::PreventAllowMediumRemoval { prevent: u8_at(cdb, 4) & 0b11 != 0 },
            0x25 => read_capacity_10(cdb)?,
            0x28 | 0x88 | 0xa8 => unprotected(flags, Self::Read { extent: extent() })?,
            0x2a | 0x8a | 0xaa => unprotected(flags, Self::Write { extent: extent() })?,
            0x2e | 0x8e | 0xae => {
                let compare = compare_of(flags)?;
                unprotected(flags, Self::WriteAndVerify { extent: extent(), compare })?
            }
            0x2f | 0x8f | 0xaf => {
                let compare = compare_of(flags)?;
                unprotected(flags, Self::Verify { extent: extent(), compare })?
            }
            0x34 | 0x90 => Self::Prefetch { extent: extent() },
            0x35 | 0x91 => Self::SynchronizeCache { extent: extent() },
            0x41 => write_same(flags, extent(), true)?,
            0x93 => write_same(flags & !NO_DATA, extent(), flags & NO_DATA == 0)?,
            0x42 if flags & 1 != 0 => return Err(CdbError::InvalidField),
            0x42 => Self::Unmap { length: allocation16 },
            0x5a => mode_sense(cdb, Form::Ten, allocation16),
            0x5e => Self::PersistentReserveIn { action: flags & 0x1f, allocation: allocation16 },
            0x5f => {
                let kind = u8_at(cdb, 2);
                Self::PersistentReserveOut {
                    action: flags & 0x1f,
                    scope: kind >> 4,
                    kind: kind & 0xf,
                    length: u32_at(cdb, 5),
                }
            }
            0x89 => {
                let extent = Extent { lba: u64_at(cdb, 2), blocks: u32::from(u8_at(cdb, 13)) };
                unprotected(flags, Self::CompareAndWrite { extent })?
            }
            0x8b => unprotected(flags, Self::OrWrite { extent: extent() })?,
            0x9e => match flags & 0x1f {
                0x10 => Self::ReadCapacity16 { allocation: u32_at(cdb, 10) },
                0x12 => Self::GetLbaStatus { lba: u64_at(cdb, 2), allocation: u32_at(cdb, 10) },
                _ => return Err(CdbError::InvalidField),
            },
            0xa0 => report_luns(cdb)?,
            0xa3 if flags & 0x1f == 0x0c => Self::ReportSupportedOperationCodes {
                options: u8_at(cdb, 2) & 0b111,
                operation: u8_at(cdb, 3),
                action: u16_at(cdb, 4),
                with_timeouts: u8_at(cdb, 2) & 0x80 != 0,
                allocation: u32_at(cdb, 6),
            },
            0xa3 => return Err(CdbError::InvalidField),
            _ => return Err(CdbError::InvalidOperationCode),
        })
    }
}

/// Where the blocks stand in a CDB follows from the length that its operation code tells.
fn extent_of(cdb: &[u8; CDB_LENGTH], operation: u8) -> Extent {
    let (lba, blocks) = match operation >> 5 {
        0 => {
            let blocks = match u8_at(cdb, 4) {
                0 => 256,
                blocks => u32::from(blocks),
            };
            (u64::from(u24_at(cdb, 1) & 0x1f_ffff), blocks)
        }
        1 | 2 => (u64::from(u32_at(cdb, 2)), u32::from(u16_at(cdb, 7))),
        5 => (u64::from(u32_at(cdb, 2)), u32_at(cdb, 6)),
        _ => (u64_at(cdb, 2), u32_at(cdb, 10)),
    };
    Extent { lba, blocks }
}

/// Refuses RDPROTECT, WRPROTECT, VRPROTECT and ORPROTECT.
fn unprotected(flags: u8, command: Command) -> Result<Command, CdbError> {
    if flags >> 5 == 0 { Ok(command) } else { Err(CdbError::InvalidField) }
}

fn compare_of(flags: u8) -> Result<Compare, CdbError> {
    match flags >> 1 & 0b11 {
        0 => Ok(Compare::Nothing),
        1 => Ok(Compare::Blocks),
        3 => Ok(Compare::OneBlock),
        _ => Err(CdbError::InvalidField),
    }
}

/// NDOB of WRITE SAME (16): there is no data-out buffer.
const NO_DATA: u8 = 0x01;

fn write_same(flags: u8, extent: Extent, has_data: bool) -> Result<Command, CdbError> {
    let (anchor, unmap) = (flags & 0x10 != 0, flags & 0x08 != 0);
    // LBDATA and PBDATA are obsolete.
    if anchor || flags & 0b111 != 0 {
        return Err(CdbError::InvalidField);
    }
    let same = Same { unmap, has_data };
    unprotected(flags, Command::WriteSame { extent, same })
}

fn inquiry(cdb: &[u8; CDB_LENGTH]) -> Result<Command, CdbError> {
    let (vital, page) = (u8_at(cdb, 1) & 1 != 0, u8_at(cdb, 2));
    if u8_at(cdb, 1) & 0b10 != 0 || !vital && page != 0 {
        return Err(CdbError::InvalidField);
    }
    let allocation = u32::from(u16_at(cdb, 3));
    Ok(Command::Inquiry { page: vital.then_some(page), allocation })
}

fn mode_sense(cdb: &[u8; CDB_LENGTH], form: Form, allocation: u32) -> Command {
    Command::ModeSense {
        form,
        with_descriptor: u8_at(cdb, 1) & 0x08 == 0,
        control: u8_at(cdb, 2) >> 6,
        page: u8_at(cdb, 2) & 0x3f,
        subpage: u8_at(cdb, 3),
        allocation,
    }
}

fn start_stop(cdb: &[u8; CDB_LENGTH]) -> Command {
    let last = u8_at(cdb, 4);
    Command::StartStopUnit {
        start: last & 1 != 0,
        load_eject: last & 2 != 0,
        power_condition: last >> 4,
    }
}

fn read_capacity_10(cdb: &[u8; CDB_LENGTH]) -> Result<Command, CdbError> {
    let partial = u8_at(cdb, 8) & 1 != 0;
    if !partial && u32_at(cdb, 2) != 0 {
        return Err(CdbError::InvalidField);
    }
    Ok(Command::ReadCapacity10)
}

fn report_luns(cdb: &[u8; CDB_LENGTH]) -> Result<Command, CdbError> {
    if u8_at(cdb, 2) > 2 {
        return Err(CdbError::InvalidField);
    }
    Ok(Command::ReportLuns { allocation: u32_at(cdb, 6) })
}

/// What the parameters of UNMAP name, without what has no blocks (SBC-3, section 5.28).
///
/// # Errors
/// `InvalidField` if they end in the middle of a descriptor, or before the lengths in them.
pub fn unmap_descriptors(parameters: &[u8]) -> Result<Vec<Extent>, CdbError> {
    const HEADER: usize = 8;
    const DESCRIPTOR: usize = 16;
    let (length, descriptors) = (u16_at(parameters, 0), u16_at(parameters, 2));
    let end = HEADER + usize::from(descriptors);
    let listed = parameters.get(HEADER..end).ok_or(CdbError::InvalidField)?;
    if usize::from(length) < end - 2 || listed.len() % DESCRIPTOR != 0 {
        return Err(CdbError::InvalidField);
    }
    let extents = listed.chunks_exact(DESCRIPTOR);
    let extents = extents.map(|from| Extent { lba: u64_at(from, 0), blocks: u32_at(from, 8) });
    Ok(extents.filter(|extent| extent.blocks > 0).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Command, CdbError> {
        let mut cdb = [0; CDB_LENGTH];
        cdb[..bytes.len()].copy_from_slice(bytes);
        Command::parse(&cdb)
    }

    #[test]
    fn blocks_are_found_in_cdbs_of_every_length() {
        for (cdb, lba, blocks) in [
            (&[0x08, 0xff, 1, 2, 3][..], 0x1f_0102, 3),
            (&[0x08, 0, 0, 0, 0], 0, 256),
            (&[0x28, 0, 1, 2, 3, 4, 0, 5, 6], 0x0102_0304, 0x0506),
            (&[0xa8, 0, 1, 2, 3, 4, 5, 6, 7, 8], 0x0102_0304, 0x0506_0708),
            (&[0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 0x0102_0304_0506_0708, 0x090a_0b0c),
        ] {
            let extent = Extent { lba, blocks };
            assert_eq!(parse(cdb), Ok(Command::Read { extent }), "{cdb:x?}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for (cdb, error) in [
            (&[0x04][..], CdbError::InvalidOperationCode),
            (&[0xff], CdbError::InvalidOperationCode),
            (&[0x28, 0x20], CdbError::InvalidField),
            (&[0x2f, 0x04], CdbError::InvalidField),
            (&[0x42, 1], CdbError::InvalidField),
            (&[0x93, 0x18], CdbError::InvalidField),
            (&[0x41, 0x01], CdbError::InvalidField),
            (&[0x93, 0x02], CdbError::InvalidField),
            (&[0x12, 0, 0x80], CdbError::InvalidField),
            (&[0x25, 0, 1], CdbError::InvalidField),
            (&[0x9e, 0x11], CdbError::InvalidField),
            (&[0xa3, 0x05], CdbError::InvalidField),
            (&[0x15, 0x11], CdbError::InvalidOperationCode),
        ] {
            assert_eq!(parse(cdb), Err(error), "{cdb:x?}");
        }
    }

    #[test]
    fn how_much_is_compared_is_read_from_two_bits() {
        let extent = Extent { lba: 0, blocks: 1 };
        for (flags, compare) in
            [(0, Compare::Nothing), (2, Compare::Blocks), (6, Compare::OneBlock)]
        {
            let cdb = [0x2f, flags, 0, 0, 0, 0, 0, 0, 1];
            assert_eq!(parse(&cdb), Ok(Command::Verify { extent, compare }));
        }
    }

    #[test]
    fn the_descriptors_of_an_unmap_are_all_there_or_none_is_taken() {
        let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
        for (lba, blocks) in [(7_u64, 8_u32), (9, 0)] {
            list.extend([&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat());
        }
        assert_eq!(unmap_descriptors(&list), Ok(vec![Extent { lba: 7, blocks: 8 }]));
        assert_eq!(unmap_descriptors(&list[..39]), Err(CdbError::InvalidField));
        list[1] = 37;
        assert_eq!(unmap_descriptors(&list), Err(CdbError::InvalidField));
        assert_eq!(unmap_descriptors(&[0, 7, 0, 1, 0, 0, 0, 0, 0]), Err(CdbError::InvalidField));
    }

    proptest! {
        #[test]
        fn no_cdb_panics_it(cdb: [u8; CDB_LENGTH]) {
            let _ = Command::parse(&cdb);
        }

        #[test]
        fn no_unmap_panics_it(list in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = unmap_descriptors(&list);
        }
    }
}
