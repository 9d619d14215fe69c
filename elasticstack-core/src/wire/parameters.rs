//! The one table of the parameters that stand in the paths of calls. To add one, add its row; the
//! documentation and the tests of authorization read it.

use super::keys::Object;

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// An object, by its UUID.
    Object(Object),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number from 1 to 4294967295.
    Amount,
    /// A number of bytes, with an optional suffix k, M, G or T.
    Size,
}

/// One row of [`PARAMETERS`].
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// The segment of a path, in capitals.
    pub name: &'static str,
    /// What it names.
    pub names: Names,
    /// One sentence for the documentation.
    pub doc: &'static str,
}

const fn object(name: &'static str, object: Object, doc: &'static str) -> Parameter {
    Parameter { name, names: Names::Object(object), doc }
}

const fn size(name: &'static str, doc: &'static str) -> Parameter {
    Parameter { name, names: Names::Size, doc }
}

/// Every parameter.
pub const PARAMETERS: &[Parameter] = &[
    object("ACCOUNT", Object::Account, "The account's UUID."),
    object("ARRAY", Object::Array, "The array's UUID."),
    Parameter { name: "CPU", names: Names::Amount, doc: "Processor time in MHz." },
    object("DRIVE", Object::Drive, "The drive's UUID."),
    object("HOST", Object::Host, "The host's UUID."),
    Parameter { name: "MEM", names: Names::Amount, doc: "Memory in MiB." },
    size("OFFSET", "The first byte, counted from 0."),
    object("POOL", Object::Pool, "The pool's UUID."),
    object("RESOURCE", Object::Resource, "The address, or the VLAN's UUID."),
    object("SERVER", Object::Server, "The server's UUID."),
    size("SIZE", "How many bytes."),
    object("SNAPSHOT", Object::Snapshot, "The snapshot's UUID."),
    object("SOURCE", Object::Drive, "The UUID of the drive to copy from."),
    object("STRAY", Object::Stray, "The stray's UUID."),
    object("TOKEN", Object::Token, "The token's UUID."),
    Parameter { name: "TYPE", names: Names::OneOf(&["ip", "vlan"]), doc: "ip or vlan." },
];

/// The row of `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::calls::CALLS;

    #[test]
    fn every_parameter_is_sorted_documented_and_used() {
        for pair in PARAMETERS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} is out of order", pair[1].name);
        }
        for parameter in PARAMETERS {
            assert!(parameter.doc.ends_with('.'), "{}", parameter.name);
            let used = |path: &str| path.split('/').any(|segment| segment == parameter.name);
            assert!(CALLS.iter().any(|route| used(route.path)), "{}", parameter.name);
        }
    }
}
