//! Reservations of one logical unit: persistent ones (SPC-4, section 5.13) and those of RESERVE (6)
//! (SPC-2). Pure. They are lost when the target ends, and say so (PTPL_C is 0).

use super::field::{put, u8_at, u64_at};
use super::sense::{Sense, Status};

/// The most ports that may be registered.
const MAX_REGISTRATIONS: usize = 32;

/// The length of the parameters of PERSISTENT RESERVE OUT, in bytes.
pub(super) const PARAMETERS: usize = 24;

/// The port of an initiator: its name and its part of the session's name (RFC 7143, section 4.4.1).
/// With our one port it makes the I_T nexus, which outlives the session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Port {
    pub(super) initiator: String,
    pub(super) isid: [u8; 6],
}

/// What a command needs of the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It is answered whoever holds the unit.
    Nothing,
    /// It is answered unless a RESERVE (6) of another holds the unit.
    Attention,
    Read,
    Write,
}

/// The types of persistent reservations (SPC-4, table 67).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    WriteExclusive,
    ExclusiveAccess,
    WriteExclusiveRegistrantsOnly,
    ExclusiveAccessRegistrantsOnly,
    WriteExclusiveAllRegistrants,
    ExclusiveAccessAllRegistrants,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::WriteExclusive,
            3 => Self::ExclusiveAccess,
            5 => Self::WriteExclusiveRegistrantsOnly,
            6 => Self::ExclusiveAccessRegistrantsOnly,
            7 => Self::WriteExclusiveAllRegistrants,
            8 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }

    const fn code(self) -> u8 {
        match self {
            Self::WriteExclusive => 1,
            Self::ExclusiveAccess => 3,
            Self::WriteExclusiveRegistrantsOnly => 5,
            Self::ExclusiveAccessRegistrantsOnly => 6,
            Self::WriteExclusiveAllRegistrants => 7,
            Self::ExclusiveAccessAllRegistrants => 8,
        }
    }

    const fn lets_all_read(self) -> bool {
        match self {
            Self::WriteExclusive
            | Self::WriteExclusiveRegistrantsOnly
            | Self::WriteExclusiveAllRegistrants => true,
            Self::ExclusiveAccess
            | Self::ExclusiveAccessRegistrantsOnly
            | Self::ExclusiveAccessAllRegistrants => false,
        }
    }

    const fn is_held_by_all_registrants(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// Whether registered ports have access like the holder.
    const fn lets_registrants_in(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }
}

#[derive(Debug)]
struct Registration {
    port: Port,
    key: u64,
}

#[derive(Debug)]
struct Reservation {
    kind: Kind,
    /// Who made it; of no meaning where all registrants hold it.
    holder: Port,
}

/// Who is registered and who holds the logical unit.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    generation: u32,
    registrations: Vec<Registration>,
    reservation: Option<Reservation>,
    /// Who holds it by RESERVE (6).
    reserved: Option<Port>,
}

/// What PERSISTENT RESERVE OUT did to others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Unit attentions to establish.
    pub(super) attentions: Vec<(Port, Sense)>,
    /// Ports whose commands are to be aborted.
    pub(super) aborted: Vec<Port>,
}

impl Reservations {
    /// Whether `port` may do what needs this.
    pub(super) fn permit(&self, port: &Port, need: Need) -> Result<(), Status> {
        let by_reserve =
            need == Need::Nothing || self.reserved.as_ref().is_none_or(|holder| holder == port);
        let persistently = self.reservation.as_ref().is_none_or(|reservation| {
            let kind = reservation.kind;
            self.holds(port)
                || kind.lets_registrants_in() && self.key_of(port).is_some()
                || match need {
                    Need::Nothing | Need::Attention => true,
                    Need::Read => kind.lets_all_read(),
                    Need::Write => false,
                }
        });
        if by_reserve && persistently { Ok(()) } else { Err(Status::ReservationConflict) }
    }

    /// RESERVE (6).
    pub(super) fn reserve(&mut self, port: &Port) -> Result<(), Status> {
        self.permit(port, Need::Attention)?;
        if !self.registrations.is_empty() {
            return Err(Status::ReservationConflict);
        }
        self.reserved = Some(port.clone());
        Ok(())
    }

    /// RELEASE (6), and the end of the port's session.
    pub(super) fn release(&mut self, port: &Port) {
        if self.reserved.as_ref() == Some(port) {
            self.reserved = None;
        }
    }

    /// A reset of the logical unit, which persistent reservations outlast.
    pub(super) fn reset(&mut self) {
        self.reserved = None;
    }

    /// PERSISTENT RESERVE IN.
    pub(super) fn report(&self, action: u8) -> Result<Vec<u8>, Sense> {
        let mut answer = vec![0; 8];
        put(&mut answer, 0, self.generation.to_be_bytes());
        match action {
            0 => answer.extend(self.registrations.iter().flat_map(|r| r.key.to_be_bytes())),
            1 => {
                if let Some(reservation) = &self.reservation {
                    let mut descriptor = [0; 16];
                    let holder = self.key_of(&reservation.holder).unwrap_or(0);
                    let of_all = reservation.kind.is_held_by_all_registrants();
                    put(&mut descriptor, 0, if of_all { 0 } else { holder }.to_be_bytes());
                    put(&mut descriptor, 13, [reservation.kind.code()]);
                    answer.extend(descriptor);
                }
            }
            2 => {
                const TYPE_MASK_VALID: u8 = 0x80;
                return Ok(vec![0, 8, 0, TYPE_MASK_VALID, 0xea, 0x01, 0, 0]);
            }
            3 => {
                for registration in &self.registrations {
                    answer.extend(self.full_status(registration));
                }
            }
            _ => return Err(Sense::INVALID_FIELD_IN_CDB),
        }
        let length = u32::try_from(answer.len().saturating_sub(8)).unwrap_or(u32::MAX);
        put(&mut answer, 4, length.to_be_bytes());
        Ok(answer)
    }

    fn full_status(&self, registration: &Registration) -> Vec<u8> {
        const HOLDER: u8 = 1;
        let mut descriptor = vec![0; 24];
        put(&mut descriptor, 0, registration.key.to_be_bytes());
        if let Some(reservation) = &self.reservation
            && self.holds(&registration.port)
        {
            put(&mut descriptor, 12, [HOLDER, reservation.kind.code()]);
        }
        put(&mut descriptor, 18, 1_u16.to_be_bytes());
        let id = transport_id(&registration.port);
        put(&mut descriptor, 20, u32::try_from(id.len()).unwrap_or(0).to_be_bytes());
        descriptor.extend(id);
        descriptor
    }

    /// PERSISTENT RESERVE OUT.
    pub(super) fn change(
        &mut self,
        port: &Port,
        action: u8,
        (scope, kind): (u8, u8),
        parameters: &[u8],
    ) -> Result<Effects, Status> {
        const SPEC_I_PT_ALL_TG_PT_APTPL: u8 = 0x0d;
        if action > 6 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        if parameters.len() != PARAMETERS {
            return Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let (key, new_key) = (u64_at(parameters, 0), u64_at(parameters, 8));
        let registers = matches!(action, 0 | 6);
        if registers && u8_at(parameters, 20) & SPEC_I_PT_ALL_TG_PT_APTPL != 0 {
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.into());
        }
        if self.reserved.is_some() {
            return Err(Status::ReservationConflict);
        }
        if registers {
            let known = self.key_of(port);
            if action == 0 && known.unwrap_or(0) != key {
                return Err(Status::ReservationConflict);
            }
            return self.register(port, known.is_some(), new_key);
        }
        if self.key_of(port) != Some(key) {
            return Err(Status::ReservationConflict);
        }
        if action == 3 {
            return Ok(self.clear(port));
        }
        let kind = Kind::of(kind).filter(|_| scope == 0).ok_or(Sense::INVALID_FIELD_IN_CDB)?;
        match action {
            1 => self.hold(port, kind),
            2 => self.let_go(port, kind),
            _ => self.preempt(port, kind, new_key).map(|mut effects| {
                if action == 4 {
                    effects.aborted.clear();
                }
                effects
            }),
        }
    }

    fn register(&mut self, port: &Port, known: bool, key: u64) -> Result<Effects, Status> {
        let mut effects = Effects::default();
        if known && key == 0 {
            let held = self.holds(port);
            self.registrations.retain(|registration| registration.port != *port);
            let was_last_of_all = self.registrations.is_empty();
            let ends = self.reservation.as_ref().is_some_and(|reservation| {
                held && (was_last_of_all || !reservation.kind.is_held_by_all_registrants())
            });
            if ends {
                effects.attentions = self.end_reservation(port);
            }
        } else if known {
            for registration in self.registrations.iter_mut().filter(|r| r.port == *port) {
                registration.key = key;
            }
        } else if key != 0 {
            if self.registrations.len() >= MAX_REGISTRATIONS {
                return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES.into());
            }
            self.registrations.push(Registration { port: port.clone(), key });
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    fn hold(&mut self, port: &Port, kind: Kind) -> Result<Effects, Status> {
        match &self.reservation {
            Some(reservation) if !self.holds(port) || reservation.kind != kind => {
                Err(Status::ReservationConflict)
            }
            Some(_) => Ok(Effects::default()),
            None => {
                self.reservation = Some(Reservation { kind, holder: port.clone() });
                Ok(Effects::default())
            }
        }
    }

    fn let_go(&mut self, port: &Port, kind: Kind) -> Result<Effects, Status> {
        match &self.reservation {
            Some(reservation) if self.holds(port) => {
                if reservation.kind != kind {
                    return Err(Sense::INVALID_RELEASE.into());
                }
                Ok(Effects { attentions: self.end_reservation(port), aborted: Vec::new() })
            }
            _ => Ok(Effects::default()),
        }
    }

    /// Ends the reservation; what is told to others of it.
    fn end_reservation(&mut self, port: &Port) -> Vec<(Port, Sense)> {
        let ended = self.reservation.take();
        if ended.is_none_or(|ended| !ended.kind.lets_registrants_in()) {
            return Vec::new();
        }
        self.others(port).map(|other| (other, Sense::RESERVATIONS_RELEASED)).collect()
    }

    fn clear(&mut self, port: &Port) -> Effects {
        let attentions =
            self.others(port).map(|other| (other, Sense::RESERVATIONS_PREEMPTED)).collect();
        self.registrations.clear();
        self.reservation = None;
        self.generation = self.generation.wrapping_add(1);
        Effects { attentions, aborted: Vec::new() }
    }

    fn preempt(&mut self, port: &Port, kind: Kind, key: u64) -> Result<Effects, Status> {
        let of_all = self.reservation.as_ref().is_some_and(|r| r.kind.is_held_by_all_registrants());
        if key == 0 && !of_all {
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.into());
        }
        let goes = |r: &Registration| if key == 0 { r.port != *port } else { r.key == key };
        let takes = self.reservation.as_ref().is_some_and(|reservation| {
            if of_all { key == 0 } else { self.key_of(&reservation.holder) == Some(key) }
        });
        if !takes && !self.registrations.iter().any(goes) {
            return Err(Status::ReservationConflict);
        }
        let gone: Vec<Port> = self
            .registrations
            .iter()
            .filter(|registration| goes(registration) && registration.port != *port)
            .map(|registration| registration.port.clone())
            .collect();
        self.registrations.retain(|registration| !gone.contains(&registration.port));
        let mut attentions: Vec<_> =
            gone.iter().map(|other| (other.clone(), Sense::REGISTRATIONS_PREEMPTED)).collect();
        if takes {
            let changed = self.reservation.as_ref().is_some_and(|old| old.kind != kind);
            self.reservation = Some(Reservation { kind, holder: port.clone() });
            if changed {
                attentions
                    .extend(self.others(port).map(|other| (other, Sense::RESERVATIONS_RELEASED)));
            }
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(Effects { attentions, aborted: gone })
    }

    fn key_of(&self, port: &Port) -> Option<u64> {
        self.registrations.iter().find(|r| r.port == *port).map(|r| r.key)
    }

    fn holds(&self, port: &Port) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| {
            if reservation.kind.is_held_by_all_registrants() {
                self.key_of(port).is_some()
            } else {
                reservation.holder == *port
            }
        })
    }

    fn others<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = Port> + 'a {
        self.registrations.iter().map(|r| &r.port).filter(move |other| *other != port).cloned()
    }
}

/// A port by its name (SPC-4, section 7.6.4.6).
fn transport_id(port: &Port) -> Vec<u8> {
    const ISCSI_WITH_ISID: u8 = 0x45;
    let isid = u64::from_be_bytes({
        let [a, b, c, d, e, f] = port.isid;
        [0, 0, a, b, c, d, e, f]
    });
    let mut name = format!("{},i,0x{isid:012x}", port.initiator).into_bytes();
    name.resize((name.len() / 4 + 1) * 4, 0);
    let mut id = vec![ISCSI_WITH_ISID, 0, 0, 0];
    put(&mut id, 2, u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
    id.extend(name);
    id
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::field::{u16_at, u32_at};
    use super::*;

    fn port(number: u8) -> Port {
        Port { initiator: format!("iqn.2026-01.org:{number}"), isid: [number; 6] }
    }

    fn parameters(key: u64, new_key: u64) -> Vec<u8> {
        [&key.to_be_bytes()[..], &new_key.to_be_bytes(), &[0; 8]].concat()
    }

    /// PERSISTENT RESERVE OUT by one port.
    fn out(
        reservations: &mut Reservations,
        by: u8,
        (action, kind): (u8, u8),
        (key, new_key): (u64, u64),
    ) -> Result<Effects, Status> {
        reservations.change(&port(by), action, (0, kind), &parameters(key, new_key))
    }

    const REGISTER: u8 = 0;
    const RESERVE: u8 = 1;
    const RELEASE: u8 = 2;
    const CLEAR: u8 = 3;
    const PREEMPT: u8 = 4;
    const PREEMPT_AND_ABORT: u8 = 5;

    /// Ports 1 and 2 are registered with their numbers as keys, and 1 holds a reservation.
    fn held(kind: u8) -> Reservations {
        let mut reservations = Reservations::default();
        for by in [1, 2] {
            out(&mut reservations, by, (REGISTER, 0), (0, by.into())).unwrap();
        }
        out(&mut reservations, 1, (RESERVE, kind), (1, 0)).unwrap();
        reservations
    }

    #[test]
    fn who_may_read_and_write_is_as_the_types_say() {
        // By type: whether the registered port 2 may read and write, and the unregistered port 3.
        for (kind, registered, stranger) in [
            (1, (true, false), (true, false)),
            (3, (false, false), (false, false)),
            (5, (true, true), (true, false)),
            (6, (true, true), (false, false)),
            (7, (true, true), (true, false)),
            (8, (true, true), (false, false)),
        ] {
            let reservations = held(kind);
            let may = |by, need| reservations.permit(&port(by), need).is_ok();
            let access = |by| (may(by, Need::Read), may(by, Need::Write));
            assert_eq!(access(1), (true, true), "type {kind}");
            assert_eq!(access(2), registered, "type {kind}");
            assert_eq!(access(3), stranger, "type {kind}");
            assert!(may(3, Need::Attention) && may(3, Need::Nothing));
        }
    }

    #[test]
    fn a_reservation_ends_with_its_holder_or_the_last_of_all_holders() {
        for (kind, ends, told) in [(1, true, 0), (6, true, 1), (8, false, 0)] {
            let mut reservations = held(kind);
            let effects = out(&mut reservations, 1, (REGISTER, 0), (1, 0)).unwrap();
            assert_eq!(reservations.reservation.is_none(), ends, "type {kind}");
            assert_eq!(effects.attentions.len(), told, "type {kind}");
        }
        let mut reservations = held(8);
        for by in [1, 2] {
            out(&mut reservations, by, (REGISTER, 0), (by.into(), 0)).unwrap();
        }
        assert!(reservations.reservation.is_none());
    }

    #[test]
    fn whoever_preempts_takes_the_reservation_and_says_whom_to_abort() {
        for (action, aborted) in [(PREEMPT, vec![]), (PREEMPT_AND_ABORT, vec![port(1)])] {
            let mut reservations = held(3);
            let effects = out(&mut reservations, 2, (action, 3), (2, 1)).unwrap();
            let told = vec![(port(1), Sense::REGISTRATIONS_PREEMPTED)];
            assert_eq!(effects, Effects { attentions: told, aborted });
            assert!(reservations.permit(&port(2), Need::Write).is_ok());
            assert!(reservations.permit(&port(1), Need::Read).is_err());
        }
        let unknown = out(&mut held(3), 2, (PREEMPT, 3), (2, 9));
        assert_eq!(unknown, Err(Status::ReservationConflict));
    }

    #[test]
    fn wrong_keys_and_wrong_parameters_change_nothing() {
        let conflict = Err(Status::ReservationConflict);
        let mut reservations = held(3);
        assert_eq!(out(&mut reservations, 3, (RESERVE, 3), (0, 0)), conflict);
        assert_eq!(out(&mut reservations, 2, (REGISTER, 0), (1, 5)), conflict);
        assert_eq!(out(&mut reservations, 2, (RESERVE, 3), (2, 0)), conflict);
        assert_eq!(out(&mut reservations, 1, (RESERVE, 1), (1, 0)), conflict);
        assert_eq!(
            out(&mut reservations, 1, (RELEASE, 1), (1, 0)),
            Err(Sense::INVALID_RELEASE.into())
        );
        assert_eq!(
            out(&mut reservations, 1, (7, 0), (1, 0)),
            Err(Sense::INVALID_FIELD_IN_CDB.into())
        );
        let short = reservations.change(&port(1), RELEASE, (0, 3), &[0; 8]);
        assert_eq!(short, Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into()));
        assert_eq!(reservations.reservation.as_ref().unwrap().kind, Kind::ExclusiveAccess);
        assert_eq!(out(&mut reservations, 2, (RELEASE, 3), (2, 0)), Ok(Effects::default()));
        assert!(reservations.reservation.is_some(), "it is not its holder's release");
    }

    #[test]
    fn what_is_reported_is_who_is_registered_and_who_holds() {
        let reservations = held(3);
        let keys = reservations.report(0).unwrap();
        assert_eq!((u32_at(&keys, 0), u32_at(&keys, 4)), (2, 16));
        let holder = reservations.report(1).unwrap();
        assert_eq!((u64_at(&holder, 8), holder[21]), (1, 3));
        assert_eq!(reservations.report(2).unwrap()[..2], [0, 8]);
        let full = reservations.report(3).unwrap();
        assert_eq!(usize::try_from(u32_at(&full, 4)).unwrap(), full.len() - 8);
        assert_eq!((full[20], full[21], u16_at(&full, 26)), (1, 3, 1));
        assert!(reservations.report(4).is_err());
    }

    #[test]
    fn a_reserved_unit_is_closed_to_all_others_until_its_holder_is_gone() {
        let mut reservations = Reservations::default();
        reservations.reserve(&port(1)).unwrap();
        reservations.reserve(&port(1)).unwrap();
        assert!(reservations.reserve(&port(2)).is_err());
        assert!(reservations.permit(&port(2), Need::Attention).is_err());
        reservations.release(&port(2));
        assert!(reservations.permit(&port(2), Need::Read).is_err());
        reservations.release(&port(1));
        assert!(reservations.permit(&port(2), Need::Read).is_ok());
        assert!(held(1).reserve(&port(2)).is_err(), "it is held persistently");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_a_holder_is_registered_and_registrations_are_bounded(
            steps in proptest::collection::vec(
                (0..40_u8, 0..7_u8, 0..9_u8, 0..4_u64, 0..4_u64), 0..200)
        ) {
            let mut reservations = Reservations::default();
            for (by, action, kind, key, new_key) in steps {
                let _ = out(&mut reservations, by, (action, kind), (key, new_key));
                prop_assert!(reservations.registrations.len() <= MAX_REGISTRATIONS);
                if let Some(reservation) = &reservations.reservation {
                    prop_assert!(
                        reservation.kind.is_held_by_all_registrants()
                            && !reservations.registrations.is_empty()
                            || reservations.key_of(&reservation.holder).is_some()
                    );
                }
                if action == CLEAR {
                    prop_assert!(reservations.report(3).is_ok());
                }
            }
        }
    }
}
