//! The calls about what else customers have: resources, profile, tokens, usage. Rows of [`super::calls::CALLS`]: of two whose paths could match, the one
//! with fewer parameters comes first.

use super::calls::Call;
use super::keys::Object::{Capabilities, Profile, Resource, Token, Usage};
use super::route::Answer::{Ids, Many, Nothing, One};
use super::route::Body::{Ignored, Record};
use super::route::{Route, change, read};

/// The rows.
pub(super) const ROWS: &[Route] = &[
    read(Call::ResourcesList, "/resources/list", Ids(Resource), "Your static IPs and VLANs."),
    read(Call::ResourcesInfo, "/resources/info", Many(Resource), "Your static IPs and VLANs."),
    read(
        Call::ResourcesListOf,
        "/resources/TYPE/list",
        Ids(Resource),
        "Your resources of one type.",
    ),
    read(
        Call::ResourcesInfoOf,
        "/resources/TYPE/info",
        Many(Resource),
        "Your resources of one type.",
    ),
    change(
        Call::ResourceCreate,
        "/resources/TYPE/create",
        Record(Resource),
        One(Resource),
        "Takes the lowest free address as a static IP, or makes a VLAN; it is metered from now on.",
    ),
    read(Call::ResourceInfo, "/resources/TYPE/RESOURCE/info", One(Resource), "One resource."),
    change(
        Call::ResourceSet,
        "/resources/TYPE/RESOURCE/set",
        Record(Resource),
        One(Resource),
        "Changes a resource.",
    ),
    change(
        Call::ResourceDestroy,
        "/resources/TYPE/RESOURCE/destroy",
        Ignored,
        Nothing,
        "Gives back a resource that no running server uses.",
    ),
    read(Call::ProfileInfo, "/profile/info", One(Profile), "Your account."),
    change(
        Call::ProfileSet,
        "/profile/set",
        Record(Profile),
        One(Profile),
        "Changes your account.",
    ),
    read(Call::TokensList, "/tokens/list", Ids(Token), "The ids of your tokens."),
    read(Call::TokensInfo, "/tokens/info", Many(Token), "All your tokens."),
    change(
        Call::TokenCreate,
        "/tokens/create",
        Record(Token),
        One(Token),
        "Makes a token; the answer has, this once, its secret. Asked with the account's key.",
    ),
    read(Call::TokenInfo, "/tokens/TOKEN/info", One(Token), "One token."),
    change(
        Call::TokenDestroy,
        "/tokens/TOKEN/destroy",
        Ignored,
        Nothing,
        "Takes a token away: it opens nothing from then on.",
    ),
    read(
        Call::UsageInfo,
        "/usage/info",
        Many(Usage),
        "Your usage; from and to, in seconds since 1970, ask for what touches that period.",
    ),
    read(Call::UsageInfoAll, "/usage/info/all", Many(Usage), "As info, of all accounts.")
        .for_operators(),
    read(
        Call::CapabilitiesInfo,
        "/capabilities/info",
        One(Capabilities),
        "What this installation offers, and its limits.",
    ),
];
