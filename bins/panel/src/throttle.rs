//! How often an address may try to log in: ten times in five minutes. A login that succeeds wipes
//! the slate. Of an IPv6 address the first 64 bits count: the rest is the guest's to choose.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const ATTEMPTS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// The most addresses remembered; while so many are, a new one waits.
const MOST: usize = 100_000;

struct Tries {
    count: u32,
    since: Instant,
}

/// The attempts of every address.
#[derive(Default)]
pub(crate) struct Throttle {
    tries: Mutex<HashMap<IpAddr, Tries>>,
}

impl Throttle {
    /// Counts an attempt of `address`.
    ///
    /// # Errors
    /// How long it has to wait instead.
    pub(crate) fn admit(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut all = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |tries: &Tries| now.saturating_duration_since(tries.since);
        if all.len() >= MOST {
            all.retain(|_, tries| age(tries) < WINDOW);
            if all.len() >= MOST {
                return Err(WINDOW);
            }
        }
        let tries = all.entry(network(address)).or_insert(Tries { count: 0, since: now });
        if age(tries) >= WINDOW {
            *tries = Tries { count: 0, since: now };
        }
        if tries.count >= ATTEMPTS {
            return Err(WINDOW.saturating_sub(age(tries)));
        }
        tries.count += 1;
        Ok(())
    }

    /// Forgets the attempts of an address that has logged in.
    pub(crate) fn forgive(&self, address: IpAddr) {
        let mut all = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&network(address));
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_after_ten_attempts_and_another_does_not() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        for _ in 0..ATTEMPTS {
            throttle.admit(here, start).unwrap();
        }
        let minute = Duration::from_secs(60);
        assert_eq!(throttle.admit(here, start + minute), Err(minute * 4));
        assert_eq!(throttle.admit(there, start), Ok(()));
        assert_eq!(throttle.admit(here, start + WINDOW), Ok(()), "the window is over");
    }

    #[test]
    fn a_login_wipes_the_slate_and_a_network_of_ipv6_is_one_address() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let [one, two, other] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        for _ in 0..ATTEMPTS {
            throttle.admit(one, start).unwrap();
        }
        assert!(throttle.admit(two, start).is_err());
        assert!(throttle.admit(other, start).is_ok());
        throttle.forgive(two);
        assert!(throttle.admit(one, start).is_ok());
    }
}
