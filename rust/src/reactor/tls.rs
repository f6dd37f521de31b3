//! TLS on a TCP connection, through rustls' own buffers: the session behind it sees plain octets.
//!
//! Who may speak is settled before the first octet of the session passes: certificates by rustls, and for Modbus
//! Security the role in the peer's certificate (MODBUS/TCP Security, chapter 8: extension 1.3.6.1.4.1.50316.802.1).

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use x509_cert::der::Decode;
use x509_cert::der::asn1::Utf8StringRef;
use x509_cert::der::oid::ObjectIdentifier;

use super::endpoint::TlsEndpoint;

/// The extension that names the role of a certificate's holder.
const ROLE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.50316.802.1");

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub struct TlsServer {
    /// Our certificate, and who is trusted.
    pub config: Arc<ServerConfig>,
    /// The roles of which a peer's certificate has to name one; empty if none is asked for.
    pub roles: Arc<[String]>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// File of the certificate, with the authorities between it and the trusted one behind it.
    pub certificate: &'a Path,
    /// File of its key.
    pub key: &'a Path,
}

/// One end of a TLS connection.
pub struct TlsStream {
    /// Below it.
    pub tcp: TcpStream,
    connection: Connection,
    roles: Arc<[String]>,
    admitted: bool,
    ended: bool,
}

/// What a head-end needs to dial: the file of the trusted authorities, and who we are if devices ask.
///
/// # Errors
/// With the file's name, if it cannot be read or holds something else.
pub fn client_config(authorities: &Path, identity: Option<Identity<'_>>) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots(authorities)?);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (chain, key) = identity.load()?;
            builder.with_client_auth_cert(chain, key).map_err(|error| wrong(identity.key, &error))
        }
    }
}

/// What a listener needs: who it is, and whom it trusts (`None`: peers show no certificate).
///
/// # Errors
/// With the file's name, if it cannot be read or holds something else.
pub fn server_config(identity: Identity<'_>, authorities: Option<&Path>) -> io::Result<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider())
                .build()
                .map_err(|error| wrong(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = identity.load()?;
    builder.with_single_cert(chain, key).map_err(|error| wrong(identity.key, &error))
}

/// The role that a certificate names, if it names one.
pub fn role_of(certificate: &[u8]) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let mut named = certificate.tbs_certificate().extensions()?.iter().filter(|extension| extension.extn_id == ROLE);
    let extension = named.next()?;
    // Two roles are as good as none: nobody can say which one counts.
    if named.next().is_some() {
        return None;
    }
    let role = Utf8StringRef::from_der(extension.extn_value.as_bytes()).ok()?;
    Some(role.as_str().to_owned())
}

/// The role that the certificate in this file names.
///
/// # Errors
/// With the file's name, if it cannot be read or holds no certificate.
pub fn role_in(path: &Path) -> io::Result<Option<String>> {
    Ok(chain(path)?.first().and_then(|certificate| role_of(certificate)))
}

impl Identity<'_> {
    fn load(&self) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::from_pem_file(self.key).map_err(|error| wrong(self.key, &error))?;
        Ok((chain(self.certificate)?, key))
    }
}

impl TlsStream {
    /// The dialling end of a connection that is being opened.
    pub fn dial(tcp: TcpStream, endpoint: &TlsEndpoint) -> io::Result<Self> {
        let connection =
            ClientConnection::new(endpoint.config.clone(), endpoint.name.clone()).map_err(io::Error::other)?;
        Ok(Self::new(tcp, connection.into(), Arc::new([])))
    }

    /// The accepting end.
    pub fn accept(tcp: TcpStream, server: &TlsServer) -> io::Result<Self> {
        let connection = ServerConnection::new(server.config.clone()).map_err(io::Error::other)?;
        Ok(Self::new(tcp, connection.into(), server.roles.clone()))
    }

    fn new(tcp: TcpStream, mut connection: Connection, roles: Arc<[String]>) -> Self {
        connection.set_buffer_limit(Some(BUFFER));
        Self { tcp, connection, roles, admitted: false, ended: false }
    }

    /// Go on with the handshake; `WouldBlock` until it is over.
    ///
    /// # Errors
    /// `PermissionDenied` if the peer has not the certificate, or the certificate not the role, that was asked for.
    pub fn handshake(&mut self) -> io::Result<()> {
        while !self.admitted {
            self.push()?;
            if self.connection.is_handshaking() && !self.pull()? {
                self.push()?;
                return Err(ErrorKind::WouldBlock.into());
            }
            self.admit()?;
        }
        self.push()
    }

    /// Once the handshake is over: has the peer a role that may speak?
    fn admit(&mut self) -> io::Result<()> {
        if self.admitted || self.connection.is_handshaking() {
            return Ok(());
        }
        if !self.roles.is_empty() {
            let role = self.connection.peer_certificates().and_then(<[_]>::first).and_then(|der| role_of(der));
            match role {
                Some(role) if self.roles.contains(&role) => {}
                Some(role) => return Err(denied(format!("the role '{role}' of the peer's certificate may not speak"))),
                None => return Err(denied("the peer's certificate names no role".into())),
            }
        }
        self.admitted = true;
        Ok(())
    }

    /// Take what has arrived into the connection; false if nothing has.
    fn pull(&mut self) -> io::Result<bool> {
        match self.connection.read_tls(&mut self.tcp) {
            Ok(0) => {
                if self.connection.is_handshaking() {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "the peer closed it during the handshake"));
                }
                self.ended = true;
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Err(error) = self.connection.process_new_packets() {
            // The alert tells the peer why.
            let _ = self.push();
            return Err(denied(format!("TLS: {error}")));
        }
        Ok(true)
    }

    /// Send what the connection has for the peer, as far as TCP takes it.
    pub fn push(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Plain octets; 0 is the peer's end, said by the peer: a connection that is merely cut is an error.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.admitted {
            self.handshake()?;
        }
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.ended => {}
                other => return other,
            }
            if !self.pull()? {
                self.push()?;
                return Err(ErrorKind::WouldBlock.into());
            }
            self.push()?;
        }
    }

    /// Take plain octets, before the end of the handshake too.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.connection.writer().write(octets)?;
        if written > 0 || octets.is_empty() {
            self.push()?;
            return Ok(written);
        }
        // The buffer is full: it drains as TCP takes it.
        self.push()?;
        match self.connection.writer().write(octets)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    /// Tell the peer that this is the end.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
        let _ = self.push();
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn chain(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| wrong(path, &error))?;
    if found.is_empty() {
        return Err(wrong(path, &"no certificate in it"));
    }
    Ok(found)
}

fn roots(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| wrong(path, &error))?;
    }
    Ok(roots)
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
}

fn denied(text: String) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, text)
}

/// Octets that rustls may hold for us each way: two records.
const BUFFER: usize = 32_768;
