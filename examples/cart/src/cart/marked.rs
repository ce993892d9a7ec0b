//! A cart whose deletes hold: an observed-remove set.

use std::collections::{BTreeMap, BTreeSet};

use super::Cart;
use crate::purchases::Purchase;

/// A set of items, each put in under a mark of its own. A mark that was taken out stays noted, and merging unites the notes, so
/// no sibling that still has the item can bring it back. Who buys the same thing again puts it in under a new mark, and that
/// one stays.
///
/// The price is the notes: they stay for as long as the cart does. A shop would drop them when the cart is paid for.
///
/// Stored one mark a line: `+MARK ITEM` for what is in, `-MARK` for what was taken out. A line of any other form is kept as it
/// is: a cart must not lose what it does not understand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MarkedCart {
    /// None of these marks is among those taken out.
    items: BTreeMap<u64, String>,
    taken_out: BTreeSet<u64>,
    strange: BTreeSet<String>,
}

impl MarkedCart {
    fn put_in(&mut self, mark: u64, item: &str) {
        if self.taken_out.contains(&mark) {
            return;
        }
        // A mark is given to one item only. Should it ever name two, all who merge must choose the same.
        let held = self.items.entry(mark).or_insert_with(|| item.to_owned());
        if **held < *item {
            *held = item.to_owned();
        }
    }

    fn take_out(&mut self, mark: u64) {
        self.items.remove(&mark);
        self.taken_out.insert(mark);
    }

    fn read_line(&mut self, line: &str) {
        let put_in = |line: &str| {
            line.strip_prefix('+')?.split_once(' ').and_then(|(mark, item)| Some((number(mark)?, item.to_owned())))
        };
        if let Some((mark, item)) = put_in(line) {
            self.put_in(mark, &item);
        } else if let Some(mark) = line.strip_prefix('-').and_then(number) {
            self.take_out(mark);
        } else {
            self.strange.insert(line.to_owned());
        }
    }
}

/// A mark as it is written, and in no other way, so that a line read and written again is the same.
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
        let taken_out = self.taken_out.iter().map(|mark| format!("-{mark}\n"));
        items.chain(taken_out).chain(self.strange.iter().map(|line| format!("{line}\n"))).collect()
    }

    fn merge(&mut self, other: &Self) {
        other.taken_out.iter().for_each(|&mark| self.take_out(mark));
        other.items.iter().for_each(|(&mark, item)| self.put_in(mark, item));
        self.strange.extend(other.strange.iter().cloned());
    }

    fn add(&mut self, purchase: &Purchase) {
        self.put_in(purchase.mark, &purchase.item);
    }

    fn remove(&mut self, purchase: &Purchase) {
        self.take_out(purchase.mark);
    }

    fn items(&self) -> BTreeSet<String> {
        self.items.values().chain(&self.strange).cloned().collect()
    }
}
