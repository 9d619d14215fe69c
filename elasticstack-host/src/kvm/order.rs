//! What a guest's process is told of its guest: a file in the directory that it is started in. No secret is
//! in it: those have files of their own.

use std::net::SocketAddr;
use std::path::PathBuf;

use elasticstack_core::block::{Attachment, Writing};
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::hypervisor::{DriveSlot, IoLimits, Media, ServerSpec};
use elasticstack_core::id::ServerId;
use serde::{Deserialize, Serialize};

use super::vmm::Kvm;
use crate::guests::SEED;
use crate::guests::nodes::{node, secret};

/// The name of the file.
pub(super) const ORDER: &str = "guest.json";

/// What every kernel here is told: where to speak, of what goes wrong only, and what to do when all is lost; and
/// that its ciphers, which its provider chose, need no tests at each start, which take a quarter of it.
const COMMAND_LINE: &str = "console=ttyS0 quiet cryptomgr.notests panic=-1 rw";

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Bytes.
    pub memory: u64,
    pub processors: u8,
    pub kernel: PathBuf,
    pub initial_disk: Option<PathBuf>,
    pub command_line: String,
    /// In the order in which the guest numbers them.
    pub drives: Vec<OrderedDrive>,
    /// In the order in which the guest numbers them.
    pub cards: Vec<OrderedCard>,
}

/// A network card of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderedCard {
    /// The bridge that it is plugged into.
    pub bridge: String,
    pub mac: [u8; 6],
}

/// A drive of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderedDrive {
    /// What QMP and the guest call it.
    pub node: String,
    pub source: Source,
    pub is_read_only: bool,
    pub limits: IoLimits,
}

/// Where a drive's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum Source {
    File(PathBuf),
    /// Lent by another host.
    Lent {
        portal: SocketAddr,
        target: String,
        initiator: String,
        /// The file that holds the secret.
        secret: String,
    },
}

impl OrderedDrive {
    fn of(slot: &DriveSlot) -> Result<Self> {
        let source = match &slot.attachment {
            Attachment::File(path) => Source::File(path.clone()),
            Attachment::Iscsi(borrowing) => Source::Lent {
                portal: borrowing.portal,
                target: borrowing.lend.target(),
                initiator: borrowing.initiator(),
                secret: secret(slot.device),
            },
            other => {
                return Err(Error::internal(format!("a container can't be given {other:?}")));
            }
        };
        let is_read_only = slot.media == Media::Cdrom;
        Ok(Self { node: node(slot.device), source, is_read_only, limits: slot.limits })
    }

    pub(super) fn writing(&self) -> Writing {
        if self.is_read_only { Writing::Refused } else { Writing::Allowed }
    }
}

impl Order {
    /// What the process of a server's run is told.
    ///
    /// # Errors
    /// `JobFailed` for what no container has; `Internal` for a drive that can't be reached.
    pub(super) fn of(spec: &ServerSpec, vmm: &Kvm) -> Result<Self> {
        if spec.screen.is_some() {
            let sentence = "a container has no screen: leave vnc out, and use its serial port";
            return Err(Error::new(ErrorKind::JobFailed, sentence));
        }
        let drives: Result<Vec<_>> = spec.drives.iter().map(OrderedDrive::of).collect();
        let mut drives = drives?;
        // The root is what would be booted from: the first of its order, else the first there is.
        let first = spec.boot.first().map(|device| node(*device));
        let root = first.and_then(|node| drives.iter().position(|drive| drive.node == node));
        let Some(letter) = (b'a'..=b'z').nth(root.unwrap_or(0)).filter(|_| !drives.is_empty())
        else {
            let sentence = "a container needs a drive with its root file system";
            return Err(Error::new(ErrorKind::JobFailed, sentence));
        };
        if spec.seed.is_some() {
            drives.push(OrderedDrive {
                node: "seed".to_owned(),
                source: Source::File(SEED.into()),
                is_read_only: true,
                limits: IoLimits::default(),
            });
        }
        let card = |index| OrderedCard { bridge: vmm.bridge.clone(), mac: mac(spec.server, index) };
        Ok(Self {
            memory: u64::from(spec.memory.0) << 20,
            processors: spec.vcpus.0.get(),
            kernel: vmm.kernel.clone(),
            initial_disk: vmm.initial_disk.clone(),
            command_line: format!("{COMMAND_LINE} root=/dev/vd{}", char::from(letter)),
            drives,
            cards: (0..=u8::MAX).take(spec.nics.len()).map(card).collect(),
        })
    }
}

/// The address of a server's card, the same in each run of it: administered locally (IEEE 802, 8.2.2), and of
/// the server's own random bits.
fn mac(server: ServerId, index: u8) -> [u8; 6] {
    let [.., a, b, c, d] = *server.as_uuid().as_bytes();
    [0x02, index, a, b, c, d]
}
