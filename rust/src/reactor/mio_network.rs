//! The real network: TCP, TLS and UDP both ways and serial lines over the operating system's readiness queue (mio), its
//! clocks, its random source.
//!
//! Each socket is registered once, for reading and writing, edge-triggered. The kernel reports room to write only
//! after a write that it did not take whole, so this costs no wake-ups and saves a registration each time that a
//! write is cut short.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipss_session::{Instant, Now, Random, SerialSettings, WallTime};
use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::endpoint::Endpoint;
use super::handover::Wake;
use super::network::{Inbound, Nature, Network, Ready, Token};
use super::serial::SerialLine;
use super::tls::{TlsServer, TlsStream};
use super::udp::{Mailbox, UdpHub, UdpPeer};

/// One end of a connection. What is rare is boxed, so that the many are small.
pub enum Stream {
    /// Octets as TCP carries them.
    Tcp(TcpStream),
    /// Octets that TLS protects on their way.
    Tls(Box<TlsStream>),
    /// Datagrams with one peer.
    Udp(Box<UdpPeer>),
    /// A serial line.
    Serial(Box<SerialLine>),
}

/// Takes inbound connections.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// TLS on TCP.
    Tls(TcpListener, TlsServer),
    /// UDP: an address from which datagrams come is a connection.
    Udp(Arc<UdpHub>),
}

/// One thread's network.
pub struct MioNetwork {
    poll: Poll,
    events: Events,
    waker: Arc<MioWaker>,
    clock: Clock,
    random: SystemRandom,
    /// UDP sockets of this thread, each with the listener's token if it has one.
    hubs: Vec<(Arc<UdpHub>, Option<Token>)>,
    /// Those of them that may have more to read.
    unread: Vec<usize>,
    mailbox: Arc<Mailbox>,
    /// Where datagrams are received; empty while there is no UDP.
    datagram: Vec<u8>,
}

impl MioNetwork {
    /// A network whose moments count from `clock`'s origin.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(MioWaker(Waker::new(poll.registry(), mio::Token(WAKER))?));
        let mailbox = Arc::new(Mailbox::new(waker.clone()));
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            waker,
            clock,
            random: SystemRandom,
            hubs: Vec::new(),
            unread: Vec::new(),
            mailbox,
            datagram: Vec::new(),
        })
    }

    fn register(&self, source: &mut impl Source, token: Token) -> io::Result<()> {
        self.poll.registry().register(source, mio::Token(token as usize), Interest::READABLE | Interest::WRITABLE)
    }

    /// Receive on this UDP socket from now on.
    fn add_hub(&mut self, hub: Arc<UdpHub>, listener: Option<Token>) -> io::Result<()> {
        let token = mio::Token(HUB | self.hubs.len());
        self.poll.registry().register(&mut SourceFd(&hub.as_raw_fd()), token, Interest::READABLE)?;
        self.datagram.resize(DATAGRAM, 0);
        // Datagrams may have come before it was registered.
        self.unread.push(self.hubs.len());
        self.hubs.push((hub, listener));
        Ok(())
    }

    /// The end of a UDP peer that we write to first: through a socket that many share.
    fn dial_udp(&mut self, remote: SocketAddr, local: Option<IpAddr>) -> io::Result<UdpPeer> {
        if let Some((hub, _)) = self.hubs.iter().find(|(hub, _)| hub.fits(local, remote)) {
            return Ok(hub.peer(remote));
        }
        let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let hub = Arc::new(UdpHub::bind(SocketAddr::new(local.unwrap_or(any), 0), false)?);
        self.add_hub(hub.clone(), None)?;
        Ok(hub.peer(remote))
    }

    fn receive(&mut self, ready: &mut Vec<Ready>) {
        for index in std::mem::take(&mut self.unread) {
            let (hub, listener) = &self.hubs[index];
            let mut arrived = false;
            if hub.receive(&mut self.datagram, || arrived = true) {
                self.unread.push(index);
            }
            if let (true, Some(token)) = (arrived, *listener) {
                ready.push(Ready { token, readable: true, writable: false, ended: false });
            }
        }
        self.mailbox.drain(|token| ready.push(Ready { token, readable: true, writable: false, ended: false }));
    }
}

impl Network for MioNetwork {
    type Socket = Stream;
    type Listener = Listener;

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn random(&mut self) -> &mut dyn Random {
        &mut self.random
    }

    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let at_once = !self.unread.is_empty() || !self.mailbox.is_empty();
        let timeout = if at_once { Some(Duration::ZERO) } else { timeout };
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        for event in &self.events {
            let token = event.token().0;
            if token == WAKER {
                continue;
            }
            if token & HUB_MASK == HUB {
                let index = token & !HUB_MASK;
                if !self.unread.contains(&index) {
                    self.unread.push(index);
                }
                continue;
            }
            ready.push(Ready {
                token: token as Token,
                readable: event.is_readable(),
                writable: event.is_writable(),
                ended: event.is_read_closed() || event.is_error(),
            });
        }
        if !self.hubs.is_empty() || !self.mailbox.is_empty() {
            self.receive(ready);
        }
        Ok(())
    }

    fn wake(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn connect(&mut self, remote: &Endpoint, local: Option<IpAddr>, token: Token) -> io::Result<Stream> {
        let mut stream = match remote {
            Endpoint::Tcp(address) => Stream::Tcp(dial(*address, local)?),
            Endpoint::Tls(endpoint) => {
                Stream::Tls(Box::new(TlsStream::dial(dial(endpoint.address, local)?, endpoint)?))
            }
            Endpoint::Udp(address) => Stream::Udp(Box::new(self.dial_udp(*address, local)?)),
            Endpoint::Serial(endpoint) => Stream::Serial(Box::new(SerialLine::open(endpoint)?)),
        };
        self.adopt(&mut stream, token)?;
        Ok(stream)
    }

    fn opened(&mut self, socket: &mut Stream) -> io::Result<()> {
        match socket {
            Stream::Tcp(tcp) => connected(tcp),
            Stream::Tls(tls) => {
                connected(&tls.tcp)?;
                tls.handshake()
            }
            Stream::Udp(_) | Stream::Serial(_) => Ok(()),
        }
    }

    fn peer(&self, socket: &Stream) -> Option<IpAddr> {
        match socket {
            Stream::Tcp(tcp) => tcp.peer_addr().ok().map(|peer| peer.ip()),
            Stream::Tls(tls) => tls.tcp.peer_addr().ok().map(|peer| peer.ip()),
            Stream::Udp(peer) => Some(peer.peer.ip()),
            Stream::Serial(_) => None,
        }
    }

    fn nature(&self, socket: &Stream) -> Nature {
        match socket {
            Stream::Tcp(_) | Stream::Serial(_) => Nature::Stream,
            Stream::Tls(_) => Nature::Records,
            Stream::Udp(_) => Nature::Datagrams,
        }
    }

    fn configure(&mut self, socket: &mut Stream, settings: SerialSettings) -> io::Result<()> {
        if let Stream::Serial(line) = socket { line.configure(settings) } else { Ok(()) }
    }

    #[inline]
    fn writable(&mut self, socket: &mut Stream) -> io::Result<()> {
        if let Stream::Tls(tls) = socket { tls.push() } else { Ok(()) }
    }

    fn listen(&mut self, listener: &mut Listener, token: Token) -> io::Result<()> {
        match listener {
            Listener::Tcp(listener) | Listener::Tls(listener, _) => {
                self.poll.registry().register(listener, mio::Token(token as usize), Interest::READABLE)
            }
            Listener::Udp(hub) => self.add_hub(hub.clone(), Some(token)),
        }
    }

    fn accept(&mut self, listener: &Listener) -> io::Result<Inbound<Stream>> {
        let (listener, server) = match listener {
            Listener::Tcp(listener) => (listener, None),
            Listener::Tls(listener, server) => (listener, Some(server)),
            Listener::Udp(hub) => {
                let peer = hub.accept().ok_or(ErrorKind::WouldBlock)?;
                let (local, remote) = (peer.local(), peer.peer);
                return Ok(Inbound { socket: Stream::Udp(Box::new(peer)), local, peer: remote });
            }
        };
        let (tcp, peer) = listener.accept()?;
        tcp.set_nodelay(true)?;
        let local = tcp.local_addr()?;
        let socket = match server {
            None => Stream::Tcp(tcp),
            Some(server) => Stream::Tls(Box::new(TlsStream::accept(tcp, server)?)),
        };
        Ok(Inbound { socket, local, peer })
    }

    fn adopt(&mut self, socket: &mut Stream, token: Token) -> io::Result<()> {
        match socket {
            Stream::Tcp(tcp) => self.register(tcp, token),
            Stream::Tls(tls) => self.register(&mut tls.tcp, token),
            Stream::Serial(line) => self.register(&mut SourceFd(&line.as_raw_fd()), token),
            Stream::Udp(peer) => {
                peer.adopt(&self.mailbox, token);
                Ok(())
            }
        }
    }

    fn disown(&mut self, socket: &mut Stream) -> io::Result<()> {
        let registry = self.poll.registry();
        match socket {
            Stream::Tcp(tcp) => registry.deregister(tcp),
            Stream::Tls(tls) => registry.deregister(&mut tls.tcp),
            Stream::Serial(line) => registry.deregister(&mut SourceFd(&line.as_raw_fd())),
            Stream::Udp(peer) => {
                peer.disown();
                Ok(())
            }
        }
    }

    #[inline]
    fn read(&mut self, socket: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
        match socket {
            Stream::Tcp(tcp) => tcp.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
            Stream::Udp(peer) => peer.read(buffer),
            Stream::Serial(line) => line.read(buffer),
        }
    }

    #[inline]
    fn write(&mut self, socket: &mut Stream, octets: &[u8]) -> io::Result<usize> {
        match socket {
            Stream::Tcp(tcp) => tcp.write(octets),
            Stream::Tls(tls) => tls.write(octets),
            Stream::Udp(peer) => peer.write(octets),
            Stream::Serial(line) => line.write(octets),
        }
    }

    fn close(&mut self, mut socket: Stream) {
        match &mut socket {
            Stream::Tls(tls) => tls.close(),
            // Closing the descriptor ends its registration, but only where no other descriptor shares the file.
            Stream::Serial(line) => drop(self.poll.registry().deregister(&mut SourceFd(&line.as_raw_fd()))),
            Stream::Tcp(_) | Stream::Udp(_) => {}
        }
    }

    fn datagrams_dropped(&self) -> u64 {
        self.hubs.iter().map(|(hub, _)| hub.dropped.load(Ordering::Relaxed)).sum()
    }
}

fn dial(remote: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpStream> {
    let stream = match local {
        None => TcpStream::connect(remote)?,
        Some(local) => {
            let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::new(local, 0).into())?;
            match socket.connect(&remote.into()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock || in_progress(&error) => {}
                Err(error) => return Err(error),
            }
            TcpStream::from_std(socket.into())
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether a dial has come to its end. A peer's address says that it has; only where there is none the socket is asked
/// for the reason.
fn connected(tcp: &TcpStream) -> io::Result<()> {
    match tcp.peer_addr() {
        Err(error) if error.kind() == ErrorKind::NotConnected || in_progress(&error) => {
            Err(tcp.take_error()?.unwrap_or_else(|| ErrorKind::WouldBlock.into()))
        }
        other => other.map(drop),
    }
}

/// A listener on `address`, ready to be given to a network. The backlog is as long as the kernel lets it be: it has to
/// last for one turn, and for as long as there is no room for one connection more.
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The process's clocks, with one origin for all threads of a reactor.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// Moments count from a second before now, so that none of them is the origin.
    pub fn new() -> Self {
        let now = std::time::Instant::now();
        Self { origin: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// Both clocks now.
    #[inline]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: Instant(self.origin.elapsed().as_nanos() as u64),
            wall: WallTime(i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// If the operating system gives no randomness: a challenge must never be guessed instead.
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives no randomness");
    }
}

struct MioWaker(Waker);

impl Wake for MioWaker {
    fn wake(&self) {
        // It can fail only when its counter is full, and then the turn is awake.
        let _ = self.0.wake();
    }
}

/// Connections that fit under the process's bound on descriptors, with those in use and [`RESERVE`] left out.
pub fn descriptors_to_spare() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let bound = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    let bound = match bound {
        Some("unlimited") => 1 << 20,
        Some(number) => number.parse().unwrap_or(PORTABLE_BOUND),
        None => PORTABLE_BOUND,
    };
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    bound.saturating_sub(used + RESERVE).max(1)
}

fn in_progress(error: &io::Error) -> bool {
    // EINPROGRESS: 115 on Linux, 36 on BSD and macOS.
    matches!(error.raw_os_error(), Some(115 | 36))
}

const WAKER: usize = usize::MAX;
/// Marks the token of a UDP socket: one that no listener and no connection has.
const HUB: usize = 3 << 30;
/// All bits of a token but the number of a UDP socket.
const HUB_MASK: usize = !((1 << 30) - 1);
/// The largest datagram.
const DATAGRAM: usize = 65_536;
/// Events taken in one turn.
const EVENTS: usize = 1_024;
/// As many as there are; Linux bounds it by net.core.somaxconn.
const BACKLOG: i32 = 65_535;
/// Descriptors kept for the store, the console and what else the process opens.
const RESERVE: usize = 64;
/// What every Unix gives, where the bound cannot be read.
const PORTABLE_BOUND: usize = 1_024;
