//! Hypervisors with one defect each: a [`SimHypervisor`] seen through a wrapper that breaks a
//! clause.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use async_trait::async_trait;
use elasticstack_core::conformance::{GuestAct, HypervisorFixture, MachineView};
use elasticstack_core::hypervisor::{
    Console, Counters, Device, DriveSlot, EndCause, Hypervisor, IoCounts, Observed, Phase,
    ServerSpec, Signal,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimHypervisor;
use futures_core::Stream;
use futures_core::stream::BoxStream;

use crate::kits;
use crate::mutants::Mutant;

/// What is wrong with a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    ReturnsEarly,
    RepetitionReboots,
    EndedRunsStartAgain,
    NewRunsPushOutOldOnes,
    EndingsAreForgotten,
    PanicsLookLikePowerOffs,
    RemoveOnlyHides,
    RemoveFailsOnNothing,
    GuestsAreNotAdopted,
    SilentGuestsAreShot,
    OnlyTheFirstEvent,
    FailedStartsLinger,
    DrivesAreFixed,
    NothingIsUnplugged,
    TornOutOfTheGuestsHands,
    LogDiesWithTheRun,
    LogDiesWithTheProcess,
    UnpluggedDrivesAreCounted,
    CountsDieWithTheProcess,
}
use Defect::*;

pub(crate) const MUTANTS: &[Mutant<Defect>] = &[
    Mutant {
        defect: ReturnsEarly,
        breaks: "HV-1",
        fails: &["hv_1_ensure_returns_with_the_guest_running", "hv_7_every_change_has_an_event"],
    },
    Mutant {
        defect: RepetitionReboots,
        breaks: "HV-1",
        fails: &[
            "hv_1_repeating_ensure_starts_nothing",
            "hv_9_drives_come_and_go_while_the_guest_runs",
            "ct_2_counts_begin_at_zero_and_only_grow_over_a_crash_too",
        ],
    },
    Mutant { defect: EndedRunsStartAgain, breaks: "HV-2", fails: &["hv_2_an_ended_run_is_stale"] },
    Mutant {
        defect: NewRunsPushOutOldOnes,
        breaks: "HV-3",
        fails: &["hv_3_a_newer_run_waits_for_the_older_ones_removal"],
    },
    Mutant {
        defect: EndingsAreForgotten,
        breaks: "HV-4",
        fails: &[
            "hv_2_an_ended_run_is_stale",
            "hv_4_a_guests_own_ending_is_kept",
            "hv_4_an_ending_while_the_process_was_down_is_kept",
        ],
    },
    Mutant {
        defect: PanicsLookLikePowerOffs,
        breaks: "HV-4",
        fails: &["hv_4_a_panic_is_told_apart"],
    },
    Mutant {
        defect: RemoveOnlyHides,
        breaks: "HV-5",
        fails: &[
            "hv_3_a_newer_run_waits_for_the_older_ones_removal",
            "hv_5_remove_leaves_nothing_behind",
            "hv_7_every_change_has_an_event",
            "co_1_the_serial_log_outlives_process_and_run",
            "ct_1_what_is_plugged_in_is_counted_and_nothing_else",
        ],
    },
    Mutant {
        defect: RemoveFailsOnNothing,
        breaks: "HV-5",
        fails: &["hv_5_removing_nothing_succeeds"],
    },
    Mutant {
        defect: GuestsAreNotAdopted,
        breaks: "HV-6",
        fails: &[
            "hv_1_repeating_ensure_starts_nothing",
            "hv_2_an_ended_run_is_stale",
            "hv_4_a_guests_own_ending_is_kept",
            "hv_4_an_ending_while_the_process_was_down_is_kept",
            "hv_6_observe_tells_every_run",
            "co_1_the_serial_log_outlives_process_and_run",
        ],
    },
    Mutant {
        defect: SilentGuestsAreShot,
        breaks: "HV-6",
        fails: &["hv_6_a_silent_guest_is_left_alone"],
    },
    Mutant {
        defect: OnlyTheFirstEvent,
        breaks: "HV-7",
        fails: &["hv_7_every_change_has_an_event"],
    },
    Mutant {
        defect: FailedStartsLinger,
        breaks: "HV-8",
        fails: &["hv_8_a_failed_ensure_leaves_nothing_behind"],
    },
    Mutant {
        defect: DrivesAreFixed,
        breaks: "HV-9",
        fails: &[
            "hv_9_drives_come_and_go_while_the_guest_runs",
            "hv_9_a_drive_that_the_guest_holds_on_to_stays",
            "ct_1_what_is_plugged_in_is_counted_and_nothing_else",
            "ct_2_counts_begin_at_zero_and_only_grow_over_a_crash_too",
        ],
    },
    Mutant {
        defect: NothingIsUnplugged,
        breaks: "HV-9",
        fails: &[
            "hv_9_drives_come_and_go_while_the_guest_runs",
            "hv_9_a_drive_that_the_guest_holds_on_to_stays",
            "ct_1_what_is_plugged_in_is_counted_and_nothing_else",
        ],
    },
    Mutant {
        defect: TornOutOfTheGuestsHands,
        breaks: "HV-9",
        fails: &["hv_9_a_drive_that_the_guest_holds_on_to_stays"],
    },
    Mutant {
        defect: LogDiesWithTheRun,
        breaks: "CO-1",
        fails: &["co_1_the_serial_log_outlives_process_and_run"],
    },
    Mutant {
        defect: LogDiesWithTheProcess,
        breaks: "CO-1",
        fails: &["co_1_the_serial_log_outlives_process_and_run"],
    },
    Mutant {
        defect: UnpluggedDrivesAreCounted,
        breaks: "CT-1",
        fails: &["ct_1_what_is_plugged_in_is_counted_and_nothing_else"],
    },
    Mutant {
        defect: CountsDieWithTheProcess,
        breaks: "CT-2",
        fails: &["ct_2_counts_begin_at_zero_and_only_grow_over_a_crash_too"],
    },
];

/// The hypervisor and, being simulated, its fixture.
#[derive(Clone)]
pub(crate) struct MutantHypervisor {
    inner: SimHypervisor,
    defect: Defect,
    memory: Arc<Mutex<Memory>>,
}

/// What a defect needs to know of the past.
#[derive(Default)]
struct Memory {
    crashed: bool,
    /// Runs that were asked for and not begun.
    begun_later: Vec<(ServerSpec, Run)>,
    /// Servers that `observe` does not tell of.
    hidden: BTreeSet<ServerId>,
    /// The drives that a server was started with.
    first: BTreeMap<ServerId, Vec<DriveSlot>>,
    /// Every drive that was ever plugged in.
    seen: Vec<DriveSlot>,
}

impl MutantHypervisor {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { inner: kits::hypervisor(), defect, memory: Arc::default() }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    async fn phase(&self, server: ServerId) -> Result<Option<Phase>> {
        let found = self.inner.observe().await?.into_iter().find(|it| it.server == server);
        Ok(found.map(|observed| observed.phase))
    }
}

#[async_trait]
impl MachineView for MutantHypervisor {
    async fn traces(&self, server: ServerId) -> Result<Vec<String>> {
        MachineView::traces(&self.inner, server).await
    }

    async fn plugged(&self, server: ServerId) -> Result<Vec<Device>> {
        MachineView::plugged(&self.inner, server).await
    }
}

#[async_trait]
impl HypervisorFixture for MutantHypervisor {
    async fn start(&self) -> Result<Arc<dyn Hypervisor>> {
        for Observed { server, phase, .. } in self.inner.observe().await? {
            if self.has(EndingsAreForgotten) && matches!(phase, Phase::Ended(_)) {
                self.inner.remove(server).await?;
            }
            if self.has(GuestsAreNotAdopted) {
                self.memory().hidden.insert(server);
            }
        }
        Ok(Arc::new(self.clone()))
    }

    async fn crash(&self, _hypervisor: Arc<dyn Hypervisor>) -> Result<()> {
        self.inner.restart();
        self.memory().crashed = true;
        Ok(())
    }

    fn server(&self, number: u8) -> ServerSpec {
        self.inner.server(number)
    }

    fn broken(&self) -> ServerSpec {
        self.inner.broken()
    }

    fn spare(&self) -> Option<DriveSlot> {
        self.inner.spare()
    }

    fn greeting(&self) -> &str {
        self.inner.greeting()
    }

    async fn act(&self, server: ServerId, act: GuestAct) -> Result<()> {
        self.inner.act(server, act).await
    }
}

fn is<T>(answer: &Result<T>, kind: ErrorKind) -> bool {
    answer.as_ref().is_err_and(|error| error.kind() == kind)
}

#[async_trait]
impl Hypervisor for MutantHypervisor {
    async fn ensure(&self, spec: &ServerSpec, run: Run) -> Result<()> {
        let phase = self.phase(spec.server).await?;
        let mut spec = spec.clone();
        if phase == Some(Phase::Running) {
            let first = self.memory().first.get(&spec.server).cloned().unwrap_or_default();
            match self.defect {
                DrivesAreFixed => spec.drives = first,
                NothingIsUnplugged => {
                    let mut all = self.memory().seen.clone();
                    all.retain(|slot| !spec.drives.contains(slot));
                    spec.drives.extend(all);
                }
                _ => {}
            }
            self.memory().seen.extend(spec.drives.clone());
        } else {
            self.memory().first.insert(spec.server, spec.drives.clone());
        }
        let spec = &spec;
        if self.has(ReturnsEarly) && phase.is_none() && *spec != self.broken() {
            self.memory().begun_later.push((spec.clone(), run));
            return Ok(());
        }
        let mut answer = self.inner.ensure(spec, run).await;
        if self.has(TornOutOfTheGuestsHands) && is(&answer, ErrorKind::Unavailable) {
            answer = Ok(());
        }
        let again = match phase {
            Some(Phase::Ended(_)) if is(&answer, ErrorKind::Stale) => EndedRunsStartAgain,
            Some(_) if is(&answer, ErrorKind::ServerBusy) => NewRunsPushOutOldOnes,
            Some(Phase::Running) if answer.is_ok() => RepetitionReboots,
            _ if self.has(FailedStartsLinger) && answer.is_err() => {
                let spec = ServerSpec { memory: MebiBytes(16), ..spec.clone() };
                self.inner.ensure(&spec, run).await?;
                return answer;
            }
            _ => return answer,
        };
        if self.has(again) {
            self.inner.remove(spec.server).await?;
            return self.inner.ensure(spec, run).await;
        }
        answer
    }

    async fn signal(&self, server: ServerId, signal: Signal) -> Result<()> {
        self.inner.signal(server, signal).await
    }

    async fn remove(&self, server: ServerId) -> Result<()> {
        if self.has(RemoveOnlyHides) {
            self.memory().hidden.insert(server);
            return Ok(());
        }
        if self.has(RemoveFailsOnNothing) && self.phase(server).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, "nothing to remove"));
        }
        self.inner.remove(server).await
    }

    async fn observe(&self) -> Result<Vec<Observed>> {
        let mut seen = self.inner.observe().await?;
        let begun_later = std::mem::take(&mut self.memory().begun_later);
        for (spec, run) in begun_later {
            self.inner.ensure(&spec, run).await?;
        }
        seen.retain(|observed| !self.memory().hidden.contains(&observed.server));
        for Observed { server, phase, .. } in &mut seen {
            if self.has(SilentGuestsAreShot) && *phase == Phase::Unresponsive {
                self.inner.remove(*server).await?;
            }
            if self.has(PanicsLookLikePowerOffs) && *phase == Phase::Ended(EndCause::Panicked) {
                *phase = Phase::Ended(EndCause::Guest);
            }
        }
        Ok(seen)
    }

    fn events(&self) -> BoxStream<'static, ServerId> {
        if self.has(OnlyTheFirstEvent) {
            return Box::pin(First { inner: self.inner.events(), told: false });
        }
        self.inner.events()
    }

    fn console(&self) -> Option<&dyn Console> {
        Some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        Some(self)
    }
}

#[async_trait]
impl Console for MutantHypervisor {
    async fn serial(&self, server: ServerId) -> Result<Vec<u8>> {
        let ended = matches!(self.phase(server).await?, Some(Phase::Ended(_)));
        if ended && self.has(LogDiesWithTheRun) {
            return Err(Error::new(ErrorKind::NotFound, "the run is over"));
        }
        if self.memory().crashed && self.has(LogDiesWithTheProcess) {
            return Ok(Vec::new());
        }
        self.inner.serial(server).await
    }

    async fn screen(&self, server: ServerId) -> Result<Option<SocketAddr>> {
        self.inner.screen(server).await
    }
}

#[async_trait]
impl Counters for MutantHypervisor {
    async fn counts(&self, server: ServerId) -> Result<BTreeMap<Device, IoCounts>> {
        let counters = self.inner.counters().unwrap();
        let mut counts = counters.counts(server).await?;
        if self.has(UnpluggedDrivesAreCounted) {
            for slot in &self.memory().seen {
                counts.entry(slot.device).or_default();
            }
        }
        if self.memory().crashed && self.has(CountsDieWithTheProcess) {
            counts.values_mut().for_each(|counts| *counts = IoCounts::default());
        }
        Ok(counts)
    }
}

/// A stream that falls silent after its first item.
struct First {
    inner: BoxStream<'static, ServerId>,
    told: bool,
}

impl Stream for First {
    type Item = ServerId;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ServerId>> {
        if self.told {
            return Poll::Pending;
        }
        let next = self.inner.as_mut().poll_next(context);
        self.told = next.is_ready();
        next
    }
}
