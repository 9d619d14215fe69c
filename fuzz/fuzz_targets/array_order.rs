//! Orders for arrays over the internal API: nothing breaks their reader, and what is to name an array is safe in
//! a path and on a command line.
#![no_main]

use elasticstack_core::wire::arrays::OrderArray;
use elasticstack_host::array::{ArrayName, Order};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(OrderArray { order, wait_ms }) = serde_json::from_slice(body) else { return };
    let again = serde_json::to_vec(&OrderArray { order: order.clone(), wait_ms }).unwrap();
    assert_eq!(serde_json::from_slice::<OrderArray>(&again).unwrap().order, order);
    let name = match Order::try_from(&order) {
        Ok(Order::Create(creation)) => creation.name,
        Ok(Order::Import { name, .. }) => name,
        Ok(_) | Err(_) => return,
    };
    assert!(name.as_str().len() <= ArrayName::MAX && !name.as_str().starts_with(['-', '.']));
    assert!(!name.as_str().contains(['/', '\0', ' ', '=', ',']));
});
