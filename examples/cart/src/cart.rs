//! A cart: a set of items, one a line. Carts that were written side by side merge by union, so an add is never lost (paper,
//! section 4.4).

use std::collections::BTreeSet;

use cartwheel_client::Siblings;

/// The items of all siblings together.
pub fn merged(siblings: &Siblings) -> BTreeSet<String> {
    siblings.values.iter().flat_map(|value| items(&value.bytes)).collect()
}

/// The items that a stored cart lists, in its order.
pub fn items(stored: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(stored).lines().map(str::to_owned).collect()
}

/// The form in which a cart is stored.
pub fn encode(items: &BTreeSet<String>) -> String {
    items.iter().map(|item| format!("{item}\n")).collect()
}
