//! Values of the public API that are spelled in one way only, such as addresses: what fits, and
//! the same as an expression for the API's description.

use std::net::Ipv4Addr;

use crate::id::VlanId;

/// How a value is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An IPv4 address.
    Address,
    /// At most four IPv4 addresses, parted by single spaces.
    Addresses,
    /// `auto`, or an IPv4 address.
    AutoOrAddress,
    /// An address of a network card, not of a group of them.
    Mac,
    /// An address of mail, as far as its spelling can tell: who gets it is proved by sending it.
    Mail,
    /// A VLAN's UUID.
    Vlan,
}

/// The most addresses that one value holds.
const MAX_ADDRESSES: usize = 4;

/// The most characters before and behind the @ of an address of mail (RFC 5321: 64, and 254 in all).
const MAX_MAILBOX: usize = 64;
const MAX_DOMAIN: usize = 189;

const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

impl Form {
    /// The form in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Address => "an IPv4 address",
            Self::Addresses => "at most four IPv4 addresses parted by spaces",
            Self::AutoOrAddress => "auto or an IPv4 address",
            Self::Mac => "a hardware address such as 52:54:00:12:34:56",
            Self::Mail => "an address of mail, NAME@DOMAIN",
            Self::Vlan => "a VLAN's UUID",
        }
    }

    /// The expression that exactly the fitting values match.
    #[must_use]
    pub fn pattern(self) -> String {
        let address = format!(r"{OCTET}(\.{OCTET}){{3}}");
        match self {
            Self::Address => format!("^{address}$"),
            Self::Addresses => format!("^{address}( {address}){{0,3}}$"),
            Self::AutoOrAddress => format!("^(auto|{address})$"),
            Self::Mac => "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$".to_owned(),
            Self::Mail => {
                let part = r"[^@\s\u0000-\u001f\u007f-\u009f]";
                format!("^{part}{{1,{MAX_MAILBOX}}}@{part}{{1,{MAX_DOMAIN}}}$")
            }
            Self::Vlan => {
                "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$".to_owned()
            }
        }
    }

    /// A value that fits.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Address | Self::Addresses => "198.51.100.7",
            Self::AutoOrAddress => "auto",
            Self::Mac => "52:54:00:12:34:56",
            Self::Mail => "web@example.org",
            Self::Vlan => "3d6a2f10-0000-4000-8000-00000000b001",
        }
    }

    /// Whether `value` is spelled so.
    #[must_use]
    pub fn fits(self, value: &str) -> bool {
        let is_address = |text: &str| text.parse::<Ipv4Addr>().is_ok();
        match self {
            Self::Address => is_address(value),
            Self::Addresses => {
                value.split(' ').count() <= MAX_ADDRESSES && value.split(' ').all(is_address)
            }
            Self::AutoOrAddress => value == "auto" || is_address(value),
            Self::Mac => is_mac(value),
            Self::Mail => is_mail(value),
            Self::Vlan => value.parse::<VlanId>().is_ok(),
        }
    }
}

fn is_mac(text: &str) -> bool {
    let octet = |part: &str| match part.as_bytes() {
        [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            u8::from_str_radix(part, 16).ok()
        }
        _ => None,
    };
    let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
    octets.is_some_and(|octets| octets.len() == 6 && octets.first().is_some_and(|o| o % 2 == 0))
}

fn is_mail(text: &str) -> bool {
    let is_part = |part: &str, most| {
        let plain = |c: char| c != '@' && !c.is_whitespace() && !c.is_control();
        part.chars().all(plain) && (1..=most).contains(&part.chars().count())
    };
    text.split_once('@').is_some_and(|(mailbox, domain)| {
        is_part(mailbox, MAX_MAILBOX) && is_part(domain, MAX_DOMAIN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_mail_is_a_name_at_a_domain() {
        for good in ["a@b.c", "first.last+tag@mail.example.org", "größe@example.org"] {
            assert!(Form::Mail.fits(good), "{good}");
        }
        for bad in ["a", "@b", "a@", "a@b@c", "a b@c", "a@b\nBcc: x@y", "\u{5}@x"] {
            assert!(!Form::Mail.fits(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_spelled_otherwise_does_not_fit() {
        let forms = [
            Form::Address,
            Form::Addresses,
            Form::AutoOrAddress,
            Form::Mac,
            Form::Mail,
            Form::Vlan,
        ];
        for form in forms {
            assert!(form.fits(form.example()), "{form:?}");
            for bad in ["", " ", "x", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "::1"] {
                assert!(!form.fits(bad), "{form:?} {bad:?}");
            }
        }
        assert!(Form::Addresses.fits("192.0.2.1 192.0.2.2"));
        assert!(!Form::Addresses.fits("1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1 1.1.1.1"));
        assert!(Form::AutoOrAddress.fits("192.0.2.1") && !Form::Address.fits("auto"));
        for bad in ["52:54:00:12:34", "52:54:00:12:34:5", "53:54:00:12:34:56", "52:54:00:12:34:+6"]
        {
            assert!(!Form::Mac.fits(bad), "{bad}");
        }
    }
}
