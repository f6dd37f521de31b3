//! A whole small world for tests of the head-end above: virtual meters that live on, a head-end's reactor that may be
//! killed and started again, and the simulated network between them, in one thread, from one seed (R43).
//!
//! The owner moves the clock ([`Simulation::turn`]) and says what fails. Every critical thing that happens is noted
//! ([`Simulation::seen`]): what the gate let out, what a meter was told to switch, and every invocation counter that
//! left twice under a key, whether or not the frame arrived. Never part of a head-end that serves.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipss_dlms::apdu::acse::Aarq;
use ipss_dlms::apdu::ciphered::{CipheredApdu, is_ciphered};
use ipss_dlms::apdu::tags;
use ipss_dlms::cosem::{ActionResult, AttributeDescriptor, DataAccessResult, MethodDescriptor, Selection, ShortNames};
use ipss_dlms::meter::{Access, Meter, Objects};
use ipss_dlms::security::setup::NewKeys;
use ipss_session::{Instant, MeterId, Now, RequestId, WallTime};

use crate::control::Gate;
use crate::reactor::simulated::{Faults, SimulatedNetwork, World};
use crate::reactor::{Accepted, Config, Guard, NewMeter, Route, SimulatedReactor};
use crate::sessions::{Peer, Work};
use crate::virtual_meter::{Fleet, VirtualMeter};

/// The head-end's reactor, shared with whoever speaks for it.
pub type HeadEnd = Rc<RefCell<SimulatedReactor<Peer>>>;

/// The port of all meters.
const PORT: u16 = 4059;

/// Turns at one moment after which something is wrong: nothing comes to rest.
const TURNS_AT_ONCE: u32 = 10_000;

/// Critical things that happened, since they were asked for.
#[derive(Debug, Default)]
pub struct Seen {
    /// The gate let a request out: meter, request, wall clock.
    pub sealed: Vec<(MeterId, RequestId, WallTime)>,
    /// A meter's disconnector was told something: meter, method, wall clock.
    pub switched: Vec<(MeterId, i8, WallTime)>,
    /// An invocation counter of a meter's key that was in more than one of the frames that left.
    pub reused: Vec<(MeterId, u32)>,
}

type Notes = Arc<Mutex<Seen>>;

/// The world.
pub struct Simulation {
    world: World,
    fleet: Arc<Fleet>,
    meters: SimulatedReactor<Meter<Watched>>,
    head_end: Option<HeadEnd>,
    notes: Notes,
    down: Arc<Mutex<BTreeSet<MeterId>>>,
    wire: Wire,
}

impl Simulation {
    /// The world of `seed`, at `wall`, with these meters and no head-end.
    pub fn new(seed: u64, wall: WallTime, fleet: &Arc<Fleet>) -> Self {
        let world = World::new(seed, wall);
        // Meters wait for ever: somebody may stay connected and silent.
        let for_ever = Duration::from_secs(30 * 86_400);
        let config = Config { associate_timeout: for_ever, identify_timeout: for_ever, ..config() };
        let mut meters = SimulatedReactor::new(config, world.host());
        let listener = world.listener(meters.network(), SocketAddr::from(([0, 0, 0, 0], PORT)));
        let down: Arc<Mutex<BTreeSet<MeterId>>> = Arc::default();
        let (known, away) = (fleet.clone(), down.clone());
        let acceptor = move |local: SocketAddr, _| match local.ip() {
            IpAddr::V4(address) => match known.index_of(address) {
                Some(meter) if !locked(&away).contains(&meter) => Accepted::Meter { meter, newest_wins: true },
                _ => Accepted::Refuse,
            },
            IpAddr::V6(_) => Accepted::Refuse,
        };
        meters.listen(listener, Arc::new(acceptor));
        let (notes, settings) = (Notes::default(), fleet.settings(false));
        let new = (0..fleet.count()).map(|meter| {
            let objects = Watched { meter, model: fleet.meter(meter), notes: notes.clone() };
            let session = fleet.session_of(meter, meter, &settings, world.now().wall, objects);
            NewMeter { meter, session, route: Route::inbound(), identities: vec![] }
        });
        // A queue of its own that nobody else fills.
        let _ = meters.handle().add(new.collect());
        Self { world, fleet: fleet.clone(), meters, head_end: None, notes, down, wire: Wire::default() }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.world.now()
    }

    /// The world's fleet.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// A head-end's reactor in this world, in place of any other, whose guard is this gate.
    ///
    /// # Errors
    /// If the operating system gives no pipe.
    pub fn start(&mut self, settings: Config, gate: Arc<Gate>) -> io::Result<HeadEnd> {
        self.kill(true);
        let network = self.world.host();
        self.world.tap(&network);
        let guard = Arc::new(Witness { gate, notes: self.notes.clone() });
        let started = Rc::new(RefCell::new(SimulatedReactor::watched(settings, network, Some(guard))?));
        self.head_end = Some(started.clone());
        Ok(started)
    }

    /// The head-end's host dies with all that it knows; the meters are told (`reset`) or not.
    pub fn kill(&mut self, reset: bool) {
        if let Some(dead) = self.head_end.take() {
            let dead = dead.borrow();
            self.listen_in(&dead);
            self.world.crash(dead.network(), reset);
        }
    }

    /// How the network behaves from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.set_faults(faults);
    }

    /// A meter loses its connections, whose ends are told (`reset`) or not, and takes no others while it is `down`.
    /// What it must not forget it does not.
    pub fn cut(&self, meter: MeterId, reset: bool, down: bool) {
        if down {
            locked(&self.down).insert(meter);
        } else {
            locked(&self.down).remove(&meter);
        }
        self.world.cut(IpAddr::V4(self.fleet.address(meter)), reset);
    }

    /// Move the clocks to `at`, if that is later. Nobody takes a turn.
    pub fn advance(&mut self, at: Instant) {
        self.world.advance(at.max(self.world.now().monotonic));
    }

    /// Move the clocks to `at` and let everybody take turns until nothing is left to do. Returns when there is more.
    ///
    /// # Errors
    /// The turns do not come to rest.
    pub fn turn(&mut self, at: Instant) -> Result<Option<Instant>, &'static str> {
        self.advance(at);
        for _ in 0..TURNS_AT_ONCE {
            let mut due = self.world.next_event();
            let mut sooner = |other: Option<Instant>| due = due.into_iter().chain(other).min();
            if let Some(head_end) = &self.head_end {
                let mut head_end = head_end.borrow_mut();
                if head_end.turn() {
                    sooner(head_end.next_due());
                }
            }
            self.meters.turn();
            while self.meters.handle().take().is_some() {}
            sooner(self.meters.next_due());
            sooner(self.world.next_event());
            let now = self.world.now().monotonic;
            if due.is_none_or(|due| due > now) {
                self.heard();
                return Ok(due);
            }
            self.world.advance(now);
        }
        Err("the turns do not come to rest")
    }

    /// What happened since the last call.
    pub fn seen(&mut self) -> Seen {
        self.heard();
        std::mem::take(&mut *locked(&self.notes))
    }

    /// A number that depends on everything that happened so far: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.world.trace()
    }

    /// What the active import register of a meter showed at `wall`, if there is such a meter.
    pub fn import_at(&self, meter: MeterId, wall: WallTime) -> Option<i64> {
        Some(self.meters.session(meter)?.objects.model.energy(wall).import())
    }

    fn heard(&mut self) {
        if let Some(head_end) = self.head_end.clone() {
            self.listen_in(&head_end.borrow());
        }
    }

    fn listen_in(&mut self, head_end: &SimulatedReactor<Peer>) {
        let network: &SimulatedNetwork = head_end.network();
        for (connection, remote, octets) in self.world.tapped(network) {
            let IpAddr::V4(address) = remote.ip() else { continue };
            let Some(meter) = self.fleet.index_of(address) else { continue };
            let reused = self.wire.hear(connection, meter, &octets);
            locked(&self.notes).reused.extend(reused.into_iter().map(|counter| (meter, counter)));
        }
    }
}

/// What a head-end's reactor and the meters' have in common here.
pub fn config() -> Config {
    Config { threads: 1, connections: 1_000, connects_per_second: 0, ..Config::default() }
}

/// Everything that ever left under the meters' keys.
#[derive(Default)]
struct Wire {
    /// What each connection has not brought to an end yet.
    open: BTreeMap<usize, Vec<u8>>,
    /// The invocation counters that left under each meter's key.
    sealed: BTreeSet<(MeterId, u32)>,
}

impl Wire {
    /// Take what a head-end wrote; the counters that had left before.
    fn hear(&mut self, connection: usize, meter: MeterId, octets: &[u8]) -> Vec<u32> {
        let open = self.open.entry(connection).or_default();
        open.extend_from_slice(octets);
        let mut reused = Vec::new();
        // The wrapper: version, source, destination, length, each of two octets.
        while let Some(length) = open.get(6..8).map(|octets| usize::from(u16::from_be_bytes([octets[0], octets[1]]))) {
            if open.len() < 8 + length {
                break;
            }
            let apdu: Vec<u8> = open.drain(..8 + length).skip(8).collect();
            let information = match apdu.first() {
                Some(&tags::AARQ) => {
                    Aarq::decode(&apdu).ok().and_then(|aarq| aarq.user_information.map(<[u8]>::to_vec))
                }
                _ => None,
            };
            let apdu = information.unwrap_or(apdu);
            if !apdu.first().is_some_and(|tag| is_ciphered(*tag)) {
                continue;
            }
            let Ok(frame) = CipheredApdu::decode(&apdu) else { continue };
            if !self.sealed.insert((meter, frame.invocation_counter)) {
                reused.push(frame.invocation_counter);
            }
        }
        reused
    }
}

/// The gate, and a note of all that it lets out.
struct Witness {
    gate: Arc<Gate>,
    notes: Notes,
}

impl Guard<Work> for Witness {
    fn guarded(&self, work: &Work) -> bool {
        Guard::<Work>::guarded(&*self.gate, work)
    }

    fn permit(&self, meter: MeterId, request: RequestId, work: &Work, now: Now) -> Result<(), String> {
        Guard::<Work>::permit(&*self.gate, meter, request, work, now)?;
        locked(&self.notes).sealed.push((meter, request, now.wall));
        Ok(())
    }

    fn doubt(&self, meter: MeterId, why: &str) {
        Guard::<Work>::doubt(&*self.gate, meter, why);
    }
}

/// A virtual meter, and a note of each time that it was told to switch.
struct Watched {
    meter: MeterId,
    model: VirtualMeter,
    notes: Notes,
}

/// The interface class of the disconnect control.
const DISCONNECT_CONTROL: u16 = 70;

impl Objects for Watched {
    fn get(
        &mut self,
        access: Access,
        descriptor: AttributeDescriptor,
        selection: Option<&Selection>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        self.model.get(access, descriptor, selection, now, out)
    }

    fn set(&mut self, access: Access, descriptor: AttributeDescriptor, value: &[u8], now: Now) -> DataAccessResult {
        self.model.set(access, descriptor, value, now)
    }

    fn act(
        &mut self,
        access: Access,
        method: MethodDescriptor,
        parameters: Option<&[u8]>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> ActionResult {
        let done = self.model.act(access, method, parameters, now, out);
        if method.class_id == DISCONNECT_CONTROL && done == ActionResult::Success {
            locked(&self.notes).switched.push((self.meter, method.method, now.wall));
        }
        done
    }

    fn new_keys(&mut self) -> Option<NewKeys> {
        self.model.new_keys()
    }

    fn push_due(&mut self, now: Now) -> Option<Vec<u8>> {
        Objects::push_due(&mut self.model, now)
    }

    fn short_names(&mut self) -> Option<Arc<ShortNames>> {
        self.model.short_names()
    }

    fn counter_believed(&mut self, counter: u32) {
        self.model.counter_believed(counter);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // One thread: nobody holds it, and notes are whole between two of them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLO_GET_REQUEST: u8 = 0xC8;

    /// A ciphered get-request under this counter, in its wrapper.
    fn frame(counter: u32) -> Vec<u8> {
        let mut body = vec![0x30];
        body.extend(counter.to_be_bytes());
        body.extend([0xAA; 20]);
        let mut apdu = vec![GLO_GET_REQUEST, body.len() as u8];
        apdu.append(&mut body);
        let mut wpdu = vec![0, 1, 0, 1, 0, 1, 0, apdu.len() as u8];
        wpdu.append(&mut apdu);
        wpdu
    }

    #[test]
    fn counter_that_leaves_twice_is_noticed_whatever_pieces_it_leaves_in() {
        let mut wire = Wire::default();
        let mut written = frame(7);
        written.extend(frame(8));
        for octet in written {
            assert_eq!(wire.hear(1, 0, &[octet]), [0; 0]);
        }

        assert_eq!(wire.hear(2, 1, &frame(7)), [0; 0], "another meter's key");
        assert_eq!(wire.hear(3, 0, &frame(9)), [0; 0]);
        assert_eq!(wire.hear(2, 0, &frame(8)), [8]);
    }

    #[test]
    fn both_clocks_agree_however_often_they_are_moved() {
        let fleet = Fleet::new(crate::virtual_meter::FleetSpec { count: 1, ..Default::default() }).unwrap();
        let mut simulation = Simulation::new(1, WallTime(1_800_000_000_000_000), &fleet);
        let began = simulation.now();

        for _ in 0..1_000 {
            let now = simulation.now().monotonic;
            simulation.advance(now + Duration::from_nanos(1_700));
        }

        assert_eq!(simulation.now().wall.0 - began.wall.0, 1_700);
    }
}
