//! The one table of the public API's keys. To add a key, add its row; nothing else names it.

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::Device;
use crate::name::Name;
use crate::units::Bytes;
use crate::wire::record::{Record, is_word};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// A drive.
    Drive,
    /// A profile: an account as its owner sees it.
    Profile,
    /// A server.
    Server,
}

/// Who sets a key, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Only answers have it.
    Never,
    /// Given on create; a later `set` may not name it.
    Create,
    /// Given on create, or by `set` while the server is stopped.
    Stopped,
    /// Given on create, or by `set` at any time.
    Always,
}

/// How JSON shows a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A number if it is one, else text.
    Number,
    /// Text, also where it is made of digits.
    Text,
    /// Text for one device, a list for several.
    Devices,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Any text, at most so many characters.
    Text(usize),
    /// A [`Name`].
    Name,
    /// Bytes, a whole number with an optional suffix k, M, G or T (powers of 1024).
    Size,
    /// A whole number in this range.
    Range(u32, u32),
    /// A whole number in this range, or `auto`.
    RangeOrAuto(u32, u32),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A drive's UUID.
    Drive,
    /// Device names parted by spaces.
    Devices,
    /// Words parted by spaces, at most so many characters in all.
    Words(usize),
    /// Nothing: the key is for answers.
    Nothing,
}

/// Whether this installation does what the key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Honoured,
    /// It keeps and echoes the value and does nothing yet; no protection is lost by that.
    Kept,
    /// The key promises protection that is not built: anything but these values is refused.
    RefusedBut(&'static [&'static str]),
}

/// One row of [`KEYS`].
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key, where `{A-B}` stands for one digit in that range and a final `*` for any word.
    pub pattern: &'static str,
    /// Which objects have it.
    pub objects: &'static [Object],
    /// Who sets it, and when.
    pub input: Input,
    /// What values it takes.
    pub takes: Takes,
    /// How JSON shows it.
    pub shape: Shape,
    /// Whether it is honoured.
    pub standing: Standing,
    /// One sentence for the documentation.
    pub doc: &'static str,
}

const DRIVE: &[Object] = &[Object::Drive];
const SERVER: &[Object] = &[Object::Server];
const BOTH: &[Object] = &[Object::Drive, Object::Server];
const ALL: &[Object] = &[Object::Drive, Object::Profile, Object::Server];

const fn key(
    pattern: &'static str,
    objects: &'static [Object],
    input: Input,
    takes: Takes,
    doc: &'static str,
) -> Key {
    let shape = match takes {
        Takes::Size | Takes::Range(..) | Takes::RangeOrAuto(..) => Shape::Number,
        Takes::Devices => Shape::Devices,
        _ => Shape::Text,
    };
    Key { pattern, objects, input, takes, shape, standing: Standing::Honoured, doc }
}

impl Key {
    const fn kept(mut self) -> Self {
        self.standing = Standing::Kept;
        self
    }

    const fn refused_but(mut self, values: &'static [&'static str]) -> Self {
        self.standing = Standing::RefusedBut(values);
        self
    }

    const fn number(mut self) -> Self {
        self.shape = Shape::Number;
        self
    }

    /// Whether `name` is an instance of this row.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut name) = (self.pattern, name);
        loop {
            match pattern.as_bytes() {
                [] => return name.is_empty(),
                [b'*'] => return is_word(name),
                [b'{', low, b'-', high, b'}', ..] => {
                    let Some(first) =
                        name.bytes().next().filter(|byte| (low..=high).contains(&byte))
                    else {
                        return false;
                    };
                    debug_assert!(first.is_ascii_digit());
                    (pattern, name) = (&pattern[5..], &name[1..]);
                }
                [byte, ..] => {
                    if name.as_bytes().first() != Some(byte) {
                        return false;
                    }
                    (pattern, name) = (&pattern[1..], &name[1..]);
                }
            }
        }
    }

    /// Refuses a value that this key does not take. An empty value, which unsets, is always taken.
    ///
    /// # Errors
    /// `InvalidValue`, or `NotOffered` for a promise of protection that is not honoured.
    pub fn check(&self, name: &str, value: &str) -> Result<()> {
        if value.is_empty() {
            return Ok(());
        }
        if let Standing::RefusedBut(values) = self.standing
            && !values.contains(&value)
        {
            let instead = match values {
                [] => "leave it out".to_owned(),
                values => format!("leave it out or set it to {}", values.join(" or ")),
            };
            return Err(Error::new(
                ErrorKind::NotOffered,
                format!("{name} is not offered by this installation: {instead}"),
            )
            .field(name));
        }
        let allowed = match self.takes {
            Takes::Text(max) | Takes::Words(max) if value.chars().count() > max => {
                format!("at most {max} characters")
            }
            Takes::Text(_) | Takes::Words(_) if value.contains('\0') => {
                "text without NUL".to_owned()
            }
            Takes::Text(_) | Takes::Words(_) => return Ok(()),
            Takes::Name => match value.parse::<Name>() {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Takes::Size => match parse_size(value) {
                Some(_) => return Ok(()),
                None => format!(
                    "bytes, a whole number up to {} with an optional suffix k, M, G or T",
                    i64::MAX
                ),
            },
            Takes::Range(low, high) => match value.parse::<u32>() {
                Ok(number) if (low..=high).contains(&number) => return Ok(()),
                _ => format!("a whole number from {low} to {high}"),
            },
            Takes::RangeOrAuto(low, high) => match value.parse::<u32>() {
                Ok(number) if (low..=high).contains(&number) => return Ok(()),
                Err(_) if value == "auto" => return Ok(()),
                _ => format!("auto or a whole number from {low} to {high}"),
            },
            Takes::Flag if matches!(value, "true" | "false") => return Ok(()),
            Takes::Flag => "true or false".to_owned(),
            Takes::OneOf(words) if words.contains(&value) => return Ok(()),
            Takes::OneOf(words) => words.join(" or "),
            Takes::Drive => match value.parse::<crate::id::DriveId>() {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Takes::Devices => {
                match value.split(' ').try_for_each(|word| word.parse::<Device>().map(|_| ())) {
                    Ok(()) => return Ok(()),
                    Err(error) => error.to_string(),
                }
            }
            Takes::Nothing => "no value from a client".to_owned(),
        };
        let shown: String = value.chars().take(40).collect();
        Err(Error::new(
            ErrorKind::InvalidValue,
            format!("{name} was given {shown:?}, it takes: {allowed}"),
        )
        .field(name))
    }
}

/// Every key of the public API.
pub const KEYS: &[Key] = &[
    key("ata:0:{0-5}", SERVER, Input::Stopped, Takes::Drive, "The drive on a SATA port."),
    key("ata:0:{0-5}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    key(
        "avoid",
        DRIVE,
        Input::Create,
        Takes::Words(4_000),
        "Drives of yours to share no array with.",
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
        "claim:type",
        DRIVE,
        Input::Create,
        Takes::OneOf(&["exclusive", "shared"]),
        "Whether one server or several may use the drive at a time.",
    ),
    key(
        "claimed",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "The servers and jobs that use the drive now; absent if none does.",
    ),
    key(
        "cpu",
        SERVER,
        Input::Always,
        Takes::Range(500, 100_000),
        "Processor time in MHz, for the whole server.",
    )
    .kept(),
    key("drive", DRIVE, Input::Never, Takes::Nothing, "The drive's UUID."),
    key("email", &[Object::Profile], Input::Never, Takes::Nothing, "Where the account is reached."),
    key(
        "encryption:cipher",
        DRIVE,
        Input::Create,
        Takes::Text(40),
        "none: drives are not encrypted.",
    )
    .refused_but(&["none"]),
    key(
        "failed",
        BOTH,
        Input::Never,
        Takes::Nothing,
        "Why the last imaging or start of it failed.",
    ),
    key(
        "format",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "gzip for a compressed image, to be imaged with gunzip.",
    ),
    key("ide:{0-1}:{0-1}", SERVER, Input::Stopped, Takes::Drive, "The drive on an IDE port."),
    key("ide:{0-1}:{0-1}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    key(
        "imaging",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "How far imaging is, or queued; absent if none goes on.",
    ),
    key("media", DRIVE, Input::Never, Takes::Nothing, "disk or cdrom, for a standard drive."),
    key("mem", SERVER, Input::Stopped, Takes::Range(128, 1_048_576), "Memory in MiB.").number(),
    key("name", ALL, Input::Always, Takes::Name, "What you call it; 1 to 80 characters."),
    key("nic:0:dhcp", SERVER, Input::Stopped, Takes::Text(40), "auto, or a static IP.").kept(),
    key("nic:0:dhcp:ip", SERVER, Input::Stopped, Takes::Text(40), "The address in use.").kept(),
    key(
        "nic:0:firewall:*",
        SERVER,
        Input::Stopped,
        Takes::Text(4_000),
        "The firewall of the first card.",
    )
    .refused_but(&[]),
    key("nic:{0-3}:mac", SERVER, Input::Stopped, Takes::Text(17), "The card's hardware address.")
        .kept(),
    key(
        "nic:{0-3}:model",
        SERVER,
        Input::Stopped,
        Takes::OneOf(&["e1000", "rtl8139", "virtio"]),
        "The model of the network card.",
    ),
    key("nic:{0-3}:vlan", SERVER, Input::Stopped, Takes::Text(36), "The VLAN the card is on.")
        .kept(),
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
    key(
        "rawsize",
        DRIVE,
        Input::Never,
        Takes::Nothing,
        "The size of a compressed image after gunzip, in bytes.",
    )
    .number(),
    key(
        "readers",
        DRIVE,
        Input::Always,
        Takes::Words(4_000),
        "Accounts that may image from it; all-f for everybody.",
    ),
    key("scsi:0:{0-7}", SERVER, Input::Stopped, Takes::Drive, "The drive on a virtio-scsi port."),
    key("scsi:0:{0-7}:media", SERVER, Input::Stopped, MEDIA, "disk or cdrom; disk if unset."),
    key("server", SERVER, Input::Never, Takes::Nothing, "The server's UUID."),
    key(
        "size",
        DRIVE,
        Input::Always,
        Takes::Size,
        "Its size in bytes, rounded up to a multiple of 4 MiB.",
    ),
    key(
        "smp",
        SERVER,
        Input::Stopped,
        Takes::RangeOrAuto(1, 64),
        "Virtual CPUs; auto is one per 2,500 MHz begun.",
    ),
    key("smp:cores", SERVER, Input::Never, Takes::Nothing, "The virtual CPUs of a running server.")
        .number(),
    key(
        "started",
        SERVER,
        Input::Never,
        Takes::Nothing,
        "When it began to run, in seconds since 1970.",
    )
    .number(),
    key(
        "status",
        BOTH,
        Input::Never,
        Takes::Nothing,
        "What it is: active, stopped, paused and so on.",
    ),
    key("tags", BOTH, Input::Always, Takes::Words(1_000), "Words of yours to find it by."),
    key("tier", DRIVE, Input::Create, Takes::OneOf(&["disk"]), "The kind of array: disk."),
    key("type", SERVER, Input::Create, Takes::OneOf(&["vm"]), "vm."),
    key("user", BOTH, Input::Never, Takes::Nothing, "The owner's UUID."),
    key("user:*", BOTH, Input::Always, Takes::Text(4_000), "Anything you want to note."),
    key(
        "uuid",
        &[Object::Drive, Object::Server, Object::Profile],
        Input::Never,
        Takes::Nothing,
        "The object's UUID, in lists.",
    ),
    key(
        "vnc",
        SERVER,
        Input::Always,
        Takes::OneOf(&["auto"]),
        "auto: the screen is served where vnc:ip says.",
    ),
    key(
        "vnc:ip",
        SERVER,
        Input::Always,
        Takes::Text(40),
        "Where the screen is served, port 5900; auto on input.",
    ),
    key("vnc:password", SERVER, Input::Always, Takes::Text(8), "The older name of password."),
    key("vnc:tls", SERVER, Input::Always, Takes::Text(8), "Encryption of the screen.")
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
            return Err(Error::new(
                ErrorKind::UnknownKey,
                format!("{shown:?} is not a key of this object: see the list of keys"),
            )
            .field(shown));
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

/// Reads a size: a whole number of bytes with an optional suffix k, K, M, G or T.
#[must_use]
pub fn parse_size(text: &str) -> Option<Bytes> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    Bytes::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_row_is_sorted_documented_and_found_by_its_own_name() {
        for pair in KEYS.windows(2) {
            assert!(pair[0].pattern < pair[1].pattern, "{} is out of order", pair[1].pattern);
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
            (Drive, SetStopped, "claim:type", "shared", InvalidValue),
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
            (Server, SetRunning, "mem", "512", ServerBusy),
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
