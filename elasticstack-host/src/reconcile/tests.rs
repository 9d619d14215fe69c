//! The decisions by table, and a model of a whole host around them: crashes lose all that is not
//! durable, guests end themselves, the host restarts, documents change at any time.

use elasticstack_core::clock::Timestamp;
use elasticstack_core::generation::{Epoch, Era, Generation};
use elasticstack_core::hypervisor::{Media, ServerKind};
use elasticstack_core::wire::internal::{Access, Hardware, IoLimits};
use proptest::prelude::*;

use super::*;

fn document(run: u64, powered: bool) -> ServerDocument {
    ServerDocument {
        server: "5b0e3c52-0000-4000-8000-0000000000a1".parse().unwrap(),
        generation: Generation::new(Era(1), 1),
        gone: false,
        run: Run(run),
        powered,
        reset: 0,
        shutdown: 0,
        hardware: Hardware {
            kind: ServerKind::Vm,
            cpu_mhz: 2000,
            vcpus: 1,
            memory_mib: 256,
            drives: Vec::new(),
            boot: Vec::new(),
            nics: Vec::new(),
            screen: None,
            seed: None,
        },
    }
}

/// A drive at `block:1`, claimed under this epoch.
fn claim(epoch: u64) -> ClaimedDrive {
    ClaimedDrive {
        drive: "5b0e3c52-0000-4000-8000-0000000000d1".parse().unwrap(),
        epoch: Epoch(epoch),
        access: Access::Exclusive,
        device: "block:1".parse().unwrap(),
        media: Media::Disk,
        lender: None,
        limits: IoLimits::default(),
    }
}

fn stamp(boot: &str) -> Stamp {
    Stamp { wall: Timestamp::from_micros(0), monotonic_us: 0, boot: boot.to_owned() }
}

fn begun(run: u64) -> Past {
    Past { run: Run(run), begun: Some(stamp("now")), ..Past::default() }
}

fn started(run: u64) -> Past {
    Past { started: Some(stamp("now")), ..begun(run) }
}

fn ended(run: u64) -> Past {
    let end = Ended { at: stamp("now"), cause: EndCause::Guest, fault: None };
    Past { ended: Some(end), ..started(run) }
}

fn seen(run: u64, phase: Phase) -> Option<Seen> {
    Some(Seen { run: Run(run), phase })
}

#[test]
fn every_decision_stands_in_this_table() {
    use Action::*;
    let alive = Phase::Running;
    let over = Phase::Ended(EndCause::Guest);
    let none = Past::default();
    let old = |past: Past| Past { begun: Some(stamp("before")), ..past };
    let gone = |run| ServerDocument { gone: true, ..document(run, true) };
    let reset = |n| ServerDocument { reset: n, ..document(1, true) };
    let claim = claim(1);
    let plugs = |run| {
        let mut document = document(run, true);
        document.hardware.drives = vec![claim.clone()];
        document
    };
    let holds =
        |past: Past| Past { claims: vec![claim.clone()], plugged: vec![claim.clone()], ..past };
    let both = ServerDocument { shutdown: 4, ..reset(2) };
    let table = [
        ("nothing was ever asked for", document(0, false), none.clone(), None, Nothing),
        ("a first start", document(1, true), none.clone(), None, Begin),
        ("a start that was taken back", document(1, false), none.clone(), None, Nothing),
        ("a tombstone for what never ran", gone(1), none.clone(), None, Nothing),
        ("a crash before the start", document(1, true), begun(1), None, Begin),
        (
            "stopped before the start",
            document(1, false),
            begun(1),
            None,
            RecordEnd(EndCause::Stopped),
        ),
        (
            "the host restarted before the start",
            document(1, true),
            old(begun(1)),
            None,
            RecordEnd(EndCause::Lost),
        ),
        ("a crash before the stamp", document(1, true), begun(1), seen(1, alive), RecordStart),
        ("it runs", document(1, true), started(1), seen(1, alive), Nothing),
        (
            "it does not answer",
            document(1, true),
            started(1),
            seen(1, Phase::Unresponsive),
            Nothing,
        ),
        ("a drive is to come", plugs(1), started(1), seen(1, alive), Replug),
        ("a drive is to go", document(1, true), holds(started(1)), seen(1, alive), Replug),
        (
            "it has the drives that it is to have",
            plugs(1),
            holds(started(1)),
            seen(1, alive),
            Nothing,
        ),
        ("a drive is for a later run", plugs(2), started(1), seen(1, alive), Remove),
        ("it can't take a drive now", plugs(1), started(1), seen(1, Phase::Paused), Nothing),
        ("its process is gone", document(1, true), started(1), None, RecordEnd(EndCause::Lost)),
        (
            "the host restarted",
            document(1, false),
            old(started(1)),
            None,
            RecordEnd(EndCause::Lost),
        ),
        (
            "the guest powered itself off",
            document(1, true),
            started(1),
            seen(1, over),
            RecordEnd(EndCause::Guest),
        ),
        (
            "it did so before it was stopped",
            document(1, false),
            started(1),
            seen(1, over),
            RecordEnd(EndCause::Guest),
        ),
        ("recorded, not yet forgotten", document(1, true), ended(1), seen(1, over), Remove),
        ("what ended stays ended", document(1, true), ended(1), None, Nothing),
        ("a newer start", document(2, true), ended(1), None, Begin),
        ("stop", document(1, false), started(1), seen(1, alive), Remove),
        (
            "stopped and out of sight",
            document(1, false),
            started(1),
            None,
            RecordEnd(EndCause::Stopped),
        ),
        (
            "a newer start while the older runs",
            document(2, true),
            started(1),
            seen(1, alive),
            Remove,
        ),
        ("a tombstone while it runs", gone(1), started(1), seen(1, alive), Remove),
        ("an older run turns up", document(2, true), begun(2), seen(1, alive), Remove),
        ("a run nobody knows", document(1, true), none.clone(), seen(1, alive), Adopt(Run(1))),
        ("reset", reset(2), started(1), seen(1, alive), Reset(2)),
        ("reset is older than shutdown", both.clone(), started(1), seen(1, alive), Reset(2)),
        ("shutdown", both, Past { reset: 2, ..started(1) }, seen(1, alive), Shutdown(4)),
        ("a reset done once", reset(2), Past { reset: 2, ..started(1) }, seen(1, alive), Nothing),
        ("a reset too late", reset(2), ended(1), None, SkipSignals),
    ];
    for (name, document, past, seen, action) in table {
        assert_eq!(next(&document, &past, seen, "now"), action, "{name}");
    }
}

/// What happens in the model besides the driver's own steps.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Start,
    Stop,
    Reset,
    Shutdown,
    Destroy,
    GuestEnds(EndCause),
    ProcessVanishes,
    HostRestarts,
    /// The driver does so many micro-steps, then the agent is killed.
    WorkThenCrash(usize),
    /// The driver works until there is nothing to do.
    WorkToQuiet,
    NextEnsureFails,
    /// The document names this one drive, or none.
    Drives(Option<u64>),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Start),
        2 => Just(Happening::Stop),
        1 => Just(Happening::Reset),
        1 => Just(Happening::Shutdown),
        1 => Just(Happening::Destroy),
        2 => prop_oneof![Just(EndCause::Guest), Just(EndCause::Panicked)]
            .prop_map(Happening::GuestEnds),
        1 => Just(Happening::ProcessVanishes),
        1 => Just(Happening::HostRestarts),
        6 => (0_usize..5).prop_map(Happening::WorkThenCrash),
        3 => Just(Happening::WorkToQuiet),
        1 => Just(Happening::NextEnsureFails),
        2 => proptest::option::of(1_u64..3).prop_map(Happening::Drives),
    ]
}

/// A host with one server: what is durable, what exists, and what must never be forgotten.
struct Model {
    document: ServerDocument,
    past: Past,
    guest: Option<Seen>,
    /// What is plugged in to the guest.
    plugged: Vec<ClaimedDrive>,
    boots: u32,
    ensure_fails: bool,
    ever_started: Vec<Run>,
    ever_ended: Vec<Run>,
    ended_by_guest: Option<Run>,
}

impl Model {
    fn new() -> Self {
        Self {
            document: document(0, false),
            past: Past::default(),
            guest: None,
            plugged: Vec::new(),
            boots: 0,
            ensure_fails: false,
            ever_started: Vec::new(),
            ever_ended: Vec::new(),
            ended_by_guest: None,
        }
    }

    fn boot(&self) -> String {
        self.boots.to_string()
    }

    /// Does the next action as the driver does, `budget` micro-steps at most, each of which is
    /// durable or visible outside; returns false when there is nothing to do.
    fn work(&mut self, budget: &mut usize) -> bool {
        let mut step = || {
            let left = *budget > 0;
            *budget = budget.saturating_sub(1);
            left
        };
        let stamp = stamp(&self.boots.to_string());
        match next(&self.document, &self.past, self.guest, &self.boot()) {
            Action::Nothing => return false,
            Action::Begin => {
                let run = self.document.run;
                if self.past.run != run {
                    if !step() {
                        return true;
                    }
                    assert!(run > self.past.run && self.document.powered && !self.document.gone);
                    let (reset, shutdown) = (self.document.reset, self.document.shutdown);
                    let begun = Some(stamp.clone());
                    self.past = Past { run, begun, reset, shutdown, ..Past::default() };
                }
                self.past.claims.clone_from(&self.document.hardware.drives);
                if !step() {
                    return true;
                }
                assert!(self.guest.is_none(), "two runs at once");
                assert!(!self.ever_started.contains(&run), "run {run} started twice");
                if std::mem::take(&mut self.ensure_fails) {
                    let end = Ended { at: stamp, cause: EndCause::Lost, fault: None };
                    if step() {
                        self.past.ended = Some(end);
                    }
                    return true;
                }
                self.guest = Some(Seen { run, phase: Phase::Running });
                self.plugged.clone_from(&self.document.hardware.drives);
                self.ever_started.push(run);
                if step() {
                    self.past.started = Some(stamp);
                    self.past.plugged.clone_from(&self.past.claims);
                }
            }
            Action::Replug => {
                let wanted = self.document.hardware.drives.clone();
                let new = wanted.iter().filter(|claim| !self.past.claims.contains(claim));
                let new: Vec<_> = new.cloned().collect();
                if step() {
                    self.past.claims.extend(new);
                    if step() {
                        self.plugged.clone_from(&wanted);
                        if step() {
                            self.past.claims.clone_from(&wanted);
                            self.past.plugged = wanted;
                        }
                    }
                }
            }
            Action::Adopt(run) => panic!("run {run} is alive and unknown"),
            Action::RecordStart => {
                if step() {
                    self.past.started = Some(stamp);
                    self.past.plugged.clone_from(&self.past.claims);
                }
            }
            Action::RecordEnd(cause) => {
                if step() {
                    assert!(!self.ever_ended.contains(&self.past.run), "ended twice");
                    if self.ended_by_guest == Some(self.past.run) {
                        assert!(!matches!(cause, EndCause::Stopped | EndCause::Lost), "{cause:?}");
                    }
                    self.ever_ended.push(self.past.run);
                    self.past.ended = Some(Ended { at: stamp, cause, fault: None });
                }
            }
            Action::Remove => {
                if step() {
                    if let Some(Seen { run, phase: Phase::Ended(_) }) = self.guest {
                        assert!(self.ever_ended.contains(&run), "its end is forgotten");
                    }
                    self.guest = None;
                }
            }
            Action::Reset(n) => {
                if step() {
                    self.past.reset = n;
                }
            }
            Action::Shutdown(n) => {
                if step() {
                    self.past.shutdown = n;
                }
            }
            Action::SkipSignals => {
                if step() {
                    self.past.reset = self.document.reset;
                    self.past.shutdown = self.document.shutdown;
                }
            }
        }
        true
    }

    fn work_to_quiet(&mut self) {
        for _ in 0..20 {
            let mut unlimited = usize::MAX;
            if !self.work(&mut unlimited) {
                return;
            }
        }
        panic!("no end of work: {:?} {:?}", self.past, self.guest);
    }

    fn happen(&mut self, happening: Happening) {
        let alive =
            matches!(self.guest, Some(Seen { phase, .. }) if !matches!(phase, Phase::Ended(_)));
        match happening {
            Happening::Start => {
                if !self.document.gone {
                    self.document.run = self.document.run.next();
                    self.document.powered = true;
                }
            }
            Happening::Stop => self.document.powered = false,
            Happening::Reset => self.document.reset += 1,
            Happening::Shutdown => self.document.shutdown += 1,
            Happening::Destroy => self.document.gone = true,
            Happening::GuestEnds(cause) if alive => {
                let run = self.guest.unwrap().run;
                self.guest = Some(Seen { run, phase: Phase::Ended(cause) });
                self.ended_by_guest = Some(run);
            }
            Happening::ProcessVanishes if alive && self.past.started.is_some() => self.guest = None,
            Happening::GuestEnds(_) | Happening::ProcessVanishes => {}
            Happening::HostRestarts => {
                self.guest = None;
                self.boots += 1;
                self.ended_by_guest = None;
            }
            Happening::WorkThenCrash(mut budget) => while budget > 0 && self.work(&mut budget) {},
            Happening::WorkToQuiet => self.work_to_quiet(),
            Happening::NextEnsureFails => self.ensure_fails = true,
            Happening::Drives(epoch) => {
                self.document.hardware.drives = epoch.map(claim).into_iter().collect();
            }
        }
        let is_held = |drive| self.past.claims.contains(drive);
        assert!(self.guest.is_none() || self.plugged.iter().all(is_held), "plugged in unclaimed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_order_of_events_and_crashes_breaks_a_run(
        happenings in proptest::collection::vec(happening(), 0..40)
    ) {
        let mut model = Model::new();
        for happening in happenings {
            model.happen(happening);
        }
        model.ensure_fails = false;
        model.work_to_quiet();

        let Model { document, past, guest, plugged, .. } = &model;
        let wanted = document.powered && !document.gone;
        prop_assert!(wanted || guest.is_none(), "a stopped server runs");
        prop_assert!(wanted || !past.is_open(), "a stopped run has no end");
        prop_assert!(!wanted || past.run == document.run, "the newest run was not begun");
        prop_assert_eq!(guest.is_some(), past.is_open(), "what runs is open and only that");
        prop_assert_eq!((past.reset, past.shutdown), (document.reset, document.shutdown));
        if guest.is_some() {
            let drives = &document.hardware.drives;
            prop_assert_eq!((plugged, &past.claims), (drives, drives), "other drives than asked");
        }
    }
}
