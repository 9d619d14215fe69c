//! What was asked of the product, what it answered, and so what must have come of it. Pure.
//!
//! A wish that was acknowledged must hold at the end. One whose answer was lost may have been
//! taken in or not; one that was refused changed nothing. The windows of time between asking and
//! being answered bound what usage may say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use elasticstack_core::error::ErrorKind;

/// What a call came to, as far as its caller can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// It was done, or will be.
    Done(T),
    /// It may have been taken in, or not.
    Unsure,
    /// It was refused and changed nothing.
    Refused(ErrorKind),
}

impl<T> Answer<T> {
    /// Why the call is to be repeated by whoever insists; `None` if it was done.
    pub(crate) fn obstacle(&self) -> Option<String> {
        match self {
            Self::Done(_) => None,
            Self::Unsure => Some("no answer".to_owned()),
            Self::Refused(kind) => Some(kind.code().to_owned()),
        }
    }

    /// The same answer, about something else.
    pub(crate) fn map<U>(self, what: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Done(done) => Answer::Done(what(done)),
            Self::Unsure => Answer::Unsure,
            Self::Refused(kind) => Answer::Refused(kind),
        }
    }
}

/// How an object may be found at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// A server that runs.
    Active,
    /// A server that is kept and does not run.
    Stopped,
    /// A drive that is there.
    Present,
    /// Not there.
    Absent,
}

/// What a server becomes when it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// It stays, stopped.
    Persistent,
    /// It vanishes.
    Vanishing,
}

impl Keeping {
    /// What a stop makes of a server; one that does not run is left as it is.
    pub(crate) const fn after_stop(self, before: Fate) -> Fate {
        match (self, before) {
            (Self::Persistent, Fate::Active) => Fate::Stopped,
            (Self::Vanishing, Fate::Active) => Fate::Absent,
            (_, Fate::Stopped | Fate::Present | Fate::Absent) => before,
        }
    }
}

/// From asking for something to its answer, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) asked: i64,
    pub(crate) answered: i64,
}

/// A drive or a server under its name, which the storm gives once.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its id; unknown as long as the answer to its creation is lost.
    pub(crate) id: Option<String>,
    /// Every way in which it may be found.
    pub(crate) may: BTreeSet<Fate>,
    /// When it was made.
    pub(crate) made: Window,
    /// When it was destroyed: from the first try to the last answer.
    pub(crate) ended: Option<Window>,
    /// A drive's sizes, or a server's drives.
    pub(crate) kind: Kind,
}

/// What differs between drives and servers.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A drive, with every size that it may have.
    Drive {
        /// In bytes.
        sizes: BTreeSet<u64>,
    },
    /// A server.
    Server {
        /// Whether it stays when it stops.
        keeping: Keeping,
        /// How often its start was asked for, acknowledged or not.
        starts: u64,
        /// Whether it was seen to run.
        ran: Ran,
    },
}

/// Whether a server was seen to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It may have run.
    Perhaps,
    /// It ran for certain.
    Seen,
}

impl Entry {
    /// Takes in what came of a wish that, granted, makes `after` of what it was.
    ///
    /// # Errors
    /// It is not there and nobody wished it away.
    pub(crate) fn answered<T>(
        &mut self,
        after: impl Fn(Fate) -> Fate,
        answer: &Answer<T>,
    ) -> Result<()> {
        let granted: BTreeSet<Fate> = self.may.iter().map(|before| after(*before)).collect();
        match answer {
            Answer::Done(_) => self.may = granted,
            Answer::Unsure => self.may.extend(granted),
            Answer::Refused(ErrorKind::NotFound) if self.may.contains(&Fate::Absent) => {
                self.may = BTreeSet::from([Fate::Absent]);
            }
            Answer::Refused(ErrorKind::NotFound) => bail!("it is lost: nobody wished it away"),
            Answer::Refused(_) => {}
        }
        Ok(())
    }

    /// Whether nothing is left of it for certain.
    pub(crate) fn is_gone(&self) -> bool {
        self.may.iter().eq([&Fate::Absent])
    }

    /// Why being found as `fate` is wrong; `None` if it is right.
    pub(crate) fn complaint(&self, fate: Fate) -> Option<String> {
        (!self.may.contains(&fate)).then(|| format!("it is {fate:?}, it may be {:?}", self.may))
    }
}

/// All drives and servers by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: BTreeMap<String, Entry>,
}

impl Ledger {
    /// Takes in what came of creating `name`.
    pub(crate) fn created(
        &mut self,
        (name, kind): (&str, Kind),
        wished: Fate,
        answer: &Answer<String>,
        made: Window,
    ) {
        let (id, may) = match answer {
            Answer::Done(id) => (Some(id.clone()), BTreeSet::from([wished])),
            Answer::Unsure => (None, BTreeSet::from([wished, Fate::Absent])),
            Answer::Refused(_) => return,
        };
        self.entries.insert(name.to_owned(), Entry { id, may, made, ended: None, kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Window = Window { asked: 1, answered: 2 };

    fn server(answer: &Answer<String>) -> Ledger {
        let mut ledger = Ledger::default();
        let kind = Kind::Server { keeping: Keeping::Persistent, starts: 1, ran: Ran::Perhaps };
        ledger.created(("web", kind), Fate::Active, answer, MADE);
        ledger
    }

    #[test]
    fn only_a_lost_answer_leaves_a_choice() {
        let mut ledger = server(&Answer::Done("id".to_owned()));
        let web = ledger.entries.get_mut("web").unwrap();
        let stop = |before| Keeping::Persistent.after_stop(before);
        assert!(web.complaint(Fate::Stopped).is_some());
        web.answered(stop, &Answer::<()>::Refused(ErrorKind::ServerBusy)).unwrap();
        assert!(web.complaint(Fate::Stopped).is_some(), "a refusal changes nothing");
        web.answered(stop, &Answer::<()>::Unsure).unwrap();
        assert!(web.complaint(Fate::Stopped).is_none() && web.complaint(Fate::Active).is_none());
        assert!(web.complaint(Fate::Absent).is_some());
        web.answered(stop, &Answer::Done(())).unwrap();
        assert!(web.complaint(Fate::Active).is_some());
    }

    #[test]
    fn what_nobody_wished_away_must_be_found() {
        let mut ledger = server(&Answer::Done("id".to_owned()));
        let web = ledger.entries.get_mut("web").unwrap();
        let stop = |before| Keeping::Persistent.after_stop(before);
        let missing = Answer::<()>::Refused(ErrorKind::NotFound);
        assert!(web.answered(stop, &missing).is_err());
        web.answered(|_| Fate::Absent, &Answer::<()>::Unsure).unwrap();
        web.answered(|_| Fate::Absent, &missing).unwrap();
        assert!(web.is_gone());
        assert!(server(&Answer::Refused(ErrorKind::DriveInUse)).entries.is_empty());
    }
}
