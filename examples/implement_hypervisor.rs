//! A hypervisor of your own in some hundred lines, tested by the conformance kit.
//!
//! Its guests are entries on a board that stands for the machine: they outlive this process as
//! real guests do. Copy it, replace the board by whatever runs your guests, and run the kit until
//! it passes: `cargo test -p elasticstack-examples --bin implement_hypervisor`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use elasticstack_core::hypervisor::{
    EndCause, Hypervisor, Observed, Phase, ServerKind, ServerSpec, Signal,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimRng, block_on};
use futures_core::Stream;
use futures_core::stream::BoxStream;

/// The machine. A real one has processes here.
#[derive(Default)]
struct Board {
    guests: BTreeMap<ServerId, Guest>,
    started: u64,
    /// Every change so far, for [`Changes`] to read.
    changes: Vec<ServerId>,
    waiting: Vec<Waker>,
}

struct Guest {
    run: Run,
    phase: Phase,
}

impl Board {
    fn changed(&mut self, server: ServerId) {
        self.changes.push(server);
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// What a guest does of itself.
    fn becomes(&mut self, server: ServerId, phase: Phase) -> Result<()> {
        match self.guests.get_mut(&server) {
            Some(guest) if !matches!(guest.phase, Phase::Ended(_)) => guest.phase = phase,
            _ => return refuse(ErrorKind::NotFound, format!("{server} does not run: start it")),
        }
        self.changed(server);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct BoardHypervisor(Arc<Mutex<Board>>);

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse<T>(kind: ErrorKind, sentence: String) -> Result<T> {
    Err(Error::new(kind, sentence))
}

#[async_trait]
impl Hypervisor for BoardHypervisor {
    async fn ensure(&self, spec: &ServerSpec, run: Run) -> Result<()> {
        let mut board = lock(&self.0);
        let server = spec.server;
        match board.guests.get(&server) {
            Some(guest) if run > guest.run => {
                return refuse(ErrorKind::ServerBusy, format!("remove run {} first", guest.run));
            }
            Some(guest) if run < guest.run || matches!(guest.phase, Phase::Ended(_)) => {
                return refuse(ErrorKind::Stale, format!("run {run} of {server} is over"));
            }
            Some(_) => return Ok(()),
            None if spec.memory > MebiBytes(1024) => {
                let sentence = format!("{} asked for, 1024 MiB is the limit", spec.memory);
                return refuse(ErrorKind::JobFailed, sentence);
            }
            None => {}
        }
        board.started += 1;
        board.guests.insert(server, Guest { run, phase: Phase::Running });
        board.changed(server);
        Ok(())
    }

    async fn signal(&self, server: ServerId, signal: Signal) -> Result<()> {
        let phase = match signal {
            Signal::PowerButton => Phase::Ended(EndCause::Guest),
            Signal::Reset => Phase::Running,
        };
        lock(&self.0).becomes(server, phase)
    }

    async fn remove(&self, server: ServerId) -> Result<()> {
        let mut board = lock(&self.0);
        board.guests.remove(&server);
        board.changed(server);
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Observed>> {
        let board = lock(&self.0);
        let seen = |(server, guest): (&ServerId, &Guest)| Observed {
            server: *server,
            run: guest.run,
            phase: guest.phase,
        };
        Ok(board.guests.iter().map(seen).collect())
    }

    fn events(&self) -> BoxStream<'static, ServerId> {
        Box::pin(Changes { board: Arc::clone(&self.0), read: lock(&self.0).changes.len() })
    }
}

/// The changes from `read` on.
struct Changes {
    board: Arc<Mutex<Board>>,
    read: usize,
}

impl Stream for Changes {
    type Item = ServerId;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ServerId>> {
        let mut board = lock(&self.board);
        let Some(server) = board.changes.get(self.read).copied() else {
            board.waiting.push(context.waker().clone());
            return Poll::Pending;
        };
        drop(board);
        self.read += 1;
        Poll::Ready(Some(server))
    }
}

fn server(number: u8, memory: MebiBytes) -> ServerSpec {
    ServerSpec {
        server: SimRng::new(number.into()).id(),
        kind: ServerKind::Vm,
        cpu: MegaHertz(500),
        vcpus: VcpuCount::for_cpu(MegaHertz(500)),
        memory,
        drives: Vec::new(),
        boot: Vec::new(),
        nics: Vec::new(),
        screen: None,
        seed: None,
    }
}

fn main() -> Result<()> {
    let hypervisor = BoardHypervisor::default();
    let spec = server(1, MebiBytes(512));
    block_on(hypervisor.ensure(&spec, Run(1)))?;
    block_on(hypervisor.signal(spec.server, Signal::PowerButton))?;
    let started = lock(&hypervisor.0).started;
    println!("of {started} started: {:?}", block_on(hypervisor.observe())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use elasticstack_core::conformance::{GuestAct, HypervisorFixture, MachineView};

    use super::*;

    #[async_trait]
    impl MachineView for BoardHypervisor {
        async fn traces(&self, server: ServerId) -> Result<Vec<String>> {
            let board = lock(&self.0);
            let trace = || format!("a guest, after {} starts", board.started);
            Ok(board.guests.contains_key(&server).then(trace).into_iter().collect())
        }
    }

    #[async_trait]
    impl HypervisorFixture for BoardHypervisor {
        async fn start(&self) -> Result<Arc<dyn Hypervisor>> {
            Ok(Arc::new(self.clone()))
        }

        async fn crash(&self, hypervisor: Arc<dyn Hypervisor>) -> Result<()> {
            drop(hypervisor);
            Ok(())
        }

        fn server(&self, number: u8) -> ServerSpec {
            server(number, MebiBytes(64))
        }

        fn broken(&self) -> ServerSpec {
            server(9, MebiBytes(2048))
        }

        // Without a console nobody asks for it.
        fn greeting(&self) -> &str {
            ""
        }

        async fn act(&self, server: ServerId, act: GuestAct) -> Result<()> {
            let phase = match act {
                GuestAct::PowerOff => Phase::Ended(EndCause::Guest),
                GuestAct::Panic => Phase::Ended(EndCause::Panicked),
                GuestAct::Hang => Phase::Unresponsive,
                // Its drives neither come nor go, and are not counted.
                GuestAct::HoldOn | GuestAct::Read => return Ok(()),
            };
            lock(&self.0).becomes(server, phase)
        }
    }

    elasticstack_core::hypervisor_conformance! { board, BoardHypervisor::default }
}
