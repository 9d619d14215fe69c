//! The calls about what happened. Rows of [`super::calls::CALLS`]: of two whose paths could match, the one
//! with fewer parameters comes first.

use super::calls::Call;
use super::keys::Object::Event;
use super::route::Answer::Many;
use super::route::{Route, read};

/// The rows.
pub(super) const ROWS: &[Route] = &[
    read(
        Call::EventsInfo,
        "/events/info",
        Many(Event),
        "What happened to your drives, snapshots, servers, resources, tokens and account, oldest \
         first.",
    ),
    read(Call::EventsInfoAll, "/events/info/all", Many(Event), "As info, of all accounts.")
        .for_operators(),
];
