//! Rows 5, 6 and 7 of the budgets: publish-to-browser latency, fan-out, memory per idle connection.
//!
//! Drives the real binary over loopback, speaks the Centrifuge protocol as a client does, and measures the limit -
//! a bare epoll program that writes the same bytes - in the same run.
//! `cargo bench -p tidewire-cli --bench gateway`

#![expect(clippy::disallowed_methods, reason = "a benchmark measures with the system's clock")]

mod client;
mod fanout;
mod latency;
mod limit;
mod memory;
mod server;

use anyhow::Result;

fn main() -> Result<()> {
    if let Some(arguments) = limit::arguments() {
        return limit::run(arguments);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        latency::run().await?;
        fanout::run().await?;
        memory::run().await
    })
}
