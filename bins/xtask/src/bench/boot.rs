//! How long a container takes to its init, beside QEMU, on a machine of the lab: there KVM runs any kernel. The
//! lab's CPU is software, so only what is beside each other says something.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use elasticstack_lab::Lab;

use crate::image::{self, Image, Kit};
use crate::{process, tools};

/// Brings up a machine and measures there.
pub(super) fn run(options: &[String]) -> Result<()> {
    tools::ensure_for_lab()?;
    Kit::LAB.ensure()?;
    let kit = Kit::ANY.ensure()?;
    let root = image::run(image::Args { image: Image::TinyRoot, cache: None })?;
    let vmm = ["--release", "--locked", "-p", "elasticstack-bin-vmm"];
    process::run(process::cargo(["build", "--quiet"])?.args(vmm))?;
    process::run(&mut super::benches("build")?)?;
    let release = process::target_dir().join("release");
    let lab = Lab::new()?;
    let own = lab.directory(1);
    fs::create_dir_all(&own).context("make a machine's directory")?;
    for file in ["kernel", "initrd.gz"] {
        fs::copy(kit.join(file), own.join(file)).with_context(|| format!("copy the {file}"))?;
    }
    let raw = fs::File::create(own.join("root.raw")).context("make a root drive")?;
    let mut unpack = process::command("gzip")?;
    unpack.arg("--decompress").arg("--stdout").arg(&root).stdout(Stdio::from(raw));
    process::run(&mut unpack)?;
    let mut machine = lab.boot(1)?;
    machine.run("modprobe kvm_amd || modprobe kvm_intel; mkdir /data/bench")?.ok()?;
    let told = machine.run(&format!(
        "{} boot --vmm {} --kernel /lab/kernel --initial-disk /lab/initrd.gz --root /lab/root.raw \\
             --directory /data/bench {}",
        release.join("elasticstack-benches").display(),
        release.join("elasticstack-vmm").display(),
        options.join(" ")
    ))?;
    println!("{}", told.ok()?);
    machine.quit()
}
