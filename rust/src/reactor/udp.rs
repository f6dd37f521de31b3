//! UDP: one socket shared by many peers. The thread that has the socket sorts what arrives into the peers' inboxes; a
//! peer may be served by another thread.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::handover::Wake;
use super::network::Token;

/// A socket and the peers that talk through it.
pub struct UdpHub {
    socket: UdpSocket,
    local: SocketAddr,
    listening: bool,
    state: Mutex<Peers>,
    /// Datagrams that found no room, or no peer.
    pub dropped: AtomicU64,
}

#[derive(Default)]
struct Peers {
    known: HashMap<SocketAddr, Arc<Inbox>>,
    /// Those whose first datagram came and who are not accepted yet.
    arrivals: VecDeque<SocketAddr>,
}

/// One peer's end: dropped, it is forgotten.
pub struct UdpPeer {
    hub: Arc<UdpHub>,
    /// Its address.
    pub peer: SocketAddr,
    inbox: Arc<Inbox>,
}

/// What arrived for one peer, and who wants to know.
#[derive(Default)]
struct Inbox(Mutex<Arrived>);

#[derive(Default)]
struct Arrived {
    datagrams: VecDeque<Box<[u8]>>,
    octets: usize,
    owner: Option<(Arc<Mailbox>, Token)>,
}

/// Tokens of peers for whom something arrived, on their way to the thread that serves them.
pub struct Mailbox {
    tokens: Mutex<Vec<Token>>,
    wake: Arc<dyn Wake>,
}

impl Mailbox {
    /// An empty one of the thread that `wake` wakes.
    pub fn new(wake: Arc<dyn Wake>) -> Self {
        Self { tokens: Mutex::default(), wake }
    }

    /// Whether something is in it.
    pub fn is_empty(&self) -> bool {
        lock(&self.tokens).is_empty()
    }

    /// Take what is in it.
    pub fn drain(&self, mut each: impl FnMut(Token)) {
        lock(&self.tokens).drain(..).for_each(&mut each);
    }

    fn put(&self, token: Token) {
        let mut tokens = lock(&self.tokens);
        tokens.push(token);
        let first = tokens.len() == 1;
        drop(tokens);
        if first {
            self.wake.wake();
        }
    }
}

impl UdpHub {
    /// A socket on `address`. `listening`: peers that we did not write to first are accepted.
    pub fn bind(address: SocketAddr, listening: bool) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local, listening, state: Mutex::default(), dropped: AtomicU64::new(0) })
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether it can send from `local` (any if `None`) to `remote` and knows nobody there yet.
    pub fn fits(&self, local: Option<IpAddr>, remote: SocketAddr) -> bool {
        !self.listening
            && self.local.is_ipv4() == remote.is_ipv4()
            && local.map_or(self.local.ip().is_unspecified(), |local| local == self.local.ip())
            && !lock(&self.state).known.contains_key(&remote)
    }

    /// The end of a peer that we write to first.
    pub fn peer(self: &Arc<Self>, peer: SocketAddr) -> UdpPeer {
        let inbox = Arc::<Inbox>::default();
        lock(&self.state).known.insert(peer, inbox.clone());
        UdpPeer { hub: self.clone(), peer, inbox }
    }

    /// The end of the oldest peer that wrote to us first and is not accepted yet.
    pub fn accept(self: &Arc<Self>) -> Option<UdpPeer> {
        let mut state = lock(&self.state);
        let peer = state.arrivals.pop_front()?;
        let inbox = state.known.get(&peer)?.clone();
        drop(state);
        Some(UdpPeer { hub: self.clone(), peer, inbox })
    }

    /// Sort what has arrived; at most [`DATAGRAMS_A_TURN`], and true if that was not all. `arrived` is called when a
    /// peer waits to be accepted.
    pub fn receive(&self, buffer: &mut [u8], mut arrived: impl FnMut()) -> bool {
        for _ in 0..DATAGRAMS_A_TURN {
            let (length, peer) = match self.socket.recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // An error that an earlier datagram met on its way; the socket is as good as before.
                Err(_) => continue,
            };
            let mut state = lock(&self.state);
            let inbox = match state.known.get(&peer) {
                Some(inbox) => inbox.clone(),
                None if self.listening && state.arrivals.len() < ARRIVALS => {
                    let inbox = Arc::<Inbox>::default();
                    state.known.insert(peer, inbox.clone());
                    state.arrivals.push_back(peer);
                    arrived();
                    inbox
                }
                None => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            drop(state);
            if !inbox.put(&buffer[..length]) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }
}

impl AsRawFd for UdpHub {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Inbox {
    /// False if there is no room: a peer that sends faster than it is served loses the newest.
    fn put(&self, datagram: &[u8]) -> bool {
        let mut arrived = lock(&self.0);
        if arrived.datagrams.len() >= INBOX_DATAGRAMS || arrived.octets + datagram.len() > INBOX_OCTETS {
            return false;
        }
        arrived.octets += datagram.len();
        arrived.datagrams.push_back(datagram.into());
        if let (1, Some((mailbox, token))) = (arrived.datagrams.len(), &arrived.owner) {
            mailbox.put(*token);
        }
        true
    }
}

impl UdpPeer {
    /// Our address, as far as it is known.
    pub fn local(&self) -> SocketAddr {
        self.hub.local
    }

    /// Tell this mailbox when something is there, from now on; at once if something is.
    pub fn adopt(&self, mailbox: &Arc<Mailbox>, token: Token) {
        let mut arrived = lock(&self.inbox.0);
        arrived.owner = Some((mailbox.clone(), token));
        if !arrived.datagrams.is_empty() {
            mailbox.put(token);
        }
    }

    /// Tell nobody.
    pub fn disown(&self) {
        lock(&self.inbox.0).owner = None;
    }

    /// The oldest datagram; what does not fit into `buffer` is lost.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut arrived = lock(&self.inbox.0);
        loop {
            let Some(datagram) = arrived.datagrams.pop_front() else { return Err(ErrorKind::WouldBlock.into()) };
            arrived.octets -= datagram.len();
            // An empty datagram is no end of anything.
            let length = datagram.len().min(buffer.len());
            if length > 0 {
                buffer[..length].copy_from_slice(&datagram[..length]);
                return Ok(length);
            }
        }
    }

    /// Send one datagram. One for which the kernel has no room is lost, as any may be.
    pub fn write(&self, octets: &[u8]) -> io::Result<usize> {
        match self.hub.socket.send_to(octets, self.peer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(octets.len()),
            sent => sent,
        }
    }
}

impl Drop for UdpPeer {
    fn drop(&mut self) {
        let mut state = lock(&self.hub.state);
        if state.known.get(&self.peer).is_some_and(|inbox| Arc::ptr_eq(inbox, &self.inbox)) {
            state.known.remove(&self.peer);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these whole: every change is one push or pop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Datagrams sorted in one turn, so that a flood does not keep timers waiting.
const DATAGRAMS_A_TURN: usize = 1_024;
/// Peers that may wait to be accepted. A flood from invented addresses costs so many inboxes.
const ARRIVALS: usize = 1_024;
/// Datagrams that may wait for one peer's session.
const INBOX_DATAGRAMS: usize = 64;
/// Octets of them.
const INBOX_OCTETS: usize = 256 * 1_024;
