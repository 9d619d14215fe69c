//! The whole product in one process, from outside: one test binary.

mod bad_input;
