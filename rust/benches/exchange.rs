//! What the reactor costs above the system calls: CPU nanoseconds of an exchange (question and answer over loopback)
//! in a bare readiness loop that steps the same sessions, and in the reactor, one after the other in one run.
//!
//! `cargo bench -p ipss-core --bench exchange -- [SECONDS]`. The protocol is the tests' small one, so that the session
//! itself costs little. CPU time is the thread's own (`/proc/self/task/*/schedstat`), so the peer's thread and the
//! other users of the machine count little.

#[path = "../tests/echo/mod.rs"]
mod echo;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use echo::{HeadEnd, Meter, Work};
use ipss_core::reactor::mio_network::{self, Clock, SystemRandom};
use ipss_core::reactor::{Config, NewMeter, Reactor, Route};
use ipss_session::{Batch, Context, Input, Priority, Request, Session};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

fn main() {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(3.0);
    let span = Duration::from_secs_f64(seconds);
    println!("meters                       loop  ns/exchange   more  consumer ns  per second  KiB each");
    for meters in [1_000_u32, 9_000] {
        let listener = mio_network::listener(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::Builder::new().name("peer".into()).spawn(move || peer(listener)).unwrap();
        let address = |meter: u32| SocketAddr::from(([127, 1, (meter >> 8) as u8, meter as u8], port));
        let addresses: Vec<SocketAddr> = (0..meters).map(address).collect();

        let bare = std::thread::Builder::new().name("bare".into());
        let targets = addresses.clone();
        let (limit, rate) = bare.spawn(move || bare_loop(&targets, span)).unwrap().join().unwrap();
        println!("{meters:>6} {:>26} {limit:>12.0} {:>6} {:>12} {rate:>11.0}", "bare loop", "", "");
        for (depth, name) in [(1, "reactor, one request each"), (4, "reactor, four queued")] {
            let (reactor, consumer, rate, memory) = reactor_loop(&addresses, span, depth);
            let more = reactor - limit;
            println!("{meters:>6} {name:>26} {reactor:>12.0} {more:>6.0} {consumer:>12.0} {rate:>11.0} {memory:>9.2}");
        }
    }
}

/// The meters' end: a bare loop, the same for both.
fn peer(mut listener: TcpListener) {
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut listener, Token(usize::MAX), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(1_024);
    let mut connections: Vec<Option<(TcpStream, Meter)>> = Vec::new();
    let (mut buffer, mut to_send, mut batch) = (vec![0; 65_536], Vec::new(), Batch::default());
    let clock = Clock::new();
    loop {
        poll.poll(&mut events, None).unwrap();
        let now = clock.now();
        for event in &events {
            let index = event.token().0;
            if index == usize::MAX {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true).unwrap();
                    let SocketAddr::V4(local) = socket.local_addr().unwrap() else { continue };
                    let [_, _, high, low] = local.ip().octets();
                    let mut meter = Meter::new(u32::from(high) << 8 | u32::from(low), false);
                    meter.seen = None;
                    poll.registry().register(&mut socket, Token(connections.len()), Interest::READABLE).unwrap();
                    connections.push(Some((socket, meter)));
                }
                continue;
            }
            let Some((socket, meter)) = &mut connections[index] else { continue };
            let read = socket.read(&mut buffer);
            let Ok(read @ 1..) = read else {
                if !matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock) {
                    connections[index] = None;
                }
                continue;
            };
            let mut cx = Context { now, random: &mut SystemRandom, to_send: &mut to_send, batch: &mut batch };
            let _ = meter.step(Input::Bytes(&mut buffer[..read]), &mut cx);
            let _ = socket.write(&to_send);
            to_send.clear();
        }
    }
}

/// A readiness loop with no queue, no timers, no checks: what the system calls and the session cost.
fn bare_loop(addresses: &[SocketAddr], span: Duration) -> (f64, f64) {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(1_024);
    let (mut buffer, mut to_send, mut batch) = (vec![0; 65_536], Vec::new(), Batch::default());
    let clock = Clock::new();
    let mut connections: Vec<(TcpStream, HeadEnd)> = Vec::new();
    for (meter, address) in addresses.iter().enumerate() {
        let socket = std::net::TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut socket = TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(meter), Interest::READABLE).unwrap();
        let mut session = HeadEnd::granted(meter as u32, 0, u32::MAX);
        let mut cx = Context { now: clock.now(), random: &mut SystemRandom, to_send: &mut to_send, batch: &mut batch };
        let _ = session.step(Input::Opened, &mut cx);
        socket.write_all(&to_send).unwrap();
        to_send.clear();
        connections.push((socket, session));
    }
    let work = Arc::new(Work { exchanges: 1, write: false });
    let (mut exchanges, mut next) = (0_u64, 0_u64);
    let mut turn = |exchanges: &mut u64| {
        poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
        let now = clock.now();
        for event in &events {
            let (socket, session) = &mut connections[event.token().0];
            let Ok(read @ 1..) = socket.read(&mut buffer) else { continue };
            let mut cx = Context { now, random: &mut SystemRandom, to_send: &mut to_send, batch: &mut batch };
            let step = session.step(Input::Bytes(&mut buffer[..read]), &mut cx);
            *exchanges += u64::from(step.finished.is_some());
            if session.ready() {
                next += 1;
                let request = Request {
                    id: next,
                    deadline: now.monotonic + Duration::from_secs(60),
                    priority: Priority::Scheduled,
                    attempts_left: 0,
                    exchanges: 0,
                    work: work.clone(),
                };
                let _ = session.step(Input::Request(request), &mut cx);
            }
            socket.write_all(&to_send).unwrap();
            to_send.clear();
            if batch.rows() >= 100 {
                batch = Batch::default();
            }
        }
    };
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        turn(&mut exchanges);
    }
    let (before, cpu, start) = (exchanges, thread_cpu("bare"), Instant::now());
    while start.elapsed() < span {
        turn(&mut exchanges);
    }
    let count = (exchanges - before) as f64;
    ((thread_cpu("bare") - cpu) as f64 / count, count / start.elapsed().as_secs_f64())
}

/// The reactor with one thread; each meter has `depth` requests, each submitted again by the batch in which the last one ended.
fn reactor_loop(addresses: &[SocketAddr], span: Duration, depth: usize) -> (f64, f64, f64, f64) {
    let resident = resident_kib();
    let config = Config { threads: 1, connects_per_second: 0, ..Config::default() };
    let reactor = Reactor::<HeadEnd>::start(config).unwrap();
    let handle = reactor.handle();
    let meters = (0..).zip(addresses).map(|(meter, address)| NewMeter {
        meter,
        session: HeadEnd::granted(meter, 0, u32::MAX),
        route: Route::held(*address),
        identities: vec![],
    });
    handle.add(meters.collect()).unwrap();
    while handle.stats().associated < addresses.len() as u64 {
        let _ = handle.take_timeout(Duration::from_millis(10));
    }
    let memory = (resident_kib() - resident) / addresses.len() as f64;
    let work = Arc::new(Work { exchanges: 1, write: false });
    let mut next = 0;
    let mut submit = |meters: &[u32]| {
        let deadline = reactor.now().monotonic + Duration::from_secs(60);
        handle.submit(work.clone(), meters, next, deadline, Priority::Scheduled, 1).unwrap();
        next += meters.len() as u64;
    };
    (0..depth).for_each(|_| submit(&(0..addresses.len() as u32).collect::<Vec<_>>()));
    let mut run = |span: Duration| {
        let (start, mut done) = (Instant::now(), 0_u64);
        let mut again = Vec::new();
        while start.elapsed() < span {
            let Some(batch) = handle.take_timeout(Duration::from_millis(10)) else { continue };
            again.clear();
            again.extend(batch.ends.iter().map(|end| end.meter));
            done += again.len() as u64;
            if !again.is_empty() {
                submit(&again);
            }
        }
        done
    };
    run(Duration::from_secs(1));
    let (reactor_cpu, consumer_cpu, start) = (thread_cpu("reactor-0"), thread_cpu("exchange"), Instant::now());
    let done = run(span) as f64;
    (
        (thread_cpu("reactor-0") - reactor_cpu) as f64 / done,
        (thread_cpu("exchange") - consumer_cpu) as f64 / done,
        done / start.elapsed().as_secs_f64(),
        memory,
    )
}

/// Nanoseconds of CPU that the thread whose name starts so has used; 0 where the system does not say.
fn thread_cpu(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let task = tasks
        .map(|task| task.path())
        .find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    let schedstat = task.and_then(|path| std::fs::read_to_string(path.join("schedstat")).ok()).unwrap_or_default();
    schedstat.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn resident_kib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4.0
}
