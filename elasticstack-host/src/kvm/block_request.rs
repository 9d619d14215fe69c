//! A request of virtio-blk, read from a chain of descriptors that the guest made (Virtual I/O Device 1.2,
//! section 5.2.6). Owns what of a chain is believed: pure but for the guest's memory.

use std::io::{Read as _, Write as _};

use bytes::Bytes as Data;
use elasticstack_core::units::Bytes;
use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::GuestMemoryMmap;

/// The unit of the protocol, whatever the drive's blocks are.
pub(super) const SECTOR: u64 = 512;

/// The largest request that is done.
const LARGEST: usize = 4 << 20;

/// How long the identity of a drive is.
const IDENTITY: usize = 20;

/// What is before a request's data: its type, four bytes of nothing, its sector.
const HEADER: usize = 16;

/// What one range of a discard is: its sector, how many, and its flags.
const RANGE: usize = 16;

/// What a guest asks of its drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Read(Bytes, usize),
    Write(Bytes, Data),
    Flush,
    /// Offset and length.
    Discard(Bytes, Bytes),
    Identity,
    /// What is not offered.
    Other,
    /// What the standard does not allow, or is larger than anybody asks for.
    Broken,
}

impl Ask {
    /// How many bytes are read or written.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Read(_, length) => *length,
            Self::Write(_, data) => data.len(),
            _ => 0,
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A request and where its answer goes.
pub(super) struct Request<'a> {
    pub ask: Ask,
    data: Writer<'a>,
    status: Writer<'a>,
}

impl<'a> Request<'a> {
    /// Reads one; none if there is no place for its answer.
    pub(super) fn read(
        memory: &'a GuestMemoryMmap,
        chain: DescriptorChain<&'a GuestMemoryMmap>,
    ) -> Option<Self> {
        let mut data = Writer::new(memory, chain.clone()).ok()?;
        let room = data.available_bytes().checked_sub(1)?;
        let status = data.split_at(room).ok()?;
        let asked = Reader::new(memory, chain).ok();
        let ask = asked.and_then(|mut asked| read(&mut asked, room)).unwrap_or(Ask::Broken);
        Some(Self { ask, data, status })
    }

    /// Puts the answer's data into the guest's memory.
    pub(super) fn give(&mut self, data: &[u8]) -> Status {
        match self.data.write_all(data) {
            Ok(()) => Status::Ok,
            Err(_) => Status::IoError,
        }
    }

    /// Says how it ended; answers with how much was put into the guest's memory.
    pub(super) fn end(mut self, status: Status) -> u32 {
        // Its place was looked for when it was read.
        let _ = self.status.write_all(&[status as u8]);
        let written = self.data.bytes_written() + self.status.bytes_written();
        u32::try_from(written).unwrap_or(0)
    }
}

/// What is asked for, with so much room for the answer's data.
fn read(asked: &mut Reader<'_>, room: usize) -> Option<Ask> {
    let mut header = [0; HEADER];
    asked.read_exact(&mut header).ok()?;
    let rest = asked.available_bytes();
    if rest > LARGEST || room > LARGEST {
        return None;
    }
    let at = || bytes(number(&header[8..]));
    Some(match number(&header[..4]) {
        0 => Ask::Read(at()?, room),
        1 => {
            let mut data = vec![0; rest];
            asked.read_exact(&mut data).ok()?;
            Ask::Write(at()?, data.into())
        }
        4 => Ask::Flush,
        8 if room >= IDENTITY => Ask::Identity,
        11 if rest == RANGE => {
            let mut range = [0; RANGE];
            asked.read_exact(&mut range).ok()?;
            let (sector, sectors) = (number(&range[..8]), number(&range[8..12]));
            Ask::Discard(bytes(sector)?, bytes(sectors)?)
        }
        8 | 11 => return None,
        _ => Ask::Other,
    })
}

/// Sectors as bytes.
fn bytes(sectors: u64) -> Option<Bytes> {
    Bytes::try_from(sectors.checked_mul(SECTOR)?).ok()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// A drive's identity as the protocol has it.
pub(super) fn identity(name: &str) -> [u8; IDENTITY] {
    let mut identity = [0; IDENTITY];
    for (to, from) in identity.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    identity
}
