//! A cart whose deletes are permanent: an observed-remove set.

use std::collections::{BTreeMap, BTreeSet};

use super::Cart;
use crate::purchases::Purchase;

/// A set of items, each added under a mark of its own. The mark of a removed item stays recorded, and a merge unites these records, so no sibling
/// that still has the item can bring it back. The same product bought again is added under a new mark, and stays.
///
/// The price is the recorded marks, which stay as long as the cart. A shop would drop them when the cart is paid for.
///
/// It is stored with one mark in each line: `+MARK ITEM` for an item in the cart, `-MARK` for a removed one. A line of another form is kept
/// unchanged, because a cart must not lose what it does not understand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MarkedCart {
    /// Without the removed marks.
    items: BTreeMap<u64, String>,
    removed: BTreeSet<u64>,
    unknown: BTreeSet<String>,
}

impl MarkedCart {
    fn add_item(&mut self, mark: u64, item: &str) {
        if self.removed.contains(&mark) {
            return;
        }
        // A mark belongs to one item. If it should ever name two, all merges must choose the same.
        let held = self.items.entry(mark).or_insert_with(|| item.to_owned());
        if **held < *item {
            *held = item.to_owned();
        }
    }

    fn remove_mark(&mut self, mark: u64) {
        self.items.remove(&mark);
        self.removed.insert(mark);
    }

    fn read_line(&mut self, line: &str) {
        let add_item = |line: &str| {
            line.strip_prefix('+')?.split_once(' ').and_then(|(mark, item)| Some((number(mark)?, item.to_owned())))
        };
        if let Some((mark, item)) = add_item(line) {
            self.add_item(mark, &item);
        } else if let Some(mark) = line.strip_prefix('-').and_then(number) {
            self.remove_mark(mark);
        } else {
            self.unknown.insert(line.to_owned());
        }
    }
}

/// Parses a mark in its canonical form only, so that a line that is read and written again stays the same.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

impl Cart for MarkedCart {
    fn decode(stored: &[u8]) -> Self {
        let mut cart = Self::default();
        String::from_utf8_lossy(stored).lines().for_each(|line| cart.read_line(line));
        cart
    }

    fn encode(&self) -> String {
        let items = self.items.iter().map(|(mark, item)| format!("+{mark} {item}\n"));
        let removed = self.removed.iter().map(|mark| format!("-{mark}\n"));
        items.chain(removed).chain(self.unknown.iter().map(|line| format!("{line}\n"))).collect()
    }

    fn merge(&mut self, other: &Self) {
        other.removed.iter().for_each(|&mark| self.remove_mark(mark));
        other.items.iter().for_each(|(&mark, item)| self.add_item(mark, item));
        self.unknown.extend(other.unknown.iter().cloned());
    }

    fn add(&mut self, purchase: &Purchase) {
        self.add_item(purchase.mark, &purchase.item);
    }

    fn remove(&mut self, purchase: &Purchase) {
        self.remove_mark(purchase.mark);
    }

    fn items(&self) -> BTreeSet<String> {
        self.items.values().chain(&self.unknown).cloned().collect()
    }
}
