//! Unpacks gzip (RFC 1952) from pieces of any length, a bounded amount at a time.
//!
//! Pure: no I/O and no clock, and no bytes make it panic. Members may follow each other; after
//! the last one there may be zeros, because drives are longer than the files written to them,
//! and nothing else. Offsets in errors count the unpacked bytes.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// The first bytes of every gzip member.
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];

const DEFLATE: u8 = 8;
const HAS_HEADER_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Why bytes can't be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GunzipError {
    /// The first bytes are not [`MAGIC`].
    #[error("the source is not gzip: it does not begin with the bytes 1f 8b")]
    NotGzip,
    /// A header that RFC 1952 does not allow.
    #[error("the gzip header after byte {at} of the unpacked image is damaged or unknown")]
    Header {
        /// How much was unpacked before it.
        at: u64,
    },
    /// The compressed data is not what any compressor writes.
    #[error("the gzip data is damaged: unpacking stopped at byte {at} of the image")]
    Corrupt {
        /// How much was unpacked until then.
        at: u64,
    },
    /// All was unpacked, but it is not what was packed.
    #[error("the gzip data is damaged: the checksum of the bytes up to {at} of the image is wrong")]
    Checksum {
        /// How much was unpacked.
        at: u64,
    },
    /// The end came too early.
    #[error("the gzip data is cut off: it ends in the middle, at byte {at} of the image")]
    Truncated {
        /// How much was unpacked.
        at: u64,
    },
    /// After the end there is something that is neither gzip nor zeros.
    #[error("after the gzip data, which unpacks to {at} bytes, follow bytes that are not gzip")]
    Trailing {
        /// How much was unpacked.
        at: u64,
    },
}

/// What one step of [`Gunzip::unpack`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// How much of the input was used up.
    pub consumed: usize,
    /// How much of the output was filled.
    pub produced: usize,
}

/// Unpacks one stream.
pub struct Gunzip {
    state: State,
    inflate: Decompress,
    /// Of the header while in one, then of the member's unpacked bytes.
    checksum: Crc,
    unpacked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the very beginning.
    Start,
    Header(Header),
    Body,
    Trailer {
        /// How many of its 8 bytes were read.
        read: u32,
        bytes: u64,
    },
    /// After a member.
    Between,
    /// After a zero after a member.
    Padding,
}

/// Where in a header the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// In the ten bytes that are always there; `flags` names the parts after them.
    Fixed {
        read: u8,
        flags: u8,
    },
    ExtraLength {
        flags: u8,
        low: Option<u8>,
    },
    Extra {
        flags: u8,
        left: u16,
    },
    /// A name or a comment.
    Text {
        flags: u8,
    },
    Checksum {
        low: Option<u8>,
    },
}

impl Gunzip {
    /// An unpacker that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Start,
            inflate: Decompress::new(false),
            checksum: Crc::new(),
            unpacked: 0,
        }
    }

    /// How many bytes it has unpacked so far.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Whether only zeros may follow, so that holes need not be fed.
    #[must_use]
    pub fn is_padding(&self) -> bool {
        self.state == State::Padding
    }

    /// Unpacks from `input` into `output` until either is used up. Call it again with what is
    /// left of the input and a new output until all of the input is consumed.
    ///
    /// # Errors
    /// Any [`GunzipError`] but `Truncated`; the stream can't be resumed after one.
    pub fn unpack(&mut self, input: &[u8], output: &mut [u8]) -> Result<Unpacked, GunzipError> {
        let (mut rest, mut produced) = (input, 0);
        while let Some((&byte, after)) = rest.split_first() {
            if self.state == State::Body {
                let free = output.get_mut(produced..).unwrap_or_default();
                if free.is_empty() {
                    break;
                }
                let step = self.inflate(rest, free)?;
                produced += step.produced;
                rest = rest.get(step.consumed..).unwrap_or_default();
            } else {
                self.take(byte)?;
                rest = after;
            }
        }
        Ok(Unpacked { consumed: input.len() - rest.len(), produced })
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// `NotGzip` for nothing at all, otherwise `Truncated`.
    pub fn finish(&self) -> Result<(), GunzipError> {
        match self.state {
            State::Between | State::Padding => Ok(()),
            State::Start => Err(GunzipError::NotGzip),
            State::Header(_) | State::Body | State::Trailer { .. } => {
                Err(GunzipError::Truncated { at: self.unpacked })
            }
        }
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Unpacked, GunzipError> {
        let corrupt = GunzipError::Corrupt { at: self.unpacked };
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        let status =
            self.inflate.decompress(input, output, FlushDecompress::None).map_err(|_| corrupt)?;
        let step = Unpacked {
            consumed: usize::try_from(self.inflate.total_in() - read).map_err(|_| corrupt)?,
            produced: usize::try_from(self.inflate.total_out() - written).map_err(|_| corrupt)?,
        };
        let done = output.get(..step.produced).ok_or(corrupt)?;
        self.checksum.update(done);
        self.unpacked = self.unpacked.saturating_add(self.inflate.total_out() - written);
        if status == Status::StreamEnd {
            self.state = State::Trailer { read: 0, bytes: 0 };
        } else if step == (Unpacked { consumed: 0, produced: 0 }) {
            // Both had room, so this would go on for ever.
            return Err(corrupt);
        }
        Ok(step)
    }

    /// Takes one byte outside of the compressed data.
    fn take(&mut self, byte: u8) -> Result<(), GunzipError> {
        let at = self.unpacked;
        self.state = match self.state {
            State::Start if byte == MAGIC[0] => self.begin_header(byte),
            State::Start => return Err(GunzipError::NotGzip),
            State::Between if byte == MAGIC[0] => self.begin_header(byte),
            State::Between | State::Padding if byte == 0 => State::Padding,
            State::Between | State::Padding => return Err(GunzipError::Trailing { at }),
            State::Header(header) => {
                let next = header.take(byte, self.checksum.sum(), at)?;
                if !matches!(header, Header::Checksum { .. }) {
                    self.checksum.update(&[byte]);
                }
                match next {
                    Some(header) => State::Header(header),
                    None => {
                        self.inflate.reset(false);
                        self.checksum.reset();
                        State::Body
                    }
                }
            }
            State::Trailer { read, bytes } => {
                let bytes = bytes | u64::from(byte) << (8 * read);
                if read < 7 {
                    State::Trailer { read: read + 1, bytes }
                } else if bytes
                    == u64::from(self.checksum.amount()) << 32 | u64::from(self.checksum.sum())
                {
                    State::Between
                } else {
                    return Err(GunzipError::Checksum { at });
                }
            }
            State::Body => State::Body,
        };
        Ok(())
    }

    fn begin_header(&mut self, byte: u8) -> State {
        self.checksum.reset();
        self.checksum.update(&[byte]);
        State::Header(Header::Fixed { read: 1, flags: 0 })
    }
}

impl Default for Gunzip {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gunzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, inflate: _, checksum: _, unpacked } = self;
        f.debug_struct("Gunzip").field("state", state).field("unpacked", unpacked).finish()
    }
}

impl Header {
    /// Where the byte after this one stands; `None` if that is in the compressed data.
    /// `checksum` is of all bytes of the header before the checksum in it.
    fn take(self, byte: u8, checksum: u32, at: u64) -> Result<Option<Self>, GunzipError> {
        Ok(match self {
            Self::Fixed { read, flags } => {
                let flags = if read == 3 { byte } else { flags };
                match read {
                    1 if byte != MAGIC[1] && at == 0 => return Err(GunzipError::NotGzip),
                    1 if byte != MAGIC[1] => return Err(GunzipError::Header { at }),
                    2 if byte != DEFLATE => return Err(GunzipError::Header { at }),
                    3 if byte & RESERVED != 0 => return Err(GunzipError::Header { at }),
                    9 => Self::next(flags),
                    _ => Some(Self::Fixed { read: read + 1, flags }),
                }
            }
            Self::ExtraLength { flags, low: None } => {
                Some(Self::ExtraLength { flags, low: Some(byte) })
            }
            Self::ExtraLength { flags, low: Some(low) } => match u16::from_le_bytes([low, byte]) {
                0 => Self::next(flags),
                left => Some(Self::Extra { flags, left }),
            },
            Self::Extra { flags, left: 0 | 1 } => Self::next(flags),
            Self::Extra { flags, left } => Some(Self::Extra { flags, left: left - 1 }),
            Self::Text { flags } if byte == 0 => Self::next(flags),
            Self::Text { .. } => Some(self),
            Self::Checksum { low: None } => Some(Self::Checksum { low: Some(byte) }),
            Self::Checksum { low: Some(low) } => {
                let [first, second, ..] = checksum.to_le_bytes();
                if [low, byte] != [first, second] {
                    return Err(GunzipError::Header { at });
                }
                None
            }
        })
    }

    /// The next of the parts that are still to come, which `flags` names.
    fn next(flags: u8) -> Option<Self> {
        if flags & HAS_EXTRA != 0 {
            Some(Self::ExtraLength { flags: flags & !HAS_EXTRA, low: None })
        } else if flags & HAS_NAME != 0 {
            Some(Self::Text { flags: flags & !HAS_NAME })
        } else if flags & HAS_COMMENT != 0 {
            Some(Self::Text { flags: flags & !HAS_COMMENT })
        } else {
            (flags & HAS_HEADER_CRC != 0).then_some(Self::Checksum { low: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;

    use super::*;

    /// The length of a header with nothing optional.
    const FIXED: usize = 10;

    /// Unpacks from pieces of `piece` bytes into outputs of `room` bytes.
    fn gunzip(bytes: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, GunzipError> {
        let mut gunzip = Gunzip::new();
        let mut unpacked = Vec::new();
        for mut input in bytes.chunks(piece) {
            while !input.is_empty() {
                let mut output = vec![0; room];
                let step = gunzip.unpack(input, &mut output)?;
                input = &input[step.consumed..];
                unpacked.extend_from_slice(&output[..step.produced]);
            }
        }
        gunzip.finish()?;
        assert_eq!(gunzip.unpacked(), u64::try_from(unpacked.len()).unwrap());
        Ok(unpacked)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_follow_each_other_and_zeros_follow_the_last() {
        let two = [gzip(b"one "), gzip(b""), gzip(b"two"), vec![0; 5000]].concat();
        for piece in [1, 2, 7, 4096, 10_000] {
            assert_eq!(gunzip(&two, piece, 3).unwrap(), b"one two");
        }
    }

    #[test]
    fn every_part_of_a_header_is_read_over() {
        let mut encoder = GzBuilder::new()
            .extra(vec![0, 1, 2])
            .filename("image.raw")
            .comment("what the header may hold")
            .write(Vec::new(), Compression::fast());
        encoder.write_all(b"body").unwrap();
        let mut packed = encoder.finish().unwrap();
        assert_eq!(gunzip(&packed, 1, 1).unwrap(), b"body");

        let body = packed.len() - gzip(b"body").len() + FIXED;
        packed[3] |= HAS_HEADER_CRC;
        let mut checksum = Crc::new();
        checksum.update(&packed[..body]);
        let [low, high, ..] = checksum.sum().to_le_bytes();
        packed.splice(body..body, [low, high]);
        assert_eq!(gunzip(&packed, 3, 2).unwrap(), b"body");
        packed[body] ^= 1;
        assert_eq!(gunzip(&packed, 3, 2), Err(GunzipError::Header { at: 0 }));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let whole = gzip(b"0123456789");
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            gunzip(&bytes, 4096, 4096).unwrap_err()
        };
        let at = 10;
        assert_eq!(with(Vec::clear), GunzipError::NotGzip);
        assert_eq!(with(|b| b[0] = b'Q'), GunzipError::NotGzip);
        assert_eq!(with(|b| b[1] = b'F'), GunzipError::NotGzip);
        assert_eq!(with(|b| b[2] = 7), GunzipError::Header { at: 0 });
        assert_eq!(with(|b| b[3] = 0x80), GunzipError::Header { at: 0 });
        assert_eq!(with(|b| b[FIXED] = 0xff), GunzipError::Corrupt { at: 0 });
        assert_eq!(with(|b| *b.last_mut().unwrap() ^= 1), GunzipError::Checksum { at });
        assert_eq!(with(|b| b.truncate(b.len() - 1)), GunzipError::Truncated { at });
        assert_eq!(with(|b| b.truncate(FIXED)), GunzipError::Truncated { at: 0 });
        assert_eq!(with(|b| b.push(b'x')), GunzipError::Trailing { at });
        assert_eq!(with(|b| b.extend([0, 0, 0x1f])), GunzipError::Trailing { at });
        assert_eq!(with(|b| b.extend([0x1f, 0])), GunzipError::Header { at });
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            zeros in 0_usize..200_000,
            piece in 1_usize..5000,
            room in 1_usize..5000,
        ) {
            let image = [bytes.as_slice(), &vec![0; zeros], &bytes].concat();
            prop_assert_eq!(gunzip(&gzip(&image), piece, room), Ok(image));
        }

        #[test]
        fn no_bytes_panic_it(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            piece in 1_usize..50,
        ) {
            let _ = gunzip(&bytes, piece, 16);
            let _ = gunzip(&[&[0x1f, 0x8b, 8], bytes.as_slice()].concat(), piece, 16);
        }

        #[test]
        fn a_changed_bit_changes_no_image_unnoticed(
            bytes in proptest::collection::vec(any::<u8>(), 1..300),
            at: proptest::sample::Index,
            bit in 0_u8..8,
        ) {
            let mut packed = gzip(&bytes);
            let at = at.index(packed.len());
            packed[at] ^= 1 << bit;
            if let Ok(unpacked) = gunzip(&packed, 64, 64) {
                prop_assert_eq!(unpacked, bytes);
            }
        }
    }
}
