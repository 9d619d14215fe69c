//! Setting up the separate programs as an operator does: `elasticstack-api init`, `elasticstack
//! host add` and `elasticstack-agent join`, while every process's arguments are watched: no secret
//! ever stands in one.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::customer::Customer;
use super::database::Database;
use super::mode::Role;
use super::platform::{Platform, sibling};
use super::sight::CommandLines;
use super::wait::until;
use crate::process;

/// What drives may sum up to, in bytes; the storm's are sparse.
const CAPACITY: u64 = 64 << 30;

/// Starts the programs and joins the host. Answers the operator, who is the storm's customer.
pub(crate) async fn enrol(platform: &mut Platform, agent: SocketAddr) -> Result<Arc<Customer>> {
    let site = platform.site.clone();
    let config = |role: Role| site.config(role.name());
    let root = site.root.display();
    let database = match &site.database {
        Database::Sqlite(_) => String::new(),
        Database::Postgres(socket) => format!("database = \"{}\"\n", socket.url()),
    };
    for (role, address) in &site.doors {
        let name = role.name();
        let text = format!("state_dir = \"{root}/{name}\"\nlisten = \"{address}\"\n{database}");
        fs::write(config(*role), text)?;
    }
    fs::write(
        config(Role::Agent),
        format!(
            "state_dir = \"{root}/agent\"\nlisten = \"{agent}\"\n\n[[array]]\nname = \"storm\"\n\
             path = \"{root}/array\"\ncapacity_bytes = {CAPACITY}\n"
        ),
    )?;
    let run = |role: Role| vec!["--config".into(), config(role).into(), "run".into()];

    let mut init = Command::new(sibling(Role::Api.binary())?);
    let text = process::capture(init.arg("--config").arg(config(Role::Api)).arg("init"))?;
    let auth = text
        .lines()
        .find_map(|line| line.strip_prefix("EHAUTH="))
        .context("`elasticstack-api init` printed no EHAUTH")?;
    for (role, _) in &site.doors {
        if *role != Role::Api {
            share_authority(&site.root.join(Role::Api.name()), &site.root.join(role.name()))?;
        }
        platform.launch(*role, run(*role))?;
    }
    let customer = site.customer(auth)?;
    customer.until_served().await?;

    let watch = CommandLines::watch();
    let mut add = Command::new(sibling("elasticstack")?);
    add.args(["host", "add", "storm", &agent.to_string()]);
    add.env("EHURI", format!("http://{}/", site.api()?)).env("EHAUTH", auth);
    let text = process::capture(&mut add)?;
    let bundle = here_document(&text).context("`elasticstack host add` printed no bundle")?;
    let mut join = Command::new(sibling(Role::Agent.binary())?);
    let mut join = join
        .arg("--config")
        .arg(config(Role::Agent))
        .arg("join")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("start `elasticstack-agent join`")?;
    let mut input = join.stdin.take().context("`elasticstack-agent join` has no input")?;
    // Half of the bundle first, so that it is surely looked at while it has read some of it.
    let (first, second) = bundle.split_at(bundle.len() / 2);
    input.write_all(first.as_bytes())?;
    let line = format!("/proc/{}/cmdline", join.id());
    until("the agent's own arguments are seen", async || {
        let seen = fs::read(&line).is_ok_and(|line| line.ends_with(b"\0join\0"));
        Ok((!seen).then(|| "the agent has not begun to join".to_owned()))
    })
    .await?;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    input.write_all(second.as_bytes())?;
    drop(input);
    let status = join.wait()?;
    let seen = watch.finish()?;
    ensure!(status.success(), "`elasticstack-agent join` ended with {status}");
    ensure!(
        seen.iter().any(|line| line.trim_end().ends_with(" join")),
        "the watcher of command lines did not see the agent join"
    );
    let leaks = leaks(&seen, auth, &bundle);
    ensure!(leaks.is_empty(), "a secret stood in an argument: {leaks:?}");
    platform.launch(Role::Agent, run(Role::Agent))?;
    Ok(customer)
}

/// Gives a further control plane what it needs of the first, whose `init` made it.
fn share_authority(first: &Path, further: &Path) -> Result<()> {
    fs::create_dir(further)?;
    for file in ["authority.key", "authority.pem"] {
        fs::copy(first.join(file), further.join(file)).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

/// The text that a shell would feed to the command.
fn here_document(text: &str) -> Option<String> {
    let (first, rest) = text.split_once('\n')?;
    let word = first.split_once("<<")?.1.trim().trim_matches(['\'', '"']);
    let lines: Vec<&str> = rest.lines().take_while(|line| *line != word).collect();
    (lines.len() < rest.lines().count() && !lines.is_empty()).then(|| lines.join("\n") + "\n")
}

/// The command lines in which the account's key or a line of the bundle stands.
fn leaks<'a>(seen: &'a BTreeSet<String>, auth: &str, bundle: &str) -> Vec<&'a String> {
    let key = auth.split_once(':').map_or(auth, |(_, key)| key);
    let lines = bundle.lines().filter(|line| line.len() >= 24 && !line.starts_with("---"));
    let secrets: Vec<&str> = lines.chain([key]).collect();
    seen.iter().filter(|line| secrets.iter().any(|secret| line.contains(secret))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_what_the_shell_would_feed() {
        let text = "elasticstack-agent join <<'END'\n---BEGIN\nabc\nEND\n";
        assert_eq!(here_document(text).as_deref(), Some("---BEGIN\nabc\n"));
        assert_eq!(here_document("elasticstack-agent join <<'END'\nabc\n"), None, "unfinished");
        assert_eq!(here_document("nothing"), None);
    }

    #[test]
    fn a_secret_in_an_argument_is_found() {
        let line = "MC4CAQAwBQYDK2VwBCIEIAbcdefgh";
        let bundle = format!("-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----\n");
        let clean = BTreeSet::from(["agent join".to_owned()]);
        assert!(leaks(&clean, "id:k3y", &bundle).is_empty());
        for argument in [format!("join {line}"), "add id:k3y".to_owned()] {
            let seen = BTreeSet::from([argument]);
            assert_eq!(leaks(&seen, "id:k3y", &bundle).len(), 1);
        }
    }
}
