//! What the reactor promises, each promise by name, on a simulated network: deadlines, admission, bounds, isolation.

mod echo;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use echo::{Grant, HeadEnd, Meter, Work};
use ipss_core::reactor::simulated::{Faults, SimulatedListener, World};
use ipss_core::reactor::{Accepted, Config, NewMeter, Route, SimulatedReactor, Stats, SubmitError};
use ipss_session::batch::{End, Event};
use ipss_session::{
    Context, EventKind, Input, Instant, MeterId, Outcome, Priority, RequestId, Session, Step, Transport, WallTime,
};

const PORT: u16 = 4059;

fn address(meter: MeterId) -> SocketAddr {
    SocketAddr::from(([127, 1, (meter >> 8) as u8, meter as u8], PORT))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A meter that does what no meter should.
enum Peer {
    Good(Meter),
    Garbage,
    Silent,
    ClosesAtOnce,
    /// Says that it is a meter, and no more.
    Claims(Meter),
    /// Sends the start of a frame, one octet a second.
    Drips(u8),
}

impl Session for Peer {
    type Work = ();
    type Control = ();

    fn step(&mut self, input: Input<'_, (), ()>, cx: &mut Context<'_>) -> Step<()> {
        let mut step = Step::wait(None);
        if let Input::Bytes(octets) = &input {
            step.consumed = octets.len();
        }
        match (self, input) {
            (Self::Good(meter), input) | (Self::Claims(meter), input @ Input::Opened) => return meter.step(input, cx),
            (Self::Garbage, Input::Opened) => cx.to_send.extend([0xFF; 300]),
            (Self::ClosesAtOnce, Input::Opened) => step.transport = Transport::Close,
            (Self::Drips(count), Input::Opened | Input::Deadline | Input::Bytes(_)) => {
                *count = count.wrapping_add(1);
                cx.to_send.push(if *count == 1 { 0 } else { 40 });
                step.deadline = Some(cx.now.monotonic + seconds(1));
            }
            _ => {}
        }
        step
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        true
    }
}

/// A head-end's session of which some are faulty themselves.
enum Asker {
    Good(HeadEnd),
    Panics,
}

impl Session for Asker {
    type Work = Arc<Work>;
    type Control = Grant;

    fn step(&mut self, input: Input<'_, Arc<Work>, Grant>, cx: &mut Context<'_>) -> Step<Arc<Work>> {
        match self {
            Self::Good(session) => session.step(input, cx),
            Self::Panics => panic!("a fault of our own"),
        }
    }

    fn ready(&self) -> bool {
        matches!(self, Self::Good(session) if session.ready())
    }

    fn associated(&self) -> bool {
        matches!(self, Self::Good(session) if session.associated())
    }

    fn challenger(&mut self) -> Option<Self> {
        let Self::Good(session) = self else { return None };
        session.challenger().map(Self::Good)
    }
}

/// Where meters dial in.
const CALL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), PORT + 1);

struct Pair {
    world: World,
    head_end: SimulatedReactor<Asker>,
    fleet: SimulatedReactor<Peer>,
    ends: BTreeMap<RequestId, End>,
    ended_at: BTreeMap<RequestId, Instant>,
    events: Vec<Event>,
    rows: Vec<usize>,
    consuming: bool,
    next: RequestId,
    most_open: u64,
    connects: Vec<(Instant, u64)>,
}

impl Pair {
    fn new(config: Config, peers: impl IntoIterator<Item = Peer>) -> Self {
        let world = World::new(1, WallTime(1_700_000_000 * WallTime::SECOND));
        let quick = Faults {
            line: ipss_session::rig::Line { delay: Duration::from_millis(5), ..Default::default() },
            ..Faults::default()
        };
        world.set_faults(quick);
        let head_end = SimulatedReactor::new(config, world.host());
        let patient = Config { connects_per_second: 0, associate_timeout: seconds(86_400), ..Config::default() };
        let mut fleet = SimulatedReactor::new(patient, world.host());
        let listener = world.listener(fleet.network(), SocketAddr::from(([0, 0, 0, 0], PORT)));
        fleet.listen(
            listener,
            Arc::new(|local, _| {
                let SocketAddr::V4(local) = local else { return Accepted::Refuse };
                let [_, _, high, low] = local.ip().octets();
                Accepted::Meter { meter: MeterId::from(high) << 8 | MeterId::from(low), newest_wins: true }
            }),
        );
        let meters = (0..).zip(peers).map(|(meter, session)| NewMeter {
            meter,
            session,
            route: Route::inbound(),
            identities: vec![],
        });
        fleet.handle().add(meters.collect()).unwrap();
        Self {
            world,
            head_end,
            fleet,
            ends: BTreeMap::new(),
            ended_at: BTreeMap::new(),
            events: Vec::new(),
            rows: Vec::new(),
            consuming: true,
            next: 1,
            most_open: 0,
            connects: Vec::new(),
        }
    }

    fn good(config: Config, count: MeterId) -> Self {
        Self::new(config, (0..count).map(|meter| Peer::Good(Meter::new(meter, false))))
    }

    fn add(&mut self, meters: std::ops::Range<MeterId>, route: impl Fn(MeterId) -> Route) {
        let session = |meter| Asker::Good(HeadEnd::granted(meter, 0, u32::MAX));
        let meters = meters.map(|meter| NewMeter {
            meter,
            session: session(meter),
            route: route(meter),
            identities: vec![meter.to_be_bytes().to_vec()],
        });
        self.head_end.handle().add(meters.collect()).unwrap();
    }

    /// Have the head-end greet who calls.
    fn listen(&mut self) -> SimulatedListener {
        let listener = self.world.listener(self.head_end.network(), CALL);
        self.head_end.listen(listener, Arc::new(|_, _| Accepted::Greet(Asker::Good(HeadEnd::greeter()))));
        listener
    }

    /// Have peers call it, which say who they are, or nothing.
    fn dial_in(&mut self, meters: std::ops::Range<MeterId>, says: bool) {
        let new = meters.map(|meter| NewMeter {
            meter: 1_000 + meter,
            session: Peer::Good(Meter::new(meter, says)),
            route: Route::held(CALL),
            identities: vec![],
        });
        self.fleet.handle().add(new.collect()).unwrap();
    }

    fn submit(&mut self, meters: &[MeterId], within: u64, attempts: u8) -> RequestId {
        self.submit_as(meters, within, attempts, Priority::Scheduled)
    }

    fn submit_as(&mut self, meters: &[MeterId], within: u64, attempts: u8, priority: Priority) -> RequestId {
        let (from, work) = (self.next, Arc::new(Work { exchanges: 1, write: false }));
        let deadline = self.world.now().monotonic + seconds(within);
        self.head_end.handle().submit(work, meters, from, deadline, priority, attempts).unwrap();
        self.next += meters.len() as u64;
        from
    }

    fn run(&mut self, span: Duration) {
        let end = self.world.now().monotonic + span;
        loop {
            self.head_end.turn();
            self.fleet.turn();
            while let Some(batch) = if self.consuming { self.head_end.handle().take() } else { None } {
                self.rows.push(batch.rows());
                self.events.extend(batch.events);
                for end in batch.ends {
                    self.ended_at.insert(end.request, self.world.now().monotonic);
                    assert!(self.ends.insert(end.request, end).is_none(), "ended twice");
                }
            }
            while self.fleet.handle().take().is_some() {}
            let stats = self.stats();
            self.most_open = self.most_open.max(stats.connections);
            self.connects.push((self.world.now().monotonic, stats.connects));
            let due = [self.world.next_event(), self.head_end.next_due(), self.fleet.next_due()];
            let next = due.into_iter().flatten().min().unwrap_or(end).min(end);
            if next >= end {
                break;
            }
            self.world.advance(next.max(self.world.now().monotonic));
        }
        self.world.advance(end);
    }

    fn stats(&self) -> Stats {
        self.head_end.handle().stats()
    }

    fn outcome(&self, request: RequestId) -> Option<Outcome> {
        self.ends.get(&request).map(|end| end.outcome)
    }

    fn count(&self, kind: EventKind) -> usize {
        self.events.iter().filter(|event| event.kind == kind).count()
    }
}

fn config() -> Config {
    Config { threads: 1, connections: 100_000, ..Config::default() }
}

#[test]
fn bad_meters_harm_no_other() {
    let peers = (0..60).map(|meter| match meter {
        50 | 51 => Peer::Garbage,
        52 | 53 => Peer::Silent,
        54 | 55 => Peer::ClosesAtOnce,
        56 | 57 => Peer::Drips(0),
        _ => Peer::Good(Meter::new(meter, false)),
    });
    let mut pair = Pair::new(config(), peers);
    pair.add(0..60, |meter| Route::held(address(meter)));
    let broken = NewMeter { meter: 99, session: Asker::Panics, route: Route::held(address(59)), identities: vec![] };
    pair.head_end.handle().add(vec![broken]).unwrap();

    let all: Vec<MeterId> = (0..60).chain([99]).collect();
    let from = pair.submit(&all, 120, 2);
    pair.run(seconds(2));

    assert!((from..from + 50).all(|id| pair.outcome(id) == Some(Outcome::Done)));
    pair.run(seconds(120));
    assert!((from + 50..from + 58).all(|id| pair.outcome(id).is_some_and(|outcome| outcome != Outcome::Done)));
    assert_eq!(pair.outcome(from + 60), Some(Outcome::Impossible));
    assert_eq!(pair.stats().panics, 1);
    assert!(pair.count(EventKind::BackedOff) >= 6);
    let again = pair.submit(&[0, 99], 10, 1);
    pair.run(seconds(1));
    assert_eq!([pair.outcome(again), pair.outcome(again + 1)], [Some(Outcome::Done), Some(Outcome::Impossible)]);
}

#[test]
fn request_never_outlives_its_deadline_though_its_meter_is_down() {
    let mut pair = Pair::good(config(), 0);
    let nobody = SocketAddr::from(([127, 9, 9, 9], 1));
    pair.add(0..2, |_| Route::on_demand(nobody, seconds(5)));

    let patient = pair.submit(&[0, 0, 0], 40, 255);
    let tried = pair.submit(&[1], 400, 3);
    let start = pair.world.now().monotonic;
    pair.run(seconds(60));

    for id in patient..patient + 3 {
        assert_eq!(pair.outcome(id), Some(Outcome::TimedOut));
        let late = pair.ended_at[&id].since(start + seconds(40));
        assert!(pair.ended_at[&id] >= start + seconds(40) && late <= config().batch_delay);
    }
    assert_eq!(pair.outcome(tried), Some(Outcome::Unreachable));
    assert!(pair.ends[&tried].detail.contains("refused"));
    assert!(pair.stats().connects >= 4);
}

#[test]
fn peers_that_dawdle_are_cut_at_the_absolute_deadlines() {
    let mut pair = Pair::new(config(), [Peer::Drips(0), Peer::Silent]);
    let slow = |meter| {
        let mut session = HeadEnd::granted(meter, 0, u32::MAX);
        session.answer = seconds(100_000);
        let route = Route::held(address(meter));
        pair.head_end
            .handle()
            .add(vec![NewMeter { meter, session: Asker::Good(session), route, identities: vec![] }])
            .unwrap();
    };
    slow(0);
    slow(1);

    pair.run(seconds(61));

    let cut = |meter, why: &str| {
        let mut events = pair.events.iter().filter(|event| event.meter == meter);
        let opened = events.find(|event| event.kind == EventKind::Connected).unwrap().at;
        let closed = events.find(|event| event.kind == EventKind::Disconnected).unwrap();
        assert!(closed.detail.contains(why), "{}", closed.detail);
        (closed.at.0 - opened.0) as f64 / 1e6
    };
    assert!((30.0..30.1).contains(&cut(0, "frame")));
    assert!((60.0..60.1).contains(&cut(1, "association")));
}

#[test]
fn unknown_and_mute_callers_are_refused_and_a_claim_displaces_nobody() {
    let dialling = |meter| Peer::Good(Meter::new(meter, true));
    let mut pair = Pair::new(config(), [dialling(0), dialling(77), Peer::Silent, dialling(0)]);
    pair.listen();
    pair.add(0..1, |_| Route::inbound());
    let dial = |pair: &mut Pair, peer: MeterId, session: Peer| {
        let meter = NewMeter { meter: 100 + peer, session, route: Route::held(CALL), identities: vec![] };
        pair.fleet.handle().add(vec![meter]).unwrap();
    };

    dial(&mut pair, 0, dialling(0));
    pair.run(seconds(1));
    assert_eq!(pair.stats().associated, 1);
    dial(&mut pair, 1, dialling(77));
    dial(&mut pair, 2, Peer::Silent);
    dial(&mut pair, 3, dialling(0));
    pair.run(Duration::from_millis(29_500));

    assert_eq!(pair.count(EventKind::Disconnected), 0);
    let refused = |pair: &Pair, what: &str| {
        let claims = pair.events.iter().filter(|event| event.kind == EventKind::ClaimRefused);
        claims.filter(|event| event.detail.contains(what)).count()
    };
    assert!(refused(&pair, "0000004d is not known") >= 1);
    assert!(refused(&pair, "has a connection") >= 1);
    assert_eq!(refused(&pair, "in time"), 0);
    pair.run(seconds(2));
    assert!(refused(&pair, "in time") >= 1);
    let id = pair.submit(&[0], 10, 1);
    pair.run(seconds(5));
    assert_eq!(pair.outcome(id), Some(Outcome::Done));
}

#[test]
fn meter_whose_old_connection_is_dead_gets_in_after_the_probe() {
    let mut pair = Pair::new(config(), []);
    pair.listen();
    pair.add(0..1, |_| Route::inbound());
    let dial = || {
        let session = Peer::Good(Meter::new(0, true));
        NewMeter { meter: 0, session, route: Route::held(CALL), identities: vec![] }
    };
    pair.fleet.handle().add(vec![dial()]).unwrap();
    pair.run(seconds(1));
    assert_eq!(pair.stats().associated, 1);

    // The meter loses power: its end is gone and nobody says so.
    pair.world.crash(pair.fleet.network(), false);
    pair.fleet = SimulatedReactor::new(config(), pair.world.host());
    pair.fleet.handle().add(vec![dial()]).unwrap();
    pair.run(seconds(20));

    assert!(pair.count(EventKind::ClaimRefused) >= 1);
    assert_eq!(pair.stats().associated, 1);
    let id = pair.submit(&[0], 10, 1);
    pair.run(seconds(5));
    assert_eq!(pair.outcome(id), Some(Outcome::Done));
}

/// A head-end that greets, with these meters of its own, each of which has dialled in from 198.51.100.0/24.
fn greeted(config: Config, count: MeterId) -> (Pair, impl Fn(&mut Pair, MeterId, u8, Peer)) {
    let mut pair = Pair::new(config, []);
    pair.listen();
    pair.add(0..count, |_| Route::inbound());
    let dial = move |pair: &mut Pair, number: MeterId, from: u8, session: Peer| {
        let route = Route { local: Some([198, 51, 100, from].into()), ..Route::held(CALL) };
        pair.fleet.handle().add(vec![NewMeter { meter: number, session, route, identities: vec![] }]).unwrap();
    };
    (0..count).for_each(|meter| dial(&mut pair, 100 + meter, meter as u8, Peer::Good(Meter::new(meter, true))));
    pair.run(seconds(1));
    assert_eq!(pair.stats().associated, u64::from(count));
    (pair, dial)
}

#[test]
fn clone_that_proves_itself_is_told_within_a_second_and_displaces_nobody() {
    let (mut pair, dial) = greeted(config(), 1);
    let start = pair.world.now().wall;

    dial(&mut pair, 200, 77, Peer::Good(Meter::new(0, true)));
    pair.run(seconds(5));

    let told: Vec<_> = pair.events.iter().filter(|event| event.kind == EventKind::CloneDetected).collect();
    assert_eq!((told.len(), told[0].meter), (1, 0));
    assert!(told[0].at.0 - start.0 <= WallTime::SECOND);
    assert!(told[0].detail.contains("proved from 198.51.100.77") && told[0].detail.contains("from 198.51.100.0"));
    assert_eq!((pair.count(EventKind::Disconnected), pair.stats().associated), (0, 1));
    assert_eq!(pair.count(EventKind::Associated), 1, "what the clone says is nobody's word");
    let id = pair.submit(&[0], 10, 1);
    // It comes again and again; the alarm stands already.
    pair.run(seconds(300));
    assert_eq!(pair.outcome(id), Some(Outcome::Done));
    assert!(pair.count(EventKind::ClaimRefused) > 2);
    assert_eq!((pair.count(EventKind::CloneDetected), pair.stats().challenges), (1, 1));
    assert_eq!(pair.stats().connections, 1);
}

#[test]
fn who_proves_nothing_or_comes_from_the_same_address_is_no_clone_and_few_at_a_time_may_try() {
    let (mut pair, dial) = greeted(Config { challenges: 2, ..config() }, 5);

    (0..5).for_each(|meter| dial(&mut pair, 200 + meter, 77, Peer::Claims(Meter::new(meter, true))));
    pair.run(seconds(1));
    assert_eq!(pair.stats().challenges, 2);
    assert_eq!(pair.stats().connections, 5 + 2);
    assert!(pair.count(EventKind::ClaimRefused) >= 5, "each is told at once");
    pair.fleet.handle().remove(&[200, 201, 202, 203, 204]).unwrap();
    pair.run(seconds(15));
    let challenges = pair.stats().challenges;
    dial(&mut pair, 300, 3, Peer::Good(Meter::new(3, true)));
    pair.run(seconds(5));

    assert_eq!(pair.stats().challenges, challenges, "a meter may dial twice");
    assert_eq!((pair.count(EventKind::CloneDetected), pair.count(EventKind::Disconnected)), (0, 0));
    assert_eq!(pair.stats().connections, 5);
}

#[test]
fn meter_that_comes_back_from_another_address_is_no_clone_of_its_dead_connection() {
    let (mut pair, dial) = greeted(config(), 1);
    pair.world.crash(pair.fleet.network(), false);
    pair.fleet = SimulatedReactor::new(config(), pair.world.host());

    dial(&mut pair, 200, 77, Peer::Good(Meter::new(0, true)));
    pair.run(seconds(30));

    assert!(pair.stats().challenges >= 1);
    assert_eq!((pair.count(EventKind::CloneDetected), pair.stats().associated), (0, 1));
    let id = pair.submit(&[0], 10, 1);
    pair.run(seconds(5));
    assert_eq!(pair.outcome(id), Some(Outcome::Done));
}

#[test]
fn connection_that_ends_is_told_once_with_its_reason() {
    let mut pair = Pair::good(config(), 1);
    let mut session = HeadEnd::granted(0, 0, u32::MAX);
    session.tells = true;
    let route = Route::held(address(0));
    let new = NewMeter { meter: 0, session: Asker::Good(session), route, identities: vec![] };
    pair.head_end.handle().add(vec![new]).unwrap();
    pair.run(seconds(1));
    assert_eq!(pair.stats().associated, 1);

    pair.world.set_faults(Faults { silence: 1_000, ..Faults::default() });
    pair.submit(&[0], 20, 1);
    pair.run(seconds(6));

    let ended: Vec<_> = pair.events.iter().filter(|event| event.kind == EventKind::Disconnected).collect();
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(ended[0].detail, "no answer");
}

#[test]
fn connections_start_no_faster_than_the_token_bucket_gives() {
    let mut pair = Pair::good(Config { connects_per_second: 500, connect_burst: 100, ..config() }, 2_000);
    pair.add(0..2_000, |meter| Route::held(address(meter)));
    let start = pair.world.now().monotonic;

    pair.run(seconds(5));

    assert_eq!(pair.stats().associated, 2_000);
    for (at, connects) in &pair.connects {
        assert!(*connects <= 101 + at.since(start).as_millis() as u64 / 2);
    }
    let (full, _) = pair.connects.iter().find(|(_, connects)| *connects == 2_000).unwrap();
    assert!(full.since(start) < Duration::from_millis(3_850));
}

#[test]
fn peers_wait_for_the_token_bucket_with_us_and_not_in_the_kernel() {
    let mut pair = Pair::new(Config { connects_per_second: 50, connect_burst: 10, ..config() }, []);
    let listener = pair.listen();
    pair.add(0..300, |_| Route::inbound());

    pair.dial_in(0..300, true);
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.world.waiting(listener), 0);
    assert!((1..=15).contains(&pair.stats().accepts), "{}", pair.stats().accepts);

    pair.run(seconds(7));
    assert_eq!(pair.stats().associated, 300);
}

#[test]
fn crowd_of_strangers_leaves_room_for_meters_that_are_dialled() {
    let mut pair = Pair::good(Config { connections: 64, ..config() }, 1);
    let listener = pair.listen();
    pair.add(0..1, |meter| Route::on_demand(address(meter), seconds(1)));

    pair.dial_in(1..301, false);
    pair.run(seconds(1));
    assert!(pair.world.waiting(listener) > 0, "there are more than fit");
    let id = pair.submit(&[0], 60, 3);
    pair.run(seconds(60));

    assert_eq!(pair.outcome(id), Some(Outcome::Done));
    assert!(pair.most_open <= 64);
}

#[test]
fn bound_on_connections_is_kept_and_everybody_gets_a_turn() {
    let mut pair = Pair::good(Config { connections: 10, ..config() }, 40);
    pair.add(0..40, |meter| Route::on_demand(address(meter), seconds(1)));

    let from = pair.submit(&(0..40).collect::<Vec<_>>(), 60, 1);
    pair.run(seconds(20));

    assert!((from..from + 40).all(|id| pair.outcome(id) == Some(Outcome::Done)));
    assert_eq!(pair.most_open, 10);
    assert_eq!(pair.stats().connections, 0, "idle ones are closed");
    assert!(pair.stats().admission_delays > 0);
}

#[test]
fn reading_stops_while_the_consumer_is_behind_and_timers_do_not() {
    let mut pair = Pair::good(Config { batches: 2, batch_rows: 10, ..config() }, 100);
    pair.add(0..100, |meter| Route::held(address(meter)));
    pair.run(seconds(1));
    pair.add(100..101, |_| Route::held(SocketAddr::from(([127, 9, 9, 9], 1))));
    pair.run(seconds(1));

    let stalls = pair.stats().stalls;
    pair.consuming = false;
    let dead = pair.submit(&[100], 2, 200);
    let from = pair.submit(&(0..100).collect::<Vec<_>>(), 50, 1);
    pair.run(seconds(3));
    let stuck = pair.stats();
    assert_eq!(stuck.stalls, stalls + 1);
    assert_eq!(pair.head_end.handle().depth(), 2);
    assert_eq!(stuck.ended[Outcome::TimedOut as usize], 1, "the dead meter's request ended in time");
    assert!(stuck.ended[Outcome::Done as usize] < 100);
    let before = stuck.octets_in;
    pair.run(seconds(1));
    assert_eq!(pair.stats().octets_in, before);

    pair.consuming = true;
    pair.run(seconds(10));
    assert_eq!(pair.outcome(dead), Some(Outcome::TimedOut));
    assert!((from..from + 100).all(|id| pair.outcome(id) == Some(Outcome::Done)));
}

#[test]
fn batch_goes_at_its_rows_or_after_its_delay() {
    let mut pair = Pair::good(Config { batch_rows: 50, ..config() }, 500);
    pair.add(0..500, |meter| Route::held(address(meter)));
    pair.run(seconds(2));
    pair.rows.clear();

    pair.submit(&(0..500).collect::<Vec<_>>(), 10, 1);
    pair.run(Duration::from_millis(30));
    assert!(pair.rows.len() >= 18 && pair.rows.iter().all(|rows| *rows <= 51), "{:?}", pair.rows);

    pair.rows.clear();
    let start = pair.world.now().monotonic;
    let single = pair.submit(&[7], 10, 1);
    pair.run(seconds(1));
    assert_eq!(pair.rows, [2]);
    let delay = config().batch_delay;
    assert!(pair.ended_at[&single].since(start) <= Duration::from_millis(10 + 1) + delay);
    assert!(pair.ended_at[&single].since(start) > delay, "bulk work waits for company");

    let start = pair.world.now().monotonic;
    let awaited = pair.submit_as(&[7], 10, 1, Priority::OnDemand);
    pair.run(seconds(1));
    assert!(pair.ended_at[&awaited].since(start) <= Duration::from_millis(10 + 1), "somebody waits for it");
}

#[test]
fn bounds_are_kept_by_refusing_aloud() {
    let mut pair = Pair::good(Config { submissions: 100, queue: 4, ..config() }, 1);
    pair.add(0..1, |meter| Route::held(address(meter)));
    pair.run(seconds(1));

    let many = vec![0; 101];
    let (deadline, work) = (Instant(u64::MAX), Arc::new(Work { exchanges: 1, write: false }));
    let refused = pair.head_end.handle().submit(work, &many, 1_000, deadline, Priority::Scheduled, 1);
    assert_eq!(refused, Err(SubmitError::Full { queued: 0, more: 101, bound: 100 }));

    let from = pair.submit(&[0; 10], 10, 1);
    let unknown = pair.submit(&[55], 10, 1);
    pair.run(seconds(2));
    let outcomes: Vec<_> = (from..from + 10).map(|id| pair.outcome(id).unwrap()).collect();
    assert_eq!(outcomes[..5], [Outcome::Done; 5]);
    assert_eq!(outcomes[5..], [Outcome::Overloaded; 5]);
    assert_eq!(pair.outcome(unknown), Some(Outcome::Impossible));
}

#[test]
fn cancellation_withdraws_what_waits_and_what_runs() {
    let mut pair = Pair::good(config(), 1);
    pair.add(0..1, |meter| Route::held(address(meter)));
    pair.run(seconds(1));

    let from = pair.submit(&[0, 0, 0], 10, 1);
    pair.run(Duration::from_millis(1));
    pair.head_end.handle().cancel(&[(0, from), (0, from + 1), (0, 999)]).unwrap();
    pair.run(seconds(1));

    let outcomes: Vec<_> = (from..from + 3).map(|id| pair.outcome(id).unwrap()).collect();
    assert_eq!(outcomes, [Outcome::Cancelled, Outcome::Cancelled, Outcome::Done]);
    assert_eq!(pair.count(EventKind::UnexpectedAnswer), 1, "the late answer is nobody's");
}

#[test]
fn urgent_request_overtakes_and_broken_lines_are_retried() {
    let mut pair = Pair::good(config(), 1);
    pair.add(0..1, |meter| Route::held(address(meter)));
    pair.run(seconds(1));

    let from = pair.submit(&[0; 5], 60, 4);
    let (work, deadline) = (Arc::new(Work { exchanges: 1, write: false }), Instant(u64::MAX));
    pair.head_end.handle().submit(work, &[0], 50, deadline, Priority::Critical, 1).unwrap();
    pair.world.set_faults(Faults {
        line: ipss_session::rig::Line { reset: 1_000, ..Default::default() },
        ..Faults::default()
    });
    pair.run(Duration::from_millis(50));
    pair.world.set_faults(Faults::default());
    pair.run(seconds(20));

    assert!((from..from + 5).chain([50]).all(|id| pair.outcome(id) == Some(Outcome::Done)));
    assert_eq!(pair.stats().retries, 1);
    assert!(pair.ended_at[&50] <= pair.ended_at[&from]);
}

#[test]
fn drain_lets_what_runs_finish_and_cancels_what_waits() {
    let mut pair = Pair::good(config(), 10);
    pair.add(0..10, |meter| Route::held(address(meter)));
    pair.run(seconds(1));

    let all: Vec<MeterId> = (0..10).collect();
    let running = pair.submit(&all, 60, 1);
    let waiting = pair.submit(&all, 60, 1);
    pair.run(Duration::from_millis(1));
    pair.head_end.handle().drain(pair.world.now().monotonic + seconds(30));
    pair.run(seconds(1));

    assert!((running..running + 10).all(|id| pair.outcome(id) == Some(Outcome::Done)));
    assert!((waiting..waiting + 10).all(|id| pair.outcome(id) == Some(Outcome::Cancelled)));
    assert!(pair.head_end.handle().finished());
    assert_eq!(pair.stats().connections, 0);
    assert_eq!(pair.head_end.handle().remove(&[1]), Err(SubmitError::Stopping));
}
