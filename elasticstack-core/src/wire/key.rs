//! What a row of the table of keys says, and the check of one value against it.

use crate::error::{Error, ErrorKind, Result};
use crate::hypervisor::Device;
use crate::name::Name;
use crate::units::Bytes;
use crate::wire::form::Form;
use crate::wire::record::is_word;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// An account, as operators see it.
    Account,
    /// An array, as operators see it.
    Array,
    /// What an installation offers.
    Capabilities,
    /// How many more servers of one size fit, as operators see it.
    Capacity,
    /// A ticket to a server's screen.
    Console,
    /// A file elsewhere that a drive is to be made of.
    Download,
    /// A drive.
    Drive,
    /// Something that happened to an object.
    Event,
    /// A host, as operators see it.
    Host,
    /// A pool of addresses, as operators see it.
    Pool,
    /// A profile: an account as its owner sees it.
    Profile,
    /// A static IP or a VLAN.
    Resource,
    /// A server.
    Server,
    /// A snapshot: what a drive held at one instant.
    Snapshot,
    /// What a host has and no intent knows, as operators see it.
    Stray,
    /// What of a drive is to be summed up.
    Sum,
    /// A token: credentials of an account beside its key.
    Token,
    /// An interval in which something was used.
    Usage,
}

impl Object {
    /// Every kind, in the order in which they are described.
    pub const ALL: [Self; 18] = [
        Self::Drive,
        Self::Download,
        Self::Sum,
        Self::Snapshot,
        Self::Server,
        Self::Console,
        Self::Resource,
        Self::Profile,
        Self::Token,
        Self::Usage,
        Self::Event,
        Self::Capabilities,
        Self::Account,
        Self::Host,
        Self::Array,
        Self::Capacity,
        Self::Pool,
        Self::Stray,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Array => "array",
            Self::Capabilities => "capabilities",
            Self::Capacity => "capacity",
            Self::Console => "console",
            Self::Download => "download",
            Self::Drive => "drive",
            Self::Event => "event",
            Self::Host => "host",
            Self::Pool => "pool",
            Self::Profile => "profile",
            Self::Resource => "resource",
            Self::Server => "server",
            Self::Snapshot => "snapshot",
            Self::Stray => "stray",
            Self::Sum => "sum",
            Self::Token => "token",
            Self::Usage => "usage",
        }
    }
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
    /// A value that is spelled in one way only.
    Form(Form),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A drive's UUID.
    Drive,
    /// Device names parted by spaces.
    Devices,
    /// Words parted by spaces, at most so many characters in all.
    Words(usize),
    /// UUIDs parted by spaces, at most so many characters in all.
    Uuids(usize),
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

/// One row of [`KEYS`](super::keys::KEYS).
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
    /// Why it is not and will not be, if that is so.
    pub reason: Option<&'static str>,
    /// Whether its value opens something: it is shown to whoever asks for it and to nobody else.
    pub is_secret: bool,
    /// What a number counts, if it is one.
    pub unit: Option<&'static str>,
    /// Which objects can't be made without it.
    pub needed_by: &'static [Object],
    /// The first version of the API that has it.
    pub since: &'static str,
    /// One sentence for the documentation.
    pub doc: &'static str,
}

const FIRST: &str = "0.1.0";

/// A row of an honoured key.
pub(super) const fn key(
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
    let unit = match takes {
        Takes::Size => Some("bytes"),
        _ => None,
    };
    let standing = Standing::Honoured;
    Key {
        pattern,
        objects,
        input,
        takes,
        shape,
        standing,
        reason: None,
        is_secret: false,
        unit,
        needed_by: &[],
        since: FIRST,
        doc,
    }
}

/// A row of a counter, which `info/full` tells and JSON shows as text, as old clients expect it.
pub(super) const fn counter(
    pattern: &'static str,
    objects: &'static [Object],
    unit: &'static str,
    doc: &'static str,
) -> Key {
    let mut row = key(pattern, objects, Input::Never, Takes::Nothing, doc);
    row.unit = Some(unit);
    row
}

impl Key {
    pub(super) const fn kept(mut self) -> Self {
        self.standing = Standing::Kept;
        self
    }

    pub(super) const fn refused_but(mut self, values: &'static [&'static str]) -> Self {
        self.standing = Standing::RefusedBut(values);
        self
    }

    pub(super) const fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    pub(super) const fn number(mut self) -> Self {
        self.shape = Shape::Number;
        self
    }

    pub(super) const fn number_of(mut self, unit: &'static str) -> Self {
        self.shape = Shape::Number;
        self.unit = Some(unit);
        self
    }

    pub(super) const fn needed_by(mut self, objects: &'static [Object]) -> Self {
        self.needed_by = objects;
        self
    }

    /// Whether JSON may give it as a list of words.
    #[must_use]
    pub const fn takes_list(&self) -> bool {
        matches!(self.takes, Takes::Devices | Takes::Words(_) | Takes::Uuids(_))
    }

    /// What values it takes, or what its number counts, for people.
    #[must_use]
    pub fn takes_in_words(&self) -> String {
        let unit = self.unit.map_or_else(String::new, |unit| format!(" {unit}"));
        match self.takes {
            Takes::Text(max) => format!("text, at most {max} characters"),
            Takes::Name => "a name".to_owned(),
            Takes::Size => "bytes, or with k, M, G, T".to_owned(),
            Takes::Range(low, high) => format!("{low} to {high}{unit}"),
            Takes::RangeOrAuto(low, high) => format!("auto, or {low} to {high}{unit}"),
            Takes::Flag => "true, false".to_owned(),
            Takes::Form(form) => form.words().to_owned(),
            Takes::OneOf(words) => words.join(", "),
            Takes::Drive => "a drive's UUID".to_owned(),
            Takes::Devices => "devices".to_owned(),
            Takes::Words(max) => format!("words, at most {max} characters"),
            Takes::Uuids(_) => "UUIDs".to_owned(),
            Takes::Nothing => self.unit.unwrap_or_default().to_owned(),
        }
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
                match self.reason {
                    None => format!("{name} is not offered by this installation: {instead}"),
                    Some(reason) => {
                        let shown: String = value.chars().take(40).collect();
                        format!("{name} {shown:?} is not offered, because {reason}: {instead}")
                    }
                },
            )
            .field(name));
        }
        let allowed = match self.takes {
            Takes::Text(max) | Takes::Words(max) | Takes::Uuids(max)
                if value.chars().count() > max =>
            {
                format!("at most {max} characters")
            }
            Takes::Text(_) | Takes::Words(_) if value.contains('\0') => {
                "text without NUL".to_owned()
            }
            Takes::Text(_) | Takes::Words(_) => return Ok(()),
            Takes::Uuids(_) => match value.split_whitespace().find(|word| !is_uuid(word)) {
                None => return Ok(()),
                Some(_) => "lower-case UUIDs parted by spaces".to_owned(),
            },
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
            Takes::Form(form) if form.fits(value) => return Ok(()),
            Takes::Form(form) => form.words().to_owned(),
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

fn is_uuid(word: &str) -> bool {
    // Every kind of id is spelled alike.
    word.parse::<crate::id::DriveId>().is_ok()
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
