//! What a logical unit says it is: INQUIRY and its pages of vital product data (SPC-4, sections 6.4
//! and 7.8; SBC-3, section 6.6), REPORT LUNS and the capacity.

use elasticstack_core::prelude::*;
use sha2::{Digest as _, Sha256};

use super::field::put;
use super::login::PORTAL_GROUP;
use super::sense::Sense;

/// The length of a logical block, in bytes.
pub(super) const LOGICAL_BLOCK: u32 = 512;

/// The most blocks that a COMPARE AND WRITE takes: both halves are in memory at once.
pub(super) const MAX_COMPARE_AND_WRITE: u8 = 64;

/// The most descriptors in an UNMAP.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = 256;

/// The most blocks that an UNMAP frees, in all of its descriptors.
pub(super) const MAX_UNMAP_BLOCKS: u32 = 1 << 20;

/// The most blocks that one command reads, writes or compares: 512 MiB, so that no initiator sets
/// the disk to work for hours with one PDU.
pub(super) const MAX_TRANSFER_BLOCKS: u32 = 1 << 20;

/// What tells a drive from every other, wherever it is lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    serial: String,
    naa: [u8; 8],
}

impl Identity {
    /// Of a drive, by the text of its id. The serial number is the text's first 36 characters,
    /// which is all of an id; the NAA is type 3, locally assigned (SPC-4, section 7.8.6.6), from
    /// its hash.
    #[must_use]
    pub fn of(id: &str) -> Self {
        let serial = id.chars().filter(|c| c.is_ascii_graphic()).take(36).collect();
        let mut naa = [0; 8];
        for (to, from) in naa.iter_mut().zip(Sha256::digest(id.as_bytes())) {
            *to = from;
        }
        let [first, ..] = &mut naa;
        *first = *first & 0x0f | 0x30;
        Self { serial, naa }
    }
}

/// How a volume appears to initiators.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// How many logical blocks it has.
    pub(super) blocks: u64,
    /// How many of them make a physical one, a power of two.
    pub(super) per_physical: u32,
}

impl Geometry {
    pub(super) fn of(size: Bytes, block_size: Bytes) -> Self {
        let per_physical = block_size.get() / u64::from(LOGICAL_BLOCK);
        let per_physical = u32::try_from(per_physical).unwrap_or(1).clamp(1, 1 << 15);
        Self { blocks: size.get() / u64::from(LOGICAL_BLOCK), per_physical }
    }

    /// The last LBA; 0 of a volume without any.
    fn last(self) -> u64 {
        self.blocks.saturating_sub(1)
    }

    /// The answer to READ CAPACITY (10).
    pub(super) fn capacity_10(self) -> Vec<u8> {
        let last = u32::try_from(self.last()).unwrap_or(u32::MAX);
        [last.to_be_bytes(), LOGICAL_BLOCK.to_be_bytes()].concat()
    }

    /// The answer to READ CAPACITY (16).
    pub(super) fn capacity_16(self) -> Vec<u8> {
        const PROVISIONING_AND_ZEROS: u8 = 0xc0;
        let mut capacity = vec![0; 32];
        put(&mut capacity, 0, self.last().to_be_bytes());
        put(&mut capacity, 8, LOGICAL_BLOCK.to_be_bytes());
        let exponent = u8::try_from(self.per_physical.trailing_zeros()).unwrap_or(0);
        put(&mut capacity, 13, [exponent, PROVISIONING_AND_ZEROS]);
        capacity
    }
}

/// The answer to INQUIRY, of a logical unit that is there.
pub(super) fn inquiry(
    page: Option<u8>,
    target: &str,
    identity: &Identity,
    geometry: Geometry,
) -> Result<Vec<u8>, Sense> {
    let body = match page {
        None => return Ok(standard(0)),
        Some(0x00) => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
        Some(0x80) => identity.serial.clone().into_bytes(),
        Some(0x83) => device_identification(target, identity),
        Some(0xb0) => block_limits(geometry),
        Some(0xb1) => block_characteristics(),
        Some(0xb2) => provisioning(),
        Some(_) => return Err(Sense::INVALID_FIELD_IN_CDB),
    };
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut answer = vec![0, page.unwrap_or(0), 0, 0];
    put(&mut answer, 2, length.to_be_bytes());
    answer.extend(body);
    Ok(answer)
}

/// The answer to a standard INQUIRY at a LUN that has no logical unit.
pub(super) fn no_unit() -> Vec<u8> {
    const NOT_CAPABLE: u8 = 0x7f;
    standard(NOT_CAPABLE)
}

fn standard(peripheral: u8) -> Vec<u8> {
    const SPC_4: u8 = 0x06;
    const HISUP_AND_FORMAT_2: u8 = 0x12;
    const COMMAND_QUEUE: u8 = 0x02;
    let mut answer = vec![0; 96];
    put(&mut answer, 0, [peripheral, 0, SPC_4, HISUP_AND_FORMAT_2, 91]);
    put(&mut answer, 7, [COMMAND_QUEUE]);
    put(&mut answer, 8, *b"ELASTICS");
    put(&mut answer, 16, *b"Drive           ");
    put(&mut answer, 32, *b"0001");
    // SAM-5, SPC-4, SBC-3 and iSCSI, none of them with a version.
    for (at, version) in (58..).step_by(2).zip([0x00a0_u16, 0x0460, 0x04c0, 0x0960]) {
        put(&mut answer, at, version.to_be_bytes());
    }
    answer
}

/// Who the logical unit is, by the drive's NAA and by a name of ours, and through which port of
/// which target it is seen.
fn device_identification(target: &str, identity: &Identity) -> Vec<u8> {
    const BINARY: u8 = 0x1;
    const ASCII: u8 = 0x2;
    const ISCSI_UTF_8: u8 = 0x53;
    const UNIT: u8 = 0x00;
    const PORT: u8 = 0x90;
    const DEVICE: u8 = 0xa0;
    let mut body = Vec::new();
    let mut designate = |code: u8, kind: u8, designator: &[u8]| {
        body.extend([code, kind, 0, u8::try_from(designator.len()).unwrap_or(u8::MAX)]);
        body.extend(designator);
    };
    designate(BINARY, UNIT | 0x3, &identity.naa);
    let vendor = format!("ELASTICS{}", identity.serial);
    designate(ASCII, UNIT | 0x1, vendor.as_bytes());
    designate(0x51, PORT | 0x4, &[0, 0, 0, 1]);
    designate(ISCSI_UTF_8, PORT | 0x8, &name(&format!("{target},t,0x{PORTAL_GROUP:04x}")));
    designate(ISCSI_UTF_8, DEVICE | 0x8, &name(target));
    body
}

/// A SCSI name string: ended by a zero byte and padded with more to a multiple of four.
fn name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize((bytes.len() / 4 + 1) * 4, 0);
    bytes
}

fn block_limits(geometry: Geometry) -> Vec<u8> {
    let mut body = vec![0; 60];
    // WSNZ: a WRITE SAME of zero blocks, which would mean all the rest, is refused.
    put(&mut body, 0, [1, MAX_COMPARE_AND_WRITE]);
    let granularity = u16::try_from(geometry.per_physical).unwrap_or(1);
    put(&mut body, 2, granularity.to_be_bytes());
    put(&mut body, 4, MAX_TRANSFER_BLOCKS.to_be_bytes());
    put(&mut body, 16, MAX_UNMAP_BLOCKS.to_be_bytes());
    put(&mut body, 20, MAX_UNMAP_DESCRIPTORS.to_be_bytes());
    put(&mut body, 24, geometry.per_physical.to_be_bytes());
    put(&mut body, 32, u64::from(MAX_TRANSFER_BLOCKS).to_be_bytes());
    body
}

fn block_characteristics() -> Vec<u8> {
    const NON_ROTATING: u16 = 1;
    let mut body = vec![0; 60];
    put(&mut body, 0, NON_ROTATING.to_be_bytes());
    body
}

fn provisioning() -> Vec<u8> {
    const UNMAP_AND_WRITE_SAME_AND_ZEROS: u8 = 0xe4;
    const THIN: u8 = 2;
    vec![0, UNMAP_AND_WRITE_SAME_AND_ZEROS, THIN, 0]
}

/// The answer to REPORT LUNS: LUN 0 alone.
pub(super) fn luns() -> Vec<u8> {
    let mut answer = vec![0; 16];
    put(&mut answer, 0, 8_u32.to_be_bytes());
    answer
}

#[cfg(test)]
mod tests {
    use super::super::field::u16_at;
    use super::*;

    const GEOMETRY: Geometry = Geometry { blocks: 2048, per_physical: 8 };

    #[test]
    fn a_drive_has_the_same_identity_everywhere_and_no_other_drive_has_it() {
        let identity = Identity::of("0198c0de-0000-7000-8000-000000000001");
        assert_eq!(identity, Identity::of("0198c0de-0000-7000-8000-000000000001"));
        assert_ne!(identity.naa, Identity::of("0198c0de-0000-7000-8000-000000000002").naa);
        assert_eq!((identity.naa[0] >> 4, identity.serial.len()), (3, 36));
    }

    #[test]
    fn every_page_that_is_listed_can_be_read_and_tells_its_own_length() {
        let identity = Identity::of("drive");
        let page = |page| inquiry(Some(page), "iqn.2026-01.org:a", &identity, GEOMETRY);
        let listed = page(0).unwrap()[4..].to_vec();
        assert_eq!(listed, [0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
        for code in listed {
            let answer = page(code).unwrap();
            assert_eq!(usize::from(u16_at(&answer, 2)), answer.len() - 4, "{code:#x}");
            assert_eq!(answer[1], code);
        }
        assert_eq!(page(0xc0), Err(Sense::INVALID_FIELD_IN_CDB));
    }

    #[test]
    fn designators_fill_the_page_and_names_end_in_zeros() {
        let body = device_identification("iqn.2026-01.org:a", &Identity::of("drive"));
        let mut rest = &body[..];
        let mut kinds = Vec::new();
        while let [_, kind, _, length, tail @ ..] = rest {
            kinds.push(kind & 0xf);
            let (designator, after) = tail.split_at(usize::from(*length));
            assert!(kind & 0xf != 8 || designator.ends_with(&[0]) && length % 4 == 0);
            rest = after;
        }
        assert_eq!((kinds, rest), (vec![3, 1, 4, 8, 8], &[][..]));
    }

    #[test]
    fn a_capacity_beyond_ten_byte_commands_says_so() {
        let large = Geometry { blocks: 1 << 33, per_physical: 8 };
        assert_eq!(large.capacity_10()[..4], [0xff; 4]);
        assert_eq!(large.capacity_16()[..9], [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(large.capacity_16()[13], 3);
    }
}
