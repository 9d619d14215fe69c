//! `elasticstack`: the public API on the command line.
//!
//! The address and the account come from the environment, as for the older scripts:
//! `EHURI=http://127.0.0.1:8440/` and `EHAUTH=UUID:KEY`. A key never stands in an argument.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

/// The public API on the command line. Set EHURI and EHAUTH first.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    object: Object,
}

#[derive(Debug, Subcommand)]
enum Object {
    /// Hosts, for operators.
    #[command(subcommand)]
    Host(Host),
}

#[derive(Debug, Subcommand)]
enum Host {
    /// Make a host known, and print the command that joins it.
    Add {
        /// What to call it.
        name: String,
        /// Where its agent listens, as ADDRESS:PORT.
        address: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Object::Host(Host::Add { name, address }) = Arguments::parse().object;
    let client = client()?;
    let record = Record::new().with("name", name).with("address", address);
    let host = client.one(Call::HostCreate, &[], &record).await?;
    let bundle = host.value("bundle").context("the answer has no certificate bundle")?;
    println!("elasticstack-agent join <<'END_OF_BUNDLE'\n{}\nEND_OF_BUNDLE", bundle.trim_end());
    Ok(())
}

fn client() -> anyhow::Result<Client<HyperTransport>> {
    let base = std::env::var("EHURI").context("EHURI is not set: give http://ADDRESS:PORT/")?;
    let auth = std::env::var("EHAUTH").context("EHAUTH is not set: give UUID:KEY")?;
    let (account, key) = auth.split_once(':').context("EHAUTH is not UUID:KEY")?;
    Ok(Client::new(HyperTransport::new(&base)?, account.parse()?, &Secret::new(key))?)
}
