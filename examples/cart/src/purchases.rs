//! The purchases: what 23,570 customers of a music shop bought from January 1997 to June 1998.

use std::collections::BTreeMap;

/// The data, as `data/README.md` describes it.
pub const CDNOW: &str = include_str!("../data/cdnow_master.txt");

/// One purchase: one line of the data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purchase {
    /// The customer's number, as written.
    pub customer: String,
    /// What is added to the customer's cart: the line's number, the date, the number of CDs and their price in dollars. The
    /// line's number tells two equal purchases of one day apart.
    pub item: String,
    /// The line's number: no other purchase has it. A shop would draw a random number.
    pub mark: u64,
}

impl Purchase {
    /// Whether the customer takes it out of the cart again: so many of a hundred purchases, always the same ones.
    pub const fn is_taken_out(&self, percent: u8) -> bool {
        // Knuth's multiplicative hash spreads line numbers evenly.
        (self.mark.wrapping_mul(2_654_435_761) >> 16) % 100 < percent as u64
    }
}

/// A line does not have four columns.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {number} is no purchase (customer, date, number of CDs, dollars): {line:?}")]
pub struct BadLine {
    /// Which line, counted from 1, the header included.
    pub number: usize,
    /// What it says.
    pub line: String,
}

/// The purchases that `data` lists below its header line.
///
/// # Errors
/// If a line does not have four columns.
pub fn parse(data: &str) -> Result<Vec<Purchase>, BadLine> {
    let lines = data.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| match *line.split_whitespace().collect::<Vec<_>>() {
            [customer, date, cds, dollars] => {
                let item = format!("{} {date} {cds} {dollars}", at + 1);
                Ok(Purchase { customer: customer.to_owned(), item, mark: at as u64 + 1 })
            }
            _ => Err(BadLine { number: at + 1, line: line.to_owned() }),
        })
        .collect()
}

/// Each customer's purchases.
pub fn by_customer(purchases: &[Purchase]) -> BTreeMap<&str, Vec<&Purchase>> {
    let mut carts: BTreeMap<&str, Vec<&Purchase>> = BTreeMap::new();
    for purchase in purchases {
        carts.entry(&purchase.customer).or_default().push(purchase);
    }
    carts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_what_its_note_says() {
        let purchases = parse(CDNOW).unwrap();
        assert_eq!(purchases.len(), 69_659);
        assert_eq!(by_customer(&purchases).len(), 23_570);
        let first = Purchase { customer: "00001".to_owned(), item: "2 19970101 1 11.77".to_owned(), mark: 2 };
        assert_eq!(purchases[0], first);
    }

    #[test]
    fn so_many_of_a_hundred_are_taken_out() {
        let purchases = parse(CDNOW).unwrap();
        let taken_out = |percent| purchases.iter().filter(|purchase| purchase.is_taken_out(percent)).count();
        assert_eq!((taken_out(0), taken_out(100)), (0, purchases.len()));
        assert!((6_500..7_500).contains(&taken_out(10)), "{}", taken_out(10));
    }

    #[test]
    fn a_line_that_is_no_purchase_is_named() {
        let error = parse("header\n1 2 3 4\n1 2 3\n").unwrap_err();
        assert_eq!((error.number, &*error.line), (3, "1 2 3"));
    }
}
