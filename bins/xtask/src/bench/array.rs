//! What checksums below a mirror cost: two mirrors of like disks on a machine of the lab, one with
//! checksums, and the same work of fio's on either in turns.
//!
//! Nothing is judged: the disks are files, and the machine's CPU is software, to which checksums are dearer
//! than to a real one.

use std::env;

use anyhow::{Context as _, Result};
use elasticstack_lab::{Lab, Machine};
use serde_json::Value;

use crate::image::Kit;
use crate::{process, tools};

/// How often each mirror does each work.
const ROUNDS: usize = 5;

/// Seconds that it is at it each time.
const SECONDS: u32 = 4;

/// Works, with what fio is told of them.
const WORKS: [(&str, &str); 4] = [
    ("writes of 1 MiB, one behind the other", "--rw=write --bs=1M --iodepth=4"),
    ("writes of 4 KiB at random, 32 at a time", "--rw=randwrite --bs=4k --iodepth=32"),
    ("writes of 4 KiB at random, one by one, each durable", "--rw=randwrite --bs=4k --fsync=1"),
    ("reads of 4 KiB at random, 32 at a time", "--rw=randread --bs=4k --iodepth=32"),
];

/// The mirrors: the name, their disks, and what else `array create` is told.
const PLAIN: (&str, [u8; 2], &str) = ("plain", [1, 2], "");
const CHECKED: (&str, [u8; 2], &str) = ("checked", [3, 4], "--integrity");

/// Makes the mirrors, measures and prints.
pub(super) fn run() -> Result<()> {
    tools::ensure_for_lab()?;
    Kit::LAB.ensure()?;
    process::run(&mut process::cargo([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "elasticstack-bin-agent",
    ])?)?;
    let lab = Lab::new()?.with_disks_of(512);
    let mut machine = lab.boot(1)?;
    make(&mut machine)?;
    println!(
        "{:52} {:>14} {:>14} {:>7}",
        "operations a second, medians", "plain", "checksums", "ratio"
    );
    for (what, work) in WORKS {
        let (mut plain, mut checked, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (one, other) =
                (measure(&mut machine, PLAIN.0, work)?, measure(&mut machine, CHECKED.0, work)?);
            plain.push(one);
            checked.push(other);
            ratios.push(other / one);
        }
        let [plain, checked, ratio] = [plain, checked, ratios].map(median);
        println!("{what:52} {plain:14.0} {checked:14.0} {ratio:7.2}");
    }
    println!(
        "{ROUNDS} turns of {SECONDS} s each; disks that are files, and a software CPU, to which \
         checksums are dearer than to a real one"
    );
    machine.quit()
}

/// Makes both, with a file on each that has all its blocks.
fn make(machine: &mut Machine) -> Result<()> {
    let programs = env::current_exe().context("find the directory of built programs")?;
    let programs = programs.parent().context("the directory of built programs has no name")?;
    let agent = programs.join("elasticstack-agent");
    let agent = format!("'{}' --config /data/agent.toml", agent.display());
    machine.run("echo 'state_dir = \"/data/state\"' >/data/agent.toml")?.ok()?;
    for (name, [one, other], options) in [PLAIN, CHECKED] {
        let disks = format!("--disk LAB-DISK-{one} --disk LAB-DISK-{other}");
        let create =
            format!("array create {name} --level raid1 {disks} {options} --path /srv/{name}");
        machine.run(&format!("{agent} {create}"))?.ok()?;
        let settle = "mdadm --wait $(readlink -f /dev/md/NAME) || true
            dd if=/dev/zero of=/srv/NAME/file bs=1M count=256 conv=fsync status=none";
        machine.run(&settle.replace("NAME", name))?.ok()?;
    }
    Ok(())
}

/// How many operations a second the work comes to.
fn measure(machine: &mut Machine, name: &str, work: &str) -> Result<f64> {
    let told = machine.run(&format!(
        "fio --name=work --filename=/srv/{name}/file --size=256M --direct=1 --ioengine=libaio \
         --runtime={SECONDS} --time_based --output-format=json --output=/tmp/told {work} 2>&1 && cat /tmp/told"
    ))?;
    let told = told.ok()?;
    operations(&told).with_context(|| format!("fio told nothing of its work:\n{told}"))
}

/// Those that fio tells, of whichever kind it did.
fn operations(told: &str) -> Option<f64> {
    let told: Value = serde_json::from_str(told).ok()?;
    let job = told.get("jobs")?.get(0)?;
    let of = |kind: &str| job.get(kind)?.get("iops")?.as_f64().filter(|iops| *iops > 0.0);
    of("write").or_else(|| of("read"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_as_fio_tells_them() {
        let told = |read: f64, write: f64| {
            format!(r#"{{"jobs": [{{"read": {{"iops": {read}}}, "write": {{"iops": {write}}}}}]}}"#)
        };
        assert_eq!(operations(&told(0.0, 12.5)), Some(12.5));
        assert_eq!(operations(&told(7.0, 0.0)), Some(7.0));
        assert_eq!(operations(&told(0.0, 0.0)), None);
        assert_eq!(operations("{}"), None);
        assert_eq!(operations("fio: no such file"), None);
    }

    #[test]
    fn the_median_is_the_middle_one_of_an_odd_number() {
        assert_eq!(ROUNDS % 2, 1);
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
