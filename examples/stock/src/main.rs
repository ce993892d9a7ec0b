//! Two concurrent orders, of 3 and of 4, from a stock of 10.

use std::process::ExitCode;

use cartwheel_client::{Client, Error};
use clap::Parser;
use stock::orders::{Shop, StockKey, numbers};

/// Take two concurrent orders from one stock
///
/// The stock is 10, and orders of 3 and of 4 arrive at the same time through two nodes. First the stock is kept as one number, then as
/// a count for each shop.
///
/// Start a cluster first with `cargo run --release -- dev`.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Nodes of the first shop, the second shop and the warehouse
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081,http://127.0.0.1:8082,http://127.0.0.1:8083"
    )]
    nodes: Vec<String>,
}

const STOCK: u64 = 10;
const ORDERS: [u64; 2] = [3, 4];

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(3) => ExitCode::SUCCESS,
        Ok(left) => failed(&format!("{left} left instead of 3")),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<i128, Error> {
    // Each shop goes through its own node, so that the orders meet in the cluster.
    let client = |node: &String| Ok(Client::new([node])?.without_routing());
    let clients = args.nodes.iter().map(client).collect::<Result<Vec<_>, Error>>()?;
    let client = |at: usize| clients[at % clients.len()].clone();
    let bucket = new_bucket()?;
    println!("a stock of {STOCK}, and two concurrent orders, of {} and of {}\n", ORDERS[0], ORDERS[1]);
    as_one_number(&bucket, [client(0), client(1), client(2)]).await?;
    as_counts(&bucket, [client(0), client(1), client(2)]).await
}

/// Both shops read 10, and each writes what is left after its own order. Whichever number is taken as the last, one order is lost.
async fn as_one_number(bucket: &str, [one, other, counter]: [Client; 3]) -> Result<(), Error> {
    let key = "one-number";
    counter.put(bucket, key, STOCK.to_string(), None).await?;
    let (a, b) = tokio::try_join!(one.get(bucket, key), other.get(bucket, key))?;
    let left = |read: &cartwheel_client::Siblings, order: u64| {
        (numbers(read).into_iter().sum::<i64>() - order as i64).to_string()
    };
    tokio::try_join!(
        one.put(bucket, key, left(&a, ORDERS[0]), a.context.as_ref()),
        other.put(bucket, key, left(&b, ORDERS[1]), b.context.as_ref()),
    )?;
    let mut found = numbers(&counter.get(bucket, key).await?);
    found.sort_unstable();
    println!("as one number   siblings {found:?}: whichever is taken as the last, one order is lost");
    Ok(())
}

/// Both shops read the same counts, and each writes its own count besides the others. The merged stock has both orders.
async fn as_counts(bucket: &str, [one, other, counter]: [Client; 3]) -> Result<i128, Error> {
    let at = StockKey { bucket, key: "counts" };
    let mut warehouse = Shop::new("warehouse", counter);
    let (mut one, mut other) = (Shop::new("shop-1", one), Shop::new("shop-2", other));
    let seen = warehouse.read(at).await?;
    warehouse.receive(at, seen, STOCK).await?;
    let (a, b) = tokio::try_join!(one.read(at), other.read(at))?;
    tokio::try_join!(one.sell(at, a, ORDERS[0]), other.sell(at, b, ORDERS[1]))?;
    let seen = warehouse.read(at).await?;
    println!("as counts       {} siblings, merged:", seen.siblings);
    for line in seen.stock.encode().lines() {
        println!("                {line}");
    }
    println!("                {} left", seen.stock.left());
    Ok(seen.stock.left())
}

/// A new bucket: in an old one the shops would have sold already.
fn new_bucket() -> Result<String, Error> {
    let random = getrandom::u32()?;
    Ok(format!("stock-{random:08x}"))
}
