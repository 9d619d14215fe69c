//! What is asked of a host's arrays, by a program on it or over the internal API: the same either way. What is
//! here is well formed; whether it can be done depends on the disks.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::arrays::{ArrayOrder, ScrubMode};

use super::disk::DiskName;
use super::integrity::Integrity;
use super::plan::Level;
use super::tend::Scrub;

/// What a new array is called: it becomes part of a path, of tools' arguments and of what stands on its disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayName(Name);

impl ArrayName {
    /// As many bytes as are kept of it on the disks.
    pub const MAX: usize = 32;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ArrayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ArrayName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins_well && text.len() <= Self::MAX && text.bytes().all(is_plain) {
            return name(text).map(Self);
        }
        let sentence = format!(
            "{text:?} can't name an array: give a letter or digit, then letters, digits, dots, dashes and \
             underscores, {} in all at most",
            Self::MAX
        );
        Err(Error::new(ErrorKind::InvalidValue, sentence).field("name"))
    }
}

/// An array to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation {
    /// What it is called.
    pub name: ArrayName,
    /// How its disks are put together.
    pub level: Level,
    /// Its disks.
    pub disks: Vec<DiskName>,
    /// Those that take the place of one that fails.
    pub spares: Vec<DiskName>,
    /// What its blocks are checked by, if they are.
    pub integrity: Option<Integrity>,
    /// Where it is mounted.
    pub path: PathBuf,
}

/// Something to be done to an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Make it, and use it.
    Create(Creation),
    /// Take it over with its disks, and use it.
    Import {
        /// What it is called.
        name: ArrayName,
        /// What its blocks are checked by, if they are.
        integrity: Option<Integrity>,
        /// Where it is mounted.
        path: PathBuf,
    },
    /// Add a disk.
    Add {
        /// The array.
        name: Name,
        /// The disk.
        disk: DiskName,
    },
    /// Copy a disk to another one, which takes its place.
    Replace {
        /// The array.
        name: Name,
        /// The disk that is to go.
        old: DiskName,
        /// The disk that takes its place.
        new: DiskName,
    },
    /// Take a disk out.
    Remove {
        /// The array.
        name: Name,
        /// The disk.
        disk: DiskName,
    },
    /// Compare its copies.
    Scrub {
        /// The array.
        name: Name,
        /// How.
        scrub: Scrub,
    },
    /// Make it as large as its disks allow.
    Grow {
        /// The array.
        name: Name,
        /// Disks that are added before.
        disks: Vec<DiskName>,
    },
}

impl TryFrom<&ArrayOrder> for Order {
    type Error = Error;

    /// # Errors
    /// `InvalidValue` with the key to blame.
    fn try_from(order: &ArrayOrder) -> Result<Self> {
        let wished = |integrity: &bool| integrity.then_some(Integrity::Crc32c);
        Ok(match order {
            ArrayOrder::Create { name, level, disks, spares, integrity, path } => {
                Self::Create(Creation {
                    name: name.parse()?,
                    level: level.parse()?,
                    disks: each(disks)?,
                    spares: each(spares)?,
                    integrity: wished(integrity),
                    path: path.into(),
                })
            }
            ArrayOrder::Import { name, integrity, path } => Self::Import {
                name: name.parse()?,
                integrity: wished(integrity),
                path: path.into(),
            },
            ArrayOrder::Add { name: array, disk } => {
                Self::Add { name: name(array)?, disk: disk.parse()? }
            }
            ArrayOrder::Replace { name: array, old, new } => {
                Self::Replace { name: name(array)?, old: old.parse()?, new: new.parse()? }
            }
            ArrayOrder::Remove { name: array, disk } => {
                Self::Remove { name: name(array)?, disk: disk.parse()? }
            }
            ArrayOrder::Scrub { name: array, mode } => {
                let scrub = match mode {
                    ScrubMode::Check => Scrub::Check,
                    ScrubMode::Repair => Scrub::Repair,
                    ScrubMode::Stop => Scrub::Stop,
                };
                Self::Scrub { name: name(array)?, scrub }
            }
            ArrayOrder::Grow { name: array, disks } => {
                Self::Grow { name: name(array)?, disks: each(disks)? }
            }
        })
    }
}

fn name(text: &str) -> Result<Name> {
    text.parse().map_err(|error: elasticstack_core::name::InvalidName| {
        Error::new(ErrorKind::InvalidValue, error.to_string()).field("name")
    })
}

fn each(texts: &[String]) -> Result<Vec<DiskName>> {
    texts.iter().map(|text| text.parse()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> std::result::Result<Order, String> {
        let order: ArrayOrder = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Order::try_from(&order).map_err(|error| error.to_string())
    }

    #[test]
    fn orders_are_read_from_their_documents() {
        let disk = |name: &str| name.parse::<DiskName>().unwrap();
        let fast: Name = "fast".parse().unwrap();
        for (json, order) in [
            (
                r#"{"do": "create", "name": "fast", "level": "raid1", "disks": ["A", "/dev/sdb"],
                    "spares": ["C"], "integrity": true, "path": "/srv/fast"}"#,
                Order::Create(Creation {
                    name: "fast".parse().unwrap(),
                    level: Level::Raid1,
                    disks: vec![disk("A"), disk("/dev/sdb")],
                    spares: vec![disk("C")],
                    integrity: Some(Integrity::Crc32c),
                    path: "/srv/fast".into(),
                }),
            ),
            (
                r#"{"do": "import", "name": "fast", "path": "/srv/fast"}"#,
                Order::Import {
                    name: "fast".parse().unwrap(),
                    integrity: None,
                    path: "/srv/fast".into(),
                },
            ),
            (
                r#"{"do": "add", "name": "fast", "disk": "A"}"#,
                Order::Add { name: fast.clone(), disk: disk("A") },
            ),
            (
                r#"{"do": "replace", "name": "fast", "old": "A", "new": "B"}"#,
                Order::Replace { name: fast.clone(), old: disk("A"), new: disk("B") },
            ),
            (
                r#"{"do": "remove", "name": "fast", "disk": "A"}"#,
                Order::Remove { name: fast.clone(), disk: disk("A") },
            ),
            (
                r#"{"do": "scrub", "name": "fast", "mode": "repair"}"#,
                Order::Scrub { name: fast.clone(), scrub: Scrub::Repair },
            ),
            (r#"{"do": "grow", "name": "fast"}"#, Order::Grow { name: fast, disks: Vec::new() }),
        ] {
            assert_eq!(read(json), Ok(order), "{json}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused_with_what_is_wrong() {
        for (json, why) in [
            (r#"{"do": "erase", "name": "fast"}"#, "unknown variant `erase`"),
            (r#"{"do": "grow", "name": "fast", "force": true}"#, "unknown field `force`"),
            (r#"{"do": "add", "name": "fast"}"#, "missing field `disk`"),
            (r#"{"do": "add", "name": "fast", "disk": ""}"#, "names no disk"),
            (r#"{"do": "add", "name": "", "disk": "A"}"#, "a name has at least one character"),
            (r#"{"do": "scrub", "name": "fast", "mode": "forced"}"#, "unknown variant `forced`"),
            (
                r#"{"do": "create", "name": "fast", "level": "raid0", "disks": [], "path": "/srv/fast"}"#,
                "is one of raid1, raid10, raid5, raid6",
            ),
            (r#"{"do": "import", "name": "../up", "path": "/srv/up"}"#, "can't name an array"),
        ] {
            let said = read(json).unwrap_err();
            assert!(said.contains(why), "{json}: {said}");
        }
    }

    #[test]
    fn a_new_arrays_name_is_safe_in_a_path_and_on_a_command_line() {
        for good in ["fast", "6", "a.b-c_d", &"n".repeat(32)] {
            assert_eq!(good.parse::<ArrayName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-f", "a/b", "a b", "ä", "a\n", &"n".repeat(33)] {
            let error = bad.parse::<ArrayName>().unwrap_err();
            assert_eq!(
                (error.kind(), error.blamed_field()),
                (ErrorKind::InvalidValue, Some("name")),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_name_of_an_array_leaves_its_directory(text in any::<String>()) {
            if let Ok(name) = text.parse::<ArrayName>() {
                let path = std::path::Path::new("/dev/md").join(name.as_str());
                prop_assert_eq!(path.components().count(), 4);
                prop_assert!(!name.as_str().starts_with(['-', '.']));
            }
        }
    }
}
