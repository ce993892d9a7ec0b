//! A stock that can be merged: the goods that each shop has received and sold, counted separately for each shop.

use std::collections::BTreeMap;

use cartwheel_client::Siblings;

/// The goods that one shop has received and sold so far. Both numbers only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// The number of received goods.
    pub received: u64,
    /// The number of sold goods.
    pub sold: u64,
}

/// A stock: one count for each shop.
///
/// A plain number cannot be merged: 7 left and 6 left do not tell how many were sold. Counts can be merged. Each is changed by one shop only and
/// only grows, so of two versions the greater one is the later one. Merging is commutative, associative and idempotent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stock(BTreeMap<String, Count>);

impl Stock {
    /// Merges all siblings; `None` if one of them is not a stock.
    pub fn merged(siblings: &Siblings) -> Option<Self> {
        let mut stock = Self::default();
        for value in &siblings.values {
            stock.merge(&Self::decode(&value.bytes)?);
        }
        Some(stock)
    }

    /// Merges `other` into this stock.
    pub fn merge(&mut self, other: &Self) {
        for (shop, count) in &other.0 {
            self.raise(shop, *count);
        }
    }

    /// Raises a shop's count to at least this one.
    pub fn raise(&mut self, shop: &str, count: Count) {
        let held = self.0.entry(shop.to_owned()).or_default();
        *held = Count { received: held.received.max(count.received), sold: held.sold.max(count.sold) };
    }

    /// A shop's count.
    pub fn of(&self, shop: &str) -> Count {
        self.0.get(shop).copied().unwrap_or_default()
    }

    /// The number of goods left. It is negative if the shops have sold more than there was, without knowing of each other. A store that never
    /// refuses an order cannot prevent that, but the shops find out.
    pub fn left(&self) -> i128 {
        self.0.values().map(|count| i128::from(count.received) - i128::from(count.sold)).sum()
    }

    /// The form in which it is stored: a line for each shop, `SHOP RECEIVED SOLD`.
    pub fn encode(&self) -> String {
        self.0.iter().map(|(shop, count)| format!("{shop} {} {}\n", count.received, count.sold)).collect()
    }

    /// Reads a stored stock; `None` if the bytes are not a stock.
    pub fn decode(stored: &[u8]) -> Option<Self> {
        let mut stock = Self::default();
        for line in std::str::from_utf8(stored).ok()?.lines() {
            let mut parts = line.rsplitn(3, ' ');
            let (sold, received) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            stock.raise(parts.next()?, Count { received, sold });
        }
        Some(stock)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stock(counts: &[(u8, u64, u64)]) -> Stock {
        let mut stock = Stock::default();
        counts
            .iter()
            .for_each(|&(shop, received, sold)| stock.raise(&format!("shop {shop}"), Count { received, sold }));
        stock
    }

    fn joined(a: &Stock, b: &Stock) -> Stock {
        let mut joined = a.clone();
        joined.merge(b);
        joined
    }

    fn counts() -> impl Strategy<Value = Vec<(u8, u64, u64)>> {
        prop::collection::vec((0u8..4, any::<u64>(), any::<u64>()), 0..6)
    }

    proptest! {
        #[test]
        fn stocks_merge_in_any_order(a in counts(), b in counts(), c in counts()) {
            let (a, b, c) = (stock(&a), stock(&b), stock(&c));
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(&joined(&a, &a), &a);
            prop_assert_eq!(Stock::decode(a.encode().as_bytes()), Some(a.clone()));
            let _ = a.left();
        }

        #[test]
        fn any_bytes_can_be_decoded_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[a 0-9\n]{0,30}") {
            let _ = Stock::decode(&bytes);
            let _ = Stock::decode(text.as_bytes());
        }
    }

    #[test]
    fn two_concurrent_sales_are_both_counted() {
        let before = stock(&[(0, 10, 0)]);
        let (mut one, mut other) = (before.clone(), before);
        one.raise("shop 1", Count { received: 0, sold: 3 });
        other.raise("shop 2", Count { received: 0, sold: 4 });
        assert_eq!(joined(&one, &other).left(), 3);
        other.raise("shop 2", Count { received: 0, sold: 8 });
        assert_eq!(joined(&one, &other).left(), -1, "selling too much shows");
    }
}
