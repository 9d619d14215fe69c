//! The scheduler kit. A scheduler is its own fixture, and nothing here waits.
//!
//! Each check asks for many placements in small worlds that are made up from a fixed seed, with
//! scarce and with endless room, and works out from the contract alone what may be answered; it
//! uses nothing of what the core offers to schedulers.

use super::scheduler_worlds::{self as worlds, World};
use super::{Outcome, Violation, require};
use crate::hypervisor::ServerKind;
use crate::id::HostId;
use crate::scheduler::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Placement, Refusal, Request,
    Scheduler, ServerDemand,
};
use crate::units::{Bytes, MebiBytes, MegaHertz};

#[doc(hidden)]
#[macro_export]
macro_rules! __scheduler_checks {
    ($then:ident, $($arguments:tt)*) => {
        $crate::$then! {
            $($arguments)*;
            scheduler:
                sc_1_a_placement_is_of_the_inventory,
                sc_2_what_is_placed_fits,
                sc_3_nothing_goes_where_nothing_is_accepted,
                sc_3_a_drive_goes_to_its_tier,
                sc_3_a_container_goes_where_containers_run,
                sc_4_what_is_avoided_is_avoided,
                sc_4_avoiding_means_another_host_if_there_is_one,
                sc_5_drives_are_in_reach,
                sc_5_lends_are_as_few_as_can_be,
                sc_6_whatever_fits_is_placed,
                sc_7_a_refusal_names_what_binds,
                sc_7_a_refusal_tells_how_far_off_it_was,
                sc_8_equal_questions_have_equal_answers,
                sc_8_the_order_of_the_inventory_is_nothing;
        }
    };
}

/// Where a placement points, if SC-1 lets it point there.
fn site<'a>(world: &'a World, placement: &Placement) -> Option<Site<'a>> {
    let host = world.inventory.hosts.iter().find(|host| host.host == placement.host)?;
    let array = match (&world.request, placement.array) {
        (Request::Server(_), None) => None,
        (Request::Drive(_), Some(id)) => Some(host.arrays.iter().find(|it| it.array == id)?),
        _ => return None,
    };
    Some(Site { host, array })
}

/// Somewhere that a request may be placed, or not.
#[derive(Clone, Copy)]
struct Site<'a> {
    host: &'a HostRoom,
    array: Option<&'a ArrayRoom>,
}

impl Site<'_> {
    /// Whether the request may be placed here, by all that is hard in the contract.
    fn may(self, world: &World) -> bool {
        self.accepts() && self.room_for(&world.request) && self.allowed(world)
    }

    fn accepts(self) -> bool {
        self.host.accepts && self.array.is_none_or(|array| array.accepts)
    }

    fn room_for(self, request: &Request) -> bool {
        match (request, self.array) {
            (Request::Drive(demand), Some(array)) => array.free >= demand.size,
            (Request::Server(demand), None) => {
                self.host.memory >= demand.memory && self.host.cpu >= demand.cpu
            }
            _ => false,
        }
    }

    fn allowed(self, world: &World) -> bool {
        self.of_tier(&world.request)
            && self.runs(&world.request)
            && self.not_avoided(&world.request)
            && self.reaches(world)
    }

    fn of_tier(self, request: &Request) -> bool {
        match (request, self.array) {
            (Request::Drive(demand), Some(array)) => array.tier == demand.tier,
            _ => true,
        }
    }

    fn runs(self, request: &Request) -> bool {
        match request {
            Request::Server(demand) => self.host.containers || demand.kind != ServerKind::Container,
            Request::Drive(_) => true,
        }
    }

    fn not_avoided(self, request: &Request) -> bool {
        match (request, self.array) {
            (Request::Drive(demand), Some(array)) => !demand.avoid.contains(&array.array),
            (Request::Server(demand), _) => !demand.avoid.contains(&self.host.host),
            _ => true,
        }
    }

    fn reaches(self, world: &World) -> bool {
        let Request::Server(demand) = &world.request else { return true };
        let lends = |home| world.inventory.hosts.iter().any(|it| it.host == home && it.lends);
        demand.drives_on.iter().all(|home| *home == self.host.host || lends(*home))
    }

    fn crowds(self, demand: &DriveDemand) -> bool {
        self.host.arrays.iter().any(|array| demand.avoid.contains(&array.array))
    }
}

/// Everywhere that the request may be placed.
fn sites(world: &World) -> Vec<Site<'_>> {
    let mut sites = Vec::new();
    for host in &world.inventory.hosts {
        match world.request {
            Request::Server(_) => sites.push(Site { host, array: None }),
            Request::Drive(_) => {
                sites.extend(host.arrays.iter().map(|array| Site { host, array: Some(array) }));
            }
        }
    }
    sites.retain(|site| site.may(world));
    sites
}

/// Asks for a placement in every world, and requires that something holds of each that keeps SC-1.
fn each_placement(
    scheduler: &dyn Scheduler,
    holds: impl Fn(&World, Site<'_>) -> bool,
) -> Result<Outcome, Violation> {
    for world in worlds::all() {
        if let Ok(placement) = world.ask(scheduler)
            && let Some(site) = site(&world, &placement)
        {
            require!(holds(&world, site), "{placement:?} is the answer to {world}");
        }
    }
    Ok(Outcome::Kept)
}

/// Asks for a placement in every world, and hands on each that was refused.
fn each_refusal(
    scheduler: &dyn Scheduler,
    check: impl Fn(World, Refusal) -> Result<(), Violation>,
) -> Result<Outcome, Violation> {
    for world in worlds::all() {
        if let Err(refusal) = world.ask(scheduler) {
            check(world, refusal)?;
        }
    }
    Ok(Outcome::Kept)
}

pub(super) async fn sc_1_a_placement_is_of_the_inventory(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    for world in worlds::all() {
        if let Ok(placement) = world.ask(scheduler) {
            require!(site(&world, &placement).is_some(), "{placement:?} is the answer to {world}");
        }
    }
    Ok(Outcome::Kept)
}

pub(super) async fn sc_2_what_is_placed_fits(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |world, site| site.room_for(&world.request))
}

pub(super) async fn sc_3_nothing_goes_where_nothing_is_accepted(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |_, site| site.accepts())
}

pub(super) async fn sc_3_a_drive_goes_to_its_tier(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |world, site| site.of_tier(&world.request))
}

pub(super) async fn sc_3_a_container_goes_where_containers_run(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |world, site| site.runs(&world.request))
}

pub(super) async fn sc_4_what_is_avoided_is_avoided(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |world, site| site.not_avoided(&world.request))
}

pub(super) async fn sc_4_avoiding_means_another_host_if_there_is_one(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |world, site| match &world.request {
        Request::Drive(demand) if site.crowds(demand) => {
            sites(world).iter().all(|other| other.crowds(demand))
        }
        _ => true,
    })
}

pub(super) async fn sc_5_drives_are_in_reach(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |world, site| site.reaches(world))
}

pub(super) async fn sc_5_lends_are_as_few_as_can_be(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_placement(scheduler, |world, site| match &world.request {
        Request::Server(ServerDemand { drives_on, .. }) => {
            let lends = |host: HostId| drives_on.iter().filter(|home| **home != host).count();
            sites(world).iter().all(|other| lends(other.host.host) >= lends(site.host.host))
        }
        Request::Drive(_) => true,
    })
}

pub(super) async fn sc_6_whatever_fits_is_placed(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_refusal(scheduler, |world, refusal| {
        let fit = sites(&world).len();
        require!(fit == 0, "{refusal:?} is the answer to {world}, and there are {fit} ways");
        Ok(())
    })
}

pub(super) async fn sc_7_a_refusal_names_what_binds(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_refusal(scheduler, |world, refusal| {
        let lifted = lifted(&world, refusal);
        match lifted.ask(scheduler) {
            Err(still) if still.constraint == refusal.constraint => Err(Violation::new(format!(
                "{refusal:?} is the answer to {world}, and still {still:?} to {lifted}"
            ))),
            _ => Ok(()),
        }
    })
}

pub(super) async fn sc_7_a_refusal_tells_how_far_off_it_was(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    each_refusal(scheduler, |mut world, refusal| {
        let Refusal { constraint, wanted, available } = refusal;
        require!(available < wanted, "{refusal:?} is the answer to {world}");
        let Some(asked) = amount(&mut world, constraint, wanted) else { return Ok(()) };
        require!(asked == wanted, "{asked} was asked for in {world}, {refusal:?} is the answer");
        amount(&mut world, constraint, available + 1);
        let answer = world.ask(scheduler);
        let same = Err(Refusal { wanted: available + 1, ..refusal });
        require!(answer == same, "{answer:?} and not {same:?} is the answer to {world}");
        Ok(())
    })
}

pub(super) async fn sc_8_equal_questions_have_equal_answers(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    let ask = |world: &World| world.ask(scheduler);
    let first: Vec<_> = worlds::all().iter().map(ask).collect();
    let mut again: Vec<_> = worlds::all().iter().rev().map(ask).collect();
    again.reverse();
    for ((world, first), again) in worlds::all().iter().zip(first).zip(again) {
        require!(first == again, "{first:?} and later {again:?} are the answers to {world}");
    }
    Ok(Outcome::Kept)
}

pub(super) async fn sc_8_the_order_of_the_inventory_is_nothing(
    scheduler: &dyn Scheduler,
) -> Result<Outcome, Violation> {
    for mut world in worlds::all() {
        let answer = world.ask(scheduler);
        world.inventory.hosts.reverse();
        world.inventory.hosts.iter_mut().for_each(|host| host.arrays.reverse());
        let reversed = world.ask(scheduler);
        require!(answer == reversed, "{reversed:?} is the answer to {world}, backwards {answer:?}");
    }
    Ok(Outcome::Kept)
}

/// The world without the constraint, or with the amount lowered to what there is.
fn lifted(world: &World, refusal: Refusal) -> World {
    let World { mut inventory, mut request } = world.clone();
    let Inventory { hosts } = &mut inventory;
    match (refusal.constraint, &mut request) {
        (Constraint::AcceptingHosts, _) => {
            hosts.iter_mut().for_each(|host| host.accepts = true);
            hosts.push(worlds::full_host());
        }
        (Constraint::AcceptingArrays, Request::Drive(demand)) => {
            for host in hosts {
                host.arrays.iter_mut().for_each(|array| array.accepts = true);
                host.arrays.push(worlds::full_array(demand.tier));
            }
        }
        (Constraint::Tier, Request::Drive(demand)) => {
            let arrays = hosts.iter_mut().flat_map(|host| &mut host.arrays);
            arrays.for_each(|array| array.tier = demand.tier);
        }
        (Constraint::Avoid, Request::Drive(demand)) => demand.avoid.clear(),
        (Constraint::Avoid, Request::Server(demand)) => demand.avoid.clear(),
        (Constraint::Drives, Request::Server(demand)) => demand.drives_on.clear(),
        (Constraint::Kind, Request::Server(demand)) => demand.kind = ServerKind::Vm,
        _ => {}
    }
    let mut lifted = World { inventory, request };
    amount(&mut lifted, refusal.constraint, refusal.available);
    lifted
}

/// Makes `to` the amount that the request asks for of what the constraint counts, and tells the one
/// before; `None` if that is not an amount of this request.
fn amount(world: &mut World, constraint: Constraint, to: u64) -> Option<u64> {
    let small = u32::try_from(to);
    match (&mut world.request, constraint) {
        (Request::Drive(demand), Constraint::ArrayBytes) => {
            Some(std::mem::replace(&mut demand.size, Bytes::try_from(to).ok()?).get())
        }
        (Request::Server(demand), Constraint::Memory) => {
            Some(std::mem::replace(&mut demand.memory, MebiBytes(small.ok()?)).0.into())
        }
        (Request::Server(demand), Constraint::Cpu) => {
            Some(std::mem::replace(&mut demand.cpu, MegaHertz(small.ok()?)).0.into())
        }
        _ => None,
    }
}
