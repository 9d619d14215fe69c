//! The process around [`elasticstack_cli`]: arguments in, exit status out.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Parser as _;
use elasticstack_cli::account;
use elasticstack_cli::command::{Cli, run};
use elasticstack_cli::screen::{Progress, Screen, Sink};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Errors of the grammar are clap's to tell: it exits with 2, as for every usage error.
    let cli = Cli::parse();
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let sink = if out.is_terminal() { Sink::Terminal } else { Sink::Bytes };
    let progress = if err.is_terminal() { Progress::Live } else { Progress::Lines };
    let mut screen = Screen::new((&mut out, sink), (&mut err, progress), cli.form());
    match run(cli.command, account::connect, &mut screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.failed(&failure);
            failure.exit_code()
        }
    }
}
