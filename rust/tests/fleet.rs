//! The real sessions under the simulated world: a head-end that reads virtual meters over DLMS with HLS-GMAC and
//! ciphering, through delay, split and broken connections, silence and crashes. `simulation` has the wilder faults.
//!
//! A failing seed prints itself; `IPSS_SEED=n cargo test -p ipss-core --test fleet` runs it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipss_core::reactor::simulated::{Faults, World};
use ipss_core::reactor::{Accepted, Config, NewMeter, Route, SimulatedReactor};
use ipss_core::sessions::{self, Peer};
use ipss_core::virtual_meter::{Fleet, FleetSpec, VirtualMeter};
use ipss_dlms::axdr::BufferShape;
use ipss_dlms::cosem::descriptor::CaptureObject;
use ipss_dlms::cosem::{AttributeDescriptor, LogicalName};
use ipss_dlms::head_end::{Attributes, Buffer, Control, HeadEnd, Item, Plan, Wanted, Work};
use ipss_dlms::meter::Meter;
use ipss_dlms::profile::Profile;
use ipss_dlms::security::{Channel, CounterBlock, HighWater, Sealer, SystemTitle};
use ipss_session::rig::{Line, SeededRandom};
use ipss_session::{Batch, Cell, EventKind, Instant, MeterId, Outcome, Priority, RequestId, WallTime};

const METERS: MeterId = 4;
/// Counters in a block: the session asks for more when fewer than 256 are left.
const BLOCK: u32 = 400;
const TITLE: SystemTitle = SystemTitle(*b"TSThead1");

fn call_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], 4060))
}

struct Simulation {
    world: World,
    random: SeededRandom,
    fleet: Arc<Fleet>,
    profile: Arc<Profile>,
    head_end: SimulatedReactor<Peer>,
    meters: SimulatedReactor<Meter<VirtualMeter>>,
    /// Meter 2 dials in. A meter that loses its head-end without a word would wait for ever, so then nothing is silent.
    dials: bool,
    /// Durable: counters not reserved yet, and the highest counter believed of each meter.
    reserved: Vec<u32>,
    peer_counters: Vec<Option<u32>>,
    next: RequestId,
    expected: BTreeMap<RequestId, (MeterId, Instant)>,
    outcomes: BTreeMap<RequestId, Outcome>,
    nonces: BTreeSet<(MeterId, i64)>,
    lines: usize,
    serials: BTreeMap<RequestId, Vec<u8>>,
    trace: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let start = FleetSpec::default().start.0 + 3 * 86_400 * WallTime::SECOND;
        let world = World::new(seed, WallTime(start));
        let random = world.random();
        // Small APDUs, so that a profile takes several blocks.
        let fleet = Fleet::new(FleetSpec { seed, count: METERS, max_pdu: 400, ..FleetSpec::default() }).unwrap();
        let settings = fleet.settings(true);
        let mut profile = Profile { client_title: TITLE, ..settings.clients[0].clone() };
        profile.limits.answer = Duration::from_secs(8);
        profile.limits.associate = Duration::from_secs(20);
        profile.heartbeat = Duration::from_secs(40);
        let mut meters = SimulatedReactor::new(config(Duration::from_secs(86_400)), world.host());
        let listener = world.listener(meters.network(), SocketAddr::from(([0, 0, 0, 0], 4059)));
        let known = fleet.clone();
        let acceptor = move |local: SocketAddr, _| match local.ip() {
            IpAddr::V4(address) => {
                known.index_of(address).map_or(Accepted::Refuse, |meter| Accepted::Meter { meter, newest_wins: true })
            }
            IpAddr::V6(_) => Accepted::Refuse,
        };
        meters.listen(listener, Arc::new(acceptor));
        let dials = seed % 2 == 0;
        let new = (0..METERS).map(|meter| NewMeter {
            meter,
            session: fleet.session(meter, meter, &settings, world.now().wall),
            route: if dials && meter == 2 { Route::held(call_address()) } else { Route::inbound() },
            identities: vec![],
        });
        meters.handle().add(new.collect()).unwrap();
        let mut simulation = Self {
            head_end: SimulatedReactor::new(config(Duration::from_secs(60)), world.host()),
            world,
            random,
            fleet,
            profile: Arc::new(profile),
            meters,
            dials,
            reserved: vec![0; METERS as usize],
            peer_counters: vec![None; METERS as usize],
            next: 1,
            expected: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            nonces: BTreeSet::new(),
            lines: 0,
            serials: BTreeMap::new(),
            trace: 0,
        };
        simulation.start_head_end();
        simulation
    }

    fn reserve(&mut self, meter: MeterId) -> (u32, u32) {
        let next = self.reserved[meter as usize];
        self.reserved[meter as usize] += BLOCK;
        (next, next + BLOCK)
    }

    fn start_head_end(&mut self) {
        let network = self.world.host();
        let listener = self.world.listener(&network, call_address());
        self.head_end = SimulatedReactor::new(config(Duration::from_secs(60)), network);
        self.head_end.listen(listener, Arc::new(|_, _| Accepted::Greet(Peer::Greeter(Box::default()))));
        for meter in 0..METERS {
            let (next, end) = self.reserve(meter);
            let identity = self.fleet.identity(meter);
            let sealer = Sealer::new(TITLE, identity.encryption_key.into(), CounterBlock::new(next, end));
            let high = HighWater::new(self.peer_counters[meter as usize]);
            let title = SystemTitle(identity.system_title);
            let channel = Channel::new(sealer, identity.authentication_key.into(), title, high);
            let session = HeadEnd::new(meter, self.profile.clone(), Some(channel), b"").unwrap();
            let address = SocketAddr::from((self.fleet.address(meter), 4059));
            let route = match meter {
                2 if self.dials => Route::inbound(),
                1 => Route::on_demand(address, Duration::from_secs(5)),
                _ => Route::held(address),
            };
            let identities = vec![identity.device_name.to_vec()];
            let new = NewMeter { meter, session: Peer::Dlms(session), route, identities };
            self.head_end.handle().add(vec![new]).unwrap();
        }
    }

    fn crash(&mut self) {
        let reset = self.dials || self.random.chance(500);
        self.world.crash(self.head_end.network(), reset);
        self.expected.clear();
        self.start_head_end();
    }

    fn submit(&mut self, seconds: u64, attempts: u8, plan: &Arc<Plan>) -> RequestId {
        let now = self.world.now();
        let deadline = now.monotonic + Duration::from_secs(seconds);
        let from = self.next;
        self.next += u64::from(METERS);
        let meters: Vec<MeterId> = (0..METERS).collect();
        let hours = WallTime(now.wall.0 - 12 * 3_600 * WallTime::SECOND);
        let work = Work { plan: plan.clone(), from: hours, to: now.wall };
        self.head_end
            .handle()
            .submit(sessions::Work::Dlms(work), &meters, from, deadline, Priority::Scheduled, attempts)
            .unwrap();
        self.expected.extend((from..).zip(meters).map(|(id, meter)| (id, (meter, deadline))));
        from
    }

    fn run(&mut self, span: Duration) {
        let end = self.world.now().monotonic + span;
        let mut at_once = 0;
        loop {
            assert!(self.head_end.turn() && self.meters.turn());
            while let Some(batch) = self.head_end.handle().take() {
                self.head_end_said(&batch);
            }
            while let Some(batch) = self.meters.handle().take() {
                for event in batch.events.iter().filter(|event| event.kind == EventKind::NonceSeen) {
                    assert_eq!(event.detail, "global");
                    let fresh = self.nonces.insert((event.meter, event.number));
                    assert!(fresh, "meter {} saw counter {} twice", event.meter, event.number);
                }
                let replays = batch.events.iter().filter(|event| event.kind == EventKind::ReplayRefused).count();
                assert_eq!(replays, 0);
            }
            let now = self.world.now().monotonic;
            for (id, (_, deadline)) in &self.expected {
                let late = *deadline + Duration::from_millis(10) < now;
                assert!(!late || self.outcomes.contains_key(id), "request {id} outlived its deadline");
            }
            let due = [self.world.next_event(), self.head_end.next_due(), self.meters.next_due()];
            let next = due.into_iter().flatten().min().unwrap_or(end).min(end);
            at_once = if next > now { 0 } else { at_once + 1 };
            assert!(at_once < 1_000, "the turns do not come to rest");
            if next >= end {
                break;
            }
            self.world.advance(next.max(now));
        }
        self.world.advance(end);
    }

    fn head_end_said(&mut self, batch: &Batch) {
        for (index, line) in batch.lines.iter().enumerate() {
            assert_eq!(self.expected[&line.request].0, line.meter, "an answer under another meter");
            if line.layout == 0 {
                let cells = batch.cells(index);
                let [Cell::Raw(serial)] = cells[..] else { panic!("no serial number: {cells:?}") };
                self.serials.insert(line.request, serial.to_vec());
            }
            self.lines += 1;
            self.note(line.request ^ line.capture_time.0 as u64);
        }
        for end in &batch.ends {
            assert_eq!(self.expected[&end.request].0, end.meter);
            let before = self.outcomes.insert(end.request, end.outcome);
            assert_eq!(before, None, "request {} ended twice", end.request);
            assert!(
                matches!(end.outcome, Outcome::Done | Outcome::TimedOut | Outcome::Unreachable | Outcome::Overloaded),
                "{end:?}"
            );
            self.note(end.request ^ (end.outcome as u64) << 32 ^ end.duration_us << 40);
        }
        for (meter, counter) in &batch.peer_counters {
            let known = &mut self.peer_counters[*meter as usize];
            *known = (*known).max(Some(*counter));
        }
        for event in &batch.events {
            self.note(u64::from(event.meter) ^ (event.kind as u64) << 32 ^ event.at.0 as u64);
            if matches!(event.kind, EventKind::CountersLow | EventKind::CountersExhausted) {
                let (next, end) = self.reserve(event.meter);
                self.head_end.handle().control(vec![(event.meter, Control::Grant { next, end })]).unwrap();
            }
        }
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    fn faults(&mut self) -> Faults {
        let random = &mut self.random;
        let mut up_to = |bound: u32| random.below(u64::from(bound) + 1) as u32;
        let line = Line {
            delay: Duration::from_millis(up_to(200).into()),
            jitter: Duration::from_millis(up_to(300).into()),
            split: up_to(300),
            reset: up_to(15),
            ..Line::default()
        };
        let silence = if self.dials { 0 } else { up_to(10) };
        Faults { line, refused: up_to(200), unanswered: up_to(100), silence, partial_write: up_to(100) }
    }
}

fn config(associate_timeout: Duration) -> Config {
    let backoff_cap = Duration::from_secs(20);
    Config { threads: 1, connections: 1_000, associate_timeout, backoff_cap, ..Config::default() }
}

fn attribute(class_id: u16, logical_name: [u8; 6]) -> AttributeDescriptor {
    AttributeDescriptor { class_id, logical_name: LogicalName(logical_name), attribute: 2 }
}

/// The serial number, which only this meter has, and half a day of load profile.
fn plan() -> Arc<Plan> {
    let serial = Box::new([attribute(1, [0, 0, 96, 1, 0, 255])]);
    let clock = CaptureObject { descriptor: attribute(8, [0, 0, 1, 0, 0, 255]), data_index: 0 };
    let profile = Buffer {
        layout: 2,
        logical_name: LogicalName([1, 0, 99, 1, 0, 255]),
        shape: BufferShape { columns: 6, clock_column: Some(0), status_column: Some(1), capture_period_s: 900 },
        wanted: Wanted::Range { restricting_object: clock, columns: vec![] },
    };
    let serial = Item::Attributes(Attributes { layout: 0, attributes: serial, capture_time: None });
    Arc::new(Plan { items: Box::new([serial, Item::Buffer(profile)]) })
}

fn run(seed: u64) -> (u64, u64) {
    let mut simulation = Simulation::new(seed);
    let plan = plan();
    for _ in 0..3 + simulation.random.below(4) {
        let faults = simulation.faults();
        simulation.world.set_faults(faults);
        for _ in 0..simulation.random.below(3) {
            let (seconds, attempts) = (1 + simulation.random.below(60), simulation.random.below(5) as u8);
            simulation.submit(seconds, attempts, &plan);
        }
        let span = Duration::from_millis(simulation.random.below(15_000));
        simulation.run(span);
        if simulation.random.chance(200) {
            simulation.crash();
        }
    }

    simulation.world.set_faults(Faults::default());
    simulation.run(Duration::from_secs(150));
    assert!(simulation.expected.keys().all(|id| simulation.outcomes.contains_key(id)), "a request never ended");
    let lines = simulation.lines;
    let first = simulation.submit(60, 1, &plan);
    simulation.run(Duration::from_secs(60));
    for (id, meter) in (first..).zip(0..METERS) {
        assert_eq!(simulation.outcomes.get(&id), Some(&Outcome::Done), "meter {meter} did not come back");
        let serial = simulation.fleet.identity(meter).serial;
        let said = &simulation.serials[&id];
        assert!(said.ends_with(&serial), "meter {meter} is {said:?}, not {serial:?}");
    }
    assert_eq!(simulation.lines - lines, METERS as usize * (1 + 48));
    (simulation.trace, simulation.world.trace())
}

struct Report(u64);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0} failed; IPSS_SEED={0} replays it", self.0);
        }
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("IPSS_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed..seed + 1;
    }
    let count = std::env::var("IPSS_SEEDS").ok().and_then(|count| count.parse().ok());
    0..count.unwrap_or(default)
}

#[test]
fn secured_fleet_survives_every_seed_and_then_answers() {
    for seed in seeds(2_000) {
        let _report = Report(seed);
        run(seed);
    }
}

#[test]
fn a_seed_replays_to_the_bit() {
    for seed in seeds(10) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
