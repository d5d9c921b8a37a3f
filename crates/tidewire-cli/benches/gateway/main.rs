//! Rows 5, 6 and 7 of the budgets: publish-to-browser latency, fan-out, memory per idle connection.
//!
//! Drives the real binary over loopback, speaks the Centrifuge protocol as a client does, and measures the limit -
//! a bare epoll program that writes the same bytes - in the same run.
//! `cargo bench -p tidewire-cli --bench gateway [-- latency|fanout|memory]`

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
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| part.as_ref().is_none_or(|part| part == name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if is_wanted("latency") {
            latency::run().await?;
        }
        if is_wanted("fanout") {
            fanout::run().await?;
        }
        if is_wanted("memory") {
            memory::run().await?;
        }
        Ok(())
    })
}
