//! Shops and their orders.

use cartwheel_client::{Client, Context, Error, Siblings};

use crate::counts::{Count, Stock};

/// A shop. It remembers its own count and writes that to the store. So a read that returns an old stock makes it forget no sale, and writing the
/// count twice sells nothing twice.
#[derive(Clone, Debug)]
pub struct Shop {
    name: String,
    client: Client,
    count: Count,
}

/// The bucket and the key of a stock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StockKey<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
}

/// A stock that a shop has read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The stock, merged from all siblings.
    pub stock: Stock,
    /// The context for the write that replaces it.
    pub context: Option<Context>,
    /// The number of siblings that it was merged from.
    pub siblings: usize,
}

impl Shop {
    /// A shop that has sold nothing yet. Its name must be unique.
    pub fn new(name: &str, client: Client) -> Self {
        Self { name: name.to_owned(), client, count: Count::default() }
    }

    /// Reads the stock.
    ///
    /// # Errors
    /// If no node can answer, or the stored value is not a stock.
    pub async fn read(&self, at: StockKey<'_>) -> Result<Seen, Error> {
        let read = self.client.get(at.bucket, at.key).await?;
        let not_a_stock =
            || Error::UnexpectedResponse(format!("a value under {}/{} that is not a stock", at.bucket, at.key));
        let stock = Stock::merged(&read).ok_or_else(not_a_stock)?;
        Ok(Seen { stock, context: read.context, siblings: read.values.len() })
    }

    /// Adds goods to the stock.
    ///
    /// # Errors
    /// If no node can store it in time. The shop still counts the goods, and the next change writes that count again.
    pub async fn receive(&mut self, at: StockKey<'_>, seen: Seen, goods: u64) -> Result<(), Error> {
        self.count.received += goods;
        self.store(at, seen).await
    }

    /// Sells goods from the stock `seen`.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn sell(&mut self, at: StockKey<'_>, seen: Seen, goods: u64) -> Result<(), Error> {
        self.count.sold += goods;
        self.store(at, seen).await
    }

    async fn store(&self, at: StockKey<'_>, mut seen: Seen) -> Result<(), Error> {
        seen.stock.raise(&self.name, self.count);
        self.client.put(at.bucket, at.key, seen.stock.encode(), seen.context.as_ref()).await?;
        Ok(())
    }
}

/// The number of goods left by each sibling, where the stock is kept as one number.
pub fn numbers(siblings: &Siblings) -> Vec<i64> {
    siblings.values.iter().filter_map(|value| std::str::from_utf8(&value.bytes).ok()?.parse().ok()).collect()
}
