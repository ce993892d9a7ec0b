//! Two orders at the same time, of 3 and of 4, from a stock of 10.

use std::process::ExitCode;

use cartwheel_client::{Client, Error};
use clap::Parser;
use stock::orders::{Place, Shop, numbers};

/// Takes two orders at the same time, of 3 and of 4, from a stock of 10, through two nodes: first with the stock kept as one
/// number, then as counts of each shop's own.
///
/// Start a cluster first: `cargo run --release -- dev`.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// The nodes: the first shop goes to the first, the second to the second, and the one who counts to the last.
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
        Ok(left) => failed(&format!("{left} are left, not 3")),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<i128, Error> {
    let clients = args.nodes.iter().map(|node| Client::new([node])).collect::<Result<Vec<_>, _>>()?;
    let client = |at: usize| clients[at % clients.len()].clone();
    let bucket = new_bucket()?;
    println!("a stock of {STOCK}, and two orders at the same time, of {} and of {}\n", ORDERS[0], ORDERS[1]);
    as_one_number(&bucket, [client(0), client(1), client(2)]).await?;
    as_counts(&bucket, [client(0), client(1), client(2)]).await
}

/// Both shops read 10, and each writes what is left after its own order. Whichever number is believed, an order is forgotten.
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
    let mut said = numbers(&counter.get(bucket, key).await?);
    said.sort_unstable();
    println!("as one number   siblings {said:?}: whichever is taken for the last, one order is forgotten");
    Ok(())
}

/// Both shops read the same counts, and each writes its own count beside them. Merged, both orders are there.
async fn as_counts(bucket: &str, [one, other, counter]: [Client; 3]) -> Result<i128, Error> {
    let at = Place { bucket, key: "counts" };
    let mut warehouse = Shop::new("warehouse", counter);
    let (mut one, mut other) = (Shop::new("shop-1", one), Shop::new("shop-2", other));
    let seen = warehouse.look(at).await?;
    warehouse.receive(at, seen, STOCK).await?;
    let (a, b) = tokio::try_join!(one.look(at), other.look(at))?;
    tokio::try_join!(one.sell(at, a, ORDERS[0]), other.sell(at, b, ORDERS[1]))?;
    let seen = warehouse.look(at).await?;
    println!("as counts       {} siblings, merged:", seen.siblings);
    for line in seen.stock.encode().lines() {
        println!("                {line}");
    }
    println!("                {} are left", seen.stock.left());
    Ok(seen.stock.left())
}

/// A bucket that no run before used: there the shops would have sold already.
fn new_bucket() -> Result<String, Error> {
    let random = getrandom::u32()?;
    Ok(format!("stock-{random:08x}"))
}
