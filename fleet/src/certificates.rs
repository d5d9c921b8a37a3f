//! Certificates for one run: an authority of our own, one certificate for servers, one for clients.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Who signed the others.
    pub authority: PathBuf,
    /// Of a server at `localhost` or 127.0.0.1.
    pub server: Pair,
    /// Of a client.
    pub client: Pair,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certificates {
    /// Where those of `folder` are.
    pub(crate) fn of(folder: &Path) -> Self {
        let pair = |name: &str| Pair {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        Self { authority: folder.join("ca.pem"), server: pair("server"), client: pair("client") }
    }

    /// Makes new ones in `folder`.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn write(folder: &Path) -> Result<Self> {
        let files = Self::of(folder);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "tidewire tests");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(&files.authority, issuer.pem())?;
        let write = |pair: &Pair, purpose: ExtendedKeyUsagePurpose, names: Vec<SanType>| -> Result<()> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "tidewire tests, signed");
            params.subject_alt_names = names;
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?;
            fs::write(&pair.certificate, certificate.pem())?;
            fs::write(&pair.key, key.serialize_pem())?;
            Ok(())
        };
        let names = vec![
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::DnsName("localhost".try_into()?),
        ];
        write(&files.server, ExtendedKeyUsagePurpose::ServerAuth, names)?;
        write(&files.client, ExtendedKeyUsagePurpose::ClientAuth, Vec::new())?;
        Ok(files)
    }
}
