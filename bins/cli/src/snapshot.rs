//! `elasticstack snapshot …`.

use clap::{Args, Subcommand};
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::id::{DriveId, SnapshotId};
use elasticstack_core::name::Name;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;

use crate::ask::Ask;
use crate::command::about;
use crate::failure::Result;
use crate::screen::Screen;
use crate::settings::{self, Setting};

const COLUMNS: &[&str] = &["snapshot", "name", "status", "size", "drive", "created"];

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List your snapshots
    List,
    #[command(about = about(Call::SnapshotInfo))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Info { snapshot: SnapshotId },
    #[command(about = about(Call::DriveSnapshot))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Create {
        drive: DriveId,
        #[command(flatten)]
        options: Options,
    },
    #[command(about = about(Call::SnapshotSet))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Set {
        snapshot: SnapshotId,
        #[command(flatten)]
        options: Options,
    },
    #[command(about = about(Call::SnapshotRestore))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Restore { snapshot: SnapshotId },
    #[command(about = about(Call::SnapshotDestroy))]
    #[expect(missing_docs, reason = "the API's table says it")]
    Destroy { snapshot: SnapshotId },
}

/// What is noted on a snapshot.
#[derive(Debug, Args)]
pub struct Options {
    /// What to call it
    #[arg(long)]
    name: Option<Name>,
    /// Any other key; `elasticstack keys snapshot` lists them
    #[arg(value_name = "KEY=VALUE", value_parser = settings::parse)]
    settings: Vec<Setting>,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What the API says, or `Output`.
    pub async fn run<T: Transport>(
        self,
        client: &Client<T>,
        screen: &mut Screen<'_>,
    ) -> Result<()> {
        let ask = Ask { object: Object::Snapshot, client, screen };
        match self {
            Self::List => ask.many(Call::SnapshotsInfo, COLUMNS).await,
            Self::Info { snapshot } => {
                ask.one(Call::SnapshotInfo, &[&snapshot.to_string()], &Record::new()).await
            }
            Self::Create { drive, options } => {
                let record = options.into_record();
                ask.one(Call::DriveSnapshot, &[&drive.to_string()], &record).await
            }
            Self::Set { snapshot, options } => {
                let change = options.into_record();
                ask.one(Call::SnapshotSet, &[&snapshot.to_string()], &change).await
            }
            Self::Restore { snapshot } => {
                ask.one(Call::SnapshotRestore, &[&snapshot.to_string()], &Record::new()).await
            }
            Self::Destroy { snapshot } => {
                let snapshot = ("snapshot", &*snapshot.to_string());
                ask.act(Call::SnapshotDestroy, snapshot, "destroyed").await
            }
        }
    }
}

impl Options {
    fn into_record(self) -> Record {
        let mut record = Record::new();
        if let Some(name) = self.name {
            record.set("name", name);
        }
        settings::apply(&mut record, self.settings);
        record
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use elasticstack_core::wire::keys::{self, Moment};

    use super::*;
    use crate::command::{Cli, Command as Any};

    #[test]
    fn every_option_is_a_key_that_the_api_takes() {
        let drive = "5b0e3c52-0000-4000-8000-00000000d001";
        let line = format!("elasticstack snapshot create {drive} --name before tags=daily");
        let Ok(Cli { command: Any::Snapshot(Command::Create { options, .. }), .. }) =
            Cli::try_parse_from(line.split(' '))
        else {
            panic!("not read")
        };
        let record = options.into_record();
        keys::check(Object::Snapshot, Moment::Create, &record).unwrap();
        assert_eq!(record.to_text(), "name before\ntags daily\n");
        for column in COLUMNS {
            assert!(keys::find(Object::Snapshot, column).is_some(), "{column}");
        }
    }
}
