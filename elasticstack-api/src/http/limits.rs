//! How often one may call, and how often one may be wrong: buckets that fill with time, one for
//! each account and address.
//!
//! Owns the counting; time is given by the caller. Counts are this process's own: several servers
//! each allow as much. Invariant: however many callers there are, a table has at most [`MOST`]
//! rows; what is dropped for want of room is what is nearest to being forgotten anyway.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use elasticstack_core::prelude::*;
use http::HeaderMap;

/// The most rows of a table.
const MOST: usize = 50_000;

/// How often an address may give wrong credentials in a row, and how long each counts.
const ADDRESS: Rate = Rate { burst: 20, every: Duration::from_secs(15) };

/// The same for wrong credentials of an account, from wherever they come.
const ACCOUNT: Rate = Rate { burst: 100, every: Duration::from_secs(3) };

/// What an operator grants to callers of the public API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The calls that one account may make in a row.
    pub burst: u32,
    /// The calls that an account is granted each second.
    pub per_second: u32,
    /// The proxies whose `X-Forwarded-For` is believed. A request from elsewhere comes from where
    /// it comes from.
    pub proxies: Vec<IpAddr>,
    /// The connections that may be open at a time, screens apart. Further ones wait.
    pub connections: u32,
    /// The requests that may be under way at a time from one address, if it is known.
    pub requests_each: u32,
    /// The screens of servers that may be open at a time.
    pub screens: u32,
    /// Those of one account.
    pub screens_each: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            burst: 10_000,
            per_second: 2_000,
            proxies: Vec::new(),
            connections: 4_096,
            requests_each: 256,
            screens: 500,
            screens_each: 20,
        }
    }
}

/// So many at once, and one more each so often.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// What is left of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Until all of it is there again.
    pub(super) reset: Duration,
}

/// One bucket for each key. What is kept of it is when it is full again.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    full_at: Mutex<HashMap<K, Timestamp>>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: Mutex::default() }
    }

    /// What is left, and how long it takes until there is something if nothing is.
    fn room(&self, missing: Duration) -> Result<Room, Duration> {
        let Rate { burst, every } = self.rate;
        let held = every.saturating_mul(burst);
        if missing + every > held {
            return Err(missing + every - held);
        }
        let left = (held - missing).as_micros() / every.as_micros().max(1);
        let remaining = u32::try_from(left).unwrap_or(burst);
        Ok(Room { limit: burst, remaining, reset: missing })
    }

    fn missing(&self, key: &K, now: Timestamp) -> Duration {
        let all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).map_or(Duration::ZERO, |full_at| full_at.since(now))
    }

    /// Whether anything may be taken now.
    fn look(&self, key: &K, now: Timestamp) -> Result<Room, Duration> {
        self.room(self.missing(key, now))
    }

    /// Takes one, and says what is left.
    fn take(&self, key: K, now: Timestamp) -> Result<Room, Duration> {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = all.get(&key).map_or(Duration::ZERO, |full_at| full_at.since(now));
        let room = self.room(missing)?;
        if all.len() >= MOST && !all.contains_key(&key) {
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= MOST {
                let least = all.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| *key);
                least.and_then(|least| all.remove(&least));
            }
        }
        let missing = missing + self.rate.every;
        all.insert(key, now.plus(missing));
        Ok(Room { remaining: room.remaining.saturating_sub(1), reset: missing, ..room })
    }
}

/// Counts calls and wrong credentials.
#[derive(Debug)]
pub(super) struct Counters {
    calls: Buckets<AccountId>,
    per_second: u32,
    wrong_from: Buckets<IpAddr>,
    wrong_for: Buckets<AccountId>,
}

impl Counters {
    pub(super) fn new(limits: &Limits) -> Self {
        let per_second = limits.per_second.max(1);
        let every = Duration::from_secs(1) / per_second;
        Self {
            calls: Buckets::new(Rate { burst: limits.burst.max(1), every }),
            per_second,
            wrong_from: Buckets::new(ADDRESS),
            wrong_for: Buckets::new(ACCOUNT),
        }
    }

    /// Counts a call of an account.
    ///
    /// # Errors
    /// `Throttled`, and how long to wait.
    pub(super) fn call(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Room, (Error, Duration)> {
        self.calls.take(account, now).map_err(|wait| {
            let (limit, per_second) = (self.calls.rate.burst, self.per_second);
            let sentence = format!(
                "too many calls: an account may make {per_second} a second, and {limit} in a row: \
                 wait as long as Retry-After says"
            );
            (Error::new(ErrorKind::Throttled, sentence), wait)
        })
    }

    /// Whether credentials of an account may be tried from an address, if it is known from where.
    /// An account that is guessed at from many addresses stays open to those that were never wrong.
    /// Credentials that name no account open none, and count for the address alone.
    ///
    /// # Errors
    /// `Throttled`, and how long to wait.
    pub(super) fn may_try(
        &self,
        address: Option<IpAddr>,
        account: Option<AccountId>,
        now: Timestamp,
    ) -> Result<(), (Error, Duration)> {
        let from = address.map(|address| self.wrong_from.look(&network(address), now));
        let guessed = account.map(|account| self.wrong_for.look(&account, now));
        let wait = match (from, guessed) {
            (Some(Err(wait)), _) | (None, Some(Err(wait))) => wait,
            (Some(Ok(room)), Some(Err(wait))) if room.reset > Duration::ZERO => wait,
            _ => return Ok(()),
        };
        let sentence = "too many wrong credentials: wait as long as Retry-After says, then send \
                        the right ones";
        Err((Error::new(ErrorKind::Throttled, sentence), wait))
    }

    /// Notes that the credentials of an account were wrong.
    pub(super) fn was_wrong(
        &self,
        address: Option<IpAddr>,
        account: Option<AccountId>,
        now: Timestamp,
    ) {
        // Who may not try does not get here; of two at once the second finds nothing to take.
        if let Some(account) = account {
            let _ = self.wrong_for.take(account, now);
        }
        if let Some(address) = address {
            let _ = self.wrong_from.take(network(address), now);
        }
    }
}

/// What counts as one address: of IPv6 the first 64 bits, for the rest is the guest's to choose.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Whence a request comes: from its peer, or, where that is a listed proxy, from the nearest
/// address before it that is none. `None` where that says nothing: a listed proxy that does not
/// tell, and this machine itself, where whoever is not listed is a proxy all the same. Many
/// clients are behind either, and one that guesses must not shut out the others.
pub(super) fn client(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    proxies: &[IpAddr],
) -> Option<IpAddr> {
    let is_proxy = |address: IpAddr| proxies.iter().any(|proxy| proxy.to_canonical() == address);
    let mut client = peer.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_canonical();
    let forwarded = headers.get_all("x-forwarded-for").iter().rev();
    let mut forwarded = forwarded
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.rsplit(','))
        .map(str::trim);
    while is_proxy(client) {
        client = forwarded.next()?.parse::<IpAddr>().ok()?.to_canonical();
    }
    (!client.is_loopback()).then_some(client)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn account(number: u128) -> AccountId {
        AccountId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_is_granted_and_then_one_each_so_often() {
        let limits = Limits { burst: 3, per_second: 2, ..Limits::default() };
        let counters = Counters::new(&limits);
        for remaining in [2, 1, 0] {
            let room = counters.call(account(1), NOW).unwrap();
            assert_eq!((room.limit, room.remaining), (3, remaining));
        }
        let half = Duration::from_millis(500);
        let (refused, wait) = counters.call(account(1), NOW).unwrap_err();
        assert_eq!((refused.kind(), wait), (ErrorKind::Throttled, half));
        assert!(refused.public_message().contains("2 a second, and 3 in a row"), "{refused}");
        counters.call(account(2), NOW).expect("another account has its own");
        assert_eq!(counters.call(account(1), NOW.plus(half)).unwrap().remaining, 0);
        assert!(counters.call(account(1), NOW.plus(half)).is_err());
        let rested = counters.call(account(1), NOW.plus(half * 10)).unwrap();
        assert_eq!(rested.remaining, 2, "no more than a burst is saved up");
    }

    #[test]
    fn an_address_that_is_often_wrong_waits_and_others_do_not() {
        let counters = Counters::new(&Limits::default());
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..ADDRESS.burst {
            counters.may_try(Some(here), Some(account(1)), NOW).unwrap();
            counters.was_wrong(Some(here), Some(account(1)), NOW);
        }
        let (refused, wait) = counters.may_try(Some(here), Some(account(2)), NOW).unwrap_err();
        assert_eq!((refused.kind(), wait), (ErrorKind::Throttled, ADDRESS.every));
        counters
            .may_try(Some(there), Some(account(1)), NOW)
            .expect("the right key comes from elsewhere");
        counters.may_try(Some(here), Some(account(1)), NOW.plus(wait)).expect("the wait is over");
    }

    #[test]
    fn an_account_that_is_guessed_at_from_everywhere_is_open_to_who_was_never_wrong() {
        let counters = Counters::new(&Limits::default());
        for number in 0..ACCOUNT.burst {
            let guesser = Ipv4Addr::from(0x0a00_0000 + number).into();
            counters.may_try(Some(guesser), Some(account(1)), NOW).unwrap();
            counters.was_wrong(Some(guesser), Some(account(1)), NOW);
        }
        let again = Ipv4Addr::from(0x0a00_0000).into();
        assert!(counters.may_try(Some(again), Some(account(1)), NOW).is_err(), "one guess each");
        counters.may_try(Some(address("192.0.2.1")), Some(account(1)), NOW).expect("its owner");
        counters.may_try(Some(again), Some(account(2)), NOW).expect("another account");
        assert!(counters.may_try(None, Some(account(1)), NOW).is_err(), "who knows who that is");
        counters
            .may_try(None, Some(account(2)), NOW)
            .expect("a proxy that tells nothing is not shut out");
        for _ in 0..=ACCOUNT.burst {
            counters.was_wrong(None, None, NOW);
            counters.may_try(None, None, NOW).expect("what names no account opens none");
        }
    }

    #[test]
    fn a_table_is_bounded_and_drops_what_is_nearly_forgotten() {
        let buckets = Buckets::new(Rate { burst: 5, every: Duration::from_secs(1) });
        for _ in 0..5 {
            buckets.take(usize::MAX, NOW).unwrap();
        }
        for key in 0..MOST + 10 {
            buckets.take(key, NOW).unwrap();
        }
        assert_eq!(buckets.full_at.lock().unwrap().len(), MOST);
        assert!(buckets.take(usize::MAX, NOW).is_err(), "the fullest is still known");
    }

    #[test]
    fn only_listed_proxies_say_where_a_request_comes_from() {
        let proxies = [address("127.0.0.1"), address("10.0.0.1")];
        for (peer, forwarded, client) in [
            ("127.0.0.1", "192.0.2.9", Some("192.0.2.9")),
            ("::ffff:127.0.0.1", "192.0.2.9", Some("192.0.2.9")),
            ("127.0.0.1", "6.6.6.6, 192.0.2.9", Some("192.0.2.9")),
            ("127.0.0.1", "6.6.6.6, 192.0.2.9, 10.0.0.1", Some("192.0.2.9")),
            ("127.0.0.1", "nonsense", None),
            ("10.0.0.1", "", None),
            ("127.0.0.2", "6.6.6.6", None),
            ("192.0.2.7", "6.6.6.6", Some("192.0.2.7")),
        ] {
            let headers = HeaderMap::from_iter([(
                http::header::HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_static(forwarded),
            )]);
            let found = super::client(Some(address(peer)), &headers, &proxies);
            assert_eq!(found, client.map(address), "{peer} {forwarded}");
            let peer = address(peer).to_canonical();
            let unlisted = super::client(Some(peer), &headers, &[]);
            assert_eq!(unlisted, (!peer.is_loopback()).then_some(peer));
        }
        assert_eq!(network(address("2001:db8::1")), network(address("2001:db8::2")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
    }

    proptest! {
        #[test]
        fn no_order_of_calls_grants_more_than_the_rate(
            pauses in proptest::collection::vec(0_u64..3_000_000, 0..200),
            burst in 1_u32..5,
        ) {
            let every = Duration::from_secs(1);
            let buckets = Buckets::new(Rate { burst, every });
            let (mut now, mut granted) = (NOW, 0_u64);
            for pause in pauses {
                now = now.plus(Duration::from_micros(pause));
                granted += u64::from(buckets.take((), now).is_ok());
                let most = now.since(NOW).as_micros() / every.as_micros() + u128::from(burst);
                prop_assert!(u128::from(granted) <= most);
            }
        }
    }
}
