//! The fixtures of the simulated backends, which are their own power switch.

use std::sync::Arc;

use async_trait::async_trait;

use super::{BlockStoreFixture, GuestAct, HypervisorFixture, MachineView};
use crate::block::{Attachment, BlockStore};
use crate::error::Result;
use crate::hypervisor::{
    Access, Device, DriveSlot, EndCause, Hypervisor, IoCounts, IoLimits, Media, Phase, ServerKind,
    ServerSpec,
};
use crate::id::ServerId;
use crate::sim::{SimHypervisor, SimRng, SimStore};
use crate::units::{MebiBytes, MegaHertz, VcpuCount};

#[async_trait]
impl BlockStoreFixture for SimStore {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        Ok(Arc::new(self.clone()))
    }

    async fn crash(&self, _store: Arc<dyn BlockStore>) -> Result<()> {
        Self::crash(self);
        Ok(())
    }
}

#[async_trait]
impl MachineView for SimHypervisor {
    async fn traces(&self, server: ServerId) -> Result<Vec<String>> {
        Ok(Self::traces(self, server))
    }

    async fn plugged(&self, server: ServerId) -> Result<Vec<Device>> {
        Ok(Self::plugged(self, server).iter().map(|slot| slot.device).collect())
    }
}

#[async_trait]
impl HypervisorFixture for SimHypervisor {
    async fn start(&self) -> Result<Arc<dyn Hypervisor>> {
        Ok(Arc::new(self.clone()))
    }

    async fn crash(&self, _hypervisor: Arc<dyn Hypervisor>) -> Result<()> {
        self.restart();
        Ok(())
    }

    fn server(&self, number: u8) -> ServerSpec {
        ServerSpec {
            server: SimRng::new(u64::from(number)).id(),
            kind: ServerKind::Vm,
            cpu: MegaHertz(500),
            vcpus: VcpuCount::for_cpu(MegaHertz(500)),
            memory: MebiBytes(16),
            drives: slot("ide:0:0", &format!("/sim/{number}")).into_iter().collect(),
            boot: Vec::new(),
            nics: Vec::new(),
            screen: None,
            seed: None,
        }
    }

    /// One that needs more memory than any host has.
    fn broken(&self) -> ServerSpec {
        ServerSpec { memory: MebiBytes(u32::MAX), ..self.server(u8::MAX) }
    }

    fn spare(&self) -> Option<DriveSlot> {
        slot("block:7", "/sim/spare")
    }

    fn greeting(&self) -> &str {
        Self::GREETING
    }

    async fn act(&self, server: ServerId, act: GuestAct) -> Result<()> {
        let phase = match act {
            GuestAct::PowerOff => Phase::Ended(EndCause::Guest),
            GuestAct::Panic => Phase::Ended(EndCause::Panicked),
            GuestAct::Hang => Phase::Unresponsive,
            GuestAct::HoldOn => return self.holds_on(server),
            GuestAct::Read => {
                let sector = IoCounts { read_bytes: 512, read_requests: 1, ..IoCounts::default() };
                let mut first = Self::plugged(self, server).into_iter().take(1);
                return first.try_for_each(|slot| self.transfers(server, slot.device, sector));
            }
        };
        self.becomes(server, phase)
    }
}

fn slot(device: &str, file: &str) -> Option<DriveSlot> {
    Some(DriveSlot {
        device: device.parse().ok()?,
        media: Media::Disk,
        access: Access::Exclusive,
        attachment: Attachment::File(file.into()),
        limits: IoLimits::default(),
    })
}
