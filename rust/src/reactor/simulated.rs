//! A network, a clock and a random source that follow from one seed, for the reactor's turn in one thread.
//!
//! A [`World`] holds any number of hosts; each is the [`Network`] of one engine. Octets travel as chunks that the
//! world's [`Line`] delays, loses, doubles, reorders, splits or damages; connections are refused, time out, break,
//! or go silent without a word; a host can crash. UDP keeps its datagrams whole and opens without a word; a serial line
//! is a stream that nobody refuses, to the listener that [`World::serial`] names. Nothing happens by itself: the driver moves the clock to
//! [`World::next_event`].

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipss_session::rig::{Line, SeededRandom};
use ipss_session::{Instant, Now, Random, SerialSettings, WallTime};

use super::endpoint::Endpoint;
use super::handover::Wake;
use super::network::{Inbound, Nature, Network, Ready, Token};

/// The world, shared by its hosts.
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

/// How connections behave, beside what the [`Line`] does to chunks. Probabilities are per mille.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// What happens to chunks.
    pub line: Line,
    /// A connection attempt is refused.
    pub refused: u32,
    /// A connection attempt is never answered.
    pub unanswered: u32,
    /// A chunk is the last that the connection carries either way, and nobody is told.
    pub silence: u32,
    /// A write takes only a part, and the rest a millisecond later.
    pub partial_write: u32,
}

struct State {
    now: Now,
    faults: Faults,
    random: SeededRandom,
    connections: Vec<Connection>,
    listeners: Vec<Listener>,
    serial: BTreeMap<PathBuf, SocketAddr>,
    hosts: Vec<Host>,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    trace: u64,
}

#[derive(Default)]
struct Host {
    up: bool,
    ready: Vec<Ready>,
    /// What it writes, with the address of the far end, for whoever listens in.
    tapped: Option<Vec<Written>>,
}

/// Octets that a host wrote: the number of the connection, its far end, and the octets.
pub type Written = (usize, SocketAddr, Vec<u8>);

struct Listener {
    host: usize,
    nature: Nature,
    address: SocketAddr,
    token: Option<Token>,
    backlog: VecDeque<usize>,
}

struct Connection {
    ends: [End; 2],
    nature: Nature,
    state: Link,
    local: SocketAddr,
    remote: SocketAddr,
    silent: bool,
}

struct End {
    host: usize,
    token: Option<Token>,
    arrived: VecDeque<u8>,
    /// The lengths of the datagrams in `arrived`.
    lengths: VecDeque<usize>,
    /// How its serial line was last set.
    settings: Option<SerialSettings>,
    last_due: Instant,
    ended: bool,
    full: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Opening,
    Open,
    Refused,
    Reset,
}

enum Event {
    Opened(usize),
    Refused(usize),
    Arrive(usize, usize, Vec<u8>),
    Finish(usize, usize),
    Reset(usize),
    Writable(usize, usize),
}

/// One host's network.
pub struct SimulatedNetwork {
    world: World,
    host: usize,
    random: SeededRandom,
}

/// One end of a simulated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedSocket {
    connection: usize,
    end: usize,
}

/// A simulated listener, made by [`World::listener`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulatedListener(usize);

impl World {
    /// The world that belongs to `seed`, at `wall`, without hosts.
    pub fn new(seed: u64, wall: WallTime) -> Self {
        Self(Rc::new(RefCell::new(State {
            now: Now { monotonic: Instant(1_000_000), wall },
            faults: Faults::default(),
            random: SeededRandom::new(seed),
            connections: Vec::new(),
            listeners: Vec::new(),
            serial: BTreeMap::new(),
            hosts: Vec::new(),
            events: BTreeMap::new(),
            sequence: 0,
            trace: 0,
        })))
    }

    /// A new host.
    pub fn host(&self) -> SimulatedNetwork {
        let mut state = self.state();
        let seed = state.random.next_u64();
        state.hosts.push(Host { up: true, ..Host::default() });
        SimulatedNetwork { world: self.clone(), host: state.hosts.len() - 1, random: SeededRandom::new(seed) }
    }

    /// A listener of `host` on `address`; address 0.0.0.0 takes connections to every address.
    pub fn listener(&self, host: &SimulatedNetwork, address: SocketAddr) -> SimulatedListener {
        self.listen_for(host, address, Nature::Stream)
    }

    /// The same for datagrams.
    pub fn udp_listener(&self, host: &SimulatedNetwork, address: SocketAddr) -> SimulatedListener {
        self.listen_for(host, address, Nature::Datagrams)
    }

    fn listen_for(&self, host: &SimulatedNetwork, address: SocketAddr, nature: Nature) -> SimulatedListener {
        let mut state = self.state();
        state.listeners.push(Listener { host: host.host, nature, address, token: None, backlog: VecDeque::new() });
        SimulatedListener(state.listeners.len() - 1)
    }

    /// Connections that `listener` has not been asked for yet, as in a kernel's queue.
    pub fn waiting(&self, listener: SimulatedListener) -> usize {
        self.state().listeners[listener.0].backlog.len()
    }

    /// The serial line `path` leads to the listener on `address`.
    pub fn serial(&self, path: impl Into<PathBuf>, address: SocketAddr) {
        self.state().serial.insert(path.into(), address);
    }

    /// How the serial line `path` is set, if it is open.
    pub fn serial_settings(&self, path: impl Into<PathBuf>) -> Option<SerialSettings> {
        let state = self.state();
        let address = state.serial.get(&path.into())?;
        let open = |connection: &&Connection| connection.remote == *address && connection.state == Link::Open;
        state.connections.iter().rev().find(open)?.ends[0].settings
    }

    /// How it behaves from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.state().now
    }

    /// When the next thing happens that nobody decides.
    pub fn next_event(&self) -> Option<Instant> {
        self.state().events.keys().next().map(|(at, _)| *at)
    }

    /// Move the clocks to `at` and let happen all that is due until then.
    pub fn advance(&self, at: Instant) {
        let mut state = self.state();
        loop {
            let due = state.events.first_key_value().map(|(key, _)| *key).filter(|(due, _)| *due <= at);
            let Some(key) = due else { break };
            state.move_to(key.0);
            if let Some(event) = state.events.remove(&key) {
                state.happen(event);
            }
        }
        state.move_to(at);
    }

    /// The host `host` dies without a word: its connections are gone; its peers are told (`reset`) or not.
    pub fn crash(&self, host: &SimulatedNetwork, reset: bool) {
        let mut state = self.state();
        let host = host.host;
        state.hosts[host].up = false;
        state.hosts[host].ready.clear();
        state.cut(reset, |connection| connection.ends.iter().any(|end| end.host == host));
        state.listeners.iter_mut().filter(|listener| listener.host == host).for_each(|listener| listener.token = None);
    }

    /// All connections to this address are gone; both ends are told (`reset`) or not.
    pub fn cut(&self, address: IpAddr, reset: bool) {
        self.state().cut(reset, |connection| connection.remote.ip() == address);
    }

    /// From now on, note what `host` writes to connections that it opened.
    pub fn tap(&self, host: &SimulatedNetwork) {
        self.state().hosts[host.host].tapped = Some(Vec::new());
    }

    /// What it wrote since the last call, in order, whether or not it arrives.
    pub fn tapped(&self, host: &SimulatedNetwork) -> Vec<Written> {
        self.state().hosts[host.host].tapped.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A number that depends on everything that happened so far: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    /// A stream of decisions for the driver, of the world's own seed.
    pub fn random(&self) -> SeededRandom {
        SeededRandom::new(self.state().random.next_u64())
    }

    fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }
}

impl SimulatedNetwork {
    /// Both clocks, as the host reads them.
    pub fn clock(&self) -> Now {
        self.world.now()
    }
}

impl State {
    fn move_to(&mut self, at: Instant) {
        let before = self.now.monotonic;
        self.now.monotonic = before + at.since(before);
        // Whole microseconds of the one clock are those of the other, however many steps there were.
        self.now.wall.0 += (self.now.monotonic.0 / 1_000 - before.0 / 1_000) as i64;
    }

    fn cut(&mut self, reset: bool, chosen: impl Fn(&Connection) -> bool) {
        for index in 0..self.connections.len() {
            if chosen(&self.connections[index]) {
                if reset {
                    self.happen(Event::Reset(index));
                } else {
                    self.connections[index].silent = true;
                }
            }
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn note(&mut self, what: u64) {
        let mixed = self.trace ^ what.wrapping_add(self.now.monotonic.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.trace = mixed.rotate_left(23).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Opened(index) => {
                self.note(index as u64);
                if !self.reach(index) {
                    return self.happen(Event::Refused(index));
                }
                if self.connections[index].state != Link::Opening {
                    return;
                }
                self.connections[index].state = Link::Open;
                self.tell_end(index, 0, false, true, false);
            }
            Event::Refused(index) => {
                if self.connections[index].state == Link::Opening {
                    self.connections[index].state = Link::Refused;
                    self.tell_end(index, 0, true, true, true);
                }
            }
            Event::Arrive(index, end, octets) => {
                let connection = &self.connections[index];
                if connection.silent || connection.state != Link::Open || connection.ends[end].ended {
                    return;
                }
                if connection.ends[end].host == NOBODY && !self.reach(index) {
                    return;
                }
                let connection = &mut self.connections[index];
                connection.ends[end].arrived.extend(octets.iter());
                if connection.nature == Nature::Datagrams {
                    connection.ends[end].lengths.push_back(octets.len());
                }
                let sum = octets.iter().fold(index as u64, |sum, octet| sum.rotate_left(7) ^ u64::from(*octet));
                self.note(sum);
                self.tell_end(index, end, true, false, false);
            }
            Event::Finish(index, end) => {
                let connection = &mut self.connections[index];
                if !connection.silent && connection.state == Link::Open {
                    connection.ends[end].ended = true;
                    self.tell_end(index, end, true, false, true);
                }
            }
            Event::Reset(index) => {
                self.note(index as u64 ^ 0xFFFF);
                let connection = &mut self.connections[index];
                if connection.state == Link::Open && !connection.silent {
                    connection.state = Link::Reset;
                    connection.ends.iter_mut().for_each(|end| end.arrived.clear());
                    self.tell_end(index, 0, true, true, true);
                    self.tell_end(index, 1, true, true, true);
                }
            }
            Event::Writable(index, end) => {
                self.connections[index].ends[end].full = false;
                self.tell_end(index, end, false, true, false);
            }
        }
    }

    /// Give the connection's far end to the listener there; false if nobody listens.
    fn reach(&mut self, index: usize) -> bool {
        let Connection { remote, nature, state, .. } = self.connections[index];
        let fits = |listener: &Listener| {
            listener.token.is_some()
                && (listener.nature == Nature::Datagrams) == (nature == Nature::Datagrams)
                && listener.address.port() == remote.port()
                && (listener.address.ip() == remote.ip() || listener.address.ip().is_unspecified())
        };
        let Some(listener) = self.listeners.iter().position(fits) else { return false };
        if state == Link::Opening || state == Link::Open {
            self.connections[index].ends[1].host = self.listeners[listener].host;
            self.listeners[listener].backlog.push_back(index);
            let (host, token) = (self.listeners[listener].host, self.listeners[listener].token);
            self.tell(host, token, true, false, false);
        }
        true
    }

    fn tell_end(&mut self, index: usize, end: usize, readable: bool, writable: bool, ended: bool) {
        let End { host, token, .. } = self.connections[index].ends[end];
        self.tell(host, token, readable, writable, ended);
    }

    fn tell(&mut self, host: usize, token: Option<Token>, readable: bool, writable: bool, ended: bool) {
        let Some(host) = self.hosts.get_mut(host).filter(|host| host.up) else { return };
        if let Some(token) = token {
            host.ready.push(Ready { token, readable, writable, ended });
        }
    }

    fn end(&mut self, socket: SimulatedSocket) -> &mut End {
        &mut self.connections[socket.connection].ends[socket.end]
    }
}

impl Network for SimulatedNetwork {
    type Socket = SimulatedSocket;
    type Listener = SimulatedListener;

    fn now(&mut self) -> Now {
        self.world.now()
    }

    fn random(&mut self) -> &mut dyn Random {
        &mut self.random
    }

    /// Never waits: the driver moves the clock.
    fn poll(&mut self, _: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.append(&mut self.world.state().hosts[self.host].ready);
        Ok(())
    }

    fn wake(&self) -> Arc<dyn Wake> {
        Arc::new(Awake)
    }

    fn connect(&mut self, remote: &Endpoint, local: Option<IpAddr>, token: Token) -> io::Result<SimulatedSocket> {
        let mut state = self.world.state();
        let state = &mut *state;
        let now = state.now.monotonic;
        let index = state.connections.len();
        let end = |host, token| End {
            host,
            token,
            arrived: VecDeque::new(),
            lengths: VecDeque::new(),
            settings: None,
            last_due: Instant::ORIGIN,
            ended: false,
            full: false,
        };
        let (remote, nature, settings) = match remote {
            Endpoint::Tcp(address) => (*address, Nature::Stream, None),
            Endpoint::Tls(endpoint) => (endpoint.address, Nature::Records, None),
            Endpoint::Udp(address) => (*address, Nature::Datagrams, None),
            Endpoint::Serial(line) => {
                let address = state.serial.get(&line.path).ok_or(ErrorKind::NotFound)?;
                (*address, Nature::Stream, Some(line.settings))
            }
        };
        let port = 10_000 + (index % 50_000) as u16;
        let local = SocketAddr::new(local.unwrap_or(IpAddr::from([192, 0, 2, 1])), port);
        let mut ends = [end(self.host, Some(token)), end(NOBODY, None)];
        ends[0].settings = settings;
        state.connections.push(Connection { ends, nature, state: Link::Opening, local, remote, silent: false });
        if nature == Nature::Datagrams || settings.is_some() {
            state.connections[index].state = Link::Open;
            if settings.is_some() && !state.reach(index) {
                return Err(ErrorKind::NotFound.into());
            }
            return Ok(SimulatedSocket { connection: index, end: 0 });
        }
        let spread = state.random.below(state.faults.line.jitter.as_nanos() as u64 + 1);
        let at = now + state.faults.line.delay * 2 + Duration::from_nanos(spread);
        if state.random.chance(state.faults.refused) {
            state.schedule(at, Event::Refused(index));
        } else if !state.random.chance(state.faults.unanswered) {
            state.schedule(at, Event::Opened(index));
        }
        Ok(SimulatedSocket { connection: index, end: 0 })
    }

    fn opened(&mut self, socket: &mut SimulatedSocket) -> io::Result<()> {
        match self.world.state().connections[socket.connection].state {
            Link::Opening => Err(ErrorKind::WouldBlock.into()),
            Link::Open => Ok(()),
            Link::Refused => Err(ErrorKind::ConnectionRefused.into()),
            Link::Reset => Err(ErrorKind::ConnectionReset.into()),
        }
    }

    fn peer(&self, socket: &SimulatedSocket) -> Option<IpAddr> {
        let Connection { local, remote, .. } = self.world.state().connections[socket.connection];
        Some(if socket.end == 0 { remote } else { local }.ip())
    }

    fn nature(&self, socket: &SimulatedSocket) -> Nature {
        self.world.state().connections[socket.connection].nature
    }

    fn configure(&mut self, socket: &mut SimulatedSocket, settings: SerialSettings) -> io::Result<()> {
        let mut state = self.world.state();
        let end = state.end(*socket);
        if end.settings.is_some() {
            end.settings = Some(settings);
        }
        Ok(())
    }

    fn writable(&mut self, _: &mut SimulatedSocket) -> io::Result<()> {
        Ok(())
    }

    fn listen(&mut self, listener: &mut SimulatedListener, token: Token) -> io::Result<()> {
        self.world.state().listeners[listener.0].token = Some(token);
        Ok(())
    }

    fn accept(&mut self, listener: &SimulatedListener) -> io::Result<Inbound<SimulatedSocket>> {
        let mut state = self.world.state();
        let Some(connection) = state.listeners[listener.0].backlog.pop_front() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let Connection { local, remote, .. } = state.connections[connection];
        Ok(Inbound { socket: SimulatedSocket { connection, end: 1 }, local: remote, peer: local })
    }

    fn adopt(&mut self, socket: &mut SimulatedSocket, token: Token) -> io::Result<()> {
        let mut state = self.world.state();
        let broken = state.connections[socket.connection].state != Link::Open;
        let end = state.end(*socket);
        end.token = Some(token);
        let (readable, ended) = (!end.arrived.is_empty() || end.ended || broken, end.ended || broken);
        state.tell(self.host, Some(token), readable, true, ended);
        Ok(())
    }

    fn disown(&mut self, socket: &mut SimulatedSocket) -> io::Result<()> {
        self.world.state().end(*socket).token = None;
        Ok(())
    }

    fn read(&mut self, socket: &mut SimulatedSocket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.world.state();
        if state.connections[socket.connection].state == Link::Reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let datagrams = state.connections[socket.connection].nature == Nature::Datagrams;
        let end = state.end(*socket);
        if end.arrived.is_empty() {
            return if end.ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let there = if datagrams { end.lengths.pop_front().unwrap_or(0) } else { end.arrived.len() };
        let count = buffer.len().min(there);
        buffer.iter_mut().zip(end.arrived.drain(..count)).for_each(|(place, octet)| *place = octet);
        Ok(count)
    }

    fn write(&mut self, socket: &mut SimulatedSocket, octets: &[u8]) -> io::Result<usize> {
        let mut state = self.world.state();
        let state = &mut *state;
        let now = state.now.monotonic;
        let SimulatedSocket { connection: index, end } = *socket;
        let connection = &mut state.connections[index];
        if connection.state == Link::Reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if connection.ends[end].full {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = octets.len();
        let datagrams = connection.nature == Nature::Datagrams;
        if count > 1 && !datagrams && state.random.chance(state.faults.partial_write) {
            count = 1 + state.random.below(count as u64 - 1) as usize;
            connection.ends[end].full = true;
            state.schedule(now + Duration::from_millis(1), Event::Writable(index, end));
        }
        if let Some(written) = state.hosts[self.host].tapped.as_mut().filter(|_| end == 0) {
            written.push((index, state.connections[index].remote, octets[..count].to_vec()));
        }
        let connection = &mut state.connections[index];
        connection.silent |= state.random.chance(state.faults.silence);
        let peer = 1 - end;
        let mut last = connection.ends[peer].last_due;
        let mut pieces = Vec::new();
        let mut line = state.faults.line;
        if datagrams {
            (line.split, line.reset) = (0, 0);
        }
        let reset = line.carry(octets[..count].to_vec(), now, last, &mut state.random, |at, piece| {
            last = last.max(at);
            pieces.push((at, piece));
        });
        state.connections[index].ends[peer].last_due = last;
        for (at, piece) in pieces {
            state.schedule(at, Event::Arrive(index, peer, piece));
        }
        if reset {
            state.schedule(now + line.delay, Event::Reset(index));
        }
        Ok(count)
    }

    fn close(&mut self, socket: SimulatedSocket) {
        let mut state = self.world.state();
        let SimulatedSocket { connection: index, end } = socket;
        let at = state.connections[index].ends[1 - end].last_due.max(state.now.monotonic + state.faults.line.delay);
        let connection = &mut state.connections[index];
        connection.ends[end].token = None;
        connection.ends[end].arrived = VecDeque::new();
        connection.ends[end].lengths = VecDeque::new();
        if connection.nature == Nature::Datagrams {
            // Nobody is told; what comes later finds nobody.
            connection.ends[end].ended = true;
        } else if connection.state == Link::Opening {
            connection.state = Link::Refused;
        } else {
            state.schedule(at, Event::Finish(index, 1 - end));
        }
    }

    fn datagrams_dropped(&self) -> u64 {
        0
    }
}

/// The host of a far end that nobody has accepted.
const NOBODY: usize = usize::MAX;

/// Everything runs in one thread, which is awake.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}
