//! The macros that make a `#[test]` of each check, and a table of all of them.
//!
//! A kit lists its checks once, in its `__…_checks!`, which hands the list to the macro it is
//! told: [`__conformance_table!`](crate::__conformance_table) or `__conformance_tests!`.

/// Makes a module of one test for each check of the block store kit.
///
/// `blockstore_conformance! { my_store, MyFixture::new }`: the second is called for each test and
/// gives it a [`BlockStoreFixture`](crate::conformance::BlockStoreFixture) of its own.
#[macro_export]
macro_rules! blockstore_conformance {
    ($(#[$attribute:meta])* $module:ident, $fixture:expr $(,)?) => {
        $crate::__blockstore_checks! {
            __conformance_tests, blockstore, $module, $fixture, [$(#[$attribute])*]
        }
    };
}

/// Makes a module of one test for each check of the hypervisor kit.
///
/// `hypervisor_conformance! { my_hypervisor, MyFixture::new }`: the second is called for each test
/// and gives it a [`HypervisorFixture`](crate::conformance::HypervisorFixture) of its own.
#[macro_export]
macro_rules! hypervisor_conformance {
    ($(#[$attribute:meta])* $module:ident, $fixture:expr $(,)?) => {
        $crate::__hypervisor_checks! {
            __conformance_tests, hypervisor, $module, $fixture, [$(#[$attribute])*]
        }
    };
}

/// Makes a module of one test for each check of the lend kit.
///
/// `lend_conformance! { my_lender, MyFixture::new }`: the second is called for each test and gives
/// it a [`LendFixture`](crate::conformance::LendFixture) of its own.
#[macro_export]
macro_rules! lend_conformance {
    ($(#[$attribute:meta])* $module:ident, $fixture:expr $(,)?) => {
        $crate::__lend_checks! {
            __conformance_tests, lend, $module, $fixture, [$(#[$attribute])*]
        }
    };
}

/// Makes a module of one test for each check of the scheduler kit.
///
/// `scheduler_conformance! { my_scheduler, || MyScheduler }`: the second is called for each test
/// and gives it a [`Scheduler`](crate::scheduler::Scheduler) of its own.
#[macro_export]
macro_rules! scheduler_conformance {
    ($(#[$attribute:meta])* $module:ident, $fixture:expr $(,)?) => {
        $crate::__scheduler_checks! {
            __conformance_tests, scheduler, $module, $fixture, [$(#[$attribute])*]
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($kit:ident, $module:ident, $fixture:expr, $attributes:tt; $($from:ident: $($check:ident),+;)+) => {
        mod $module {
            #[allow(unused_imports, reason = "the fixture may be named by its whole path")]
            use super::*;

            $($($crate::__conformance_test! { $kit, $fixture, $check, $attributes })+)+
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ($kit:ident, $fixture:expr, $check:ident, [$(#[$attribute:meta])*]) => {
        #[test]
        $(#[$attribute])*
        fn $check() {
            $crate::conformance::__private::$kit(
                module_path!(),
                stringify!($check),
                &($fixture)(),
            );
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_table {
    (; $($from:ident: $($check:ident),+;)+) => {
        &[$($(
            $crate::conformance::Check {
                name: stringify!($check),
                test: |fixture| Box::pin($crate::conformance::$from::$check(fixture)),
            },
        )+)+]
    };
}
