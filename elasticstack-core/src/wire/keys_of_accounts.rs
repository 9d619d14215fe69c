//! The keys of what else customers have: resources, profile, tokens, usage. Rows of [`super::keys::KEYS`], in the order of their patterns.

use super::form::Form;
use super::key::{Input, Key, Object, Takes, key};

const OFFER: &[Object] = &[Object::Capabilities];
const HOLDER: &[Object] = &[Object::Account, Object::Profile];
const PROFILE: &[Object] = &[Object::Profile];
const RESOURCE: &[Object] = &[Object::Resource];
const TOKEN: &[Object] = &[Object::Token];
const USAGE: &[Object] = &[Object::Usage];

/// The rows.
pub(super) const ROWS: &[Key] = &[
    key(
        "access",
        TOKEN,
        Input::Create,
        Takes::OneOf(&["read", "full"]),
        "read: calls that change nothing; full, if unset: all that the account may.",
    ),
    key("account", USAGE, Input::Never, Takes::Nothing, "Who used it."),
    key("created", TOKEN, Input::Never, Takes::Nothing, "When it was made, in seconds since 1970.")
        .number_of("seconds since 1970"),
    key("email", HOLDER, Input::Always, Takes::Form(Form::Mail), "Where the account is reached."),
    key(
        "expires",
        TOKEN,
        Input::Create,
        Takes::Range(1, u32::MAX),
        "When it ends, in seconds since 1970; never if unset.",
    )
    .number_of("seconds since 1970"),
    key("from", USAGE, Input::Never, Takes::Nothing, "When it began, in microseconds since 1970.")
        .number_of("microseconds since 1970"),
    key("gateway", RESOURCE, Input::Never, Takes::Nothing, "The router of a static IP's subnet."),
    key("interval", USAGE, Input::Never, Takes::Nothing, "The permanent id of the interval.")
        .number(),
    key(
        "limit:*",
        OFFER,
        Input::Never,
        Takes::Nothing,
        "A limit by name: bytes, seconds or a count as the name says.",
    )
    .number(),
    key(
        "meter",
        USAGE,
        Input::Never,
        Takes::Nothing,
        "cpu in MHz, memory in MiB, drive and snapshot in bytes, ip and vlan one each.",
    ),
    key(
        "nameserver",
        RESOURCE,
        Input::Never,
        Takes::Nothing,
        "The name servers for a static IP, parted by spaces.",
    ),
    key("netmask", RESOURCE, Input::Never, Takes::Nothing, "The mask of a static IP's subnet."),
    key("offer:*", OFFER, Input::Never, Takes::Nothing, "yes or no, by name."),
    key(
        "quantity",
        USAGE,
        Input::Never,
        Takes::Nothing,
        "How much of it, in the unit of its meter.",
    )
    .number(),
    key(
        "quota:*",
        PROFILE,
        Input::Never,
        Takes::Nothing,
        "A limit of your account, beside used:* of the same name; absent if there is none.",
    )
    .number(),
    key("resource", RESOURCE, Input::Never, Takes::Nothing, "The address, or the VLAN's UUID."),
    key("resource", USAGE, Input::Never, Takes::Nothing, "The UUID of what was used."),
    key(
        "secret",
        TOKEN,
        Input::Never,
        Takes::Nothing,
        "The token itself; in the answer of create only.",
    )
    .secret(),
    key(
        "to",
        USAGE,
        Input::Never,
        Takes::Nothing,
        "When it ended, in microseconds since 1970; absent while it goes on.",
    )
    .number_of("microseconds since 1970"),
    key("token", TOKEN, Input::Never, Takes::Nothing, "The token's UUID."),
    key("type", RESOURCE, Input::Never, Takes::Nothing, "ip or vlan."),
    key(
        "used:*",
        HOLDER,
        Input::Never,
        Takes::Nothing,
        "What counts against the quota of that name, in its unit.",
    )
    .number(),
    key("version", OFFER, Input::Never, Takes::Nothing, "The version of the program."),
];
