//! One server that speaks TLS and wants a certificate of its clients.

use std::path::Path;

use anyhow::Result;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::certificates::Certificates;
use crate::server::Server;
use crate::standalone::Persistence;

/// What a path may hold that an option of a URL may not.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// One server with a TLS port, and a plain one for who operates it.
pub struct Tls {
    /// The server; its admin goes in without TLS.
    pub server: Server,
    certificates: Certificates,
}

impl Tls {
    /// Makes certificates and starts it.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start(program: &Path) -> Result<Self> {
        let server = Server::start(program, &[], None, |place| {
            let Certificates { authority, server, .. } = Certificates::write(&place.folder)?;
            let mut lines = Persistence::Nothing.lines();
            lines.push(format!("tls-port {}", place.other_port));
            lines.push(format!("tls-cert-file {}", server.certificate.display()));
            lines.push(format!("tls-key-file {}", server.key.display()));
            lines.push(format!("tls-ca-cert-file {}", authority.display()));
            lines.push("tls-auth-clients yes".to_owned());
            Ok(lines)
        })?;
        let certificates = Certificates::of(&server.place().folder);
        Ok(Self { server, certificates })
    }

    /// `rediss://IP:PORT` with the authority, and the certificate and key of a client.
    pub fn url(&self) -> String {
        let file = |path: &Path| utf8_percent_encode(&path.to_string_lossy(), ESCAPED).to_string();
        let Certificates { authority, client, .. } = &self.certificates;
        format!(
            "rediss://127.0.0.1:{}?ca={}&cert={}&key={}",
            self.server.place().other_port,
            file(authority),
            file(&client.certificate),
            file(&client.key)
        )
    }

    /// The certificates that it was started with.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The same without the client's certificate: the server refuses it.
    pub fn url_without_certificate(&self) -> String {
        let url = self.url();
        url.split_once("&cert=").map(|(url, _)| url.to_owned()).unwrap_or(url)
    }
}
