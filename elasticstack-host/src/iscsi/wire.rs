//! PDUs on a stream, with their padding and digests (RFC 7143, sections 11.1 and 13.1). Owns how
//! long a peer may take to send or to take one.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::time::timeout;

use super::field::u8_at;
use super::negotiate::Digest;
use super::pdu::{BHS_LENGTH, PduError, Request};

/// How long the rest of a PDU may take to come, and one to be taken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is read ahead of a connection, in bytes: room for headers and for small writes.
const READ_AHEAD: usize = 8 << 10;

/// The most parts that the kernel is given at once.
const MAX_PARTS: usize = 64;

/// Data segments up to this length are copied behind their header, longer ones sent from where they
/// are.
const SMALL: usize = 1 << 10;

/// Why a connection is cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the other side closed the connection")]
    Closed,
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("the other side took more than {} s for one PDU", PATIENCE.as_secs())]
    Slow,
    #[error("a header that is none")]
    Header(#[source] PduError),
    #[error("a {0} digest that does not match")]
    Digest(&'static str),
    #[error("{0}: the connection can't go on")]
    Protocol(&'static str),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Closed } else { Self::Io(error) }
    }
}

/// Which digests are in use; none during the login.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digests {
    pub(super) header: Digest,
    pub(super) data: Digest,
}

impl Digests {
    pub(super) const NONE: Self = Self { header: Digest::None, data: Digest::None };
}

/// The receiving side.
pub(super) struct PduReader<R> {
    stream: BufReader<R>,
    pub(super) digests: Digests,
}

impl<R: AsyncRead + Unpin> PduReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream: BufReader::with_capacity(READ_AHEAD, stream), digests: Digests::NONE }
    }

    /// Waits until a PDU begins. Cancel safe.
    pub(super) async fn ready(&mut self) -> Result<(), WireError> {
        if self.stream.fill_buf().await?.is_empty() { Err(WireError::Closed) } else { Ok(()) }
    }

    /// Reads a header from an initiator, see [`PduReader::bytes`].
    pub(super) async fn header(&mut self) -> Result<([u8; BHS_LENGTH], Request), WireError> {
        let header = self.bytes().await?;
        Ok((header, Request::parse(&header).map_err(WireError::Header)?))
    }

    /// Reads a header's bytes, over additional segments. The data segment must be read next, by
    /// [`PduReader::segment`] or [`PduReader::skip`].
    pub(super) async fn bytes(&mut self) -> Result<[u8; BHS_LENGTH], WireError> {
        timeout(PATIENCE, self.read_header()).await.map_err(|_| WireError::Slow)?
    }

    async fn read_header(&mut self) -> Result<[u8; BHS_LENGTH], WireError> {
        let mut header = [0; BHS_LENGTH];
        self.stream.read_exact(&mut header).await?;
        let mut checksum = crc32c::crc32c(&header);
        // The lengths stand in every header, also in one with an opcode that is not known.
        let mut left = usize::from(u8_at(&header, 4)) * 4;
        while left > 0 {
            let mut word = [0; 4];
            self.stream.read_exact(&mut word).await?;
            checksum = crc32c::crc32c_append(checksum, &word);
            left -= word.len();
        }
        self.check(self.digests.header, checksum, "header").await?;
        Ok(header)
    }

    /// Appends a data segment to `buffer`, which has room for it.
    pub(super) async fn segment(
        &mut self,
        buffer: &mut BytesMut,
        length: usize,
    ) -> Result<(), WireError> {
        timeout(PATIENCE, self.read_segment(buffer, length)).await.map_err(|_| WireError::Slow)?
    }

    async fn read_segment(
        &mut self,
        buffer: &mut BytesMut,
        length: usize,
    ) -> Result<(), WireError> {
        if length == 0 {
            return Ok(());
        }
        let start = buffer.len();
        let mut left = length;
        while left > 0 {
            let read = self.stream.read_buf(&mut (&mut *buffer).limit(left)).await?;
            if read == 0 {
                return Err(WireError::Closed);
            }
            left -= read;
        }
        let checksum = match self.digests.data {
            Digest::Crc32c => crc32c::crc32c(buffer.get(start..).unwrap_or_default()),
            Digest::None => 0,
        };
        self.end_segment(length, checksum).await
    }

    /// Reads over a data segment.
    pub(super) async fn skip(&mut self, length: usize) -> Result<(), WireError> {
        timeout(PATIENCE, self.read_over(length)).await.map_err(|_| WireError::Slow)?
    }

    async fn read_over(&mut self, length: usize) -> Result<(), WireError> {
        if length == 0 {
            return Ok(());
        }
        let mut checksum = 0;
        let mut left = length;
        while left > 0 {
            let ahead = self.stream.fill_buf().await?;
            if ahead.is_empty() {
                return Err(WireError::Closed);
            }
            let (now, _) = ahead.split_at(ahead.len().min(left));
            checksum = crc32c::crc32c_append(checksum, now);
            let read = now.len();
            self.stream.consume(read);
            left -= read;
        }
        self.end_segment(length, checksum).await
    }

    async fn end_segment(&mut self, length: usize, checksum: u32) -> Result<(), WireError> {
        let mut padding = [0; 3];
        let (padding, _) = padding.split_at_mut(padding_after(length));
        self.stream.read_exact(padding).await?;
        let checksum = crc32c::crc32c_append(checksum, padding);
        self.check(self.digests.data, checksum, "data").await
    }

    async fn check(
        &mut self,
        digest: Digest,
        checksum: u32,
        what: &'static str,
    ) -> Result<(), WireError> {
        if digest == Digest::None {
            return Ok(());
        }
        let mut sent = [0; 4];
        self.stream.read_exact(&mut sent).await?;
        if u32::from_le_bytes(sent) == checksum { Ok(()) } else { Err(WireError::Digest(what)) }
    }
}

/// The sending side. What is to be sent is kept until [`PduWriter::flush`], so that many PDUs go out by
/// one call of the kernel's.
pub(super) struct PduWriter<W> {
    stream: W,
    kept: VecDeque<Bytes>,
    kept_length: usize,
    /// What comes after that.
    last: BytesMut,
    pub(super) digests: Digests,
}

impl<W: AsyncWrite + Unpin> PduWriter<W> {
    pub(super) fn new(stream: W) -> Self {
        let (kept, last) = (VecDeque::new(), BytesMut::new());
        Self { stream, kept, kept_length: 0, last, digests: Digests::NONE }
    }

    /// Keeps a PDU to be sent.
    pub(super) fn keep(&mut self, header: &[u8; BHS_LENGTH], data: Bytes) {
        self.last.put_slice(header);
        if self.digests.header == Digest::Crc32c {
            self.last.put_u32_le(crc32c::crc32c(header));
        }
        if data.is_empty() {
            return;
        }
        let padding = [0; 3];
        let (padding, _) = padding.split_at(padding_after(data.len()));
        let checksum = match self.digests.data {
            Digest::Crc32c => crc32c::crc32c_append(crc32c::crc32c(&data), padding),
            Digest::None => 0,
        };
        if data.len() <= SMALL {
            self.last.put_slice(&data);
        } else {
            for part in [self.last.split().freeze(), data] {
                self.kept_length = self.kept_length.saturating_add(part.len());
                self.kept.push_back(part);
            }
        }
        self.last.put_slice(padding);
        if self.digests.data == Digest::Crc32c {
            self.last.put_u32_le(checksum);
        }
    }

    /// Sends what is kept.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        timeout(PATIENCE, self.write_all()).await.map_err(|_| WireError::Slow)?
    }

    /// How much is kept, in bytes.
    pub(super) fn pending(&self) -> usize {
        self.kept_length.saturating_add(self.last.len())
    }

    async fn write_all(&mut self) -> Result<(), WireError> {
        while self.pending() > 0 {
            let mut parts = [IoSlice::new(&[]); MAX_PARTS];
            let kept = self.kept.iter().map(|part| &part[..]).chain([&self.last[..]]);
            for (to, part) in parts.iter_mut().zip(kept) {
                *to = IoSlice::new(part);
            }
            let mut written = self.stream.write_vectored(&parts).await?;
            if written == 0 {
                return Err(WireError::Closed);
            }
            while let Some(first) = self.kept.front_mut() {
                let now = written.min(first.len());
                first.advance(now);
                self.kept_length = self.kept_length.saturating_sub(now);
                written = written.saturating_sub(now);
                if first.has_remaining() {
                    break;
                }
                self.kept.pop_front();
            }
            self.last.advance(written.min(self.last.len()));
        }
        Ok(self.stream.flush().await?)
    }
}

/// How many bytes fill `length` up to a multiple of four.
const fn padding_after(length: usize) -> usize {
    (4 - length % 4) % 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pdu::{NO_TAG, Operation};
    use super::*;

    const BOTH: Digests = Digests { header: Digest::Crc32c, data: Digest::Crc32c };

    fn nop_out(length: usize) -> [u8; BHS_LENGTH] {
        let mut header = [0; BHS_LENGTH];
        header[..2].copy_from_slice(&[0x40, 0x80]);
        header[5..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
        header[20..24].copy_from_slice(&NO_TAG.to_be_bytes());
        header
    }

    /// What is sent of one PDU, `digests` in it.
    async fn sent(data: &[u8], digests: Digests) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = PduWriter::new(&mut bytes);
        writer.digests = digests;
        writer.keep(&nop_out(data.len()), Bytes::copy_from_slice(data));
        writer.flush().await.unwrap();
        bytes
    }

    /// The data of one PDU.
    async fn received(bytes: &[u8], digests: Digests) -> Result<BytesMut, WireError> {
        let mut reader = PduReader::new(bytes);
        reader.digests = digests;
        let (_, request) = reader.header().await?;
        assert!(matches!(request.operation, Operation::NopOut { .. }));
        let mut data = BytesMut::with_capacity(request.data_length);
        reader.segment(&mut data, request.data_length).await?;
        Ok(data)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn a_pdu_that_is_cut_off_is_an_end_and_no_panic() {
        block_on(async {
            let whole = sent(&[7; 10], BOTH).await;
            for length in 0..whole.len() {
                let error = received(&whole[..length], BOTH).await.unwrap_err();
                assert!(matches!(error, WireError::Closed), "{length}: {error:?}");
            }
            assert_eq!(received(&whole, BOTH).await.unwrap(), [7; 10][..]);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_sent_is_received_and_a_changed_bit_is_noticed(
            data in proptest::collection::vec(any::<u8>(), 0..3000),
            at: proptest::sample::Index,
            bit in 0_u8..8,
        ) {
            block_on(async {
                for digests in [Digests::NONE, BOTH] {
                    let bytes = sent(&data, digests).await;
                    assert_eq!(received(&bytes, digests).await.unwrap(), data);
                }
                let mut bytes = sent(&data, BOTH).await;
                let at = at.index(bytes.len());
                // Neither what kind of PDU it is nor how long, which the digest is found by.
                if at != 0 && !(4..8).contains(&at) {
                    bytes[at] ^= 1 << bit;
                    let error = received(&bytes, BOTH).await.unwrap_err();
                    assert!(matches!(error, WireError::Digest(_)), "{at}: {error:?}");
                }
            });
        }
    }
}
