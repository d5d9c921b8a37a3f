//! Backends that are asked: what they are told, and what comes of what they say.

mod channels;
mod connect;
mod limits;
mod rpc;

/// A time as tokens and backends write it, so many milliseconds from now.
fn in_millis(millis: u64) -> f64 {
    let time = tidewire::Clock::system().now().as_millis() + millis;
    time as f64 / 1_000.0
}
