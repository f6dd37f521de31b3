//! Meters that share one connection, on a simulated network: each gets its turn, and a bad one harms no other.

mod echo;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use echo::{HeadEnd, Meter, Work};
use ipss_core::reactor::simulated::{Faults, World};
use ipss_core::reactor::{Accepted, Config, Endpoint, NewMeter, Route, Share, SimulatedReactor};
use ipss_session::batch::{End, Event};
use ipss_session::rig::Line;
use ipss_session::{
    Context, EventKind, Input, Instant, MeterId, Outcome, Priority, RequestId, SerialSettings, Session, Step, WallTime,
};

/// What stands at the far end of the one line: several meters, told apart by what their head-end's session says first.
struct Gateway {
    units: Vec<Unit>,
    pending: Vec<u8>,
    due: Option<Instant>,
}

enum Unit {
    Good(Meter),
    Silent,
    /// Answers after this long.
    Slow(Meter, Duration),
    Garbage,
}

/// A head-end's session that says in front which unit it means.
struct Asker {
    unit: u8,
    session: HeadEnd,
}

impl Session for Asker {
    type Work = Arc<Work>;
    type Control = echo::Grant;

    fn step(&mut self, input: Input<'_, Arc<Work>, echo::Grant>, cx: &mut Context<'_>) -> Step<Arc<Work>> {
        let before = cx.to_send.len();
        let step = self.session.step(input, cx);
        if cx.to_send.len() > before {
            cx.to_send.insert(before, self.unit);
        }
        step
    }

    fn ready(&self) -> bool {
        self.session.ready()
    }

    fn associated(&self) -> bool {
        self.session.associated()
    }
}

impl Session for Gateway {
    type Work = ();
    type Control = ();

    fn step(&mut self, input: Input<'_, (), ()>, cx: &mut Context<'_>) -> Step<()> {
        let mut step = Step::wait(None);
        match input {
            Input::Opened => self.units.iter_mut().for_each(|unit| {
                if let Unit::Good(meter) | Unit::Slow(meter, _) = unit {
                    let _ = meter.step(Input::Opened, cx);
                }
            }),
            Input::Bytes(octets) => {
                // What makes no sense is left out, as on a line where frames begin after silence.
                step.consumed = octets.len();
                let unit = usize::from(octets[0]);
                let length = octets.get(1..3).map(|length| 3 + usize::from(u16::from_be_bytes([length[0], length[1]])));
                if unit >= self.units.len() || length.is_some_and(|length| length > 70) {
                    return step;
                }
                step.consumed = length.filter(|length| *length <= octets.len()).unwrap_or(0);
                let frame = &mut octets[1..step.consumed.max(1)];
                if frame.is_empty() {
                    return step;
                }
                match &mut self.units[unit] {
                    Unit::Good(meter) => drop(meter.step(Input::Bytes(frame), cx)),
                    Unit::Slow(meter, delay) => {
                        let from = cx.to_send.len();
                        let _ = meter.step(Input::Bytes(frame), cx);
                        self.pending = cx.to_send.split_off(from);
                        self.due = Some(cx.now.monotonic + *delay);
                    }
                    Unit::Silent => {}
                    Unit::Garbage => cx.to_send.extend([0xFF; 60]),
                }
            }
            Input::Deadline => {
                self.due = None;
                cx.to_send.append(&mut self.pending);
            }
            _ => {}
        }
        step.deadline = self.due;
        step
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        true
    }
}

struct Bench {
    world: World,
    head_end: SimulatedReactor<Asker>,
    gateway: SimulatedReactor<Gateway>,
    ends: BTreeMap<RequestId, (End, Instant)>,
    events: Vec<Event>,
    next: RequestId,
}

const ADDRESS: ([u8; 4], u16) = ([10, 0, 0, 1], 502);

impl Bench {
    fn new(units: Vec<Unit>, endpoint: Endpoint, share: Share) -> Self {
        Self::with(units, endpoint, share, Faults { line: delay(5), ..Faults::default() }, 1)
    }

    fn with(units: Vec<Unit>, endpoint: Endpoint, share: Share, faults: Faults, seed: u64) -> Self {
        let world = World::new(seed, WallTime(1_700_000_000 * WallTime::SECOND));
        world.set_faults(faults);
        world.serial("/dev/line", SocketAddr::from(ADDRESS));
        let config = Config { threads: 1, connections: 1_000, turn: Duration::from_secs(8), ..Config::default() };
        let head_end = SimulatedReactor::new(config.clone(), world.host());
        let patient = Config { associate_timeout: Duration::from_secs(86_400), connects_per_second: 0, ..config };
        let mut gateway = SimulatedReactor::new(patient, world.host());
        let accept = Arc::new(|_, _| Accepted::Meter { meter: 0, newest_wins: true });
        for listener in [
            world.listener(gateway.network(), SocketAddr::from(ADDRESS)),
            world.udp_listener(gateway.network(), SocketAddr::from(ADDRESS)),
        ] {
            gateway.listen(listener, accept.clone());
        }
        let count = units.len() as MeterId;
        let session = Gateway { units, pending: vec![], due: None };
        let far = NewMeter { meter: 0, session, route: Route::inbound(), identities: vec![] };
        gateway.handle().add(vec![far]).unwrap();
        let meter = |meter: MeterId| NewMeter {
            meter,
            session: Asker { unit: meter as u8, session: HeadEnd::granted(meter, 0, u32::MAX) },
            route: Route::held(endpoint.clone()).shared(share),
            identities: vec![],
        };
        head_end.handle().add((0..count).map(meter).collect()).unwrap();
        Self { world, head_end, gateway, ends: BTreeMap::new(), events: Vec::new(), next: 1 }
    }

    fn submit(&mut self, meters: &[MeterId], within: u64, priority: Priority) -> RequestId {
        let from = self.next;
        let deadline = self.world.now().monotonic + Duration::from_secs(within);
        let work = Arc::new(Work { exchanges: 1, write: false });
        self.head_end.handle().submit(work, meters, from, deadline, priority, 3).unwrap();
        self.next += meters.len() as u64;
        from
    }

    fn run(&mut self, seconds: u64) {
        let end = self.world.now().monotonic + Duration::from_secs(seconds);
        loop {
            self.head_end.turn();
            self.gateway.turn();
            while let Some(batch) = self.head_end.handle().take() {
                self.events.extend(batch.events);
                for end in batch.ends {
                    let before = self.ends.insert(end.request, (end, self.world.now().monotonic));
                    assert!(before.is_none(), "ended twice");
                }
            }
            while self.gateway.handle().take().is_some() {}
            let due = [self.world.next_event(), self.head_end.next_due(), self.gateway.next_due()];
            let next = due.into_iter().flatten().min().unwrap_or(end).min(end);
            if next >= end {
                break;
            }
            self.world.advance(next.max(self.world.now().monotonic));
        }
        self.world.advance(end);
    }

    fn outcome(&self, id: RequestId) -> Option<Outcome> {
        self.ends.get(&id).map(|(end, _)| end.outcome)
    }
}

fn delay(milliseconds: u64) -> Line {
    Line { delay: Duration::from_millis(milliseconds), ..Line::default() }
}

fn good(count: MeterId) -> Vec<Unit> {
    (0..count).map(|meter| Unit::Good(Meter::new(meter, false))).collect()
}

fn gateway() -> Endpoint {
    SocketAddr::from(ADDRESS).into()
}

#[test]
fn everybody_gets_a_turn_on_one_connection() {
    let mut bench = Bench::new(good(32), gateway(), Share::default());
    let meters: Vec<MeterId> = (0..32).collect();

    let from = bench.submit(&meters, 60, Priority::Scheduled);
    bench.submit(&meters, 60, Priority::Scheduled);
    bench.run(20);

    assert!((from..from + 64).all(|id| bench.outcome(id) == Some(Outcome::Done)), "{:?}", bench.ends);
    let stats = bench.head_end.handle().stats();
    assert_eq!((stats.connects, stats.connections), (1, 1));
    // Turns are not told one by one.
    assert_eq!(bench.events.iter().filter(|event| event.kind == EventKind::Connected).count(), 1);
    assert!(bench.events.iter().all(|event| event.kind != EventKind::Disconnected));
}

#[test]
fn silent_unit_never_stops_its_neighbours_and_its_turns_get_rare() {
    let mut units = good(8);
    units[3] = Unit::Silent;
    let mut bench = Bench::new(units, gateway(), Share::default());
    let start = bench.world.now().monotonic;
    let mut late = 0;

    // Each is asked once a minute for two hours.
    for _ in 0..120 {
        let from = bench.submit(&[0, 1, 2, 3, 4, 5, 6, 7], 60, Priority::Scheduled);
        bench.run(60);
        for id in (from..from + 8).filter(|id| *id != from + 3) {
            assert_eq!(bench.outcome(id), Some(Outcome::Done), "{:?}", bench.events);
            let took = bench.ends[&id].0.duration_us;
            late += usize::from(took > 200_000);
            // Nobody waits longer than for one silence and what that unit's turns cost others before.
            assert!(took < 9_000_000, "{took}");
        }
        assert_ne!(bench.outcome(from + 3), Some(Outcome::Done));
    }

    assert!(late < 7 * 60, "{late} of 840 waited");
    assert!(bench.world.now().monotonic.since(start) >= Duration::from_secs(7_200));
}

#[test]
fn slow_unit_is_served_and_its_late_answer_meets_nobody_else() {
    let mut units = good(4);
    // The session waits five seconds for an answer.
    units[1] = Unit::Slow(Meter::new(1, false), Duration::from_secs(2));
    units[2] = Unit::Slow(Meter::new(2, false), Duration::from_secs(7));
    let mut bench = Bench::new(units, gateway(), Share::default());

    let from = bench.submit(&[0, 1, 2, 3], 100, Priority::Scheduled);
    bench.run(100);

    assert_eq!([0, 1, 3].map(|unit| bench.outcome(from + unit)), [Some(Outcome::Done); 3]);
    assert_ne!(bench.outcome(from + 2), Some(Outcome::Done));
}

#[test]
fn garbage_from_one_unit_costs_the_others_a_connection_at_most() {
    let mut units = good(6);
    units[2] = Unit::Garbage;
    let mut bench = Bench::new(units, gateway(), Share::default());

    for _ in 0..10 {
        let from = bench.submit(&[0, 1, 2, 3, 4, 5], 60, Priority::Scheduled);
        bench.run(60);
        let done = (from..from + 6).filter(|id| bench.outcome(*id) == Some(Outcome::Done)).count();
        assert_eq!(done, 5);
    }
}

#[test]
fn urgent_request_does_not_wait_behind_a_long_queue() {
    let mut bench = Bench::new(good(20), gateway(), Share::default());
    let many: Vec<MeterId> = (0..19).flat_map(|meter| [meter; 10]).collect();

    let from = bench.submit(&many, 60, Priority::Scheduled);
    bench.run(0);
    let urgent = bench.submit(&[19], 60, Priority::OnDemand);
    bench.run(30);

    let at = bench.ends[&urgent].1;
    let before = (from..urgent).filter(|id| bench.ends[id].1 < at).count();
    assert!(before <= 16, "{before} of 190 went first");
    assert!((from..=urgent).all(|id| bench.outcome(id) == Some(Outcome::Done)));
}

#[test]
fn gateway_that_is_down_costs_each_request_its_tries_and_no_more() {
    let nobody = SocketAddr::from(([10, 0, 0, 9], 1));
    let mut bench = Bench::new(good(10), nobody.into(), Share::default());

    let from = bench.submit(&(0..10).collect::<Vec<_>>(), 600, Priority::Scheduled);
    bench.run(600);

    assert!((from..from + 10).all(|id| bench.outcome(id) == Some(Outcome::Unreachable)), "{:?}", bench.ends);
    // Three tries for all of them together, not each.
    assert_eq!(bench.head_end.handle().stats().connects, 3);
}

#[test]
fn gap_is_kept_between_turns() {
    let gap = Duration::from_millis(100);
    let line = Endpoint::serial("/dev/line", SerialSettings::new(9_600));
    let mut bench = Bench::new(good(10), line, Share { gap });

    let from = bench.submit(&(0..10).collect::<Vec<_>>(), 60, Priority::Scheduled);
    bench.run(60);

    let ended: Vec<Instant> = (from..from + 10).map(|id| bench.ends[&id].1).collect();
    assert!(ended.windows(2).all(|pair| pair[1].since(pair[0]) >= gap), "{ended:?}");
    assert!(ended[9].since(ended[0]) < Duration::from_secs(3));
}

#[test]
fn removed_meter_leaves_the_line_to_the_others() {
    let mut bench = Bench::new(good(5), gateway(), Share::default());
    let from = bench.submit(&[0, 1, 2, 3, 4], 60, Priority::Scheduled);

    bench.head_end.handle().remove(&[0, 2]).unwrap();
    bench.run(20);

    let outcomes = [0, 1, 2, 3, 4].map(|unit| bench.outcome(from + unit).unwrap());
    assert_eq!(outcomes.map(|outcome| outcome == Outcome::Done), [false, true, false, true, true]);
    bench.head_end.handle().remove(&[1, 3, 4]).unwrap();
    bench.run(1);
    assert_eq!(bench.head_end.handle().stats().connections, 0);
}

#[test]
fn drain_ends_a_shared_connection_too() {
    let mut bench = Bench::new(good(5), gateway(), Share::default());
    let from = bench.submit(&[0, 1, 2, 3, 4], 60, Priority::Scheduled);
    bench.run(5);

    let deadline = bench.world.now().monotonic + Duration::from_secs(5);
    bench.head_end.handle().drain(deadline);
    bench.run(10);

    assert!((from..from + 5).all(|id| bench.outcome(id) == Some(Outcome::Done)));
    assert!(bench.head_end.handle().finished());
    assert_eq!(bench.head_end.handle().stats().connections, 0);
}

#[test]
fn every_request_ends_once_on_bad_lines_of_every_transport_and_a_seed_replays() {
    let line = Line {
        jitter: Duration::from_millis(50),
        loss: 30,
        duplication: 20,
        reordering: 20,
        split: 100,
        reset: 5,
        corruption: 10,
        ..delay(10)
    };
    let run = |seed: u64| {
        let faults = Faults { line, refused: 50, unanswered: 20, silence: 5, partial_write: 50 };
        let endpoint = match seed % 3 {
            0 => gateway(),
            1 => Endpoint::Udp(SocketAddr::from(ADDRESS)),
            _ => Endpoint::serial("/dev/line", SerialSettings::new(9_600)),
        };
        let mut units = good(6);
        units[2] = Unit::Silent;
        units[4] = Unit::Garbage;
        let mut bench = Bench::with(units, endpoint, Share::default(), faults, seed);
        for _ in 0..6 {
            bench.submit(&[0, 1, 2, 3, 4, 5], 120, Priority::Scheduled);
            bench.submit(&[5, 1], 60, Priority::OnDemand);
            bench.run(90);
        }
        bench.run(200);
        assert_eq!(bench.ends.len() as u64, bench.next - 1, "seed {seed}");
        let done = bench.ends.values().filter(|(end, _)| end.outcome == Outcome::Done).count();
        (bench.world.trace(), done)
    };

    let results: Vec<_> = (0..60).map(run).collect();

    for kind in 0..3 {
        let done: usize = results.iter().skip(kind).step_by(3).map(|(_, done)| done).sum();
        assert!(done > 20 * 48 / 3, "{done} of {} on transport {kind}", 20 * 48);
    }
    assert_eq!((results[7], results[8]), (run(7), run(8)));
}
