//! Connections that claim a meter whose own one lives: each is refused, and some of them may prove themselves, which
//! changes nothing but what is known.
//!
//! Whoever passes while the meter answers from another address holds its keys: one of the two is a copy. The proof is
//! asked for by a session of its own ([`Session::challenger`]); what it hears is thrown away.

use std::net::SocketAddr;
use std::time::Duration;

use ipss_session::{EventKind, Instant, MeterId, Session};

use super::command::Adoption;
use super::entry::{Entry, Route};
use super::network::{Nature, Network};
use super::turn::{Engine, Phase};

/// A refused connection that proves itself.
pub(super) struct Challenge {
    /// The session that asks it to.
    slot: u32,
    meter: MeterId,
    peer: SocketAddr,
    claim: String,
    /// A push that came over it.
    received: Vec<u8>,
    /// The meter's own connection.
    epoch: u32,
    /// It has until then.
    ends: Instant,
    /// It has passed, and the meter was asked for a sign of life.
    proven: Option<Instant>,
}

impl<S: Session, N: Network> Engine<S, N>
where
    S::Work: Clone,
{
    /// Have a connection that is refused because the meter in `slot` has one prove itself. Gives it back if it may not:
    /// there are too many, it comes from the meter's own address, or there is nothing to prove.
    pub(super) fn challenge(&mut self, slot: u32, refused: Adoption<N::Socket>) -> Option<Adoption<N::Socket>> {
        let now = self.now.monotonic;
        let room = self.challenges.len() < self.config.challenges && self.phase == Phase::Running;
        let stream = self.network.nature(&refused.inbound.socket) != Nature::Datagrams;
        let Some(entry) = self.entries.get_mut(slot) else { return Some(refused) };
        let Some(link) = entry.link.as_ref().filter(|_| entry.associated) else { return Some(refused) };
        let elsewhere = self.network.peer(&link.socket) != Some(refused.inbound.peer.ip());
        if !(room && stream && elsewhere && now >= entry.challenge_from) {
            return Some(refused);
        }
        let epoch = link.epoch;
        let Some(session) = entry.session.challenger() else { return Some(refused) };
        entry.challenge_from = now + self.config.challenge_pause;
        let Adoption { meter, inbound, received, claim, .. } = refused;
        self.stats.challenges += 1;
        self.stats.claims_refused += 1;
        let ends = now + self.config.challenge_timeout;
        let challenger = self.entries.insert(Entry::new(meter, session, Route::inbound(), Some(inbound.peer)));
        if received.is_empty() {
            let detail = format!("{claim}: the meter has a connection");
            self.batch.event(meter, self.now.wall, EventKind::ClaimRefused, 0, detail);
        }
        let peer = inbound.peer;
        self.challenges.push(Challenge { slot: challenger, meter, peer, claim, received, epoch, ends, proven: None });
        self.start_inbound(challenger, inbound.socket, Vec::new(), "");
        match self.entries.get_mut(challenger) {
            Some(entry) if entry.link.is_some() => {
                entry.state_deadline = ends;
                self.arm(challenger);
            }
            Some(_) => {
                self.entries.remove(challenger);
                self.challenge_over(challenger);
            }
            None => {}
        }
        self.check_batch();
        None
    }

    /// The session in `slot` is satisfied with the proof.
    pub(super) fn proved(&mut self, slot: u32) {
        let now = self.now.monotonic;
        let challenge = self.challenges.iter_mut().find(|challenge| challenge.slot == slot);
        if challenge.is_some_and(|challenge| challenge.proven.is_none() && challenge.ends > now) {
            // Looked at when this step is over, as the meter's own session is stepped then.
            self.entries.get_mut(slot).into_iter().for_each(|entry| entry.state_deadline = now);
        }
    }

    /// A challenge is to be looked at: its time is over, its peer has passed, or the meter may have been heard since.
    pub(super) fn challenge_due(&mut self, slot: u32) {
        let now = self.now.monotonic;
        let passed = self.entries.get(slot).is_some_and(|entry| entry.session.associated());
        let Some(challenge) = self.challenges.iter_mut().find(|challenge| challenge.slot == slot) else { return };
        if !passed || challenge.ends <= now || self.phase != Phase::Running {
            return self.close(slot, "it proved nothing new in its time", true);
        }
        let first = challenge.proven.is_none();
        let proven = *challenge.proven.get_or_insert(now);
        let (meter, epoch, ends) = (challenge.meter, challenge.epoch, challenge.ends);
        let own = self.meters.get(&meter).copied().unwrap_or(u32::MAX);
        let Some((entry, link)) = self.entries.get(own).and_then(|entry| Some((entry, entry.link.as_ref()?))) else {
            return self.close(slot, "the meter's connection has ended: dial again", true);
        };
        if link.epoch != epoch || !entry.associated {
            return self.close(slot, "the meter's connection has ended: dial again", true);
        }
        if link.last_received > proven {
            return self.cloned(slot, own);
        }
        self.entries.get_mut(slot).into_iter().for_each(|entry| entry.state_deadline = ends.min(now + LOOK));
        if first {
            self.probe(own);
        }
    }

    /// Both have proved to be the meter, and both live.
    fn cloned(&mut self, slot: u32, own: u32) {
        let now = self.now;
        let address = self.entries.get(own).and_then(|entry| self.network.peer(&entry.link.as_ref()?.socket));
        let address = address.map_or_else(|| "its line".to_owned(), |address| address.to_string());
        let Some(challenge) = self.challenges.iter().find(|challenge| challenge.slot == slot) else { return };
        let Challenge { meter, peer, claim, .. } = challenge;
        let detail = format!("{claim}: proved from {peer} while it answers from {address}");
        if let Some(guard) = &self.shared.guard {
            guard.doubt(*meter, &detail);
        }
        self.batch.event(*meter, now.wall, EventKind::CloneDetected, 0, detail);
        self.stats.clones += 1;
        let again = now.monotonic + self.config.clone_pause;
        self.entries.get_mut(own).into_iter().for_each(|entry| entry.challenge_from = again);
        self.close(slot, "another one is the meter", true);
    }

    /// The session in `slot` is gone: what it held back goes to the owner now, who knows by now whether there is a copy.
    pub(super) fn challenge_over(&mut self, slot: u32) {
        let Some(place) = self.challenges.iter().position(|challenge| challenge.slot == slot) else { return };
        let Challenge { meter, peer, received, .. } = self.challenges.swap_remove(place);
        if !received.is_empty() {
            self.unclaimed_push(meter, peer, &received);
        }
    }
}

/// How often to look whether the meter has answered since somebody else proved to be it.
const LOOK: Duration = Duration::from_millis(50);
