//! What carries APDUs besides HDLC and the wrapper: M-Bus, wireless M-Bus, the LLC of PLC, the gateway header.

use ipss_session::ProtocolError;

use super::{Pass, Stream};
use crate::link::hdlc::{Frame, FrameType, Parameters};
use crate::link::{gateway, mbus};

impl Pass<'_, '_> {
    /// Long frames from the front of `octets`; how many octets they took.
    pub(super) fn mbus_stream(&mut self, octets: &[u8], stream: &mut Stream) -> Result<usize, ProtocolError> {
        let mut taken = 0;
        while let Some((found, length)) =
            mbus::next_frame(&octets[taken..]).map_err(|error| stream.moved(error, taken))?
        {
            let start = taken;
            taken += length;
            stream.frames += 1;
            let mbus::Found::Long(frame) = found else {
                self.warn("a frame of the bus itself, which carries nothing");
                continue;
            };
            self.frames.begin('{');
            self.frames.member_string("layer", "mbus");
            self.frames.member_integer("length", frame.length as u32);
            self.frames.member_boolean("segmented", frame.is_dlms() && !frame.is_last());
            self.frames.member_hex("control", &[frame.control]);
            self.frames.member_hex("address", &[frame.address]);
            self.frames.member_hex("control_information", &[frame.control_information]);
            if frame.is_dlms() {
                self.frames.member_integer("source", frame.source);
                self.frames.member_integer("destination", frame.destination);
            }
            self.frames.member_boolean("checksum_ok", true);
            self.frames.end();
            if frame.wrapped {
                self.warn("the length field wrapped modulo 256");
            }
            if !frame.is_dlms() {
                let message = format!("control information {:02X} is not DLMS (00 to 1F)", frame.control_information);
                return Err(stream.moved(ProtocolError::remote("mbus", 6, "no-dlms", message), start));
            }
            let whole = stream.segments.take(&frame, &self.limits).map_err(|error| stream.moved(error, start))?;
            if let Some(apdu) = whole {
                self.carried(&apdu)?;
            }
        }
        stream.before += taken;
        Ok(taken)
    }

    /// Wireless telegrams from the front of `octets`; how many octets they took.
    pub(super) fn wmbus_stream(&mut self, octets: &[u8], stream: &mut Stream) -> Result<usize, ProtocolError> {
        let mut taken = 0;
        while let Some((found, length)) =
            mbus::telegram(&octets[taken..]).map_err(|error| stream.moved(error, taken))?
        {
            taken += length;
            stream.frames += 1;
            self.frames.begin('{');
            self.frames.member_string("layer", "wmbus");
            self.frames.member_integer("length", found.length as u32);
            self.frames.member_hex("control", &[found.control]);
            self.frames.member_string("manufacturer", &found.manufacturer());
            self.frames.member_string("identification", &found.identification());
            self.frames.member_integer("version", found.meter[6]);
            self.frames.member_integer("device_type", found.meter[7]);
            self.frames.member_hex("control_information", &[found.control_information]);
            self.frames.end();
            // Meters that send an empty title mean their link address.
            self.session.learnt.server_title = Some(found.system_title());
            self.carried(found.apdu)?;
        }
        stream.before += taken;
        Ok(taken)
    }

    /// An APDU behind the LLC header of IEC 61334-4-32: frame control, two link service access points.
    pub(super) fn llc_61334(&mut self, octets: &[u8]) -> Result<(), ProtocolError> {
        let wrong = |offset, code, message: &str| Err(ProtocolError::remote("llc-61334", offset, code, message));
        match octets {
            [0x90, destination, source, apdu @ ..] => {
                self.frames.begin('{');
                self.frames.member_string("layer", "llc-61334");
                self.frames.member_integer("length", octets.len() as u32);
                self.frames.member_integer("destination", *destination);
                self.frames.member_integer("source", *source);
                self.frames.end();
                self.carried(apdu)
            }
            [] | [0x90] | [0x90, _] => wrong(octets.len(), "truncated", "the LLC header is not whole"),
            _ => wrong(0, "bad-llc", "an LLC header of IEC 61334-4-32 begins with 90"),
        }
    }

    /// An APDU as a link carries it: perhaps behind a gateway header.
    pub(super) fn carried(&mut self, octets: &[u8]) -> Result<(), ProtocolError> {
        let Some(header) = gateway::header(octets).filter(|header| !header.apdu.is_empty()) else {
            return self.apdu(octets, 0);
        };
        self.frames.begin('{');
        self.frames.member_string("layer", "gateway");
        self.frames.member_boolean("request", header.request);
        self.frames.member_integer("network", header.network);
        self.frames.member_hex("device", header.device);
        self.frames.end();
        self.apdu(header.apdu, 0)
    }

    /// What SNRM and UA say of sizes and windows.
    pub(super) fn link_parameters(&mut self, frame: &Frame<'_>) {
        let kind = FrameType::of(frame.control);
        let sets_up = matches!(kind, FrameType::SetNormalResponseMode | FrameType::UnnumberedAcknowledge);
        if !sets_up || frame.information.is_empty() {
            return;
        }
        let said = Parameters::decode(frame.information);
        self.frames.key("parameters");
        self.frames.begin('{');
        self.frames.member_integer("information_transmit", said.information_transmit);
        self.frames.member_integer("information_receive", said.information_receive);
        self.frames.member_integer("window_transmit", said.window_transmit);
        self.frames.member_integer("window_receive", said.window_receive);
        self.frames.end();
    }
}
