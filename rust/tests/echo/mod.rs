//! A small protocol with all that matters to the engine, in both roles: an association with a proof, counters that
//! must never be used twice, requests of several exchanges, answers that can be matched, identities, probes.
//!
//! A frame: length of the rest (2 octets), kind, body, checksum (4 octets). Every frame of the head-end carries a
//! counter, as a ciphered APDU does.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipss_session::{
    Cell, Context, EventKind, Input, Instant, Line, MeterId, Outcome, Request, Session, Step, Transport, WallTime,
};

/// Ask `exchanges` questions; `write`: it may not be repeated once it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub exchanges: u32,
    pub write: bool,
}

/// Counters `next` up to, without, `end` may be used.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub next: u32,
    pub end: u32,
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const ASK: u8 = 3;
const ANSWER: u8 = 4;
const IDENTITY: u8 = 5;

/// The longest legal body.
const BODY: usize = 64;

/// What the meter answers.
pub fn value(meter: MeterId, request: u64, question: u32) -> i64 {
    i64::from(meter) * 1_000_003 + request as i64 * 17 + i64::from(question)
}

fn frame(to: &mut Vec<u8>, kind: u8, body: &[&[u8]]) {
    let length: usize = body.iter().map(|part| part.len()).sum();
    to.extend((length as u16 + 5).to_be_bytes());
    let from = to.len();
    to.push(kind);
    body.iter().for_each(|part| to.extend_from_slice(part));
    let sum = checksum(&to[from..]);
    to.extend(sum.to_be_bytes());
}

fn checksum(octets: &[u8]) -> u32 {
    octets.iter().fold(0x811C_9DC5, |sum, octet| (sum ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}

/// The first frame: its kind, body and length on the wire; `Ok(None)` if it is not complete.
#[allow(clippy::type_complexity)]
fn parse(octets: &[u8]) -> Result<Option<(u8, &[u8], usize)>, &'static str> {
    let Some(length) = octets.get(..2) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if !(5..=BODY + 5).contains(&length) {
        return Err("length");
    }
    let Some(rest) = octets.get(2..2 + length) else { return Ok(None) };
    let (content, sum) = rest.split_at(length - 4);
    if checksum(content).to_be_bytes() != sum {
        return Err("checksum");
    }
    Ok(Some((content[0], &content[1..], 2 + length)))
}

fn number(body: &[u8], at: usize, length: usize) -> u64 {
    body.iter().skip(at).take(length).fold(0, |number, octet| number << 8 | u64::from(*octet))
}

/// The asking role.
pub struct HeadEnd {
    pub meter: MeterId,
    pub next: u32,
    pub end: u32,
    low_said: bool,
    pub state: Link,
    nonce: [u8; 8],
    active: Option<(Request<Arc<Work>>, u32)>,
    deadline: Instant,
    pub answer: Duration,
    pub heartbeat: Duration,
    greeter: bool,
    heartbeats: bool,
    /// It says itself why it wants its connection closed.
    pub tells: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Closed,
    Greeting,
    Open,
}

impl HeadEnd {
    pub fn new(meter: MeterId) -> Self {
        Self {
            meter,
            next: 0,
            end: 0,
            low_said: false,
            state: Link::Closed,
            nonce: [0; 8],
            active: None,
            deadline: Instant(u64::MAX),
            answer: Duration::from_secs(5),
            heartbeat: Duration::from_secs(30),
            greeter: false,
            heartbeats: true,
            tells: false,
        }
    }

    pub fn granted(meter: MeterId, next: u32, end: u32) -> Self {
        Self { next, end, heartbeats: false, ..Self::new(meter) }
    }

    pub fn greeter() -> Self {
        Self { greeter: true, ..Self::new(MeterId::MAX) }
    }

    fn take(&mut self, cx: &mut Context<'_>) -> Option<[u8; 4]> {
        let left = self.end - self.next;
        if left < 8 && !self.low_said {
            self.low_said = true;
            cx.batch.event(self.meter, cx.now.wall, EventKind::CountersLow, left.into(), "");
        }
        if left == 0 {
            cx.batch.event(self.meter, cx.now.wall, EventKind::CountersExhausted, 0, "");
            return None;
        }
        self.next += 1;
        Some((self.next - 1).to_be_bytes())
    }

    fn hello(&mut self, cx: &mut Context<'_>) -> Step<Arc<Work>> {
        let Some(counter) = self.take(cx) else {
            return Step { transport: Transport::Close, ..Step::wait(None) };
        };
        cx.random.fill(&mut self.nonce);
        frame(cx.to_send, HELLO, &[&counter, &self.nonce]);
        self.deadline = cx.now.monotonic + self.answer;
        self.wait()
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Step<Arc<Work>> {
        let Some(counter) = self.take(cx) else { return self.finish(Outcome::CountersExhausted) };
        let Some((request, question)) = &self.active else { return self.wait() };
        frame(cx.to_send, ASK, &[&counter, &request.id.to_be_bytes(), &question.to_be_bytes()]);
        self.deadline = (cx.now.monotonic + self.answer).min(request.deadline);
        self.wait()
    }

    fn finish(&mut self, outcome: Outcome) -> Step<Arc<Work>> {
        let finished = self.active.take().map(|(request, _)| (request, outcome));
        Step { finished, ..self.wait() }
    }

    fn wait(&self) -> Step<Arc<Work>> {
        Step::wait((self.deadline != Instant(u64::MAX)).then_some(self.deadline))
    }

    fn idle(&mut self, now: Instant) {
        self.deadline = if self.heartbeats { now + self.heartbeat } else { Instant(u64::MAX) };
    }

    fn broken(&mut self, cx: &mut Context<'_>, why: &str) -> Step<Arc<Work>> {
        cx.batch.event(self.meter, cx.now.wall, EventKind::ProtocolViolation, 0, why);
        Step { transport: Transport::Close, ..self.finish(Outcome::Violation) }
    }

    fn received(&mut self, octets: &[u8], cx: &mut Context<'_>) -> Step<Arc<Work>> {
        let (kind, body, consumed) = match parse(octets) {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.wait(),
            Err(why) => return self.broken(cx, why),
        };
        let step = match kind {
            IDENTITY if self.greeter => Step { identified: Some(body.to_vec()), ..self.wait() },
            // Said again by a meter that dialled in; nothing to do.
            IDENTITY => self.wait(),
            WELCOME if self.state == Link::Greeting && body.len() == 12 => {
                if number(body, 0, 4) != u64::from(self.meter) || body[4..] != self.nonce {
                    cx.batch.event(self.meter, cx.now.wall, EventKind::AuthenticationFailed, 0, "");
                    return Step { consumed, transport: Transport::Close, ..Step::wait(None) };
                }
                self.state = Link::Open;
                cx.batch.event(self.meter, cx.now.wall, EventKind::Associated, 0, "");
                self.idle(cx.now.monotonic);
                self.wait()
            }
            ANSWER if body.len() == 24 => self.answered(body, cx),
            _ => {
                cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, "");
                self.wait()
            }
        };
        Step { consumed, ..step }
    }

    fn answered(&mut self, body: &[u8], cx: &mut Context<'_>) -> Step<Arc<Work>> {
        let (meter, id, question) = (number(body, 0, 4), number(body, 4, 8), number(body, 12, 4));
        if meter != u64::from(self.meter) {
            return self.broken(cx, "another meter's answer");
        }
        if id == 0 && question == 0 && self.active.is_none() {
            self.idle(cx.now.monotonic);
            return self.wait();
        }
        let Some((request, asked)) =
            self.active.as_mut().filter(|(request, asked)| request.id == id && u64::from(*asked) == question)
        else {
            cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, 0, "");
            return self.wait();
        };
        request.exchanges += 1;
        let line = Line {
            meter: self.meter,
            request: id,
            item: question as u16,
            layout: 1,
            capture_time: WallTime::UNKNOWN,
            deviation: Line::NO_DEVIATION,
            clock_status: 0xFF,
        };
        cx.batch.push_line(line, [Cell::Integer(number(body, 16, 8) as i64)]);
        *asked += 1;
        if *asked < request.work.exchanges {
            return self.ask(cx);
        }
        self.idle(cx.now.monotonic);
        self.finish(Outcome::Done)
    }

    fn late(&mut self, cx: &mut Context<'_>) -> Step<Arc<Work>> {
        let now = cx.now.monotonic;
        match (self.state, &self.active) {
            (Link::Open, None) if self.heartbeats => {
                // A question of nobody: its answer proves that the meter lives; silence until the next moment closes.
                self.heartbeats = false;
                let step = self.probe(cx);
                self.heartbeats = true;
                step
            }
            (_, Some((request, _))) if request.deadline <= now => {
                self.idle(now);
                self.finish(Outcome::TimedOut)
            }
            (_, active) => {
                let write = active.as_ref().is_some_and(|(request, _)| request.work.write);
                let outcome = if write { Outcome::Unknown } else { Outcome::Interrupted };
                if self.tells {
                    cx.batch.event(self.meter, cx.now.wall, EventKind::Disconnected, 0, "no answer");
                }
                Step { transport: Transport::Close, ..self.finish(outcome) }
            }
        }
    }

    fn probe(&mut self, cx: &mut Context<'_>) -> Step<Arc<Work>> {
        if self.probing() {
            return Step { transport: Transport::Close, ..Step::wait(None) };
        }
        let Some(counter) = self.take(cx) else { return self.wait() };
        frame(cx.to_send, ASK, &[&counter, &0_u64.to_be_bytes(), &0_u32.to_be_bytes()]);
        self.nonce = [0xFF; 8];
        self.deadline = cx.now.monotonic + self.answer;
        self.wait()
    }

    /// The nonce has done its work once the association stands; all ones then mark that a heartbeat is on its way.
    fn probing(&self) -> bool {
        self.nonce == [0xFF; 8]
    }
}

impl Session for HeadEnd {
    type Work = Arc<Work>;
    type Control = Grant;

    fn step(&mut self, input: Input<'_, Arc<Work>, Grant>, cx: &mut Context<'_>) -> Step<Arc<Work>> {
        match input {
            Input::Opened if self.greeter => self.wait(),
            Input::Opened => {
                self.state = Link::Greeting;
                self.hello(cx)
            }
            Input::Bytes(octets) => {
                if self.probing() {
                    self.nonce = [0; 8];
                }
                self.received(octets, cx)
            }
            Input::Deadline => self.late(cx),
            Input::Request(request) => {
                self.active = Some((request, 0));
                self.ask(cx)
            }
            Input::Cancel(id) => match &self.active {
                Some((request, _)) if request.id == id => {
                    let outcome = if request.work.write { Outcome::Unknown } else { Outcome::Cancelled };
                    self.idle(cx.now.monotonic);
                    self.finish(outcome)
                }
                _ => self.wait(),
            },
            Input::Control(grant) => {
                (self.next, self.end, self.low_said) = (grant.next, grant.end, false);
                self.wait()
            }
            Input::Probe if self.state == Link::Open && self.active.is_none() && !self.probing() => self.probe(cx),
            Input::Probe => self.wait(),
            Input::Release => Step { transport: Transport::Close, ..self.wait() },
            Input::Closed => {
                self.state = Link::Closed;
                self.nonce = [0; 8];
                self.deadline = Instant(u64::MAX);
                let write = self.active.as_ref().is_some_and(|(request, _)| request.work.write);
                self.finish(if write { Outcome::Unknown } else { Outcome::Interrupted })
            }
        }
    }

    fn ready(&self) -> bool {
        self.state == Link::Open && self.active.is_none()
    }

    fn associated(&self) -> bool {
        self.state == Link::Open
    }

    fn challenger(&mut self) -> Option<Self> {
        if self.state != Link::Open || self.end - self.next < 16 {
            return None;
        }
        self.next += 4;
        Some(Self { next: self.next - 4, end: self.next, heartbeats: false, ..Self::new(self.meter) })
    }
}

/// The answering role. Remembers every counter that it saw.
pub struct Meter {
    pub meter: MeterId,
    /// It says who it is when a connection opens.
    pub dials: bool,
    pub quiet: Duration,
    /// What it saw under each counter; `None` if it is not to remember.
    pub seen: Option<BTreeMap<u32, u32>>,
    high: Option<u32>,
    open: bool,
}

impl Meter {
    pub fn new(meter: MeterId, dials: bool) -> Self {
        Self { meter, dials, quiet: Duration::from_secs(60), seen: Some(BTreeMap::new()), high: None, open: false }
    }

    fn close(&self) -> Step<()> {
        Step { transport: Transport::Close, ..Step::wait(None) }
    }
}

impl Session for Meter {
    type Work = ();
    type Control = ();

    fn step(&mut self, input: Input<'_, (), ()>, cx: &mut Context<'_>) -> Step<()> {
        let wait = Step::wait(self.open.then_some(cx.now.monotonic + self.quiet));
        match input {
            Input::Opened => {
                self.open = true;
                if self.dials {
                    frame(cx.to_send, IDENTITY, &[&self.meter.to_be_bytes()]);
                }
                Step::wait(Some(cx.now.monotonic + self.quiet))
            }
            Input::Bytes(octets) => {
                let (kind, body, consumed) = match parse(octets) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return wait,
                    Err(_) => return self.close(),
                };
                if body.len() < 12 {
                    return self.close();
                }
                let counter = number(body, 0, 4) as u32;
                if let Some(seen) = &mut self.seen {
                    let before = seen.insert(counter, checksum(body));
                    if before.is_some_and(|before| before != checksum(body)) {
                        cx.batch.event(self.meter, cx.now.wall, EventKind::NonceSeen, counter.into(), "reused");
                    }
                }
                if self.high.is_some_and(|high| counter <= high) {
                    cx.batch.event(self.meter, cx.now.wall, EventKind::ReplayRefused, counter.into(), "");
                    return Step { consumed, ..wait };
                }
                self.high = Some(counter);
                let meter = self.meter.to_be_bytes();
                match kind {
                    HELLO => frame(cx.to_send, WELCOME, &[&meter, &body[4..12]]),
                    ASK if body.len() == 16 => {
                        let value = value(self.meter, number(body, 4, 8), number(body, 12, 4) as u32);
                        frame(cx.to_send, ANSWER, &[&meter, &body[4..16], &value.to_be_bytes()]);
                    }
                    _ => return self.close(),
                }
                Step { consumed, ..wait }
            }
            Input::Deadline | Input::Release => self.close(),
            Input::Closed => {
                self.open = false;
                Step::wait(None)
            }
            Input::Request(_) | Input::Cancel(_) | Input::Control(()) | Input::Probe => wait,
        }
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        self.open
    }
}
