//! The reactor in threads over real sockets on loopback: two reactors, and peers that are no reactor at all.

mod echo;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use echo::{HeadEnd, Meter, Work};
use ipss_core::reactor::{Accepted, Config, Handle, MioNetwork, NewMeter, Reactor, Route};
use ipss_session::batch::{End, Event};
use ipss_session::{EventKind, MeterId, Outcome, Priority, RequestId};

fn loopback(meter: MeterId, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 3, (meter >> 8) as u8, meter as u8], port))
}

fn fleet(count: MeterId, threads: usize) -> (Reactor<Meter>, u16) {
    let patient = Duration::from_secs(86_400);
    let config = Config { threads, connects_per_second: 0, associate_timeout: patient, ..Config::default() };
    let reactor = Reactor::start(config).unwrap();
    let meters = (0..count).map(|meter| NewMeter {
        meter,
        session: Meter::new(meter, false),
        route: Route::inbound(),
        identities: vec![],
    });
    reactor.handle().add(meters.collect()).unwrap();
    let acceptor = |local: SocketAddr, _| {
        let SocketAddr::V4(local) = local else { return Accepted::Refuse };
        let [_, _, high, low] = local.ip().octets();
        Accepted::Meter { meter: MeterId::from(high) << 8 | MeterId::from(low), newest_wins: true }
    };
    let bound = reactor.listen(SocketAddr::from(([0, 0, 0, 0], 0)), Arc::new(acceptor)).unwrap();
    (reactor, bound.port())
}

fn head_end(threads: usize) -> Reactor<HeadEnd> {
    let config = Config { threads, backoff_base: Duration::from_millis(50), ..Config::default() };
    Reactor::start(config).unwrap()
}

fn add(handle: &Handle<HeadEnd, MioNetwork>, meter: MeterId, route: Route) {
    let session = HeadEnd::granted(meter, 0, 1_000_000);
    let identities = vec![meter.to_be_bytes().to_vec()];
    handle.add(vec![NewMeter { meter, session, route, identities }]).unwrap();
}

#[derive(Default)]
struct Said {
    ends: BTreeMap<RequestId, End>,
    events: Vec<Event>,
    lines: usize,
}

impl Said {
    /// Take batches until `enough`, or ten seconds have passed.
    fn until(&mut self, handle: &Handle<HeadEnd, MioNetwork>, enough: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !enough(self) {
            assert!(Instant::now() < end, "not within ten seconds");
            let Some(batch) = handle.take_timeout(Duration::from_millis(100)) else { continue };
            self.lines += batch.lines.len();
            self.events.extend(batch.events);
            for end in batch.ends {
                assert!(self.ends.insert(end.request, end).is_none(), "ended twice");
            }
        }
    }
}

#[test]
fn every_meter_of_a_fleet_answers_over_several_threads() {
    let (mut fleet, port) = fleet(300, 2);
    let mut head_end = head_end(2);
    let handle = head_end.handle().clone();
    (0..300).for_each(|meter| add(&handle, meter, Route::held(loopback(meter, port))));
    let meters: Vec<MeterId> = (0..300).collect();
    let deadline = head_end.now().monotonic + Duration::from_secs(10);
    let work = Arc::new(Work { exchanges: 3, write: false });

    for round in 0..5 {
        handle.submit(work.clone(), &meters, round * 300, deadline, Priority::Scheduled, 3).unwrap();
    }
    let mut said = Said::default();
    said.until(&handle, |said| said.ends.len() == 1_500);

    assert!(said.ends.values().all(|end| end.outcome == Outcome::Done && end.exchanges == 3));
    assert_eq!(said.lines, 4_500);
    let stats = handle.stats();
    assert_eq!((stats.meters, stats.connections, stats.associated), (300, 300, 300));
    // Lines, ends, and two events a meter; the step that fills a batch may add a few rows more.
    let rows = 4_500 + 1_500 + 600;
    assert!(stats.batches >= rows / (Config::default().batch_rows as u64 + 10), "{}", stats.batches);

    handle.drain(head_end.now().monotonic + Duration::from_secs(5));
    head_end.join().unwrap();
    while handle.take().is_some() {}
    assert!(handle.finished());
    assert_eq!(handle.stats().connections, 0);
    fleet.handle().stop();
    fleet.join().unwrap();
}

#[test]
fn bad_peers_on_real_sockets_harm_nobody() {
    let (_fleet, port) = fleet(50, 1);
    let bad = TcpListener::bind("127.0.0.1:0").unwrap();
    let bad_address = bad.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for (count, stream) in bad.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            match count % 3 {
                0 => drop(stream.write_all(&[0xFF; 100])),
                1 => drop(stream),
                _ => kept.push(stream),
            }
        }
    });
    let head_end = head_end(1);
    let handle = head_end.handle();
    (0..50).for_each(|meter| add(handle, meter, Route::held(loopback(meter, port))));
    (50..60).for_each(|meter| add(handle, meter, Route::held(bad_address)));
    add(handle, 60, Route::held(SocketAddr::from(([127, 0, 0, 1], 1))));
    let deadline = head_end.now().monotonic + Duration::from_secs(3);
    let work = Arc::new(Work { exchanges: 1, write: false });

    handle.submit(work, &(0..61).collect::<Vec<_>>(), 0, deadline, Priority::OnDemand, 3).unwrap();
    let mut said = Said::default();
    said.until(handle, |said| said.ends.len() == 61);

    assert!((0..50).all(|id| said.ends[&id].outcome == Outcome::Done));
    assert!((50..61).all(|id| matches!(said.ends[&id].outcome, Outcome::Unreachable | Outcome::TimedOut)));
    assert_eq!(said.ends[&60].outcome, Outcome::Unreachable);
    assert_eq!(handle.stats().associated, 50);
}

#[test]
fn meters_that_dial_in_reach_their_sessions_in_other_threads() {
    let head_end = head_end(2);
    let handle = head_end.handle();
    (0..20).for_each(|meter| add(handle, meter, Route::inbound()));
    let greet = Arc::new(|_, _| Accepted::Greet(HeadEnd::greeter()));
    let address = head_end.listen(SocketAddr::from(([127, 0, 0, 1], 0)), greet).unwrap();
    let fleet = Reactor::<Meter>::start(Config { threads: 1, ..Config::default() }).unwrap();
    let meters = (0..21).map(|meter| NewMeter {
        meter,
        session: Meter::new(meter, true),
        route: Route { local: Some([127, 4, 0, meter as u8 + 1].into()), ..Route::held(address) },
        identities: vec![],
    });
    fleet.handle().add(meters.collect()).unwrap();
    let deadline = head_end.now().monotonic + Duration::from_secs(8);
    let work = Arc::new(Work { exchanges: 1, write: false });

    handle.submit(work, &(0..20).collect::<Vec<_>>(), 0, deadline, Priority::Scheduled, 1).unwrap();
    let mut said = Said::default();
    said.until(handle, |said| {
        let refused = said.events.iter().any(|event| event.kind == EventKind::ClaimRefused);
        said.ends.len() == 20 && refused
    });

    assert!(said.ends.values().all(|end| end.outcome == Outcome::Done));
    let refused = said.events.iter().find(|event| event.kind == EventKind::ClaimRefused).unwrap();
    assert_eq!(refused.detail, "00000014 is not known");
}

#[test]
fn end_of_the_peer_is_seen_behind_its_last_octets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let head_end = head_end(1);
    let handle = head_end.handle();
    add(handle, 0, Route::held(listener.local_addr().unwrap()));
    let (mut peer, _): (TcpStream, _) = listener.accept().unwrap();
    let mut hello = [0; 19];
    peer.read_exact(&mut hello).unwrap();

    // Half a frame and the end at once: one event for both.
    peer.write_all(&[0, 20, 2]).unwrap();
    drop(peer);
    let mut said = Said::default();
    said.until(handle, |said| said.events.iter().any(|event| event.kind == EventKind::Disconnected));

    let gone = said.events.iter().find(|event| event.kind == EventKind::Disconnected).unwrap();
    assert_eq!(gone.detail, "the peer closed it");
}

#[test]
fn consumer_learns_of_a_thread_that_failed() {
    let mut head_end = head_end(1);
    let fails = Arc::new(|_, _| panic!("a fault of the owner's acceptor"));
    let address = head_end.listen(SocketAddr::from(([127, 0, 0, 1], 0)), fails).unwrap();
    let handle = head_end.handle().clone();

    let _caller = TcpStream::connect(address).unwrap();
    let failed = head_end.join().unwrap_err();

    assert_eq!(failed.to_string(), "a reactor thread failed");
    assert!(handle.finished());
}
