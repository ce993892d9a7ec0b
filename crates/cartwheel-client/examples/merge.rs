//! Merges the siblings of a cart: `cargo run -p cartwheel-client --example merge`, beside a running `cartwheel dev`.
//!
//! The book's page on merging siblings shows the function `add`.

use std::collections::BTreeSet;

use cartwheel_client::{Client, Error};

/// Puts an item into a cart, which holds one item a line. Siblings are merged by union.
pub async fn add(client: &Client, cart: &str, item: &str) -> Result<(), Error> {
    let merge = |siblings: &cartwheel_client::Siblings| {
        let texts = siblings.values.iter().map(|value| String::from_utf8_lossy(&value.bytes));
        let mut items: BTreeSet<String> =
            texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        items.insert(item.to_owned());
        items.into_iter().collect::<Vec<_>>().join("\n")
    };
    client.update("carts", cart, merge).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = Client::new(["http://127.0.0.1:8081", "http://127.0.0.1:8082", "http://127.0.0.1:8083"])?;
    add(&client, "alice", "milk").await?;
    add(&client, "alice", "bread").await?;
    println!("{}", String::from_utf8_lossy(&client.get("carts", "alice").await?.values[0].bytes));
    Ok(())
}
