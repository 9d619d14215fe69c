//! An initiator of iSCSI that is made of bytes, so that it can say what no honest one would.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One PDU as it came.
#[derive(Debug)]
pub(crate) struct Pdu {
    pub(crate) header: [u8; 48],
    pub(crate) data: Vec<u8>,
}

impl Pdu {
    pub(crate) fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    pub(crate) fn u32_at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }
}

/// A connection, before or after its login.
pub(crate) struct Initiator {
    pub(crate) stream: TcpStream,
    pub(crate) cmd_sn: u32,
    pub(crate) next_tag: u32,
}

/// A header: opcode, flags, and what goes where.
pub(crate) fn header(opcode: u8, flags: u8, fields: &[(usize, &[u8])]) -> [u8; 48] {
    let mut header = [0; 48];
    header[..2].copy_from_slice(&[opcode, flags]);
    for (at, bytes) in fields {
        header[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    header
}

impl Initiator {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, cmd_sn: 1, next_tag: 1 }
    }

    /// Connects and logs in to `target` without CHAP, with `more` negotiated.
    pub(crate) async fn log_in(address: SocketAddr, target: &str, more: &str) -> Self {
        Self::log_in_as(address, target, "iqn.2026-01.org:host", 1, more).await
    }

    /// As [`Initiator::log_in`], by another port.
    pub(crate) async fn log_in_as(
        address: SocketAddr,
        target: &str,
        name: &str,
        isid: u8,
        more: &str,
    ) -> Self {
        let mut initiator = Self::connect(address).await;
        let text = format!("InitiatorName={name}\0TargetName={target}\0{more}");
        let fields: &[(usize, &[u8])] = &[(8, &[0x80, 0, 0, 0, 0, isid]), (24, &[0, 0, 0, 1])];
        initiator.send(header(0x43, 0x87, fields), text.as_bytes()).await;
        let response = initiator.receive().await.expect("an answer to the login");
        assert_eq!((response.opcode(), response.header[36]), (0x23, 0), "{response:?}");
        initiator
    }

    /// Sends a PDU, of which only the length is filled in.
    pub(crate) async fn send(&mut self, mut header: [u8; 48], data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        header[5..8].copy_from_slice(&length[1..]);
        let padding = [0; 3];
        let padding = &padding[..(4 - data.len() % 4) % 4];
        // One that was cut is noticed when it is read from.
        let _ = self.stream.write_all(&[&header[..], data, padding].concat()).await;
    }

    /// The next PDU; `None` if the connection was closed.
    pub(crate) async fn receive(&mut self) -> Option<Pdu> {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header).await.ok()?;
        let length =
            usize::from(header[5]) << 16 | usize::from(header[6]) << 8 | usize::from(header[7]);
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data).await.ok()?;
        data.truncate(length);
        Some(Pdu { header, data })
    }

    /// Sends a SCSI command; what it returns is its tag.
    pub(crate) async fn command(
        &mut self,
        flags: u8,
        expected: u32,
        cdb: &[u8],
        immediate: &[u8],
    ) -> u32 {
        let tag = self.next_tag;
        self.next_tag += 1;
        let fields: &[(usize, &[u8])] = &[
            (16, &tag.to_be_bytes()),
            (20, &expected.to_be_bytes()),
            (24, &self.cmd_sn.to_be_bytes()),
            (32, cdb),
        ];
        let header = header(0x01, flags, fields);
        self.cmd_sn += 1;
        self.send(header, immediate).await;
        tag
    }

    /// Sends data for an R2T, or unasked.
    pub(crate) async fn data_out(
        &mut self,
        is_final: bool,
        (tag, transfer_tag): (u32, u32),
        (data_sn, offset): (u32, u32),
        data: &[u8],
    ) {
        let fields: &[(usize, &[u8])] = &[
            (16, &tag.to_be_bytes()),
            (20, &transfer_tag.to_be_bytes()),
            (36, &data_sn.to_be_bytes()),
            (40, &offset.to_be_bytes()),
        ];
        self.send(header(0x05, u8::from(is_final) << 7, fields), data).await;
    }

    /// TEST UNIT READY; its status.
    pub(crate) async fn test_unit_ready(&mut self) -> Option<u8> {
        self.command(0x80, 0, &[0], &[]).await;
        let response = self.receive().await?;
        assert_eq!(response.opcode(), 0x21, "{response:?}");
        Some(response.header[3])
    }

    /// Whether the connection is closed before anything else comes but what was under way.
    pub(crate) async fn is_cut(&mut self) -> bool {
        while let Some(pdu) = self.receive().await {
            if pdu.opcode() != 0x25 && pdu.opcode() != 0x31 {
                eprintln!("instead of a cut came {pdu:?}");
                return false;
            }
        }
        true
    }
}

pub(crate) const READ: u8 = 0xc0;
pub(crate) const WRITE: u8 = 0xa0;

/// A READ (10) or WRITE (10), by its operation code.
pub(crate) fn cdb10(operation: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let [a, b, c, d] = lba.to_be_bytes();
    let [high, low] = blocks.to_be_bytes();
    [operation, 0, a, b, c, d, 0, high, low, 0]
}
