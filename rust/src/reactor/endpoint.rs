//! Where a peer is reached, and over what.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipss_session::SerialSettings;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// A transport and its address.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// Datagrams to and from this address; many peers share one socket of ours.
    Udp(SocketAddr),
    /// TLS on a TCP connection.
    Tls(Arc<TlsEndpoint>),
    /// A serial line, an optical head on it included.
    Serial(Arc<SerialEndpoint>),
}

/// Where TLS is spoken, and how both ends prove who they are.
#[derive(Debug)]
pub struct TlsEndpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its certificate has to name.
    pub name: ServerName<'static>,
    /// Trusted authorities, and our own certificate.
    pub config: Arc<ClientConfig>,
}

/// A serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialEndpoint {
    /// The device file.
    pub path: PathBuf,
    /// How it is driven when a connection begins.
    pub settings: SerialSettings,
}

/// What makes two endpoints the same connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum LineKey {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Tls(SocketAddr),
    Serial(PathBuf),
}

impl Endpoint {
    /// A serial line.
    pub fn serial(path: impl Into<PathBuf>, settings: SerialSettings) -> Self {
        Self::Serial(Arc::new(SerialEndpoint { path: path.into(), settings }))
    }

    /// Whether there can be one conversation at a time only, whoever asks.
    pub fn is_serial(&self) -> bool {
        matches!(self, Self::Serial(_))
    }

    pub(super) fn key(&self) -> LineKey {
        match self {
            Self::Tcp(address) => LineKey::Tcp(*address),
            Self::Udp(address) => LineKey::Udp(*address),
            Self::Tls(endpoint) => LineKey::Tls(endpoint.address),
            Self::Serial(endpoint) => LineKey::Serial(endpoint.path.clone()),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
            Self::Udp(address) => write!(formatter, "udp://{address}"),
            Self::Tls(endpoint) => write!(formatter, "tls://{}", endpoint.address),
            Self::Serial(endpoint) => write!(formatter, "serial://{}", endpoint.path.display()),
        }
    }
}
