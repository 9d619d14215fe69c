//! How much processor time and memory this machine has for guests.

use std::path::Path;
use std::{fs, io};

use elasticstack_core::units::{MebiBytes, MegaHertz};

/// What guests may use of this machine, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Processor time: the sum over all processors of the speed each can hold.
    pub cpu: MegaHertz,
    /// Memory, less what the machine itself needs.
    pub memory: MebiBytes,
}

/// Measures this machine.
///
/// # Errors
/// If `/proc` does not tell.
pub fn capacity() -> io::Result<Capacity> {
    let untold = |what| io::Error::other(format!("/proc does not tell {what}"));
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = rated_mhz(Path::new("/sys/devices/system/cpu"))
        .or_else(|| current_mhz(&cpuinfo))
        .ok_or_else(|| untold("the speed of the processors"))?;
    let memory = total_memory(&fs::read_to_string("/proc/meminfo")?)
        .map(less_reserve)
        .ok_or_else(|| untold("the size of the memory"))?;
    Ok(Capacity { cpu: MegaHertz(cpu), memory })
}

/// Σ over the processors of the speed they are rated for; a turbo is promised to nobody where the
/// base speed is known.
fn rated_mhz(cpus: &Path) -> Option<u32> {
    let mut sum: u32 = 0;
    for entry in fs::read_dir(cpus).ok()?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        if !number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let khz = |file| -> Option<u32> {
            let text = fs::read_to_string(entry.path().join("cpufreq").join(file)).ok()?;
            text.trim().parse().ok()
        };
        let khz = khz("base_frequency").or_else(|| khz("cpuinfo_max_freq"))?;
        sum = sum.saturating_add(khz / 1_000);
    }
    (sum > 0).then_some(sum)
}

/// Σ over the processors of the speed they have now.
fn current_mhz(cpuinfo: &str) -> Option<u32> {
    let sum = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("cpu MHz")?.split(':').nth(1))
        .filter_map(|mhz| mhz.trim().split('.').next()?.parse::<u32>().ok())
        .fold(0, u32::saturating_add);
    (sum > 0).then_some(sum)
}

fn total_memory(meminfo: &str) -> Option<MebiBytes> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = kib.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(MebiBytes(u32::try_from(kib / 1024).unwrap_or(u32::MAX)))
}

/// Leaves the machine a sixteenth, at least 512 MiB, for the kernel, the agent and what each QEMU
/// needs beside its guest's memory.
fn less_reserve(total: MebiBytes) -> MebiBytes {
    MebiBytes(total.0.saturating_sub((total.0 / 16).max(512)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_measured() {
        let Capacity { cpu, memory } = capacity().unwrap();
        assert!(cpu.0 >= 100, "{cpu}");
        assert!(memory.0 > 0, "{memory}");
    }

    #[test]
    fn speeds_and_memory_are_summed_in_whole_units() {
        let cpuinfo = "processor : 0\ncpu MHz\t\t: 2596.130\nprocessor : 1\ncpu MHz\t\t: 2000.9\n";
        assert_eq!(current_mhz(cpuinfo), Some(4596));
        assert_eq!(current_mhz("processor : 0\n"), None);
        assert_eq!(total_memory("MemTotal:       24000000 kB\n"), Some(MebiBytes(23437)));
        assert_eq!(total_memory("MemTotal: much"), None);
        assert_eq!(less_reserve(MebiBytes(16_384)), MebiBytes(15_360));
        assert_eq!(less_reserve(MebiBytes(256)), MebiBytes(0));
    }

    #[test]
    fn the_base_speed_counts_before_the_turbo() {
        let cpus = tempfile::tempdir().unwrap();
        for (cpu, file, khz) in [
            ("cpu0", "base_frequency", "2000000\n"),
            ("cpu0", "cpuinfo_max_freq", "4000000\n"),
            ("cpu1", "cpuinfo_max_freq", "1500000\n"),
            ("cpuidle", "base_frequency", "9000000\n"),
        ] {
            let folder = cpus.path().join(cpu).join("cpufreq");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), khz).unwrap();
        }
        assert_eq!(rated_mhz(cpus.path()), Some(3500));
        fs::create_dir_all(cpus.path().join("cpu2")).unwrap();
        assert_eq!(rated_mhz(cpus.path()), None, "one processor does not tell");
    }
}
