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
    /// A computer's name: one label of a domain's name (RFC 1123).
    HostName,
    /// Where a program listens: a name or an address, and a port.
    Listener,
    /// An address of a network card, not of a group of them.
    Mac,
    /// An address of mail, as far as its spelling can tell: who gets it is proved by sending it.
    Mail,
    /// A SHA-256 in hexadecimal digits.
    Sha256,
    /// A public key as OpenSSH writes it, on one line.
    SshKey,
    /// Where a file is, by HTTP or HTTPS, without a user (RFC 3986).
    Url,
    /// A script or a cloud-config, as cloud-init takes them.
    UserData,
    /// A VLAN's UUID.
    Vlan,
}

/// The kinds of public keys, each with what is the same in every key of its kind: the beginning of
/// the blob, which repeats the kind.
const KEY_KINDS: [(&str, &str); 7] = [
    ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5"),
    ("ssh-rsa", "AAAAB3NzaC1yc2EA"),
    ("ecdsa-sha2-nistp256", "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYA"),
    ("ecdsa-sha2-nistp384", "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQA"),
    ("ecdsa-sha2-nistp521", "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEA"),
    ("sk-ssh-ed25519@openssh.com", "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t"),
    ("sk-ecdsa-sha2-nistp256@openssh.com", "AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20A"),
];

/// The most characters of a public key: those of an RSA key of 16,384 bits, and a comment.
const MAX_KEY: usize = 3_000;

/// The most characters of user data.
const MAX_USER_DATA: usize = 16_384;

/// The most characters of where a program listens.
const MAX_LISTENER: usize = 255;

/// The most characters of where a file is.
const MAX_URL: usize = 2_000;

/// What the path and the query of that may have beside letters and digits.
const URL_SIGNS: &str = "._~!$&'()*+,;=:@%/?-";

/// How user data may begin: cloud-init tells by that what it is.
const BEGINNINGS: [&str; 3] = ["#!", "#cloud-config\n", "#cloud-config\r\n"];

/// The most characters of a label of a domain's name.
const MAX_LABEL: usize = 63;

/// The most addresses that one value holds.
const MAX_ADDRESSES: usize = 4;

/// The most characters before and behind the @ of an address of mail (RFC 5321: 64, and 254 in all).
const MAX_MAILBOX: usize = 64;
const MAX_DOMAIN: usize = 189;

const HOST: &str = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])";

const PORT: &str =
    "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})";

const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

impl Form {
    /// The form in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Address => "an IPv4 address",
            Self::Addresses => "at most four IPv4 addresses parted by spaces",
            Self::AutoOrAddress => "auto or an IPv4 address",
            Self::HostName => "letters, digits and hyphens, at most 63",
            Self::Listener => "NAME_OR_IP:PORT, at most 255 characters",
            Self::Mac => "a hardware address such as 52:54:00:12:34:56",
            Self::Mail => "an address of mail, NAME@DOMAIN",
            Self::Sha256 => "64 lower-case hexadecimal digits",
            Self::SshKey => "one line of an OpenSSH .pub file",
            Self::Url => "http:// or https://, a host, a path; no user, at most 2000 characters",
            Self::UserData => {
                "text that begins with #! or a line #cloud-config, at most 16384 characters"
            }
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
            Self::HostName => {
                let middle = MAX_LABEL.saturating_sub(2);
                format!("^[A-Za-z0-9]([A-Za-z0-9-]{{0,{middle}}}[A-Za-z0-9])?$")
            }
            Self::Listener => format!("^{HOST}:{PORT}$"),
            Self::Mac => "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$".to_owned(),
            Self::Mail => {
                let part = r"[^@\s\u0000-\u001f\u007f-\u009f]";
                format!("^{part}{{1,{MAX_MAILBOX}}}@{part}{{1,{MAX_DOMAIN}}}$")
            }
            Self::Sha256 => "^[0-9a-f]{64}$".to_owned(),
            Self::SshKey => {
                let kinds = KEY_KINDS
                    .map(|(kind, beginning)| format!("{} {beginning}", kind.replace('.', r"\.")));
                let digit = "[A-Za-z0-9+/]";
                let end = format!("({digit}{{2}}==|{digit}{{3}}=)?");
                format!("^({})({digit}{{4}})+{end}( [ -~]*)?$", kinds.join("|"))
            }
            Self::Url => format!("^https?://{HOST}(:{PORT})?(/[A-Za-z0-9{URL_SIGNS}]*)?$"),
            Self::UserData => r"^(#!|#cloud-config\r?\n)[^\u0000]*$".to_owned(),
            Self::Vlan => {
                "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$".to_owned()
            }
        }
    }

    /// The most characters of a value, where the expression does not say.
    #[must_use]
    pub const fn most(self) -> Option<usize> {
        match self {
            Self::Listener => Some(MAX_LISTENER),
            Self::SshKey => Some(MAX_KEY),
            Self::Url => Some(MAX_URL),
            Self::UserData => Some(MAX_USER_DATA),
            Self::Address
            | Self::Addresses
            | Self::AutoOrAddress
            | Self::HostName
            | Self::Mac
            | Self::Mail
            | Self::Sha256
            | Self::Vlan => None,
        }
    }

    /// A value that fits.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Address | Self::Addresses => "198.51.100.7",
            Self::AutoOrAddress => "auto",
            Self::HostName => "web1",
            Self::Listener => "10.0.0.7:8442",
            Self::Mac => "52:54:00:12:34:56",
            Self::Mail => "web@example.org",
            Self::Sha256 => "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            Self::SshKey => {
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDU3pfqqF+EBQgu4Cb0OHJ2JZixsMum5AOwztYm8VvfV me"
            }
            Self::Url => "https://example.org/disk.raw",
            Self::UserData => "#!/bin/sh\ntouch /root/was-here\n",
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
            Self::HostName => is_label(value),
            Self::Listener => is_listener(value),
            Self::Mac => is_mac(value),
            Self::Mail => is_mail(value),
            Self::Sha256 => {
                value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            }
            Self::SshKey => is_ssh_key(value),
            Self::Url => is_url(value),
            Self::UserData => is_user_data(value),
            Self::Vlan => value.parse::<VlanId>().is_ok(),
        }
    }
}

fn is_listener(text: &str) -> bool {
    text.len() <= MAX_LISTENER
        && text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || URL_SIGNS.as_bytes().contains(&byte);
    rest.is_some_and(|rest| {
        let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let with_port = || place.rsplit_once(':').is_some_and(|(h, p)| is_host(h) && is_port(p));
        (is_host(place) || with_port()) && path.bytes().all(is_plain) && text.len() <= MAX_URL
    })
}

fn is_host(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_v6 = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(v6) => !v6.is_empty() && v6.bytes().all(is_v6),
        None => !text.is_empty() && text.bytes().all(is_name),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && !text.starts_with('0')
        && text.parse::<u16>().is_ok()
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

fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.len() <= MAX_LABEL
        && text.bytes().all(is_plain)
        && !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_ssh_key(text: &str) -> bool {
    let mut parts = text.splitn(3, ' ');
    let (kind, blob) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let comment = parts.next().unwrap_or_default();
    let rest = KEY_KINDS
        .iter()
        .find(|(known, _)| *known == kind)
        .and_then(|(_, beginning)| blob.strip_prefix(beginning));
    rest.is_some_and(is_base64)
        && comment.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && text.len() <= MAX_KEY
}

/// Whether it is a whole group of four digits at least, and at its end perhaps a padded one.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let padding = text.len().saturating_sub(digits.len());
    digits.len() >= 4
        && text.len().is_multiple_of(4)
        && padding <= 2
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn is_user_data(text: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        && !text.contains('\0')
        && text.chars().count() <= MAX_USER_DATA
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
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

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
    fn a_host_name_is_one_label() {
        for good in ["web1", "a", "A-b", "0", &"x".repeat(63), Form::HostName.example()] {
            assert!(Form::HostName.fits(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "a b", "a_b", "ü", "a\n", &"x".repeat(64)] {
            assert!(!Form::HostName.fits(bad), "{bad}");
        }
    }

    #[test]
    fn a_listener_is_a_name_or_an_address_with_a_port() {
        for good in ["a:1", "host-1.example.org:65535", "10.0.0.7:8442", "[2001:db8::1]:80"] {
            assert!(Form::Listener.fits(good), "{good}");
        }
        let long = format!("{}:80", "x".repeat(253));
        for bad in
            ["a", ":80", "a:", "a:0", "a:080", "a:65536", "a:+8", "[]:8", "::1:80", "a/b:8", &long]
        {
            assert!(!Form::Listener.fits(bad), "{bad}");
        }
    }

    #[test]
    fn a_url_is_of_http_and_has_no_user() {
        for good in [
            "http://a",
            "https://example.org/",
            "https://example.org:8443/a%20b/disk.raw?X-Sig=a+b/c&d=1",
            "http://[2001:db8::1]:80/x",
            "http://10.0.0.7/@",
        ] {
            assert!(Form::Url.fits(good), "{good}");
        }
        let long = format!("http://a/{}", "x".repeat(MAX_URL));
        for bad in [
            "example",
            "ftp://a/",
            "http://",
            "http:///x",
            "http://me@a/",
            "http://a:0/",
            "http://a b/",
            "http://a/ b",
            "http://a/\n",
            "http://a/#b",
            "http://a?b",
            "HTTP://a/",
            &long,
        ] {
            assert!(!Form::Url.fits(bad), "{bad}");
        }
    }

    #[test]
    fn a_public_key_is_one_line_whose_blob_is_of_its_kind() {
        let blob = |kind: &str, rest: &str| {
            let beginning = KEY_KINDS.iter().find(|(known, _)| *known == kind).unwrap().1;
            format!("{beginning}{rest}")
        };
        for (kind, beginning) in KEY_KINDS {
            let mut named = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
            named.extend_from_slice(kind.as_bytes());
            assert!(STANDARD.decode(beginning).unwrap().starts_with(&named), "{kind}");
            for end in ["AAAA", "AAAAAA==", "AAAAAAA=", "AAAA me@host", "AAAA a key of mine "] {
                let key = format!("{kind} {}", blob(kind, end));
                assert!(Form::SshKey.fits(&key), "{key}");
            }
        }
        let (rsa, ed25519) = (blob("ssh-rsa", "AAAA"), blob("ssh-ed25519", "AAAA"));
        for bad in [
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "ssh-rsa",
            &rsa,
            &format!("ssh-rsa {ed25519}"),
            &format!("ssh-dss {rsa}"),
            &format!("ssh-rsa  {rsa}"),
            &format!("ssh-rsa {rsa}AAA"),
            &format!("ssh-rsa {rsa}A==="),
            &format!("ssh-rsa {rsa}===="),
            &format!("ssh-rsa {rsa}AA=A"),
            &format!("ssh-rsa {}", blob("ssh-rsa", "")),
            &format!("ssh-rsa {rsa}\n"),
            &format!("ssh-rsa {rsa} me\nssh-rsa {rsa} you"),
            &format!("command=\"x\" ssh-rsa {rsa}"),
            &format!("ssh-rsa {rsa} {}", "x".repeat(MAX_KEY)),
        ] {
            assert!(!Form::SshKey.fits(bad), "{bad}");
        }
    }

    #[test]
    fn user_data_says_in_its_first_line_what_it_is() {
        let longest = format!("#!{}", "ü".repeat(MAX_USER_DATA - 2));
        for good in ["#!/bin/sh", "#cloud-config\n", "#cloud-config\r\npackages: [nginx]", &longest]
        {
            assert!(Form::UserData.fits(good), "{good}");
        }
        let too_long = format!("{longest}x");
        for bad in ["#cloud-config", "#cloud-configs\n", " #!", "echo", "#!\0", &too_long] {
            assert!(!Form::UserData.fits(bad), "{bad}");
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
            Form::SshKey,
            Form::Url,
            Form::UserData,
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
