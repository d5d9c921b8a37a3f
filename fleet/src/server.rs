//! One server process: started, killed, paused, started again.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::admin::{Admin, Reply, until};

/// Starts the program and does to it what it is told. When its own input closes - which it does when the run ends, even
/// by SIGKILL - it kills the program and removes its folder.
const KEEPER: &str = r#"folder="$1"; shift; program=
while read -r order; do
  case "$order" in
    start) "$@" >>"$folder/output" 2>&1 & program=$!; echo "$program" ;;
    kill) kill -KILL "$program"; wait "$program"; program=; echo done ;;
    *) kill "-$order" "$program"; echo done ;;
  esac
done
[ -z "$program" ] || kill -KILL "$program"
wait; rm -rf "$folder""#;

/// Another process may take a free port between our look and the server's bind.
const START_ATTEMPTS: usize = 5;

/// Where a server may put what it has: no other server has the folder or the ports.
#[derive(Clone, Debug)]
pub struct Place {
    /// Removed when the server ends.
    pub folder: PathBuf,
    /// Where it listens without TLS.
    pub port: u16,
    /// For a second use: the bus of a cluster, TLS.
    pub other_port: u16,
}

/// A running server. Dropping it kills it.
pub struct Server {
    /// The way in.
    pub admin: Admin,
    place: Place,
    keeper: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `program` with a configuration of these lines, beside those that say where it is, and waits until it
    /// answers; `credentials` are those of somebody who may do everything.
    ///
    /// # Errors
    /// If it does not answer in time; with its log.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        credentials: Option<(&str, &str)>,
        lines: impl Fn(&Place) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let mut last = None;
        for _ in 0..START_ATTEMPTS {
            let place = Place::take()?;
            let lines = lines(&place)?;
            match Self::start_at(place, program, arguments, credentials, &lines) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?)
    }

    fn start_at(
        place: Place,
        program: &Path,
        arguments: &[&str],
        credentials: Option<(&str, &str)>,
        lines: &[String],
    ) -> Result<Self> {
        let configuration = place.folder.join("server.conf");
        let text = format!(
            "bind 127.0.0.1\nport {}\ndir {}\nlogfile server.log\n{}\n",
            place.port,
            place.folder.display(),
            lines.join("\n")
        );
        fs::write(&configuration, text)?;
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&place.folder)
            .arg(program)
            .arg(&configuration)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What the program prints is kept in its folder; a shell may remark on how its children end.
            .stderr(Stdio::null())
            // Ctrl-C ends the run, and the end of the run ends the server: it must not die first, under the tests.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let orders = keeper.stdin.take();
        let answers = BufReader::new(keeper.stdout.take().context("stdout is piped")?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port));
        let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let admin = Admin::new(address, credentials);
        let mut server = Self { admin, place, keeper, orders, answers };
        server.restart().with_context(|| format!("{} does not start", program.display()))?;
        Ok(server)
    }

    /// Ends it at once, as a crash does.
    ///
    /// # Errors
    /// If whoever keeps it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.order("kill").map(drop)
    }

    /// Starts it again after [`Server::kill`]: at the same port, in the same folder, with what it had persisted.
    ///
    /// # Errors
    /// If it does not answer in time; with its log.
    pub fn restart(&mut self) -> Result<()> {
        let process = self.start_again()?;
        // Who answers at the port is asked who it is: another process may have taken it.
        let is_it = |reply: &Reply| reply.text().contains(&format!("process_id:{process}\r"));
        self.admin.until("it answers", &["INFO", "server"], is_it).with_context(|| self.log())?;
        Ok(())
    }

    /// As [`Server::restart`], without waiting until it answers; gives the number of its process.
    ///
    /// # Errors
    /// If whoever keeps it is gone.
    pub fn start_again(&mut self) -> Result<u32> {
        Ok(self.order("start")?.parse()?)
    }

    /// Stops it where it stands, until [`Server::go_on`].
    ///
    /// # Errors
    /// If whoever keeps it is gone.
    pub fn pause(&mut self) -> Result<()> {
        self.order("STOP").map(drop)
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Errors
    /// If whoever keeps it is gone.
    pub fn go_on(&mut self) -> Result<()> {
        self.order("CONT").map(drop)
    }

    /// The port at which it listens without TLS.
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn order(&mut self, order: &str) -> Result<String> {
        let orders = self.orders.as_mut().context("the keeper has no input")?;
        writeln!(orders, "{order}").context("the keeper of the server is gone")?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            bail!("the keeper of the server on port {} is gone", self.place.port);
        }
        Ok(answer.trim_end().to_owned())
    }

    fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.place.folder.join(name)).unwrap_or_default();
        format!("port {}; its log:\n{}{}", self.place.port, read("output"), read("server.log"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Err(error) = self.keeper.wait() {
            eprintln!("cannot wait for the server on port {}: {error}", self.place.port);
        }
    }
}

impl Place {
    fn take() -> Result<Self> {
        let (port, other_port) = (free_port()?, free_port()?);
        // Named by process and port, so that runs side by side never share one.
        let name = format!("tidewire-{}-{}-{port}", std::process::id(), next_number());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder, port, other_port })
    }
}

/// Counts the places of this process: a port may be taken twice in its life.
fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A port that nobody listens on, below those that the system gives to outgoing connections: one of these could be taken
/// before the server has it.
fn free_port() -> Result<u16> {
    until("a free port", || {
        let port = fastrand::u16(10_000..30_000);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("no port is free")?;
        Ok(port)
    })
}
