//! What a WebSocket is read from and written to: a TCP connection, or TLS on one. Neither has a buffer of ours.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use parking_lot::Mutex;
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Both ends are used at a time by two futures of one task.
pub(super) trait Socket: Sync {
    /// Reads what is there. `WouldBlock` if nothing is; 0 at the end.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes as much as it can now. `WouldBlock` if that is nothing.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Hands on what it has taken. `WouldBlock` if something of it is left.
    fn try_flush(&self) -> io::Result<()>;

    /// Waits until reading may give something.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until writing, or flushing, may go on.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;
}

impl Socket for TcpStream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        TcpStream::try_read(self, buffer)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_write_vectored(slices)
    }

    fn try_flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        TcpStream::readable(self)
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        TcpStream::writable(self)
    }
}

/// TLS on a TCP connection. What is idle holds its keys and the 4 KiB that rustls reads into; what is to be sent is encrypted
/// when the connection takes it.
pub(super) struct Secured {
    tcp: TcpStream,
    /// Never held while something is waited for.
    session: Mutex<Box<ServerConnection>>,
}

impl Secured {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        let (tcp, session) = stream.into_inner();
        Self { tcp, session: Mutex::new(Box::new(session)) }
    }

    /// Sends what is encrypted and not sent yet.
    fn push(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut Raw(&self.tcp))?;
        }
        Ok(())
    }
}

impl Socket for Secured {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let session = &mut **self.session.lock();
        match session.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
        // Once: who sends records with nothing in them has to be waited for between two of them, as others have.
        session.read_tls(&mut Raw(&self.tcp))?;
        let processed = session.process_new_packets();
        // An alert, or the answer to a change of keys. What does not go now goes with what is written next.
        match self.push(session) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        session.reader().read(buffer)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let session = &mut **self.session.lock();
        // What was taken before goes first, so that no more than one write waits in here.
        self.push(session)?;
        let taken = session.writer().write_vectored(slices)?;
        match self.push(session) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn try_flush(&self) -> io::Result<()> {
        self.push(&mut self.session.lock())
    }

    /// The socket counts as readable until a read found it empty, and it is not read while something decrypted is left: so this
    /// does not wait for what is here already.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.tcp.readable()
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        self.tcp.writable()
    }
}

impl Drop for Secured {
    /// Says that nothing was cut off. The WebSocket has said so already, so nobody needs it who does not get it.
    fn drop(&mut self) {
        let session = &mut **self.session.lock();
        session.send_close_notify();
        let _sent = self.push(session).is_ok();
    }
}

/// A socket as rustls wants one.
struct Raw<'s>(&'s TcpStream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
