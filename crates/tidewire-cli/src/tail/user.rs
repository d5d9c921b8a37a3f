//! `tidewire tail --user`: what goes on at the connections of a user, on all nodes, over lost connections too.

use std::fmt::{self, Write as _};
use std::io::BufRead;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tidewire_protocol::v1::{TapEvent, TapLine};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Tail, wait_before};
use crate::client::{Api, LinesError};
use crate::failed::Failed;
use crate::print::{self, one_line};
use crate::rest::RestPath;

/// The server sends an empty line every 10 s: longer silence than this means that nobody is there any more.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Lines that wait to be printed.
const LINES_MAX: usize = 256;
/// Of a connection's id, which is the same for all connections of one moment but for its end.
const CLIENT_CHARACTERS: usize = 8;

/// What the thread that reads tells.
enum Heard {
    /// The server has accepted.
    Begun,
    Line(String),
    Ended(LinesError),
}

/// A tail of a user at work.
pub(super) struct UserTail {
    api: Arc<Api>,
    path: RestPath,
    is_json: bool,
    /// Lines still to print; `None` for no end.
    left: Option<u64>,
    has_begun: bool,
    attempt_count: u32,
}

impl UserTail {
    pub(super) fn new(tail: Tail, user: &str) -> Result<Self, Failed> {
        let path = RestPath::tap(user).query("data", tail.data.then_some("true"));
        let (is_json, left) = (tail.json, tail.count);
        let api = Arc::new(tail.api.api()?);
        Ok(Self { api, path, is_json, left, has_begun: false, attempt_count: 0 })
    }

    /// Prints lines until there are enough of them.
    pub(super) async fn follow(mut self) -> Result<()> {
        while self.left != Some(0) {
            let reason = match self.connection().await? {
                LinesError::Final(error) => return Err(error),
                LinesError::Lost(error) if !self.has_begun => return Err(error),
                LinesError::Lost(error) => error,
            };
            if self.left == Some(0) {
                break;
            }
            if self.attempt_count == 0 {
                print::note(format_args!("connection lost: {reason}; connecting again"));
            }
            tokio::time::sleep(wait_before(self.attempt_count)).await;
            self.attempt_count += 1;
        }
        Ok(())
    }

    /// Prints what comes over one connection; why that has ended.
    async fn connection(&mut self) -> Result<LinesError> {
        let (sender, mut heard) = mpsc::channel(LINES_MAX);
        let (api, path) = (self.api.clone(), self.path.clone());
        // It ends with its connection, or with the process: nothing waits for it.
        thread::spawn(move || read(&api, &path, &sender));
        loop {
            match timeout(SILENCE_MAX, heard.recv()).await {
                Err(_) => return Ok(LinesError::Lost(anyhow!("server silent for {SILENCE_MAX:?}"))),
                Ok(None) => return Ok(LinesError::Lost(anyhow!("server closed the connection"))),
                Ok(Some(Heard::Ended(error))) => return Ok(error),
                Ok(Some(Heard::Begun)) => {
                    if self.has_begun {
                        print::note("connected again; what happened meanwhile is not told");
                    }
                    (self.has_begun, self.attempt_count) = (true, 0);
                }
                Ok(Some(Heard::Line(line))) => {
                    self.print(&line)?;
                    if self.left == Some(0) {
                        return Ok(LinesError::Lost(anyhow!("done")));
                    }
                }
            }
        }
    }

    fn print(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        // A newer server may tell what we do not know: it is shown as it is.
        let line = serde_json::from_str::<TapLine>(text).ok();
        match &line {
            Some(line) if !self.is_json => print::line(text_of(line))?,
            _ => print::line(one_line(text))?,
        }
        let is_of_connection = line.is_some_and(|line| !line.client.is_empty());
        self.left = self.left.map(|left| left - u64::from(is_of_connection));
        Ok(())
    }
}

fn read(api: &Api, path: &RestPath, sender: &mpsc::Sender<Heard>) {
    let lines = match api.lines(path) {
        Ok(lines) => lines,
        Err(error) => {
            let _nobody_waits = sender.blocking_send(Heard::Ended(error)).is_ok();
            return;
        }
    };
    let mut is_heard = sender.blocking_send(Heard::Begun).is_ok();
    for line in lines.lines() {
        if !is_heard {
            return;
        }
        is_heard = match line {
            Ok(line) => sender.blocking_send(Heard::Line(line)).is_ok(),
            Err(error) => {
                let _told = sender.blocking_send(Heard::Ended(LinesError::Lost(error.into()))).is_ok();
                return;
            }
        };
    }
}

/// A line for people.
fn text_of(line: &TapLine) -> String {
    let time = line.at.split_once('T').map_or(line.at.as_str(), |(_, time)| time.trim_end_matches('Z'));
    let count = line.count.unwrap_or_default();
    let reason = one_line(&line.reason);
    let what = match line.what {
        TapEvent::Watching => {
            return format!("{time:<12}  node {} watches, {count} open now", one_line(&line.node));
        }
        TapEvent::NotWatching => {
            return format!("{time:<12}  node {} does not watch: {reason}", one_line(&line.node));
        }
        TapEvent::LeftOut => return format!("{time:<12}  {count} lines left out"),
        TapEvent::Opened => "opened".to_owned(),
        TapEvent::Closed => format!("closed {} {reason}", line.code.unwrap_or_default()),
        TapEvent::Command => format!("> {}", about(line)),
        TapEvent::Reply | TapEvent::Push => format!("< {}", about(line)),
    };
    let client = one_line(&line.client);
    let start = client.char_indices().nth_back(CLIENT_CHARACTERS - 1).map_or(0, |(start, _)| start);
    let client = client.get(start..).unwrap_or_default();
    format!("{time:<12}  {client:<CLIENT_CHARACTERS$}  {what}").trim_end().to_owned()
}

/// What a command, a reply or a push is about.
fn about(line: &TapLine) -> String {
    let mut text = one_line(&line.kind).into_owned();
    let mut add = |part: fmt::Arguments<'_>| {
        text.push(' ');
        // Writing into a string does not fail.
        let _written = text.write_fmt(part).is_ok();
    };
    if line.id > 0 {
        add(format_args!("#{}", line.id));
    }
    if !line.channel.is_empty() {
        add(format_args!("{}", one_line(&line.channel)));
    }
    if line.offset > 0 {
        add(format_args!("offset {}", line.offset));
    }
    if let Some(code) = line.code {
        add(format_args!("{code}"));
    }
    if !line.reason.is_empty() {
        add(format_args!("{}", one_line(&line.reason)));
    }
    if let Some(count) = line.count {
        add(format_args!("count {count}"));
    }
    match &line.data {
        Some(data) => add(format_args!("{}", one_line(data.get()))),
        None if line.bytes > 0 => add(format_args!("{} bytes", line.bytes)),
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        text_of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_line_says_when_who_and_what() {
        let at = r#""at":"2026-01-31T12:00:00.5Z","client":"0199d3c4-aaaa-bbbb-cccc-0123456789ab""#;
        let push = r#""what":"push","kind":"publication","channel":"orders","offset":7,"bytes":9"#;
        assert_eq!(
            shown(&format!("{{{at},{push}}}")),
            "12:00:00.5    456789ab  < publication orders offset 7 9 bytes"
        );
        assert_eq!(
            shown(&format!("{{{at},{push},\"data\":{{\"a\":\n1}}}}")),
            "12:00:00.5    456789ab  < publication orders offset 7 {\"a\": 1}"
        );
        let refused =
            r#""what":"reply","kind":"error","id":3,"code":103,"reason":"permission \u001b denied""#;
        assert_eq!(
            shown(&format!("{{{at},{refused}}}")),
            "12:00:00.5    456789ab  < error #3 103 permission \\u001b denied"
        );
        assert_eq!(
            shown(&format!("{{{at},\"what\":\"closed\",\"code\":3008,\"reason\":\"slow\"}}")),
            "12:00:00.5    456789ab  closed 3008 slow"
        );
        assert_eq!(shown(r#"{"what":"left_out","count":12}"#), "              12 lines left out");
    }
}
