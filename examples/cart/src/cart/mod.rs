//! Two kinds of cart, told apart by what becomes of a deleted item when carts that were written side by side are merged.

mod marked;
mod plain;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use cartwheel_client::Siblings;

use crate::purchases::Purchase;

pub use marked::MarkedCart;
pub use plain::PlainCart;

/// A value that any two writers' versions of can be merged. Merging is commutative, associative and idempotent, so it does not
/// matter who merges what, in which order and how often.
pub trait Cart: Default + Send {
    /// The cart that was stored as these bytes. Whatever they are, it is a cart, and storing it again keeps what it was.
    fn decode(stored: &[u8]) -> Self;

    /// The form in which it is stored.
    fn encode(&self) -> String;

    /// Takes in all that `other` knows.
    fn merge(&mut self, other: &Self);

    /// Puts a purchase in.
    fn add(&mut self, purchase: &Purchase);

    /// Takes a purchase out.
    fn remove(&mut self, purchase: &Purchase);

    /// What is in it.
    fn items(&self) -> BTreeSet<String>;
}

/// All siblings together.
pub fn merged<C: Cart>(siblings: &Siblings) -> C {
    let mut cart = C::default();
    siblings.values.iter().for_each(|value| cart.merge(&C::decode(&value.bytes)));
    cart
}
