//! Conformance kits.
