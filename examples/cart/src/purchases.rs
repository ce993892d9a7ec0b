//! The purchases of 23,570 customers of a music shop from January 1997 to June 1998.

use std::collections::BTreeMap;

/// The data, described in `data/README.md`.
pub const CDNOW: &str = include_str!("../data/cdnow_master.txt");

/// One purchase: one line of the data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Purchase {
    /// The customer's number, as written.
    pub customer: String,
    /// The item in the cart: the line's number, the date, the number of CDs and their price in dollars. The line's number distinguishes equal
    /// purchases of the same day.
    pub item: String,
    /// The line's number, which is unique. A shop would draw a random number.
    pub mark: u64,
}

impl Purchase {
    /// Whether the customer removes it from the cart again. That holds for `percent` of a hundred purchases, and always for the same ones.
    pub const fn is_removed(&self, percent: u8) -> bool {
        // Knuth's multiplicative hash distributes line numbers evenly.
        (self.mark.wrapping_mul(2_654_435_761) >> 16) % 100 < percent as u64
    }
}

/// A line without exactly four columns.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {number} is not a purchase (customer, date, number of CDs, dollars): {line:?}")]
pub struct BadLine {
    /// The line's number, from 1, including the header.
    pub number: usize,
    /// The line.
    pub line: String,
}

/// Parses the purchases in `data` below its header line.
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

/// The purchases of each customer.
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
    fn the_data_matches_its_description() {
        let purchases = parse(CDNOW).unwrap();
        assert_eq!(purchases.len(), 69_659);
        assert_eq!(by_customer(&purchases).len(), 23_570);
        let first = Purchase { customer: "00001".to_owned(), item: "2 19970101 1 11.77".to_owned(), mark: 2 };
        assert_eq!(purchases[0], first);
    }

    #[test]
    fn the_given_share_of_purchases_is_removed() {
        let purchases = parse(CDNOW).unwrap();
        let removed = |percent| purchases.iter().filter(|purchase| purchase.is_removed(percent)).count();
        assert_eq!((removed(0), removed(100)), (0, purchases.len()));
        assert!((6_500..7_500).contains(&removed(10)), "{}", removed(10));
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse("header\n1 2 3 4\n1 2 3\n").unwrap_err();
        assert_eq!((error.number, &*error.line), (3, "1 2 3"));
    }
}
