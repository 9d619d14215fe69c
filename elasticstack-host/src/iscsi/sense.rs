//! How a SCSI command ends (SAM-5, section 5.3; SPC-4, section 4.5): its status and, after a CHECK
//! CONDITION, why.

use elasticstack_core::prelude::*;

use super::field::put;

/// The status of a command that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    CheckCondition(Sense),
    ReservationConflict,
}

impl Status {
    /// Its code.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Good => 0x00,
            Self::CheckCondition(_) => 0x02,
            Self::ReservationConflict => 0x18,
        }
    }

    /// What an error of the volume is to an initiator.
    ///
    /// A fence is a RESERVATION CONFLICT: another holds the drive now, and initiators give up at
    /// once, where they would wait and try again after NOT READY.
    pub(super) fn of_error(error: &Error, direction: Direction) -> Self {
        match (error.kind(), direction) {
            (ErrorKind::Fenced, _) => Self::ReservationConflict,
            (ErrorKind::InvalidValue, _) => Sense::LBA_OUT_OF_RANGE.into(),
            (ErrorKind::NoCapacity, _) => Sense::SPACE_ALLOCATION_FAILED.into(),
            (ErrorKind::Unavailable, _) => Sense::NOT_READY.into(),
            (_, Direction::Read) => Sense::UNRECOVERED_READ_ERROR.into(),
            (_, Direction::Write) => Sense::WRITE_ERROR.into(),
        }
    }
}

/// Which way a command's medium access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl From<Sense> for Status {
    fn from(sense: Sense) -> Self {
        Self::CheckCondition(sense)
    }
}

/// A sense key with its additional sense code and qualifier, and the place of what is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sense {
    key: u8,
    code: (u8, u8),
    /// In a miscompare, the offset of the first byte that differs.
    information: Option<u32>,
}

impl Sense {
    pub(super) const NONE: Self = Self::new(0x0, 0x00, 0x00);
    pub(super) const NOT_READY: Self = Self::new(0x2, 0x04, 0x00);
    pub(super) const WRITE_ERROR: Self = Self::new(0x3, 0x0c, 0x00);
    pub(super) const UNRECOVERED_READ_ERROR: Self = Self::new(0x3, 0x11, 0x00);
    pub(super) const PARAMETER_LIST_LENGTH_ERROR: Self = Self::new(0x5, 0x1a, 0x00);
    pub(super) const INVALID_OPERATION_CODE: Self = Self::new(0x5, 0x20, 0x00);
    pub(super) const LBA_OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0x00);
    pub(super) const INVALID_FIELD_IN_CDB: Self = Self::new(0x5, 0x24, 0x00);
    pub(super) const LOGICAL_UNIT_NOT_SUPPORTED: Self = Self::new(0x5, 0x25, 0x00);
    pub(super) const INVALID_FIELD_IN_PARAMETER_LIST: Self = Self::new(0x5, 0x26, 0x00);
    pub(super) const SAVING_PARAMETERS_NOT_SUPPORTED: Self = Self::new(0x5, 0x39, 0x00);
    pub(super) const INVALID_RELEASE: Self = Self::new(0x5, 0x26, 0x04);
    pub(super) const INSUFFICIENT_REGISTRATION_RESOURCES: Self = Self::new(0x5, 0x55, 0x04);
    pub(super) const RESET: Self = Self::new(0x6, 0x29, 0x03);
    pub(super) const RESERVATIONS_PREEMPTED: Self = Self::new(0x6, 0x2a, 0x03);
    pub(super) const RESERVATIONS_RELEASED: Self = Self::new(0x6, 0x2a, 0x04);
    pub(super) const REGISTRATIONS_PREEMPTED: Self = Self::new(0x6, 0x2a, 0x05);
    /// RFC 7143, section 11.4.7.2.
    pub(super) const INCORRECT_AMOUNT_OF_DATA: Self = Self::new(0xb, 0x0c, 0x0d);
    pub(super) const CAPACITY_HAS_CHANGED: Self = Self::new(0x6, 0x2a, 0x09);
    pub(super) const WRITE_PROTECTED: Self = Self::new(0x7, 0x27, 0x00);
    pub(super) const SPACE_ALLOCATION_FAILED: Self = Self::new(0x7, 0x27, 0x07);
    const MISCOMPARE: Self = Self::new(0xe, 0x1d, 0x00);

    const fn new(key: u8, code: u8, qualifier: u8) -> Self {
        Self { key, code: (code, qualifier), information: None }
    }

    /// The data differed, first at this offset in bytes.
    pub(super) fn miscompare(offset: usize) -> Self {
        Self { information: u32::try_from(offset).ok(), ..Self::MISCOMPARE }
    }

    /// Its bytes in fixed format.
    pub(super) fn fixed(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        let valid = if self.information.is_some() { 0x80 } else { 0 };
        put(&mut bytes, 0, [0x70 | valid, 0, self.key]);
        put(&mut bytes, 3, self.information.unwrap_or(0).to_be_bytes());
        put(&mut bytes, 7, [10]);
        put(&mut bytes, 12, [self.code.0, self.code.1]);
        bytes
    }

    /// Its bytes in descriptor format.
    pub(super) fn descriptor(self) -> [u8; 8] {
        [0x72, self.key, self.code.0, self.code.1, 0, 0, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_drive_is_a_reservation_conflict_and_no_other_error_is() {
        let status = |kind| Status::of_error(&Error::new(kind, "no"), Direction::Write);
        assert_eq!(status(ErrorKind::Fenced), Status::ReservationConflict);
        for kind in ErrorKind::ALL.into_iter().filter(|kind| *kind != ErrorKind::Fenced) {
            assert!(matches!(status(kind), Status::CheckCondition(_)), "{kind:?}");
        }
    }

    #[test]
    fn a_miscompare_tells_the_offset_of_the_first_byte_that_differs() {
        let fixed = Sense::miscompare(0x0102).fixed();
        assert_eq!(fixed, [0xf0, 0, 0xe, 0, 0, 1, 2, 10, 0, 0, 0, 0, 0x1d, 0, 0, 0, 0, 0]);
        assert_eq!(Sense::RESET.descriptor(), [0x72, 6, 0x29, 3, 0, 0, 0, 0]);
    }
}
