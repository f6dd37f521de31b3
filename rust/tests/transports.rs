//! Each transport beside plain TCP on real sockets: datagrams through one socket, TLS with certificates and roles, serial
//! lines as pseudo-terminals. The far end is our own meter's role, or a peer that is no reactor at all.

mod echo;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use echo::{HeadEnd, Meter, Work};
use ipss_core::reactor::endpoint::TlsEndpoint;
use ipss_core::reactor::tls::{Identity, TlsServer, client_config, role_in, server_config};
use ipss_core::reactor::{Accepted, Acceptor, Config, Endpoint, Handle, MioNetwork, NewMeter, Reactor, Route, Share};
use ipss_session::batch::{End, Event};
use ipss_session::{
    Context, EventKind, Input, MeterId, Outcome, Parity, Priority, RequestId, SerialSettings, Session, Step, Transport,
};

const HERE: [u8; 4] = [127, 0, 0, 1];

fn meters(count: MeterId) -> Reactor<Meter> {
    let patient = Duration::from_secs(86_400);
    let config = Config { threads: 1, connects_per_second: 0, associate_timeout: patient, ..Config::default() };
    let reactor = Reactor::start(config).unwrap();
    let new =
        |meter| NewMeter { meter, session: Meter::new(meter, false), route: Route::inbound(), identities: vec![] };
    reactor.handle().add((0..count).map(new).collect()).unwrap();
    reactor
}

fn accepts(meter: MeterId) -> Arc<Acceptor<Meter>> {
    Arc::new(move |_, _| Accepted::Meter { meter, newest_wins: true })
}

fn head_end(threads: usize) -> Reactor<HeadEnd> {
    let config = Config { threads, backoff_base: Duration::from_millis(50), ..Config::default() };
    Reactor::start(config).unwrap()
}

fn add<S>(handle: &Handle<S, MioNetwork>, meter: MeterId, session: S, route: Route)
where
    S: Session,
    S::Work: Clone,
{
    let identities = vec![meter.to_be_bytes().to_vec()];
    handle.add(vec![NewMeter { meter, session, route, identities }]).unwrap();
}

fn asker(meter: MeterId) -> HeadEnd {
    HeadEnd::granted(meter, 0, 1_000_000)
}

#[derive(Default)]
struct Said {
    ends: BTreeMap<RequestId, End>,
    events: Vec<Event>,
}

impl Said {
    /// Take batches until `enough`, or ten seconds have passed.
    fn until<S>(&mut self, handle: &Handle<S, MioNetwork>, enough: impl Fn(&Self) -> bool)
    where
        S: Session,
        S::Work: Clone,
    {
        let end = Instant::now() + Duration::from_secs(10);
        while !enough(self) {
            assert!(Instant::now() < end, "not within ten seconds: {:?} {:?}", self.ends, self.events);
            let Some(batch) = handle.take_timeout(Duration::from_millis(100)) else { continue };
            self.events.extend(batch.events);
            for end in batch.ends {
                assert!(self.ends.insert(end.request, end).is_none(), "ended twice");
            }
        }
    }

    fn ask(&mut self, reactor: &Reactor<HeadEnd>, meters: &[MeterId], within: u64) -> Vec<Outcome> {
        let from = self.ends.len() as u64;
        let deadline = reactor.now().monotonic + Duration::from_secs(within);
        let work = Arc::new(Work { exchanges: 2, write: false });
        reactor.handle().submit(work, meters, from, deadline, Priority::Scheduled, 3).unwrap();
        let all = from as usize + meters.len();
        self.until(reactor.handle(), |said| said.ends.len() == all);
        (from..all as u64).map(|id| self.ends[&id].outcome).collect()
    }
}

fn until(so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "not within ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn many_meters_are_asked_through_one_udp_socket() {
    let fleet = meters(200);
    let addresses: Vec<SocketAddr> = (0..200)
        .map(|meter| fleet.listen_udp(SocketAddr::from(([127, 5, 0, meter as u8], 0)), accepts(meter)).unwrap())
        .collect();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let head_end = head_end(1);
    let idle = Duration::from_secs(60);
    for (meter, address) in (0..).zip(&addresses) {
        add(head_end.handle(), meter, asker(meter), Route::on_demand(Endpoint::Udp(*address), idle));
    }

    let outcomes = Said::default().ask(&head_end, &(0..200).collect::<Vec<_>>(), 8);

    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    // One socket, and what a reactor needs beside it.
    assert!(descriptors() < before + 40, "{} descriptors more", descriptors() - before);
}

#[test]
fn meters_that_send_datagrams_first_reach_their_sessions_in_other_threads() {
    let head_end = head_end(2);
    (0..20).for_each(|meter| add(head_end.handle(), meter, asker(meter), Route::inbound()));
    // Nobody says twice who it is over UDP: both threads have to know their meters first.
    until(|| head_end.handle().stats().meters == 20);
    let greet: Arc<Acceptor<HeadEnd>> = Arc::new(|_, _| Accepted::Greet(HeadEnd::greeter()));
    let address = head_end.listen_udp(SocketAddr::from((HERE, 0)), greet).unwrap();
    let fleet = Reactor::<Meter>::start(Config { threads: 1, ..Config::default() }).unwrap();
    for meter in 0..21 {
        let route = Route { local: Some([127, 6, 0, meter as u8 + 1].into()), ..Route::held(Endpoint::Udp(address)) };
        add(fleet.handle(), meter, Meter::new(meter, true), route);
    }
    let mut said = Said::default();

    let outcomes = said.ask(&head_end, &(0..20).collect::<Vec<_>>(), 8);
    said.until(head_end.handle(), |said| said.events.iter().any(|event| event.kind == EventKind::ClaimRefused));

    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    let refused = said.events.iter().find(|event| event.kind == EventKind::ClaimRefused).unwrap();
    assert_eq!(refused.detail, "00000014 is not known");
}

#[test]
fn garbage_datagrams_and_a_flood_from_strangers_harm_no_meter() {
    let head_end = head_end(1);
    let fleet = meters(1);
    let address = fleet.listen_udp(SocketAddr::from((HERE, 0)), accepts(0)).unwrap();
    add(head_end.handle(), 0, asker(0), Route::on_demand(Endpoint::Udp(address), Duration::from_secs(60)));
    let refuse: Arc<Acceptor<HeadEnd>> = Arc::new(|_, _| Accepted::Refuse);
    let open = head_end.listen_udp(SocketAddr::from((HERE, 0)), refuse).unwrap();

    for _ in 0..50 {
        let stranger = UdpSocket::bind(SocketAddr::from((HERE, 0))).unwrap();
        (0..40).for_each(|_| assert_eq!(stranger.send_to(&[0xFF; 50], open).unwrap(), 50));
        assert_eq!(stranger.send_to(&[], open).unwrap(), 0);
    }
    let outcomes = Said::default().ask(&head_end, &[0], 8);

    assert_eq!(outcomes, [Outcome::Done]);
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

fn tls(address: SocketAddr, name: &str, holder: Option<&str>) -> Endpoint {
    tls_trusting(address, name, holder, "authority.pem")
}

fn tls_trusting(address: SocketAddr, name: &str, holder: Option<&str>, authority: &str) -> Endpoint {
    let files = holder.map(|holder| (file(&format!("{holder}.pem")), file(&format!("{holder}.key"))));
    let identity = files.as_ref().map(|(certificate, key)| Identity { certificate, key });
    let config = Arc::new(client_config(&file(authority), identity).unwrap());
    Endpoint::Tls(Arc::new(TlsEndpoint { address, name: name.to_owned().try_into().unwrap(), config }))
}

/// A device that speaks TLS only, to holders of these roles.
fn device(roles: &[&str]) -> (Reactor<Meter>, SocketAddr) {
    let fleet = meters(1);
    let (certificate, key) = (file("device.pem"), file("device.key"));
    let trusted = (!roles.is_empty()).then(|| file("authority.pem"));
    let config = server_config(Identity { certificate: &certificate, key: &key }, trusted.as_deref()).unwrap();
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let server = TlsServer { config: Arc::new(config), roles };
    let address = fleet.listen_tls(SocketAddr::from((HERE, 0)), server, accepts(0)).unwrap();
    (fleet, address)
}

#[test]
fn tls_carries_a_conversation_and_its_end() {
    let (fleet, address) = device(&[]);
    let mut head_end = head_end(1);
    add(head_end.handle(), 0, asker(0), Route::held(tls(address, "127.0.0.1", None)));
    let mut said = Said::default();

    assert_eq!(said.ask(&head_end, &[0; 10], 8), [Outcome::Done; 10]);

    head_end.handle().drain(head_end.now().monotonic + Duration::from_secs(5));
    head_end.join().unwrap();
    drop(fleet);
}

#[test]
fn tls_device_that_cannot_prove_its_name_is_not_spoken_to() {
    let (misnamed, untrusted) = (device(&[]), device(&[]));
    let head_end = head_end(1);
    let endpoints =
        [tls(misnamed.1, "other.example", None), tls_trusting(untrusted.1, "127.0.0.1", None, "nobody.pem")];
    for (meter, endpoint) in (0..).zip(endpoints) {
        add(head_end.handle(), meter, asker(meter), Route::on_demand(endpoint, Duration::from_secs(5)));
    }
    let mut said = Said::default();

    let outcomes = said.ask(&head_end, &[0, 1], 5);

    assert_eq!(outcomes, [Outcome::AuthenticationFailed; 2]);
    assert!(said.events.iter().any(|event| event.kind == EventKind::AuthenticationFailed));
    assert_eq!(misnamed.0.handle().stats().octets_in + untrusted.0.handle().stats().octets_in, 0);
}

#[test]
fn tls_role_that_is_wrong_or_missing_is_refused_before_its_first_octet() {
    assert_eq!(role_in(&file("reader.pem")).unwrap().as_deref(), Some("reader"));
    assert_eq!(role_in(&file("nobody.pem")).unwrap(), None);
    for (holder, expected) in
        [(Some("operator"), true), (Some("reader"), false), (Some("nobody"), false), (None, false)]
    {
        let (fleet, address) = device(&["operator", "engineer"]);
        let head_end = head_end(1);
        add(head_end.handle(), 0, asker(0), Route::held(tls(address, "127.0.0.1", holder)));

        let outcomes = Said::default().ask(&head_end, &[0], if expected { 8 } else { 1 });

        assert_eq!(outcomes == [Outcome::Done], expected, "{holder:?}: {outcomes:?}");
        assert_eq!(fleet.handle().stats().octets_in > 0, expected, "{holder:?}");
    }
}

/// A line with two ends, as two pseudo-terminals whose other sides are copied into each other.
struct Wire {
    ends: [PathBuf; 2],
    _masters: [File; 2],
}

fn wire() -> Wire {
    let open = || {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = PathBuf::from(ptsname(&master, Vec::new()).unwrap().into_string().unwrap());
        // Held open, so that a far end that is closed for a while is no hang-up.
        let slave = File::options().read(true).write(true).open(&path).unwrap();
        std::mem::forget(slave);
        (File::from(master), path)
    };
    let ((one, first), (two, second)) = (open(), open());
    let copy = |mut from: File, mut to: File| {
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
        })
    };
    copy(one.try_clone().unwrap(), two.try_clone().unwrap());
    copy(two.try_clone().unwrap(), one.try_clone().unwrap());
    Wire { ends: [first, second], _masters: [one, two] }
}

#[test]
fn serial_line_carries_a_conversation() {
    let wire = wire();
    let fleet = Reactor::<Meter>::start(Config { threads: 1, ..Config::default() }).unwrap();
    let settings = SerialSettings { parity: Parity::Even, ..SerialSettings::new(19_200) };
    add(fleet.handle(), 7, Meter::new(7, false), Route::held(Endpoint::serial(&wire.ends[1], settings)));
    let head_end = head_end(1);
    let route = Route::on_demand(Endpoint::serial(&wire.ends[0], settings), Duration::from_secs(5));
    add(head_end.handle(), 7, asker(7), route);

    let outcomes = Said::default().ask(&head_end, &[7; 5], 8);

    assert_eq!(outcomes, [Outcome::Done; 5]);
}

#[test]
fn serial_line_that_is_not_there_is_unreachable() {
    let head_end = head_end(1);
    let route = Route::on_demand(Endpoint::serial("/dev/there-is-none", SerialSettings::new(9_600)), Duration::ZERO);
    add(head_end.handle(), 0, asker(0), route);
    let mut said = Said::default();

    let outcomes = said.ask(&head_end, &[0], 5);

    assert_eq!(outcomes, [Outcome::Unreachable]);
    assert!(said.ends[&0].detail.starts_with("/dev/there-is-none: "), "{}", said.ends[&0].detail);
}

/// Asks for another speed as soon as it is connected, and says so on the line.
struct Accelerates;

impl Session for Accelerates {
    type Work = ();
    type Control = ();

    fn step(&mut self, input: Input<'_, (), ()>, cx: &mut Context<'_>) -> Step<()> {
        let mut step = Step::wait(None);
        if let Input::Opened = input {
            cx.to_send.push(b'5');
            step.transport = Transport::Serial(SerialSettings::new(9_600));
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

#[test]
fn session_changes_the_speed_of_its_serial_line() {
    use rustix::termios::{ControlModes, tcgetattr};
    let wire = wire();
    let line = File::open(&wire.ends[0]).unwrap();
    let mut far = File::options().read(true).write(true).open(&wire.ends[1]).unwrap();
    let mut modes = tcgetattr(&far).unwrap();
    modes.make_raw();
    rustix::termios::tcsetattr(&far, rustix::termios::OptionalActions::Now, &modes).unwrap();
    let reactor = Reactor::<Accelerates>::start(Config { threads: 1, ..Config::default() }).unwrap();
    let slow = SerialSettings::seven_even(300);

    add(reactor.handle(), 0, Accelerates, Route::held(Endpoint::serial(&wire.ends[0], slow)));
    let mut said = [0];
    far.read_exact(&mut said).unwrap();
    until(|| tcgetattr(&line).unwrap().output_speed() == 9_600);

    let modes = tcgetattr(&line).unwrap();
    assert_eq!((said, modes.output_speed()), (*b"5", 9_600));
    assert!(!modes.control_modes.contains(ControlModes::PARENB) && modes.control_modes.contains(ControlModes::CS8));
}

#[test]
fn meters_behind_one_gateway_share_its_connection() {
    let (head_end, fleet) = (head_end(2), meters(1));
    let address = fleet.listen(SocketAddr::from((HERE, 0)), accepts(0)).unwrap();
    // The far end proves itself as meter 0 only, whoever asks: so do the sessions, with counters of their own.
    for meter in 0..8 {
        let session = HeadEnd::granted(0, meter * 100_000, meter * 100_000 + 1_000);
        add(head_end.handle(), meter, session, Route::held(address).shared(Share::default()));
    }
    let mut said = Said::default();

    for meter in 0..8 {
        assert_eq!(said.ask(&head_end, &[meter; 4], 8), [Outcome::Done; 4]);
    }

    assert_eq!(head_end.handle().stats().connects, 1);
    assert_eq!(fleet.handle().stats().accepts, 1);
}
