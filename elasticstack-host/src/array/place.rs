//! Where an array may be mounted: what comes from outside must hide nothing and stay where arrays are.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::{Component, Path, PathBuf};

use elasticstack_core::prelude::*;

/// Refuses what is no plain absolute path, or, if there is a `root` for arrays, not below it, whatever links
/// are on the way.
///
/// # Errors
/// `InvalidValue`.
pub(super) fn check(path: &Path, root: Option<&Path>) -> Result<()> {
    check_form(path, root)?;
    match root {
        Some(root) if !resolved(path).starts_with(resolved(root)) => Err(refused(format!(
            "{} leads elsewhere than below {}: give a path without links",
            path.display(),
            root.display()
        ))),
        _ => Ok(()),
    }
}

/// Refuses a path where there is anything that would be hidden.
///
/// # Errors
/// `InvalidValue`.
pub(super) fn check_empty(path: &Path) -> Result<()> {
    let at = path.display();
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused(format!("{at} is not empty: what is in it would be hidden"))),
        Err(error) if error.kind() == IoKind::NotFound => Ok(()),
        Err(error) => {
            Err(refused(format!("{at} can't be looked into: give another path")).source(error))
        }
    }
}

fn check_form(path: &Path, root: Option<&Path>) -> Result<()> {
    let shown = path.display();
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let has_control = path.to_str().is_none_or(|text| text.chars().any(char::is_control));
    if !path.is_absolute() || has_control || !path.components().all(is_plain) {
        let sentence =
            format!("{shown:?} is not an absolute path without \"..\" and control characters");
        return Err(refused(sentence));
    }
    match root {
        Some(root) if path == root || !path.starts_with(root) => {
            Err(refused(format!("{shown} is not below {}, where arrays are", root.display())))
        }
        None if path == Path::new("/") => Err(refused("/ is no place for an array".to_owned())),
        _ => Ok(()),
    }
}

/// The path without links, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let (Ok(there), Ok(rest)) = (fs::canonicalize(above), path.strip_prefix(above)) {
            return there.join(rest);
        }
    }
    path.to_owned()
}

fn refused(sentence: String) -> Error {
    Error::new(ErrorKind::InvalidValue, sentence).field("path")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_array_is_mounted_below_the_place_for_arrays_and_nowhere_else() {
        let root = Some(Path::new("/srv"));
        for path in ["/srv/fast", "/srv/arrays/fast", "/srv//fast/", "/srv/..."] {
            check_form(path.as_ref(), root).unwrap();
        }
        for path in [
            "",
            "srv/fast",
            "./fast",
            "/",
            "/srv",
            "/srv/",
            "/etc",
            "/srvx/fast",
            "/srv/../etc",
            "/srv/fast/..",
            "/srv/a\nb",
            "/srv/\0",
        ] {
            let error = check_form(path.as_ref(), root).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{path:?}");
            assert_eq!(error.blamed_field(), Some("path"), "{path:?}");
        }
        // Whoever is on the host may choose.
        check_form("/data/fast".as_ref(), None).unwrap();
        for path in ["/", "fast", "/data/../etc"] {
            check_form(path.as_ref(), None).unwrap_err();
        }
    }

    #[test]
    fn a_link_below_the_place_for_arrays_leads_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("srv");
        fs::create_dir_all(root.join("inside")).unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        symlink(directory.path().join("etc"), root.join("out")).unwrap();
        symlink(root.join("inside"), root.join("in")).unwrap();
        for (path, is_well) in
            [("fast", true), ("in/fast", true), ("out", false), ("out/fast", false)]
        {
            assert_eq!(check(&root.join(path), Some(&root)).is_ok(), is_well, "{path}");
        }
    }

    #[test]
    fn what_is_there_is_not_hidden() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        check_empty(&at("new/one")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        check_empty(&at("empty")).unwrap();
        fs::write(at("file"), "").unwrap();
        for taken in [at("file"), directory.path().to_owned()] {
            assert_eq!(check_empty(&taken).unwrap_err().kind(), ErrorKind::InvalidValue);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_below_the_place(text in "(/|\\.|[a-z]|srv|\\PC){0,12}") {
            let path = Path::new(&text);
            if check_form(path, Some(Path::new("/srv"))).is_ok() {
                prop_assert!(path.starts_with("/srv") && path.components().count() > 2);
                prop_assert!(!path.components().any(|part| part == Component::ParentDir));
            }
        }
    }
}
