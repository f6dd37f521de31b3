//! What answers at an address of the fleet: one meter, or a concentrator with several.

use std::sync::Arc;

use ipss_dlms::link::LinkConfig;
use ipss_dlms::meter::{Concentrator, Meter, MeterControl, Routing, Settings};
use ipss_session::{Context, Input, MeterId, Session, Step, WallTime};

use super::{Fleet, VirtualMeter};

/// One end of one connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every meter is alone")]
pub enum VirtualSession {
    /// A meter.
    Meter(Meter<VirtualMeter>),
    /// Several, each with its service access point.
    Concentrator(Concentrator<VirtualMeter>),
}

impl Fleet {
    /// What answers where meter `index` is, `settings` being those of each service access point there.
    pub fn answering(
        self: &Arc<Self>,
        index: MeterId,
        settings: impl Fn(u16) -> Arc<Settings>,
        link: &LinkConfig,
        now: WallTime,
    ) -> VirtualSession {
        let member = |index| {
            let server = self.server(index);
            (server, self.session(index, index, &settings(server), now).with_link(link))
        };
        match self.neighbours(index) {
            alone if alone.len() == 1 && self.spec().behind == 1 => VirtualSession::Meter(member(index).1),
            all => VirtualSession::Concentrator(Concentrator::new(Routing::Server, all.map(member))),
        }
    }
}

impl Session for VirtualSession {
    type Work = ();
    type Control = MeterControl;

    fn step(&mut self, input: Input<'_, (), MeterControl>, cx: &mut Context<'_>) -> Step<()> {
        match self {
            Self::Meter(meter) => meter.step(input, cx),
            Self::Concentrator(concentrator) => concentrator.step(input, cx),
        }
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        match self {
            Self::Meter(meter) => meter.associated(),
            Self::Concentrator(concentrator) => concentrator.associated(),
        }
    }
}
