//! Servers in the words of the public API: reading what a customer's record asks for into what a
//! host is told, and the record that tells about a server. Pure.
//!
//! Invariant: a record that is stored has passed [`ServerConfig::parse`], so that a server that
//! could be made can be read.

use std::collections::BTreeMap;

use elasticstack_core::hypervisor::{Bus, Device, Media, Nic, NicModel, Seed, ServerKind};
use elasticstack_core::prelude::*;
use elasticstack_core::resource::{ResourceId, ResourceKind};
use elasticstack_core::state::ServerState;
use elasticstack_core::wire::keys::{self, Object};
use elasticstack_core::wire::record::Record;

use super::nics::NICS;
use crate::db::ServerRow;

/// How many public keys a server takes: `ssh:0:key` to `ssh:7:key`.
const SSH_KEYS: u8 = 8;

/// A server as its owner configured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerConfig {
    pub(super) kind: ServerKind,
    pub(super) cpu: MegaHertz,
    pub(super) memory: MebiBytes,
    pub(super) vcpus: VcpuCount,
    /// Its drives, each once, ordered by device.
    pub(super) plugs: Vec<Plug>,
    pub(super) boot: Vec<Device>,
    pub(super) nics: Vec<Nic>,
    /// The resources that its cards name.
    pub(super) wires: Vec<Wire>,
    /// The password of its screen, if it is to have one.
    pub(super) screen: Option<Secret>,
    /// What its guest is told at its first boot, if anything.
    pub(super) seed: Option<Seed>,
    pub(super) ending: OnStop,
}

/// A drive and where it is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plug {
    pub(super) device: Device,
    pub(super) drive: DriveId,
    pub(super) media: Media,
}

/// A resource and the key that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) key: String,
    pub(super) resource: ResourceId,
}

/// What becomes of a server when its run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnStop {
    /// It stays, stopped.
    Keep,
    /// It vanishes; its drives stay.
    Vanish,
}

/// A client's record with the older spellings turned into those that we keep: `vnc:ip auto` is
/// `vnc auto`, `vnc:password` is `password`, `persistent false` is no `persistent`, `type vm` no `type`.
///
/// # Errors
/// `NotOffered` for a screen on an address of its own.
pub(super) fn normalised(record: &Record) -> Result<Record> {
    let mut record = record.clone();
    let present = |record: &Record, key: &str| record.iter().any(|(name, _)| name == key);
    if let Some(address) = record.remove("vnc:ip") {
        if !matches!(address.as_str(), "" | "auto") {
            return Err(Error::new(
                ErrorKind::NotOffered,
                "a screen on an address of its own is not offered: set vnc to auto",
            )
            .field("vnc:ip"));
        }
        if !present(&record, "vnc") {
            record.set("vnc", address);
        }
    }
    if let Some(password) = record.remove("vnc:password")
        && !present(&record, "password")
    {
        record.set("password", password);
    }
    if record.value("type") == Some(ServerKind::Vm.as_str()) {
        record.set("type", "");
    }
    if record.value("persistent") == Some("false") {
        record.set("persistent", "");
    }
    Ok(record)
}

impl ServerConfig {
    /// Reads a record whose values have passed the table of keys.
    ///
    /// # Errors
    /// `MissingKey` without `cpu` or `mem`; `InvalidValue` for a drive that is plugged in twice or
    /// a boot device that has no drive; `NotOffered` for what a container has not.
    pub(super) fn parse(record: &Record) -> Result<Self> {
        let cpu = MegaHertz(required(record, "cpu")?);
        let memory = MebiBytes(required(record, "mem")?);
        let vcpus = match record.value("smp") {
            None | Some("auto") => VcpuCount::for_cpu(cpu),
            Some(_) => VcpuCount(number(record, "smp")?),
        };
        let kind = kind(record)?;
        let plugs = plugs(record)?;
        let mut boot = Vec::new();
        for word in record.value("boot").unwrap_or_default().split_whitespace() {
            let device: Device = word.parse().map_err(|_| unreadable(record, "boot"))?;
            if !plugs.iter().any(|plug| plug.device == device) {
                return Err(Error::new(
                    ErrorKind::InvalidValue,
                    format!("boot names {device}, which has no drive: plug one in or leave it out"),
                )
                .field("boot"));
            }
            boot.push(device);
        }
        let screen = record.value("vnc").and_then(|_| record.value("password")).map(Secret::new);
        let ending = match record.value("persistent") {
            Some("true") => OnStop::Keep,
            _ => OnStop::Vanish,
        };
        let (nics, wires, seed) = (nics(record)?, wires(record)?, seed(record));
        Ok(Self { kind, cpu, memory, vcpus, plugs, boot, nics, wires, screen, seed, ending })
    }

    /// Refuses a start that can't succeed on any host.
    ///
    /// # Errors
    /// `MissingKey` for a container without a drive.
    pub(super) fn startable(&self) -> Result<()> {
        match self.kind {
            ServerKind::Container if self.plugs.is_empty() => Err(Error::new(
                ErrorKind::MissingKey,
                "a container starts from a drive with its root file system: give block:0 one",
            )
            .field("block:0")),
            ServerKind::Container | ServerKind::Vm => Ok(()),
        }
    }
}

/// Whether the record is a container's.
pub(super) fn is_container(record: &Record) -> bool {
    record.value("type") == Some(ServerKind::Container.as_str())
}

fn kind(record: &Record) -> Result<ServerKind> {
    if !is_container(record) {
        return Ok(ServerKind::Vm);
    }
    for (key, value) in record.iter() {
        let device = key.parse::<Device>();
        let is_card = key.starts_with("nic:") && key.ends_with(":model");
        let why = if key == "vnc" {
            "vnc: a container has no screen: leave it out, and read its serial log".to_owned()
        } else if device.is_ok_and(|device| device.bus() != Bus::Block) {
            format!("{key}: a container has its drives at block:0 to block:7")
        } else if is_card && value != "virtio" {
            format!("{key}: a container's cards are virtio")
        } else {
            continue;
        };
        return Err(Error::new(ErrorKind::NotOffered, why).field(key));
    }
    Ok(ServerKind::Container)
}

fn plugs(record: &Record) -> Result<Vec<Plug>> {
    let mut plugs = BTreeMap::<Device, Plug>::new();
    for (key, value) in record.iter() {
        let Ok(device) = key.parse::<Device>() else { continue };
        let drive: DriveId = value.parse().map_err(|_| unreadable(record, key))?;
        if let Some(other) = plugs.values().find(|plug| plug.drive == drive) {
            // What is set may be right by itself, and wrong only beside what is there.
            return Err(Error::new(
                ErrorKind::DriveInUse,
                format!("{key} and {} name the same drive: plug it in once", other.device),
            )
            .field(key));
        }
        let media = match record.value(&format!("{key}:media")) {
            Some("cdrom") => Media::Cdrom,
            _ => Media::Disk,
        };
        plugs.insert(device, Plug { device, drive, media });
    }
    Ok(plugs.into_values().collect())
}

fn nics(record: &Record) -> Result<Vec<Nic>> {
    let mut nics = Vec::new();
    for index in 0..NICS {
        let value = |what: &str| record.value(&format!("nic:{index}:{what}"));
        let model = match value("model") {
            Some("e1000") => NicModel::E1000,
            Some("rtl8139") => NicModel::Rtl8139,
            Some("virtio") => NicModel::Virtio,
            Some(_) => return Err(unreadable(record, &format!("nic:{index}:model"))),
            None if value("dhcp").or(value("vlan")).or(value("mac")).is_some() => NicModel::E1000,
            None => continue,
        };
        nics.push(Nic { model });
    }
    Ok(nics)
}

fn wires(record: &Record) -> Result<Vec<Wire>> {
    let dhcp = ("nic:0:dhcp".to_owned(), ResourceKind::Ip);
    let vlans = (0..NICS).map(|index| (format!("nic:{index}:vlan"), ResourceKind::Vlan));
    let mut wires = Vec::new();
    for (key, kind) in std::iter::once(dhcp).chain(vlans) {
        let Some(value) = record.value(&key).filter(|value| *value != "auto") else { continue };
        let resource = ResourceId::parse(kind, value).ok_or_else(|| unreadable(record, &key))?;
        wires.push(Wire { key, resource });
    }
    Ok(wires)
}

fn seed(record: &Record) -> Option<Seed> {
    let keys = (0..SSH_KEYS).filter_map(|index| record.value(&format!("ssh:{index}:key")));
    let seed = Seed {
        host_name: record.value("cloud:hostname").map(str::to_owned),
        keys: keys.map(str::to_owned).collect(),
        user_data: record.value("cloud:userdata").map(Secret::new),
    };
    let says_something =
        seed.host_name.is_some() || !seed.keys.is_empty() || seed.user_data.is_some();
    says_something.then_some(seed)
}

fn required<T: std::str::FromStr>(record: &Record, key: &'static str) -> Result<T> {
    if record.value(key).is_none() {
        return Err(keys::missing(Object::Server, key));
    }
    number(record, key)
}

fn number<T: std::str::FromStr>(record: &Record, key: &str) -> Result<T> {
    record.value(key).and_then(|value| value.parse().ok()).ok_or_else(|| unreadable(record, key))
}

fn unreadable(record: &Record, key: &str) -> Error {
    Error::new(
        ErrorKind::InvalidValue,
        format!("{key} cannot be {:?}", record.value(key).unwrap_or_default()),
    )
    .field(key)
}

/// The public record of a server.
pub(super) fn info(row: &ServerRow) -> Record {
    let mut record = row.config.clone();
    if record.value("name").is_none() {
        record.set("name", row.server);
    }
    if record.value("smp").is_none() {
        record.set("smp", "auto");
    }
    record.set("server", row.server);
    record.set("user", row.account);
    if !is_container(&record) {
        record.set("type", ServerKind::Vm.as_str());
    }
    record.set("status", status(row.state));
    if let Some(failed) = &row.failed {
        record.set("failed", failed);
    }
    if is_active(row.state) {
        if let Some(started) = row.started {
            record.set("started", started.as_seconds());
        }
        if let Some(hardware) = &row.hardware {
            record.set("smp:cores", hardware.vcpus);
        }
        if let Some(screen) = row.screen {
            record.set("vnc:ip", screen.ip());
        }
    }
    record
}

/// The host that counts what the server reads and writes, if a run of it may exist.
pub(super) fn counted_by(row: &ServerRow) -> Option<HostId> {
    row.host.filter(|_| is_active(row.state))
}

/// Whether a run of the server may exist, as its owner sees it.
pub(super) fn is_active(state: ServerState) -> bool {
    match state {
        ServerState::Starting
        | ServerState::Running
        | ServerState::Paused
        | ServerState::Unresponsive
        | ServerState::Stopping => true,
        ServerState::Stopped | ServerState::Destroying | ServerState::Gone => false,
    }
}

pub(super) const fn status(state: ServerState) -> &'static str {
    match state {
        ServerState::Starting
        | ServerState::Running
        | ServerState::Unresponsive
        | ServerState::Stopping => "active",
        ServerState::Paused => "paused",
        ServerState::Stopped | ServerState::Destroying | ServerState::Gone => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVE: &str = "5b0e3c52-0000-4000-8000-00000000d001";
    const OTHER: &str = "5b0e3c52-0000-4000-8000-00000000d002";

    fn sized() -> Record {
        Record::new().with("cpu", 2000).with("mem", 1024)
    }

    #[test]
    fn what_an_old_client_sends_becomes_the_hardware_it_means() {
        let sent = sized()
            .with("ide:0:0", DRIVE)
            .with("ide:1:0", OTHER)
            .with("ide:1:0:media", "cdrom")
            .with("boot", "ide:1:0 ide:0:0")
            .with("smp", "auto")
            .with("nic:0:dhcp", "auto")
            .with("nic:1:model", "virtio")
            .with("vnc:ip", "auto")
            .with("vnc:password", "abcd1234")
            .with("persistent", "false");
        let record = normalised(&sent).unwrap();
        assert_eq!(record.value("vnc"), Some("auto"));
        assert_eq!(record.value("password"), Some("abcd1234"));
        let config = ServerConfig::parse(&record).unwrap();
        assert_eq!(config.plugs.len(), 2);
        assert_eq!(config.plugs[1].media, Media::Cdrom);
        assert_eq!(config.boot, ["ide:1:0", "ide:0:0"].map(|device| device.parse().unwrap()));
        let models: Vec<NicModel> = config.nics.iter().map(|nic| nic.model).collect();
        assert_eq!(models, [NicModel::E1000, NicModel::Virtio]);
        assert_eq!(config.screen.unwrap().expose(), "abcd1234");
        assert_eq!(config.ending, OnStop::Vanish);
        assert_eq!(config.vcpus, VcpuCount::for_cpu(MegaHertz(2000)));
    }

    #[test]
    fn a_screen_needs_both_vnc_and_a_password() {
        for (record, has_screen) in [
            (sized().with("vnc", "auto"), false),
            (sized().with("password", "x"), false),
            (sized().with("vnc", "auto").with("password", "x"), true),
        ] {
            let config = ServerConfig::parse(&normalised(&record).unwrap()).unwrap();
            assert_eq!(config.screen.is_some(), has_screen, "{record:?}");
        }
    }

    #[test]
    fn a_seed_holds_the_keys_in_order_and_is_none_where_nothing_is_said() {
        let record = sized()
            .with("ssh:7:key", "ssh-rsa B")
            .with("ssh:0:key", "ssh-rsa A")
            .with("cloud:hostname", "web1")
            .with("cloud:userdata", "#!/bin/sh\n");
        let seed = ServerConfig::parse(&record).unwrap().seed.unwrap();
        assert_eq!(seed.keys, ["ssh-rsa A", "ssh-rsa B"]);
        assert_eq!(seed.host_name.as_deref(), Some("web1"));
        assert_eq!(seed.user_data.unwrap().expose(), "#!/bin/sh\n");
        for (key, value) in record.iter().filter(|(key, _)| key.contains(':')) {
            let seed = ServerConfig::parse(&sized().with(key, value)).unwrap().seed;
            assert!(seed.is_some(), "{key} alone");
        }
        assert_eq!(ServerConfig::parse(&sized()).unwrap().seed, None);
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_key_to_blame() {
        use ErrorKind::{DriveInUse, InvalidValue, MissingKey};
        for (record, kind, field) in [
            (Record::new().with("mem", 512), MissingKey, "cpu"),
            (Record::new().with("cpu", 512), MissingKey, "mem"),
            (sized().with("ide:0:0", DRIVE).with("ide:0:1", DRIVE), DriveInUse, "ide:0:1"),
            (sized().with("boot", "ide:0:0"), InvalidValue, "boot"),
        ] {
            let refused = ServerConfig::parse(&record).unwrap_err();
            assert_eq!((refused.kind(), refused.blamed_field()), (kind, Some(field)));
        }
        let refused = normalised(&sized().with("vnc:ip", "192.0.2.1")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotOffered);
    }
}
