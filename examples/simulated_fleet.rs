//! A fleet of simulated hosts behind one API server: drives and servers fill one host after the
//! other, one goes silent while its guests run on, and comes back.
//!
//! `cargo run -p elasticstack-examples --bin simulated_fleet`; it needs no privileges. Only the
//! hardware is simulated: agents, control plane and public API are the real ones.

mod control_plane;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use elasticstack_core::block::BlockStore as _;
use elasticstack_core::hypervisor::{EndCause, Hypervisor as _, Phase};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimHypervisor, SimRng, SimStore};
use elasticstack_core::wire::calls::Call;
use elasticstack_host::agent::{Agent, HostDescription};

use control_plane::{ControlPlane, until};

const HOSTS: u64 = 3;
const SERVERS: usize = 9;
/// Of one host: what three of the servers take.
const MEMORY: MebiBytes = MebiBytes(768);

/// The hardware of one host, and where its agent keeps its records: what outlives an agent.
struct Machine {
    host: HostId,
    name: String,
    store: SimStore,
    hypervisor: SimHypervisor,
    state_dir: PathBuf,
}

impl Machine {
    async fn boot_agent(&self) -> Result<Agent> {
        Agent::builder()
            .state_dir(self.state_dir.clone())
            .store(Arc::new(self.store.clone()))
            .hypervisor(Arc::new(self.hypervisor.clone()))
            .description(HostDescription {
                cpu_mhz: 8_000,
                memory_mib: MEMORY.0,
                accelerator: "simulated".to_owned(),
                cpu_limits: "none".to_owned(),
                containers: false,
            })
            .build()
            .await
    }

    /// The servers whose guests run here.
    async fn running(&self) -> Result<Vec<ServerId>> {
        let seen = self.hypervisor.observe().await?.into_iter();
        Ok(seen.filter(|seen| seen.phase == Phase::Running).map(|seen| seen.server).collect())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    simulated_fleet().await
}

async fn simulated_fleet() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut rng = SimRng::new(1);
    let cloud = ControlPlane::open(directory.path(), &mut rng).await?;
    let mut fleet = Vec::new();
    for number in 1..=HOSTS {
        let name = format!("host{number}");
        let machine = Machine {
            host: rng.id(),
            store: SimStore::new(number, &[Bytes::from_gib(50), Bytes::from_gib(50)]),
            hypervisor: SimHypervisor::new(MEMORY),
            state_dir: directory.path().join(&name),
            name,
        };
        let agent = machine.boot_agent().await?;
        cloud.join(machine.host, &machine.name, agent.router()).await?;
        fleet.push((machine, agent));
    }

    // A customer's drives and servers go wherever there is room.
    let (mut drives, mut servers) = (Vec::new(), Vec::new());
    for number in 0..SERVERS {
        let drive = cloud.create_drive(&format!("drive{number}"), Bytes::from_gib(10)).await?;
        servers.push(cloud.create_server(&format!("server{number}"), &drive).await?);
        drives.push(drive);
    }
    for server in &servers {
        until(async || Ok(cloud.status(server).await? == "active")).await?;
    }
    let mut most = (0, 0);
    for (at, (machine, _)) in fleet.iter().enumerate() {
        let guests = machine.running().await?.len();
        println!("{} runs {guests} guests", machine.name);
        most = most.max((guests, at));
    }

    // The agent of the fullest host dies. Its guests do not notice.
    let (away, agent) = fleet.swap_remove(most.1);
    let guests = away.running().await?;
    let [ends, asked, runs, ..] = &*guests else {
        anyhow::bail!("{SERVERS} servers on {HOSTS} hosts, and none has three: {guests:?}");
    };
    cloud.hosts.remove(away.host);
    cloud.hosts.cut();
    agent.close().await;
    drop(agent);
    println!("{} is silent, with {} guests", away.name, guests.len());

    // Meanwhile one guest there powers itself off: nobody knows. Another one is asked to stop: the
    // call can't tell that it did, but the wish is kept.
    away.hypervisor.becomes(*ends, Phase::Ended(EndCause::Guest))?;
    let stop = cloud.customer.act(Call::ServerStop, &[&asked.to_string()]).await;
    let refusal = stop.err().context("a server on a silent host was seen to stop")?;
    ensure!(refusal.kind() == ErrorKind::Unavailable, "{refusal:?}");
    println!("the stop of a server there answers: {refusal}");
    ensure!(
        cloud.status(&ends.to_string()).await? == "active",
        "what nobody reported is not known"
    );

    // The others carry on.
    let (other, _) = fleet.first().context("a fleet of one")?;
    let elsewhere = *other.running().await?.first().context("a host without guests")?;
    cloud.customer.act(Call::ServerStop, &[&elsewhere.to_string()]).await?;
    ensure!(cloud.status(&elsewhere.to_string()).await? == "stopped", "it did not stop");

    // A new agent finds its records, adopts what runs and learns what it missed, both ways.
    let untouched = away.hypervisor.traces(*runs);
    let agent = away.boot_agent().await?;
    cloud.hosts.insert(away.host, agent.router());
    for server in [ends, asked] {
        until(async || Ok(cloud.status(&server.to_string()).await? == "stopped")).await?;
    }
    ensure!(cloud.status(&runs.to_string()).await? == "active", "a guest was lost");
    ensure!(away.hypervisor.traces(*runs) == untouched, "a guest was started anew");
    println!("{} is back: what ended is known, what was asked is done, the rest ran on", away.name);
    fleet.push((away, agent));

    for server in &servers {
        cloud.customer.act(Call::ServerDestroy, &[server]).await?;
    }
    for drive in &drives {
        until(async || match cloud.customer.act(Call::DriveDestroy, &[drive]).await {
            Err(busy) if busy.kind() == ErrorKind::DriveInUse => Ok(false),
            answer => Ok(answer.map(|()| true)?),
        })
        .await?;
    }
    // What is destroyed is gone from the customer's view at once, and from its host soon after.
    for (machine, _) in &fleet {
        until(async || {
            let left = (machine.hypervisor.observe().await?, machine.store.list().await?);
            Ok(left.0.is_empty() && left.1.is_empty())
        })
        .await?;
    }
    cloud.server.close().await;
    for (_, agent) in &fleet {
        agent.close().await;
    }
    println!("nothing is left");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_went_silent_comes_back_with_its_guests() {
        simulated_fleet().await.unwrap();
    }
}
