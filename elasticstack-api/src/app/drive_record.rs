//! Drives in the words of the public API: what a customer's record asks for, and the record that
//! tells about a drive.

use elasticstack_core::prelude::*;
use elasticstack_core::state::DriveState;
use elasticstack_core::wire::internal::{Access, IoLimits};
use elasticstack_core::wire::keys::parse_size;
use elasticstack_core::wire::record::{MAX_KEYS, Record};

use crate::db::{ClaimRow, DriveRow, Holder, JobRow};

/// Sizes are multiples of this.
pub(super) const GRANULE: Bytes = Bytes::from_mib(4);

/// The keys that are kept as they are; the others have columns.
fn is_kept(key: &str) -> bool {
    matches!(key, "limit:bytes" | "limit:requests" | "name" | "readers" | "tags" | "tier")
        || key.starts_with("user:")
}

/// The size that a record asks for, rounded up; `None` for 0, which asks for none.
///
/// # Errors
/// `InvalidValue` where rounding up passes the largest size.
pub(super) fn wanted_size(record: &Record) -> Result<Option<Bytes>> {
    let Some(text) = record.value("size") else { return Ok(None) };
    let size = parse_size(text).and_then(|size| size.round_up_to(GRANULE)).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidValue,
            format!("size was given {text:?}, the largest is {} bytes", i64::MAX),
        )
        .field("size")
    })?;
    Ok((size > Bytes::ZERO).then_some(size))
}

/// What a drive's record limits its servers to.
pub(super) fn limits(config: &Record) -> IoLimits {
    let value = |key| config.value(key).unwrap_or_default();
    IoLimits {
        requests: value("limit:requests").parse().ok(),
        bytes: parse_size(value("limit:bytes")),
    }
}

/// Whom the drive's claims are to tolerate, if the record says so; unset is exclusive.
pub(super) fn wanted_access(record: &Record) -> Option<Access> {
    record.iter().find(|(key, _)| *key == "claim:type").map(|(_, word)| match word {
        "shared" => Access::Shared,
        _ => Access::Exclusive,
    })
}

/// The word for whom a drive's claims tolerate.
pub(super) const fn claim_type(access: Access) -> &'static str {
    match access {
        Access::Exclusive => "exclusive",
        Access::Shared => "shared",
    }
}

/// Lays the kept keys of `change` over `config`.
///
/// # Errors
/// `InvalidValue` for readers that are not accounts, and for more keys than a record may have.
pub(super) fn apply(config: &mut Record, change: &Record) -> Result<()> {
    for reader in change.value("readers").unwrap_or_default().split_whitespace() {
        reader.parse::<AccountId>().map_err(|error| {
            Error::new(ErrorKind::InvalidValue, format!("readers was given {reader:?}: {error}"))
                .field("readers")
        })?;
    }
    let mut kept = Record::new();
    for (key, value) in change.iter().filter(|(key, _)| is_kept(key)) {
        kept.set(key, value);
    }
    config.apply(&kept);
    bounded(config)
}

/// Refuses a record that has grown past what one may have.
pub(super) fn bounded(config: &Record) -> Result<()> {
    if config.iter().count() > MAX_KEYS {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!("an object has at most {MAX_KEYS} keys: unset some by setting them to nothing"),
        ));
    }
    Ok(())
}

/// What others see of a drive's use.
#[derive(Debug, Clone, Default)]
pub(super) struct InUse {
    pub(super) claims: Vec<ClaimRow>,
    pub(super) job: Option<JobRow>,
}

/// The host that counts what is read from a drive and written to it, if a server may do that now.
pub(super) fn counted_by(row: &DriveRow, in_use: &InUse) -> Option<HostId> {
    let is_server = |claim: &ClaimRow| matches!(claim.holder, Holder::Server(_));
    in_use.claims.iter().any(is_server).then_some(row.host)
}

/// The public record of a drive.
pub(super) fn info(row: &DriveRow, in_use: &InUse) -> Record {
    let mut record = row.config.clone();
    if record.value("name").is_none() {
        record.set("name", row.drive);
    }
    record.set("drive", row.drive);
    record.set("user", row.account);
    record.set("size", row.size.get());
    record.set("status", if row.state == DriveState::Ready { "active" } else { "inactive" });
    record.set("encryption:cipher", "none");
    if record.value("tier").is_none() {
        record.set("tier", "disk");
    }
    record.set("claim:type", claim_type(row.access));
    if !in_use.claims.is_empty() {
        let holders: Vec<String> =
            in_use.claims.iter().map(|claim| claim.holder.to_string()).collect();
        record.set("claimed", holders.join(" "));
    }
    if let Some(imaging) = in_use.job.as_ref().and_then(JobRow::told) {
        record.set("imaging", imaging);
    }
    if let Some(failed) = &row.failed {
        record.set("failed", failed);
    }
    if let Some(summed) = &row.summed {
        record.set("sha256", &summed.sha256);
        record.set("sha256:size", summed.length.get());
    }
    if let Some(standard) = &row.standard {
        record.set("media", &standard.media);
        if let Some(format) = &standard.format {
            record.set("format", format);
        }
        if let Some(rawsize) = standard.rawsize {
            record.set("rawsize", rawsize.get());
        }
    }
    record
}

/// The public record of a drive of somebody else's, which is readable for the caller.
pub(super) fn info_for_readers(row: &DriveRow) -> Record {
    let record = info(row, &InUse::default());
    if row.standard.is_some() {
        return record;
    }
    let is_owners = |key: &str| matches!(key, "readers" | "tags") || key.starts_with("user:");
    let mut shown = Record::new();
    for (key, value) in record.iter().filter(|(key, _)| !is_owners(key)) {
        shown.set(key, value);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_4_mib_and_zero_asks_for_none() {
        for (given, wanted) in [
            ("0", None),
            ("1", Some(4 << 20)),
            ("10000000", Some(12_582_912)),
            ("4M", Some(4 << 20)),
        ] {
            let size = wanted_size(&Record::new().with("size", given)).unwrap();
            assert_eq!(size.map(Bytes::get), wanted, "{given}");
        }
        let past = Record::new().with("size", i64::MAX);
        assert_eq!(wanted_size(&past).unwrap_err().kind(), ErrorKind::InvalidValue);
    }
}
