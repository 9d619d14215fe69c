//! What a session's two sides agree on (RFC 7143, section 13): one key of the initiator's at a
//! time, each with the answer that goes back. Pure.
//!
//! What we agree to bounds the memory of a connection: [`Parameters::window`] commands may each
//! bring [`Parameters::unsolicited_limit`] bytes that nobody asked for, [`UNSOLICITED`] in all;
//! whatever else moves is asked for, in pieces of [`MAX_BURST`] at most.

/// The most that a data segment to us may hold once the login is over, in bytes; also the longest
/// burst either way.
pub(super) const MAX_BURST: u32 = 128 << 10;

/// The longest data segment of a login, either way, and after it until something else is
/// declared (section 13.12), in bytes.
pub(super) const DEFAULT_SEGMENT: u32 = 8 << 10;

/// The most data that a command may bring unasked if the initiator negotiates it, in bytes: most
/// writes of databases and journals, without a round trip.
const FIRST_BURST: u32 = 8 << 10;

/// What all commands in the window together may bring unasked, in bytes.
const UNSOLICITED: u32 = 256 << 10;

/// The most commands in the window.
const WINDOW: u32 = 32;

/// Whether PDUs of a connection carry a CRC32C of their header, or of their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digest {
    /// They do not.
    None,
    /// They do.
    Crc32c,
}

/// What was agreed; at first what holds if nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Of headers.
    pub(super) header_digest: Digest,
    /// Of data segments.
    pub(super) data_digest: Digest,
    /// The longest data segment that the initiator takes, in bytes.
    pub(super) max_send_segment: u32,
    /// The longest data segment that we take, in bytes.
    pub(super) max_receive_segment: u32,
    /// The longest burst of data, either way, in bytes.
    pub(super) max_burst: u32,
    first_burst: u32,
    /// Whether Data-Out PDUs are sent only for an R2T.
    pub(super) initial_r2t: bool,
    /// Whether a command's PDU may carry data.
    pub(super) immediate_data: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            header_digest: Digest::None,
            data_digest: Digest::None,
            max_send_segment: DEFAULT_SEGMENT,
            max_receive_segment: DEFAULT_SEGMENT,
            // Less than what holds if nothing is said: who asks for data may ask for less.
            max_burst: MAX_BURST,
            first_burst: 64 << 10,
            initial_r2t: true,
            immediate_data: true,
        }
    }
}

impl Parameters {
    /// How much data one command may bring that nobody asked for, in bytes.
    #[must_use]
    pub(super) fn unsolicited_limit(&self) -> u32 {
        let burst = self.first_burst.min(self.max_burst);
        match (self.initial_r2t, self.immediate_data) {
            (false, _) => burst,
            (true, true) => burst.min(self.max_receive_segment),
            (true, false) => 0,
        }
    }

    /// How many commands may be in flight at once.
    #[must_use]
    pub(super) fn window(&self) -> u32 {
        UNSOLICITED.checked_div(self.unsolicited_limit()).map_or(WINDOW, |fit| fit.clamp(1, WINDOW))
    }

    /// Takes the initiator's word on `key` and gives ours; `None` where it is not asked for.
    pub(super) fn answer(&mut self, key: &str, value: &str) -> Option<String> {
        let answer = match key {
            "HeaderDigest" => choose_digest(value, &mut self.header_digest),
            "DataDigest" => choose_digest(value, &mut self.data_digest),
            "MaxRecvDataSegmentLength" => {
                // A declaration: what is impossible is the one thing to answer.
                let Some(length) = number(value, 512..=0x00ff_ffff) else { return reject() };
                self.max_send_segment = length;
                return None;
            }
            "MaxBurstLength" => {
                let Some(length) = number(value, 512..=0x00ff_ffff) else { return reject() };
                self.max_burst = length.min(MAX_BURST);
                self.max_burst.to_string()
            }
            "FirstBurstLength" => {
                let Some(length) = number(value, 512..=0x00ff_ffff) else { return reject() };
                self.first_burst = length.min(FIRST_BURST);
                self.first_burst.to_string()
            }
            "InitialR2T" => {
                let Some(asked) = truth(value) else { return reject() };
                self.initial_r2t = asked;
                yes_or_no(asked)
            }
            "ImmediateData" => {
                let Some(asked) = truth(value) else { return reject() };
                self.immediate_data = asked;
                yes_or_no(asked)
            }
            "DataPDUInOrder" | "DataSequenceInOrder" => yes_or_no(true),
            "IFMarker" | "OFMarker" => yes_or_no(false),
            "MaxConnections" | "MaxOutstandingR2T" => {
                if number(value, 1..=u32::from(u16::MAX)).is_none() {
                    return reject();
                }
                "1".to_owned()
            }
            "DefaultTime2Wait" => {
                let Some(seconds) = number(value, 0..=3600) else { return reject() };
                seconds.to_string()
            }
            // Nothing of a session is kept once its connection is gone.
            "DefaultTime2Retain" | "ErrorRecoveryLevel" => {
                if number(value, 0..=3600).is_none() {
                    return reject();
                }
                "0".to_owned()
            }
            "TaskReporting" => "RFC3720".to_owned(),
            "iSCSIProtocolLevel" => "1".to_owned(),
            "InitiatorAlias" => return None,
            _ => "NotUnderstood".to_owned(),
        };
        Some(answer)
    }
}

/// The first of the offered digests that we know.
fn choose_digest(offered: &str, digest: &mut Digest) -> String {
    let chosen = offered.split(',').find_map(|name| match name {
        "CRC32C" => Some((name, Digest::Crc32c)),
        "None" => Some((name, Digest::None)),
        _ => None,
    });
    match chosen {
        Some((name, chosen)) => {
            *digest = chosen;
            name.to_owned()
        }
        None => "Reject".to_owned(),
    }
}

fn number(value: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let number = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => value.parse(),
    };
    number.ok().filter(|number| range.contains(number))
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

fn yes_or_no(truth: bool) -> String {
    if truth { "Yes" } else { "No" }.to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "it ends the caller, whose answer is optional")]
fn reject() -> Option<String> {
    Some("Reject".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agreed(asked: &[(&str, &str)]) -> (Parameters, Vec<Option<String>>) {
        let mut parameters = Parameters::default();
        let answers = asked.iter().map(|(key, value)| parameters.answer(key, value)).collect();
        (parameters, answers)
    }

    #[test]
    fn each_key_has_the_answer_that_the_rfc_says() {
        for (key, value, answer) in [
            ("HeaderDigest", "CRC32C,None", "CRC32C"),
            ("HeaderDigest", "X-other,None", "None"),
            ("DataDigest", "X-other", "Reject"),
            ("MaxBurstLength", "16776192", "131072"),
            ("MaxBurstLength", "0x1000", "4096"),
            ("MaxBurstLength", "511", "Reject"),
            ("FirstBurstLength", "262144", "8192"),
            ("InitialR2T", "No", "No"),
            ("InitialR2T", "maybe", "Reject"),
            ("ImmediateData", "Yes", "Yes"),
            ("DataPDUInOrder", "No", "Yes"),
            ("MaxConnections", "8", "1"),
            ("MaxOutstandingR2T", "0", "Reject"),
            ("DefaultTime2Wait", "2", "2"),
            ("DefaultTime2Retain", "20", "0"),
            ("ErrorRecoveryLevel", "2", "0"),
            ("OFMarker", "Yes", "No"),
            ("X-org.example.key", "1", "NotUnderstood"),
            ("MaxRecvDataSegmentLength", "1", "Reject"),
        ] {
            assert_eq!(agreed(&[(key, value)]).1, [Some(answer.to_owned())], "{key}={value}");
        }
        let (parameters, answers) = agreed(&[("MaxRecvDataSegmentLength", "262144")]);
        assert_eq!((parameters.max_send_segment, &answers[..]), (262_144, &[None][..]));
    }

    proptest! {
        #[test]
        fn whatever_is_agreed_the_window_bounds_what_comes_unasked(
            asked in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        "FirstBurstLength", "MaxBurstLength", "InitialR2T", "ImmediateData",
                        "MaxRecvDataSegmentLength", "HeaderDigest", "X",
                    ]),
                    prop_oneof![
                        Just("Yes".to_owned()),
                        Just("No".to_owned()),
                        any::<u32>().prop_map(|n| n.to_string()),
                        (512..300_000_u32).prop_map(|n| n.to_string()),
                        ".*",
                    ],
                ),
                0..12,
            ),
            declared: bool,
        ) {
            let mut parameters = Parameters::default();
            for (key, value) in &asked {
                parameters.answer(key, value);
            }
            if declared {
                parameters.max_receive_segment = MAX_BURST;
            }
            let window = parameters.window();
            prop_assert!((1..=WINDOW).contains(&window));
            prop_assert!(window * parameters.unsolicited_limit() <= UNSOLICITED);
            prop_assert!(parameters.max_send_segment >= 512);
        }
    }
}
