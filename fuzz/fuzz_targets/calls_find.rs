//! The router: a path that is found is the path that its call and parameters spell.
#![no_main]

use elasticstack_core::wire::calls;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| {
    if let Some((route, parameters)) = calls::find(path) {
        let spelled = calls::path(route.call, &parameters);
        let (again, same) = calls::find(&spelled).unwrap();
        assert_eq!((again.call, same), (route.call, parameters), "{path}: {spelled}");
    }
});
