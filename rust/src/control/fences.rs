//! Meters that are held because there are two of them (R29), and the lease on the store (R8).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipss_session::Now;

use super::tests::{admitted, at, command, gate};
use super::*;
use crate::reactor::Guard;
use crate::sessions;

#[test]
fn r29_held_meter_gets_nothing_critical_until_it_is_cleared() {
    let gate = gate();
    admitted(&gate, 1, 1);
    admitted(&gate, 2, 2);
    let armed = gate.arm([1; 16], command(1, 0), 7, &[], at(2)).unwrap();

    Guard::<sessions::Work>::doubt(&gate, 0, "two of it");
    gate.hold(0, "said later");

    assert!(gate.holds(0) && !gate.holds(1));
    assert!(gate.permit(0, 7, &armed.work, at(3)).unwrap_err().contains("held: two of it"), "a ticket of before");
    let held = Refusal::Held("two of it".into());
    assert_eq!(gate.arm([2; 16], command(2, 0), 8, &[], at(3)).unwrap_err(), held, "a reconnection too");
    assert!(gate.arm([1; 16], command(1, 1), 9, &[], at(3)).is_ok(), "another meter");

    gate.clear(0);

    let armed = gate.arm([2; 16], command(2, 0), 10, &[], at(4)).unwrap();
    assert_eq!(gate.permit(0, 10, &armed.work, at(4)), Ok(()));
}

/// The clock that goes on while the machine sleeps, in milliseconds; of one test alone.
static AWAKE: AtomicU64 = AtomicU64::new(0);

fn awake() -> Duration {
    Duration::from_millis(AWAKE.load(Ordering::SeqCst))
}

#[test]
fn r8_nothing_critical_leaves_after_a_pause_until_the_store_is_known_to_be_ours() {
    let gate = gate().leased(awake);
    let second = Duration::from_secs(1);
    let mut request = 100;
    let mut meter = 0;
    let mut leaves = |gate: &Gate, armed_at: Now, sealed_at: Now, pause_ms: u64| {
        request += 1;
        let armed = gate.arm([1; 16], command(1, meter % 3), request, &[], armed_at)?;
        meter += 1;
        AWAKE.fetch_add(pause_ms, Ordering::SeqCst);
        gate.permit(armed.meter, request, &armed.work, sealed_at).map_err(|_| Refusal::NoLease)
    };
    admitted(&gate, 1, 1);

    assert_eq!(leaves(&gate, at(2), at(2), 0), Err(Refusal::NoLease), "never confirmed");
    AWAKE.store(50_000, Ordering::SeqCst);
    gate.lease(50 * second, 10 * second, at(2));
    assert_eq!(leaves(&gate, at(2), at(2), 9_999), Ok(()));

    // A pause between the release and the seal that the monotonic clock did not see.
    gate.lease(awake(), 10 * second, at(2));
    assert_eq!(leaves(&gate, at(2), at(2), 10_000), Err(Refusal::NoLease));

    // A pause that no clock saw but the wall clock, which was put right since.
    gate.lease(awake(), 10 * second, at(2));
    assert_eq!(leaves(&gate, at(2), at(60), 0), Err(Refusal::NoLease));

    // What was asked long ago is no lease, however late the answer comes.
    gate.lease(awake() - 20 * second, 10 * second, at(2));
    assert_eq!(gate.arm([1; 16], command(1, 0), 1, &[], at(2)).unwrap_err(), Refusal::NoLease);
}
