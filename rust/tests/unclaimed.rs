//! Pushes that arrive where no session can have them, over real sockets: handed to the owner, within bounds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipss_core::reactor::{Accepted, Acceptor, Config, Reactor};
use ipss_core::sessions::Peer;
use ipss_session::batch::Event;
use ipss_session::{EventKind, MeterId};

fn head_end(config: Config) -> Reactor<Peer> {
    Reactor::start(Config { threads: 1, ..config }).unwrap()
}

fn greet() -> Arc<Acceptor<Peer>> {
    Arc::new(|_, _| Accepted::Greet(Peer::Greeter(Box::default())))
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A ciphered push, `length` octets with its wrapper; nobody has a key for it.
fn push(title: [u8; 8], length: u16) -> Vec<u8> {
    let (apdu, body) = ((length - 8).to_be_bytes(), (length - 21).to_be_bytes());
    let mut wpdu = [&[0, 1, 0, 1, 0, 16][..], &apdu, &[0xDB, 8], &title, &[0x82], &body, &[0x30]].concat();
    wpdu.resize(length.into(), 7);
    wpdu
}

fn events(reactor: &Reactor<Peer>, until: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let (mut found, end) = (Vec::new(), Instant::now() + Duration::from_secs(10));
    while !until(&found) {
        assert!(Instant::now() < end, "nothing comes any more: {found:?}");
        if let Some(batch) = reactor.handle().take_timeout(Duration::from_millis(20)) {
            found.extend(batch.events);
        }
    }
    found
}

#[test]
fn the_octets_of_a_push_reach_the_owner_with_the_address_that_they_came_from() {
    let reactor = head_end(Config::default());
    let tcp = reactor.listen(here(), greet()).unwrap();
    let udp = reactor.listen_udp(here(), greet()).unwrap();
    let octets = push(*b"somebody", 60);
    let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();

    let mut stream = TcpStream::connect(tcp).unwrap();
    stream.write_all(&octets).unwrap();
    let datagrams = UdpSocket::bind(here()).unwrap();
    datagrams.send_to(&octets, udp).unwrap();
    let found = events(&reactor, |events| events.len() >= 2);

    let from = [stream.local_addr().unwrap(), datagrams.local_addr().unwrap()];
    for address in from {
        let event = found.iter().find(|event| event.detail == format!("{address} {digits}")).unwrap();
        assert_eq!((event.kind, event.meter), (EventKind::PushUnclaimed, MeterId::MAX));
    }
    // The greeting, then the end.
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(reactor.handle().stats().pushes_unclaimed, 2);
}

#[test]
fn more_pushes_than_the_owner_wants_are_dropped_and_counted() {
    let config = Config { unclaimed_per_second: 1, unclaimed_burst: 5, unclaimed_octets: 100, ..Config::default() };
    let reactor = head_end(config);
    let udp = reactor.listen_udp(here(), greet()).unwrap();
    let datagrams = UdpSocket::bind(here()).unwrap();

    let long = [push(*b"too long", 101), push(*b"too long", 4_000)];
    let short = (0..40_u64).map(|number| push(number.to_be_bytes(), 60));
    // One at a time: what comes while the last one is looked at belongs to its session.
    for (sent, octets) in (1..).zip(long.into_iter().chain(short)) {
        datagrams.send_to(&octets, udp).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while reactor.handle().stats().claims_refused < sent {
            assert!(Instant::now() < end, "{:?}", reactor.handle().stats());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    let stats = reactor.handle().stats();
    assert!((5..=16).contains(&stats.pushes_unclaimed), "{stats:?}");
    assert_eq!(stats.pushes_unclaimed + stats.pushes_dropped, 42);
    let handed = events(&reactor, |events| events.len() as u64 >= stats.pushes_unclaimed);
    assert!(handed.iter().all(|event| event.detail.ends_with(&"07".repeat(38))), "none of the long ones");
}
