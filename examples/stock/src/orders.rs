//! Orders, as shops take them.

use cartwheel_client::{Client, Context, Error, Siblings};

use crate::counts::{Count, Stock};

/// A shop. It goes by the count that it remembers itself and tells the store of it, so a read that is behind makes it forget no
/// sale, and telling the store twice sells nothing twice.
#[derive(Clone, Debug)]
pub struct Shop {
    name: String,
    client: Client,
    count: Count,
}

/// Where a stock lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
}

/// What a shop read before it sold.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The stock, merged.
    pub stock: Stock,
    /// What the write that sells replaces.
    pub context: Option<Context>,
    /// How many siblings it was merged from.
    pub siblings: usize,
}

impl Shop {
    /// A shop that has sold nothing yet and talks to the nodes of `client`. Its name must be its own.
    pub fn new(name: &str, client: Client) -> Self {
        Self { name: name.to_owned(), client, count: Count::default() }
    }

    /// Looks how much there is.
    ///
    /// # Errors
    /// If no node can answer, or what is stored is no stock.
    pub async fn look(&self, at: Place<'_>) -> Result<Seen, Error> {
        let read = self.client.get(at.bucket, at.key).await?;
        let no_stock = || Error::Strange(format!("a value under {}/{} that is no stock", at.bucket, at.key));
        let stock = Stock::merged(&read).ok_or_else(no_stock)?;
        Ok(Seen { stock, context: read.context, siblings: read.values.len() })
    }

    /// Puts goods into the stock.
    ///
    /// # Errors
    /// If no node can store it in time. It counts: tell the store again with the next change.
    pub async fn receive(&mut self, at: Place<'_>, seen: Seen, goods: u64) -> Result<(), Error> {
        self.count.received += goods;
        self.store(at, seen).await
    }

    /// Sells from the stock that was `seen`.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub async fn sell(&mut self, at: Place<'_>, seen: Seen, goods: u64) -> Result<(), Error> {
        self.count.sold += goods;
        self.store(at, seen).await
    }

    async fn store(&self, at: Place<'_>, mut seen: Seen) -> Result<(), Error> {
        seen.stock.raise(&self.name, self.count);
        self.client.put(at.bucket, at.key, seen.stock.encode(), seen.context.as_ref()).await?;
        Ok(())
    }
}

/// How many each of the siblings says are left, where the stock is kept as nothing but that number.
pub fn numbers(siblings: &Siblings) -> Vec<i64> {
    siblings.values.iter().filter_map(|value| std::str::from_utf8(&value.bytes).ok()?.parse().ok()).collect()
}
