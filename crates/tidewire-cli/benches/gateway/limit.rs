//! The limit: a bare epoll program that writes a frame to every socket it has accepted, each time it is told to.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::client::Socket;
use super::server::Process;

/// Tells this program to be the limit rather than the benchmark.
const FLAG: &str = "--bare-epoll-writer";

pub(crate) struct Arguments {
    connections: usize,
    frame: Vec<u8>,
}

/// What the limit was started with, in a process that is one.
pub(crate) fn arguments() -> Option<Arguments> {
    let mut arguments = std::env::args().skip_while(|argument| argument != FLAG).skip(1);
    let connections = arguments.next()?.parse().ok()?;
    let burst: usize = arguments.next()?.parse().ok()?;
    let text = arguments.next()?;
    let payload = vec![text; burst].join("\n");
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..=125 => frame.push(u8::try_from(length).ok()?),
        length => {
            frame.push(126);
            frame.extend(u16::try_from(length).ok()?.to_be_bytes());
        }
    }
    frame.extend(payload.as_bytes());
    Some(Arguments { connections, frame })
}

/// Accepts the sockets, answers their upgrade, then writes one frame to all for each byte on stdin.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry().register(&mut listener, Token(usize::MAX), Interest::READABLE)?;
    println!("{}", listener.local_addr()?);
    let mut sockets: Vec<TcpStream> = Vec::new();
    while sockets.len() < arguments.connections {
        match listener.accept() {
            Ok((mut socket, _)) => {
                socket.set_nodelay(true)?;
                poll.registry().register(
                    &mut socket,
                    Token(sockets.len()),
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                upgrade(&mut socket, &mut poll, &mut events)?;
                sockets.push(socket);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => poll.poll(&mut events, None)?,
            Err(error) => return Err(error.into()),
        }
    }
    println!("ready");
    let mut go = [0];
    while std::io::stdin().read(&mut go)? > 0 {
        for socket in &mut sockets {
            let mut rest = arguments.frame.as_slice();
            while !rest.is_empty() {
                match socket.write(rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => poll.poll(&mut events, None)?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

fn upgrade(socket: &mut TcpStream, poll: &mut Poll, events: &mut Events) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut part = [0; 1024];
        match socket.read(&mut part) {
            Ok(0) => bail!("the client left"),
            Ok(count) => request.extend(part.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => poll.poll(events, None)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?)
}

/// The limit as the benchmark sees it.
pub(crate) struct Limit {
    process: Process,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    stdin: ChildStdin,
    address: String,
}

impl Limit {
    pub(crate) fn start(connections: usize, burst: usize, frame: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([FLAG, &connections.to_string(), &burst.to_string(), frame])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let stdin = child.stdin.take().context("stdin")?;
        let process = Process::new(child);
        let address = lines.next().context("the limit ended")??;
        Ok(Self { process, lines, stdin, address })
    }

    pub(crate) async fn connect(&self) -> Result<Socket> {
        Socket::open(&self.address).await
    }

    /// Waits until it has all its sockets; gives its process and what makes it write.
    pub(crate) fn ready(mut self) -> Result<(Process, impl AsyncFnMut() -> Result<()>)> {
        self.lines.next().context("the limit ended")??;
        let mut stdin = self.stdin;
        Ok((self.process, async move || Ok(stdin.write_all(b"g")?)))
    }
}
