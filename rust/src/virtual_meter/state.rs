//! What somebody did to a meter: clock settings, switching, thresholds, events. A meter that nobody touched has none
//! of it and takes no memory for it.

use ipss_dlms::security::Key;
use ipss_dlms::security::setup::NewKeys;

use super::consumption::Energy;
use super::image::{Calendar, Image};
use super::timebase::Stretch;

/// Clock settings and switchings that a meter remembers exactly. Older ones are forgotten together with the profile
/// lines captured before them, like a full buffer overwrites its oldest lines.
pub(super) const REMEMBERED: usize = 64;

/// Lines of the event log.
pub(super) const EVENT_ENTRIES: usize = 100;

/// Supply as the disconnect control sees it (Blue Book, "Disconnect control", control_state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Supply {
    /// Off.
    Disconnected = 0,
    /// On.
    Connected = 1,
    /// Off, until the customer presses the button.
    ReadyForReconnection = 2,
}

/// One switching.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switching {
    /// True second of UTC.
    pub at_s: i64,
    /// Whether supply is on from then.
    pub on: bool,
    /// On: what the registers miss of the consumption, for good. Off: where the registers stand.
    pub energy: Energy,
}

/// One line that somebody caused in the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The meter's clock, microseconds of UTC.
    pub clock_us: i64,
    pub code: u8,
}

/// Event codes as the event log shows them.
pub(super) mod event {
    pub const POWER_DOWN: u8 = 1;
    pub const POWER_UP: u8 = 2;
    pub const CLOCK_BEFORE: u8 = 4;
    pub const CLOCK_AFTER: u8 = 5;
    pub const COVER_REMOVED: u8 = 40;
    pub const COVER_CLOSED: u8 = 41;
    pub const MANUAL_RECONNECTION: u8 = 61;
    pub const REMOTE_DISCONNECTION: u8 = 62;
    pub const REMOTE_RECONNECTION: u8 = 63;
    pub const READY_FOR_RECONNECTION: u8 = 59;
}

/// Thresholds of the limiter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Watts in normal operation.
    pub normal_w: u32,
    /// Watts in an emergency.
    pub emergency_w: u32,
    /// Seconds above before it acts.
    pub over_s: u32,
    /// Seconds below before it acts.
    pub under_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { normal_w: 18_400, emergency_w: 4_600, over_s: 60, under_s: 60 }
    }
}

/// All that was changed.
#[derive(Debug)]
pub(super) struct Changes {
    /// The clock's stretches, oldest first; never empty.
    pub stretches: Vec<Stretch>,
    /// Whether somebody has set the clock since the meter was made.
    pub clock_set: bool,
    pub switchings: Vec<Switching>,
    /// With the true moment, microseconds.
    pub events: Vec<(i64, Event)>,
    pub supply: Supply,
    /// True second at which the customer presses the button.
    pub button_s: i64,
    /// What a lagging disconnector has yet to do: from which true second, and what.
    pub lagging: Option<(i64, Supply, u8)>,
    /// Control mode of the disconnector.
    pub mode: u8,
    pub limits: Limits,
    /// Profile lines from before this true moment (microseconds) are forgotten.
    pub forgotten_us: i64,
    /// The image that is being transferred, or was.
    pub image: Option<Box<Image>>,
    /// What runs, where an image was activated.
    pub firmware: Option<Box<[u8]>>,
    pub calendar: Option<Box<Calendar>>,
    /// Keys that a key_transfer brought and the session has not taken over yet.
    pub new_keys: Option<Box<NewKeys>>,
    /// The master key, where a key_transfer brought another.
    pub master: Option<Key>,
}

/// The control mode that meters are delivered with: the head-end may disconnect and reconnect.
pub(super) const DELIVERED_MODE: u8 = 2;

impl Changes {
    pub fn new(first: Stretch) -> Self {
        Self {
            stretches: vec![first],
            clock_set: false,
            switchings: Vec::new(),
            events: Vec::new(),
            supply: Supply::Connected,
            button_s: 0,
            lagging: None,
            mode: DELIVERED_MODE,
            limits: Limits::default(),
            forgotten_us: first.true_us,
            image: None,
            firmware: None,
            calendar: None,
            new_keys: None,
            master: None,
        }
    }

    /// Begin a stretch of the clock.
    pub fn push_stretch(&mut self, stretch: Stretch) {
        self.stretches.push(stretch);
        if self.stretches.len() > REMEMBERED {
            self.stretches.remove(0);
            self.forgotten_us = self.forgotten_us.max(self.stretches[0].true_us);
        }
    }

    /// Add a switching.
    pub fn push_switching(&mut self, switching: Switching) {
        self.switchings.push(switching);
        if self.switchings.len() > REMEMBERED {
            self.switchings.remove(0);
            self.forgotten_us = self.forgotten_us.max(self.switchings[0].at_s * 1_000_000);
        }
    }

    /// Add a line to the event log.
    pub fn push_event(&mut self, true_us: i64, event: Event) {
        self.events.push((true_us, event));
        if self.events.len() > EVENT_ENTRIES {
            self.events.remove(0);
        }
    }

    /// Whether supply was on at a true second, and the switching that decides the registers then.
    pub fn switching_at(&self, at_s: i64) -> Option<&Switching> {
        let later = self.switchings.partition_point(|switching| switching.at_s <= at_s);
        self.switchings[..later].last()
    }
}
