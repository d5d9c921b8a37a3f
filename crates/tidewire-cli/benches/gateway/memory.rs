//! Row 7: resident memory per idle WebSocket with one subscription, as the slope between two counts.

use anyhow::Result;

use super::client::subscribe_many;
use super::server::Server;

/// One process here may open about 19,000 sockets.
const COUNTS: [usize; 2] = [2_000, 16_000];

pub(crate) async fn run() -> Result<()> {
    let server = Server::start()?;
    let mut sockets = Vec::new();
    let mut resident = Vec::new();
    for count in COUNTS {
        sockets.extend(subscribe_many(&server.address, "idle", count - sockets.len()).await?);
        resident.push(server.process.resident_bytes()?);
    }
    let [few, many] = COUNTS;
    let grown = resident.last().zip(resident.first()).map_or(0.0, |(last, first)| last - first);
    println!("## memory per idle WebSocket with one subscription, slope from {few} to {many} connections\n");
    println!(
        "| resident memory per connection | budget | rivals as published: Centrifugo, uWebSockets, axum defaults |"
    );
    println!("|---|---|---|");
    println!("| {:.1} KB | 3 KB | 27 KB, 5.4 KB, 137 KB |\n", grown / (many - few) as f64 / 1e3);
    Ok(())
}
