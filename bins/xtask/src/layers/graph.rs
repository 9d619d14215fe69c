//! The edges between the workspace's crates: which are allowed at all, and which exist by the golden
//! `layers.txt`. Owns the reading of `cargo metadata`; everything below that is pure.
//!
//! Two checks on purpose: the fences say what may never be, the golden makes each new edge that
//! could be a line that a reviewer sees.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{GOLDEN, Violation};
use crate::process;

const CORE: &str = "elasticstack-core";
const LAB: &str = "elasticstack-lab";
const XTASK: &str = "elasticstack-bin-xtask";
const HOST: &str = "elasticstack-host";
const API: &str = "elasticstack-api";
const PANEL: &str = "elasticstack-bin-panel";
const BILLING: &str = "elasticstack-bin-billing";
const CLI: &str = "elasticstack-bin-cli";
const ALLINONE: &str = "elasticstack-bin-allinone";
const BENCHES: &str = "elasticstack-benches";

/// A crate of the workspace, as `cargo metadata` shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Member>,
}

impl Member {
    /// Its Cargo.toml, from the root.
    pub(crate) fn manifest(&self) -> &str {
        let root = process::root().to_string_lossy();
        let inside = self.manifest_path.strip_prefix(root.as_ref()).unwrap_or(&self.manifest_path);
        inside.trim_start_matches('/')
    }

    pub(crate) fn is_library(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"))
    }

    pub(crate) fn features(&self) -> impl Iterator<Item = &str> {
        self.features.keys().map(String::as_str).filter(|feature| *feature != "default")
    }

    /// The other members it depends on, mapped to whether only its tests do.
    fn edges(&self, members: &[Member]) -> BTreeMap<&str, Reach> {
        let mut edges = BTreeMap::new();
        for dependency in &self.dependencies {
            let is_other = dependency.name != self.name
                && members.iter().any(|member| member.name == dependency.name);
            if is_other {
                let reach = match dependency.kind.as_deref() {
                    Some("dev") => Reach::Tests,
                    _ => Reach::Program,
                };
                let widest = edges.entry(dependency.name.as_str()).or_insert(reach);
                *widest = reach.max(*widest);
            }
        }
        edges
    }
}

/// What a dependency becomes part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Tests,
    Program,
}

/// The workspace's crates, by name.
///
/// # Errors
/// cargo fails, as it does when Cargo.lock is older than the manifests.
pub(crate) fn members() -> Result<Vec<Member>> {
    let text = process::capture(&mut process::cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--locked",
    ])?)?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Member>> {
    let metadata: Metadata =
        serde_json::from_str(text).context("`cargo metadata` printed an unknown shape")?;
    let mut members = metadata.packages;
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

/// Edges that break the layers, whatever the golden says. Tests are no excuse; but the lab is no
/// layer, and tests of all crates but core may use it.
pub(crate) fn fences(members: &[Member]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in members {
        let allowed = allowed(&member.name);
        let tried_in_lab = |to, reach| to == LAB && reach == Reach::Tests && member.name != CORE;
        for (target, reach) in member.edges(members) {
            if allowed.contains(&target) || tried_in_lab(target, reach) {
                continue;
            }
            let may = if allowed.is_empty() { "no other crate".into() } else { allowed.join(", ") };
            violations.push(Violation::new(
                member.manifest(),
                "layers",
                format!("{} depends on {target}, it may use {may}: remove the edge", member.name),
            ));
        }
    }
    violations
}

fn allowed(name: &str) -> &'static [&'static str] {
    match name {
        CORE | LAB => &[],
        HOST | API | PANEL | BILLING | CLI => &[CORE],
        ALLINONE => &[CORE, HOST, API, PANEL, BILLING],
        XTASK => &[CORE, LAB],
        BENCHES => &[CORE, HOST, API, LAB],
        _ => &[CORE, HOST, API],
    }
}

/// The text of the golden file.
pub(crate) fn render(members: &[Member]) -> String {
    let mut text = String::from(
        "# crate -> the workspace crates it depends on; (dev) for tests only.\n\
         # A new edge is a decision: run `cargo xtask layers --bless` and give the reason in the commit.\n",
    );
    for member in members {
        let edges: Vec<_> = member
            .edges(members)
            .into_iter()
            .map(|(to, reach)| match reach {
                Reach::Program => to.to_owned(),
                Reach::Tests => format!("{to} (dev)"),
            })
            .collect();
        let edges = if edges.is_empty() { "(none)".to_owned() } else { edges.join(", ") };
        text.push_str(&format!("{} -> {edges}\n", member.name));
    }
    text
}

/// Lines in which the golden and the tree differ.
pub(crate) fn differences(golden: &str, found: &str) -> Vec<Violation> {
    let lines = |text| -> BTreeSet<&str> { str::lines(text).collect() };
    let (golden, found) = (lines(golden), lines(found));
    let added = found.difference(&golden).map(|line| (line, "is in the tree and not here"));
    let gone = golden.difference(&found).map(|line| (line, "is here and not in the tree"));
    added
        .chain(gone)
        .map(|(line, what)| {
            let remedy = format!(
                "`{line}` {what}: mend the edge, or `cargo xtask layers --bless` with the reason in the commit"
            );
            Violation::new(GOLDEN, "golden", remedy)
        })
        .collect()
}

/// A violation if core, as it is built by default, reaches tokio.
pub(crate) fn runtime_in_core() -> Result<Option<Violation>> {
    let tree = process::capture(&mut process::cargo([
        "tree", "--locked", "-p", CORE, "-e", "normal", "--prefix", "none",
    ])?)?;
    Ok(runtime_in(&tree))
}

fn runtime_in(tree: &str) -> Option<Violation> {
    let found = tree.lines().find(|line| line.split(' ').next() == Some("tokio"))?;
    let remedy = format!("it reaches {found}: find the way with `cargo tree -p {CORE} -i tokio`");
    Some(Violation::new("elasticstack-core/Cargo.toml", "core has no runtime", remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members from lines of `crate -> dependency, dependency (dev)`.
    fn tree(lines: &str) -> Vec<Member> {
        let package = |line: &str| {
            let (name, dependencies) = line.trim().split_once(" ->").unwrap();
            let dependencies = dependencies.split(',').map(str::trim).filter(|to| !to.is_empty());
            let dependency = |to: &str| match to.strip_suffix(" (dev)") {
                Some(to) => serde_json::json!({"name": to, "kind": "dev"}),
                None => serde_json::json!({"name": to, "kind": null}),
            };
            serde_json::json!({
                "name": name,
                "manifest_path": process::root().join(name).join("Cargo.toml"),
                "dependencies": dependencies.map(dependency).collect::<Vec<_>>(),
                "features": {"default": [], "sim": []},
                "targets": [{"kind": ["lib"]}],
            })
        };
        let packages: Vec<_> = lines.lines().map(package).collect();
        parse(&serde_json::json!({"packages": packages}).to_string()).unwrap()
    }

    #[test]
    fn edges_down_the_layers_are_allowed() {
        let members = tree(
            "elasticstack-core -> serde
             elasticstack-host -> elasticstack-core
             elasticstack-api -> elasticstack-core
             elasticstack-bin-panel -> elasticstack-core
             elasticstack-bin-agent -> elasticstack-host, elasticstack-lab (dev)
             elasticstack-lab ->
             elasticstack-bin-allinone -> elasticstack-api, elasticstack-host, elasticstack-bin-panel",
        );
        assert_eq!(fences(&members), []);
    }

    #[test]
    fn an_edge_against_the_layers_is_a_violation_also_in_tests() {
        let against = [
            (API, HOST, ""),
            (HOST, API, " (dev)"),
            (CORE, HOST, ""),
            (PANEL, API, ""),
            (BILLING, HOST, ""),
            (CLI, API, " (dev)"),
            (API, PANEL, ""),
            ("elasticstack-bin-api", PANEL, ""),
            ("elasticstack-bin-api", LAB, ""),
            (HOST, LAB, ""),
            (CORE, LAB, " (dev)"),
            (LAB, CORE, " (dev)"),
        ];
        for (from, to, dev) in against {
            let found = fences(&tree(&format!("{from} -> {to}{dev}\n{to} ->")));
            assert_eq!(found.len(), 1, "{from} -> {to}");
            assert!(
                found[0].remedy.starts_with(&format!("{from} depends on {to}")),
                "{}",
                found[0]
            );
            assert_eq!(found[0].place, format!("{from}/Cargo.toml"));
        }
    }

    #[test]
    fn the_golden_lists_members_only_and_marks_tests() {
        let text = render(&tree(
            "elasticstack-host -> elasticstack-core, elasticstack-core (dev), serde
             elasticstack-core -> elasticstack-core (dev)
             elasticstack-examples -> elasticstack-core (dev)",
        ));
        let edges: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            edges,
            [
                "elasticstack-core -> (none)",
                "elasticstack-examples -> elasticstack-core (dev)",
                "elasticstack-host -> elasticstack-core",
            ]
        );
    }

    #[test]
    fn a_new_edge_and_a_lost_one_each_differ_from_the_golden() {
        assert_eq!(differences("a -> b\n", "a -> b\n"), []);
        assert_eq!(differences("a -> b\n", "a -> b, c\n").len(), 2);
        assert_eq!(differences("a -> b\nc -> d\n", "a -> b\n").len(), 1);
    }

    #[test]
    fn tokio_is_found_by_its_whole_name() {
        assert_eq!(runtime_in("elasticstack-core v0.1.0 (/x)\ntokio-util v0.7.0\n"), None);
        assert!(runtime_in("elasticstack-core v0.1.0 (/x)\ntokio v1.54.1\n").is_some());
    }
}
