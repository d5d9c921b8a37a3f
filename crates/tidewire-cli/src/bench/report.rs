//! Figures with their units, and what they were measured with.

use std::fs;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use tidewire::Clock;

use super::process::CpuSpent;
use crate::print;
use crate::table::Table;

/// The same in the table and in JSON.
const HIDDEN: &str = "[hidden]";

/// How figures are printed.
#[derive(clap::Args)]
pub(super) struct ReportArguments {
    /// Print each figure as a line of JSON, the machine first
    #[arg(long)]
    json: bool,
}

/// Prints figures: lines of JSON as they come, or a table at the end.
pub(super) struct Report {
    bench: &'static str,
    is_json: bool,
    table: Table,
}

#[derive(Serialize)]
struct Setting<'a> {
    bench: &'static str,
    date: String,
    machine: String,
    command: String,
    version: &'a str,
}

#[derive(Serialize)]
struct Figure<'a> {
    bench: &'static str,
    part: &'a str,
    figure: &'a str,
    value: f64,
    unit: &'static str,
}

impl Report {
    /// Says what is measured with what.
    pub(super) fn begin(bench: &'static str, arguments: &ReportArguments) -> Result<Self> {
        let setting = Setting {
            bench,
            date: Clock::system().now().to_string(),
            machine: machine(),
            command: command(std::env::args()),
            version: env!("CARGO_PKG_VERSION"),
        };
        let table = Table::new(&["PART", "FIGURE", "VALUE", "UNIT"]);
        let report = Self { bench, is_json: arguments.json, table };
        if report.is_json {
            print::json(&setting)?;
        } else {
            let Setting { date, machine, command, version, .. } = setting;
            print::line(format_args!(
                "date     {date}\nmachine  {machine}\nversion  {version}\ncommand  {command}\n"
            ))?;
        }
        Ok(report)
    }

    pub(super) fn figure(&mut self, part: &str, figure: &str, value: f64, unit: &'static str) -> Result<()> {
        if self.is_json {
            return print::json(&Figure { bench: self.bench, part, figure, value, unit });
        }
        self.table.row([part.to_owned(), figure.to_owned(), readable(value), unit.to_owned()]);
        Ok(())
    }

    /// A count of something.
    pub(super) fn count(&mut self, part: &str, figure: &str, count: u64, unit: &'static str) -> Result<()> {
        self.figure(part, figure, count as f64, unit)
    }

    /// Percentiles of times in nanoseconds.
    pub(super) fn times(&mut self, part: &str, figure: &str, nanos: &Histogram<u64>) -> Result<()> {
        let named = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
        for (name, quantile) in named {
            let millis = nanos.value_at_quantile(quantile) as f64 / 1e6;
            self.figure(part, &format!("{figure}, {name}"), millis, "ms")?;
        }
        Ok(())
    }

    /// CPU time of the server and of the load for each of `count` things; a load that is as busy as it can be is told.
    pub(super) fn cpu(
        &mut self,
        part: &str,
        spent: &CpuSpent,
        count: f64,
        each: &'static str,
        threads: usize,
    ) -> Result<()> {
        let of_each = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / count.max(1.0);
        if let Some(server) = spent.server {
            self.figure(part, "server CPU", of_each(server), each)?;
        }
        let Some(own) = spent.own else { return Ok(()) };
        self.figure(part, "load generator CPU", of_each(own), each)?;
        let busy = own.as_secs_f64() / (spent.elapsed.as_secs_f64() * threads as f64).max(f64::MIN_POSITIVE);
        if busy > 0.9 {
            print::note(format_args!(
                "{part}: the load generator was busy {:.0} % of its time on {threads} threads, so rates are its limit \
                 rather than the server's; give it more --threads",
                busy * 100.0
            ));
        }
        Ok(())
    }

    pub(super) fn end(self) -> Result<()> {
        if self.is_json { Ok(()) } else { self.table.print("nothing was measured") }
    }
}

/// Three digits or more, thousands apart.
fn readable(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{grouped}.{fraction}"),
        None => grouped,
    }
}

/// The command line without its secrets.
fn command(arguments: impl Iterator<Item = String>) -> String {
    const SECRETS: [&str; 2] = ["--api-key", "--token"];
    let mut words = vec!["tidewire".to_owned()];
    let mut is_secret = false;
    for argument in arguments.skip(1) {
        let name = argument.split('=').next().unwrap_or_default();
        let (is_flag, has_value) = (SECRETS.contains(&name), argument.contains('='));
        words.push(match (is_secret, is_flag && has_value) {
            (true, _) => HIDDEN.to_owned(),
            (false, true) => format!("{name}={HIDDEN}"),
            (false, false) => argument,
        });
        is_secret = !is_secret && is_flag && !has_value;
    }
    words.join(" ")
}

/// Processor, cores, memory and system, as far as they are told.
fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = after(&read("/proc/cpuinfo"), "model name");
    let processor = processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parts = vec![processor, format!("{cores} cores")];
    let memory = after(&read("/proc/meminfo"), "MemTotal");
    let kilobytes = memory.and_then(|memory| memory.split_whitespace().next()?.parse::<f64>().ok());
    parts.extend(kilobytes.map(|kilobytes| format!("{:.1} GiB", kilobytes / 1024.0 / 1024.0)));
    let release = read("/proc/sys/kernel/osrelease");
    parts.push(format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned());
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_exact_as_they_are_readable() {
        let readable = [0.0, 0.00123, 0.123, 12.34, 999.9, 1234.5, -1234567.0, 100_000.0].map(readable);
        assert_eq!(readable, ["0", "0.0012", "0.12", "12.3", "1,000", "1,234", "-1,234,567", "100,000"]);
    }

    #[test]
    fn the_command_hides_its_secrets() {
        let words = "/bin/tidewire bench fanout --token abc --api-key=key --channel a=b --api-key x";
        assert_eq!(
            command(words.split(' ').map(str::to_owned)),
            "tidewire bench fanout --token [hidden] --api-key=[hidden] --channel a=b --api-key [hidden]"
        );
    }
}
