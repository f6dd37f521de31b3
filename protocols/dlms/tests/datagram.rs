//! The wrapper over datagrams: what is lost is asked again, what must not be repeated is not.

mod common;

use std::time::Duration;

use common::*;
use ipss_dlms::link::{Framing, LinkConfig};
use ipss_session::rig::{Line, Rig};
use ipss_session::{EventKind, Outcome};

fn rig_over(line: Line, seed: u64) -> TestRig {
    let config = LinkConfig { framing: Framing::Datagram, ..LinkConfig::default() };
    let profile = secured();
    let (near, far) = (head_end(&profile).with_link(&config), meter(&profile).with_link(&config));
    let mut rig = Rig::new(near, far, seed, START);
    rig.line = line;
    rig
}

#[test]
fn lost_and_repeated_datagrams_delay_reads_and_never_double_a_command() {
    let line = Line { delay: Duration::from_millis(50), loss: 100, duplication: 60, ..Line::default() };
    let (mut done, mut asked) = (0, 0);
    for seed in 0..60 {
        let mut rig = rig_over(line, seed);
        let (mut switched, mut unknown) = (0, 0);
        for _ in 0..2 {
            let outcome = ask(&mut rig, vec![energy(), energy(), switch(1)]);
            asked += 1;
            match outcome {
                Some(Outcome::Done) => (done, switched) = (done + 1, switched + 1),
                Some(Outcome::Unknown) => unknown += 1,
                Some(Outcome::Interrupted) | None => {}
                other => panic!("seed {seed}: {other:?} {:?}", rig.near.batch.events.last()),
            }
        }
        let at_meter = rig.far.session.objects.switched;
        assert!((switched..=switched + unknown).contains(&at_meter), "seed {seed}: {at_meter}");
    }
    assert!(done * 2 > asked, "{done} of {asked} were served in spite of the line");
}

#[test]
fn a_datagram_of_somebody_else_or_of_nothing_is_passed_over() {
    let mut rig = rig_over(Line::default(), 1);
    rig.connect();
    for octets in [&[0, 1, 0, 9, 0, 9, 0, 1, 0xC4][..], b"not a datagram of ours", &[0, 1, 0, 1, 0, 1, 0, 9, 1]] {
        rig.inject_near(octets);
    }

    assert_eq!(ask(&mut rig, vec![energy()]), Some(Outcome::Done));

    let dropped = rig.near.batch.events.iter().filter(|event| event.kind == EventKind::UnexpectedAnswer);
    assert_eq!(dropped.count(), 3);
}
