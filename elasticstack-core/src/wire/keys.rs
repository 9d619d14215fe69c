//! The one table of the public API's keys. To add a key, add its row; nothing else names it.

use crate::error::{Error, ErrorKind, Result};
use crate::wire::record::Record;

pub use super::form::Form;
use super::key::key;
pub use super::key::{Input, Key, Object, Shape, Standing, Takes, parse_size};

const DRIVE: &[Object] = &[Object::Drive];
const HOST: &[Object] = &[Object::Host];
const SERVER: &[Object] = &[Object::Server];
const TOKEN: &[Object] = &[Object::Token];
const USAGE: &[Object] = &[Object::Usage];
const OFFER: &[Object] = &[Object::Capabilities];
const BOTH: &[Object] = &[Object::Drive, Object::Server];
const POOL: &[Object] = &[Object::Pool];
const PROFILE: &[Object] = &[Object::Profile];
const RESOURCE: &[Object] = &[Object::Resource];
const OWNED: &[Object] = &[Object::Drive, Object::Resource, Object::Server];
const ALL: &[Object] = &[
    Object::Drive,
    Object::Host,
    Object::Pool,
    Object::Profile,
    Object::Resource,
    Object::Server,
    Object::Token,
];

const ADDRESS: Takes = Takes::Form(Form::Address);

/// Every key of the public API.
pub const KEYS: &[Key] = &[
    key("accelerator", HOST, Input::Never, Takes::Nothing, "What runs its guests, and why."),
    key(
        "access",
        TOKEN,
        Input::Create,
        Takes::OneOf(&["read", "full"]),
        "read: calls that change nothing; full, if unset: all that the account may.",
    ),
    key("account", USAGE, Input::Never, Takes::Nothing, "Who used it."),
    key(
        "address",
        HOST,
        Input::Create,
        Takes::Text(255),
        "Where its agent listens, as ADDRESS:PORT.",
    )
    .needed_by(HOST),
    key("addresses", POOL, Input::Never, Takes::Nothing, "How many addresses it has.")
        .number_of("addresses"),
    key("addresses:free", POOL, Input::Never, Takes::Nothing, "How many of them nobody has.")
        .number_of("addresses"),
    key(
        "array:*",
        HOST,
        Input::Never,
        Takes::Nothing,
        "Of each array by name: its id, and NAME:capacity (0 if it failed) and NAME:promised in bytes.",
    ),
    key("ata:0:{0-5}", SERVER, Input::Stopped, Takes::Drive, "The drive on a SATA port."),
    key("ata:0:{0-5}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    key(
        "avoid",
        DRIVE,
        Input::Create,
        Takes::Uuids(4_000),
        "Drives of yours to share no array with.",
    ),
    key(
        "avoid:drives",
        SERVER,
        Input::Stopped,
        Takes::Uuids(4_000),
        "Drives of yours to share no host with; others avoid nothing.",
    ),
    key(
        "avoid:servers",
        SERVER,
        Input::Stopped,
        Takes::Uuids(4_000),
        "Servers of yours to share no host with while they run; others avoid nothing.",
    ),
    key("block:{0-7}", SERVER, Input::Stopped, Takes::Drive, "The drive on a virtio-blk port."),
    key("block:{0-7}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    key(
        "boot",
        SERVER,
        Input::Stopped,
        Takes::Devices,
        "The devices to boot from, in order, such as ide:0:0.",
    ),
    key(
        "bundle",
        HOST,
        Input::Never,
        Takes::Nothing,
        "The certificates and the key it joins with; in the answer of create only.",
    ),
    key(
        "claim:type",
        DRIVE,
        Input::Always,
        Takes::OneOf(&["exclusive", "shared"]),
        "Whether one server or several may use the drive at a time; set while none does.",
    ),
    key(
        "claimed",
        &[Object::Drive, Object::Resource],
        Input::Never,
        Takes::Nothing,
        "The servers and jobs that use it now; absent if none does.",
    ),
    key(
        "cpu",
        SERVER,
        Input::Always,
        Takes::Range(500, 100_000),
        "Processor time in MHz, for the whole server.",
    )
    .number_of("MHz")
    .needed_by(SERVER)
    .kept(),
    key(
        "cpu:limits",
        HOST,
        Input::Never,
        Takes::Nothing,
        "How processor time is limited, or none.",
    ),
    key("cpu:total", HOST, Input::Never, Takes::Nothing, "Its processor time in MHz.")
        .number_of("MHz"),
    key("created", TOKEN, Input::Never, Takes::Nothing, "When it was made, in seconds since 1970.")
        .number_of("seconds since 1970"),
    key("drive", DRIVE, Input::Never, Takes::Nothing, "The drive's UUID."),
    key("email", PROFILE, Input::Always, Takes::Form(Form::Mail), "Where the account is reached."),
    key(
        "encryption:cipher",
        DRIVE,
        Input::Create,
        Takes::Text(40),
        "none: drives are not encrypted.",
    )
    .refused_but(&["none"]),
    key(
        "expires",
        TOKEN,
        Input::Create,
        Takes::Range(1, u32::MAX),
        "When it ends, in seconds since 1970; never if unset.",
    )
    .number_of("seconds since 1970"),
    key(
        "failed",
        BOTH,
        Input::Never,
        Takes::Nothing,
        "Why the last imaging or start of it failed.",
    ),
    key("first", POOL, Input::Create, ADDRESS, "Its lowest address.").needed_by(POOL),
    key(
        "format",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "gzip for a compressed image, to be imaged with gunzip.",
    ),
    key("from", USAGE, Input::Never, Takes::Nothing, "When it began, in microseconds since 1970.")
        .number_of("microseconds since 1970"),
    key(
        "gateway",
        POOL,
        Input::Create,
        ADDRESS,
        "The router of its subnet, itself none of the pool's addresses.",
    )
    .needed_by(POOL),
    key("gateway", RESOURCE, Input::Never, Takes::Nothing, "The router of a static IP's subnet."),
    key("host", HOST, Input::Never, Takes::Nothing, "The host's UUID."),
    key("ide:{0-1}:{0-1}", SERVER, Input::Stopped, Takes::Drive, "The drive on an IDE port."),
    key("ide:{0-1}:{0-1}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    key(
        "imaging",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "How far imaging is, or queued; absent if none goes on.",
    ),
    key("interval", USAGE, Input::Never, Takes::Nothing, "The permanent id of the interval.")
        .number(),
    key("last", POOL, Input::Create, ADDRESS, "Its highest address.").needed_by(POOL),
    key(
        "licenses",
        DRIVE,
        Input::Create,
        Takes::Words(1_000),
        "Products on the drive that are charged for.",
    )
    .refused_but(&[]),
    key(
        "limit:*",
        OFFER,
        Input::Never,
        Takes::Nothing,
        "A limit by name: bytes, seconds or a count as the name says.",
    )
    .number(),
    key("media", DRIVE, Input::Never, Takes::Nothing, "disk or cdrom, for a standard drive."),
    key("mem", SERVER, Input::Stopped, Takes::Range(128, 1_048_576), "Memory in MiB.")
        .number_of("MiB")
        .needed_by(SERVER),
    key("mem:total", HOST, Input::Never, Takes::Nothing, "Its memory for guests in MiB.")
        .number_of("MiB"),
    key(
        "meter",
        USAGE,
        Input::Never,
        Takes::Nothing,
        "cpu in MHz, memory in MiB or drive in bytes.",
    ),
    key("name", ALL, Input::Always, Takes::Name, "What you call it; 1 to 80 characters.")
        .needed_by(&[Object::Host, Object::Pool, Object::Token]),
    key(
        "nameserver",
        POOL,
        Input::Create,
        Takes::Form(Form::Addresses),
        "The name servers that its addresses use.",
    ),
    key(
        "nameserver",
        RESOURCE,
        Input::Never,
        Takes::Nothing,
        "The name servers for a static IP, parted by spaces.",
    ),
    key("netmask", POOL, Input::Create, ADDRESS, "The mask of its subnet.").needed_by(POOL),
    key("netmask", RESOURCE, Input::Never, Takes::Nothing, "The mask of a static IP's subnet."),
    key(
        "nic:0:dhcp",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::AutoOrAddress),
        "auto, or a static IP of yours, which one running server at a time may have.",
    )
    .kept(),
    key("nic:0:dhcp:ip", SERVER, Input::Stopped, Takes::Text(40), "The address in use.").kept(),
    key(
        "nic:0:firewall:*",
        SERVER,
        Input::Stopped,
        Takes::Text(4_000),
        "The firewall of the first card.",
    )
    .refused_but(&[]),
    key(
        "nic:{0-3}:mac",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::Mac),
        "The card's hardware address, unlike any other on its VLAN; drawn if unset.",
    )
    .kept(),
    key(
        "nic:{0-3}:model",
        SERVER,
        Input::Stopped,
        Takes::OneOf(&["e1000", "rtl8139", "virtio"]),
        "The model of the network card; e1000 if unset.",
    ),
    key(
        "nic:{0-3}:vlan",
        SERVER,
        Input::Stopped,
        Takes::Form(Form::Vlan),
        "The VLAN of yours that the card is on.",
    )
    .kept(),
    key("offer:*", OFFER, Input::Never, Takes::Nothing, "yes or no, by name."),
    key(
        "password",
        SERVER,
        Input::Always,
        Takes::Text(8),
        "The password of the VNC screen, at most 8 characters; no screen without one.",
    ),
    key(
        "persistent",
        SERVER,
        Input::Always,
        Takes::Flag,
        "true: stopping it keeps it; else it vanishes when it stops.",
    ),
    key("pool", POOL, Input::Never, Takes::Nothing, "The pool's UUID."),
    key(
        "quantity",
        USAGE,
        Input::Never,
        Takes::Nothing,
        "How much of it, in the unit of its meter.",
    )
    .number(),
    key(
        "rawsize",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "The size of a compressed image after gunzip, in bytes.",
    )
    .number_of("bytes"),
    key(
        "readers",
        DRIVE,
        Input::Always,
        Takes::Uuids(4_000),
        "Accounts that may image from it; all-f for everybody.",
    ),
    key("resource", RESOURCE, Input::Never, Takes::Nothing, "The address, or the VLAN's UUID."),
    key("resource", USAGE, Input::Never, Takes::Nothing, "The UUID of what was used."),
    key("scsi:0:{0-7}", SERVER, Input::Stopped, Takes::Drive, "The drive on a virtio-scsi port."),
    key("scsi:0:{0-7}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    key(
        "secret",
        TOKEN,
        Input::Never,
        Takes::Nothing,
        "The token itself; in the answer of create only.",
    ),
    key("server", SERVER, Input::Never, Takes::Nothing, "The server's UUID."),
    key(
        "size",
        DRIVE,
        Input::Always,
        Takes::Size,
        "Its size in bytes, rounded up to a multiple of 4 MiB.",
    )
    .needed_by(DRIVE),
    key(
        "smp",
        SERVER,
        Input::Stopped,
        Takes::RangeOrAuto(1, 64),
        "Virtual CPUs; auto is one per 2,500 MHz begun.",
    ),
    key("smp:cores", SERVER, Input::Never, Takes::Nothing, "The virtual CPUs of a running server.")
        .number_of("CPUs"),
    key(
        "started",
        SERVER,
        Input::Never,
        Takes::Nothing,
        "When it began to run, in seconds since 1970.",
    )
    .number_of("seconds"),
    key(
        "status",
        &[Object::Drive, Object::Host, Object::Server],
        Input::Never,
        Takes::Nothing,
        "What it is: active, stopped, paused and so on.",
    ),
    key("tags", OWNED, Input::Always, Takes::Words(1_000), "Words of yours to find it by."),
    key(
        "tier",
        DRIVE,
        Input::Create,
        Takes::OneOf(&["disk", "ssd"]),
        "The kind of array to lie on; disk if unset. Arrays do not tell their kind yet.",
    )
    .kept(),
    key(
        "to",
        USAGE,
        Input::Never,
        Takes::Nothing,
        "When it ended, in microseconds since 1970; absent while it goes on.",
    )
    .number_of("microseconds since 1970"),
    key("token", TOKEN, Input::Never, Takes::Nothing, "The token's UUID."),
    key("type", RESOURCE, Input::Never, Takes::Nothing, "ip or vlan."),
    key("type", SERVER, Input::Create, Takes::Text(40), "vm; containers are not offered yet.")
        .refused_but(&["vm"]),
    key("user", OWNED, Input::Never, Takes::Nothing, "The owner's UUID."),
    key("user:*", OWNED, Input::Always, Takes::Text(4_000), "Anything you want to note."),
    key("uuid", ALL, Input::Never, Takes::Nothing, "The object's UUID, in lists."),
    key("version", OFFER, Input::Never, Takes::Nothing, "The version of the program."),
    key(
        "vnc",
        SERVER,
        Input::Stopped,
        Takes::OneOf(&["auto"]),
        "auto: the screen is served where vnc:ip says.",
    ),
    key(
        "vnc:ip",
        SERVER,
        Input::Stopped,
        Takes::Text(40),
        "Where the screen is served, port 5900; auto on input.",
    )
    .refused_but(&["auto"]),
    key("vnc:password", SERVER, Input::Always, Takes::Text(8), "The older name of password."),
    key("vnc:tls", SERVER, Input::Stopped, Takes::Text(8), "Encryption of the screen.")
        .refused_but(&["off"]),
];

const MEDIA: Takes = Takes::OneOf(&["disk", "cdrom"]);

/// The row of `name` for `object`.
#[must_use]
pub fn find(object: Object, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.objects.contains(&object) && key.matches(name))
}

/// When a record is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The object is being made.
    Create,
    /// The object is changed, and no run of it goes on.
    SetStopped,
    /// The object is changed while it runs.
    SetRunning,
}

/// Refuses a record that names an unknown key, a key that may not be set now, or a value that
/// its key does not take.
///
/// # Errors
/// `UnknownKey`, `InvalidValue`, `NotOffered`, or `ServerBusy` for a key that waits for a stop.
pub fn check(object: Object, moment: Moment, record: &Record) -> Result<()> {
    for (name, value) in record.iter() {
        let Some(key) = find(object, name) else {
            let shown: String = name.chars().take(60).collect();
            let error = Error::new(
                ErrorKind::UnknownKey,
                format!("{shown:?} is not a key of this object: see the list of keys"),
            );
            // Half a key would blame another one.
            return Err(if shown == name { error.field(name) } else { error });
        };
        let refused = |kind, why: &str| Error::new(kind, format!("{name} {why}")).field(name);
        match (key.input, moment) {
            (Input::Never, _) => {
                return Err(refused(ErrorKind::InvalidValue, "is only in answers: leave it out"));
            }
            (Input::Create, Moment::SetStopped | Moment::SetRunning) => {
                return Err(refused(ErrorKind::InvalidValue, "is fixed when the object is made"));
            }
            (Input::Stopped, Moment::SetRunning) => {
                return Err(refused(
                    ErrorKind::ServerBusy,
                    "can't change while it runs: stop it first",
                ));
            }
            (Input::Create | Input::Stopped | Input::Always, Moment::Create)
            | (Input::Stopped, Moment::SetStopped)
            | (Input::Always, Moment::SetStopped | Moment::SetRunning) => {}
        }
        key.check(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Bytes;

    #[test]
    fn every_row_is_sorted_documented_and_found_by_its_own_name() {
        for pair in KEYS.windows(2) {
            let [one, next] = [&pair[0], &pair[1]];
            assert!(one.pattern <= next.pattern, "{} is out of order", next.pattern);
            let shared = one.objects.iter().any(|object| next.objects.contains(object));
            assert!(one.pattern != next.pattern || !shared, "{} stands twice", next.pattern);
        }
        for key in KEYS {
            assert!(key.doc.ends_with('.'), "{}: {:?}", key.pattern, key.doc);
            let name = key.pattern.replace('*', "x");
            let name = name.split('{').map(|part| match part.split_once('}') {
                Some((range, rest)) => format!("{}{rest}", &range[2..]),
                None => part.to_owned(),
            });
            let name: String = name.collect();
            for &object in key.objects {
                assert_eq!(find(object, &name).map(|key| key.pattern), Some(key.pattern));
            }
        }
    }

    #[test]
    fn bad_records_are_refused_with_the_key_to_blame() {
        use ErrorKind::{InvalidValue, NotOffered, ServerBusy, UnknownKey};
        use Moment::{Create, SetRunning, SetStopped};
        use Object::{Drive, Server};
        for (object, moment, key, value, kind) in [
            (Drive, Create, "sise", "1", UnknownKey),
            (Drive, Create, "size", "-1", InvalidValue),
            (Drive, Create, "size", "1.5G", InvalidValue),
            (Drive, Create, "size", "9223372036854775808", InvalidValue),
            (Drive, Create, "size", "99999999T", InvalidValue),
            (Drive, Create, "size", "G", InvalidValue),
            (Drive, Create, "claimed", "x", InvalidValue),
            (Drive, Create, "encryption:cipher", "aes-xts-plain", NotOffered),
            (Drive, SetStopped, "claim:type", "both", InvalidValue),
            (Drive, SetStopped, "tier", "ssd", InvalidValue),
            (Drive, Create, "licenses", "msft_p73_04837", NotOffered),
            (Drive, Create, "cpu", "2000", UnknownKey),
            (Server, Create, "cpu", "2GHz", InvalidValue),
            (Server, Create, "cpu", "499", InvalidValue),
            (Server, Create, "mem", "4294967296", InvalidValue),
            (Server, Create, "ide:0:2", "5b0e3c52-0000-4000-8000-00000000d001", UnknownKey),
            (Server, Create, "ide:0:0", "../../etc/passwd", InvalidValue),
            (Server, Create, "boot", "floppy", InvalidValue),
            (Server, Create, "vnc:tls", "on", NotOffered),
            (Server, Create, "nic:0:firewall:policy", "accept", NotOffered),
            (Server, Create, "password", "123456789", InvalidValue),
            (Server, Create, "type", "container", NotOffered),
            (Server, Create, "nic:0:dhcp", "192.0.2.256", InvalidValue),
            (Server, Create, "nic:1:vlan", "v", InvalidValue),
            (Server, Create, "nic:1:mac", "01:00:5e:00:00:01", InvalidValue),
            (Server, SetRunning, "mem", "512", ServerBusy),
            (Server, SetRunning, "vnc", "auto", ServerBusy),
            (Server, SetRunning, "nic:0:dhcp", "auto", ServerBusy),
            (Server, SetRunning, "avoid:servers", "", ServerBusy),
        ] {
            let refused = check(object, moment, &Record::new().with(key, value)).unwrap_err();
            assert_eq!(refused.kind(), kind, "{key} {value}: {refused}");
            assert_eq!(refused.blamed_field(), Some(key));
        }
    }

    #[test]
    fn what_old_clients_send_is_taken() {
        let libcloud = Record::new()
            .with("name", "n1")
            .with("cpu", 2000)
            .with("mem", 1700)
            .with("ide:0:0", "5b0e3c52-0000-4000-8000-00000000d001")
            .with("boot", "ide:0:0")
            .with("smp", "auto")
            .with("nic:0:model", "e1000")
            .with("nic:0:dhcp", "auto")
            .with("vnc", "auto")
            .with("vnc:password", "abcd1234")
            .with("encryption:cipher", "");
        let mut known = libcloud.clone();
        known.remove("encryption:cipher");
        check(Object::Server, Moment::Create, &known).unwrap();
        let drive =
            Record::new().with("name", "n1").with("size", "160G").with("encryption:cipher", "none");
        check(Object::Drive, Moment::Create, &drive).unwrap();
        assert_eq!(parse_size("160G"), Some(Bytes::from_gib(160)));
        assert_eq!(parse_size("7T").unwrap().get(), 7 << 40);
    }

    proptest! {
        #[test]
        fn no_key_and_no_value_panic_the_check(key in ".{0,20}", value in ".{0,40}", row in 0..KEYS.len()) {
            for object in [Object::Drive, Object::Server] {
                for moment in [Moment::Create, Moment::SetStopped, Moment::SetRunning] {
                    let _ = check(object, moment, &Record::new().with(key.as_str(), &value));
                }
            }
            let _ = KEYS[row].check(&key, &value);
        }
    }
}
