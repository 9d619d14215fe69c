//! The grammar: `elasticstack OBJECT ACTION …`, one module an object. To add an object, add its
//! module and its variant here.

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::wire::calls::{self, Call};

use crate::failure::{EXIT_STATUS, Result};
use crate::screen::{Form, Screen};
use crate::{drive, events, host, keys, profile, server, snapshot};

/// The command line of a cloud's public API.
#[derive(Debug, Parser)]
#[command(name = "elasticstack", version, after_help = EXIT_STATUS, arg_required_else_help = true)]
pub struct Cli {
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The form of results that was asked for.
    #[must_use]
    pub fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::People }
    }
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Servers: create, start, stop, change, destroy, read the serial log
    #[command(subcommand)]
    Server(server::Command),
    /// Drives: create, image, upload, download, change, destroy
    #[command(subcommand)]
    Drive(drive::Command),
    /// Snapshots of drives: take, restore, note on, destroy
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Hosts, for operators: list, add, close to new things, revoke, have join again
    #[command(subcommand)]
    Host(host::Command),
    /// Show what happened to your servers, drives and the rest, or what happens
    Events(events::Events),
    /// Show your account
    Profile,
    /// List the keys that `create` and `set` take as KEY=VALUE
    Keys {
        /// What the keys are of
        #[arg(value_enum)]
        object: keys::Of,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Does what `command` says; `connect` is called only if that needs the API.
///
/// # Errors
/// A [`Failure`](crate::failure::Failure), which knows its exit status.
pub async fn run<T: Transport>(
    command: Command,
    connect: impl FnOnce() -> Result<Client<T>>,
    screen: &mut Screen<'_>,
) -> Result<()> {
    match command {
        Command::Server(command) => command.run(&connect()?, screen).await,
        Command::Drive(command) => command.run(&connect()?, screen).await,
        Command::Snapshot(command) => command.run(&connect()?, screen).await,
        Command::Host(command) => command.run(&connect()?, screen).await,
        Command::Events(events) => events.run(&connect()?, screen).await,
        Command::Profile => profile::run(&connect()?, screen).await,
        Command::Keys { object } => keys::run(object, screen),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "elasticstack", &mut script);
            screen.bytes(&script)
        }
    }
}

/// What the API's own table says of `call`, as help shows it.
pub(crate) fn about(call: Call) -> &'static str {
    calls::route(call).doc.trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }
}
