//! The paper's cart: a set of items, merged by union.

use std::collections::BTreeSet;

use super::Cart;
use crate::purchases::Purchase;

/// A set of items, stored one a line.
///
/// A union never loses an add. But a cart without an item does not tell whether the item was removed or never known. So if one sibling lacks an
/// item that a concurrent one still has, the item is back: "deleted items can resurface" (paper, section 4.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlainCart(BTreeSet<String>);

impl Cart for PlainCart {
    fn decode(stored: &[u8]) -> Self {
        Self(String::from_utf8_lossy(stored).lines().map(str::to_owned).collect())
    }

    fn encode(&self) -> String {
        self.0.iter().map(|item| format!("{item}\n")).collect()
    }

    fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    fn add(&mut self, purchase: &Purchase) {
        self.0.insert(purchase.item.clone());
    }

    fn remove(&mut self, purchase: &Purchase) {
        self.0.remove(&purchase.item);
    }

    fn items(&self) -> BTreeSet<String> {
        self.0.clone()
    }
}
