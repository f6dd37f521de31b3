//! The owner's side: handles to submit, cancel and take; threads that run turns; or one turn to run by hand.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ipss_session::{Batch, Instant, MeterId, Now, Priority, RequestId, Session};

use super::command::{Acceptor, Command, Ending, Inbox, Shared, Submission, SubmitError};
use super::config::Config;
use super::entry::NewMeter;
use super::guard::Guard;
use super::handover::Handover;
use super::mio_network::{self, Clock, Listener, MioNetwork};
use super::network::Network;
use super::simulated::{SimulatedListener, SimulatedNetwork};
use super::stats::Stats;
use super::tls::TlsServer;
use super::turn::Engine;
use super::udp::UdpHub;

/// What an owner may do with a reactor, from any thread.
pub struct Handle<S: Session, N: Network> {
    shared: Arc<Shared<S, N>>,
    submissions: usize,
}

impl<S: Session, N: Network> Clone for Handle<S, N> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), submissions: self.submissions }
    }
}

impl<S: Session, N: Network> Handle<S, N>
where
    S::Work: Clone,
{
    /// Ask many meters for one piece of work. The request to `meters[i]` is numbered `ids_from + i`; each ends by one
    /// row in [`Batch::ends`], whatever happens, at `deadline` at the latest.
    ///
    /// `attempts`: how often each may be tried in all when the line breaks; 0 counts as 1.
    ///
    /// # Errors
    /// [`SubmitError`] if the queue to the reactor is full or it is stopping: then none of the requests was accepted.
    pub fn submit(
        &self,
        work: S::Work,
        meters: &[MeterId],
        ids_from: RequestId,
        deadline: Instant,
        priority: Priority,
        attempts: u8,
    ) -> Result<(), SubmitError> {
        let numbered = meters.iter().enumerate().map(|(offset, meter)| (*meter, offset as u32));
        self.scatter(
            numbered,
            |pair| pair.0,
            |meters| Command::Submit(Submission { work: work.clone(), meters, ids_from, deadline, priority, attempts }),
        )
    }

    /// Withdraw requests. Each that has not ended yet ends as cancelled, or as unknown if a write of it was sent.
    pub fn cancel(&self, requests: &[(MeterId, RequestId)]) -> Result<(), SubmitError> {
        self.scatter(requests.iter().copied(), |pair| pair.0, Command::Cancel)
    }

    /// Make meters known. Those that are held open are connected at once, as admission allows.
    pub fn add(&self, meters: Vec<NewMeter<S>>) -> Result<(), SubmitError> {
        self.shared.place(meters.iter().filter_map(|new| Some((new.meter, new.route.line()?))));
        self.scatter(meters.into_iter(), |meter| meter.meter, Command::Add)
    }

    /// Forget meters: their requests end as cancelled, their connections close.
    pub fn remove(&self, meters: &[MeterId]) -> Result<(), SubmitError> {
        self.scatter(meters.iter().copied(), |meter| *meter, Command::Remove)
    }

    /// Tell sessions something that is no request (granted invocation counters, new keys). Unknown meters are left
    /// out.
    pub fn control(&self, controls: Vec<(MeterId, S::Control)>) -> Result<(), SubmitError> {
        self.scatter(controls.into_iter(), |pair| pair.0, Command::Control)
    }

    /// Take inbound connections from `listener`; `acceptor` decides about each.
    pub fn listen_on(&self, listener: N::Listener, acceptor: Arc<Acceptor<S>>) -> Result<(), SubmitError> {
        let inbox = &self.shared.inboxes[0];
        inbox.check(0, self.submissions)?;
        inbox.push(Command::Listen(listener, acceptor));
        Ok(())
    }

    /// The oldest batch that was handed over, if there is one. Never waits.
    pub fn take(&self) -> Option<Batch> {
        self.shared.handover.take()
    }

    /// The oldest batch; blocks up to `timeout` for one.
    pub fn take_timeout(&self, timeout: Duration) -> Option<Batch> {
        self.shared.handover.take_timeout(timeout)
    }

    /// Whether the reactor has ended and every batch was taken.
    pub fn finished(&self) -> bool {
        self.shared.handover.finished()
    }

    /// Readable while [`Handle::take`] has something, or once the reactor has ended. Nobody may read from it.
    pub fn waker_fd(&self) -> Option<RawFd> {
        self.shared.handover.descriptor()
    }

    /// Counts over all threads, as of their last turns.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for stats in &self.shared.stats {
            sum.add(&stats.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    /// Batches that wait to be taken.
    pub fn depth(&self) -> usize {
        self.shared.handover.depth().0
    }

    /// End in good order: nothing new is taken, what no session holds yet ends as cancelled, what a session holds may
    /// finish, associations are released; what is left at `deadline` is cut.
    pub fn drain(&self, deadline: Instant) {
        self.shared.inboxes.iter().for_each(|inbox| inbox.end(Ending::Drain(deadline)));
    }

    /// End now: all requests end as cancelled (or unknown), all connections close.
    pub fn stop(&self) {
        self.shared.inboxes.iter().for_each(|inbox| inbox.end(Ending::Stop));
    }

    /// Deal items out to the turns that their meters belong to; all or nothing.
    fn scatter<T>(
        &self,
        items: impl ExactSizeIterator<Item = T>,
        meter: impl Fn(&T) -> MeterId,
        command: impl Fn(Vec<T>) -> Command<S, N>,
    ) -> Result<(), SubmitError> {
        let inboxes = &self.shared.inboxes;
        let mut shares: Vec<Vec<T>> = Vec::new();
        if let [_] = inboxes.as_slice() {
            shares.push(items.collect());
        } else {
            let expected = items.len() / inboxes.len() + 1;
            shares.resize_with(inboxes.len(), || Vec::with_capacity(expected));
            items.for_each(|item| shares[self.shared.shard_of(meter(&item))].push(item));
        }
        for (inbox, share) in inboxes.iter().zip(&shares) {
            inbox.check(share.len(), self.submissions)?;
        }
        for (inbox, share) in inboxes.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
            inbox.push(command(share));
        }
        Ok(())
    }
}

/// A running reactor. Dropping it stops it and waits for its threads.
pub struct Reactor<S: Session> {
    handle: Handle<S, MioNetwork>,
    clock: Clock,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl<S> Reactor<S>
where
    S: Session + Send + 'static,
    S::Work: Clone + Send + 'static,
    S::Control: Send + 'static,
{
    /// Start its threads.
    ///
    /// # Errors
    /// If the operating system gives no readiness queue, no pipe or no thread.
    pub fn start(config: Config) -> io::Result<Self> {
        Self::start_guarded(config, None)
    }

    /// As [`Reactor::start`]; work that `guard` guards is done by its permit only.
    ///
    /// # Errors
    /// As [`Reactor::start`].
    pub fn start_guarded(config: Config, guard: Option<Arc<dyn Guard<S::Work>>>) -> io::Result<Self> {
        let clock = Clock::new();
        let threads = config.threads.max(1);
        let networks = (0..threads).map(|_| MioNetwork::new(clock)).collect::<io::Result<Vec<_>>>()?;
        let handover = Arc::new(Handover::with_descriptor(config.batches, threads)?);
        let inboxes = networks.iter().map(|network| Arc::new(Inbox::new(network.wake()))).collect();
        let shared = Arc::new(Shared::new(inboxes, handover, guard));
        let handle = Handle { shared: shared.clone(), submissions: config.submissions };
        let mut reactor = Self { handle, clock, threads: Vec::new() };
        for (shard, network) in networks.into_iter().enumerate() {
            let (config, shared) = (config.clone(), shared.clone());
            let run = move || {
                let handover = shared.handover.clone();
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    let mut engine = Engine::new(config, network, shared, shard);
                    let ended = loop {
                        match engine.turn() {
                            Ok(true) => {}
                            Ok(false) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    };
                    engine.stop();
                    ended
                }));
                ended.unwrap_or_else(|_| {
                    // A fault of the engine's own: the consumer must learn that nothing more comes from here.
                    handover.finish(Batch::default());
                    Err(io::Error::other("a reactor thread failed"))
                })
            };
            reactor.threads.push(std::thread::Builder::new().name(format!("reactor-{shard}")).spawn(run)?);
        }
        Ok(reactor)
    }

    /// What to submit and take with; may be cloned into other threads.
    pub fn handle(&self) -> &Handle<S, MioNetwork> {
        &self.handle
    }

    /// Both clocks, as the reactor's threads read them: deadlines are counted from here.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Listen on `address`. Returns the address bound, for port 0.
    ///
    /// # Errors
    /// If the address cannot be bound, or the reactor is stopping.
    pub fn listen(&self, address: SocketAddr, acceptor: Arc<Acceptor<S>>) -> io::Result<SocketAddr> {
        let listener = mio_network::listener(address)?;
        let bound = listener.local_addr()?;
        self.handle.listen_on(Listener::Tcp(listener), acceptor).map_err(io::Error::other)?;
        Ok(bound)
    }

    /// The same for TLS.
    ///
    /// # Errors
    /// As [`Reactor::listen`].
    pub fn listen_tls(
        &self,
        address: SocketAddr,
        server: TlsServer,
        acceptor: Arc<Acceptor<S>>,
    ) -> io::Result<SocketAddr> {
        let listener = mio_network::listener(address)?;
        let bound = listener.local_addr()?;
        self.handle.listen_on(Listener::Tls(listener, server), acceptor).map_err(io::Error::other)?;
        Ok(bound)
    }

    /// The same for UDP: each address from which datagrams come is a connection.
    ///
    /// # Errors
    /// As [`Reactor::listen`].
    pub fn listen_udp(&self, address: SocketAddr, acceptor: Arc<Acceptor<S>>) -> io::Result<SocketAddr> {
        let hub = UdpHub::bind(address, true)?;
        let bound = hub.local();
        self.handle.listen_on(Listener::Udp(Arc::new(hub)), acceptor).map_err(io::Error::other)?;
        Ok(bound)
    }

    /// Wait until all threads have ended, after [`Handle::drain`] or [`Handle::stop`]. The consumer may still take.
    ///
    /// # Errors
    /// The first error that ended a thread.
    pub fn join(&mut self) -> io::Result<()> {
        let mut first = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a reactor thread panicked")));
            if first.is_ok() {
                first = ended;
            }
        }
        first
    }
}

impl<S: Session> Drop for Reactor<S> {
    fn drop(&mut self) {
        self.handle.shared.inboxes.iter().for_each(|inbox| inbox.end(Ending::Stop));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A reactor of one turn that its owner runs, on a simulated host.
pub struct SimulatedReactor<S: Session> {
    handle: Handle<S, SimulatedNetwork>,
    engine: Engine<S, SimulatedNetwork>,
}

impl<S: Session> SimulatedReactor<S>
where
    S::Work: Clone,
{
    /// A reactor on this host.
    pub fn new(config: Config, network: SimulatedNetwork) -> Self {
        Self::guarded(config, network, None)
    }

    /// As [`SimulatedReactor::new`], with a guard.
    pub fn guarded(config: Config, network: SimulatedNetwork, guard: Option<Arc<dyn Guard<S::Work>>>) -> Self {
        let handover = Handover::new(config.batches, 1);
        Self::handing_to(handover, config, network, guard)
    }

    /// As [`SimulatedReactor::guarded`], with a descriptor that the consumer waits on ([`Handle::waker_fd`]).
    ///
    /// # Errors
    /// If the operating system gives no pipe.
    pub fn watched(
        config: Config,
        network: SimulatedNetwork,
        guard: Option<Arc<dyn Guard<S::Work>>>,
    ) -> io::Result<Self> {
        let handover = Handover::with_descriptor(config.batches, 1)?;
        Ok(Self::handing_to(handover, config, network, guard))
    }

    fn handing_to(
        handover: Handover,
        config: Config,
        network: SimulatedNetwork,
        guard: Option<Arc<dyn Guard<S::Work>>>,
    ) -> Self {
        let inboxes = vec![Arc::new(Inbox::new(network.wake()))];
        let shared = Arc::new(Shared::new(inboxes, Arc::new(handover), guard));
        let handle = Handle { shared: shared.clone(), submissions: config.submissions };
        Self { handle, engine: Engine::new(config, network, shared, 0) }
    }

    /// What to submit and take with.
    pub fn handle(&self) -> &Handle<S, SimulatedNetwork> {
        &self.handle
    }

    /// Listen on this host.
    pub fn listen(&mut self, listener: SimulatedListener, acceptor: Arc<Acceptor<S>>) {
        self.engine.start_listening(listener, acceptor);
    }

    /// The host it runs on.
    pub fn network(&self) -> &SimulatedNetwork {
        &self.engine.network
    }

    /// Run one turn; false once everything has ended.
    pub fn turn(&mut self) -> bool {
        self.engine.turn().unwrap_or(false)
    }

    /// When the next turn has something to do even if nothing arrives.
    pub fn next_due(&mut self) -> Option<Instant> {
        if self.engine.blocked && self.handle.depth() < self.engine.config.batches {
            // In threads the consumer wakes the turn.
            return Some(self.engine.now.monotonic);
        }
        self.engine.next_due()
    }

    /// The session of a meter, to look at.
    pub fn session(&self, meter: MeterId) -> Option<&S> {
        let slot = self.engine.meters.get(&meter)?;
        self.engine.entries.get(*slot).map(|entry| &entry.session)
    }

    /// All sessions with their meters, greeters included.
    pub fn sessions(&self) -> impl Iterator<Item = (MeterId, &S)> {
        let entries = &self.engine.entries;
        entries.slots().filter_map(|slot| entries.get(slot)).map(|entry| (entry.meter, &entry.session))
    }
}
