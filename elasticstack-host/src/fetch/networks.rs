//! Which addresses files may be fetched from: public ones, and what the operator allows beside them.
//!
//! Pure. An IPv4 address is itself in whatever it is dressed: mapped into IPv6, translated (NAT64) or
//! tunnelled (6to4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// IPv4 is mapped into IPv6.
    first: u128,
    /// How many of its first bits all addresses share.
    bits: u32,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: write its first address, a slash and its bits, as in 10.0.0.0/8")]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let network = || {
            let (address, bits) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let bits: u32 = bits.parse().ok()?;
            let spare = if address.is_ipv4() { 128 - 32 } else { 0 };
            let bits = bits.checked_add(spare).filter(|bits| *bits <= 128)?;
            let network = Self { first: number(address), bits };
            let rest = network.first.checked_shl(network.bits).unwrap_or(0);
            (rest == 0).then_some(network)
        };
        network().ok_or_else(|| NoNetwork(text.to_owned()))
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, bits: u32) -> Self {
        let first = Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped().to_bits();
        Self { first, bits: bits + 96 }
    }

    const fn v6(a: u16, b: u16, bits: u32) -> Self {
        Self { first: Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0).to_bits(), bits }
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = number(address) ^ self.first;
        differing.checked_shr(128 - self.bits).unwrap_or(0) == 0
    }
}

/// What IPv4 has that is not public: of this host and network, private (RFC 1918), of carriers (RFC
/// 6598), for documents and measurements, of groups, reserved.
const NOT_PUBLIC_V4: [Network; 15] = [
    Network::v4(0, 0, 0, 8),
    Network::v4(10, 0, 0, 8),
    Network::v4(100, 64, 0, 10),
    Network::v4(127, 0, 0, 8),
    Network::v4(169, 254, 0, 16),
    Network::v4(172, 16, 0, 12),
    Network::v4(192, 0, 0, 24),
    Network::v4(192, 0, 2, 24),
    Network::v4(192, 88, 99, 24),
    Network::v4(192, 168, 0, 16),
    Network::v4(198, 18, 0, 15),
    Network::v4(198, 51, 100, 24),
    Network::v4(203, 0, 113, 24),
    Network::v4(224, 0, 0, 4),
    Network::v4(240, 0, 0, 4),
];

/// What IPv6 has that is public …
const PUBLIC_V6: [Network; 2] = [Network::v6(0x2000, 0, 3), NAT64];

/// … but for protocols' own, Teredo's tunnels among them, and what is for documents.
const NOT_PUBLIC_V6: [Network; 3] =
    [Network::v6(0x2001, 0, 23), Network::v6(0x2001, 0xdb8, 32), Network::v6(0x3fff, 0, 20)];

const NAT64: Network = Network::v6(0x64, 0xff9b, 96);
const SIX_TO_FOUR: Network = Network::v6(0x2002, 0, 16);

/// What an operator says of the networks beside the public ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Taken, public or not.
    pub allowed: Vec<Network>,
    /// Public and not taken.
    pub refused: Vec<Network>,
}

impl Networks {
    /// Whether files may be fetched from this address: it, and the one that is dressed in it, have to
    /// be allowed or public.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_taken = |address: IpAddr| {
            let in_any = |networks: &[Network]| networks.iter().any(|it| it.contains(address));
            in_any(&self.allowed) || (is_public(address) && !in_any(&self.refused))
        };
        is_taken(address) && dressed(address).is_none_or(|inner| is_taken(inner.into()))
    }

    /// Whether the operator allows this address by name.
    #[must_use]
    pub fn allow_by_name(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(address))
    }
}

fn is_public(address: IpAddr) -> bool {
    let is_in = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
    match address {
        IpAddr::V4(_) => !is_in(&NOT_PUBLIC_V4),
        IpAddr::V6(_) => is_in(&PUBLIC_V6) && !is_in(&NOT_PUBLIC_V6),
    }
}

/// The IPv4 address that packets to this one end at.
fn dressed(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [_, a, b, .., y, z] = v6.segments();
    let inner = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    if NAT64.contains(address) {
        Some(inner(y, z))
    } else {
        SIX_TO_FOUR.contains(address).then(|| inner(a, b))
    }
}

/// IPv4 is mapped into IPv6.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(allowed: &[&str], refused: &[&str]) -> Networks {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Networks { allowed: parsed(allowed), refused: parsed(refused) }
    }

    #[test]
    fn public_addresses_are_taken_and_no_others_in_whatever_dress() {
        let plain = Networks::default();
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(plain.allow(public.parse().unwrap()), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::10.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!plain.allow(inside.parse().unwrap()), "{inside}");
        }
    }

    #[test]
    fn an_operator_allows_networks_inside_and_refuses_public_ones() {
        let named = networks(&["10.1.0.0/16", "fd00::/8"], &["198.45.0.0/16", "2606:4700::/32"]);
        for (address, is_taken) in [
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("::ffff:10.1.2.3", true),
            ("64:ff9b::10.1.2.3", true),
            ("2002:a01:203::1", true),
            ("fd00::7", true),
            ("fc00::7", false),
            ("198.45.0.9", false),
            ("64:ff9b::198.45.0.9", false),
            ("2606:4700::1", false),
            ("198.46.0.9", true),
        ] {
            assert_eq!(named.allow(address.parse().unwrap()), is_taken, "{address}");
        }
    }

    #[test]
    fn a_network_is_an_address_and_its_bits() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "::/129", "x/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        assert!(!all.contains("2a00::1".parse().unwrap()));
        let one: Network = "10.0.0.7/32".parse().unwrap();
        assert!(one.contains("10.0.0.7".parse().unwrap()));
        assert!(!one.contains("10.0.0.6".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn an_address_in_a_dress_is_taken_only_where_it_is_taken_without(bits: u32, low: u64) {
            let v4 = Ipv4Addr::from_bits(bits);
            let (high, rest) = (u128::from(bits), u128::from(low));
            let taken = Networks::default().allow(v4.into());
            for dress in [
                v4.to_ipv6_mapped().to_bits(),
                0x64_ff9b << 96 | high,
                0x2002 << 112 | high << 80 | rest,
            ] {
                let dress = IpAddr::V6(Ipv6Addr::from_bits(dress));
                prop_assert_eq!(Networks::default().allow(dress), taken, "{}", dress);
            }
            prop_assert!(!Networks::default().allow(Ipv6Addr::from_bits(high).into()));
        }

        #[test]
        fn no_text_panics_the_parser(text: String) {
            let _ = text.parse::<Network>();
        }
    }
}
