//! Who may touch which drive of this host now (the grant table), pure.
//!
//! A drive is held by servers' runs, by lends to servers elsewhere, by jobs, by its snapshots, by one
//! access of the data path, or by its own upkeep. Invariants: an exclusive holder is alone on its drive; taking is all or nothing; a
//! holder is never in its own way. The table is memory only: it is filled again at start from
//! what is durable, before anything else may take.

use std::collections::HashMap;

use elasticstack_core::block::LendId;
use elasticstack_core::error::{Error, ErrorKind};
use elasticstack_core::id::{DriveId, JobId, ServerId, SnapshotId};
use elasticstack_core::wire::internal::Access;

/// Who holds drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// The run of a server, from before it starts until nothing of it is left.
    Server(ServerId),
    /// A lend, from before it is made until nothing of it is left.
    Lend(LendId),
    /// A job, from its first turn to its end.
    Job(JobId),
    /// One read or write of the data path.
    Data(u64),
    /// The resizing or destruction of the drive.
    Upkeep(DriveId),
    /// A snapshot that is taken of the drive, or that it is restored from.
    Snapshot(SnapshotId),
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    held: HashMap<DriveId, Vec<(Holder, Access)>>,
}

/// A drive could not be taken because of another holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub drive: DriveId,
    pub by: Holder,
}

impl From<Refused> for Error {
    fn from(Refused { drive, by }: Refused) -> Self {
        let reason = match by {
            Holder::Server(_) => "claimed by a server: stop it first",
            Holder::Lend(_) => {
                "lent to another host: stop the server there first, or wait until it is imaged"
            }
            Holder::Job(_) => "being imaged: wait until that ends",
            Holder::Data(_) => "being read or written: try again",
            Holder::Upkeep(_) => "being resized or destroyed: try again",
            Holder::Snapshot(_) => "copied to or from a snapshot: wait until that ends",
        };
        Self::new(ErrorKind::DriveInUse, format!("drive {drive} is {reason}"))
    }
}

impl Grants {
    /// Gives `holder` these drives in place of all that it held, or changes nothing.
    pub(crate) fn take(
        &mut self,
        holder: Holder,
        wanted: &[(DriveId, Access)],
    ) -> Result<(), Refused> {
        for &(drive, access) in wanted {
            if let Some(by) = self.obstacle(holder, drive, access) {
                return Err(Refused { drive, by });
            }
        }
        self.restore(holder, wanted);
        Ok(())
    }

    /// Notes what `holder` is known to hold, whoever else does: facts are not refused.
    pub(crate) fn restore(&mut self, holder: Holder, held: &[(DriveId, Access)]) {
        self.release(holder);
        for &(drive, access) in held {
            self.held.entry(drive).or_default().push((holder, access));
        }
    }

    /// Takes everything from `holder`; tells whether that was anything.
    pub(crate) fn release(&mut self, holder: Holder) -> bool {
        let count = |held: &HashMap<_, Vec<_>>| held.values().map(Vec::len).sum::<usize>();
        let before = count(&self.held);
        self.held.retain(|_, holders| {
            holders.retain(|(other, _)| *other != holder);
            !holders.is_empty()
        });
        count(&self.held) < before
    }

    /// The servers whose runs hold a drive.
    pub(crate) fn servers_with(&self, drive: DriveId) -> Vec<ServerId> {
        let holders = self.held.get(&drive).into_iter().flatten();
        let server = |(holder, _): &(Holder, Access)| match *holder {
            Holder::Server(server) => Some(server),
            Holder::Lend(_)
            | Holder::Job(_)
            | Holder::Data(_)
            | Holder::Upkeep(_)
            | Holder::Snapshot(_) => None,
        };
        holders.filter_map(server).collect()
    }

    /// Every lend that holds its drive.
    pub(crate) fn lends(&self) -> Vec<LendId> {
        let holders = self.held.values().flatten();
        let lend = |(holder, _): &(Holder, Access)| match *holder {
            Holder::Lend(lend) => Some(lend),
            Holder::Server(_)
            | Holder::Job(_)
            | Holder::Data(_)
            | Holder::Upkeep(_)
            | Holder::Snapshot(_) => None,
        };
        holders.filter_map(lend).collect()
    }

    fn obstacle(&self, holder: Holder, drive: DriveId, access: Access) -> Option<Holder> {
        self.held.get(&drive)?.iter().find_map(|&(other, held)| {
            let tolerated = access == Access::Shared && held == Access::Shared;
            (other != holder && !tolerated).then_some(other)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drive(n: u8) -> DriveId {
        format!("5b0e3c52-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
    }

    fn server(n: u8) -> Holder {
        Holder::Server(format!("5b0e3c52-0000-4000-8000-0000000001{n:02x}").parse().unwrap())
    }

    #[test]
    fn who_may_join_whom() {
        use Access::{Exclusive, Shared};
        for (held, wanted, joins) in [
            (Exclusive, Exclusive, false),
            (Exclusive, Shared, false),
            (Shared, Exclusive, false),
            (Shared, Shared, true),
        ] {
            let mut grants = Grants::default();
            grants.take(server(1), &[(drive(1), held)]).unwrap();
            let joined = grants.take(Holder::Data(7), &[(drive(1), wanted)]);
            assert_eq!(joined.is_ok(), joins, "{wanted:?} beside {held:?}");
            assert!(grants.take(server(1), &[(drive(1), held)]).is_ok(), "in its own way");
        }
    }

    #[test]
    fn a_refusal_names_the_holder_and_takes_nothing() {
        let mut grants = Grants::default();
        grants.take(server(1), &[(drive(1), Access::Exclusive)]).unwrap();
        let both = [(drive(2), Access::Exclusive), (drive(1), Access::Shared)];
        let refused = grants.take(server(2), &both).unwrap_err();
        assert_eq!(refused, Refused { drive: drive(1), by: server(1) });
        assert_eq!(Error::from(refused).kind(), ErrorKind::DriveInUse);
        grants.take(server(3), &[(drive(2), Access::Exclusive)]).unwrap();
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8, Vec<(u8, bool)>),
        Release(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let wants = proptest::collection::vec((0_u8..3, any::<bool>()), 0..3);
        prop_oneof![
            (0_u8..4, wants).prop_map(|(holder, wants)| Step::Take(holder, wants)),
            (0_u8..4).prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn an_exclusive_holder_is_alone(steps in proptest::collection::vec(step(), 0..40)) {
            let mut grants = Grants::default();
            for step in steps {
                match step {
                    Step::Take(holder, wants) => {
                        let access = |exclusive| {
                            if exclusive { Access::Exclusive } else { Access::Shared }
                        };
                        let wants: Vec<_> =
                            wants.into_iter().map(|(n, sole)| (drive(n), access(sole))).collect();
                        let before = format!("{grants:?}");
                        if grants.take(server(holder), &wants).is_err() {
                            prop_assert_eq!(format!("{grants:?}"), before);
                        }
                    }
                    Step::Release(holder) => {
                        grants.release(server(holder));
                        prop_assert!(!grants.release(server(holder)));
                    }
                }
                for holders in grants.held.values() {
                    for (sole, _) in holders.iter().filter(|(_, a)| *a == Access::Exclusive) {
                        prop_assert!(holders.iter().all(|(other, _)| other == sole));
                    }
                }
            }
        }
    }
}
