//! Which disk of an array takes far longer than the others, from what the kernel counts of each.
//!
//! Pure: it is told the time and the counts. A disk is called slow after some windows in a row, and no more
//! after as many in which it is as fast as others, so that what passes is not told, nor told twice.

use std::collections::BTreeMap;
use std::time::Duration;

use elasticstack_core::block::{Warning, WarningKind};

/// What is compared at a time.
const WINDOW: Duration = Duration::from_secs(10);

/// Fewer operations than this in a window say nothing.
const FEWEST: u64 = 10;

/// So many times what others take, in the middle, is far longer; half of that is no longer far.
const FAR: u64 = 5;

/// What is done within this is never slow.
const QUICK: Duration = Duration::from_millis(20);

/// After so many windows in a row a disk is called slow, or no more.
const IN_A_ROW: u32 = 3;

/// What the kernel counts of a disk (Documentation/admin-guide/iostats.rst), since it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct IoCount {
    /// Reads and writes that were done.
    pub done: u64,
    /// Milliseconds that they took, summed up.
    pub millis: u64,
    /// Those under way.
    pub in_flight: u64,
}

impl IoCount {
    /// Reads `/sys/block/…/stat`; `None` if it is in another shape.
    #[must_use]
    pub(super) fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> =
            stat.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let &[reads, _, _, reading, writes, _, _, writing, in_flight, ..] = &fields[..] else {
            return None;
        };
        let (done, millis) = (reads.checked_add(writes)?, reading.checked_add(writing)?);
        Some(Self { done, millis, in_flight })
    }

    /// What an operation took in the middle since `before`, in microseconds; `None` if there is too little
    /// to say. One that is under way all the time and does not end took as long as that.
    fn mean_since(self, before: Self, window: Duration) -> Option<u64> {
        let done = self.done.checked_sub(before.done)?;
        let millis = self.millis.checked_sub(before.millis)?;
        if done == 0 && self.in_flight > 0 && before.in_flight > 0 {
            return u64::try_from(window.as_micros()).ok();
        }
        (done >= FEWEST).then(|| millis.saturating_mul(1000) / done)
    }
}

/// What is known of how long the disks of one array take.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// When the window began, and what had been counted by then.
    began: Option<(Duration, BTreeMap<String, IoCount>)>,
    disks: BTreeMap<String, Disk>,
}

#[derive(Debug, Default)]
struct Disk {
    is_slow: bool,
    /// How many windows in a row have said otherwise.
    against: u32,
}

impl Latency {
    /// Takes note of what is counted `now`, by the disks' names; `now` is of any clock that only grows.
    pub(super) fn look(&mut self, now: Duration, counts: BTreeMap<String, IoCount>) {
        let Some((began, before)) = &self.began else {
            self.began = Some((now, counts));
            return;
        };
        let window = now.saturating_sub(*began);
        if window < WINDOW {
            return;
        }
        let mean = |(name, count): (&String, &IoCount)| {
            Some((name.clone(), count.mean_since(*before.get(name)?, window)?))
        };
        let means: BTreeMap<_, _> = counts.iter().filter_map(mean).collect();
        self.disks.retain(|name, _| counts.contains_key(name));
        for (name, mean) in &means {
            let others = means.iter().filter(|(other, _)| *other != name).map(|(_, mean)| *mean);
            let Some(usual) = median(others.collect()) else { continue };
            self.disks.entry(name.clone()).or_default().judge(*mean, usual);
        }
        self.began = Some((now, counts));
    }

    /// The disks that are slow.
    #[must_use]
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let slow = self.disks.iter().filter(|(_, disk)| disk.is_slow);
        let warning = |(name, _): (&String, _)| Warning {
            kind: WarningKind::DiskSlow,
            disk: Some(name.clone()),
            sentence: format!(
                "disk {name} takes more than {FAR} times as long as the others of its array, which waits for it: look at \
                 its cable and its SMART values, and replace it if it stays so"
            ),
        };
        slow.map(warning).collect()
    }
}

impl Disk {
    fn judge(&mut self, mean: u64, usual: u64) {
        // Halfway between the two it stays what it was.
        let factor = if self.is_slow { FAR / 2 } else { FAR };
        let is_quick = u128::from(mean) < QUICK.as_micros();
        let is_far = !is_quick && mean > usual.saturating_mul(factor);
        if is_far == self.is_slow {
            self.against = 0;
            return;
        }
        self.against += 1;
        if self.against == IN_A_ROW {
            *self = Self { is_slow: is_far, against: 0 };
        }
    }
}

/// The lower of the two in the middle, if they are as many.
fn median(mut numbers: Vec<u64>) -> Option<u64> {
    numbers.sort_unstable();
    numbers.get(numbers.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Disks whose clock and counts are the test's.
    #[derive(Default)]
    struct Bench {
        now: Duration,
        counts: BTreeMap<String, IoCount>,
        latency: Latency,
    }

    impl Bench {
        fn new(disks: &[&str]) -> Self {
            let mut bench = Self::default();
            bench.window(&disks.iter().map(|disk| (*disk, 0, 0)).collect::<Vec<_>>());
            bench
        }

        /// A window in which each disk has done so many operations, of so many milliseconds each.
        fn window(&mut self, disks: &[(&str, u64, u64)]) -> Vec<String> {
            self.now += WINDOW;
            for (name, done, each) in disks {
                let count = self.counts.entry((*name).to_owned()).or_default();
                count.done += done;
                count.millis += done * each;
            }
            self.latency.look(self.now, self.counts.clone());
            self.slow()
        }

        fn slow(&self) -> Vec<String> {
            self.latency.warnings().into_iter().filter_map(|warning| warning.disk).collect()
        }
    }

    #[test]
    fn a_disk_that_is_far_slower_than_others_is_told_after_three_windows_and_until_three_are_good()
    {
        let mut bench = Bench::new(&["a", "b"]);
        for (slow, told) in [
            (true, 0),
            (true, 0),
            (true, 1),
            (true, 1),
            (false, 1),
            (false, 1),
            (true, 1),
            (false, 1),
            (false, 1),
            (false, 0),
            (false, 0),
            (true, 0),
            (true, 0),
            (false, 0),
            (true, 0),
            (true, 0),
            (true, 1),
        ] {
            let each = if slow { 200 } else { 4 };
            assert_eq!(bench.window(&[("a", 100, 4), ("b", 100, each)]).len(), told);
        }
        assert_eq!(bench.slow(), ["b"]);
    }

    #[test]
    fn what_is_slow_is_slow_beside_others_and_not_by_itself() {
        for (name, disks, slow) in [
            ("all are as slow", vec![("a", 50, 90), ("b", 50, 100), ("c", 50, 110)], vec![]),
            ("one is slow", vec![("a", 50, 9), ("b", 50, 100), ("c", 50, 11)], vec!["b"]),
            (
                "of many two are slow",
                vec![("a", 50, 9), ("b", 50, 100), ("c", 50, 11), ("d", 50, 90), ("e", 50, 9)],
                vec!["b", "d"],
            ),
            ("it is quick all the same", vec![("a", 50, 1), ("b", 50, 19)], vec![]),
            ("it does next to nothing", vec![("a", 50, 1), ("b", 9, 500)], vec![]),
            ("nobody else does anything", vec![("a", 0, 0), ("b", 50, 500)], vec![]),
            ("it is alone", vec![("b", 50, 500)], vec![]),
        ] {
            let names: Vec<_> = disks.iter().map(|(name, ..)| *name).collect();
            let mut bench = Bench::new(&names);
            for _ in 0..5 {
                bench.window(&disks);
            }
            assert_eq!(bench.slow(), slow, "{name}");
        }
    }

    #[test]
    fn a_disk_that_ends_nothing_while_others_do_is_slow() {
        let mut bench = Bench::new(&["a", "b"]);
        bench.counts.get_mut("b").unwrap().in_flight = 1;
        for _ in 0..4 {
            bench.window(&[("a", 100, 4), ("b", 0, 0)]);
        }
        assert_eq!(bench.slow(), ["b"]);
    }

    #[test]
    fn a_disk_that_was_taken_out_is_told_no_more_and_one_that_counts_anew_has_done_nothing() {
        let mut bench = Bench::new(&["a", "b"]);
        for _ in 0..3 {
            bench.window(&[("a", 100, 4), ("b", 100, 200)]);
        }
        assert_eq!(bench.slow(), ["b"]);
        bench.counts.insert("b".to_owned(), IoCount::default());
        assert_eq!(bench.window(&[("a", 100, 4)]), ["b"]);
        bench.counts.remove("b");
        assert_eq!(bench.window(&[("a", 100, 4)]), [""; 0]);
    }

    #[test]
    fn counts_are_read_as_the_kernel_prints_them() {
        let stat = "   12861     3517   811414    12345    49114    81127  2216834   234567        3    65432   260999        0        0        0        0     1234     4567\n";
        let count = IoCount { done: 61_975, millis: 246_912, in_flight: 3 };
        assert_eq!(IoCount::parse(stat), Some(count));
        let old = "1 0 0 2 3 0 0 4 5 6 7";
        assert_eq!(IoCount::parse(old), Some(IoCount { done: 4, millis: 6, in_flight: 5 }));
        for other in ["", "1 2 3", "a b c d e f g h i j k", "-1 0 0 0 0 0 0 0 0 0 0"] {
            assert_eq!(IoCount::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_counts_make_the_rule_fail(looks in prop::collection::vec(
            (any::<u64>(), prop::collection::btree_map("[ab]", any::<(u64, u64, u64)>(), 0..3)), 0..20,
        )) {
            let mut latency = Latency::default();
            for (now, counts) in looks {
                let count = |(name, (done, millis, in_flight))| (name, IoCount { done, millis, in_flight });
                latency.look(Duration::from_millis(now), counts.into_iter().map(count).collect());
                prop_assert!(latency.warnings().len() <= 2);
            }
        }

        #[test]
        fn no_text_makes_the_reader_of_counts_fail(stat in "[0-9 a-z-]{0,200}") {
            let _ = IoCount::parse(&stat);
        }
    }
}
