//! Connections that peers open: listeners, greeters that find out who calls, and claims to be a meter.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use ipss_session::{EventKind, Input, MeterId, Session};

use super::command::{Accepted, Acceptor, Adoption, Command};
use super::connection::{DESCRIPTOR_PAUSE, out_of_descriptors};
use super::entry::{Entry, Route, State};
use super::network::{Inbound, Network, Token};
use super::turn::{Engine, LISTENER, Listening, Phase};

/// Stands for the meter in rows about a peer that is not known to be one.
pub const NO_METER: MeterId = MeterId::MAX;

impl<S: Session, N: Network> Engine<S, N>
where
    S::Work: Clone,
{
    pub(super) fn start_listening(&mut self, mut listener: N::Listener, acceptor: Arc<Acceptor<S>>) {
        let token = LISTENER | self.listeners.len() as Token;
        if let Err(error) = self.network.listen(&mut listener, token) {
            let detail = format!("cannot listen: {error}");
            self.batch.event(NO_METER, self.now.wall, EventKind::ProtocolViolation, 0, detail);
            return self.check_batch();
        }
        // Connections may have come before the listener was registered.
        self.listeners.push(Listening { listener, acceptor, pending: true });
    }

    /// Take connections from their listeners as soon as they come, as many as there is room for. They wait in the lobby
    /// until the token bucket admits them: the kernel's own queue is short, and a connection that it drops once its
    /// peer believes to have it (SYN cookies) is missed by nobody here, while the peer waits for ever.
    pub(super) fn take_in(&mut self) {
        if self.phase != Phase::Running || self.now.monotonic < self.exhausted_until {
            return;
        }
        for index in 0..self.listeners.len() {
            while self.listeners[index].pending && self.has_room_for_peers() {
                match self.network.accept(&self.listeners[index].listener) {
                    Ok(inbound) => {
                        self.shared.connections.fetch_add(1, Ordering::Relaxed);
                        self.lobby.push_back((index, inbound));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.listeners[index].pending = false,
                    Err(error) if out_of_descriptors(&error) => {
                        self.exhausted_until = self.now.monotonic + DESCRIPTOR_PAUSE;
                        return;
                    }
                    // The peer gave up while it waited; the next one may have more patience.
                    Err(_) => {}
                }
            }
        }
    }

    /// Begin with the connection that has waited longest; false if none waits.
    pub(super) fn accept_one(&mut self) -> bool {
        let Some((listener, inbound)) = self.lobby.pop_front() else { return false };
        self.arrived(listener, inbound);
        true
    }

    /// No connections come any more, and those that wait go.
    pub(super) fn stop_listening(&mut self) {
        for (_, inbound) in std::mem::take(&mut self.lobby) {
            self.network.close(inbound.socket);
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.listeners.clear();
    }

    fn arrived(&mut self, listener: usize, inbound: Inbound<N::Socket>) {
        self.stats.accepts += 1;
        self.stats.connections += 1;
        match (self.listeners[listener].acceptor)(inbound.local, inbound.peer) {
            Accepted::Meter { meter, newest_wins } => {
                let claim = inbound.peer.to_string();
                self.hand_on(Adoption { meter, inbound, received: Vec::new(), newest_wins, claim });
            }
            Accepted::Greet(session) => {
                let slot = self.entries.insert(Entry::new(NO_METER, session, Route::inbound(), Some(inbound.peer)));
                let peer = inbound.peer.to_string();
                self.start_inbound(slot, inbound.socket, Vec::new(), &peer);
                if self.entries.get(slot).is_some_and(|entry| entry.state == State::Idle) {
                    self.entries.remove(slot);
                }
            }
            Accepted::Refuse => {
                self.stats.claims_refused += 1;
                self.network.close(inbound.socket);
                self.connection_gone();
            }
        }
    }

    /// A greeter knows who its peer says it is: hand the connection to that meter's own session, which has it prove
    /// the claim.
    pub(super) fn claim(&mut self, slot: u32, identity: Vec<u8>) {
        self.flush(slot);
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let Some(peer) = entry.greeter.as_deref().copied() else { return };
        let Some(mut link) = entry.link.take() else { return };
        if let Some(step) = self.step(slot, Input::Closed) {
            drop(step);
        }
        self.to_send.clear();
        self.wheel.clear(slot);
        self.entries.remove(slot);
        let known = self.shared.identities.read().unwrap_or_else(PoisonError::into_inner).get(&identity).copied();
        let claim = printable(&identity);
        let Some(meter) = known else {
            return self.refuse_push(NO_METER, link.socket, peer, &link.received, &format!("{claim} is not known"));
        };
        if self.network.disown(&mut link.socket).is_err() {
            return self.refuse_claim(meter, link.socket, &format!("{claim}: the connection broke"));
        }
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let inbound = Inbound { socket: link.socket, local: nowhere, peer };
        self.hand_on(Adoption { meter, inbound, received: link.received, newest_wins: false, claim });
    }

    /// Give a connection to the turn that its meter belongs to.
    fn hand_on(&mut self, adoption: Adoption<N::Socket>) {
        let shard = self.shared.shard_of(adoption.meter);
        if shard == self.shard {
            self.adopt(adoption);
        } else {
            // Counted by its own turn from now on; the bound over all turns still counts it.
            self.stats.connections -= 1;
            self.shared.inboxes[shard].push(Command::Adopt(adoption));
        }
    }

    /// A connection that was taken for the meter arrives from another turn or from this one's listener.
    pub(super) fn adopt(&mut self, adoption: Adoption<N::Socket>) {
        let Adoption { meter, inbound, received, newest_wins, claim } = adoption;
        let now = self.now.monotonic;
        let Some(slot) = self.meters.get(&meter).copied() else {
            let why = format!("{claim}: no such meter");
            return self.refuse_push(NO_METER, inbound.socket, inbound.peer, &received, &why);
        };
        let Some(entry) = self.entries.get(slot) else { return };
        if entry.dead || (entry.state == State::BackingOff && entry.route.address.is_none()) {
            let why = format!("{claim}: the meter is left alone for a while");
            return self.refuse_push(meter, inbound.socket, inbound.peer, &received, &why);
        }
        if !newest_wins && !entry.gives_way(now, self.config.claim_grace) {
            let associated = entry.associated;
            let refused = Adoption { meter, inbound, received, newest_wins, claim };
            if let Some(refused) = self.challenge(slot, refused) {
                let Adoption { inbound, received, claim, .. } = refused;
                let why = format!("{claim}: the meter has a connection");
                self.refuse_push(meter, inbound.socket, inbound.peer, &received, &why);
            }
            if associated {
                self.probe(slot);
            }
            return;
        }
        self.close(slot, "a newer connection of the same meter came", true);
        let Some(entry) = self.entries.get_mut(slot) else { return };
        entry.state = State::Idle;
        self.start_inbound(slot, inbound.socket, received, &claim);
    }

    /// Refuse a connection that may have brought a push: what came goes to the owner, who may know more.
    fn refuse_push(&mut self, meter: MeterId, socket: N::Socket, peer: SocketAddr, received: &[u8], why: &str) {
        if received.is_empty() {
            return self.refuse_claim(meter, socket, why);
        }
        self.network.close(socket);
        self.connection_gone();
        self.stats.claims_refused += 1;
        self.unclaimed_push(meter, peer, received);
    }

    /// Hand what came over a connection that nobody may have to the owner.
    pub(super) fn unclaimed_push(&mut self, meter: MeterId, peer: SocketAddr, received: &[u8]) {
        if received.len() > self.config.unclaimed_octets || !self.unclaimed.take(self.now.monotonic) {
            self.stats.pushes_dropped += 1;
            return;
        }
        self.stats.pushes_unclaimed += 1;
        let mut detail = format!("{peer} ");
        detail.reserve_exact(2 * received.len());
        received.iter().for_each(|octet| {
            let _ = write!(detail, "{octet:02x}");
        });
        self.batch.event(meter, self.now.wall, EventKind::PushUnclaimed, 0, detail);
        self.check_batch();
    }

    fn refuse_claim(&mut self, meter: MeterId, socket: N::Socket, detail: &str) {
        self.network.close(socket);
        self.connection_gone();
        self.stats.claims_refused += 1;
        self.batch.event(meter, self.now.wall, EventKind::ClaimRefused, 0, detail);
        self.check_batch();
    }

    /// A greeter did not find out who its peer is in time.
    pub(super) fn greeter_over(&mut self, slot: u32) {
        self.stats.claims_refused += 1;
        let detail = "the peer did not say who it is in time";
        self.batch.event(NO_METER, self.now.wall, EventKind::ClaimRefused, 0, detail);
        self.close(slot, detail, false);
    }
}

/// An identity as text: as it is if printable, else in hexadecimal.
fn printable(identity: &[u8]) -> String {
    let shown = &identity[..identity.len().min(64)];
    match std::str::from_utf8(shown) {
        Ok(text) if text.bytes().all(|octet| octet.is_ascii_graphic()) => text.to_owned(),
        _ => shown.iter().map(|octet| format!("{octet:02x}")).collect(),
    }
}
