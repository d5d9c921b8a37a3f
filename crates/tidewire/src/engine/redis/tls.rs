//! Encrypted links: rustls, with the system's roots or a CA of one's own, and with a client certificate if one is given.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore, crypto};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, ErrorKind, Result};

/// The files, in PEM, and the name that an engine URL gives.
#[derive(Debug, Default)]
pub(super) struct TlsFiles {
    /// Who may have signed the server's certificate; the system's roots if none is given.
    pub(super) ca: Option<PathBuf>,
    /// Who we are to a server that asks.
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    /// The name in the server's certificate, where that is not the host that is dialed.
    pub(super) server_name: Option<String>,
}

/// How links are encrypted.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] names the file that is missing, or does not hold what it must.
    pub(super) fn read(files: &TlsFiles) -> Result<Self> {
        let roots = match &files.ca {
            Some(file) => own_roots(file)?,
            None => system_roots()?,
        };
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(format!("TLS: {error}")))?
            .with_root_certificates(roots);
        let config = match (&files.cert, &files.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|fault| unreadable("key", key, "a private key", fault))?;
                config.with_client_auth_cert(certificates("cert", cert)?, private).map_err(|error| {
                    invalid(format!(
                        "the key in {} does not belong to the certificate in {}: {error}",
                        key.display(),
                        cert.display()
                    ))
                })?
            }
            (Some(_), None) => {
                return Err(invalid("a client certificate needs its key: key=FILE in the redis URL"));
            }
            (None, Some(_)) => {
                return Err(invalid("a key needs its certificate: cert=FILE in the redis URL"));
            }
        };
        let name = |name: &String| {
            ServerName::try_from(name.clone()).map_err(|_| {
                invalid(format!(
                    "server_name {name:?} in the redis URL is neither a DNS name nor an IP address"
                ))
            })
        };
        let server_name = files.server_name.as_ref().map(name).transpose()?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Encrypts a stream to `host`, whose certificate must be for that name or for the one in the URL.
    pub(super) async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        self.connector.connect(name, stream).await
    }
}

fn own_roots(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", file)? {
        roots.add(certificate).map_err(|error| {
            invalid(format!(
                "the ca file {} holds a certificate that cannot be used: {error}",
                file.display()
            ))
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A system may hold roots that are older than any rule for them; those that can be used are enough.
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(invalid(format!(
        "this system has no root certificates{why}; name your own with ca=FILE in the redis URL"
    )))
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let fail = |fault| unreadable(option, file, "a certificate", fault);
    let found =
        CertificateDer::pem_file_iter(file).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    if found.is_empty() {
        return Err(fail(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn unreadable(option: &str, file: &Path, what: &str, fault: pem::Error) -> Error {
    let file = file.display();
    match fault {
        pem::Error::Io(error) => invalid(format!("the {option} file {file} cannot be read: {error}")),
        pem::Error::NoItemsFound => invalid(format!("the {option} file {file} does not hold {what} in PEM")),
        fault => invalid(format!("the {option} file {file} is not PEM: {fault}")),
    }
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidName, text)
}

/// What to change about a fault of encryption; none if it is none, or only time will tell.
pub(super) fn remedy(fault: &io::Error) -> Option<&'static str> {
    match fault.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("name the CA that signed its certificate with ca=FILE in the URL")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("name what its certificate is for with server_name=NAME in the URL"),
        rustls::Error::InvalidCertificate(_) => Some("the server needs another certificate"),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Some("it asks for a client certificate: cert=FILE&key=FILE in the URL")
        }
        rustls::Error::AlertReceived(_) => Some("see the server's log for what it refuses"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("it does not speak TLS on this port: write redis in place of rediss")
        }
        _ => None,
    }
}
