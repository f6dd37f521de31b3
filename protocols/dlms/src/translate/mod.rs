//! Explain bytes: what `ipss-headend decode` answers, as JSON that goes out while it is made.
//!
//! One request is walked once for each list of the answer (frames, APDUs, readings, warnings), so that nothing but
//! what reassembly needs is held in memory: time is linear in the request's octets, and so is memory, with a small
//! factor, whatever the octets are.

mod apdu;
mod envelope;
mod framing;
mod json;
mod keys;
mod named;
mod readings;
mod services;

pub(crate) use apdu::length as apdu_length;
pub use ipss_session::explain::{Outcome, Sender, Transmission, parse_hex, refuse};
pub use keys::Keys;
pub use named::write_named;

use ipss_session::json::Json;
use ipss_session::{Limits, ProtocolError, explain};

use crate::apdu::tags;
use crate::axdr::{Reader, skip};
use crate::cosem::AttributeDescriptor;
use crate::hdlc::{self, FrameType};
use crate::link::mbus;
use crate::push::Companion;
use crate::wrapper;
use keys::Learnt;

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct TranslateRequest<'a> {
    /// The asker's own mark, as JSON text; it comes back as it is.
    pub id: Option<&'a str>,
    /// What the first octet is: `hdlc`, `wrapper`, `mbus`, `wmbus`, `llc`, `llc-61334`, `apdu`, `data`, `auto`, or a layer
    /// that others explain.
    pub layer: &'a str,
    /// What was sent, in order.
    pub transmissions: &'a [Transmission<'a>],
    /// The meters' keys, none if there are none.
    pub keys: &'a [Keys],
    /// What is known of the meter beside the standard: push layouts, scalers, what its times mean.
    pub companion: Option<&'a Companion>,
}

/// Write the answer as one JSON object, piece by piece, and return its outcome.
pub fn translate(request: &TranslateRequest<'_>, write: &mut dyn FnMut(&str)) -> Outcome {
    let mut pass = Pass::new(request);
    let (outcome, error) = pass.run(request);
    let mut out = Json::new(write);
    out.begin('{');
    if let Some(id) = request.id {
        out.key("id");
        out.plain(id);
    }
    out.member_string("outcome", outcome.name());
    let lists: [(&str, Select); 4] = [
        ("frames", |pass| &mut pass.frames),
        ("apdus", |pass| &mut pass.apdus),
        ("readings", |pass| &mut pass.readings),
        ("warnings", |pass| &mut pass.warnings),
    ];
    for (key, select) in lists {
        out.key(key);
        out.begin('[');
        {
            let mut pass = Pass::new(request);
            *select(&mut pass) = out.inside();
            pass.run(request);
        }
        out.end();
    }
    if pass.named {
        out.key("attributes");
        out.begin('[');
        {
            let mut pass = Pass::new(request);
            pass.attributes = out.inside();
            pass.run(request);
        }
        out.end();
    }
    if let Some(error) = error {
        explain::error(&mut out, &error);
    }
    out.end();
    outcome
}

type Select = for<'p, 'a, 'w> fn(&'p mut Pass<'a, 'w>) -> &'p mut Json<'w>;

/// One walk over the request, which writes one of the answer's lists, or none.
struct Pass<'a, 'w> {
    frames: Json<'w>,
    apdus: Json<'w>,
    readings: Json<'w>,
    warnings: Json<'w>,
    /// Values of attributes that were named, with the names of their parts.
    attributes: Json<'w>,
    /// Whether there is any.
    named: bool,
    keys: &'a [Keys],
    companion: Option<&'a Companion>,
    limits: Limits,
    session: Session,
    protected: bool,
}

/// What is remembered from one APDU to the next.
#[derive(Default)]
struct Session {
    learnt: Learnt,
    /// For each invoke id, the attribute that was asked for.
    asked: [Option<AttributeDescriptor>; 16],
    /// The blocks of a long GET, and the number of the last one.
    blocks: Vec<u8>,
    blocks_seen: u32,
    /// The blocks of a general block transfer, and the number of the last one.
    general_blocks: Vec<u8>,
    general_blocks_seen: u16,
}

impl<'a, 'w> Pass<'a, 'w> {
    fn new(request: &TranslateRequest<'a>) -> Self {
        let octets = request.transmissions.iter().map(|transmission| transmission.octets.len()).sum();
        let limits = Limits { apdu: 65_535, elements: octets, depth: DEPTH, ..Limits::default() };
        Self {
            frames: Json::inactive(),
            apdus: Json::inactive(),
            readings: Json::inactive(),
            warnings: Json::inactive(),
            attributes: Json::inactive(),
            named: false,
            keys: request.keys,
            companion: request.companion,
            limits,
            session: Session::default(),
            protected: false,
        }
    }

    fn run(&mut self, request: &TranslateRequest<'a>) -> (Outcome, Option<ProtocolError>) {
        let ended = self.layer(request.layer, request.transmissions);
        if self.session.blocks_seen > 0 || self.session.general_blocks_seen > 0 {
            self.warn("the value goes on in further blocks");
        }
        match ended {
            Ok(true) if self.protected => (Outcome::Protected, None),
            Ok(true) => (Outcome::Decoded, None),
            Ok(false) => (Outcome::Incomplete, None),
            Err(error) => (Outcome::Error, Some(error)),
        }
    }

    /// Whether everything was complete.
    fn layer(&mut self, layer: &str, transmissions: &[Transmission<'_>]) -> Result<bool, ProtocolError> {
        let layer = match layer {
            "auto" => guess(transmissions),
            named => named,
        };
        match layer {
            "hdlc" => self.streams(transmissions, Self::hdlc_stream),
            "wrapper" => self.streams(transmissions, Self::wrapper_stream),
            "mbus" => self.streams(transmissions, Self::mbus_stream),
            "wmbus" => self.streams(transmissions, Self::wmbus_stream),
            "llc-61334" => self.each(transmissions, Self::llc_61334),
            "llc" => self.each(transmissions, |pass, octets| {
                if octets.len() < LLC_LENGTH && LLC_HEADERS.iter().any(|header| header.starts_with(octets)) {
                    return Err(ProtocolError::remote("llc", octets.len(), "truncated", "the LLC header is not whole"));
                }
                let Some(apdu) = after_llc(octets) else {
                    return Err(ProtocolError::remote("llc", 0, "bad-llc", "an LLC header is E6 E6 00 or E6 E7 00"));
                };
                pass.apdus_in(apdu)
            }),
            "apdu" => self.each(transmissions, Self::apdus_in),
            "data" => self.each(transmissions, |pass, octets| {
                let depth = pass.apdus.depth();
                pass.apdus.begin('{');
                pass.apdus.member_string("apdu", "data");
                pass.apdus.key("data");
                let result = pass.value(octets, None, None);
                pass.apdus.end_to(depth);
                result
            }),
            other => Err(ProtocolError::local(
                "request",
                "layer-not-supported",
                format!(
                    "layer '{}' is not explained here; hdlc, wrapper, mbus, wmbus, llc, llc-61334, apdu, data and auto are",
                    other.escape_default()
                ),
            )),
        }
    }

    /// Each transmission by itself. One that ends too early is incomplete.
    fn each(
        &mut self,
        transmissions: &[Transmission<'_>],
        mut explain: impl FnMut(&mut Self, &[u8]) -> Result<(), ProtocolError>,
    ) -> Result<bool, ProtocolError> {
        for transmission in transmissions {
            match explain(self, transmission.octets) {
                Err(error) if error.code == "truncated" => return Ok(false),
                other => other?,
            }
        }
        Ok(!transmissions.is_empty())
    }

    /// Transmissions as streams, one a sender: what is left of one goes before what the same sender sends next.
    fn streams(&mut self, transmissions: &[Transmission<'_>], explain: Explain<'a, 'w>) -> Result<bool, ProtocolError> {
        let mut streams: [Stream; 3] = Default::default();
        for transmission in transmissions {
            let stream = &mut streams[transmission.from.map_or(0, |sender| 1 + sender as usize)];
            if stream.left.is_empty() {
                let taken = explain(self, transmission.octets, stream)?;
                stream.left.extend_from_slice(&transmission.octets[taken..]);
            } else {
                stream.left.extend_from_slice(transmission.octets);
                // A frame is short: a piece that completes none costs no more than a frame's walk.
                let mut left = std::mem::take(&mut stream.left);
                let taken = explain(self, &left, stream)?;
                left.drain(..taken);
                stream.left = left;
            }
        }
        let whole = streams.iter().all(|stream| {
            stream.pieces.is_empty()
                && stream.segments.is_empty()
                && stream.left.iter().all(|octet| stream.frames > 0 && *octet == hdlc::FLAG)
        });
        let any = streams.iter().any(|stream| stream.frames > 0);
        Ok(any && whole)
    }

    /// Frames from the front of `octets`; how many octets they took.
    fn hdlc_stream(&mut self, octets: &[u8], stream: &mut Stream) -> Result<usize, ProtocolError> {
        let mut taken = 0;
        while let Some((frame, length)) =
            hdlc::next_frame(&octets[taken..]).map_err(|error| stream.moved(error, taken))?
        {
            let start = taken + length - frame.length;
            taken += length;
            stream.frames += 1;
            self.frames.begin('{');
            self.frames.member_string("layer", "hdlc");
            self.frames.member_integer("length", frame.length as u32);
            self.frames.member_boolean("segmented", frame.segmented);
            self.frames.member_hex("destination", frame.destination);
            self.frames.member_hex("source", frame.source);
            self.frames.member_hex("control", &[frame.control]);
            self.frames.member_string("type", FrameType::of(frame.control).name());
            self.frames.key("hcs_ok");
            match frame.hcs_ok {
                Some(ok) => self.frames.boolean(ok),
                None => self.frames.null(),
            }
            self.frames.member_boolean("fcs_ok", frame.fcs_ok);
            if frame.fcs_ok {
                self.link_parameters(&frame);
            }
            self.frames.end();
            let wrong = |offset, code, what| {
                let error = ProtocolError::remote("hdlc", offset, code, format!("the {what} check sequence is wrong"));
                Err(stream.moved(error, start))
            };
            if frame.hcs_ok == Some(false) {
                return wrong(frame.header_length, "bad-hcs", "header");
            }
            if !frame.fcs_ok {
                return wrong(frame.length - 2, "bad-fcs", "frame");
            }
            if !FrameType::of(frame.control).carries_data() {
                continue;
            }
            if stream.pieces.is_empty() && !frame.segmented {
                self.payload(frame.information)?;
            } else {
                stream.pieces.extend_from_slice(frame.information);
                if !frame.segmented {
                    let whole = std::mem::take(&mut stream.pieces);
                    self.payload(&whole)?;
                }
            }
        }
        // Flags between frames mean nothing, but the last one opens the next frame.
        taken += octets[taken..].windows(2).take_while(|two| two == &[hdlc::FLAG; 2]).count();
        stream.before += taken;
        Ok(taken)
    }

    /// LLC and APDU, perhaps several times: some meters put three into one frame.
    fn payload(&mut self, octets: &[u8]) -> Result<(), ProtocolError> {
        let mut rest = octets;
        while !rest.is_empty() {
            let apdu = match after_llc(rest) {
                Some(apdu) => apdu,
                None => {
                    self.warn("there is no LLC header in front of the APDU");
                    rest
                }
            };
            let length = match apdu::length(apdu, &self.limits) {
                length if after_llc(apdu.get(length..).unwrap_or_default()).is_some() => length,
                _ => apdu.len(),
            };
            self.carried(&apdu[..length])?;
            rest = &apdu[length..];
        }
        Ok(())
    }

    fn wrapper_stream(&mut self, octets: &[u8], stream: &mut Stream) -> Result<usize, ProtocolError> {
        let mut taken = 0;
        while taken < octets.len() {
            let found =
                wrapper::next_wpdu(&octets[taken..], &self.limits).map_err(|error| stream.moved(error, taken))?;
            let Some(wpdu) = found else { break };
            taken += wrapper::HEADER + wpdu.apdu.len();
            stream.frames += 1;
            self.frames.begin('{');
            self.frames.member_string("layer", "wrapper");
            self.frames.member_integer("length", wpdu.apdu.len() as u32);
            self.frames.member_integer("source", wpdu.source);
            self.frames.member_integer("destination", wpdu.destination);
            self.frames.end();
            self.carried(wpdu.apdu)?;
        }
        stream.before += taken;
        Ok(taken)
    }

    fn apdus_in(&mut self, octets: &[u8]) -> Result<(), ProtocolError> {
        self.apdu(octets, 0)
    }

    fn warn(&mut self, text: &str) {
        self.warnings.string(text);
    }
}

type Explain<'a, 'w> = fn(&mut Pass<'a, 'w>, &[u8], &mut Stream) -> Result<usize, ProtocolError>;

/// One sender's octets.
#[derive(Default)]
struct Stream {
    /// What no frame has taken yet.
    left: Vec<u8>,
    /// Segments of a payload that goes on.
    pieces: Vec<u8>,
    /// The same of an M-Bus push.
    segments: mbus::Segments,
    /// Frames so far.
    frames: usize,
    /// Octets that frames have taken so far.
    before: usize,
}

impl Stream {
    fn moved(&self, error: ProtocolError, taken: usize) -> ProtocolError {
        ProtocolError { offset: error.offset + self.before + taken, ..error }
    }
}

/// What follows the LLC header (Green Book, "LLC sublayer": E6 E6 00 in requests, E6 E7 00 in responses).
fn after_llc(octets: &[u8]) -> Option<&[u8]> {
    LLC_HEADERS.iter().find_map(|header| octets.strip_prefix(header))
}

/// The layer that the first octets look like.
fn guess(transmissions: &[Transmission<'_>]) -> &'static str {
    let octets = transmissions.iter().map(|transmission| transmission.octets).find(|octets| !octets.is_empty());
    match *octets.unwrap_or_default() {
        [hdlc::FLAG, ..] => "hdlc",
        [0x00, 0x01, _, _, _, _, ..] => "wrapper",
        [0x68, first, second, 0x68, ..] if first == second => "mbus",
        [length, 0x44, ..] if usize::from(length) + 1 == octets.map_or(0, <[u8]>::len) => "wmbus",
        [0xE6, 0xE6 | 0xE7, ..] => "llc",
        [0x90, 0x01, 0x01, ..] => "llc-61334",
        [b':', ..] => "modbus-ascii",
        // Some tags are those of APDUs and of values: what is one whole value is a value.
        [tag, ..] if crate::axdr::tag::name(tag).is_some() => {
            let mut reader = Reader::new(octets.unwrap_or_default());
            let whole = skip(&mut reader, &Limits::default()).is_ok() && reader.is_empty();
            if whole || tags::name(tag).is_none() { "data" } else { "apdu" }
        }
        _ => "apdu",
    }
}

/// Structures inside structures. Each takes two brackets, and common JSON readers stop at 128.
const DEPTH: usize = 32;
const LLC_HEADERS: [[u8; LLC_LENGTH]; 2] = [[0xE6, 0xE6, 0x00], [0xE6, 0xE7, 0x00]];
const LLC_LENGTH: usize = 3;
