//! The one table of the public API's keys. To add a key, add its row to the `keys_of_…` file of
//! its object; nothing else names it.

use std::sync::LazyLock;

use crate::error::{Error, ErrorKind, Result};
use crate::wire::record::Record;

use super::{
    keys_of_accounts, keys_of_drives, keys_of_events, keys_of_operators, keys_of_servers,
    keys_of_shared, keys_of_snapshots,
};

pub use super::form::Form;
pub use super::key::{Input, Key, Object, Shape, Standing, Takes, parse_size};

/// Every key of the public API, in the order of their patterns.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = [
        keys_of_accounts::ROWS,
        keys_of_drives::ROWS,
        keys_of_events::ROWS,
        keys_of_operators::ROWS,
        keys_of_servers::ROWS,
        keys_of_shared::ROWS,
        keys_of_snapshots::ROWS,
    ]
    .concat();
    keys.sort_by_key(|key| key.pattern);
    keys
});

/// The row of `name` for `object`.
#[must_use]
pub fn find(object: Object, name: &str) -> Option<&'static Key> {
    // No pattern begins with a wildcard, and they are sorted.
    let first = name.bytes().next();
    let begin = KEYS.partition_point(|key| key.pattern.bytes().next() < first);
    let mut alike = KEYS.iter().skip(begin).take_while(|key| key.pattern.bytes().next() == first);
    alike.find(|key| key.objects.contains(&object) && key.matches(name))
}

/// Whether the value of `name` opens something, whatever object it is of.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    KEYS.iter().any(|key| key.is_secret && key.matches(name))
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
/// its key does not take; and one that lacks or unsets a key which the object can't be without. A
/// size of nothing leaves it as it is.
///
/// # Errors
/// `UnknownKey`, `InvalidValue`, `NotOffered`, `MissingKey`, or `ServerBusy` for a key that waits for
/// a stop.
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
        let is_needed = key.needed_by.contains(&object) && key.takes != Takes::Size;
        if value.is_empty() && is_needed && moment != Moment::Create {
            return Err(refused(
                ErrorKind::MissingKey,
                "can't be unset: give it a value or leave it out",
            ));
        }
    }
    let needed =
        KEYS.iter().filter(|key| moment == Moment::Create && key.needed_by.contains(&object));
    for Key { pattern, .. } in needed {
        record.value(pattern).ok_or_else(|| missing(object, pattern))?;
    }
    Ok(())
}

/// That a record lacks a key which the object can't be made without.
#[must_use]
pub fn missing(object: Object, name: &'static str) -> Error {
    let unit = find(object, name).and_then(|key| key.unit);
    let unit = unit.map_or_else(String::new, |unit| format!(", in {unit}"));
    Error::new(ErrorKind::MissingKey, format!("{name} is missing: give it{unit}")).field(name)
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
        for key in KEYS.iter() {
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
        use ErrorKind::{InvalidValue, MissingKey, NotOffered, ServerBusy, UnknownKey};
        use Moment::{Create, SetRunning, SetStopped};
        use Object::{Account, Drive, Server};
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
            (Drive, Create, "erase", "secure", NotOffered),
            (Drive, SetStopped, "erase", "overwrite", NotOffered),
            (Drive, SetStopped, "limit:requests", "99", InvalidValue),
            (Drive, Create, "limit:bytes", "fast", InvalidValue),
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
            (Server, Create, "type", "jail", InvalidValue),
            (Server, Create, "nic:0:dhcp", "192.0.2.256", InvalidValue),
            (Server, Create, "nic:1:vlan", "v", InvalidValue),
            (Server, Create, "nic:1:mac", "01:00:5e:00:00:01", InvalidValue),
            (Server, SetStopped, "mem", "", MissingKey),
            (Account, SetStopped, "name", "", MissingKey),
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
    fn a_secure_erase_is_refused_with_the_reason() {
        let drive = Record::new().with("size", 4 << 20);
        let ask =
            |word: &str| check(Object::Drive, Moment::Create, &drive.clone().with("erase", word));
        ask("unmap").unwrap();
        let refused = ask("secure").unwrap_err();
        for words in ["\"secure\" is not offered", "thin", "encrypt in the guest", "unmap"] {
            assert!(refused.public_message().contains(words), "{refused}");
        }
    }

    #[test]
    fn an_object_is_made_only_of_all_that_it_needs() {
        let server = Record::new().with("cpu", 500).with("mem", "");
        let refused = check(Object::Server, Moment::Create, &server).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::MissingKey);
        assert_eq!(refused.public_message(), "mem is missing: give it, in MiB");
        check(Object::Server, Moment::SetStopped, &Record::new().with("cpu", 500)).unwrap();
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
