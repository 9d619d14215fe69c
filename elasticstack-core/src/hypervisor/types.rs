//! What is said about servers at the [`super::Hypervisor`] boundary.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::block::Attachment;
use crate::generation::Run;
use crate::id::ServerId;
use crate::secret::Secret;
use crate::units::{Bytes, MebiBytes, MegaHertz, VcpuCount};

/// A server as one run of it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// Which server.
    pub server: ServerId,
    /// What it is.
    pub kind: ServerKind,
    /// Processor time for the whole server.
    pub cpu: MegaHertz,
    /// The virtual CPUs the guest sees.
    pub vcpus: VcpuCount,
    /// The memory the guest sees.
    pub memory: MebiBytes,
    /// Its drives and where each is plugged in.
    pub drives: Vec<DriveSlot>,
    /// The devices to boot from, first first; empty means the order of the firmware.
    pub boot: Vec<Device>,
    /// Its network cards, in order.
    pub nics: Vec<Nic>,
    /// The password of its VNC screen; no screen without one.
    pub screen: Option<Secret>,
    /// What the guest is told on a small disk of its own, beside its drives.
    pub seed: Option<Seed>,
}

/// What a server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// A machine that boots whatever lies on its drives.
    #[default]
    Vm,
    /// A light Linux server: the provider's kernel, on the root file system of its owner's drive.
    Container,
}

impl ServerKind {
    /// The word for it in the public API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Container => "container",
        }
    }
}

/// What a guest is told at its first boot, in cloud-init's way (NoCloud). A hypervisor without that
/// runs the guest all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The guest's name; its own if unset.
    pub host_name: Option<String>,
    /// The public keys, as OpenSSH writes them, whose holders may log in.
    pub keys: Vec<String>,
    /// The owner's script or cloud-config, which may hold secrets.
    pub user_data: Option<Secret>,
}

/// One drive in one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveSlot {
    /// Where it is plugged in.
    pub device: Device,
    /// As what.
    pub media: Media,
    /// Whether other servers may have it at the same time.
    pub access: Access,
    /// How to reach it.
    pub attachment: Attachment,
    /// The most that the guest gets from it.
    pub limits: IoLimits,
}

/// The most that a guest reads from a drive and writes to it, both together; what is more waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoLimits {
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
}

impl IoLimits {
    /// Whether there are none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.requests.is_none() && self.bytes.is_none()
    }
}

/// Whom a claim tolerates beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Nobody.
    Exclusive,
    /// Other shared claims.
    Shared,
}

/// As what a guest sees a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    /// A disk, read and written.
    Disk,
    /// A CD-ROM, read only.
    Cdrom,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// What the guest sees.
    pub model: NicModel,
}

/// The model of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NicModel {
    /// Intel 82540EM: nearly every system has its driver.
    E1000,
    /// Realtek 8139.
    Rtl8139,
    /// virtio-net.
    Virtio,
}

/// The bus a drive is plugged in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bus {
    /// AHCI (SATA).
    Ata,
    /// virtio-blk.
    Block,
    /// Parallel IDE.
    Ide,
    /// virtio-scsi.
    Scsi,
}

impl Bus {
    /// Whether drives come and go on it while the guest runs.
    #[must_use]
    pub const fn is_hot(self) -> bool {
        matches!(self, Self::Block | Self::Scsi)
    }
}

/// A place for a drive in a server: `ide:0:0` to `ide:1:1`, `scsi:0:0` to `scsi:0:7`, `ata:0:0`
/// to `ata:0:5`, `block:0` to `block:7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Device {
    bus: Bus,
    channel: u8,
    unit: u8,
}

impl Device {
    /// The bus.
    #[must_use]
    pub const fn bus(self) -> Bus {
        self.bus
    }

    /// The channel on the bus; 0 where the bus has but one.
    #[must_use]
    pub const fn channel(self) -> u8 {
        self.channel
    }

    /// The unit on the channel.
    #[must_use]
    pub const fn unit(self) -> u8 {
        self.unit
    }
}

/// Text that is not a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a device: give ide:BUS:UNIT (0-1, 0-1), scsi:0:UNIT (0-7), ata:0:UNIT (0-5) or block:UNIT (0-7)"
)]
pub struct InvalidDevice;

impl FromStr for Device {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let digit = |part: &str, max: u8| match *part.as_bytes() {
            [byte @ b'0'..=b'9'] if byte - b'0' <= max => Ok(byte - b'0'),
            _ => Err(InvalidDevice),
        };
        let mut parts = text.split(':');
        let (bus, second, third) = (parts.next(), parts.next(), parts.next());
        let (bus, channel, unit) = match (bus, second, third, parts.next()) {
            (Some("ide"), Some(channel), Some(unit), None) => {
                (Bus::Ide, digit(channel, 1)?, digit(unit, 1)?)
            }
            (Some("scsi"), Some(channel), Some(unit), None) => {
                (Bus::Scsi, digit(channel, 0)?, digit(unit, 7)?)
            }
            (Some("ata"), Some(channel), Some(unit), None) => {
                (Bus::Ata, digit(channel, 0)?, digit(unit, 5)?)
            }
            (Some("block"), Some(unit), None, None) => (Bus::Block, 0, digit(unit, 7)?),
            _ => return Err(InvalidDevice),
        };
        Ok(Self { bus, channel, unit })
    }
}

impl TryFrom<String> for Device {
    type Error = InvalidDevice;

    fn try_from(text: String) -> Result<Self, InvalidDevice> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel, unit, .. } = self;
        match self.bus {
            Bus::Ata => write!(f, "ata:{channel}:{unit}"),
            Bus::Block => write!(f, "block:{unit}"),
            Bus::Ide => write!(f, "ide:{channel}:{unit}"),
            Bus::Scsi => write!(f, "scsi:{channel}:{unit}"),
        }
    }
}

/// What can be sent to a running guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Press the power button (ACPI): the guest may end itself.
    PowerButton,
    /// Press the reset button: the same run goes on, from its firmware.
    Reset,
}

/// One run, as seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Whose run.
    pub server: ServerId,
    /// Which run.
    pub run: Run,
    /// What it is doing.
    pub phase: Phase,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its processors run.
    Running,
    /// It was paused because its storage failed or is full; it loses nothing.
    Paused,
    /// It does not answer; what it does is not known.
    Unresponsive,
    /// It is over.
    Ended(EndCause),
}

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// The guest powered itself off, unasked or on the power button.
    Guest,
    /// The guest said that it crashed (a pvpanic event).
    Panicked,
    /// It was stopped from outside by a request.
    Stopped,
    /// Its process is gone, or its host restarted; nobody asked for it.
    Lost,
}

/// What a guest has read from a drive and written to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoCounts {
    /// Bytes read.
    pub read_bytes: u64,
    /// Requests that read them.
    pub read_requests: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Requests that wrote them.
    pub write_requests: u64,
}

impl IoCounts {
    /// Both together.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self {
            read_bytes: self.read_bytes.saturating_add(other.read_bytes),
            read_requests: self.read_requests.saturating_add(other.read_requests),
            write_bytes: self.write_bytes.saturating_add(other.write_bytes),
            write_requests: self.write_requests.saturating_add(other.write_requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn devices_parse_within_their_bus_and_nowhere_else() {
        for good in ["ide:0:0", "ide:1:1", "scsi:0:7", "ata:0:5", "block:0", "block:7"] {
            assert_eq!(good.parse::<Device>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "ide",
            "ide:0",
            "ide:2:0",
            "ide:0:0:0",
            "scsi:1:0",
            "ata:0:6",
            "block:8",
            "block:0:1",
            "ide:00:0",
        ] {
            assert_eq!(bad.parse::<Device>(), Err(InvalidDevice), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_device_parser(text in ".*") {
            if let Ok(device) = text.parse::<Device>() {
                prop_assert_eq!(device.to_string(), text);
            }
        }
    }
}
