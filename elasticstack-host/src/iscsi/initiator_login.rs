//! An initiator's login to one target (RFC 7143, section 6.3), with CHAP one way if the target wants
//! it. Pure: it gives requests and takes responses. Whatever the target says, it ends.

use std::io;
use std::net::SocketAddr;

use elasticstack_core::prelude::*;

use super::chap::{self, ChapError, Credentials};
use super::negotiate::Digest;
use super::pdu::{LoginRequest, Response};
use super::text::{self, TextError};
use super::wire::WireError;

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// The most requests that a login takes; an honest one needs five.
const MAX_STEPS: usize = 12;

/// The longest data segment that we take, in bytes.
pub(super) const MAX_RECEIVE: u32 = 256 << 10;

/// The longest burst that we send or take, in bytes.
const MAX_BURST: u32 = 1 << 20;

/// The most data that we would send with a command, in bytes.
const FIRST_BURST: u32 = 64 << 10;

/// Why there is no session: which step failed, and what to look at.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("{0} refuses connections: start the target there, or mend the portal's address")]
    Refused(SocketAddr),
    #[error("there is no way to {0}: look at the storage network between the hosts")]
    NoRoute(SocketAddr, #[source] io::Error),
    #[error("{0} does not answer within {1} s: look at the storage network between the hosts")]
    Silent(SocketAddr, u64),
    #[error("{portal} has no target {target}: lend the drive under this epoch first")]
    NoTarget { portal: SocketAddr, target: String },
    #[error(
        "{portal} does not let {initiator} in (status {class:#04x}, {detail:#04x}): its lend has \
         another borrower or another secret"
    )]
    NotAdmitted { portal: SocketAddr, initiator: String, class: u8, detail: u8 },
    #[error(
        "{portal} refuses the login with status {class:#04x}, {detail:#04x}: look at the target's \
         log"
    )]
    Status { portal: SocketAddr, class: u8, detail: u8 },
    #[error("the login to {0} broke off: look at the target's log")]
    Broken(SocketAddr, #[source] Breach),
    #[error("no random bytes for the session's name: {0}")]
    Random(getrandom::Error),
}

/// What a target did that ends a login.
#[derive(Debug, thiserror::Error)]
pub(super) enum Breach {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a text that can't be read")]
    Text(#[from] TextError),
    #[error("a challenge that is none")]
    Chap(#[from] ChapError),
    #[error("{0}")]
    Protocol(&'static str),
}

impl From<LoginError> for Error {
    fn from(error: LoginError) -> Self {
        let (kind, public) = match &error {
            LoginError::Refused(_) | LoginError::NoRoute(..) | LoginError::Silent(..) => (
                ErrorKind::Unavailable,
                "the host that lends the drive can't be reached now: try again later",
            ),
            LoginError::NoTarget { .. } => {
                (ErrorKind::NotFound, "the drive is not lent by its host under this epoch")
            }
            LoginError::NotAdmitted { .. } => {
                (ErrorKind::BadCredentials, "the drive is not lent to this server")
            }
            LoginError::Status { .. } | LoginError::Broken(..) | LoginError::Random(_) => {
                (ErrorKind::Unavailable, "the drive can't be used over the network now")
            }
        };
        Self::new(kind, public).source(error)
    }
}

/// What the two sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) header_digest: Digest,
    /// The longest data segment that the target takes, in bytes.
    pub(super) max_send_segment: u32,
    /// The longest burst of data, either way, in bytes.
    pub(super) max_burst: u32,
    /// How much data may come with a command, in bytes.
    pub(super) immediate: u32,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This request, with this text.
    Ask(LoginRequest, Vec<u8>),
    /// The full-feature phase.
    Done(Agreed),
}

/// How far the login is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Method,
    Challenge,
    Proof,
    Operational,
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    own: Credentials,
    target: String,
    isid: [u8; 6],
    stage: Stage,
    steps: usize,
    agreed: Agreed,
    first_burst: u32,
    has_immediate: bool,
}

impl Login {
    /// A login as the initiator `own`, whose name is that of CHAP too. An empty secret is none: CHAP
    /// is then not offered.
    pub(super) fn new(own: Credentials, target: String, isid: [u8; 6]) -> Self {
        // What holds for a key that the target does not mention (section 13).
        let agreed = Agreed {
            header_digest: Digest::None,
            max_send_segment: 8 << 10,
            max_burst: 256 << 10,
            immediate: 0,
        };
        let (stage, steps, first_burst) = (Stage::Method, 0, FIRST_BURST);
        Self { own, target, isid, stage, steps, agreed, first_burst, has_immediate: true }
    }

    /// The first request.
    pub(super) fn begin(&self) -> (LoginRequest, Vec<u8>) {
        let is_open = self.own.secret.expose().is_empty();
        let mut text = Vec::new();
        text::push(&mut text, "InitiatorName", &self.own.user);
        text::push(&mut text, "SessionType", "Normal");
        text::push(&mut text, "TargetName", &self.target);
        text::push(&mut text, "AuthMethod", if is_open { "None" } else { "CHAP,None" });
        (self.request(SECURITY, Some(OPERATIONAL).filter(|_| is_open)), text)
    }

    /// Takes a response with its data segment.
    pub(super) fn step(&mut self, response: &Response, segment: &[u8]) -> Result<Next, Breach> {
        self.steps = self.steps.saturating_add(1);
        if self.steps > MAX_STEPS {
            return Err(Breach::Protocol("it negotiates without end"));
        }
        let Response::Login { transit, current_stage, next_stage, .. } = *response else {
            return Err(Breach::Protocol("something else than a response to the login"));
        };
        let pairs = text::parse(segment)?;
        let own_stage = if self.stage == Stage::Operational { OPERATIONAL } else { SECURITY };
        if current_stage != own_stage {
            return Err(Breach::Protocol("a response in a stage that the login is not in"));
        }
        match (self.stage, transit.then_some(next_stage)) {
            (Stage::Operational, Some(FULL_FEATURE)) => {
                self.agree(&pairs)?;
                Ok(Next::Done(self.settled()))
            }
            (Stage::Operational, None) => {
                self.agree(&pairs)?;
                Ok(Next::Ask(self.request(OPERATIONAL, Some(FULL_FEATURE)), Vec::new()))
            }
            (Stage::Method | Stage::Proof, Some(OPERATIONAL)) => Ok(self.operate()),
            (_, Some(_)) => Err(Breach::Protocol("it goes to a stage that was not asked for")),
            (Stage::Method, None) => self.choose(&pairs),
            (Stage::Challenge, None) => self.prove(&pairs),
            (Stage::Proof, None) => Err(Breach::Protocol("it does not go on after the proof")),
        }
    }

    /// What to do about the method that the target chose.
    fn choose(&mut self, pairs: &[(&str, &str)]) -> Result<Next, Breach> {
        match find(pairs, "AuthMethod") {
            Some("CHAP") if !self.own.secret.expose().is_empty() => {
                self.stage = Stage::Challenge;
                let mut text = Vec::new();
                text::push(&mut text, "CHAP_A", chap::MD5);
                Ok(Next::Ask(self.request(SECURITY, None), text))
            }
            // Some targets let whoever need not prove anything on only when asked once more.
            Some("None") => Ok(Next::Ask(self.request(SECURITY, Some(OPERATIONAL)), Vec::new())),
            _ => Err(Breach::Protocol("it wants a proof that was not offered")),
        }
    }

    fn prove(&mut self, pairs: &[(&str, &str)]) -> Result<Next, Breach> {
        if find(pairs, "CHAP_A") != Some(chap::MD5) {
            return Err(Breach::Protocol("it wants another algorithm than MD5"));
        }
        let mut text = Vec::new();
        for (key, value) in chap::prove(&self.own, pairs)? {
            text::push(&mut text, key, &value);
        }
        self.stage = Stage::Proof;
        Ok(Next::Ask(self.request(SECURITY, Some(OPERATIONAL)), text))
    }

    fn operate(&mut self) -> Next {
        self.stage = Stage::Operational;
        let mut text = Vec::new();
        for (key, value) in [
            ("HeaderDigest", "CRC32C,None"),
            ("DataDigest", "None"),
            ("InitialR2T", "Yes"),
            ("ImmediateData", "Yes"),
            ("MaxRecvDataSegmentLength", &*MAX_RECEIVE.to_string()),
            ("MaxBurstLength", &*MAX_BURST.to_string()),
            ("FirstBurstLength", &*FIRST_BURST.to_string()),
            ("DefaultTime2Wait", "2"),
            ("DefaultTime2Retain", "0"),
            ("MaxOutstandingR2T", "1"),
            ("MaxConnections", "1"),
            ("DataPDUInOrder", "Yes"),
            ("DataSequenceInOrder", "Yes"),
            ("ErrorRecoveryLevel", "0"),
        ] {
            text::push(&mut text, key, value);
        }
        Next::Ask(self.request(OPERATIONAL, Some(FULL_FEATURE)), text)
    }

    /// Takes the target's word on what is negotiated.
    fn agree(&mut self, pairs: &[(&str, &str)]) -> Result<(), Breach> {
        let length = |value: &str| {
            let length = value.parse().ok().filter(|length| (512..1 << 24).contains(length));
            length.ok_or(Breach::Protocol("a length that is none"))
        };
        for (key, value) in pairs {
            match (*key, *value) {
                ("HeaderDigest", "CRC32C") => self.agreed.header_digest = Digest::Crc32c,
                ("DataDigest", value) if value != "None" => {
                    return Err(Breach::Protocol("a digest of data that was not offered"));
                }
                ("MaxRecvDataSegmentLength", value) => {
                    self.agreed.max_send_segment = length(value)?;
                }
                ("MaxBurstLength", value) => {
                    self.agreed.max_burst = length(value)?.min(MAX_BURST);
                }
                ("FirstBurstLength", value) => self.first_burst = length(value)?.min(FIRST_BURST),
                ("ImmediateData", value) => self.has_immediate = value == "Yes",
                _ => {}
            }
        }
        Ok(())
    }

    fn settled(&self) -> Agreed {
        let Agreed { max_send_segment, max_burst, .. } = self.agreed;
        let most = self.first_burst.min(max_burst).min(max_send_segment);
        Agreed { immediate: if self.has_immediate { most } else { 0 }, ..self.agreed }
    }

    fn request(&self, current_stage: u8, next_stage: Option<u8>) -> LoginRequest {
        LoginRequest {
            transit: next_stage.is_some(),
            continues: false,
            current_stage,
            next_stage: next_stage.unwrap_or(0),
            version_min: 0,
            isid: self.isid,
            tsih: 0,
            cid: 0,
        }
    }
}

fn find<'a>(pairs: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(found, _)| *found == key).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use elasticstack_core::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "iqn.2026-01.org:host";

    fn login(secret: &str) -> Login {
        let own = Credentials { user: NAME.to_owned(), secret: Secret::new(secret) };
        Login::new(own, "iqn.2026-01.org:a".to_owned(), [0x80, 0, 0, 0, 0, 1])
    }

    fn response(current_stage: u8, next_stage: Option<u8>) -> Response {
        Response::Login {
            initiator_task_tag: 0,
            transit: next_stage.is_some(),
            current_stage,
            next_stage: next_stage.unwrap_or(0),
            isid: [0; 6],
            tsih: 0,
            status: (0, 0),
        }
    }

    fn asked(next: Next) -> (LoginRequest, String) {
        match next {
            Next::Ask(request, text) => (request, String::from_utf8(text).unwrap()),
            Next::Done(agreed) => panic!("{agreed:?}"),
        }
    }

    #[test]
    fn a_login_proves_itself_negotiates_and_takes_what_the_target_can() {
        let mut login = login("a secret of some");
        assert!(String::from_utf8(login.begin().1).unwrap().contains("AuthMethod=CHAP,None\0"));
        let next = login.step(&response(0, None), b"AuthMethod=CHAP\0").unwrap();
        assert_eq!(asked(next).1, "CHAP_A=5\0");
        let challenge = b"CHAP_A=5\0CHAP_I=7\0CHAP_C=0x0102\0";
        let (request, proof) = asked(login.step(&response(0, None), challenge).unwrap());
        assert!(request.transit && request.next_stage == 1);
        assert!(proof.starts_with(&format!("CHAP_N={NAME}\0CHAP_R=0x")), "{proof}");
        let (request, _) = asked(login.step(&response(0, Some(1)), b"").unwrap());
        assert_eq!((request.current_stage, request.next_stage), (1, 3));
        let answer = b"HeaderDigest=CRC32C\0MaxBurstLength=131072\0FirstBurstLength=4096\0";
        asked(login.step(&response(1, None), answer).unwrap());
        let declared = b"MaxRecvDataSegmentLength=65536\0";
        let agreed = Agreed {
            header_digest: Digest::Crc32c,
            max_send_segment: 65536,
            max_burst: 131_072,
            immediate: 4096,
        };
        assert_eq!(login.step(&response(1, Some(3)), declared).unwrap(), Next::Done(agreed));
    }

    #[test]
    fn a_target_that_breaks_the_rules_ends_the_login() {
        for (secret, segment, next) in [
            ("", &b"AuthMethod=CHAP\0"[..], None),
            ("a secret of some", b"AuthMethod=KRB5\0", None),
            ("a secret of some", b"AuthMethod=CHAP\0", Some(3)),
            ("a secret of some", b"no pair\0", None),
            ("a secret of some", &[b'a'; text::MAX_TEXT + 1], None),
        ] {
            login(secret).step(&response(0, next), segment).unwrap_err();
        }
        login("").step(&response(1, None), b"").unwrap_err();
        let mut endless = login("");
        let error = loop {
            if let Err(error) = endless.step(&response(0, None), b"AuthMethod=None\0") {
                break error;
            }
        };
        assert!(matches!(error, Breach::Protocol(_)), "{error}");
    }

    proptest! {
        #[test]
        fn no_target_panics_it_or_keeps_it_for_ever(
            answers in proptest::collection::vec(
                (0..4_u8, proptest::option::of(0..4_u8), proptest::sample::select(vec![
                    "", "AuthMethod=CHAP\0", "AuthMethod=None\0", "CHAP_A=5\0CHAP_I=7\0CHAP_C=0x01\0",
                    "MaxBurstLength=511\0", "MaxRecvDataSegmentLength=99999999999\0", "x\0",
                    "FirstBurstLength=16777215\0ImmediateData=No\0", "HeaderDigest=Reject\0",
                ])),
                MAX_STEPS + 1,
            ),
        ) {
            let mut login = login("a secret of some");
            let mut ended = false;
            for (stage, next, text) in answers {
                match login.step(&response(stage, next), text.as_bytes()) {
                    Ok(Next::Ask(..)) => {}
                    Ok(Next::Done(agreed)) => {
                        prop_assert!(agreed.immediate <= agreed.max_send_segment);
                        ended = true;
                    }
                    Err(_) => ended = true,
                }
                if ended {
                    break;
                }
            }
            prop_assert!(ended);
        }
    }
}
