//! What a server says of itself.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::clock::Timestamp;
use crate::engine::redis::capabilities::Capabilities;
use crate::engine::redis::command::Command;
use crate::engine::redis::resp::Value;

/// Names and values, or why they are not told.
type Told = Result<FxHashMap<String, String>, String>;

/// What one server says of itself.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) info: Told,
    pub(super) settings: Told,
    pub(super) capabilities: Result<Capabilities, String>,
    /// How far its clock is ahead of ours, or behind if negative, in milliseconds; none if it does not tell the time.
    pub(super) ahead_ms: Option<i64>,
    /// How long it took to answer: the clock is known no better than that.
    pub(super) took: Duration,
}

const SETTINGS: [&str; 4] = ["appendfsync", "save", "client-output-buffer-limit", "min-replicas-to-write"];

/// What a server is asked, in the order in which [`Facts::read`] takes the answers.
pub(super) fn questions() -> Vec<Command> {
    let settings = SETTINGS.iter().fold(Command::new("CONFIG").arg("GET"), |command, name| command.arg(name));
    vec![Command::new("TIME"), Command::new("INFO"), settings, Capabilities::question()]
}

impl Facts {
    /// Reads the answers to [`questions`], which were asked and answered at these times.
    pub(super) fn read(replies: Vec<Value>, asked: Timestamp, answered: Timestamp) -> Self {
        let mut replies = replies.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Null);
        let took = answered.since(asked);
        let time = read_time(next());
        Self {
            ahead_ms: time.map(|time| ahead(time, asked.saturating_add(took / 2))),
            info: read_info(next()),
            settings: read_settings(next()),
            capabilities: refused(next()).and_then(read_capabilities),
            took,
        }
    }

    /// A field of `INFO`.
    pub(super) fn info(&self, name: &str) -> Option<&str> {
        self.info.as_ref().ok()?.get(name).map(String::as_str)
    }

    /// A number of `INFO`.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.info(name)?.parse().ok()
    }

    /// A setting.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.as_ref().ok()?.get(name).map(String::as_str)
    }

    /// Where its replicas are.
    pub(super) fn replicas(&self) -> Vec<(String, u16)> {
        let replicas = (0..).map_while(|number| self.info(&format!("slave{number}")));
        replicas.filter_map(read_replica).collect()
    }
}

/// `ip=10.0.0.2,port=6379,state=online,...`
fn read_replica(line: &str) -> Option<(String, u16)> {
    let field = |name: &str| line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    Some((field("ip")?.to_owned(), field("port")?.parse().ok()?))
}

fn ahead(of: Timestamp, than: Timestamp) -> i64 {
    let difference = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    difference(of.since(than)) - difference(than.since(of))
}

/// Seconds, and the microseconds beside them.
fn read_time(reply: Value) -> Option<Timestamp> {
    let [seconds, micros] = <[Value; 2]>::try_from(reply.into_array()?).ok()?;
    let (seconds, micros) = (u64::try_from(seconds.as_int()?).ok()?, u64::try_from(micros.as_int()?).ok()?);
    Some(Timestamp::from_millis(seconds.checked_mul(1_000)? + micros / 1_000))
}

fn read_info(reply: Value) -> Told {
    let text = refused(reply)?.into_bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Ok(fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
}

fn read_settings(reply: Value) -> Told {
    let Value::Map(settings) = refused(reply)? else { return Ok(FxHashMap::default()) };
    let text = |value: &Value| Some(String::from_utf8_lossy(value.as_bytes()?).into_owned());
    Ok(settings.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect())
}

fn read_capabilities(reply: Value) -> Result<Capabilities, String> {
    Capabilities::read(reply).ok_or_else(|| "it answers with something else".to_owned())
}

fn refused(reply: Value) -> Result<Value, String> {
    match reply {
        Value::Error(text) => Err(String::from_utf8_lossy(&text).into_owned()),
        reply => Ok(reply),
    }
}
