//! TLS to a server: whose word is taken for who it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Certificates of those who may have signed the server's: what a file holds, or the system's.
#[derive(Debug)]
pub(crate) struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// Reads them.
    ///
    /// # Errors
    /// There are none, or they cannot be used.
    pub(crate) fn read(ca: Option<&Path>) -> Result<Self, String> {
        let certificates = match ca {
            Some(file) => of_file(file).map_err(|problem| format!("--ca {}: {problem}", file.display()))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        match certificates.is_empty() {
            true => {
                Err("this system has no root certificates; name who signed the server's with --ca FILE"
                    .into())
            }
            false => Ok(Self(certificates)),
        }
    }

    /// For the REST client.
    pub(crate) fn for_http(&self) -> TlsConfig {
        let roots = self.0.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
        TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            .build()
    }

    /// For streams of our own.
    pub(crate) fn connector(&self) -> Result<TlsConnector, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // A system may hold roots that are older than any rule for them; those that can be used are enough.
        roots.add_parsable_certificates(self.0.iter().cloned());
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions()?;
        Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }
}

fn of_file(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| format!("is no PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in &found {
        roots.add(certificate.clone()).map_err(|error| format!("holds one that cannot be used: {error}"))?;
    }
    if found.is_empty() { Err("holds no certificate in PEM".into()) } else { Ok(found) }
}

/// What to change about a server that is not who it should be; `None` if that is not what is wrong.
pub(crate) fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("name who signed its certificate with --ca FILE")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("write the name that its certificate is for in --url"),
        rustls::Error::InvalidMessage(_) => Some("it does not speak TLS there: write http in place of https"),
        _ => None,
    }
}
