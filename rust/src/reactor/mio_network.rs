//! The real network: TCP both ways over the operating system's readiness queue (mio), its clocks, its random source.
//!
//! Each socket is registered once, for reading and writing, edge-triggered. The kernel reports room to write only
//! after a write that it did not take whole, so this costs no wake-ups and saves a registration each time that a
//! write is cut short.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipss_session::{Instant, Now, Random, WallTime};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::handover::Wake;
use super::network::{Inbound, Network, Ready, Token};

/// One thread's network.
pub struct MioNetwork {
    poll: Poll,
    events: Events,
    waker: Arc<MioWaker>,
    clock: Clock,
    random: SystemRandom,
}

impl MioNetwork {
    /// A network whose moments count from `clock`'s origin.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(MioWaker(Waker::new(poll.registry(), mio::Token(WAKER))?));
        Ok(Self { poll, events: Events::with_capacity(EVENTS), waker, clock, random: SystemRandom })
    }
}

impl Network for MioNetwork {
    type Socket = TcpStream;
    type Listener = TcpListener;

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn random(&mut self) -> &mut dyn Random {
        &mut self.random
    }

    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        ready.extend(self.events.iter().filter(|event| event.token().0 != WAKER).map(|event| Ready {
            token: event.token().0 as Token,
            readable: event.is_readable(),
            writable: event.is_writable(),
            ended: event.is_read_closed() || event.is_error(),
        }));
        Ok(())
    }

    fn wake(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn connect(&mut self, remote: SocketAddr, local: Option<IpAddr>, token: Token) -> io::Result<TcpStream> {
        let mut stream = match local {
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
        self.adopt(&mut stream, token)?;
        Ok(stream)
    }

    fn opened(&mut self, socket: &TcpStream) -> io::Result<()> {
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected || in_progress(&error) => {
                Err(ErrorKind::WouldBlock.into())
            }
            other => other.map(drop),
        }
    }

    fn listen(&mut self, listener: &mut TcpListener, token: Token) -> io::Result<()> {
        self.poll.registry().register(listener, mio::Token(token as usize), Interest::READABLE)
    }

    fn accept(&mut self, listener: &TcpListener) -> io::Result<Inbound<TcpStream>> {
        let (socket, peer) = listener.accept()?;
        socket.set_nodelay(true)?;
        let local = socket.local_addr()?;
        Ok(Inbound { socket, local, peer })
    }

    fn adopt(&mut self, socket: &mut TcpStream, token: Token) -> io::Result<()> {
        self.poll.registry().register(socket, mio::Token(token as usize), Interest::READABLE | Interest::WRITABLE)
    }

    fn disown(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        self.poll.registry().deregister(socket)
    }

    #[inline]
    fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        socket.read(buffer)
    }

    #[inline]
    fn write(&mut self, socket: &mut TcpStream, octets: &[u8]) -> io::Result<usize> {
        socket.write(octets)
    }

    fn close(&mut self, socket: TcpStream) {
        drop(socket);
    }
}

/// A listener on `address`, ready to be given to a network. The backlog is as long as the kernel lets it be:
/// connections that the token bucket does not admit yet wait there and cost us nothing.
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
/// Events taken in one turn.
const EVENTS: usize = 1_024;
/// Linux bounds it by net.core.somaxconn.
const BACKLOG: i32 = 4_096;
/// Descriptors kept for the store, the console and what else the process opens.
const RESERVE: usize = 64;
/// What every Unix gives, where the bound cannot be read.
const PORTABLE_BOUND: usize = 1_024;
