//! Schedulers with one defect each: the [`ReferenceScheduler`], which is shown a world that is not
//! so, or whose answer is changed.

use std::sync::atomic::{AtomicBool, Ordering};

use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{
    Constraint, HostRoom, Inventory, Placement, ReferenceScheduler, Refusal, Request, Scheduler,
};
use elasticstack_core::sim::SimRng;

use crate::mutants::Mutant;

/// What is wrong with a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    InventsHosts,
    NamesAnotherHostsArray,
    PutsServersOnArrays,
    OvercommitsMemory,
    OvercommitsCpu,
    OvercommitsBytes,
    CountsBytesIn32Bits,
    FillsClosedHosts,
    FillsFailedArrays,
    TakesAnyTier,
    TakesContainersAnywhere,
    DrivesAvoidNothing,
    ServersAvoidNothing,
    AnyOtherArrayWillDo,
    LendsWhatCannotBe,
    LendsForNothing,
    KeepsSomeBack,
    BlamesMemory,
    Overstates,
    Understates,
    Alternates,
    TakesTheFirstArray,
}
use Defect::*;

pub(crate) const MUTANTS: &[Mutant<Defect>] = &[
    one(InventsHosts, "SC-1", &["sc_1_a_placement_is_of_the_inventory"]),
    one(NamesAnotherHostsArray, "SC-1", &["sc_1_a_placement_is_of_the_inventory"]),
    one(PutsServersOnArrays, "SC-1", &["sc_1_a_placement_is_of_the_inventory"]),
    one(OvercommitsMemory, "SC-2", &["sc_2_what_is_placed_fits"]),
    one(OvercommitsCpu, "SC-2", &["sc_2_what_is_placed_fits"]),
    one(OvercommitsBytes, "SC-2", &["sc_2_what_is_placed_fits"]),
    one(
        CountsBytesIn32Bits,
        "SC-2",
        &["sc_2_what_is_placed_fits", "sc_7_a_refusal_tells_how_far_off_it_was"],
    ),
    one(FillsClosedHosts, "SC-3", &["sc_3_nothing_goes_where_nothing_is_accepted"]),
    one(FillsFailedArrays, "SC-3", &["sc_3_nothing_goes_where_nothing_is_accepted"]),
    one(TakesContainersAnywhere, "SC-3", &["sc_3_a_container_goes_where_containers_run"]),
    one(TakesAnyTier, "SC-3", &["sc_3_a_drive_goes_to_its_tier"]),
    one(
        DrivesAvoidNothing,
        "SC-4",
        &["sc_4_what_is_avoided_is_avoided", "sc_4_avoiding_means_another_host_if_there_is_one"],
    ),
    one(ServersAvoidNothing, "SC-4", &["sc_4_what_is_avoided_is_avoided"]),
    one(AnyOtherArrayWillDo, "SC-4", &["sc_4_avoiding_means_another_host_if_there_is_one"]),
    one(LendsWhatCannotBe, "SC-5", &["sc_5_drives_are_in_reach"]),
    one(LendsForNothing, "SC-5", &["sc_5_lends_are_as_few_as_can_be"]),
    one(
        KeepsSomeBack,
        "SC-6",
        &["sc_5_lends_are_as_few_as_can_be", "sc_6_whatever_fits_is_placed"],
    ),
    one(
        BlamesMemory,
        "SC-7",
        &["sc_7_a_refusal_names_what_binds", "sc_7_a_refusal_tells_how_far_off_it_was"],
    ),
    one(Overstates, "SC-7", &["sc_7_a_refusal_names_what_binds"]),
    one(Understates, "SC-7", &["sc_7_a_refusal_tells_how_far_off_it_was"]),
    one(
        Alternates,
        "SC-8",
        &["sc_8_equal_questions_have_equal_answers", "sc_8_the_order_of_the_inventory_is_nothing"],
    ),
    one(TakesTheFirstArray, "SC-8", &["sc_8_the_order_of_the_inventory_is_nothing"]),
];

const fn one(
    defect: Defect,
    breaks: &'static str,
    fails: &'static [&'static str],
) -> Mutant<Defect> {
    Mutant { defect, breaks, fails }
}

pub(crate) struct MutantScheduler {
    defect: Defect,
    asked: AtomicBool,
}

impl MutantScheduler {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { defect, asked: AtomicBool::new(false) }
    }

    /// What the defect makes of the question.
    fn misread(&self, Inventory { hosts }: &mut Inventory, request: &mut Request) {
        match (self.defect, &mut *request) {
            (CountsBytesIn32Bits, Request::Drive(demand)) => {
                demand.size = Bytes::try_from(demand.size.get() % (1 << 32)).unwrap();
            }
            (DrivesAvoidNothing, Request::Drive(demand)) => demand.avoid.clear(),
            (ServersAvoidNothing, Request::Server(demand)) => demand.avoid.clear(),
            (AnyOtherArrayWillDo, Request::Drive(demand)) => {
                for host in hosts.iter_mut() {
                    host.arrays.retain(|array| !demand.avoid.contains(&array.array));
                }
                demand.avoid.clear();
            }
            (LendsForNothing, Request::Server(demand)) => {
                let lends = |home| hosts.iter().any(|host| host.host == home && host.lends);
                demand.drives_on.retain(|home| !lends(*home));
            }
            _ => {}
        }
        hosts.iter_mut().for_each(|host| self.misread_host(host, request));
    }

    fn misread_host(&self, host: &mut HostRoom, request: &Request) {
        match self.defect {
            OvercommitsMemory => host.memory.0 = host.memory.0.saturating_add(1),
            OvercommitsCpu => host.cpu.0 = host.cpu.0.saturating_add(1),
            KeepsSomeBack => host.memory.0 = host.memory.0.saturating_sub(1),
            FillsClosedHosts => host.accepts = true,
            LendsWhatCannotBe => host.lends = true,
            TakesContainersAnywhere => host.containers = true,
            _ => {}
        }
        for array in &mut host.arrays {
            match (self.defect, request) {
                (FillsFailedArrays, _) => array.accepts = true,
                (OvercommitsBytes, _) => {
                    array.free = Bytes::try_from(array.free.get() + 1).unwrap_or(array.free);
                }
                (TakesAnyTier, Request::Drive(demand)) => array.tier = demand.tier,
                _ => {}
            }
        }
    }

    /// What the defect makes of an answer.
    fn misplace(&self, hosts: &[HostRoom], request: &Request, found: Placement) -> Placement {
        let second = self.asked.fetch_xor(true, Ordering::Relaxed);
        let Some(host) = hosts.iter().find(|host| host.host == found.host) else { return found };
        let others = hosts.iter().filter(|host| host.host != found.host);
        let mut fit = host.arrays.iter().filter(|array| match request {
            Request::Drive(demand) => {
                array.accepts
                    && (array.tier, array.free >= demand.size) == (demand.tier, true)
                    && !demand.avoid.contains(&array.array)
            }
            _ => false,
        });
        let array = match (self.defect, found.array) {
            (InventsHosts, _) => return Placement { host: SimRng::new(1 << 40).id(), ..found },
            (PutsServersOnArrays, None) => host.arrays.iter().min_by_key(|array| array.array),
            (NamesAnotherHostsArray, Some(_)) => {
                others.flat_map(|host| &host.arrays).min_by_key(|array| array.array)
            }
            (TakesTheFirstArray, Some(_)) => fit.next(),
            (Alternates, Some(_)) if second => fit.find(|array| Some(array.array) != found.array),
            _ => None,
        };
        array.map_or(found, |array| Placement { array: Some(array.array), ..found })
    }

    fn misquote(&self, refusal: Refusal) -> Refusal {
        let amount = matches!(
            refusal.constraint,
            Constraint::ArrayBytes | Constraint::Memory | Constraint::Cpu
        );
        match self.defect {
            BlamesMemory => Refusal { constraint: Constraint::Memory, ..refusal },
            Overstates if amount => Refusal { available: refusal.wanted - 1, ..refusal },
            Understates => Refusal { available: 0, ..refusal },
            _ => refusal,
        }
    }
}

impl Scheduler for MutantScheduler {
    fn place(&self, inventory: &Inventory, request: &Request) -> Result<Placement, Refusal> {
        let (mut seen, mut asked) = (inventory.clone(), request.clone());
        self.misread(&mut seen, &mut asked);
        match ReferenceScheduler.place(&seen, &asked) {
            Ok(found) => Ok(self.misplace(&inventory.hosts, request, found)),
            Err(refusal) => Err(self.misquote(refusal)),
        }
    }
}
