//! `elasticstack keys OBJECT`: the keys that may be given as KEY=VALUE, from the API's own table.

use clap::ValueEnum;
use elasticstack_core::wire::keys::{Input, KEYS, Object, Standing};

use crate::failure::Result;
use crate::screen::Screen;
use crate::table::Table;

/// What has keys that a client sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Of {
    /// A drive's.
    Drive,
    /// A server's.
    Server,
    /// A snapshot's.
    Snapshot,
}

/// Lists the keys.
///
/// # Errors
/// `Output`.
pub fn run(of: Of, screen: &mut Screen<'_>) -> Result<()> {
    let object = match of {
        Of::Drive => Object::Drive,
        Of::Server => Object::Server,
        Of::Snapshot => Object::Snapshot,
    };
    let mut table = Table::with_headings(&["key", "given", "meaning"]);
    for key in KEYS.iter().filter(|key| key.objects.contains(&object)) {
        let given = match key.input {
            Input::Never => continue,
            Input::Create => "on create",
            Input::Stopped => "while stopped",
            Input::Always => "any time",
        };
        let standing = match key.standing {
            Standing::Honoured => "",
            Standing::Kept => " Kept, not honoured yet.",
            Standing::RefusedBut(_) if key.reason.is_some() => "",
            Standing::RefusedBut(_) => " Not offered yet.",
        };
        table.push([key.pattern.to_owned(), given.to_owned(), format!("{}{standing}", key.doc)]);
    }
    screen.table(&table)
}
