//! What a disk says of its own health, by `smartctl --json` of smartmontools.
//!
//! Pure but for [`ask`]. Invariant: whatever stands there, nothing is taken for a finding that is no number
//! in its own place; a disk that does not tell has no findings.

use std::path::Path;
use std::process::{Command, Stdio};

use elasticstack_core::block::{Warning, WarningKind};
use elasticstack_core::prelude::*;
use serde::Deserialize;

/// From here on, in hundredths of what it may be written, a disk is called worn.
const WORN: u64 = 90;

/// What a disk says of itself that an operator should know of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Smart {
    /// It says that it is about to fail, or has.
    pub is_failing: bool,
    /// Sectors that it could not read, or has lost for good; errors of its medium.
    pub errors: u64,
    /// Sectors that it has put out of use and others in their place.
    pub reallocated: u64,
    /// Hundredths of what it may be written that are written, if it says.
    pub worn: Option<u64>,
}

/// What smartctl prints, as far as it is read. What is absent is what this kind of disk does not have.
#[derive(Debug, Deserialize)]
struct Printed {
    smart_status: Option<Status>,
    ata_smart_attributes: Option<Attributes>,
    nvme_smart_health_information_log: Option<NvmeLog>,
    scsi_grown_defect_list: Option<u64>,
    scsi_error_counter_log: Option<ScsiLog>,
    scsi_percentage_used_endurance_indicator: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Status {
    passed: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Attributes {
    #[serde(default)]
    table: Vec<Attribute>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    id: u64,
    #[serde(default)]
    when_failed: String,
    raw: Raw,
}

#[derive(Debug, Deserialize)]
struct Raw {
    value: u64,
}

#[derive(Debug, Deserialize)]
struct NvmeLog {
    #[serde(default)]
    critical_warning: u64,
    #[serde(default)]
    media_errors: u64,
    percentage_used: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct ScsiLog {
    read: Option<Uncorrected>,
    write: Option<Uncorrected>,
    verify: Option<Uncorrected>,
}

#[derive(Debug, Deserialize)]
struct Uncorrected {
    #[serde(default)]
    total_uncorrected_errors: u64,
}

impl Smart {
    /// Reads what `smartctl --json --all` printed.
    ///
    /// # Errors
    /// `Internal` if it is not in that shape.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let printed: Printed = serde_json::from_slice(json)
            .map_err(|error| Error::internal("reading what smartctl printed").source(error))?;
        let failed = printed.smart_status.and_then(|status| status.passed) == Some(false);
        let mut found = Self { is_failing: failed, ..Self::default() };
        for Attribute { id, when_failed, raw } in
            printed.ata_smart_attributes.map(|attributes| attributes.table).unwrap_or_default()
        {
            found.is_failing |= when_failed == "now";
            // Makers agree on the meaning of these alone.
            match id {
                5 => found.reallocated = raw.value,
                // Reported uncorrectable; pending; offline uncorrectable.
                187 | 197 | 198 => found.errors = found.errors.max(raw.value),
                _ => {}
            }
        }
        if let Some(NvmeLog { critical_warning, media_errors, percentage_used }) =
            printed.nvme_smart_health_information_log
        {
            // Its second bit is the temperature, which passes.
            found.is_failing |= critical_warning & !0b10 != 0;
            found.errors = media_errors;
            found.worn = percentage_used;
        }
        if let Some(ScsiLog { read, write, verify }) = printed.scsi_error_counter_log {
            let each = [read, write, verify].into_iter().flatten();
            let errors = each.map(|log| log.total_uncorrected_errors);
            found.errors = errors.fold(found.errors, u64::saturating_add);
        }
        found.reallocated = printed.scsi_grown_defect_list.unwrap_or(found.reallocated);
        found.worn = printed.scsi_percentage_used_endurance_indicator.or(found.worn);
        Ok(found)
    }

    /// What an operator is told of it, of a disk of this name.
    #[must_use]
    pub fn warnings(&self, disk: &str) -> Vec<Warning> {
        let warning = |kind, sentence| Warning { kind, disk: Some(disk.to_owned()), sentence };
        let &Self { is_failing, errors, reallocated, worn } = self;
        let mut warnings = Vec::new();
        if is_failing {
            let sentence = format!(
                "disk {disk} says that it is about to fail (SMART): replace it now, by `array replace`"
            );
            warnings.push(warning(WarningKind::DiskFailing, sentence));
        }
        if errors > 0 || reallocated > 0 {
            let sentence = format!(
                "disk {disk} has had {errors} sectors or commands that it could not read or correct and has put \
                 {reallocated} out of use (SMART): scrub the array, and replace the disk if the numbers grow"
            );
            warnings.push(warning(WarningKind::DiskErrors, sentence));
        }
        if let Some(worn) = worn.filter(|worn| *worn >= WORN) {
            let sentence = format!(
                "disk {disk} has been written {worn} % of what it is made for (SMART): replace it before \
                 its like, which are as old, wear out together"
            );
            warnings.push(warning(WarningKind::DiskWorn, sentence));
        }
        warnings
    }
}

/// Whether there is a smartctl to ask.
#[must_use]
pub fn is_there() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join("smartctl").is_file())
}

/// Asks a disk. Blocks, for as long as the disk does not answer.
///
/// # Errors
/// `Internal` if smartctl can't be started, or can't ask this disk.
pub(super) fn ask(device: &Path) -> Result<Smart> {
    let mut smartctl = Command::new("smartctl");
    // One that sleeps is not woken for this.
    smartctl.args(["--json", "--all", "--nocheck=standby,0"]).arg(device);
    let output = smartctl.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::internal("starting smartctl").source(error))?;
    // Its status is bits: the lowest two say that the disk was not asked, the others what was found.
    match output.status.code() {
        Some(code) if code & 0b11 == 0 => Smart::parse(&output.stdout),
        _ => {
            let (device, status) = (device.display(), output.status);
            Err(Error::internal(format!("smartctl could not ask {device}: it ended with {status}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ATA: &str = r#"{
        "json_format_version": [1, 0],
        "smartctl": {"version": [7, 3], "exit_status": 0},
        "device": {"name": "/dev/sda", "type": "sat", "protocol": "ATA"},
        "smart_status": {"passed": true},
        "ata_smart_attributes": {"revision": 16, "table": [
            {"id": 5, "name": "Reallocated_Sector_Ct", "value": 100, "worst": 100, "thresh": 10,
             "when_failed": "", "flags": {"value": 51}, "raw": {"value": 8, "string": "8"}},
            {"id": 194, "name": "Temperature_Celsius", "value": 64, "worst": 45, "thresh": 0,
             "when_failed": "", "raw": {"value": 184683593764, "string": "36 (Min/Max 20/43)"}},
            {"id": 197, "name": "Current_Pending_Sector", "value": 100, "worst": 100, "thresh": 0,
             "when_failed": "", "raw": {"value": 2, "string": "2"}},
            {"id": 198, "name": "Offline_Uncorrectable", "value": 100, "worst": 100, "thresh": 0,
             "when_failed": "", "raw": {"value": 1, "string": "1"}}]},
        "power_on_time": {"hours": 41234}
    }"#;

    const NVME: &str = r#"{
        "device": {"name": "/dev/nvme0", "type": "nvme", "protocol": "NVMe"},
        "smart_status": {"passed": true, "nvme": {"value": 0}},
        "nvme_smart_health_information_log": {"critical_warning": 0, "temperature": 35,
            "available_spare": 100, "available_spare_threshold": 10, "percentage_used": 93,
            "media_errors": 0, "num_err_log_entries": 12}
    }"#;

    const SCSI: &str = r#"{
        "device": {"name": "/dev/sdb", "type": "scsi", "protocol": "SCSI"},
        "smart_status": {"passed": true},
        "scsi_grown_defect_list": 3,
        "scsi_error_counter_log": {
            "read": {"errors_corrected_by_eccfast": 12, "total_uncorrected_errors": 4},
            "write": {"total_uncorrected_errors": 1}}
    }"#;

    fn smart(is_failing: bool, errors: u64, reallocated: u64, worn: Option<u64>) -> Smart {
        Smart { is_failing, errors, reallocated, worn }
    }

    #[test]
    fn what_smartctl_prints_of_each_kind_of_disk_is_read() {
        let fails = |json: &str| json.replace("\"passed\": true", "\"passed\": false");
        let hot = NVME.replace("\"critical_warning\": 0", "\"critical_warning\": 2");
        let no_spare = NVME.replace("\"critical_warning\": 0", "\"critical_warning\": 1");
        let failed_now = ATA.replacen("\"when_failed\": \"\"", "\"when_failed\": \"now\"", 1);
        let failed_once = ATA.replacen("\"when_failed\": \"\"", "\"when_failed\": \"past\"", 1);
        for (json, found) in [
            (ATA, smart(false, 2, 8, None)),
            (&fails(ATA), smart(true, 2, 8, None)),
            (&failed_now, smart(true, 2, 8, None)),
            (&failed_once, smart(false, 2, 8, None)),
            (NVME, smart(false, 0, 0, Some(93))),
            (&hot, smart(false, 0, 0, Some(93))),
            (&no_spare, smart(true, 0, 0, Some(93))),
            (SCSI, smart(false, 5, 3, None)),
            // A disk without SMART, such as a virtual one.
            (r#"{"smart_support": {"available": false}}"#, Smart::default()),
            ("{}", Smart::default()),
        ] {
            assert_eq!(Smart::parse(json.as_bytes()).unwrap(), found, "{json}");
        }
        for none in ["", "[", "smartctl 7.3", r#"{"smart_status": 1}"#] {
            assert!(Smart::parse(none.as_bytes()).is_err(), "{none}");
        }
    }

    #[test]
    fn an_operator_is_told_which_disk_and_what_to_do() {
        for (found, kinds) in [
            (Smart::default(), &[][..]),
            (smart(true, 0, 0, None), &[WarningKind::DiskFailing]),
            (smart(false, 1, 0, None), &[WarningKind::DiskErrors]),
            (smart(false, 0, 1, Some(WORN - 1)), &[WarningKind::DiskErrors]),
            (smart(false, 0, 0, Some(WORN)), &[WarningKind::DiskWorn]),
            (
                smart(true, 2, 2, Some(255)),
                &[WarningKind::DiskFailing, WarningKind::DiskErrors, WarningKind::DiskWorn],
            ),
        ] {
            let warnings = found.warnings("WD-1");
            let told: Vec<_> = warnings.iter().map(|warning| warning.kind).collect();
            assert_eq!(told, kinds, "{found:?}");
            for Warning { disk, sentence, .. } in warnings {
                assert_eq!(disk.as_deref(), Some("WD-1"));
                assert!(
                    sentence.contains("disk WD-1 ") && sentence.contains("replace"),
                    "{sentence}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_for_what_smartctl_prints_make_the_reader_fail(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in 0..ATA.len(),
            byte in any::<u8>(),
        ) {
            let _ = Smart::parse(&bytes);
            for json in [ATA, NVME, SCSI] {
                let mut json = json.as_bytes().to_vec();
                if let Some(place) = json.get_mut(at) {
                    *place = byte;
                }
                let _ = Smart::parse(&json).map(|found| found.warnings("WD-1"));
            }
        }
    }
}
