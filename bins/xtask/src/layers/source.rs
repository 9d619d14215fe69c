//! Rules of one Rust file: its length, its depth, where `unsafe` and SQL may stand, how large a trait
//! may be. Also finds the names of its tests, for `promises`.
//!
//! Works on tokens and not on text, so that a comment, a string or a longer name never counts.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use super::Violation;

const MAX_LINES: usize = 600;
const MAX_MAIN_LINES: usize = 80;
const MAX_DEPTH: usize = 2;
const MAX_METHODS: usize = 10;

const UNSAFE_HOMES: [&str; 2] = ["elasticstack-host/src/sys", "elasticstack-host/src/kvm"];
const SQL_HOME: &str = "elasticstack-api/src/db";

/// What one file showed.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) violations: Vec<Violation>,
    /// Whether it has `unsafe` code or lifts the lint against it, allowed here or not.
    pub(crate) has_unsafe: bool,
    /// Names of the functions marked as tests, and of the modules that a conformance kit fills with
    /// tests.
    pub(crate) tests: Vec<String>,
}

/// Checks the file at `path` (from the root) with content `text`.
pub(crate) fn scan(path: &str, text: &str) -> Scan {
    let mut walk = Walk { path, scan: Scan::default() };
    walk.measure(text);
    match text.parse::<TokenStream>() {
        Ok(tokens) => walk.tokens(tokens),
        Err(error) => {
            walk.broken(error.span().start().line, "syntax", "mend the file: it is no Rust".into())
        }
    }
    walk.scan
}

struct Walk<'a> {
    path: &'a str,
    scan: Scan,
}

impl Walk<'_> {
    fn measure(&mut self, text: &str) {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            self.broken(
                lines,
                "length",
                format!("{lines} lines, the limit is {MAX_LINES}: split it by concept"),
            );
        }
        if self.path.starts_with("bins/")
            && self.path.ends_with("/main.rs")
            && lines > MAX_MAIN_LINES
        {
            let remedy = format!(
                "{lines} lines in a main.rs, the limit is {MAX_MAIN_LINES}: move code to modules"
            );
            self.broken(lines, "length", remedy);
        }
        if let Some((_, inside)) = self.path.split_once("/src/") {
            let depth = inside.split('/').count();
            if depth > MAX_DEPTH {
                let remedy =
                    format!("{depth} levels below src, the limit is {MAX_DEPTH}: use src/a/b.rs");
                self.broken(1, "depth", remedy);
            }
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut marked_as_test = false;
        let mut open_trait: Option<Ident> = None;
        for (at, tree) in trees.iter().enumerate() {
            let next = trees.get(at + 1);
            match tree {
                TokenTree::Ident(word) => {
                    self.word(word, next);
                    if let Some(TokenTree::Ident(name)) = next {
                        if word == "trait" {
                            open_trait = Some(name.clone());
                        }
                        if word == "fn" && std::mem::take(&mut marked_as_test) {
                            self.scan.tests.push(name.to_string());
                        }
                    }
                    if let (Some(TokenTree::Punct(mark)), Some(TokenTree::Group(arguments))) =
                        (next, trees.get(at + 2))
                        && mark.as_char() == '!'
                        && word.to_string().ends_with("_conformance")
                    {
                        self.scan.tests.extend(first_word(arguments));
                    }
                }
                TokenTree::Group(group) => {
                    let is_attribute = group.delimiter() == Delimiter::Bracket
                        && at
                            .checked_sub(1)
                            .and_then(|before| trees.get(before))
                            .is_some_and(is_hash);
                    if is_attribute {
                        marked_as_test |= has_word(group, "test");
                    } else if group.delimiter() == Delimiter::Brace {
                        marked_as_test = false;
                        if let Some(name) = open_trait.take() {
                            self.count_methods(&name, group);
                        }
                    }
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    fn word(&mut self, word: &Ident, next: Option<&TokenTree>) {
        let line = word.span().start().line;
        match (word.to_string().as_str(), next) {
            ("unsafe", _) => self.unsafe_at(line),
            ("allow" | "expect" | "warn", Some(TokenTree::Group(lints)))
                if has_word(lints, "unsafe_code") =>
            {
                self.unsafe_at(line);
            }
            (driver @ ("sqlx" | "rusqlite"), _) if !within(self.path, SQL_HOME) => {
                self.broken(
                    line,
                    "SQL",
                    format!("`{driver}` outside {SQL_HOME}: move the query there"),
                );
            }
            _ => {}
        }
    }

    fn unsafe_at(&mut self, line: usize) {
        self.scan.has_unsafe = true;
        if !UNSAFE_HOMES.iter().any(|home| within(self.path, home)) {
            let homes = UNSAFE_HOMES.join(" and ");
            self.broken(
                line,
                "unsafe",
                format!("unsafe code stands only in {homes}: wrap it there"),
            );
        }
    }

    fn count_methods(&mut self, name: &Ident, body: &Group) {
        let trees: Vec<TokenTree> = body.stream().into_iter().collect();
        let is_method = |pair: &&[TokenTree]| matches!(pair, [TokenTree::Ident(word), TokenTree::Ident(_)] if word == "fn");
        let methods = trees.windows(2).filter(is_method).count();
        if methods > MAX_METHODS {
            let remedy = format!(
                "{name} has {methods} methods, the limit is {MAX_METHODS}: move capabilities to traits of their own"
            );
            self.broken(name.span().start().line, "trait size", remedy);
        }
    }

    fn broken(&mut self, line: usize, rule: &'static str, remedy: String) {
        self.scan.violations.push(Violation::new(format!("{}:{line}", self.path), rule, remedy));
    }
}

/// Whether `path` is the module `home`: the file or anything in its directory.
fn within(path: &str, home: &str) -> bool {
    path.strip_prefix(home).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn is_hash(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == '#')
}

/// The first word of a group that stands in no group of its own.
fn first_word(group: &Group) -> Option<String> {
    group.stream().into_iter().find_map(|tree| match tree {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    })
}

fn has_word(group: &Group, wanted: &str) -> bool {
    group.stream().into_iter().any(|tree| matches!(tree, TokenTree::Ident(word) if word == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "elasticstack-host/src/agent/mod.rs";

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        scan(path, text).violations.iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn comments_strings_and_longer_names_never_count() {
        let text = "#![forbid(unsafe_code)]\n//! unsafe sqlx::query\n/// unsafe\n\
                    fn f() { let unsafe_sqlx = \"unsafe { sqlx::query }\"; }";
        let found = scan(PLAIN, text);
        assert_eq!(found.violations, []);
        assert!(!found.has_unsafe);
    }

    #[test]
    fn unsafe_stands_only_in_its_homes() {
        let cases = [
            "fn f() { unsafe { g() } }",
            "unsafe impl Send for X {}",
            "#![allow(unsafe_code)]",
            "#[expect(unsafe_code, reason = \"x\")] mod x;",
            "m! { unsafe { g() } }",
        ];
        for text in cases {
            assert_eq!(rules(PLAIN, text), ["unsafe"], "{text}");
            for home in ["elasticstack-host/src/sys/kvm.rs", "elasticstack-host/src/kvm.rs"] {
                assert!(rules(home, text).is_empty(), "{home}: {text}");
                assert!(scan(home, text).has_unsafe, "{home}: {text}");
            }
        }
        assert_eq!(rules("elasticstack-host/src/system.rs", cases[0]), ["unsafe"]);
    }

    #[test]
    fn drivers_of_databases_stand_only_in_the_database_module() {
        let text = "use rusqlite::Row;\nfn f() { sqlx::query(\"\"); }";
        assert_eq!(rules("elasticstack-api/src/app/drives.rs", text), ["SQL", "SQL"]);
        assert_eq!(rules("elasticstack-api/src/dbase.rs", text), ["SQL", "SQL"]);
        assert!(rules("elasticstack-api/src/db/drives.rs", text).is_empty());
        assert!(rules("elasticstack-api/src/db.rs", text).is_empty());
    }

    #[test]
    fn a_trait_has_at_most_ten_methods() {
        let with = |methods: usize| {
            let bodies = "fn m(&self, f: fn(u8) -> u8) -> u8 { fn inner() {} 0 }".repeat(methods);
            format!("pub trait Store<T>: Send where T: Sync {{ const N: u8; {bodies} }}")
        };
        assert!(rules(PLAIN, &with(10)).is_empty());
        assert_eq!(rules(PLAIN, &with(11)), ["trait size"]);
        assert_eq!(rules(PLAIN, &format!("mod inner {{ {} }}", with(11))), ["trait size"]);
    }

    #[test]
    fn files_are_neither_long_nor_deep() {
        let lines = |n: usize| "\n".repeat(n);
        assert!(rules(PLAIN, &lines(600)).is_empty());
        assert_eq!(rules(PLAIN, &lines(601)), ["length"]);
        assert!(rules("bins/api/src/main.rs", &lines(80)).is_empty());
        assert_eq!(rules("bins/api/src/main.rs", &lines(81)), ["length"]);
        assert!(rules("bins/api/src/lib.rs", &lines(81)).is_empty());
        assert_eq!(rules("elasticstack-api/src/a/b/c.rs", ""), ["depth"]);
    }

    #[test]
    fn tests_are_found_also_in_macros_and_other_functions_are_not() {
        let text = "#[cfg(test)] mod tests { #[test] #[ignore = \"why\"] fn one() {} fn helper() {}\n\
                    #[tokio::test] async fn two() {} proptest! { #[test] fn three(x in 0..9) {} } }\n\
                    #[cfg(test)] fn not_a_test() {}";
        assert_eq!(scan(PLAIN, text).tests, ["one", "two", "three"]);
    }

    #[test]
    fn the_module_that_a_kit_fills_with_tests_counts_as_one() {
        let text = "core::blockstore_conformance! { #[ignore = \"why\"] my_store, new }\n\
                    hypervisor_conformance! { mine, || new() } other! { not_this, new }";
        assert_eq!(scan(PLAIN, text).tests, ["my_store", "mine"]);
    }

    #[test]
    fn a_file_that_is_no_rust_is_a_violation() {
        assert_eq!(rules(PLAIN, "fn f( {"), ["syntax"]);
    }
}
