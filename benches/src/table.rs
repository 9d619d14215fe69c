//! The report: what was measured beside its peer, the goal, and whether it was met.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

/// Timings of two ways to the same end, taken in turns, so that whatever else the machine does
/// weighs on both.
#[derive(Default)]
pub(crate) struct Pairs {
    ours: Vec<f64>,
    peers: Vec<f64>,
}

impl Pairs {
    /// Notes one pair.
    pub(crate) fn push(&mut self, ours: Duration, peers: Duration) {
        self.ours.push(milliseconds(ours));
        self.peers.push(milliseconds(peers));
    }

    /// Our median, in milliseconds.
    pub(crate) fn ours(&self) -> f64 {
        median(self.ours.clone())
    }

    /// The peer's median, in milliseconds.
    pub(crate) fn peers(&self) -> f64 {
        median(self.peers.clone())
    }

    /// How much longer ours takes: the median over the pairs, in milliseconds.
    pub(crate) fn difference(&self) -> f64 {
        median(self.each(|ours, peers| ours - peers))
    }

    /// How many times as long ours takes: the median over the pairs.
    pub(crate) fn ratio(&self) -> f64 {
        median(self.each(|ours, peers| ours / peers))
    }

    fn each(&self, compare: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        self.ours.iter().zip(&self.peers).map(|(&ours, &peers)| compare(ours, peers)).collect()
    }
}

/// The quickest and the slowest of each.
impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let (ours, peers) = (&self.ours, &self.peers);
        write!(
            f,
            "{} pairs: {:.1} to {:.1} ms beside {:.1} to {:.1} ms",
            ours.len(),
            least(ours),
            most(ours),
            least(peers),
            most(peers)
        )
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle value, or the mean of the two in the middle; not a number of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len() % 2, values.get(half.wrapping_sub(1)), values.get(half)) {
        (0, Some(low), Some(high)) => f64::midpoint(*low, *high),
        (1, _, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

/// Whether a goal was met. One that can't be told was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// There is no goal.
    None,
}

impl Verdict {
    /// Of a value that is to be at least `limit`.
    pub(crate) fn at_least(value: f64, limit: f64) -> Self {
        if value >= limit { Self::Met } else { Self::Missed }
    }

    /// Of a value that is to be at most `limit`.
    pub(crate) fn at_most(value: f64, limit: f64) -> Self {
        if value <= limit { Self::Met } else { Self::Missed }
    }
}

/// One line of the report.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ours: String,
    pub(crate) peers: String,
    pub(crate) compared: String,
    pub(crate) goal: String,
    pub(crate) verdict: Verdict,
}

impl Row {
    /// A line of what has no peer.
    pub(crate) fn alone(
        what: impl Into<String>,
        ours: String,
        goal: String,
        verdict: Verdict,
    ) -> Self {
        let [peers, compared] = Default::default();
        Self { what: what.into(), ours, peers, compared, goal, verdict }
    }

    /// A line of what is told and not judged.
    pub(crate) fn told(what: impl Into<String>, ours: String) -> Self {
        Self::alone(what, ours, String::new(), Verdict::None)
    }
}

/// The report.
pub(crate) struct Table(pub(crate) Vec<Row>);

impl Table {
    /// Prints it.
    ///
    /// # Errors
    /// A goal was missed.
    pub(crate) fn judge(&self) -> Result<()> {
        print!("\n{self}");
        match self.missed().as_slice() {
            [] => Ok(()),
            missed => bail!("not met: {}", missed.join("; ")),
        }
    }

    /// What was missed.
    fn missed(&self) -> Vec<&str> {
        let missed = self.0.iter().filter(|row| row.verdict == Verdict::Missed);
        missed.map(|row| row.what.as_str()).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |cells: [&str; 6]| {
            let [what, ours, peers, compared, goal, verdict] = cells;
            let line =
                format!("{what:<48}{ours:>11}{peers:>22}{compared:>12}   {goal:<19}{verdict}");
            writeln!(f, "{}", line.trim_end())
        };
        line(["", "ours", "peer", "compared", "goal", ""])?;
        for Row { what, ours, peers, compared, goal, verdict } in &self.0 {
            let verdict = match verdict {
                Verdict::Met => "met",
                Verdict::Missed => "MISSED",
                Verdict::None => "",
            };
            line([what, ours, peers, compared, goal, verdict])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_any_number_of_values() {
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn pairs_are_compared_one_by_one() {
        let mut pairs = Pairs::default();
        // A slow moment of the machine weighs on both of its pair.
        for (ours, peers) in [(110, 100), (420, 400), (115, 100)] {
            pairs.push(Duration::from_millis(ours), Duration::from_millis(peers));
        }
        assert!((pairs.difference() - 15.0).abs() < 1e-6, "{}", pairs.difference());
        assert!((pairs.ratio() - 1.1).abs() < 1e-6, "{}", pairs.ratio());
    }

    #[test]
    fn a_goal_is_met_up_to_its_limit_and_never_by_nothing() {
        assert_eq!(Verdict::at_most(1.0, 1.0), Verdict::Met);
        assert_eq!(Verdict::at_most(1.1, 1.0), Verdict::Missed);
        assert_eq!(Verdict::at_least(1.0, 1.0), Verdict::Met);
        assert_eq!(Verdict::at_least(0.9, 1.0), Verdict::Missed);
        assert_eq!(Verdict::at_least(f64::NAN, 1.0), Verdict::Missed);
        assert_eq!(Verdict::at_most(Pairs::default().ratio(), 1.0), Verdict::Missed);
    }
}
