//! Either role behind a socket, driven by the shortest loop that does: for a first look, and for other people's code at
//! the far end (`tests/interop`).
//!
//! ```text
//! peer serve tcp 127.0.0.1:0             a device that is nothing but memory; prints where it listens
//! peer ask tcp 127.0.0.1:502 1           reads PDUs as hexadecimal digits, a line each; prints how each ended
//! peer ask rtu /dev/ttyUSB0 1            a serial line, as it was set up before: raw, 9600 baud
//! ```
//! Framings: `tcp`, `udp`, `rtu-over-tcp`, `ascii`, `rtu`. A line `points holding 1 5 9` reads sparse registers as one line.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "it drives the sessions: sockets and clocks")]

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipss_modbus::device::{Device, Memory, Settings};
use ipss_modbus::head_end::{HeadEnd, Item, Plan, Read as ReadItem, Work};
use ipss_modbus::pdu::RequestPdu;
use ipss_modbus::profile::Profile;
use ipss_modbus::{Decode, Table};
use ipss_session::rig::SeededRandom;
use ipss_session::{
    Batch, Cell, Context, Input, Instant, Now, Outcome, Priority, Request, Session, Transport, WallTime,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", framing, address] => serve(profile(framing)?, address),
        ["ask", framing, address, unit] => ask(profile(framing)?, address, unit.parse()?),
        _ => Err("usage: peer serve FRAMING ADDRESS | peer ask FRAMING ADDRESS UNIT".into()),
    }
}

fn profile(framing: &str) -> Result<Profile, Failure> {
    let profile = match framing {
        "tcp" => Profile::tcp(),
        "udp" => Profile::udp(),
        "rtu-over-tcp" => Profile::rtu_over_tcp(),
        "ascii" => Profile::ascii(),
        "rtu" => Profile::rtu(9_600),
        other => return Err(format!("'{other}' is none of tcp, udp, rtu-over-tcp, ascii, rtu").into()),
    };
    // Both ends may share a machine that is busy with something else.
    Ok(Profile { answer: Duration::from_secs(20), ..profile })
}

/// Where octets come and go.
enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
    /// A serial line: what is written to, and what a thread reads from it, as a file has no time limit.
    Line(File, mpsc::Receiver<Vec<u8>>),
}

impl Socket {
    fn line(path: &str) -> std::io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let (mut from, (sender, receiver)) = (file.try_clone()?, mpsc::channel());
        std::thread::spawn(move || {
            let mut octets = [0; 512];
            while let Ok(count @ 1..) = from.read(&mut octets) {
                if sender.send(octets[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self::Line(file, receiver))
    }

    /// Octets that came within `wait`; `None` at the end of the connection.
    fn receive(&mut self, wait: Duration) -> std::io::Result<Option<Vec<u8>>> {
        let wait = wait.max(Duration::from_millis(1));
        if let Self::Line(_, received) = self {
            return Ok(match received.recv_timeout(wait) {
                Ok(octets) => Some(octets),
                Err(mpsc::RecvTimeoutError::Timeout) => Some(Vec::new()),
                Err(mpsc::RecvTimeoutError::Disconnected) => None,
            });
        }
        let wait = Some(wait);
        let mut octets = vec![0; 2048];
        let read = match self {
            Self::Tcp(stream) => stream.set_read_timeout(wait).and_then(|()| stream.read(&mut octets)),
            Self::Udp(socket) => socket.set_read_timeout(wait).and_then(|()| socket.recv(&mut octets)),
            Self::Line(..) => Ok(0),
        };
        match read {
            Ok(0) => Ok(None),
            Ok(count) => {
                octets.truncate(count);
                Ok(Some(octets))
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                Ok(Some(Vec::new()))
            }
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(octets),
            Self::Udp(socket) => socket.send(octets).map(|_| ()),
            Self::Line(file, _) => file.write_all(octets),
        }
    }
}

/// A session and what its loop keeps.
struct Driver<S: Session> {
    session: S,
    socket: Socket,
    received: Vec<u8>,
    deadline: Option<Instant>,
    batch: Batch,
    ended: Option<Outcome>,
    start: std::time::Instant,
    random: SeededRandom,
}

impl<S: Session> Driver<S> {
    fn new(session: S, socket: Socket) -> Self {
        Self {
            session,
            socket,
            received: Vec::new(),
            deadline: None,
            batch: Batch::default(),
            ended: None,
            start: std::time::Instant::now(),
            random: SeededRandom::new(1),
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let monotonic = Instant(self.start.elapsed().as_nanos() as u64 + 1);
        Now { monotonic, wall: WallTime(wall.as_micros() as i64) }
    }

    /// Step once; how many octets are done with, and whether the connection is to be closed.
    fn step(&mut self, input: Input<'_, S::Work, S::Control>) -> std::io::Result<(usize, bool)> {
        let mut to_send = Vec::new();
        let now = self.now();
        let mut cx = Context { now, random: &mut self.random, to_send: &mut to_send, batch: &mut self.batch };
        let step = self.session.step(input, &mut cx);
        self.deadline = step.deadline;
        if let Some((_, outcome)) = step.finished {
            self.ended = Some(outcome);
        }
        if !to_send.is_empty() {
            self.socket.send(&to_send)?;
        }
        Ok((step.consumed, step.transport == Transport::Close))
    }

    /// Wait for octets or the deadline, and step. False at the end of the connection.
    fn turn(&mut self) -> std::io::Result<bool> {
        let wait = self.deadline.map_or(Duration::from_millis(50), |at| at.since(self.now().monotonic));
        let Some(octets) = self.socket.receive(wait.min(Duration::from_millis(50)))? else { return Ok(false) };
        let mut received = std::mem::take(&mut self.received);
        received.extend_from_slice(&octets);
        while !received.is_empty() {
            let (consumed, close) = self.step(Input::Bytes(&mut received))?;
            received.drain(..consumed);
            if close {
                return Ok(false);
            }
            if consumed == 0 {
                break;
            }
        }
        self.received = received;
        if self.deadline.is_some_and(|at| at <= self.now().monotonic) {
            let (_, close) = self.step(Input::Deadline)?;
            return Ok(!close);
        }
        Ok(true)
    }
}

fn serve(profile: Profile, address: &str) -> Result<(), Failure> {
    let memory = Memory {
        coils: (0..2_100).map(|address| address % 3 == 0).collect(),
        inputs: (0..2_100).map(|address| address % 5 == 0).collect(),
        holding: (0..1_000).collect(),
        input: (0..1_000).map(|address| 10_000 + address).collect(),
        identification: vec![(0, b"ipss".to_vec()), (1, b"peer".to_vec()), (2, b"1.0".to_vec())],
        file: (0..100).collect(),
        fifo: vec![1, 2, 3],
        exceptions: 0x6D,
        counters: [101, 102, 103, 104, 105, 106, 107, 108],
        ..Memory::default()
    };
    let settings = Arc::new(Settings::new(profile.framing));
    let device = move || Device::new(1, settings.clone(), memory.clone());
    let work = |session, socket| -> std::io::Result<()> {
        let mut driver = Driver::new(session, socket);
        driver.step(Input::Opened)?;
        while driver.turn()? {}
        Ok(())
    };
    if profile.framing == ipss_modbus::profile::Framing::Udp {
        let socket = UdpSocket::bind(address)?;
        println!("listening {}", socket.local_addr()?);
        let (_, peer) = socket.peek_from(&mut [0; 1])?;
        socket.connect(peer)?;
        return Ok(work(device(), Socket::Udp(socket))?);
    }
    if let ipss_modbus::profile::Framing::Rtu(_) = profile.framing {
        let line = Socket::line(address)?;
        println!("listening {address}");
        return Ok(work(device(), line)?);
    }
    let listener = TcpListener::bind(address)?;
    println!("listening {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        let device = device();
        std::thread::spawn(move || work(device, Socket::Tcp(stream)));
    }
    Ok(())
}

fn ask(profile: Profile, address: &str, unit: u8) -> Result<(), Failure> {
    let socket = match profile.framing {
        ipss_modbus::profile::Framing::Udp => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(address)?;
            Socket::Udp(socket)
        }
        ipss_modbus::profile::Framing::Rtu(_) => Socket::line(address)?,
        _ => Socket::Tcp(TcpStream::connect(address)?),
    };
    let mut driver = Driver::new(HeadEnd::new(1, Arc::new(profile)), socket);
    driver.step(Input::Opened)?;
    for (id, line) in std::io::stdin().lock().lines().enumerate() {
        let item = item(&line?)?;
        let plan = Arc::new(Plan { items: [item].into() });
        let deadline = driver.now().monotonic + Duration::from_secs(30);
        let work = Work { meter: 1, unit, plan };
        let (id, priority) = (id as u64, Priority::OnDemand);
        driver.step(Input::Request(Request { id, deadline, priority, attempts_left: 0, exchanges: 0, work }))?;
        while driver.ended.is_none() && driver.turn()? {}
        let outcome = driver.ended.take().map_or("gone", Outcome::name);
        let batch = std::mem::take(&mut driver.batch);
        let mut words = vec![outcome.to_owned()];
        words.extend(batch.refusals.iter().map(|refusal| refusal.code.to_string()));
        if !batch.lines.is_empty() {
            words.extend(batch.cells(0).iter().map(|cell| match cell {
                Cell::Null => "-".to_owned(),
                Cell::Integer(integer) => integer.to_string(),
                Cell::Raw(octets) => octets.iter().map(|octet| format!("{octet:02x}")).collect(),
            }));
        }
        println!("{}", words.join(" "));
    }
    Ok(())
}

/// What a line of input asks for.
fn item(line: &str) -> Result<Item, Failure> {
    let mut words = line.split_whitespace();
    if words.next() == Some("points") {
        let name = words.next().unwrap_or_default();
        let table = Table::ALL.into_iter().find(|table| table.name() == name).ok_or("no such table")?;
        let points =
            words.map(|word| Ok((table, word.parse()?, 1, Decode::Unsigned))).collect::<Result<Vec<_>, Failure>>()?;
        return Ok(Item::Read(ReadItem::points(1, &points)?));
    }
    let octets = ipss_session::explain::parse_hex(line)?;
    Ok(Item::ask(&RequestPdu::decode(&octets)?)?)
}
