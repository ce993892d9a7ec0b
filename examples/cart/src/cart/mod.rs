//! Two kinds of cart. They differ in what happens to a deleted item when concurrently written carts are merged.

mod marked;
mod plain;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use cartwheel_client::Siblings;

use crate::purchases::Purchase;

pub use marked::MarkedCart;
pub use plain::PlainCart;

/// A value whose versions can be merged. Merging is commutative, associative and idempotent, so the order and the number of merges do not matter.
pub trait Cart: Default + Send {
    /// Reads a stored cart. Any bytes are a cart, and encoding it again keeps their information.
    fn decode(stored: &[u8]) -> Self;

    /// The form in which it is stored.
    fn encode(&self) -> String;

    /// Merges `other` into this cart.
    fn merge(&mut self, other: &Self);

    /// Adds a purchase.
    fn add(&mut self, purchase: &Purchase);

    /// Removes a purchase.
    fn remove(&mut self, purchase: &Purchase);

    /// The items in the cart.
    fn items(&self) -> BTreeSet<String>;
}

/// Merges all siblings.
pub fn merged<C: Cart>(siblings: &Siblings) -> C {
    let mut cart = C::default();
    siblings.values.iter().for_each(|value| cart.merge(&C::decode(&value.bytes)));
    cart
}
