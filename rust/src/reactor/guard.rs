//! Work that needs a word of its own before it is done: asked for in the very step that seals its octets.

use ipss_session::{MeterId, Now, RequestId};

/// Decides about guarded work, on a reactor thread: it must not block.
pub trait Guard<W>: Send + Sync {
    /// Whether this work may be done with a permit only. Asked for each request: cheap.
    fn guarded(&self, work: &W) -> bool;

    /// Whether it may be done now. Yes is said once for a request; the session then gets it in the same step.
    ///
    /// # Errors
    /// Why not, for people; the request ends as [`ipss_session::Outcome::Impossible`], and nothing of it was sent.
    fn permit(&self, meter: MeterId, request: RequestId, work: &W, now: Now) -> Result<(), String>;

    /// Somebody else has proved to be this meter while it lives ([`ipss_session::EventKind::CloneDetected`]): nothing
    /// guarded goes to it from now on. Said before the event is handed over.
    fn doubt(&self, meter: MeterId, why: &str);
}
