//! Which of many are asked for: a page of them, in the order of their ids, some of them only.
//!
//! Invariant: a page that begins after an id is the same whatever came and went before that id, so
//! that walking through pages meets everything that was there all the while exactly once.

use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveState, HostState, ServerState};

use super::server_record;
use crate::db::Filter;

/// A part of a list. By default all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The most that are wanted.
    pub limit: Option<u32>,
    /// The id after which to begin, as it is shown.
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
}

impl Page {
    pub(super) fn of_drives(&self) -> Result<Filter<DriveState>> {
        self.filter(&[DriveState::Creating, DriveState::Ready], |state| match state {
            DriveState::Ready => "active",
            DriveState::Creating | DriveState::Destroying | DriveState::Gone => "inactive",
        })
    }

    pub(super) fn of_servers(&self) -> Result<Filter<ServerState>> {
        let shown = ServerState::ALL.iter().copied();
        let shown: Vec<ServerState> = shown
            .filter(|state| !matches!(state, ServerState::Destroying | ServerState::Gone))
            .collect();
        self.filter(&shown, server_record::status)
    }

    pub(super) fn of_hosts(&self) -> Result<Filter<HostState>> {
        self.filter(HostState::ALL, HostState::as_str)
    }

    fn filter<State: Copy>(
        &self,
        shown: &[State],
        status: impl Fn(State) -> &'static str,
    ) -> Result<Filter<State>> {
        let wanted =
            |state: &State| self.status.as_deref().is_none_or(|wanted| wanted == status(*state));
        let states: Vec<State> = shown.iter().copied().filter(wanted).collect();
        if states.is_empty() {
            let mut words: Vec<&str> = shown.iter().map(|state| status(*state)).collect();
            words.sort_unstable();
            words.dedup();
            let asked = self.status.as_deref().unwrap_or_default();
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("status was given {asked:?}, it is one of {}", words.join(", ")),
            )
            .field("status"));
        }
        let text = |asked: &Option<String>| asked.clone().unwrap_or_default();
        Ok(Filter {
            after: text(&self.after),
            name: text(&self.name),
            tag: text(&self.tag),
            limit: self.limit.map_or(i64::MAX, i64::from),
            states,
        })
    }
}
