//! Usage as the control plane's database has it: whether its intervals tile every life. Pure but
//! for the one question to the database.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::database::Database;
use super::ledger::{Entry, Kind, Ledger, Ran};

const QUESTION: &str = "SELECT resource, meter, quantity, from_us, to_us FROM usage_intervals \
                        ORDER BY resource, meter, from_us, id";

/// One interval [from, to), in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Interval {
    resource: String,
    meter: String,
    quantity: u64,
    from_us: i64,
    to_us: Option<i64>,
}

/// Reads all intervals.
pub(crate) fn read(database: &Database) -> Result<Vec<Interval>> {
    let rows = database.ask(QUESTION)?.into_iter().map(serde_json::from_value);
    rows.collect::<Result<_, _>>().context("read intervals")
}

/// Checks them against the ledger once everything is destroyed; answers how many there are, without
/// those of the drive `standard`, which is not the customer's.
///
/// # Errors
/// Everything that is wrong, one a line.
pub(crate) fn check(intervals: &[Interval], ledger: &Ledger, standard: &str) -> Result<usize> {
    let mut of: BTreeMap<&str, BTreeMap<&str, Vec<&Interval>>> = BTreeMap::new();
    let ours = intervals.iter().filter(|interval| interval.resource != standard);
    for interval in ours.clone() {
        let meters = of.entry(interval.resource.as_str()).or_default();
        meters.entry(interval.meter.as_str()).or_default().push(interval);
    }
    let mut wrong = Vec::new();
    for (name, entry) in &ledger.entries {
        let meters = entry.id.as_deref().and_then(|id| of.remove(id)).unwrap_or_default();
        let mut faults = order(&meters);
        match &entry.kind {
            Kind::Drive { .. } => faults.extend(drive(entry, &meters)),
            Kind::Server { starts, ran, .. } => {
                faults.extend(server(entry, *starts, *ran, &meters));
            }
        }
        wrong.extend(faults.into_iter().map(|fault| format!("{name}: {fault}; {meters:?}")));
    }
    wrong.extend(of.keys().map(|id| format!("{id} is metered and was never asked for")));
    if wrong.is_empty() { Ok(ours.count()) } else { bail!("usage is wrong:\n{}", wrong.join("\n")) }
}

/// What is wrong with intervals of any object: each has an end, none overlaps the one before.
fn order(meters: &BTreeMap<&str, Vec<&Interval>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (meter, intervals) in meters {
        let mut before = i64::MIN;
        for interval in intervals {
            match interval.to_us {
                None => faults.push(format!("{meter} goes on though it is destroyed")),
                Some(to) if to < interval.from_us => faults.push(format!("{meter} ends too early")),
                Some(_) => {}
            }
            if interval.from_us < before {
                faults.push(format!("{meter} overlaps"));
            }
            before = interval.to_us.unwrap_or(i64::MAX);
        }
    }
    faults
}

/// What is wrong with a drive's: they tile its life from its creation to its destruction.
fn drive(entry: &Entry, meters: &BTreeMap<&str, Vec<&Interval>>) -> Option<String> {
    let intervals = meters.get("drive").map(Vec::as_slice).unwrap_or_default();
    let (Some(first), Some(last)) = (intervals.first(), intervals.last()) else {
        return entry.id.is_some().then(|| "it was not metered".to_owned());
    };
    if meters.len() != 1 {
        return Some("a drive has one meter".to_owned());
    }
    let is_gap =
        |pair: &[&Interval]| pair.first().and_then(|a| a.to_us) != pair.get(1).map(|b| b.from_us);
    if intervals.windows(2).any(is_gap) {
        return Some("there is a gap".to_owned());
    }
    if !(entry.made.asked..=entry.made.answered).contains(&first.from_us) {
        return Some(format!("it begins outside of {:?}", entry.made));
    }
    let ended = entry.ended?;
    let within = last.to_us.is_some_and(|to| (ended.asked..=ended.answered).contains(&to));
    (!within).then(|| format!("it ends outside of {ended:?}"))
}

/// What is wrong with a server's: one interval a run, the same for both meters.
fn server(
    entry: &Entry,
    starts: u64,
    ran: Ran,
    meters: &BTreeMap<&str, Vec<&Interval>>,
) -> Option<String> {
    let runs = |meter| -> Vec<(i64, Option<i64>)> {
        let intervals = meters.get(meter).into_iter().flatten();
        intervals.map(|interval| (interval.from_us, interval.to_us)).collect()
    };
    let (cpu, memory) = (runs("cpu"), runs("memory"));
    if cpu != memory {
        return Some("its meters disagree".to_owned());
    }
    if u64::try_from(cpu.len()).is_ok_and(|runs| runs > starts) {
        return Some(format!("{} runs in {starts} starts", cpu.len()));
    }
    if ran == Ran::Seen && cpu.is_empty() {
        return Some("it ran and was not metered".to_owned());
    }
    if meters.values().flatten().any(|interval| interval.quantity == 0) {
        return Some("nothing is metered".to_owned());
    }
    // A destroyed server is hidden at once and metered until its host has ended it.
    let first = cpu.first()?.0;
    (first < entry.made.asked).then(|| "it is metered before it was made".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::storm::ledger::{Answer, Fate, Keeping, Window};

    fn interval(resource: &str, meter: &str, from_us: i64, to_us: Option<i64>) -> Interval {
        let (resource, meter) = (resource.to_owned(), meter.to_owned());
        Interval { resource, meter, quantity: 1, from_us, to_us }
    }

    /// A drive that lived from about 10 to about 50, and a server that was started twice.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let drive = Kind::Drive { sizes: BTreeSet::from([1]) };
        let server = Kind::Server { keeping: Keeping::Persistent, starts: 2, ran: Ran::Seen };
        for (name, kind, fate) in [("d", drive, Fate::Present), ("s", server, Fate::Active)] {
            let made = Window { asked: 9, answered: 11 };
            ledger.created((name, kind), fate, &Answer::Done(name.to_owned()), made);
            let entry = ledger.entries.get_mut(name).unwrap();
            entry.ended = Some(Window { asked: 49, answered: 51 });
        }
        ledger
    }

    fn sound() -> Vec<Interval> {
        vec![
            interval("d", "drive", 10, Some(20)),
            interval("d", "drive", 20, Some(50)),
            interval("s", "cpu", 12, Some(20)),
            interval("s", "cpu", 30, Some(40)),
            interval("s", "memory", 12, Some(20)),
            interval("s", "memory", 30, Some(40)),
        ]
    }

    #[test]
    fn sound_usage_is_accepted_and_the_standard_drive_is_not_ours() {
        let mut intervals = sound();
        intervals.push(interval("standard", "drive", 1, None));
        assert_eq!(check(&intervals, &ledger(), "standard").unwrap(), 6);
    }

    #[test]
    fn every_flaw_is_found() {
        type Spoil = fn(&mut Vec<Interval>);
        let flaws: [(&str, Spoil); 9] = [
            ("open", |all| all[1].to_us = None),
            ("gap in a drive's life", |all| all[1].from_us = 21),
            ("overlap", |all| all[3].from_us = 19),
            ("begins too late", |all| all[0].from_us = 12),
            ("ends too early", |all| all[1].to_us = Some(48)),
            ("meters disagree", |all| all[5].to_us = Some(41)),
            ("more runs than starts", |all| {
                all.push(interval("s", "cpu", 41, Some(42)));
                all.push(interval("s", "memory", 41, Some(42)));
            }),
            ("not metered", |all| all.retain(|interval| interval.resource == "d")),
            ("unknown", |all| all.push(interval("x", "cpu", 1, Some(2)))),
        ];
        for (what, spoil) in flaws {
            let mut intervals = sound();
            spoil(&mut intervals);
            assert!(check(&intervals, &ledger(), "standard").is_err(), "{what}");
        }
    }
}
