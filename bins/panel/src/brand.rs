//! Whose panel it is: name, logo, colour and templates, from a directory.
//!
//! ```text
//! DIR/brand.toml         name = "Example Cloud"
//!                        primary = "#0b5cad"
//!                        support = "support@example.com"     (may be left out)
//! DIR/logo.svg           may be left out
//! DIR/templates/X.html   replaces the panel's own template X.html; may be left out
//! ```
//! Whatever the primary colour is, text on it and text in it stay readable: [`Brand::css`] derives
//! shades that keep a contrast of 4.5 : 1, as WCAG 2 (level AA) asks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The least contrast of text.
const READABLE: f64 = 4.5;
const WHITE: Colour = Colour([255; 3]);
const BLACK: Colour = Colour([0; 3]);

/// A name, a logo, a colour, templates.
#[derive(Debug, Clone)]
pub struct Brand {
    pub(crate) name: String,
    pub(crate) support: Option<String>,
    pub(crate) logo: String,
    primary: Colour,
    pub(crate) templates: Vec<(String, String)>,
}

/// Why a brand can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBrand {
    /// A file can't be read.
    #[error("{path} can't be read", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `brand.toml` is not what the module's page shows.
    #[error("{path} is no brand: give name and primary", path = path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: toml::de::Error,
    },
    /// The colour is not written as `#rrggbb`.
    #[error("primary is {found:?}: give a colour as #rrggbb")]
    Colour {
        /// What was given.
        found: String,
    },
    /// A template can't be parsed.
    #[error("a template can't be read")]
    Template {
        /// Where and why.
        source: Box<tera::Error>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBrand {
    name: String,
    primary: String,
    support: Option<String>,
}

impl Brand {
    /// The brand of the project itself.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            name: "ElasticStack".to_owned(),
            support: None,
            logo: include_str!("../assets/logo.svg").to_owned(),
            primary: Colour([0x1f, 0x5f, 0xbf]),
            templates: Vec::new(),
        }
    }

    /// The brand in a directory.
    ///
    /// # Errors
    /// [`InvalidBrand`], which names the file.
    pub fn load(directory: &Path) -> Result<Self, InvalidBrand> {
        let path = directory.join("brand.toml");
        let text = read(&path)?;
        let raw: RawBrand =
            toml::from_str(&text).map_err(|source| InvalidBrand::Malformed { path, source })?;
        let primary = Colour::parse(&raw.primary)
            .ok_or(InvalidBrand::Colour { found: raw.primary.clone() })?;
        let logo = directory.join("logo.svg");
        let logo = if logo.exists() { read(&logo)? } else { Self::embedded().logo };
        Ok(Self {
            name: raw.name,
            support: raw.support,
            logo,
            primary,
            templates: templates(&directory.join("templates"))?,
        })
    }

    /// The brand's part of the style: a few variables that the panel's stylesheet uses.
    #[must_use]
    pub(crate) fn css(&self) -> String {
        let Self { primary, .. } = self;
        let ink = if primary.contrast(WHITE) >= READABLE { WHITE } else { BLACK };
        format!(
            ":root {{\n  --brand: {};\n  --brand-ink: {};\n  --brand-text: {};\n}}\n",
            primary.css(),
            ink.css(),
            primary.readable_on_white().css()
        )
    }
}

fn read(path: &Path) -> Result<String, InvalidBrand> {
    fs::read_to_string(path)
        .map_err(|source| InvalidBrand::Unreadable { path: path.to_owned(), source })
}

fn templates(directory: &Path) -> Result<Vec<(String, String)>, InvalidBrand> {
    let unreadable = |source| InvalidBrand::Unreadable { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if let (Some("html"), Some(name)) = (
            path.extension().and_then(|extension| extension.to_str()),
            path.file_name().and_then(|name| name.to_str()),
        ) {
            found.push((name.to_owned(), read(&path)?));
        }
    }
    Ok(found)
}

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Colour([u8; 3]);

impl Colour {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let number = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        let [_, red, green, blue] = number.to_be_bytes();
        Some(Self([red, green, blue]))
    }

    fn css(self) -> String {
        let Self([red, green, blue]) = self;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// The contrast ratio of WCAG 2, from 1 to 21.
    fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    fn luminance(self) -> f64 {
        let [red, green, blue] = self.0.map(|channel| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// The same hue, as dark as text on white must be.
    fn readable_on_white(self) -> Self {
        let mut colour = self;
        // Black at the latest is readable, and every step is darker.
        while colour.contrast(WHITE) < READABLE {
            colour = Self(colour.0.map(|channel| channel - channel.div_ceil(16)));
        }
        colour
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_brand_directory_gives_name_colour_logo_and_templates() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("brand.toml", "name = \"Example\"\nprimary = \"#FFCC00\"\nsupport = \"help@x\"\n");
        let plain = Brand::load(dir.path()).unwrap();
        assert_eq!((plain.name.as_str(), plain.support.as_deref()), ("Example", Some("help@x")));
        assert!(plain.logo.contains("<svg") && plain.templates.is_empty());
        assert!(plain.css().contains("--brand: #ffcc00;\n  --brand-ink: #000000;"));

        write("logo.svg", "<svg id='own'/>");
        fs::create_dir(dir.path().join("templates")).unwrap();
        write("templates/login.html", "hello");
        write("templates/README", "not a template");
        let own = Brand::load(dir.path()).unwrap();
        assert_eq!(own.logo, "<svg id='own'/>");
        assert_eq!(own.templates, [("login.html".to_owned(), "hello".to_owned())]);
    }

    #[test]
    fn what_is_no_brand_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (text, wanted) in [
            ("name = \"x\"", "is no brand"),
            ("name = \"x\"\nprimary = \"#000000\"\nprimry = 1", "is no brand"),
            ("name = \"x\"\nprimary = \"red\"", "primary is \"red\""),
            ("name = \"x\"\nprimary = \"#+fffff\"", "give a colour as #rrggbb"),
            ("name = \"x\"\nprimary = \"#12345é\"", "give a colour as #rrggbb"),
        ] {
            fs::write(dir.path().join("brand.toml"), text).unwrap();
            let refused = Brand::load(dir.path()).unwrap_err().to_string();
            assert!(refused.contains(wanted), "{refused}");
        }
    }

    #[test]
    fn contrast_is_what_wcag_says() {
        assert!((WHITE.contrast(BLACK) - 21.0).abs() < 0.01);
        assert!((Colour([0x76; 3]).contrast(WHITE) - 4.54).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn text_is_readable_in_and_on_every_colour(channels: [u8; 3]) {
            let primary = Colour(channels);
            prop_assert!(primary.readable_on_white().contrast(WHITE) >= READABLE);
            prop_assert!(primary.contrast(WHITE).max(primary.contrast(BLACK)) >= READABLE);
            prop_assert_eq!(Colour::parse(&primary.css()), Some(primary));
        }
    }
}
