//! What a turn knows of the outside: sockets, a clock and a random source, real ([`MioNetwork`]) or simulated
//! ([`World`]). The turn itself touches none of them, so it runs a simulated year in a second.
//!
//! [`MioNetwork`]: super::mio_network::MioNetwork
//! [`World`]: super::simulated::World

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipss_session::{Now, Random, SerialSettings};

use super::endpoint::Endpoint;
use super::handover::Wake;

/// The number under which readiness of a socket or listener is reported.
pub type Token = u64;

/// Something happened to a socket. Readiness is reported once for each change (edge-triggered): who is told that a
/// socket is readable reads until a read gives less than it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whose it is.
    pub token: Token,
    /// There are octets, an end or an error to read; for a listener, connections to accept.
    pub readable: bool,
    /// There is room to write again, or a connection attempt is over.
    pub writable: bool,
    /// The peer will send no more, or the connection broke: a short read is not the end, read until it shows.
    pub ended: bool,
}

/// An inbound connection that no session owns yet.
#[derive(Debug)]
pub struct Inbound<K> {
    /// The connection, not registered anywhere.
    pub socket: K,
    /// Our address, which says which virtual meter is meant.
    pub local: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
}

/// How octets come out of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// As they came: a read that gives less than it asked for took all there was.
    Stream,
    /// In pieces of its own (TLS records): only `WouldBlock` says that nothing more is there.
    Records,
    /// A datagram a read, whole or never; only `WouldBlock` says that nothing more is there.
    Datagrams,
}

/// Sockets, clock, randomness and waiting.
pub trait Network {
    /// One end of a connection.
    type Socket;
    /// Takes inbound connections.
    type Listener;

    /// Both clocks.
    fn now(&mut self) -> Now;

    /// The random source, for challenges and jitter.
    fn random(&mut self) -> &mut dyn Random;

    /// Wait until something happens or `timeout` passes, and append what happened to `ready`.
    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()>;

    /// What makes [`Network::poll`] return from another thread.
    fn wake(&self) -> Arc<dyn Wake>;

    /// Start to open a connection from `local` (any if `None`). Its end is reported as writable; [`Network::opened`]
    /// then says how it ended.
    fn connect(&mut self, remote: &Endpoint, local: Option<IpAddr>, token: Token) -> io::Result<Self::Socket>;

    /// Whether the attempt succeeded, `WouldBlock` while it is not over. `PermissionDenied` if one end does not prove
    /// who it is (TLS).
    fn opened(&mut self, socket: &mut Self::Socket) -> io::Result<()>;

    /// Who is at the far end, where it has an address of the network.
    fn peer(&self, socket: &Self::Socket) -> Option<IpAddr>;

    /// How octets come out of this socket.
    fn nature(&self, socket: &Self::Socket) -> Nature;

    /// Drive a serial line so; other sockets are left as they are.
    fn configure(&mut self, socket: &mut Self::Socket, settings: SerialSettings) -> io::Result<()>;

    /// There is room to write again: send what the transport itself still holds.
    fn writable(&mut self, socket: &mut Self::Socket) -> io::Result<()>;

    /// Report this listener's connections under `token`.
    fn listen(&mut self, listener: &mut Self::Listener, token: Token) -> io::Result<()>;

    /// Take one inbound connection; `WouldBlock` if there is none.
    fn accept(&mut self, listener: &Self::Listener) -> io::Result<Inbound<Self::Socket>>;

    /// Report this socket under `token` from now on.
    fn adopt(&mut self, socket: &mut Self::Socket, token: Token) -> io::Result<()>;

    /// Report this socket no more; another network may adopt it.
    fn disown(&mut self, socket: &mut Self::Socket) -> io::Result<()>;

    /// Read into a buffer that the caller lends; 0 is the peer's end, `WouldBlock` says that nothing is there.
    fn read(&mut self, socket: &mut Self::Socket, buffer: &mut [u8]) -> io::Result<usize>;

    /// Write what the transport takes now. When it takes less than all, the socket becomes writable later.
    fn write(&mut self, socket: &mut Self::Socket, octets: &[u8]) -> io::Result<usize>;

    /// Close a connection.
    fn close(&mut self, socket: Self::Socket);

    /// Datagrams that found no room or no peer so far.
    fn datagrams_dropped(&self) -> u64;
}
