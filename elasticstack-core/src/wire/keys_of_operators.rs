//! The keys that operators alone see. Rows of [`super::keys::KEYS`], in the order of their patterns.

use super::form::Form;
use super::key::{Input, Key, Object, Takes, key};

const ACCOUNT: &[Object] = &[Object::Account];
const ARRAY: &[Object] = &[Object::Array];
const CAPACITY: &[Object] = &[Object::Capacity];
const HOST: &[Object] = &[Object::Host];
const PLACE: &[Object] = &[Object::Array, Object::Host];
const POOL: &[Object] = &[Object::Pool];
const STRAY: &[Object] = &[Object::Stray];
const ANY: Takes = Takes::Range(0, u32::MAX);
const ADDRESS: Takes = Takes::Form(Form::Address);

/// The rows.
pub(super) const ROWS: &[Key] = &[
    key("accelerator", HOST, Input::Never, Takes::Nothing, "What runs its guests, and why."),
    key("account", ACCOUNT, Input::Never, Takes::Nothing, "The account's UUID."),
    key(
        "account",
        STRAY,
        Input::Never,
        Takes::Nothing,
        "Whose the drive or the snapshot says that it is.",
    ),
    key("address", HOST, Input::Create, Takes::Form(Form::Listener), "Where its agent listens.")
        .needed_by(HOST),
    key("addresses", POOL, Input::Never, Takes::Nothing, "How many addresses it has.")
        .number_of("addresses"),
    key("addresses:free", POOL, Input::Never, Takes::Nothing, "How many of them nobody has.")
        .number_of("addresses"),
    key("array", ARRAY, Input::Never, Takes::Nothing, "The array's UUID."),
    key(
        "array",
        STRAY,
        Input::Never,
        Takes::Nothing,
        "The array that the drive or the snapshot lies on.",
    ),
    key(
        "array:*",
        HOST,
        Input::Never,
        Takes::Nothing,
        "Of each array by name: its id, and NAME:capacity (0 if it failed) and NAME:promised in bytes; more in /arrays.",
    ),
    key(
        "binds",
        CAPACITY,
        Input::Never,
        Takes::Nothing,
        "What keeps one more out; binds:wanted and binds:available say by how much.",
    ),
    key(
        "binds:available",
        CAPACITY,
        Input::Never,
        Takes::Nothing,
        "The most that is to be had of it.",
    )
    .number(),
    key("binds:wanted", CAPACITY, Input::Never, Takes::Nothing, "How much one more needs of it.")
        .number(),
    key(
        "bundle",
        HOST,
        Input::Never,
        Takes::Nothing,
        "The certificates and the key it joins with; in the answers of create and join only.",
    )
    .secret(),
    key(
        "capacity",
        ARRAY,
        Input::Never,
        Takes::Nothing,
        "What drives on it may sum up to; 0 if it failed.",
    )
    .number_of("bytes"),
    key(
        "certificate",
        HOST,
        Input::Never,
        Takes::Nothing,
        "SHA-256 of the one it is known by, revoked, or absent if any is good that names it.",
    ),
    key("cpu:free", HOST, Input::Never, Takes::Nothing, "Its processor time that no server has.")
        .number_of("MHz"),
    key(
        "cpu:limits",
        HOST,
        Input::Never,
        Takes::Nothing,
        "How processor time is limited, or none.",
    ),
    key("cpu:total", HOST, Input::Never, Takes::Nothing, "Its processor time in MHz.")
        .number_of("MHz"),
    key(
        "disk:*",
        ARRAY,
        Input::Never,
        Takes::Nothing,
        "Of each of its disks, counted from 0: its serial number, and N:status (in_sync, spare or faulty) and N:corrected, read errors corrected from the other disks.",
    ),
    key(
        "disks",
        ARRAY,
        Input::Never,
        Takes::Nothing,
        "How many disks it is made of, spares aside; absent of what is not made of disks.",
    )
    .number_of("disks"),
    key("disks:missing", ARRAY, Input::Never, Takes::Nothing, "How many of them it lacks.")
        .number_of("disks"),
    key("drives", PLACE, Input::Never, Takes::Nothing, "How many drives have room there.")
        .number_of("drives"),
    key("first", POOL, Input::Create, ADDRESS, "Its lowest address.").needed_by(POOL),
    key("free", ARRAY, Input::Never, Takes::Nothing, "Its bytes that no drive is promised.")
        .number_of("bytes"),
    key(
        "gateway",
        POOL,
        Input::Create,
        ADDRESS,
        "The router of its subnet, itself none of the pool's addresses.",
    )
    .needed_by(POOL),
    key("host", HOST, Input::Never, Takes::Nothing, "The host's UUID."),
    key("host", ARRAY, Input::Never, Takes::Nothing, "The host that has it."),
    key("host", STRAY, Input::Never, Takes::Nothing, "The host that has it."),
    key(
        "host:*",
        CAPACITY,
        Input::Never,
        Takes::Nothing,
        "How many of them fit on the host of that UUID.",
    )
    .number_of("servers"),
    key("last", POOL, Input::Create, ADDRESS, "Its highest address.").needed_by(POOL),
    key("mem:free", HOST, Input::Never, Takes::Nothing, "Its memory that no server has.")
        .number_of("MiB"),
    key("mem:total", HOST, Input::Never, Takes::Nothing, "Its memory for guests in MiB.")
        .number_of("MiB"),
    key(
        "mismatches",
        ARRAY,
        Input::Never,
        Takes::Nothing,
        "What the last check found to differ between its disks.",
    )
    .number_of("sectors of 512 bytes"),
    key("name", ARRAY, Input::Never, Takes::Nothing, "What its host calls it."),
    key(
        "nameserver",
        POOL,
        Input::Create,
        Takes::Form(Form::Addresses),
        "The name servers that its addresses use.",
    ),
    key("netmask", POOL, Input::Create, ADDRESS, "The mask of its subnet.").needed_by(POOL),
    key("object", STRAY, Input::Never, Takes::Nothing, "Its own UUID."),
    key(
        "placements",
        PLACE,
        Input::Always,
        Takes::OneOf(&["open", "closed"]),
        "closed: nothing new is placed there, no start and no new drive; what is there goes on.",
    ),
    key("pool", POOL, Input::Never, Takes::Nothing, "The pool's UUID."),
    key(
        "containers",
        HOST,
        Input::Never,
        Takes::Nothing,
        "true if it runs containers, else false.",
    ),
    key(
        "portal",
        HOST,
        Input::Never,
        Takes::Nothing,
        "Where it lends drives to servers on other hosts; absent if it does not.",
    ),
    key("promised", ARRAY, Input::Never, Takes::Nothing, "Its bytes that drives are promised.")
        .number_of("bytes"),
    key(
        "quota:cpu",
        ACCOUNT,
        Input::Always,
        ANY,
        "The most processor time of its running servers; the installation's default if unset.",
    )
    .number_of("MHz"),
    key(
        "quota:disk",
        ACCOUNT,
        Input::Always,
        Takes::Size,
        "The most bytes that its drives and snapshots sum up to; as for quota:cpu.",
    ),
    key("quota:drives", ACCOUNT, Input::Always, ANY, "The most drives; as for quota:cpu.")
        .number_of("drives"),
    key("quota:ip", ACCOUNT, Input::Always, ANY, "The most static IPs; as for quota:cpu.")
        .number_of("addresses"),
    key(
        "quota:mem",
        ACCOUNT,
        Input::Always,
        ANY,
        "The most memory of its running servers; as for quota:cpu.",
    )
    .number_of("MiB"),
    key(
        "quota:servers",
        ACCOUNT,
        Input::Always,
        ANY,
        "The most servers, running or not; as for quota:cpu.",
    )
    .number_of("servers"),
    key("quota:vlan", ACCOUNT, Input::Always, ANY, "The most VLANs; as for quota:cpu.")
        .number_of("VLANs"),
    key("scope", ACCOUNT, Input::Never, Takes::Nothing, "customer or operator."),
    key(
        "secret",
        ACCOUNT,
        Input::Never,
        Takes::Nothing,
        "The account's secret key; in the answers of create and key only.",
    )
    .secret(),
    key("servers", CAPACITY, Input::Never, Takes::Nothing, "How many more fit.")
        .number_of("servers"),
    key("servers", HOST, Input::Never, Takes::Nothing, "How many servers hold room there.")
        .number_of("servers"),
    key("since", HOST, Input::Never, Takes::Nothing, "When it came to its status.")
        .number_of("seconds since 1970"),
    key("since", STRAY, Input::Never, Takes::Nothing, "When its host first told of it.")
        .number_of("seconds since 1970"),
    key("size", STRAY, Input::Never, Takes::Nothing, "The size of the drive or the snapshot.")
        .number_of("bytes"),
    key("stray", STRAY, Input::Never, Takes::Nothing, "The stray's UUID."),
    key("tier", ARRAY, Input::Never, Takes::Nothing, "What it is made of: disk or ssd."),
    key("type", STRAY, Input::Never, Takes::Nothing, "drive, server or snapshot."),
    key(
        "warning:*",
        ARRAY,
        Input::Never,
        Takes::Nothing,
        "Each sign of trouble to come, counted from 0 (disk_failing, disk_errors, disk_worn, disk_slow or nearly_full), with N:disk, the disk that it is about, if it is about one, and N:sentence, what was found and what to do.",
    ),
    key(
        "why",
        STRAY,
        Input::Never,
        Takes::Nothing,
        "unknown: there never was intent for it here; destroyed: it was, and its host has it again.",
    ),
    key(
        "work",
        ARRAY,
        Input::Never,
        Takes::Nothing,
        "What is done to all of it, if anything: rebuild, resync, check, repair or reshape.",
    ),
    key("work:progress", ARRAY, Input::Never, Takes::Nothing, "How much of that is done.")
        .number_of("hundredths"),
];
