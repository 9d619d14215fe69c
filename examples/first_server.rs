//! A first server, through the traits: make a drive, plug it in to a server, start it, watch it
//! and see it power itself off.
//!
//! Everything is simulated, so this needs no privileges and no machine:
//! `cargo run -p elasticstack-examples --bin first_server`. The same calls drive the real backends
//! of `elasticstack-host` and real guests.

use std::future::poll_fn;

use elasticstack_core::block::{BlockStore, DriveSpec};
use elasticstack_core::hypervisor::{
    Access, Device, DriveSlot, EndCause, Hypervisor, InvalidDevice, IoLimits, Media, Phase,
    ServerKind, ServerSpec, Signal,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimHypervisor, SimRng, SimStore, block_on};

fn main() -> Result<()> {
    let store = SimStore::new(1, &[Bytes::from_gib(100)]);
    let hypervisor = SimHypervisor::new(MebiBytes(4096));
    let ended = block_on(first_server(&store, &hypervisor, &mut SimRng::new(2)))?;
    println!("the server has ended: {ended:?}");
    Ok(())
}

/// The whole life of one server. What it returns is why the server ended.
async fn first_server(
    store: &dyn BlockStore,
    hypervisor: &dyn Hypervisor,
    rng: &mut SimRng,
) -> Result<EndCause> {
    // A drive is created on one of the host's arrays. Its size is a promise, not bytes written.
    let arrays = store.capacity().await?;
    let array = arrays.first().ok_or_else(|| Error::internal("this host has no array"))?;
    let drive = DriveSpec {
        drive: rng.id(),
        array: array.array,
        account: rng.id(),
        size: Bytes::from_gib(10),
        generation: Generation::new(Era(1), 1),
    };
    store.create(&drive).await?;

    // Whoever uses a drive opens it under an epoch; a later fence at a higher one cuts it off.
    let volume = store.open(drive.drive, Epoch(1)).await?;
    volume.write_at(Bytes::ZERO, bytes::Bytes::from_static(b"a boot sector")).await?;
    volume.flush().await?;

    // A server is its spec and a run number. Repeating `ensure` is always safe.
    let attachment = volume
        .attachment()
        .ok_or_else(|| Error::internal("this drive can't be reached without its store"))?;
    let first: Device = "ide:0:0".parse().map_err(|error: InvalidDevice| {
        Error::new(ErrorKind::InvalidValue, error.to_string()).field("boot")
    })?;
    let cpu = MegaHertz(2000);
    let server = ServerSpec {
        server: rng.id(),
        kind: ServerKind::Vm,
        cpu,
        vcpus: VcpuCount::for_cpu(cpu),
        memory: MebiBytes(1024),
        drives: vec![DriveSlot {
            device: first,
            media: Media::Disk,
            access: Access::Exclusive,
            attachment,
            limits: IoLimits::default(),
        }],
        boot: vec![first],
        nics: Vec::new(),
        screen: None,
        seed: None,
    };
    hypervisor.ensure(&server, Run(1)).await?;
    hypervisor.ensure(&server, Run(1)).await?;
    if let Some(console) = hypervisor.console() {
        print!("serial: {}", String::from_utf8_lossy(&console.serial(server.server).await?));
    }

    // The guest is asked to power itself off, which a real one takes its time for. An event says
    // only whose server changed; what it is now, `observe` tells.
    let mut events = hypervisor.events();
    hypervisor.signal(server.server, Signal::PowerButton).await?;
    let cause = loop {
        let seen = hypervisor.observe().await?;
        match seen.iter().find(|seen| seen.server == server.server).map(|seen| seen.phase) {
            Some(Phase::Ended(cause)) => break cause,
            _ => poll_fn(|context| events.as_mut().poll_next(context))
                .await
                .ok_or_else(|| Error::internal("the hypervisor has gone away"))?,
        };
    };

    // The ending stays visible until it is removed, and nothing starts that run again.
    hypervisor.remove(server.server).await?;
    store.destroy(drive.drive, drive.generation).await?;
    Ok(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_powers_itself_off_and_leaves_nothing() {
        let store = SimStore::new(1, &[Bytes::from_gib(100)]);
        let hypervisor = SimHypervisor::new(MebiBytes(4096));
        let ended = block_on(first_server(&store, &hypervisor, &mut SimRng::new(2))).unwrap();
        assert_eq!(ended, EndCause::Guest);
        assert_eq!(block_on(store.list()).unwrap(), []);
        assert_eq!(block_on(hypervisor.observe()).unwrap(), []);
    }
}
