//! What owners tell a turn, and the bounded queue through which they do; and what the turns of one reactor share.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ipss_session::{Instant, MeterId, Priority, RequestId, Session};
use thiserror::Error;

use super::endpoint::LineKey;
use super::entry::NewMeter;
use super::guard::Guard;
use super::handover::{Handover, Wake};
use super::network::{Inbound, Network};
use super::stats::Stats;

/// One piece of work for many meters.
#[derive(Clone, Debug)]
pub struct Submission<W> {
    /// What to do; cloned for each meter, so cheap to clone (an `Arc`).
    pub work: W,
    /// Whom to ask, each with the distance of its request's number from `ids_from`.
    pub meters: Vec<(MeterId, u32)>,
    /// The lowest of the requests' numbers.
    pub ids_from: RequestId,
    /// When nobody wants the answers any more.
    pub deadline: Instant,
    /// Their place in the meters' queues.
    pub priority: Priority,
    /// How often each may be tried in all; 0 counts as 1.
    pub attempts: u8,
}

/// What becomes of an inbound connection, by the owner's word.
pub enum Accepted<S> {
    /// It is for this meter.
    Meter {
        /// The meter, known to the reactor.
        meter: MeterId,
        /// Whether it replaces a connection that is associated. A head-end never lets it; a virtual meter does, as
        /// its head-end may have lost the old connection without a word.
        newest_wins: bool,
    },
    /// Nobody knows yet: this session finds out who it is ([`ipss_session::Step::identified`]).
    Greet(S),
    /// Nobody wants it.
    Refuse,
}

/// Decides about inbound connections from our address and the peer's. Called on a reactor thread: it must not block.
pub type Acceptor<S> = dyn Fn(SocketAddr, SocketAddr) -> Accepted<S> + Send + Sync;

/// An inbound connection on its way to the meter that it is said to belong to.
pub(super) struct Adoption<K> {
    pub meter: MeterId,
    pub inbound: Inbound<K>,
    pub received: Vec<u8>,
    pub newest_wins: bool,
    /// What the peer said it is, for the event if it is refused.
    pub claim: String,
}

/// One thing told to a turn.
pub(super) enum Command<S: Session, N: Network> {
    Submit(Submission<S::Work>),
    Cancel(Vec<(MeterId, RequestId)>),
    Add(Vec<NewMeter<S>>),
    Remove(Vec<MeterId>),
    Control(Vec<(MeterId, S::Control)>),
    Listen(N::Listener, Arc<Acceptor<S>>),
    Adopt(Adoption<N::Socket>),
}

impl<S: Session, N: Network> Command<S, N> {
    /// How much of the queue's bound it takes.
    fn weight(&self) -> usize {
        match self {
            Self::Submit(submission) => submission.meters.len(),
            Self::Cancel(requests) => requests.len(),
            Self::Add(meters) => meters.len(),
            Self::Remove(meters) => meters.len(),
            Self::Control(controls) => controls.len(),
            Self::Listen(..) | Self::Adopt(_) => 1,
        }
    }
}

/// Why the reactor did not take a command. Nothing of the command was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The queue to the reactor is full.
    #[error(
        "{queued} commands wait for the reactor and {more} more would exceed its bound of {bound}; try again later"
    )]
    Full {
        /// Requests and other commands that wait.
        queued: usize,
        /// What was to be added.
        more: usize,
        /// The bound ([`super::Config::submissions`]).
        bound: usize,
    },
    /// The reactor drains or has stopped.
    #[error("the reactor is stopping and takes nothing new")]
    Stopping,
}

/// When the turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It does not.
    None,
    /// When all is done, and at this moment at the latest.
    Drain(Instant),
    /// Now.
    Stop,
}

/// The queue to one turn.
pub(super) struct Inbox<S: Session, N: Network> {
    state: Mutex<Incoming<S, N>>,
    /// Something is in it: looked at once a turn, without the lock.
    pending: AtomicBool,
    wake: Arc<dyn Wake>,
}

struct Incoming<S: Session, N: Network> {
    commands: VecDeque<Command<S, N>>,
    weight: usize,
    ending: Ending,
}

impl<S: Session, N: Network> Inbox<S, N> {
    pub fn new(wake: Arc<dyn Wake>) -> Self {
        let state = Incoming { commands: VecDeque::new(), weight: 0, ending: Ending::None };
        Self { state: Mutex::new(state), pending: AtomicBool::new(false), wake }
    }

    /// Whether `more` would fit.
    pub fn check(&self, more: usize, bound: usize) -> Result<(), SubmitError> {
        let state = self.lock();
        if state.ending != Ending::None {
            Err(SubmitError::Stopping)
        } else if more > 0 && state.weight + more > bound {
            Err(SubmitError::Full { queued: state.weight, more, bound })
        } else {
            Ok(())
        }
    }

    /// Put a command that [`Inbox::check`] let pass, or that is bounded by other means.
    pub fn push(&self, command: Command<S, N>) {
        let mut state = self.lock();
        state.weight += command.weight();
        state.commands.push_back(command);
        drop(state);
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.wake.wake();
        }
    }

    /// End the turn. A stop overrides a drain, never the other way round.
    pub fn end(&self, ending: Ending) {
        let mut state = self.lock();
        if state.ending != Ending::Stop {
            state.ending = ending;
        }
        drop(state);
        self.pending.store(true, Ordering::Release);
        self.wake.wake();
    }

    /// Move all that came to `backlog`; says whether and how to end. Commands count against the bound until
    /// [`Inbox::done`].
    pub fn collect(&self, backlog: &mut VecDeque<Command<S, N>>) -> Option<Ending> {
        if !self.pending.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut state = self.lock();
        backlog.append(&mut state.commands);
        Some(state.ending)
    }

    /// `weight` of what was collected has been carried out.
    pub fn done(&self, weight: usize) {
        if weight > 0 {
            self.lock().weight -= weight;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Incoming<S, N>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the turns of one reactor share.
pub(super) struct Shared<S: Session, N: Network> {
    pub inboxes: Vec<Arc<Inbox<S, N>>>,
    pub identities: RwLock<HashMap<Vec<u8>, MeterId>>,
    /// Connections open over all turns.
    pub connections: AtomicUsize,
    pub handover: Arc<Handover>,
    pub stats: Vec<Mutex<Stats>>,
    /// Meters that share a connection are served where it is, and not by their number.
    placed: RwLock<HashMap<MeterId, usize>>,
    any_placed: AtomicBool,
    /// Whose permit guarded work needs; without one nothing is guarded.
    pub guard: Option<Arc<dyn Guard<S::Work>>>,
}

impl<S: Session, N: Network> Shared<S, N> {
    pub fn new(
        inboxes: Vec<Arc<Inbox<S, N>>>,
        handover: Arc<Handover>,
        guard: Option<Arc<dyn Guard<S::Work>>>,
    ) -> Self {
        let stats = inboxes.iter().map(|_| Mutex::default()).collect();
        Self {
            inboxes,
            identities: RwLock::default(),
            connections: AtomicUsize::new(0),
            handover,
            stats,
            placed: RwLock::default(),
            any_placed: AtomicBool::new(false),
            guard,
        }
    }

    /// Which turn a meter belongs to.
    pub fn shard_of(&self, meter: MeterId) -> usize {
        if self.any_placed.load(Ordering::Relaxed) {
            let placed = self.placed.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(shard) = placed.get(&meter) {
                return *shard;
            }
        }
        meter as usize % self.inboxes.len()
    }

    /// Meters that share a connection belong to one turn.
    pub fn place(&self, sharers: impl Iterator<Item = (MeterId, LineKey)>) {
        if self.inboxes.len() == 1 {
            return;
        }
        let mut sharers = sharers.peekable();
        if sharers.peek().is_none() {
            return;
        }
        let mut placed = self.placed.write().unwrap_or_else(PoisonError::into_inner);
        for (meter, key) in sharers {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            let shard = (hasher.finish() % self.inboxes.len() as u64) as usize;
            let before = placed.insert(meter, shard).unwrap_or(meter as usize % self.inboxes.len());
            if before != shard {
                self.inboxes[before].push(Command::Remove(vec![meter]));
            }
        }
        self.any_placed.store(true, Ordering::Release);
    }
}
