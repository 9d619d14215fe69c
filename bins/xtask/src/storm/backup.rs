//! Backups of a control plane on SQLite that is at work and being killed, by the program's own
//! commands: each must be made, and the last is restored as an operator tries one, into a directory
//! of its own.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::database::Database;
use super::dice::Dice;
use super::mode::Role;
use super::platform::{Site, sibling};
use super::sight;
use super::wait::until;
use super::work::Stage;

const BACKUPS: &str = "backups";
const RESTORED: &str = "restored";

/// Makes backups until the storm is over.
pub(crate) async fn make(stage: Arc<Stage>, mut dice: Dice) -> Result<()> {
    let directory = stage.site.root.join(BACKUPS);
    fs::create_dir(&directory)?;
    for number in 0.. {
        stage.pause(dice.millis(1_000..6_000)).await;
        if stage.is_over() {
            return Ok(());
        }
        let file = directory.join(format!("{number:04}")).display().to_string();
        if let Err(error) = run(&stage.site, Role::Api.name(), ["backup", &file]).await? {
            bail!("a backup was refused: {error}");
        }
    }
    Ok(())
}

/// Restores the last backup and looks whether what was there before the storm is in it. Answers how
/// many there are.
pub(crate) async fn judge(stage: &Stage) -> Result<usize> {
    let site = &stage.site;
    let backups = sight::entries_of(&site.root.join(BACKUPS))?;
    let last = backups.last().context("no backup was made")?.display().to_string();
    let directory = site.root.join(RESTORED);
    fs::create_dir(&directory)?;
    let text = format!("state_dir = \"{}\"\n", directory.display());
    fs::write(site.config(RESTORED), text)?;
    until("a backup becomes a database", async || {
        match run(site, RESTORED, ["restore", &last]).await? {
            Ok(said) => {
                ensure!(said.starts_with("era "), "`restore` says {said:?}");
                Ok(None)
            }
            // It is younger than the leases in it.
            Err(error) if error.contains("did a moment ago") => Ok(Some(error)),
            Err(error) => bail!("{last} was refused: {error}"),
        }
    })
    .await?;
    let restored = Database::Sqlite(directory.join("api.db"));
    let era = |database: &Database| {
        let rows = database.ask("SELECT era FROM control")?;
        rows.first().and_then(|row| row.get("era")?.as_u64()).context("a database has no era")
    };
    let (new, old) = (era(&restored)?, era(&site.database)?);
    ensure!(new > old, "era {new} of a backup is not after {old}");
    let drives = restored.ask("SELECT drive FROM drives")?;
    let drives: Vec<_> =
        drives.iter().filter_map(|row| row.get("drive").and_then(Value::as_str)).collect();
    for trail in stage.cast.trails() {
        ensure!(drives.contains(&trail), "the backup has {drives:?}, not {trail}");
    }
    Ok(backups.len())
}

/// Runs a command of the control plane, under the configuration of this name; answers what it
/// printed, or why it failed.
async fn run(site: &Site, config: &str, words: [&str; 2]) -> Result<Result<String, String>> {
    let mut command = Command::new(sibling(Role::Api.binary())?);
    command.arg("--config").arg(site.config(config)).args(words);
    let output = spawn_blocking(move || command.output()).await?.context("run a command")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}
