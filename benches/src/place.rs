//! `bench place`: what it costs to decide where drives and servers go: the decision alone, and the
//! calls that take one, from end to end.

mod pure;
mod whole;

use anyhow::Result;

use crate::table::Table;

/// How much of it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The decision alone, without an API server
    #[arg(long)]
    pure: bool,
}

/// Measures, prints, and fails if a goal is missed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut rows = pure::rows()?;
    if !args.pure {
        rows.extend(whole::rows().await?);
    }
    Table(rows).judge()
}
