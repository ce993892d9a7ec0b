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
                Ok(Purchase { customer: customer.to_owned(), item: format!("{} {date} {cds} {dollars}", at + 1) })
            }
            _ => Err(BadLine { number: at + 1, line: line.to_owned() }),
        })
        .collect()
}

/// What belongs into each customer's cart.
pub fn by_customer(purchases: &[Purchase]) -> BTreeMap<&str, Vec<&str>> {
    let mut carts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for purchase in purchases {
        carts.entry(&purchase.customer).or_default().push(&purchase.item);
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
        assert_eq!(purchases[0], Purchase { customer: "00001".to_owned(), item: "2 19970101 1 11.77".to_owned() });
    }

    #[test]
    fn a_line_that_is_no_purchase_is_named() {
        let error = parse("header\n1 2 3 4\n1 2 3\n").unwrap_err();
        assert_eq!((error.number, &*error.line), (3, "1 2 3"));
    }
}
