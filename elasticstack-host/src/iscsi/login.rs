//! The login phase of one connection (RFC 7143, section 6.3): from the first Login Request to the
//! full-feature phase or a refusal. Pure: it takes requests and gives responses.
//!
//! ```text
//!   security (0) ──▶ operational (1) ──▶ full feature (3)
//!        └───────────────────────────────────▲
//! ```
//! An initiator may begin in either stage; a target that wants CHAP takes it no further before the
//! initiator has proved itself. Whatever is wrong ends the login, and with it the connection.

use std::sync::Arc;

use super::chap::{self, ChapError, Nonce};
use super::negotiate::{MAX_BURST, Parameters};
use super::pdu::{LoginRequest, Response};
use super::target::Target;
use super::text::{self, MAX_TEXT, TextError};

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// The longest iSCSI name (section 4.2.7.1).
const MAX_NAME: usize = 223;

/// The portal group of all our portals; there is one.
pub(super) const PORTAL_GROUP: u16 = 1;

/// What a login came to.
#[derive(Debug)]
pub(super) struct Established {
    /// The initiator's name and its part of the session's name: the port of SCSI.
    pub(super) initiator: String,
    pub(super) isid: [u8; 6],
    /// `None` in a discovery session.
    pub(super) target: Option<Arc<Target>>,
    pub(super) parameters: Parameters,
}

/// A login is refused, with Status-Class and Status-Detail (section 11.13.5).
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a login that does not keep to its stages")]
    Stages,
    #[error("a login without {0}")]
    Missing(&'static str),
    #[error("a login whose text can't be read")]
    Text(#[source] TextError),
    #[error("a login for version {0}, there is only version 0")]
    Version(u8),
    #[error("a login for a connection of the session {0}, each has one connection")]
    Session(u16),
    #[error("a session of the unknown type {0:?}")]
    SessionType(String),
    #[error("there is no target {0:?}")]
    NoTarget(String),
    #[error("{initiator:?} may not log in to {target:?}")]
    NotAllowed { initiator: String, target: String },
    #[error("no method of authentication is acceptable to both sides")]
    NoMethod,
    #[error("authentication failed")]
    Chap(#[source] ChapError),
    #[error("the target has as many sessions as it may")]
    TooManySessions,
}

impl Refusal {
    fn status(&self) -> (u8, u8) {
        match self {
            Self::Stages | Self::Text(_) => (0x02, 0x00),
            Self::NoMethod | Self::Chap(_) => (0x02, 0x01),
            Self::NotAllowed { .. } => (0x02, 0x02),
            Self::NoTarget(_) => (0x02, 0x03),
            Self::Version(_) => (0x02, 0x05),
            Self::Missing(_) => (0x02, 0x07),
            Self::SessionType(_) => (0x02, 0x09),
            Self::Session(_) => (0x02, 0x0a),
            Self::TooManySessions => (0x03, 0x02),
        }
    }
}

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) response: Response,
    pub(super) text: Vec<u8>,
    /// The end of the login, if this is it.
    pub(super) end: Option<Result<Established, Refusal>>,
}

/// One login under way.
pub(super) struct Login<F> {
    find_target: F,
    nonce: Nonce,
    /// The number that the session will have.
    tsih: u16,
    stage: Option<u8>,
    security: Security,
    /// What has come of a text that goes on.
    begun: Vec<u8>,
    initiator: String,
    target: Option<Arc<Target>>,
    parameters: Parameters,
    declared: bool,
}

/// How far the initiator has proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Nothing,
    /// CHAP is agreed on.
    Method,
    Challenged,
    Proved,
}

impl<F: Fn(&str) -> Option<Arc<Target>>> Login<F> {
    pub(super) fn new(find_target: F, nonce: Nonce, tsih: u16) -> Self {
        Self {
            find_target,
            nonce,
            tsih,
            stage: None,
            security: Security::Nothing,
            begun: Vec::new(),
            initiator: String::new(),
            target: None,
            parameters: Parameters::default(),
            declared: false,
        }
    }

    /// Takes one Login Request with its data segment.
    pub(super) fn step(&mut self, tag: u32, request: &LoginRequest, segment: &[u8]) -> Reply {
        let mut text = Vec::new();
        match self.take(request, segment, &mut text) {
            Ok(transit) => {
                let done = transit && request.next_stage == FULL_FEATURE;
                let tsih = if done { self.tsih } else { 0 };
                if transit {
                    self.stage = Some(request.next_stage);
                }
                let end = done.then(|| {
                    Ok(Established {
                        initiator: std::mem::take(&mut self.initiator),
                        isid: request.isid,
                        target: self.target.take(),
                        parameters: self.parameters.clone(),
                    })
                });
                Reply { response: respond(tag, request, transit, tsih, (0, 0)), text, end }
            }
            Err(refusal) => refuse(tag, request, refusal),
        }
    }

    /// Whether the login goes on to the stage that the request asks for.
    fn take(
        &mut self,
        request: &LoginRequest,
        segment: &[u8],
        answer: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let current = request.current_stage;
        if request.version_min != 0 {
            return Err(Refusal::Version(request.version_min));
        }
        if request.tsih != 0 {
            return Err(Refusal::Session(request.tsih));
        }
        let next_is_later = request.next_stage > current && request.next_stage != 2;
        if current > OPERATIONAL
            || self.stage.is_some_and(|stage| stage != current)
            || request.transit && (!next_is_later || request.continues)
        {
            return Err(Refusal::Stages);
        }
        if self.begun.len().saturating_add(segment.len()) > MAX_TEXT {
            let length = self.begun.len().saturating_add(segment.len());
            return Err(Refusal::Text(TextError::TooLong(length)));
        }
        self.begun.extend_from_slice(segment);
        if request.continues {
            return Ok(false);
        }
        let whole = std::mem::take(&mut self.begun);
        let pairs = text::parse(&whole).map_err(Refusal::Text)?;
        if self.stage.is_none() {
            self.stage = Some(current);
            self.begin(&pairs)?;
            if self.target.is_some() {
                text::push(answer, "TargetPortalGroupTag", &PORTAL_GROUP.to_string());
            }
        }
        if current == SECURITY {
            self.secure(&pairs, answer)?;
            return Ok(request.transit && self.is_proved());
        }
        if !self.is_proved() {
            return Err(Refusal::NoMethod);
        }
        for (key, value) in pairs.iter().filter(|(key, _)| !IDENTITY.contains(key)) {
            if let Some(own) = self.parameters.answer(key, value) {
                text::push(answer, key, &own);
            }
        }
        if !self.declared {
            self.declared = true;
            self.parameters.max_receive_segment = MAX_BURST;
            text::push(answer, "MaxRecvDataSegmentLength", &MAX_BURST.to_string());
        }
        Ok(request.transit)
    }

    /// Takes what stands in a login's first text: who wants to talk to whom.
    fn begin(&mut self, pairs: &[(&str, &str)]) -> Result<(), Refusal> {
        let find = |key| pairs.iter().find(|(found, _)| *found == key).map(|(_, value)| *value);
        let initiator = find("InitiatorName")
            .filter(|name| !name.is_empty() && name.len() <= MAX_NAME)
            .ok_or(Refusal::Missing("InitiatorName"))?;
        initiator.clone_into(&mut self.initiator);
        match find("SessionType").unwrap_or("Normal") {
            "Discovery" => return Ok(()),
            "Normal" => {}
            other => return Err(Refusal::SessionType(other.to_owned())),
        }
        let name = find("TargetName").ok_or(Refusal::Missing("TargetName"))?;
        let target = (self.find_target)(name).ok_or_else(|| Refusal::NoTarget(name.to_owned()))?;
        if !target.admits(initiator) {
            let (initiator, target) = (initiator.to_owned(), name.to_owned());
            return Err(Refusal::NotAllowed { initiator, target });
        }
        self.target = Some(target);
        Ok(())
    }

    /// Takes what is said in the security stage.
    fn secure(&mut self, pairs: &[(&str, &str)], answer: &mut Vec<u8>) -> Result<(), Refusal> {
        let find = |key| pairs.iter().find(|(found, _)| *found == key).map(|(_, value)| *value);
        let chap = self.target.as_ref().and_then(|target| target.chap());
        let Some(chap) = chap else {
            if let Some(methods) = find("AuthMethod") {
                if !methods.split(',').any(|method| method == "None") {
                    return Err(Refusal::NoMethod);
                }
                text::push(answer, "AuthMethod", "None");
            }
            return Ok(());
        };
        match self.security {
            Security::Nothing => {
                let methods = find("AuthMethod").ok_or(Refusal::NoMethod)?;
                if !methods.split(',').any(|method| method == "CHAP") {
                    return Err(Refusal::NoMethod);
                }
                text::push(answer, "AuthMethod", "CHAP");
                self.security = Security::Method;
            }
            Security::Method => {
                let algorithms = find("CHAP_A").ok_or(Refusal::Chap(ChapError::Malformed))?;
                if !algorithms.split(',').any(|algorithm| algorithm == chap::MD5) {
                    return Err(Refusal::NoMethod);
                }
                for (key, value) in chap::challenge(&self.nonce) {
                    text::push(answer, key, &value);
                }
                self.security = Security::Challenged;
            }
            Security::Challenged => {
                for (key, value) in chap::check(chap, &self.nonce, pairs).map_err(Refusal::Chap)? {
                    text::push(answer, key, &value);
                }
                self.security = Security::Proved;
            }
            Security::Proved => {}
        }
        Ok(())
    }

    fn is_proved(&self) -> bool {
        self.security == Security::Proved
            || self.target.as_ref().is_none_or(|target| target.chap().is_none())
    }
}

/// Ends a login that went well but is refused after all.
pub(super) fn refuse(tag: u32, request: &LoginRequest, refusal: Refusal) -> Reply {
    let response = respond(tag, request, false, 0, refusal.status());
    Reply { response, text: Vec::new(), end: Some(Err(refusal)) }
}

/// Keys that say who talks to whom, and are not negotiated.
const IDENTITY: [&str; 3] = ["InitiatorName", "SessionType", "TargetName"];

fn respond(
    initiator_task_tag: u32,
    request: &LoginRequest,
    transit: bool,
    tsih: u16,
    status: (u8, u8),
) -> Response {
    Response::Login {
        initiator_task_tag,
        transit,
        current_stage: request.current_stage,
        next_stage: request.next_stage,
        isid: request.isid,
        tsih,
        status,
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::block::Writing;
    use elasticstack_core::secret::Secret;
    use proptest::prelude::*;

    use super::super::chap::{Chap, Credentials};
    use super::super::inquiry::Identity;
    use super::super::target::TargetConfig;
    use super::super::tests::Nothing;
    use super::*;

    const ISID: [u8; 6] = [0x40, 0, 0, 1, 0, 2];

    fn target(chap: Option<Chap>) -> Arc<Target> {
        Arc::new(Target::new(TargetConfig {
            name: "iqn.2026-01.org:a".to_owned(),
            volume: Arc::new(Nothing),
            identity: Identity::of("drive"),
            chap,
            initiators: Some(vec!["iqn.2026-01.org:host".to_owned()]),
            writing: Writing::Allowed,
        }))
    }

    fn with_chap() -> Arc<Target> {
        let initiator =
            Credentials { user: "host".to_owned(), secret: Secret::new("a secret of some") };
        target(Some(Chap { initiator, target: None }))
    }

    fn login(target: Arc<Target>) -> Login<impl Fn(&str) -> Option<Arc<Target>>> {
        let find = move |name: &str| (name == target.name()).then(|| Arc::clone(&target));
        Login::new(find, [7; 17], 1)
    }

    fn request(current_stage: u8, next_stage: Option<u8>) -> LoginRequest {
        LoginRequest {
            transit: next_stage.is_some(),
            continues: false,
            current_stage,
            next_stage: next_stage.unwrap_or(0),
            version_min: 0,
            isid: ISID,
            tsih: 0,
            cid: 0,
        }
    }

    fn text(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut text = Vec::new();
        pairs.iter().for_each(|(key, value)| text::push(&mut text, key, value));
        text
    }

    const WHO: [(&str, &str); 2] =
        [("InitiatorName", "iqn.2026-01.org:host"), ("TargetName", "iqn.2026-01.org:a")];

    fn answer<'a>(reply: &'a Reply, key: &str) -> Option<&'a str> {
        let pairs = text::parse(&reply.text).unwrap();
        pairs.iter().find(|(found, _)| *found == key).map(|(_, value)| *value)
    }

    /// What the login is refused with.
    fn status(reply: &Reply) -> (u8, u8) {
        match (&reply.response, &reply.end) {
            (Response::Login { status, .. }, Some(Err(_))) => *status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_login_negotiates_declares_and_ends_in_a_session() {
        let mut login = login(target(None));
        let reply = login.step(1, &request(0, Some(1)), &text(&[WHO[0], WHO[1], NONE]));
        assert_eq!(answer(&reply, "AuthMethod"), Some("None"));
        assert_eq!(answer(&reply, "TargetPortalGroupTag"), Some("1"));
        assert!(reply.end.is_none());
        let reply = login.step(1, &request(1, Some(3)), &text(&[("HeaderDigest", "CRC32C,None")]));
        assert_eq!(answer(&reply, "HeaderDigest"), Some("CRC32C"));
        assert_eq!(answer(&reply, "MaxRecvDataSegmentLength"), Some("131072"));
        let established = reply.end.unwrap().unwrap();
        assert_eq!(established.target.unwrap().name(), "iqn.2026-01.org:a");
        assert_eq!((&*established.initiator, established.isid), ("iqn.2026-01.org:host", ISID));
    }

    const NONE: (&str, &str) = ("AuthMethod", "None");

    #[test]
    fn nobody_gets_past_a_target_that_wants_chap_without_it() {
        let first = |stages: LoginRequest, more: &[(&str, &str)]| {
            login(with_chap()).step(1, &stages, &text(&[&WHO, more].concat()))
        };
        assert_eq!(status(&first(request(1, Some(3)), &[])), (2, 1), "the stage is skipped");
        assert_eq!(status(&first(request(0, Some(3)), &[NONE])), (2, 1));
        assert_eq!(status(&first(request(0, Some(3)), &[])), (2, 1));

        let mut login = login(with_chap());
        let offer = [WHO[0], WHO[1], ("AuthMethod", "CHAP,None")];
        let reply = login.step(1, &request(0, Some(3)), &text(&offer));
        let Response::Login { transit, .. } = reply.response else { panic!("{reply:?}") };
        assert!(!transit && reply.end.is_none(), "asking to go on is not being let on");
        let reply = login.step(1, &request(0, None), &text(&[("CHAP_A", "7,5")]));
        assert_eq!(answer(&reply, "CHAP_A"), Some("5"));
        let wrong = [("CHAP_N", "host"), ("CHAP_R", "0x00112233445566778899aabbccddeeff")];
        assert_eq!(status(&login.step(1, &request(0, Some(3)), &text(&wrong))), (2, 1));
    }

    #[test]
    fn both_sides_prove_themselves_in_one_login() {
        use md5::{Digest as _, Md5};
        let proof = |identifier: u8, secret: &str, challenge: &[u8]| {
            let digest = Md5::digest([&[identifier], secret.as_bytes(), challenge].concat());
            digest.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
        };
        let credentials = |user: &str, secret: &str| Credentials {
            user: user.to_owned(),
            secret: Secret::new(secret),
        };
        let mut login = login(target(Some(Chap {
            initiator: credentials("host", "a secret of some"),
            target: Some(credentials("target", "another secret..")),
        })));
        let offer = [WHO[0], WHO[1], ("AuthMethod", "CHAP")];
        login.step(1, &request(0, None), &text(&offer));
        let reply = login.step(1, &request(0, None), &text(&[("CHAP_A", "5")]));
        assert_eq!(answer(&reply, "CHAP_I"), Some("7"));
        assert_eq!(answer(&reply, "CHAP_C"), Some(&*format!("0x{}", "07".repeat(16))));
        let ours = proof(7, "a secret of some", &[7; 16]);
        let last = [("CHAP_N", "host"), ("CHAP_R", &ours), ("CHAP_I", "9"), ("CHAP_C", "0x0102")];
        let reply = login.step(1, &request(0, Some(1)), &text(&last));
        assert_eq!(answer(&reply, "CHAP_N"), Some("target"));
        let theirs = proof(9, "another secret..", &[1, 2]);
        assert_eq!(answer(&reply, "CHAP_R"), Some(&*theirs));
        assert!(matches!(login.step(1, &request(1, Some(3)), &[]).end, Some(Ok(_))));
    }

    #[test]
    fn each_mistake_has_the_status_that_the_rfc_gives_it() {
        let first = |request: LoginRequest, pairs: &[(&str, &str)]| {
            status(&login(target(None)).step(1, &request, &text(pairs)))
        };
        let stages = request(1, Some(3));
        let stranger = ("InitiatorName", "iqn.2026-01.org:stranger");
        let nowhere = ("TargetName", "iqn.2026-01.org:b");
        let miscellaneous = ("SessionType", "Other");
        assert_eq!(first(stages, &[WHO[1]]), (2, 7));
        assert_eq!(first(stages, &[WHO[0]]), (2, 7));
        assert_eq!(first(stages, &[stranger, WHO[1]]), (2, 2));
        assert_eq!(first(stages, &[WHO[0], nowhere]), (2, 3));
        assert_eq!(first(stages, &[WHO[0], WHO[1], miscellaneous]), (2, 9));
        assert_eq!(first(LoginRequest { version_min: 1, ..stages }, &WHO), (2, 5));
        assert_eq!(first(LoginRequest { tsih: 9, ..stages }, &WHO), (2, 10));
        for (current, next) in [(1, 1), (1, 0), (0, 2), (2, 3), (3, 3)] {
            assert_eq!(first(request(current, Some(next)), &WHO), (2, 0), "{current} {next}");
        }
    }

    #[test]
    fn a_text_may_come_in_pieces_but_not_without_end() {
        let mut login = login(target(None));
        let whole = text(&WHO);
        let goes_on = LoginRequest { continues: true, ..request(1, None) };
        assert!(login.step(1, &goes_on, &whole[..9]).text.is_empty());
        assert!(matches!(login.step(1, &request(1, Some(3)), &whole[9..]).end, Some(Ok(_))));

        let mut login = self::login(target(None));
        for _ in 0..2 {
            assert!(login.step(1, &goes_on, &[b'a'; 8192]).end.is_none());
        }
        assert_eq!(status(&login.step(1, &goes_on, b"a")), (2, 0));
    }

    proptest! {
        #[test]
        fn no_login_panics_it_or_gets_in_unproved(
            steps in proptest::collection::vec(
                (0..4_u8, proptest::option::of(0..4_u8), any::<bool>(), proptest::collection::vec(
                    prop_oneof![
                        Just(WHO[0]), Just(WHO[1]), Just(NONE), Just(("AuthMethod", "CHAP")),
                        Just(("CHAP_A", "5")), Just(("CHAP_N", "host")), Just(("CHAP_R", "0x01")),
                        Just(("SessionType", "Normal")),
                    ], 0..4)),
                0..8,
            ),
        ) {
            let mut login = login(with_chap());
            for (current, next, continues, pairs) in steps {
                let request = LoginRequest { continues, ..request(current, next) };
                let reply = login.step(1, &request, &text(&pairs));
                prop_assert!(!matches!(reply.end, Some(Ok(_))));
                if reply.end.is_some() {
                    break;
                }
            }
        }
    }
}
