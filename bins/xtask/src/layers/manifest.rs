//! Rules of Cargo.toml: every member takes the workspace's lints, versions and their reasons stand
//! in the root manifest and nowhere else.

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Violation;

const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Checks a member's manifest.
///
/// # Errors
/// `text` is not TOML.
pub(crate) fn check_member(path: &str, text: &str) -> Result<Vec<Violation>> {
    let manifest: Table = text.parse().with_context(|| format!("{path} is not TOML"))?;
    let mut violations = Vec::new();
    if !manifest.get("lints").is_some_and(is_inherited) {
        let remedy = "add a section [lints] with `workspace = true`";
        violations.push(Violation::new(path, "lints", remedy));
    }
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(Table::values).filter_map(Value::as_table);
    for owner in std::iter::once(&manifest).chain(targets) {
        let sections = SECTIONS.iter().filter_map(|section| owner.get(*section)?.as_table());
        for (name, value) in sections.flatten().filter(|(_, value)| !is_inherited(value)) {
            let remedy = format!(
                "`{name} = {value}`: write `{name}.workspace = true`, and the version with its reason in the root Cargo.toml"
            );
            violations.push(Violation::new(path, "one place for versions", remedy));
        }
    }
    Ok(violations)
}

fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// Checks that each foreign crate in the root manifest says on its line why it is there.
pub(crate) fn check_root(text: &str) -> Vec<Violation> {
    let section = text
        .lines()
        .enumerate()
        .skip_while(|(_, line)| line.trim() != "[workspace.dependencies]")
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['));
    section
        .filter(|(_, line)| line.contains('=') && !line.contains("path =") && !line.contains('#'))
        .map(|(at, line)| {
            let name = line.split([' ', '=', '.']).next().unwrap_or(line);
            let remedy = format!("end the line of `{name}` with a comment: why it is in the tree");
            Violation::new(format!("Cargo.toml:{}", at + 1), "reasons", remedy)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_inherits_everything_is_clean() {
        let text = "[package]\nname = \"x\"\nversion.workspace = true\n[lints]\nworkspace = true\n\
                    [dependencies]\nserde = { workspace = true, features = [\"rc\"] }\n";
        assert_eq!(check_member("x/Cargo.toml", text).unwrap(), []);
    }

    #[test]
    fn missing_lints_are_a_violation() {
        for text in ["[package]\nname = \"x\"\n", "[lints]\nworkspace = false\n"] {
            let found = check_member("x/Cargo.toml", text).unwrap();
            assert_eq!(found.iter().map(|v| v.rule).collect::<Vec<_>>(), ["lints"], "{text}");
        }
    }

    #[test]
    fn a_version_in_any_section_of_a_member_is_a_violation() {
        for section in ["dependencies", "dev-dependencies", "target.'cfg(unix)'.build-dependencies"]
        {
            let text = format!("[lints]\nworkspace = true\n[{section}]\nserde = \"1\"\n");
            let found = check_member("x/Cargo.toml", &text).unwrap();
            assert_eq!(found.len(), 1, "{section}");
            assert!(found[0].remedy.starts_with("`serde = \"1\"`"), "{}", found[0]);
        }
    }

    #[test]
    fn a_dependency_without_a_reason_is_a_violation() {
        let text = "[workspace.dependencies]\nown = { path = \"own\" }\n\nserde = \"1\" # wire types\n\
                    uuid = \"1\"\n\n[profile.dev]\ndebug = 1\n";
        let found = check_root(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "Cargo.toml:5");
    }
}
