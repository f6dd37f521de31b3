//! The head-end's role: associate, ask, take answers apart into rows.
//!
//! ```text
//! Down --Opened--> Associating --AARE--> [Proving --reply--> ] Up <--question/answer--> Asking
//!   ^-------------------- Closed, or a broken rule, from any state ----------------------|
//! ```
//!
//! One request is served at a time and one question of it is on the wire. A request may be given as soon as the
//! connection is open; its first question follows the association. What is no answer to the question on the wire is
//! dropped and reported, never attributed to another request.

mod access;
mod alarm;
mod associate;
mod bus;
mod data_readout;
mod datagram;
mod exchange;
mod general_block;
mod greeter;
mod heard;
mod receive;
mod rows;
mod short_name;
mod unsolicited;
mod wanting;
mod work;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use ipss_session::{
    Context, EventKind, Fault, Input, Instant, MeterId, Outcome, ProtocolError, Request, Session, Step, Transport,
};

pub use bus::Bus;
pub use data_readout::DataReadout;
pub use greeter::Greeter;
pub use heard::Unopened;
pub use unsolicited::CONFIRMED;
pub use work::{Access, AccessList, Attributes, Buffer, Invocation, Item, Plan, Wanted, Work};

use self::wanting::wanting;
use crate::apdu::initiate::Conformance;
use crate::apdu::tags::KeyKind;
use crate::cosem::ShortNames;
use crate::link::{Link, LinkConfig};
use crate::profile::Profile;
use crate::security::hls::Challenges;
use crate::security::setup::NewKeys;
use crate::security::{Channel, CounterBlock, Exhausted};

/// Report that counters run low when fewer than this are left: enough to finish what is on the way.
const COUNTERS_LOW: u32 = 256;

/// Counters for an association that only proves: an AARQ, our proof and the APDU around it, with room to spare.
const CHALLENGE: u32 = 8;

/// One meter, as the head-end sees it. Lives as long as the meter is known; connections come and go.
#[derive(Debug)]
pub struct HeadEnd {
    meter: MeterId,
    profile: Arc<Profile>,
    pub(super) link: Link,
    channel: Option<Box<Channel>>,
    password: Box<[u8]>,
    state: State,
    /// The request in work, and how far it has come.
    current: Option<Request<Work>>,
    progress: exchange::Progress,
    /// When the last question was sent or the last answer came.
    since: Instant,
    /// The invoke-id of the question on the wire, 0 to 15.
    invoke_id: u8,
    /// An answer is awaited, whether or not anybody still wants it.
    asking: bool,
    /// How often the question on the wire was asked again.
    repetitions: u8,
    /// The peer has sent the first part of a frame at this moment.
    partial_since: Option<Instant>,
    low_reported: bool,
    conformance: Conformance,
    /// The largest APDU that the meter takes, 0 for no limit.
    server_max_pdu: u16,
    /// A list was answered by garbage: from now on one by one.
    lists_broken: bool,
    /// The number before a transfer's first block.
    block_base: u32,
    /// Blocks of general block transfer on their way.
    blocks: Option<Box<general_block::Blocks>>,
    /// The meter's short names, once they are known.
    names: Option<Arc<ShortNames>>,
    /// Both challenges, until both proofs are here; the meter's is empty until it comes.
    challenges: Option<Box<Challenges>>,
}

/// Where the association stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No connection.
    Down,
    /// AARQ sent, AARE awaited.
    Associating,
    /// Our HLS proof sent, the meter's awaited.
    Proving,
    /// Associated.
    Up,
    /// RLRQ sent, RLRE awaited.
    Releasing,
}

/// What the owner may tell a head-end session beside requests.
#[derive(Clone, Debug)]
pub enum Control {
    /// Counters `next..end` are durably reserved for this meter's key.
    Grant {
        /// First counter.
        next: u32,
        /// Behind the last counter.
        end: u32,
    },
    /// The meter has new keys, as it confirmed; counters `next..end` are durably reserved for the new encryption key.
    Rekey {
        /// The keys that replace others.
        keys: Box<NewKeys>,
        /// First counter.
        next: u32,
        /// Behind the last counter.
        end: u32,
    },
    /// What a confirmed push brought is durable: tell the meter so. The number is that of its [`EventKind::Notified`],
    /// whose detail is [`CONFIRMED`].
    Confirm(u32),
    /// A push that came when the meter's session could not have it: on a connection that was not the meter's, or before
    /// anybody knew its keys. Opened and taken as one before the association, and never confirmed; how that ended is
    /// [`EventKind::PushHeard`].
    Hear {
        /// What the owner calls it.
        number: i64,
        /// One WPDU.
        wpdu: Vec<u8>,
    },
}

impl HeadEnd {
    /// A meter under its pinned profile. `channel` holds both ends' titles, the keys and reserved counters, and is
    /// needed as [`Profile::needs_titles`] says; `password` is the secret of mechanisms 1 to 4 and 6.
    ///
    /// # Errors
    /// Local, `profile`: the profile needs something that is not there, or does not fit the keys.
    pub fn new(
        meter: MeterId,
        profile: Arc<Profile>,
        channel: Option<Channel>,
        password: &[u8],
    ) -> Result<Self, ProtocolError> {
        if let Some(wanting) = wanting(&profile, channel.as_ref(), password) {
            return Err(ProtocolError::local("association", "profile", wanting));
        }
        Ok(Self { channel: channel.map(Box::new), password: password.into(), ..Self::open(meter, profile) })
    }

    /// The same, over another link than the wrapper on a stream.
    #[must_use]
    pub fn with_link(mut self, config: &LinkConfig) -> Self {
        self.link = Link::head_end(config, self.profile.client, self.profile.server);
        self
    }

    /// A meter whose profile needs neither keys nor a password.
    pub(crate) fn open(meter: MeterId, profile: Arc<Profile>) -> Self {
        let link = Link::head_end(&LinkConfig::default(), profile.client, profile.server);
        Self {
            meter,
            profile,
            link,
            channel: None,
            password: [].into(),
            state: State::Down,
            current: None,
            progress: exchange::Progress::default(),
            since: Instant::ORIGIN,
            invoke_id: 0,
            asking: false,
            repetitions: 0,
            partial_since: None,
            low_reported: false,
            conformance: Conformance::NONE,
            server_max_pdu: 0,
            lists_broken: false,
            block_base: 0,
            blocks: None,
            names: None,
            challenges: None,
        }
    }

    /// When to wake up if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let limits = &self.profile.limits;
        let own = match self.state {
            State::Down => return None,
            State::Associating | State::Proving => self.since + self.patience(limits.associate),
            State::Releasing => self.since + limits.answer,
            State::Up if self.asking => self.since + self.patience(limits.answer),
            State::Up => self.since + self.profile.heartbeat,
        };
        let own = self.partial_since.map_or(own, |since| own.min(since + limits.frame));
        let own = self.link.deadline().map_or(own, |at| own.min(at));
        let own = self.blocks_due().map_or(own, |due| own.min(due));
        Some(self.current.as_ref().map_or(own, |request| own.min(request.deadline)))
    }

    /// The step that leaves things as they are now.
    fn settled(&self, consumed: usize) -> Step<Work> {
        Step { consumed, ..Step::wait(self.deadline()) }
    }

    /// End the current request, if there is one.
    fn finish(&mut self, step: &mut Step<Work>, outcome: Outcome, detail: impl Into<String>) {
        self.progress.clear();
        if let Some(request) = self.current.take() {
            step.finished = Some((request, outcome));
            step.detail = detail.into();
        }
        step.deadline = self.deadline();
    }

    /// Give the connection up; the current request ends as `outcome`, or as unknown if it was a write on the wire.
    fn abandon(&mut self, step: &mut Step<Work>, outcome: Outcome, detail: impl Into<String>) {
        let outcome = self.worst(outcome);
        self.finish(step, outcome, detail);
        step.transport = Transport::Close;
        step.deadline = None;
    }

    /// A write or an action whose question is on the wire without an answer may have been done: that is not known.
    fn worst(&self, outcome: Outcome) -> Outcome {
        let on_wire = self.state == State::Up && self.asking;
        let repeatable = self.current.as_ref().is_none_or(|request| request.work.plan.is_repeatable());
        if on_wire && !repeatable { Outcome::Unknown } else { outcome }
    }

    /// The meter, or we, broke a rule: say so, end the request, close.
    fn broken(&mut self, error: &ProtocolError, step: &mut Step<Work>, cx: &mut Context<'_>) {
        let kind = kind_of(error);
        cx.batch.event(self.meter, cx.now.wall, kind, 0, format!("{}: {error}", error.code));
        let outcome = match kind {
            EventKind::ProtocolViolation if error.fault == Fault::Local => Outcome::Impossible,
            EventKind::ProtocolViolation => Outcome::Violation,
            _ => Outcome::AuthenticationFailed,
        };
        self.abandon(step, outcome, error.to_string());
    }

    /// Nothing more can be sealed: the request ends, the association stays for when counters are granted.
    fn exhausted(&mut self, step: &mut Step<Work>, cx: &mut Context<'_>) {
        cx.batch.event(self.meter, cx.now.wall, EventKind::CountersExhausted, 0, "");
        self.finish(step, Outcome::CountersExhausted, Exhausted.to_string());
        if self.state != State::Up {
            step.transport = Transport::Close;
            step.deadline = None;
        }
    }

    /// Protect the plain APDU at `to_send[start..]` as the profile says and complete the frame that `frame` began; in
    /// blocks if it is longer than the meter takes.
    fn send(&mut self, kind: KeyKind, frame: usize, start: usize, cx: &mut Context<'_>) -> Result<(), Exhausted> {
        self.seal(kind, frame, start, cx)?;
        self.blocks = None;
        if !self.cut(frame, start, cx) {
            // An APDU of ours always fits the wrapper: `ask` compares it with the meter's limit, which has 16 bits.
            let _ = self.link.finish(cx.to_send, frame, cx.now.monotonic);
        }
        self.note_counters(cx);
        Ok(())
    }

    fn seal(&mut self, kind: KeyKind, frame: usize, start: usize, cx: &mut Context<'_>) -> Result<(), Exhausted> {
        if let Some(channel) = self.channel.as_mut().filter(|_| self.profile.is_ciphered()) {
            let (profile, form) = (&self.profile, self.profile.ciphering);
            if channel.protect(profile, form, kind, cx.random, cx.to_send, start).is_err() {
                // All else that could be wanting was there when this session was made.
                cx.to_send.truncate(frame);
                return Err(Exhausted);
            }
        }
        Ok(())
    }

    fn note_counters(&mut self, cx: &mut Context<'_>) {
        let left = self.channel.as_ref().map_or(u32::MAX, |channel| channel.counters().left());
        if left < COUNTERS_LOW && !self.low_reported {
            self.low_reported = true;
            cx.batch.event(self.meter, cx.now.wall, EventKind::CountersLow, i64::from(left), "");
        }
    }

    /// A deadline passed: whose?
    fn wake(&mut self, cx: &mut Context<'_>) -> Step<Work> {
        let now = cx.now.monotonic;
        let mut step = self.settled(0);
        let limits = self.profile.limits;
        if let Err(error) = self.link.wake(&limits, now, cx.to_send) {
            let detail = error.to_string();
            cx.batch.event(self.meter, cx.now.wall, EventKind::Disconnected, 0, detail.clone());
            self.abandon(&mut step, Outcome::Interrupted, detail);
            return step;
        }
        if self.link.has_more() {
            return self.take_bytes(&mut [], cx);
        }
        let waited = |since: Instant, limit: Duration| since + limit <= now;
        let late = match self.state {
            State::Down => None,
            State::Associating | State::Proving if waited(self.since, self.patience(limits.associate)) => {
                Some("no association")
            }
            State::Releasing if waited(self.since, limits.answer) => Some("no answer to the release"),
            State::Up if self.asking && waited(self.since, self.patience(limits.answer)) => Some("no answer"),
            _ if self.partial_since.is_some_and(|since| waited(since, limits.frame)) => Some("half a frame"),
            _ => None,
        };
        if late.is_none() && self.blocks_due().is_some_and(|due| due <= now) {
            self.repeat_blocks(cx);
            step.deadline = self.deadline();
        }
        if let Some(what) = late {
            if self.ask_again(&mut step, cx) {
                return step;
            }
            let detail = format!("{what} within its time");
            cx.batch.event(self.meter, cx.now.wall, EventKind::Disconnected, 0, detail.clone());
            self.abandon(&mut step, Outcome::Interrupted, detail);
            return step;
        }
        if self.current.as_ref().is_some_and(|request| request.deadline <= now) {
            // The question may still be on the wire: its answer will find nobody and be dropped.
            let outcome = self.worst(Outcome::TimedOut);
            self.finish(&mut step, outcome, "the deadline passed");
        } else if self.state == State::Up && !self.asking && waited(self.since, self.profile.heartbeat) {
            self.sign_of_life(&mut step, cx);
        }
        step
    }
}

/// What a broken rule is reported as.
fn kind_of(error: &ProtocolError) -> EventKind {
    match error.code {
        "tag-invalid" => EventKind::TagInvalid,
        "replay" => EventKind::ReplayRefused,
        "weaker-security" | "broadcast-key" | "compression" | "compression-unsupported" => EventKind::WeakerSecurity,
        "system-title" => EventKind::SystemTitleMismatch,
        "bad-signature" | "bad-wrapped-key" | "bad-public-key" | "bad-proof" | "reflection" => {
            EventKind::AuthenticationFailed
        }
        _ => EventKind::ProtocolViolation,
    }
}

impl Session for HeadEnd {
    type Work = Work;
    type Control = Control;

    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        let step = self.take(input, cx);
        if self.link.is_active() { self.after_link(step, cx) } else { step }
    }

    fn ready(&self) -> bool {
        self.current.is_none() && !self.asking && !matches!(self.state, State::Down | State::Releasing)
    }

    fn associated(&self) -> bool {
        self.state == State::Up
    }

    /// Over the wrapper on a stream, where peers that dial in are greeted.
    fn challenger(&mut self) -> Option<Self> {
        if self.state != State::Up || !self.profile.authentication.is_high() {
            return None;
        }
        let channel = match &mut self.channel {
            // What is under way here keeps what it needs.
            Some(channel) if channel.is_keyed() && channel.counters().left() < COUNTERS_LOW + CHALLENGE => return None,
            Some(channel) => Some(Box::new(channel.split(CHALLENGE)?)),
            None => None,
        };
        let password = self.password.clone();
        Some(Self { channel, password, ..Self::open(self.meter, self.profile.clone()) })
    }
}

impl HeadEnd {
    fn take(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        match input {
            Input::Bytes(octets) => self.take_bytes(octets, cx),
            Input::Request(request) => {
                let mut step = self.settled(0);
                debug_assert!(self.current.is_none(), "a request was given to a session that is not ready");
                self.current = Some(request);
                self.progress.clear();
                if self.state == State::Up && !self.asking {
                    self.ask(&mut step, cx);
                } else {
                    step.deadline = self.deadline();
                }
                step
            }
            Input::Deadline => self.wake(cx),
            Input::Opened => self.associate(cx),
            Input::Control(Control::Grant { next, end }) => {
                if self.channel.as_mut().is_some_and(|channel| channel.grant(next, end)) {
                    self.low_reported = false;
                }
                self.settled(0)
            }
            Input::Control(Control::Confirm(number)) => {
                self.confirm(number, cx);
                self.settled(0)
            }
            Input::Control(Control::Hear { number, mut wpdu }) => {
                self.hear(number, &mut wpdu, cx);
                self.settled(0)
            }
            Input::Control(Control::Rekey { keys, next, end }) => {
                let counters = CounterBlock::new(next, end);
                match self.channel.as_mut().map(|channel| channel.renew(&keys, counters)) {
                    Some(Err(error)) => {
                        let detail = format!("{}: {error}", error.code);
                        cx.batch.event(self.meter, cx.now.wall, EventKind::ProtocolViolation, 0, detail);
                    }
                    _ => self.low_reported = false,
                }
                self.settled(0)
            }
            Input::Cancel(id) => {
                let mut step = self.settled(0);
                if self.current.as_ref().is_some_and(|request| request.id == id) {
                    let outcome = self.worst(Outcome::Cancelled);
                    self.finish(&mut step, outcome, "");
                }
                step
            }
            Input::Probe => {
                let mut step = self.settled(0);
                if self.state == State::Up && !self.asking {
                    self.sign_of_life(&mut step, cx);
                }
                step
            }
            Input::Release => self.release(cx),
            Input::Closed => {
                let mut step = self.settled(0);
                let outcome = self.worst(Outcome::Interrupted);
                self.finish(&mut step, outcome, "the connection was closed");
                self.state = State::Down;
                self.asking = false;
                self.blocks = None;
                self.partial_since = None;
                self.link.reset();
                step.deadline = None;
                step
            }
        }
    }

    /// What a link that speaks for itself adds to a step.
    fn after_link(&mut self, mut step: Step<Work>, cx: &mut Context<'_>) -> Step<Work> {
        if step.transport == Transport::Close {
            self.link.hang_up(cx.to_send);
        } else if self.state != State::Down {
            self.link.settle(cx.now.monotonic, cx.to_send);
            step.deadline = self.deadline();
        }
        if let (Transport::Keep, Some(settings)) = (step.transport, self.link.take_serial()) {
            step.transport = Transport::Serial(settings);
        }
        step
    }
}
