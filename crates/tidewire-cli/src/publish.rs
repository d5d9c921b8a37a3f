//! `tidewire publish` and `tidewire append`: the two speeds of a channel, by the server API.

use std::io::{self, BufRead, Read};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tidewire_protocol::RawValue;
use tidewire_protocol::http::PublishRequest;

use crate::client::{Api, ApiArguments, Place};
use crate::failed::Failed;
use crate::print::{self, one_line};

/// Most bytes of one event read from standard input. No server takes as much; it bounds our memory.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Of data that is not JSON, shown in the error.
const SHOWN_CHARACTERS: usize = 60;

#[derive(clap::Args)]
pub(crate) struct Publish {
    /// The channel
    channel: String,
    /// The event's data as JSON, or - to read it from standard input
    #[arg(allow_negative_numbers = true)]
    data: Input,
    /// With -: every line of standard input is an event of its own
    #[arg(long)]
    lines: bool,
    /// Repeating the command with the same key has no second effect while the server remembers the key.
    /// With --lines, line N has KEY-N
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the outcome of each event as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArguments,
}

/// The two verbs of a channel.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// `publish`
    Live,
    /// `append`
    Kept,
}

/// Where the data comes from.
#[derive(Clone, Debug)]
enum Input {
    Argument(Box<RawValue>),
    Stdin,
}

/// An event's outcome for programs.
#[derive(Serialize)]
struct Outcome<'a> {
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
}

impl Publish {
    pub(crate) fn run(self, speed: Speed) -> Result<(), Failed> {
        let Self { channel, data, lines, idempotency_key, json, api } = self;
        let sender = Sender { api: api.api()?, channel, speed, is_json: json };
        let key = idempotency_key.as_deref().unwrap_or_default();
        match data {
            Input::Stdin if lines => sender.send_lines(io::stdin().lock(), key)?,
            Input::Argument(_) if lines => {
                return Err(Failed::Usage(
                    "--lines reads standard input: write - in place of the data".into(),
                ));
            }
            Input::Stdin => sender.send_one(&read_event(io::stdin().lock())?, key)?,
            Input::Argument(data) => sender.send_one(&data, key)?,
        }
        Ok(())
    }
}

/// Sends events to one channel and tells what became of them.
struct Sender {
    api: Api,
    channel: String,
    speed: Speed,
    is_json: bool,
}

impl Sender {
    fn send_one(&self, data: &RawValue, key: &str) -> Result<()> {
        let place = self.send(data, key)?;
        if self.is_json {
            return self.print_json(place.as_ref());
        }
        let (done, channel) = (self.speed.done(), &self.channel);
        match place {
            Some(Place { offset, epoch }) => {
                print::line(format_args!("{done} to {channel}: offset {offset}, epoch {epoch}"))
            }
            None => print::line(format_args!("{done} to {channel}")),
        }
    }

    fn send_lines(&self, mut input: impl BufRead, key: &str) -> Result<()> {
        let (done, channel) = (self.speed.done(), &self.channel);
        let (mut line, mut line_number, mut event_count, mut last) = (String::new(), 0, 0_u64, None);
        loop {
            line.clear();
            line_number += 1;
            let at = || format!("line {line_number} of standard input, after {event_count} events {done}");
            let mut bounded = input.by_ref().take(INPUT_BYTES_MAX);
            if bounded.read_line(&mut line).with_context(at)? == 0 {
                break;
            }
            ensure!(bounded.limit() > 0, "{}: {}", at(), too_long());
            if line.trim().is_empty() {
                continue;
            }
            let data = parse(&line).map_err(anyhow::Error::msg).with_context(at)?;
            let key = if key.is_empty() { String::new() } else { format!("{key}-{line_number}") };
            let place = self.send(&data, &key).with_context(at)?;
            if self.is_json {
                self.print_json(place.as_ref())?;
            }
            last = place.or(last);
            event_count += 1;
        }
        match last {
            _ if self.is_json => Ok(()),
            Some(Place { offset, .. }) => print::line(format_args!(
                "{done} {event_count} events to {channel}, the last at offset {offset}"
            )),
            None => print::line(format_args!("{done} {event_count} events to {channel}")),
        }
    }

    fn send(&self, data: &RawValue, key: &str) -> Result<Option<Place>> {
        let place = self.api.publish(&PublishRequest {
            channel: self.channel.as_str().into(),
            data: Some(data),
            skip_history: self.speed == Speed::Live,
            idempotency_key: key.into(),
            ..PublishRequest::default()
        })?;
        if self.speed == Speed::Kept && place.is_none() {
            bail!(
                "channel {:?} keeps nothing, so the event went out live: give its rule in the server's settings \
                 a `keep`, or use `tidewire publish`",
                self.channel
            );
        }
        Ok(place)
    }

    fn print_json(&self, place: Option<&Place>) -> Result<()> {
        print::json(&Outcome {
            channel: &self.channel,
            offset: place.map(|place| place.offset),
            epoch: place.map(|place| place.epoch.as_str()),
        })
    }
}

impl Speed {
    fn done(self) -> &'static str {
        match self {
            Self::Live => "published",
            Self::Kept => "appended",
        }
    }
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" { Ok(Self::Stdin) } else { parse(text).map(Self::Argument) }
    }
}

fn read_event(input: impl Read) -> Result<Box<RawValue>> {
    let mut text = String::new();
    let mut bounded = input.take(INPUT_BYTES_MAX);
    bounded.read_to_string(&mut text).context("cannot read standard input")?;
    ensure!(bounded.limit() > 0, "standard input: {}", too_long());
    parse(&text).map_err(anyhow::Error::msg).context("standard input")
}

fn too_long() -> String {
    format!("longer than {INPUT_BYTES_MAX} bytes; for several events give --lines, one event in each line")
}

/// Checks that text is JSON. The error says how to write what was probably meant.
fn parse(text: &str) -> Result<Box<RawValue>, String> {
    let error = match serde_json::from_str(text) {
        Ok(data) => return Ok(data),
        Err(error) => error,
    };
    let text = text.trim();
    let hint = match text.chars().next() {
        None => return Err("no data: an event's data is JSON, such as {} or null".into()),
        Some('{' | '[') => r#"in a shell, put it between single quotes, as in '{"n": 1}'"#,
        Some(_) => r#"a text needs quotes of its own, in a shell inside single quotes: '"hello"'"#,
    };
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Err(format!("{} is not JSON ({error}); {hint}", one_line(&shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_to_write_json() {
        assert_eq!(parse(" {\"n\": 1} ").unwrap().get(), "{\"n\": 1}");
        for (text, hint) in
            [("hello", "'\"hello\"'"), ("{n:1}", "'{\"n\": 1}'"), (" ", "no data"), ("1 2", "quotes")]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
        let long = parse(&"ü".repeat(100)).unwrap_err();
        assert!(long.starts_with(&format!("{}… is not JSON", "ü".repeat(60))), "{long}");
    }
}
