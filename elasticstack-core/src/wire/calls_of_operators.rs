//! The calls that are for operators alone. Rows of [`super::calls::CALLS`]: of two whose paths could match, the one
//! with fewer parameters comes first.

use super::calls::Call;
use super::keys::Object::{Account, Array, Capacity, Drive, Host, Pool, Stray};
use super::route::Answer::{Ids, Many, Nothing, One};
use super::route::Body::{Ignored, Record};
use super::route::{Route, change, read};

/// The rows.
pub(super) const ROWS: &[Route] = &[
    read(Call::AccountsList, "/accounts/list", Ids(Account), "The ids of all accounts.")
        .for_operators(),
    read(Call::AccountsInfo, "/accounts/info", Many(Account), "All accounts.").for_operators(),
    change(
        Call::AccountCreate,
        "/accounts/create",
        Record(Account),
        One(Account),
        "Makes a customer's account; the answer has, this once, its secret key.",
    )
    .for_operators(),
    read(Call::AccountInfo, "/accounts/ACCOUNT/info", One(Account), "One account.").for_operators(),
    change(
        Call::AccountSet,
        "/accounts/ACCOUNT/set",
        Record(Account),
        One(Account),
        "Changes an account; a quota below what is used takes nothing away.",
    )
    .for_operators(),
    change(
        Call::AccountSuspend,
        "/accounts/ACCOUNT/suspend",
        Ignored,
        One(Account),
        "Refuses every changing call of the account; what runs goes on and is metered.",
    )
    .for_operators(),
    change(
        Call::AccountSuspendStop,
        "/accounts/ACCOUNT/suspend/stop",
        Ignored,
        One(Account),
        "As suspend, and cuts the power of its servers.",
    )
    .for_operators(),
    change(
        Call::AccountResume,
        "/accounts/ACCOUNT/resume",
        Ignored,
        One(Account),
        "Lets a suspended account change things again; it starts nothing.",
    )
    .for_operators(),
    change(
        Call::AccountKey,
        "/accounts/ACCOUNT/key",
        Ignored,
        One(Account),
        "Gives the account another secret key, which the answer has this once; its tokens stay.",
    )
    .for_operators(),
    read(Call::HostsList, "/hosts/list", Ids(Host), "The ids of all hosts.").for_operators(),
    read(Call::HostsInfo, "/hosts/info", Many(Host), "All hosts.").for_operators(),
    change(
        Call::HostCreate,
        "/hosts/create",
        Record(Host),
        One(Host),
        "Makes a host known; the answer has, this once, the certificate bundle it joins with.",
    )
    .for_operators(),
    read(Call::HostInfo, "/hosts/HOST/info", One(Host), "One host.").for_operators(),
    change(
        Call::HostSet,
        "/hosts/HOST/set",
        Record(Host),
        One(Host),
        "Changes a host, such as whether anything new is placed there.",
    )
    .for_operators(),
    change(
        Call::HostRevoke,
        "/hosts/HOST/revoke",
        Ignored,
        One(Host),
        "Takes its certificate away: it is spoken with no more, and what it has is out of reach.",
    )
    .for_operators(),
    change(
        Call::HostJoin,
        "/hosts/HOST/join",
        Ignored,
        One(Host),
        "Makes another bundle to join with, which the answer has this once; the old one is void.",
    )
    .for_operators(),
    read(Call::ArraysList, "/arrays/list", Ids(Array), "The ids of all arrays.").for_operators(),
    read(Call::ArraysInfo, "/arrays/info", Many(Array), "All arrays of all hosts.").for_operators(),
    read(Call::ArrayInfo, "/arrays/ARRAY/info", One(Array), "One array.").for_operators(),
    change(
        Call::ArraySet,
        "/arrays/ARRAY/set",
        Record(Array),
        One(Array),
        "Changes whether anything new is placed on an array.",
    )
    .for_operators(),
    read(
        Call::CapacityInfo,
        "/capacity/CPU/MEM/SIZE/info",
        One(Capacity),
        "How many more servers of this size fit, each with a drive of SIZE bytes (0: none), where, and what binds then.",
    )
    .for_operators(),
    read(Call::PoolsList, "/pools/list", Ids(Pool), "The ids of all pools.").for_operators(),
    read(Call::PoolsInfo, "/pools/info", Many(Pool), "All pools of addresses.").for_operators(),
    change(
        Call::PoolCreate,
        "/pools/create",
        Record(Pool),
        One(Pool),
        "Adds a pool of addresses that static IPs are taken from.",
    )
    .for_operators(),
    read(Call::PoolInfo, "/pools/POOL/info", One(Pool), "One pool.").for_operators(),
    read(
        Call::QuarantineList,
        "/quarantine/list",
        Ids(Stray),
        "The ids of what hosts have and no intent knows.",
    )
    .for_operators(),
    read(
        Call::QuarantineInfo,
        "/quarantine/info",
        Many(Stray),
        "What hosts have and no intent knows: it is kept until you decide.",
    )
    .for_operators(),
    read(Call::StrayInfo, "/quarantine/STRAY/info", One(Stray), "One stray.").for_operators(),
    change(
        Call::StrayAdopt,
        "/quarantine/STRAY/adopt/ACCOUNT",
        Ignored,
        One(Drive),
        "Gives a stray drive to an account, whatever its quotas, or a stray snapshot back to its \
         drive's owner; it is metered from now on.",
    )
    .for_operators(),
    change(
        Call::StrayDestroy,
        "/quarantine/STRAY/destroy",
        Ignored,
        Nothing,
        "Destroys a stray drive or snapshot with its bytes, or ends and forgets a stray server.",
    )
    .for_operators(),
];
