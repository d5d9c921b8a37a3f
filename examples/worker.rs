//! A worker: ships orders in the order of each customer, retries what may pass, gives up on what never will.
//!
//! ```sh
//! cargo run --example worker -- file:./shop --append 1000          # one process: appends orders and ships them
//! cargo run --example worker -- redis://127.0.0.1:6379             # ships orders; start as many as you like
//! cargo run --example worker -- redis://127.0.0.1:6379 --append 1000
//! ```
//!
//! Kill it with `kill -9` at any moment and start it again: every order is shipped, or is a dead letter with its reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewire::{Channel, Delivery, Emit, Event, Json, Outcome, Retries, Start, Tidewire};

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: String,
}

/// One line per shipped order on standard output: what a real worker would do to the world.
async fn ship(Json(order): Json<Order>, delivery: Delivery, emit: Emit) -> Result<(), Outcome> {
    if order.id.is_multiple_of(97) {
        return Err(Outcome::reject("the customer has no address"));
    }
    if order.id.is_multiple_of(10) && delivery.attempt() == 1 {
        return Err(Outcome::retry("the carrier does not answer"));
    }
    println!("shipped {} for {}, attempt {}", order.id, order.customer, delivery.attempt());
    // Appended in the step that acknowledges the order, so never without it and never twice.
    emit.append("shipments", Event::new("order.shipped", serde_json::to_vec(&order)?))?;
    Ok(())
}

async fn append_orders(orders: &Channel, count: u64) -> tidewire::Result<()> {
    for id in 1..=count {
        let order = Order { id, customer: format!("customer-{}", id % 7) };
        let data = serde_json::to_vec(&order).unwrap_or_default();
        // Under a dedup id: an append that is tried again after a crash takes effect once.
        orders
            .append(Event::new("order.placed", data))
            .key(&order.customer)
            .dedup(&format!("order-{id}"))
            .await?;
    }
    eprintln!("{count} orders are appended");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let url = arguments.first().ok_or("usage: worker ENGINE_URL [--append COUNT] [--channel NAME]")?;
    let append = option("--append").map(|count| count.parse()).transpose()?;
    let tidewire = Tidewire::open(url).await?;
    let orders = tidewire.tenant("shop")?.channel(option("--channel").map_or("orders", String::as_str))?;
    let shipping = orders.group("shipping", Start::Earliest)?.ordered(16);
    let retries = Retries { first_delay: Duration::from_millis(200), attempts_max: 5, ..Retries::default() };
    let consumer = shipping.consume().concurrency(8).retries(retries).run(ship).await?;
    if let Some(count) = append {
        append_orders(&orders, count).await?;
    }
    tokio::signal::ctrl_c().await?;
    // Finishes what has begun, hands the rest back to the other workers.
    consumer.stop().await;
    tidewire.close(Duration::from_secs(5)).await?;
    Ok(())
}
