//! What the reactor keeps of one peer: its session, its connection, and the requests that wait for it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipss_session::{Instant, MeterId, Outcome, RequestId};

use super::endpoint::{Endpoint, LineKey};
use super::inbound::NO_METER;
use super::network::{Nature, Token};
use super::queue::Queue;

/// A meter as its owner hands it to the reactor.
#[derive(Clone, Debug)]
pub struct NewMeter<S> {
    /// The owner's number for it. Never used again for another meter.
    pub meter: MeterId,
    /// Its session: lives as long as the meter is known, over all its connections.
    pub session: S,
    /// Where to reach it.
    pub route: Route,
    /// What it may call itself when it dials in (logical device name, system title).
    pub identities: Vec<Vec<u8>>,
}

/// How a meter is reached.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where it listens; `None` if it only dials in.
    pub address: Option<Endpoint>,
    /// The address to dial from; `None` for any.
    pub local: Option<IpAddr>,
    /// When to connect and when to close.
    pub hold: Hold,
    /// Whether all meters of this address share one connection to it: the devices behind a gateway or a concentrator,
    /// or on one line. A serial line that is not shared is held by one meter, or by none.
    pub shared: Option<Share>,
}

/// How a connection is shared: its meters take turns, so that each has it for itself while it is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Silence between the end of one meter's turn and the start of the next.
    pub gap: Duration,
}

/// When a meter's connection is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Always: opened at once, and again after each loss.
    Open,
    /// While there are requests, and for this long after the last one.
    OnDemand {
        /// Quiet time after which the association is released and the connection closed.
        idle: Duration,
    },
}

impl Route {
    /// Dial `address` and keep the connection.
    pub fn held(address: impl Into<Endpoint>) -> Self {
        Self { address: Some(address.into()), local: None, hold: Hold::Open, shared: None }
    }

    /// Dial `address` when there is something to ask; close after `idle`.
    pub fn on_demand(address: impl Into<Endpoint>, idle: Duration) -> Self {
        Self { address: Some(address.into()), local: None, hold: Hold::OnDemand { idle }, shared: None }
    }

    /// Wait until the meter dials in.
    pub fn inbound() -> Self {
        Self { address: None, local: None, hold: Hold::Open, shared: None }
    }

    /// Share the connection with all others of this address that do.
    pub fn shared(self, share: Share) -> Self {
        Self { shared: Some(share), ..self }
    }

    /// The connection that it shares, if it shares one.
    pub(super) fn line(&self) -> Option<LineKey> {
        let address = self.address.as_ref()?;
        self.shared.is_some().then(|| address.key())
    }
}

/// One peer. Generic over its session and the network's socket.
pub(super) struct Entry<S: ipss_session::Session, K> {
    pub session: S,
    pub meter: MeterId,
    pub route: Route,
    /// The shared connection that it takes turns on.
    pub line: Option<u32>,
    pub state: State,
    pub link: Option<Link<K>>,
    pub queue: Queue<S::Work>,
    pub active: Held,
    /// What the session asked for; the end of the clock if nothing.
    pub session_deadline: Instant,
    /// What belongs to `state`; the end of the clock if nothing.
    pub state_deadline: Instant,
    /// The earliest deadline in `queue`.
    pub queue_deadline: Instant,
    /// When its timer fires, which is not after the earliest of the deadlines.
    pub armed: Instant,
    /// Connections in a row that came to nothing.
    pub failures: u32,
    /// The session greets an inbound connection whose meter is not known yet: from where it came.
    pub greeter: Option<Box<SocketAddr>>,
    /// Somebody else who claims to be this meter may prove it from this moment on.
    pub challenge_from: Instant,
    /// Counted as associated.
    pub associated: bool,
    /// The session panicked: it is never stepped again.
    pub dead: bool,
}

/// Where a peer's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// None, and none wanted (or we wait for the meter to dial in).
    Idle,
    /// None; waits for admission.
    Waiting,
    /// Being opened.
    Connecting,
    /// Open, not associated.
    Associating,
    /// Open and associated.
    Open,
    /// Open, and told to end in good order.
    Releasing,
    /// None for a while, after failures.
    BackingOff,
}

/// An open (or opening) connection.
pub(super) struct Link<K> {
    pub socket: K,
    /// Tells this connection's events from those of an earlier one of the same peer.
    pub epoch: u32,
    /// The start of a frame that is not complete.
    pub received: Vec<u8>,
    /// What the transport has not taken yet.
    pub unsent: Vec<u8>,
    /// When the frame that has begun must be complete; the end of the clock if none has.
    pub frame_deadline: Instant,
    pub last_received: Instant,
    pub opened: Instant,
    /// A request was answered over it.
    pub useful: bool,
    /// The association has stood.
    pub associated: bool,
    /// Reading stopped in the middle; it is in the list of those to go on with.
    pub deferred: bool,
    pub inbound: bool,
    /// The peer will send no more: read until the end shows.
    pub ended: bool,
    /// Why no association can stand, if the session said so.
    pub rejected: Option<Outcome>,
    pub nature: Nature,
    /// The transport failed: it carries nothing more.
    pub broken: bool,
    /// The peer broke its protocol.
    pub confused: bool,
    /// A turn on a connection that was open already.
    pub turn: bool,
    /// Something came over it.
    pub heard: bool,
    /// A request ended without the peer's answer.
    pub failed: bool,
    /// Others wait for the shared connection: no further request is given.
    pub yields: bool,
    /// Requests given.
    pub served: u16,
    /// The session has told why the connection ends: that is the end's one event.
    pub told: bool,
}

impl<K> Link<K> {
    pub fn new(socket: K, token: Token, nature: Nature, now: Instant, inbound: bool) -> Self {
        Self {
            socket,
            epoch: (token >> 32) as u32,
            received: Vec::new(),
            unsent: Vec::new(),
            frame_deadline: NEVER,
            last_received: now,
            opened: now,
            useful: false,
            associated: false,
            deferred: false,
            inbound,
            ended: false,
            rejected: None,
            nature,
            broken: false,
            confused: false,
            turn: false,
            heard: false,
            failed: false,
            yields: false,
            served: 0,
            told: false,
        }
    }
}

/// The requests that the session holds: most sessions hold one at a time, and for those nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Held {
    first: Option<Active>,
    /// Empty while there is no first.
    more: Vec<Active>,
}

impl Held {
    /// Note that the session was given one.
    #[inline]
    pub fn add(&mut self, active: Active) {
        if self.first.is_none() {
            self.first = Some(active);
        } else {
            self.more.push(active);
        }
    }

    /// Take out the one of this number; `None` if the session was never given it.
    #[inline]
    pub fn remove(&mut self, id: RequestId) -> Option<Active> {
        if self.first.is_some_and(|first| first.id == id) {
            let next = self.more.pop();
            return std::mem::replace(&mut self.first, next);
        }
        let place = self.more.iter().position(|active| active.id == id)?;
        Some(self.more.swap_remove(place))
    }

    /// The one of this number.
    pub fn find(&mut self, id: RequestId) -> Option<&mut Active> {
        self.first.iter_mut().chain(&mut self.more).find(|active| active.id == id)
    }

    /// Take out any of them.
    pub fn pop(&mut self) -> Option<Active> {
        self.more.pop().or_else(|| self.first.take())
    }

    /// One whose deadline has passed.
    pub fn overdue(&self, now: Instant) -> Option<RequestId> {
        self.iter().find(|active| active.deadline <= now).map(|active| active.id)
    }

    /// The earliest of their deadlines; the end of the clock if there are none.
    #[inline]
    pub fn deadline(&self) -> Instant {
        self.iter().map(|active| active.deadline).min().unwrap_or(NEVER)
    }

    /// Nobody wants any of them any more.
    pub fn cancel_all(&mut self) {
        self.first.iter_mut().chain(&mut self.more).for_each(|active| active.cancelled = true);
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &Active> {
        self.first.iter().chain(&self.more)
    }
}

/// A request that the session holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active {
    pub id: RequestId,
    pub accepted: Instant,
    pub deadline: Instant,
    pub age: u64,
    /// Its owner withdrew it.
    pub cancelled: bool,
}

/// A moment that never comes.
pub(super) const NEVER: Instant = Instant(u64::MAX);

impl<S: ipss_session::Session, K> Entry<S, K> {
    pub fn new(meter: MeterId, session: S, route: Route, greeter: Option<SocketAddr>) -> Self {
        Self {
            session,
            meter,
            route,
            line: None,
            state: State::Idle,
            link: None,
            queue: Queue::default(),
            active: Held::default(),
            session_deadline: NEVER,
            state_deadline: NEVER,
            queue_deadline: NEVER,
            armed: NEVER,
            failures: 0,
            greeter: greeter.map(Box::new),
            challenge_from: Instant::ORIGIN,
            associated: false,
            dead: false,
        }
    }

    /// Whether its session has a refused connection prove itself, for a meter that has another one.
    #[inline]
    pub fn challenges(&self) -> bool {
        self.greeter.is_some() && self.meter != NO_METER
    }

    /// The earliest of everything that has to happen at some moment.
    #[inline]
    pub fn deadline(&self) -> Instant {
        let mut deadline = self.session_deadline.min(self.state_deadline).min(self.queue_deadline);
        deadline = deadline.min(self.active.deadline());
        if let Some(link) = &self.link {
            deadline = deadline.min(link.frame_deadline);
        }
        deadline
    }

    /// Whether a connection that is not there should be opened by us.
    pub fn wants_connection(&self) -> bool {
        // A shared connection is nobody's to hold.
        let held = self.route.hold == Hold::Open && self.line.is_none();
        self.route.address.is_some() && !self.dead && (held || !self.queue.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use ipss_session::{Context, Input, Session, Step};

    use super::*;

    struct Nothing;

    impl Session for Nothing {
        type Work = std::sync::Arc<()>;
        type Control = ();

        fn step(&mut self, _: Input<'_, Self::Work, ()>, _: &mut Context<'_>) -> Step<Self::Work> {
            Step::wait(None)
        }

        fn ready(&self) -> bool {
            false
        }

        fn associated(&self) -> bool {
            false
        }
    }

    #[test]
    fn each_request_that_is_held_is_found_again_and_no_other() {
        let active =
            |id, deadline| Active { id, accepted: Instant(0), deadline: Instant(deadline), age: id, cancelled: false };
        let mut held = Held::default();
        for (id, deadline) in [(7, 30), (8, 10), (9, 20)] {
            held.add(active(id, deadline));
        }

        assert_eq!(held.deadline(), Instant(10));
        assert_eq!(held.overdue(Instant(10)), Some(8));
        assert!(held.remove(6).is_none());
        assert_eq!(held.remove(7).map(|one| one.id), Some(7));
        assert!(held.remove(7).is_none() && held.find(9).is_some());
        assert_eq!(held.remove(8).map(|one| one.id), Some(8));
        assert!(!held.is_empty());
        assert_eq!(held.pop().map(|one| one.id), Some(9));
        assert!(held.is_empty() && held.deadline() == NEVER);
    }

    #[test]
    fn entry_costs_less_than_400_octets_beside_its_session() {
        assert!(size_of::<Option<Entry<Nothing, mio::net::TcpStream>>>() < 400);
    }
}
