//! Which of many are asked for: a page of them, in the order of their ids, some of them only.
//!
//! Invariant: a page that begins after an id is the same whatever came and went before that id, so
//! that walking through pages meets everything that was there all the while exactly once.

use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::resource::ResourceId;
use elasticstack_core::state::{HostState, SnapshotState};
use uuid::Uuid;

use crate::db::Standing;

/// A part of a list. By default all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The most that are wanted.
    pub limit: Option<u32>,
    /// The id or cursor after which to begin, as it is shown.
    pub after: Option<String>,
    /// A tag that each must have.
    pub tag: Option<String>,
    /// The status that each must have.
    pub status: Option<String>,
    /// The name that each must have.
    pub name: Option<String>,
    /// Of usage: the first instant of the period.
    pub from: Option<Timestamp>,
    /// Of usage: the first instant after the period.
    pub to: Option<Timestamp>,
    /// Of events: how long to wait for one.
    pub wait: Option<Duration>,
}

/// What a page asks of objects that are known by a `K`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a, K = Uuid> {
    pub(super) after: Option<K>,
    pub(super) limit: usize,
    pub(super) status: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    tag: Option<&'a str>,
}

impl Page {
    pub(super) fn of_drives(&self) -> Result<Wanted<'_>> {
        self.wanted(&["active", "inactive"])
    }

    pub(super) fn of_servers(&self) -> Result<Wanted<'_>> {
        self.wanted(&["active", "paused", "stopped"])
    }

    pub(super) fn of_accounts(&self) -> Result<Wanted<'_>> {
        self.wanted(&Standing::ALL.map(|standing| standing.as_str()))
    }

    pub(super) fn of_hosts(&self) -> Result<Wanted<'_>> {
        let mut words: Vec<&str> = HostState::ALL.iter().map(|state| state.as_str()).collect();
        words.sort_unstable();
        self.wanted(&words)
    }

    pub(super) fn of_snapshots(&self) -> Result<Wanted<'_>> {
        self.wanted(&["active", "inactive", "restoring"])
    }

    /// What is wanted of objects that have no status.
    pub(super) fn of_others(&self) -> Result<Wanted<'_>> {
        self.wanted(&[])
    }

    pub(super) fn of_resources(&self) -> Result<Wanted<'_, ResourceId>> {
        self.wanted_by(&[], ResourceId::find)
    }

    fn wanted(&self, statuses: &[&str]) -> Result<Wanted<'_>> {
        self.wanted_by(statuses, |id| Uuid::try_parse(id).ok())
    }

    /// What is wanted of objects that have one of these statuses.
    fn wanted_by<K>(
        &self,
        statuses: &[&str],
        parse: impl Fn(&str) -> Option<K>,
    ) -> Result<Wanted<'_, K>> {
        if let Some(asked) = self.status.as_deref().filter(|asked| !statuses.contains(asked)) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("status was given {asked:?}, it is one of {}", statuses.join(", ")),
            )
            .field("status"));
        }
        let after = self.after.as_deref().map(|after| {
            parse(after).ok_or_else(|| {
                Error::new(ErrorKind::InvalidValue, "after takes the id of the last one you have")
                    .field("after")
            })
        });
        let after = after.transpose()?;
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        Ok(Wanted {
            after,
            limit: limit.unwrap_or(usize::MAX),
            status: self.status.as_deref(),
            name: self.name.as_deref(),
            tag: self.tag.as_deref(),
        })
    }
}

impl<K: Ord> Wanted<'_, K> {
    /// Whether an object is what is wanted, but for its place in the order of ids.
    pub(super) fn fits(&self, status: &str, name: &str, tags: &str) -> bool {
        self.status.is_none_or(|wanted| wanted == status)
            && self.name.is_none_or(|wanted| wanted == name)
            && self.tag.is_none_or(|wanted| tags.split_whitespace().any(|tag| tag == wanted))
    }

    /// Those that are wanted of all these objects, which are in the order of their ids and of which
    /// `shown` tells the status, the name and the tags.
    pub(super) fn of<T>(
        &self,
        all: impl IntoIterator<Item = (K, T)>,
        shown: impl Fn(&T) -> [&str; 3],
    ) -> Vec<(K, T)> {
        let wanted = all.into_iter().filter(|(id, object)| {
            let [status, name, tags] = shown(object);
            self.after.as_ref().is_none_or(|after| id > after) && self.fits(status, name, tags)
        });
        wanted.take(self.limit).collect()
    }
}

/// The word that customers see for a snapshot's state.
pub(super) fn snapshot_status(state: SnapshotState) -> &'static str {
    match state {
        SnapshotState::Ready => "active",
        SnapshotState::Restoring => "restoring",
        SnapshotState::Creating | SnapshotState::Destroying | SnapshotState::Gone => "inactive",
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::wire::keys::Object;
    use elasticstack_core::wire::queries::{QUERIES, QueryTakes};

    use super::*;

    #[test]
    fn the_statuses_that_are_documented_are_those_that_are_shown() {
        let mut walked = 0;
        for query in QUERIES.iter().filter(|query| query.name == "status") {
            let QueryTakes::OneOf(words) = query.takes else { panic!("{query:?}") };
            for &object in query.objects {
                let of = |status: &str| {
                    let page = Page { status: Some(status.to_owned()), ..Page::default() };
                    match object {
                        Object::Account => page.of_accounts().map(|_| ()),
                        Object::Drive => page.of_drives().map(|_| ()),
                        Object::Host => page.of_hosts().map(|_| ()),
                        Object::Server => page.of_servers().map(|_| ()),
                        Object::Snapshot => page.of_snapshots().map(|_| ()),
                        other => panic!("say here how a {other:?} is listed"),
                    }
                };
                assert!(words.iter().all(|word| of(word).is_ok()), "{object:?}");
                let refused = of("none").unwrap_err();
                let all = format!("it is one of {}", words.join(", "));
                assert!(refused.public_message().ends_with(&all), "{object:?}: {refused}");
                walked += 1;
            }
        }
        assert_eq!(walked, 5);
    }
}
