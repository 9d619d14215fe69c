//! The judge of fencing: what was written under which epoch, what was acknowledged when, and what
//! the drive holds, as a row of events; and whether that can be.
//!
//! A block of the drive says of itself what write it is of. So the judge needs nobody's word but the
//! borrowers' for what they sent and were told, and the bytes for the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use elasticstack_core::generation::Epoch;

/// The length of a block, and how many of them are written to.
pub(crate) const BLOCK: usize = 4096;
pub(crate) const BLOCKS: usize = 16;

/// One write of one block. No two have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    pub(crate) block: usize,
}

impl Write {
    /// What is in the block once this is written: the same all over, so that half of it is noticed.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let block = u64::try_from(self.block).unwrap();
        let words = [0x7772_6974_7465_6e21, self.number, self.epoch.0, block];
        words.iter().flat_map(|word| word.to_be_bytes()).cycle().take(BLOCK).collect()
    }

    /// The write that a block is of; `None` if nothing was ever written to it.
    fn of(bytes: &[u8], block: usize) -> Result<Option<Self>, Breach> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let write = Self { number: word(8), epoch: Epoch(word(16)), block };
        if write.bytes() == bytes { Ok(Some(write)) } else { Err(Breach::Torn(block)) }
    }
}

/// What happened, in the order in which it was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A borrower is about to send a write.
    Sent(Write),
    /// It was told that the write is done.
    Acknowledged(Write),
    /// The fence below this epoch has answered.
    Fenced(Epoch),
    /// The drive is about to be read.
    Looks,
    /// This is what it was found to hold, the writes that its blocks are of.
    Found(Vec<Option<Write>>),
}

impl Event {
    /// What the first blocks of a drive hold.
    pub(crate) fn found(bytes: &[u8]) -> Result<Self, Breach> {
        let blocks = bytes.chunks(BLOCK).enumerate();
        let writes: Result<_, _> = blocks.map(|(block, bytes)| Write::of(bytes, block)).collect();
        writes.map(Self::Found)
    }
}

/// What may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Breach {
    /// A write of an old epoch was acknowledged though it was sent after the fence had answered.
    StaleAcknowledged(Write),
    /// A write of an old epoch came to the drive after the fence had answered.
    StaleFound(Write),
    /// The second was acknowledged and the first, which was over before, is found in its place.
    Lost(Option<Write>, Write),
    /// The drive holds what nobody sent.
    NeverSent(Write),
    /// A block holds parts of writes.
    Torn(usize),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |write: &Write| format!("{}.{}.{}", write.number, write.epoch, write.block);
        match self {
            Self::Sent(write) => write!(f, "sent {}", of(write)),
            Self::Acknowledged(write) => write!(f, "acknowledged {}", of(write)),
            Self::Fenced(epoch) => write!(f, "fenced {epoch}"),
            Self::Looks => f.write_str("looks now"),
            Self::Found(writes) => {
                let writes = writes.iter().map(|write| write.as_ref().map_or("-".into(), of));
                write!(f, "found {}", writes.collect::<Vec<_>>().join(" "))
            }
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (what, of) = line.split_once(' ').ok_or(line)?;
        let number = |word: &str| word.parse::<u64>().map_err(|_| line.to_owned());
        let write = |word: &str| -> Result<Write, String> {
            let [first, epoch, block] = word.split('.').collect::<Vec<_>>()[..] else {
                return Err(line.to_owned());
            };
            let block = block.parse().map_err(|_| line.to_owned())?;
            Ok(Write { number: number(first)?, epoch: Epoch(number(epoch)?), block })
        };
        match what {
            "sent" => write(of).map(Self::Sent),
            "acknowledged" => write(of).map(Self::Acknowledged),
            "fenced" => number(of).map(|epoch| Self::Fenced(Epoch(epoch))),
            "looks" => Ok(Self::Looks),
            "found" => {
                let found = |word| if word == "-" { Ok(None) } else { write(word).map(Some) };
                of.split(' ').map(found).collect::<Result<_, _>>().map(Self::Found)
            }
            _ => Err(line.to_owned()),
        }
    }
}

/// Follows the events. Their times are their places in the row.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    time: u64,
    sent: BTreeMap<Write, u64>,
    acknowledged: BTreeMap<Write, u64>,
    /// When the fence below an epoch answered first.
    fences: BTreeMap<Epoch, u64>,
    /// When the drive was last looked at.
    looked: u64,
    /// What was found first since the last fence.
    base: Option<Vec<Option<Write>>>,
}

impl Judge {
    /// Takes note of what happened.
    pub(crate) fn see(&mut self, event: &Event) -> Result<(), Breach> {
        self.time += 1;
        match event {
            Event::Sent(write) => {
                self.sent.insert(*write, self.time);
            }
            Event::Acknowledged(write) => {
                self.acknowledged.insert(*write, self.time);
                if self.fenced(write.epoch).is_some_and(|fenced| self.sent[write] > fenced) {
                    return Err(Breach::StaleAcknowledged(*write));
                }
            }
            Event::Looks => self.looked = self.time,
            Event::Fenced(epoch) => {
                if !self.fences.contains_key(epoch) {
                    self.fences.insert(*epoch, self.time);
                    self.base = None;
                }
            }
            Event::Found(found) => {
                for (block, write) in found.iter().enumerate() {
                    self.judge(block, *write)?;
                }
                self.base.get_or_insert_with(|| found.clone());
                // Of epochs that are over, what was found is all that is left to lose.
                let last = self.fences.keys().next_back().copied().unwrap_or_default();
                self.acknowledged
                    .retain(|write, _| write.epoch >= last || found.contains(&Some(*write)));
            }
        }
        Ok(())
    }

    /// When the first fence above this epoch answered.
    fn fenced(&self, epoch: Epoch) -> Option<u64> {
        self.fences.range(epoch.next()..).map(|(_, time)| *time).min()
    }

    fn judge(&self, block: usize, found: Option<Write>) -> Result<(), Breach> {
        if let Some(found) = found {
            let Some(sent) = self.sent.get(&found) else {
                return Err(Breach::NeverSent(found));
            };
            if let Some(fenced) = self.fenced(found.epoch) {
                let was_there = self.base.as_ref().is_none_or(|base| base[block] == Some(found));
                if *sent > fenced || !was_there {
                    return Err(Breach::StaleFound(found));
                }
            }
        }
        // What is not acknowledged may come to the drive until a fence has answered.
        let over = found.map_or(Some(0), |found| {
            let acknowledged = self.acknowledged.get(&found).copied();
            acknowledged.into_iter().chain(self.fenced(found.epoch)).min()
        });
        let lost = self.acknowledged.iter().find(|(write, told)| {
            let is_later = over.is_some_and(|over| self.sent[write] > over);
            write.block == block && is_later && **told < self.looked
        });
        lost.map_or(Ok(()), |(lost, _)| Err(Breach::Lost(found, *lost)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(number: u64, epoch: u64) -> Write {
        Write { number, epoch: Epoch(epoch), block: 0 }
    }

    fn judged(events: &[Event]) -> Result<(), Breach> {
        let mut judge = Judge::default();
        for event in events {
            let read: Event = event.to_string().parse().unwrap();
            assert_eq!(read, *event);
            judge.see(&read)?;
        }
        Ok(())
    }

    fn done(write: Write) -> Vec<Event> {
        vec![Event::Sent(write), Event::Acknowledged(write)]
    }

    fn found(write: Option<Write>) -> Vec<Event> {
        vec![Event::Looks, Event::Found(vec![write])]
    }

    #[test]
    fn what_may_be_passes_and_what_may_not_is_named() {
        let (old, late, new) = (write(1, 1), write(2, 1), write(3, 2));
        let sent = |write| vec![Event::Sent(write)];
        let fence = || vec![Event::Fenced(Epoch(2))];
        for fine in [
            vec![done(old), fence(), found(Some(old)), done(new), found(Some(new))],
            // What is under way may be there when the fence answers, or not.
            vec![done(old), sent(late), fence(), found(Some(old)), done(new), found(Some(new))],
            vec![done(old), sent(late), fence(), found(Some(late)), found(Some(late))],
            // Told while the drive is looked at, it may be there, or not yet.
            vec![vec![Event::Looks], done(old), vec![Event::Found(vec![None])]],
        ] {
            judged(&fine.concat()).unwrap();
        }
        for (events, breach) in [
            (vec![fence(), done(old)], Breach::StaleAcknowledged(old)),
            (vec![fence(), sent(old), found(Some(old))], Breach::StaleFound(old)),
            (vec![sent(old), fence(), found(None), found(Some(old))], Breach::StaleFound(old)),
            (
                vec![done(old), fence(), found(Some(old)), done(new), found(Some(old))],
                Breach::Lost(Some(old), new),
            ),
            (vec![done(old), found(None)], Breach::Lost(None, old)),
            (vec![done(old), done(late), found(Some(old))], Breach::Lost(Some(old), late)),
            (vec![found(Some(old))], Breach::NeverSent(old)),
        ] {
            assert_eq!(judged(&events.concat()), Err(breach), "{events:?}");
        }
    }

    #[test]
    fn a_block_says_what_write_it_is_of_unless_it_is_of_two() {
        let mut bytes = vec![0; 2 * BLOCK];
        assert_eq!(Event::found(&bytes), Ok(Event::Found(vec![None, None])));
        let second = Write { block: 1, ..write(7, 3) };
        bytes[BLOCK..].copy_from_slice(&second.bytes());
        assert_eq!(Event::found(&bytes), Ok(Event::Found(vec![None, Some(second)])));
        bytes[BLOCK + 512..BLOCK + 1024].fill(0);
        assert_eq!(Event::found(&bytes), Err(Breach::Torn(1)));
    }
}
