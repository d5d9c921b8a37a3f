//! Commands to one server from behind the engine's back.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long servers may take to agree on something.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often they are asked.
const POLL: Duration = Duration::from_millis(20);
/// How long one reply may take: a paused server gives none.
const REPLY_TIME_MAX: Duration = Duration::from_secs(10);

/// The way in for who operates a server: a plain address on loopback, and who to be there. Each command has a
/// connection of its own, so that it survives what is done to the connections of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    address: SocketAddr,
    credentials: Option<(String, String)>,
}

/// A reply that is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A string or a number.
    Text(String),
    /// A list.
    List(Vec<Reply>),
    /// There is no such thing.
    Nothing,
}

impl Reply {
    /// The text; empty for anything else.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::List(_) | Self::Nothing => "",
        }
    }

    /// The texts of a list, or the one text.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(items) => items.iter().map(Self::text).collect(),
            Self::Nothing => Vec::new(),
        }
    }

    /// Whether it says that something was done.
    pub fn is_ok(&self) -> bool {
        self.text() == "OK"
    }
}

impl Admin {
    pub(crate) fn new(address: SocketAddr, credentials: Option<(String, String)>) -> Self {
        Self { address, credentials }
    }

    /// Reads what [`Admin::url`] wrote.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(url: &str) -> Result<Self> {
        let expected = || format!("{url:?} is not redis://[user:password@]IP:PORT");
        let authority = url.strip_prefix("redis://").with_context(expected)?;
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (credentials.split_once(':'), address),
            None => (None, authority),
        };
        let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Ok(Self { address: address.parse().with_context(expected)?, credentials })
    }

    /// `redis://[user:password@]IP:PORT`.
    pub fn url(&self) -> String {
        match &self.credentials {
            Some((user, password)) => format!("redis://{user}:{password}@{}", self.address),
            None => format!("redis://{}", self.address),
        }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Runs a command.
    ///
    /// # Errors
    /// If the server cannot be reached, does not answer in time, or answers with an error.
    pub fn ask(&self, words: &[&str]) -> Result<Reply> {
        self.converse(words).with_context(|| format!("{}: {words:?}", self.address))
    }

    /// Runs a command that must answer `OK`.
    ///
    /// # Errors
    /// As [`Admin::ask`]; and for any other answer.
    pub fn tell(&self, words: &[&str]) -> Result<()> {
        let reply = self.ask(words)?;
        if !reply.is_ok() {
            bail!("{}: {words:?}: {reply:?}", self.address);
        }
        Ok(())
    }

    /// Asks again and again until the reply is as wanted; gives that reply.
    ///
    /// # Errors
    /// After [`PATIENCE`], with the last reply.
    pub fn until(&self, what: &str, words: &[&str], is_so: impl Fn(&Reply) -> bool) -> Result<Reply> {
        until(what, || match self.ask(words) {
            Ok(reply) if is_so(&reply) => Ok(reply),
            Ok(reply) => bail!("{}: {words:?}: {reply:?}", self.address),
            Err(error) => Err(error),
        })
    }

    /// Whether the server is a primary now.
    ///
    /// # Errors
    /// As [`Admin::ask`].
    pub fn is_primary(&self) -> Result<bool> {
        Ok(self.ask(&["ROLE"])?.texts().first() == Some(&"master"))
    }

    /// Waits until the server is a primary.
    ///
    /// # Errors
    /// As [`Admin::until`].
    pub fn until_primary(&self) -> Result<()> {
        let is_primary = |role: &Reply| role.texts().first() == Some(&"master");
        self.until("it takes over", &["ROLE"], is_primary).map(drop)
    }

    /// Waits until the server is a replica that has its primary's data.
    ///
    /// # Errors
    /// As [`Admin::until`].
    pub fn until_in_step(&self) -> Result<()> {
        let is_in_step = |reply: &Reply| reply.text().contains("master_link_status:up");
        self.until("it has its primary's data", &["INFO", "replication"], is_in_step).map(drop)
    }

    fn converse(&self, words: &[&str]) -> Result<Reply> {
        let mut stream = TcpStream::connect_timeout(&self.address, REPLY_TIME_MAX)?;
        stream.set_read_timeout(Some(REPLY_TIME_MAX))?;
        let mut request = String::new();
        if let Some((user, password)) = &self.credentials {
            write_command(&mut request, &["AUTH", user, password]);
        }
        write_command(&mut request, words);
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        if self.credentials.is_some() {
            read_reply(&mut reader)?;
        }
        read_reply(&mut reader)
    }
}

/// Tries again and again until it succeeds.
///
/// # Errors
/// After [`PATIENCE`], with what was waited for and the last error.
pub(crate) fn until<T>(what: &str, attempt: impl Fn() -> Result<T>) -> Result<T> {
    until_within(PATIENCE, what, attempt)
}

/// The same, with another time than [`PATIENCE`].
pub(crate) fn until_within<T>(time: Duration, what: &str, attempt: impl Fn() -> Result<T>) -> Result<T> {
    #[expect(clippy::disallowed_methods, reason = "servers run in real time")]
    let now = Instant::now;
    let deadline = now() + time;
    loop {
        match attempt() {
            Err(error) if now() >= deadline => return Err(error.context(format!("waited for: {what}"))),
            Err(_) => std::thread::sleep(POLL),
            done => return done,
        }
    }
}

fn write_command(request: &mut String, words: &[&str]) {
    request.push_str(&format!("*{}\r\n", words.len()));
    words.iter().for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
}

fn read_reply(reader: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, rest)) = line.split_at_checked(1) else { bail!("the connection was closed") };
    let count = || rest.parse::<i64>().map(|count| usize::try_from(count).ok());
    Ok(match kind {
        "$" => match count()? {
            Some(count) => {
                let mut body = vec![0; count + 2];
                reader.read_exact(&mut body)?;
                body.truncate(count);
                Reply::Text(String::from_utf8_lossy(&body).into_owned())
            }
            None => Reply::Nothing,
        },
        "*" => match count()? {
            Some(count) => Reply::List((0..count).map(|_| read_reply(reader)).collect::<Result<_>>()?),
            None => Reply::Nothing,
        },
        "-" => bail!("{rest}"),
        _ => Reply::Text(rest.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_replies() {
        let read = |text: &str| read_reply(&mut text.as_bytes());
        let text = |text: &str| Reply::Text(text.into());
        assert!(read("+OK\r\n").unwrap().is_ok());
        assert_eq!(read("$2\r\na\n\r\n").unwrap(), text("a\n"));
        assert_eq!(
            read("*3\r\n:1\r\n$-1\r\n*0\r\n").unwrap(),
            Reply::List(vec![text("1"), Reply::Nothing, Reply::List(vec![])])
        );
        assert_eq!(read("-ERR no\r\n").unwrap_err().to_string(), "ERR no");
        assert_eq!(read("").unwrap_err().to_string(), "the connection was closed");
    }

    #[test]
    fn a_url_leads_to_the_same_server() {
        for url in ["redis://127.0.0.1:7000", "redis://admin:secret@127.0.0.1:7000"] {
            assert_eq!(Admin::parse(url).unwrap().url(), url);
        }
        assert!(Admin::parse("redis://host").unwrap_err().to_string().contains("IP:PORT"));
    }
}
