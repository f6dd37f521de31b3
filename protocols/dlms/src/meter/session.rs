//! The meter's role: accept an association that the settings allow, prove and be proved to, answer.
//!
//! ```text
//! Down --Opened--> Idle --AARQ--> [Proving --reply_to_HLS--> ] Up --RLRQ--> Idle
//! ```

use std::sync::Arc;

use ipss_session::{
    Context, EventKind, Input, Instant, Limits, MeterId, Outcome, ProtocolError, Request, Session, Step, Transport,
};

use super::associate::Heard;
use super::general_block::Blocks;
use super::objects::Lent;
use super::transfer::{Question, Transfer};
use super::{Access, Fault, Objects};
use crate::apdu::ciphered::{CipheredApdu, is_protected};
use crate::apdu::exception::ExceptionResponse;
use crate::apdu::initiate::Conformance;
use crate::apdu::notification::DataNotificationConfirm;
use crate::apdu::tags::{self, KeyKind};
use crate::cosem::AttributeDescriptor;
use crate::link::{Apdu, Link, LinkConfig, Received};
use crate::profile::{Authentication, Ciphering, Profile, Referencing};
use crate::security::hls::Challenges;
use crate::security::{Channel, CounterBlock};

/// What meters of one model share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One profile for each client that may associate; its `client` is the key. The meter's own `max_pdu` and
    /// `conformance` are what it answers with.
    pub clients: Vec<Profile>,
    /// Octets of the largest APDU that the meter sends, whatever the head-end would take.
    pub largest_answer: usize,
    /// Report each invocation counter that arrives, used or not ([`EventKind::NonceSeen`]).
    pub log_nonces: bool,
}

/// One virtual meter.
#[derive(Debug)]
pub struct Meter<O> {
    pub(super) meter: MeterId,
    pub(super) settings: Arc<Settings>,
    pub(super) link: Link,
    /// What it measures and switches.
    pub objects: O,
    pub(super) channel: Channel,
    pub(super) password: Box<[u8]>,
    pub(super) fault: Fault,
    pub(super) state: State,
    /// Which of the settings' clients is associated, or associating.
    pub(super) client: usize,
    pub(super) conformance: Conformance,
    /// The largest APDU that the head-end takes.
    pub(super) client_max_pdu: usize,
    /// The form of the last request: answers take it too.
    pub(super) form: Ciphering,
    pub(super) challenges: Option<Box<Challenges>>,
    pub(super) transfer: Transfer,
    /// Blocks of general block transfer on their way.
    pub(super) blocks: Option<Box<Blocks>>,
    /// The request in work came in such blocks, so its answer goes in them.
    pub(super) in_blocks: bool,
    /// An answer that is sent late, and when.
    pub(super) delayed: Option<(Instant, Vec<u8>)>,
    /// The last answer, for a meter that repeats it.
    pub(super) last_answer: Vec<u8>,
    pub(super) answers: u32,
    /// What is being answered told it to do something.
    pub(super) acted: bool,
    /// The last AARQs and blocks that came as datagrams.
    pub(super) heard: Heard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Down,
    Idle,
    Proving,
    Up,
}

/// What the owner of a virtual meter may tell it.
#[derive(Clone, Debug)]
pub enum MeterControl {
    /// Behave like this from now on.
    Fault(Fault),
    /// Send a data-notification with this body (A-XDR) on the open association or, unprotected, on the open line.
    Notify(Vec<u8>),
    /// The same, to be confirmed by the head-end.
    NotifyConfirmed(Vec<u8>),
    /// Send an event-notification: an attribute and its value (A-XDR).
    Event(AttributeDescriptor, Vec<u8>),
    /// Send an information-report: short names and their values (A-XDR).
    Report(Vec<(u16, Vec<u8>)>),
}

impl<O: Objects> Meter<O> {
    /// A meter with its objects, keys and password. `channel` is the meter's end: its own title and counters; the
    /// head-end's title is learnt from the AARQ.
    pub fn new(meter: MeterId, settings: Arc<Settings>, objects: O, channel: Channel, password: &[u8]) -> Self {
        Self {
            meter,
            settings,
            link: Link::meter(&LinkConfig::default()),
            objects,
            channel,
            password: password.into(),
            fault: Fault::None,
            state: State::Down,
            client: 0,
            conformance: Conformance::NONE,
            client_max_pdu: 0,
            form: Ciphering::ServiceSpecific,
            challenges: None,
            transfer: Transfer::default(),
            blocks: None,
            in_blocks: false,
            delayed: None,
            last_answer: Vec::new(),
            answers: 0,
            acted: false,
            heard: Heard::default(),
        }
    }

    /// The same, misbehaving.
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// The same, over another link than the wrapper on a stream.
    #[must_use]
    pub fn with_link(mut self, config: &LinkConfig) -> Self {
        self.link = Link::meter(config);
        self
    }

    pub(super) fn profile(&self) -> &Profile {
        &self.settings.clients[self.client]
    }

    fn access(&self) -> Access {
        let profile = self.profile();
        Access { client: profile.client, authenticated: profile.authentication != Authentication::None }
    }

    /// Octets left for the plain part of an answer.
    fn largest_answer(&self) -> usize {
        let around = self.profile().overhead();
        self.settings.largest_answer.min(self.client_max_pdu).saturating_sub(around).max(32)
    }

    fn take_bytes(&mut self, octets: &mut [u8], cx: &mut Context<'_>) -> Step<()> {
        let mut step = Step::wait(self.delayed.as_ref().map(|(at, _)| *at));
        if self.fault == Fault::Silent {
            step.consumed = octets.len();
            return step;
        }
        let limits = Limits::default();
        while step.transport == Transport::Keep {
            let start = step.consumed;
            let found = self.link.next(&octets[start..], &limits, cx.now.monotonic, cx.to_send);
            let Ok((taken, received)) = found else {
                step.transport = Transport::Close;
                break;
            };
            step.consumed += taken;
            match received {
                Received::Apdu { source, destination, apdu } => {
                    let before = cx.to_send.len();
                    let taken = match apdu {
                        Apdu::Here(place) => {
                            let apdu = &mut octets[start + place.start..start + place.end];
                            self.take_apdu(apdu, source, destination, cx)
                        }
                        Apdu::Held(mut apdu) => self.take_apdu(&mut apdu, source, destination, cx),
                    };
                    if taken.is_err() {
                        step.transport = Transport::Close;
                    }
                    self.misbehave(before, &mut step, cx);
                }
                Received::Nothing => break,
                Received::Opened | Received::Closed(_) => self.end(),
                Received::Progress | Received::Dropped(_) => {}
            }
        }
        step
    }

    pub(super) fn take_apdu(
        &mut self,
        apdu: &mut [u8],
        client: u16,
        server: u16,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let tag = apdu.first().copied().unwrap_or_default();
        match tag {
            tags::AARQ => return self.take_aarq(apdu, client, server, cx),
            tags::RLRQ => return self.take_release(apdu, client, server, cx),
            _ => {}
        }
        if self.state == State::Idle || (client, server) != (self.profile().client, self.profile().server) {
            return self.refuse(client, server, SERVICE_NOT_ALLOWED, cx);
        }
        if tag == tags::GENERAL_BLOCK_TRANSFER {
            return self.take_general_block(apdu, (client, server), cx);
        }
        if !self.profile().is_ciphered() {
            if self.link.is_lossy() && self.heard.is_block_again(apdu) {
                self.pass_over(cx);
                return Ok(());
            }
            return self.serve(apdu, cx);
        }
        if self.settings.log_nonces {
            self.note_nonce(apdu, cx);
        }
        if !is_protected(tag) {
            return self.refuse(client, server, SERVICE_UNKNOWN, cx);
        }
        self.form = match tag {
            tags::GENERAL_GLO_CIPHERING | tags::GENERAL_DED_CIPHERING => Ciphering::General,
            tags::GENERAL_CIPHERING | tags::GENERAL_SIGNING => self.profile().ciphering,
            _ => Ciphering::ServiceSpecific,
        };
        let profile = &self.settings.clients[self.client];
        match self.channel.unprotect(profile, apdu) {
            Ok(plain) => self.serve(&apdu[plain.start..plain.end], cx),
            Err(error) if error.code == "replay" && self.link.is_lossy() => {
                self.pass_over(cx);
                Ok(())
            }
            Err(error) if error.code == "replay" => {
                let expected = self.channel.peer_counter().highest().map_or(0, |highest| highest.saturating_add(1));
                let frame = self.link.begin(cx.to_send, server, client);
                let service_error = ExceptionResponse::INVOCATION_COUNTER_ERROR;
                let state_error = SERVICE_NOT_ALLOWED;
                ExceptionResponse { state_error, service_error, invocation_counter: Some(expected) }.encode(cx.to_send);
                self.link.finish(cx.to_send, frame, cx.now.monotonic)
            }
            Err(error) => {
                cx.batch.event(self.meter, cx.now.wall, EventKind::TagInvalid, 0, error.to_string());
                self.refuse(client, server, SERVICE_NOT_ALLOWED, cx)
            }
        }
    }

    /// Serve an opened request.
    fn serve(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        if self.state == State::Proving {
            return self.take_proof(apdu, cx);
        }
        if self.settings.log_nonces {
            cx.batch.event(self.meter, cx.now.wall, EventKind::Served, apdu.first().copied().map_or(0, i64::from), "");
        }
        if let Some(&tags::DATA_NOTIFICATION_CONFIRM) = apdu.first() {
            let number = DataNotificationConfirm::decode(apdu)?.long_invoke_id_and_priority;
            cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, i64::from(number), "confirmed");
            return Ok(());
        }
        self.acted = apdu.first() == Some(&tags::ACTION_REQUEST);
        let profile = &self.settings.clients[self.client];
        let frame = self.link.begin(cx.to_send, profile.server, profile.client);
        let start = cx.to_send.len();
        let (access, largest) = (self.access(), self.largest_answer());
        if let Some(highest) = self.channel.peer_counter().highest() {
            self.objects.counter_believed(highest);
        }
        let short = profile.referencing == Referencing::ShortName;
        let names = if short { self.objects.short_names() } else { None };
        let mut objects = Lent { objects: &mut self.objects, random: &mut *cx.random };
        let mut question = Question {
            access,
            largest,
            conformance: self.conformance,
            now: cx.now,
            limits: Limits::default(),
            names,
            quirks: profile.quirks,
            objects: &mut objects,
        };
        let answered = self.transfer.answer(&mut question, apdu, cx.to_send);
        if answered.is_err() {
            cx.to_send.truncate(frame); // nothing goes out of an answer that there is none to
        }
        answered?;
        let new = if self.transfer.is_done() { self.objects.new_keys() } else { None };
        if cx.to_send.len() == start {
            cx.to_send.truncate(frame); // an unconfirmed service
        } else {
            self.seal(frame, start, KeyKind::Dedicated, cx)?;
            self.deliver(frame, start, cx)?;
        }
        // The whole answer went out under the old keys.
        new.map_or(Ok(()), |new| self.channel.renew(&new, CounterBlock::new(0, u32::MAX)))
    }

    /// Protect the answer at `to_send[start..]` and complete its frame.
    pub(super) fn protect(
        &mut self,
        frame: usize,
        start: usize,
        kind: KeyKind,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        self.seal(frame, start, kind, cx)?;
        self.link.finish(cx.to_send, frame, cx.now.monotonic)
    }

    /// Protect the APDU at `to_send[start..]`; its frame is left open.
    pub(super) fn seal(
        &mut self,
        frame: usize,
        start: usize,
        kind: KeyKind,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let profile = &self.settings.clients[self.client];
        if profile.is_ciphered() && self.fault != Fault::Plaintext {
            if let Err(error) = self.channel.protect(profile, self.form, kind, cx.random, cx.to_send, start) {
                cx.to_send.truncate(frame);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn refuse(
        &mut self,
        client: u16,
        server: u16,
        state_error: u8,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let frame = self.link.begin(cx.to_send, server, client);
        // 1: operation-not-possible.
        ExceptionResponse { state_error, service_error: 1, invocation_counter: None }.encode(cx.to_send);
        self.link.finish(cx.to_send, frame, cx.now.monotonic)
    }

    pub(super) fn note_nonce(&self, apdu: &[u8], cx: &mut Context<'_>) {
        if let Ok(frame) = CipheredApdu::decode(apdu) {
            let key = if frame.key == KeyKind::Global { "global" } else { "dedicated" };
            let counter = i64::from(frame.invocation_counter);
            cx.batch.event(self.meter, cx.now.wall, EventKind::NonceSeen, counter, key);
        }
    }

    pub(super) fn end(&mut self) {
        self.state = State::Idle;
        self.challenges = None;
        self.transfer = Transfer::default();
        self.blocks = None;
        self.in_blocks = false;
        self.channel.begin();
    }
}

/// State errors of an exception-response.
pub(super) const SERVICE_NOT_ALLOWED: u8 = 1;
pub(super) const SERVICE_UNKNOWN: u8 = 2;

impl<O: Objects> Session for Meter<O> {
    type Work = ();
    type Control = MeterControl;

    fn step(&mut self, input: Input<'_, (), MeterControl>, cx: &mut Context<'_>) -> Step<()> {
        let step = self.take(input, cx);
        if self.link.is_active() { self.after_link(step, cx) } else { step }
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        self.state == State::Up
    }
}

impl<O: Objects> Meter<O> {
    fn take(&mut self, input: Input<'_, (), MeterControl>, cx: &mut Context<'_>) -> Step<()> {
        match input {
            Input::Bytes(octets) => {
                let step = self.take_bytes(octets, cx);
                if let Some(body) = self.objects.push_due(cx.now) {
                    self.notify(&body, false, cx);
                }
                step
            }
            Input::Opened => {
                self.end();
                self.delayed = None;
                self.link.open(cx.now.monotonic, cx.to_send);
                Step::wait(None)
            }
            Input::Deadline => {
                if self.link.wake(&Limits::default(), cx.now.monotonic, cx.to_send).is_err() {
                    return Step { transport: Transport::Close, ..Step::wait(None) };
                }
                if self.link.has_more() {
                    return self.take_bytes(&mut [], cx);
                }
                if self.delayed.as_ref().is_some_and(|(at, _)| *at <= cx.now.monotonic) {
                    if let Some((_, octets)) = self.delayed.take() {
                        cx.to_send.extend_from_slice(&octets);
                    }
                }
                Step::wait(self.delayed.as_ref().map(|(at, _)| *at))
            }
            Input::Control(control) => {
                match control {
                    MeterControl::Fault(fault) => self.fault = fault,
                    MeterControl::Notify(body) => self.notify(&body, false, cx),
                    MeterControl::NotifyConfirmed(body) => self.notify(&body, true, cx),
                    MeterControl::Event(descriptor, value) => self.notify_event(descriptor, &value, cx),
                    MeterControl::Report(values) => self.report(&values, cx),
                }
                Step::wait(self.delayed.as_ref().map(|(at, _)| *at))
            }
            Input::Closed => {
                self.end();
                self.state = State::Down;
                self.delayed = None;
                self.link.reset();
                Step::wait(None)
            }
            Input::Request(request) => {
                let request: Request<()> = request;
                Step { finished: Some((request, Outcome::Impossible)), ..Step::wait(None) }
            }
            Input::Release => Step { transport: Transport::Close, ..Step::wait(None) },
            Input::Cancel(_) | Input::Probe => Step::wait(self.delayed.as_ref().map(|(at, _)| *at)),
        }
    }

    /// What a link that speaks for itself adds to a step.
    fn after_link(&mut self, mut step: Step<()>, cx: &mut Context<'_>) -> Step<()> {
        if step.transport == Transport::Close {
            self.link.hang_up(cx.to_send);
        } else {
            // A silent meter, and one that answers late, leave a poll unanswered.
            if self.fault != Fault::Silent && self.delayed.is_none() {
                self.link.settle(cx.now.monotonic, cx.to_send);
            }
            step.deadline = step.deadline.into_iter().chain(self.link.deadline()).min();
        }
        if let (Transport::Keep, Some(settings)) = (step.transport, self.link.take_serial()) {
            step.transport = Transport::Serial(settings);
        }
        step
    }
}
