//! TLS for those who connect: rustls, TLS 1.2 and 1.3, with a certificate that changes while the server runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use tidewire::Clock;
use tidewire::tasks::Tasks;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// How soon a new certificate is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The certificate that connections are accepted with.
pub(crate) struct Tls {
    files: TlsConfig,
    pair: RwLock<Pair>,
}

/// A certificate and its key, ready for use, and what tells whether the files have changed.
struct Pair {
    config: Arc<ServerConfig>,
    fingerprint: Vec<u8>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What cannot be used of them; the text names the setting and the file.
    pub(crate) fn read(files: &TlsConfig) -> Result<Arc<Self>, String> {
        let pair = Pair::of(&Texts::read(files)?, files)?;
        Ok(Arc::new(Self { files: files.clone(), pair: RwLock::new(pair) }))
    }

    /// What accepts a connection with the certificate as it is now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.pair.read().config.clone())
    }

    /// Has it follow the files. Connections keep the certificate that they were accepted with.
    pub(crate) fn follow(self: &Arc<Self>, tasks: &Tasks, clock: &Clock) {
        let (tls, clock, stop) = (self.clone(), clock.clone(), tasks.stopping().clone());
        tasks.spawn(async move {
            let mut problem = None;
            while stop.run_until_cancelled(clock.sleep(LOOK_EVERY)).await.is_some() {
                let (tls, told) = (tls.clone(), problem.take());
                // A runtime that ends takes the look with it.
                let Ok(found) = tokio::task::spawn_blocking(move || tls.look(told)).await else { return };
                problem = found;
            }
        });
    }

    /// Looks at the files once; what is wrong with them, which is logged unless it was `told` the last time.
    fn look(&self, told: Option<String>) -> Option<String> {
        match self.reload() {
            Ok(true) => tracing::info!(cert = %self.files.cert.display(), "the certificate was changed"),
            Ok(false) => {}
            Err(problem) => {
                if told.as_ref() != Some(&problem) {
                    tracing::error!(problem, "the certificate stays as it was");
                }
                return Some(problem);
            }
        }
        None
    }

    /// Takes over what the files hold; whether that is something else than before.
    fn reload(&self) -> Result<bool, String> {
        let texts = Texts::read(&self.files)?;
        if texts.fingerprint() == self.pair.read().fingerprint {
            return Ok(false);
        }
        let pair = Pair::of(&texts, &self.files)?;
        *self.pair.write() = pair;
        Ok(true)
    }
}

/// What is in the files.
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Texts {
    fn read(files: &TlsConfig) -> Result<Self, String> {
        let read = |setting: &str, file: &Path| {
            std::fs::read(file)
                .map_err(|error| format!("tls.{setting}: {}: cannot be read: {error}", file.display()))
        };
        Ok(Self { cert: read("cert", &files.cert)?, key: read("key", &files.key)? })
    }

    /// Tells one content from another, without holding the key in one more place.
    fn fingerprint(&self) -> Vec<u8> {
        [digest(&SHA256, &self.cert).as_ref(), digest(&SHA256, &self.key).as_ref()].concat()
    }
}

impl Pair {
    fn of(texts: &Texts, files: &TlsConfig) -> Result<Self, String> {
        let named = |setting: &str, file: &Path, problem: &str| {
            format!("tls.{setting}: {}: {problem}", file.display())
        };
        let not_pem = |setting, file, fault: pem::Error| match fault {
            pem::Error::NoItemsFound => named(setting, file, "holds no private key in PEM"),
            fault => named(setting, file, &format!("is no PEM: {fault}")),
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&texts.cert)
            .collect::<Result<_, _>>()
            .map_err(|fault| not_pem("cert", &files.cert, fault))?;
        if chain.is_empty() {
            return Err(named("cert", &files.cert, "holds no certificate in PEM"));
        }
        let key =
            PrivateKeyDer::from_pem_slice(&texts.key).map_err(|fault| not_pem("key", &files.key, fault))?;
        let config = config(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "tls: the key in {} does not belong to the certificate in {}",
                files.key.display(),
                files.cert.display()
            ),
            error => named("cert", &files.cert, &format!("cannot be used with tls.key: {error}")),
        })?;
        Ok(Self { config: Arc::new(config), fingerprint: texts.fingerprint() })
    }
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // The client keeps what resumes its session, so that a storm of those who come back costs no signature each.
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

#[cfg(test)]
mod tests;
