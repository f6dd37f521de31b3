//! The whole engine under a simulated world: a head-end's reactor and a virtual fleet's reactor in one thread, with
//! everything going wrong that can. Safety holds all the time; once the faults end, everything works again.
//!
//! A failing seed prints itself; `IPSS_SEED=n cargo test -p ipss-core --test simulation` runs it alone.

mod echo;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use echo::{Grant, HeadEnd, Meter, Work, value};
use ipss_core::reactor::simulated::{Faults, World};
use ipss_core::reactor::{Accepted, Config, NewMeter, Route, SimulatedReactor};
use ipss_session::rig::{Line, SeededRandom};
use ipss_session::{Batch, EventKind, Instant, MeterId, Outcome, Priority, RequestId, WallTime};

const METERS: MeterId = 6;
const PORT: u16 = 4059;

/// The head-end's host listens here for meters that dial in.
fn head_end_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], PORT + 1))
}

/// Every third meter dials in; the others have an address of their own.
fn dials(meter: MeterId) -> bool {
    meter % 3 == 2
}

fn address_of(meter: MeterId) -> SocketAddr {
    SocketAddr::from(([127, 1, 0, meter as u8 + 1], PORT))
}

fn meter_at(address: SocketAddr) -> Option<MeterId> {
    (0..METERS).find(|meter| address_of(*meter) == address)
}

struct Simulation {
    world: World,
    random: SeededRandom,
    head_end: SimulatedReactor<HeadEnd>,
    fleet: SimulatedReactor<Meter>,
    /// Durable: the first counter of each meter that no block holds yet.
    reserved: Vec<u32>,
    next_request: RequestId,
    /// Requests of this life of the head-end, with their meters and deadlines.
    expected: BTreeMap<RequestId, (MeterId, Instant, u32)>,
    outcomes: BTreeMap<RequestId, Outcome>,
    lines: BTreeMap<RequestId, BTreeSet<u16>>,
    trace: u64,
    /// What was seen to happen, so that a simulation that tests nothing does not pass.
    seen: BTreeMap<String, u64>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let world = World::new(seed, WallTime(1_700_000_000 * WallTime::SECOND));
        let random = world.random();
        let head_end = SimulatedReactor::new(config(), world.host());
        let mut fleet = SimulatedReactor::new(config(), world.host());
        let listener = world.listener(fleet.network(), SocketAddr::from(([0, 0, 0, 0], PORT)));
        fleet.listen(
            listener,
            Arc::new(|local, _| match meter_at(local) {
                Some(meter) => Accepted::Meter { meter, newest_wins: true },
                None => Accepted::Refuse,
            }),
        );
        let meters = (0..METERS).map(|meter| NewMeter {
            meter,
            session: Meter::new(meter, dials(meter)),
            route: if dials(meter) { Route::held(head_end_address()) } else { Route::inbound() },
            identities: vec![],
        });
        fleet.handle().add(meters.collect()).unwrap();
        let mut simulation = Self {
            world,
            random,
            head_end,
            fleet,
            reserved: vec![0; METERS as usize],
            next_request: 1,
            expected: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            lines: BTreeMap::new(),
            trace: 0,
            seen: BTreeMap::new(),
        };
        simulation.start_head_end();
        simulation
    }

    fn start_head_end(&mut self) {
        let network = self.world.host();
        let listener = self.world.listener(&network, head_end_address());
        self.head_end = SimulatedReactor::new(config(), network);
        self.head_end.listen(listener, Arc::new(|_, _| Accepted::Greet(HeadEnd::greeter())));
        let meters = (0..METERS).map(|meter| NewMeter {
            meter,
            session: HeadEnd::new(meter),
            route: match meter % 3 {
                0 => Route::held(address_of(meter)),
                1 => Route::on_demand(address_of(meter), Duration::from_secs(7)),
                _ => Route::inbound(),
            },
            identities: vec![meter.to_be_bytes().to_vec()],
        });
        self.head_end.handle().add(meters.collect()).unwrap();
        (0..METERS).for_each(|meter| self.grant(meter));
    }

    /// Reserve a block durably, then grant it.
    fn grant(&mut self, meter: MeterId) {
        let next = self.reserved[meter as usize];
        self.reserved[meter as usize] += 40;
        let grant = Grant { next, end: next + 40 };
        self.head_end.handle().control(vec![(meter, grant)]).unwrap();
    }

    /// All of the head-end's memory is lost; the fleet and the durable store are not.
    fn crash(&mut self) {
        *self.seen.entry("crash".to_owned()).or_default() += 1;
        let reset = self.random.chance(500);
        self.world.crash(self.head_end.network(), reset);
        self.expected.clear();
        self.start_head_end();
    }

    fn submit(&mut self, meters: &[MeterId], seconds: u64, priority: Priority, attempts: u8, work: Work) {
        let deadline = self.world.now().monotonic + Duration::from_secs(seconds);
        let from = self.next_request;
        self.next_request += meters.len() as u64;
        self.head_end.handle().submit(Arc::new(work), meters, from, deadline, priority, attempts).unwrap();
        for (id, meter) in (from..).zip(meters) {
            self.expected.insert(id, (*meter, deadline, work.exchanges));
        }
    }

    /// Let the world go on for `span`.
    fn run(&mut self, span: Duration) {
        let end = self.world.now().monotonic + span;
        let mut at_once = 0;
        loop {
            assert!(self.head_end.turn() && self.fleet.turn());
            while let Some(batch) = self.head_end.handle().take() {
                self.head_end_said(&batch);
            }
            while let Some(batch) = self.fleet.handle().take() {
                self.fleet_said(&batch);
            }
            let now = self.world.now().monotonic;
            let due = [self.world.next_event(), self.head_end.next_due(), self.fleet.next_due()];
            let next = due.into_iter().flatten().min().unwrap_or(end).min(end);
            at_once = if next > now { 0 } else { at_once + 1 };
            assert!(at_once < 1_000, "the turns do not come to rest");
            self.check_queues();
            if next >= end {
                break;
            }
            self.world.advance(next.max(now));
        }
        self.world.advance(end);
    }

    fn check_queues(&self) {
        let stats = self.head_end.handle().stats();
        assert!(stats.queued <= u64::from(METERS) * 16 && stats.active <= u64::from(METERS));
        assert!(self.head_end.handle().depth() <= 64);
        let (mut late, now) = (self.expected.iter(), self.world.now().monotonic);
        let late = late.find(|(id, (_, deadline, _))| {
            *deadline + Duration::from_millis(10) < now && !self.outcomes.contains_key(id)
        });
        assert_eq!(late, None, "a request outlived its deadline");
    }

    fn head_end_said(&mut self, batch: &Batch) {
        for (index, line) in batch.lines.iter().enumerate() {
            let (meter, _, questions) = self.expected[&line.request];
            assert_eq!(meter, line.meter, "an answer under another meter");
            let want = ipss_session::Cell::Integer(value(meter, line.request, line.item.into()));
            assert_eq!(batch.cells(index), [want], "an answer under another request");
            assert!(u32::from(line.item) < questions);
            self.lines.entry(line.request).or_default().insert(line.item);
            self.note(line.request);
        }
        for end in &batch.ends {
            *self.seen.entry(end.outcome.name().to_owned()).or_default() += 1;
            let (meter, _, questions) = self.expected[&end.request];
            assert_eq!(meter, end.meter);
            assert_ne!(end.outcome, Outcome::Interrupted);
            let before = self.outcomes.insert(end.request, end.outcome);
            assert_eq!(before, None, "request {} ended twice", end.request);
            if end.outcome == Outcome::Done {
                assert_eq!(self.lines[&end.request].len() as u32, questions);
            }
            self.note(end.request ^ (end.outcome as u64) << 32 ^ end.duration_us << 40);
        }
        for event in &batch.events {
            *self.seen.entry(format!("{:?}", event.kind)).or_default() += 1;
            self.note(u64::from(event.meter) ^ (event.kind as u64) << 32 ^ event.at.0 as u64);
            if matches!(event.kind, EventKind::CountersLow | EventKind::CountersExhausted) {
                self.grant(event.meter);
            }
        }
    }

    fn fleet_said(&mut self, batch: &Batch) {
        for event in &batch.events {
            *self.seen.entry(format!("meter's {:?}", event.kind)).or_default() += 1;
            assert_ne!(event.kind, EventKind::NonceSeen, "meter {} saw {} reused", event.meter, event.number);
            self.note(u64::from(event.meter) ^ (event.kind as u64) << 33 ^ event.at.0 as u64);
        }
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    fn faults(&mut self) -> Faults {
        let random = &mut self.random;
        let mut up_to = |bound: u32| random.below(u64::from(bound) + 1) as u32;
        let mut line = Line {
            delay: Duration::from_millis(up_to(200).into()),
            jitter: Duration::from_millis(up_to(400).into()),
            split: up_to(300),
            reset: up_to(15),
            ..Line::default()
        };
        if up_to(1) == 1 {
            // As UDP would do it, which a stream's framing has to survive too.
            line =
                Line { loss: up_to(40), duplication: up_to(60), reordering: up_to(200), corruption: up_to(5), ..line };
        }
        Faults { line, refused: up_to(200), unanswered: up_to(100), silence: up_to(10), partial_write: up_to(100) }
    }
}

fn config() -> Config {
    Config {
        threads: 1,
        connections: 1_000,
        backoff_cap: Duration::from_secs(20),
        authentication_pause: Duration::from_secs(15),
        ..Config::default()
    }
}

/// Safety, then liveness. Returns what makes two runs comparable.
fn run(seed: u64) -> (u64, u64, BTreeMap<String, u64>) {
    let mut simulation = Simulation::new(seed);
    let all: Vec<MeterId> = (0..METERS).collect();
    let rounds = 4 + simulation.random.below(6);
    for _ in 0..rounds {
        let faults = simulation.faults();
        simulation.world.set_faults(faults);
        let burst = if simulation.random.chance(60) { 30 } else { 4 };
        for _ in 0..simulation.random.below(burst) {
            let random = &mut simulation.random;
            let work = Work { exchanges: 1 + random.below(4) as u32, write: random.chance(200) };
            let priority = Priority::from_number(random.below(4) as u8).unwrap();
            let (seconds, attempts) = (1 + random.below(60), random.below(5) as u8);
            let from = random.below(u64::from(METERS)) as usize;
            simulation.submit(&all[from..], seconds, priority, attempts, work);
        }
        if simulation.random.chance(150) {
            let ids: Vec<_> = simulation.expected.iter().map(|(id, (meter, ..))| (*meter, *id)).take(3).collect();
            simulation.head_end.handle().cancel(&ids).unwrap();
        }
        let span = Duration::from_millis(simulation.random.below(15_000));
        simulation.run(span);
        if simulation.random.chance(150) {
            simulation.crash();
        }
    }

    simulation.world.set_faults(Faults::default());
    simulation.run(Duration::from_secs(200));
    assert!(simulation.expected.keys().all(|id| simulation.outcomes.contains_key(id)), "a request never ended");
    let first = simulation.next_request;
    simulation.submit(&all, 30, Priority::Scheduled, 1, Work { exchanges: 2, write: false });
    simulation.run(Duration::from_secs(30));
    for id in first..simulation.next_request {
        let (meter, ..) = simulation.expected[&id];
        assert_eq!(simulation.outcomes.get(&id), Some(&Outcome::Done), "meter {meter} did not come back");
    }
    (simulation.trace, simulation.world.trace(), simulation.seen)
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
fn two_thousand_seeds_are_safe_and_live() {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let seeds = seeds(2_000);
    let few = seeds.end - seeds.start < 200;
    for seed in seeds {
        let _report = Report(seed);
        for (what, count) in run(seed).2 {
            *seen.entry(what).or_default() += count;
        }
    }
    println!("{seen:#?}");
    for what in [
        "done",
        "timed-out",
        "unreachable",
        "cancelled",
        "unknown",
        "overloaded",
        "violation",
        "crash",
        "Associated",
        "Disconnected",
        "UnexpectedAnswer",
        "ProtocolViolation",
        "ClaimRefused",
        "BackedOff",
        "CountersLow",
        "meter's ReplayRefused",
        "meter's Connected",
    ] {
        assert!(few || seen.get(what).is_some_and(|count| *count >= 10), "{what} hardly ever happened");
    }
}

#[test]
fn a_seed_replays_to_the_bit() {
    for seed in seeds(20) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
