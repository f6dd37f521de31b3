//! Image transfer (class 18) and activity calendar (class 20) of a virtual meter.
//!
//! An image is any octets. The meter finds it bad if it begins with `broken`, looks at it for two seconds before it says
//! so or the contrary, and is busy for two seconds when it is activated. Its signature of an image is the SHA-256.

use ipss_dlms::axdr::Data;
use ipss_dlms::cosem::{ActionResult, DataAccessResult};
use ipss_session::Limits;
use sha2::{Digest, Sha256};

use super::encode;

/// Octets of a block.
pub(super) const BLOCK_SIZE: u32 = 128;

/// The largest image that is taken.
const LARGEST: u32 = 1 << 20;

/// How long verifying and activating take.
const BUSY_S: i64 = 2;

const INITIATED: u8 = 1;
const VERIFYING: u8 = 2;
const VERIFIED: u8 = 3;
const NOT_VERIFIED: u8 = 4;
const ACTIVATING: u8 = 5;
const ACTIVATED: u8 = 6;

/// An image that was begun.
#[derive(Debug, Default)]
pub(super) struct Image {
    identifier: Box<[u8]>,
    octets: Vec<u8>,
    /// Which blocks have come.
    come: Vec<bool>,
    /// Blocks that were lost once.
    lost: Vec<u32>,
    status: u8,
    /// When verifying or activating ends, true second.
    until_s: i64,
}

impl Image {
    /// image_transfer_initiate: a structure of identifier and size. The same again begins anew.
    pub fn initiate(parameters: &[u8]) -> Result<Self, ActionResult> {
        let (identifier, size) = fields(parameters).ok_or(ActionResult::TypeUnmatched)?;
        let [6, size @ ..] = size else { return Err(ActionResult::TypeUnmatched) };
        let size = u32::from_be_bytes(size.try_into().map_err(|_| ActionResult::TypeUnmatched)?);
        if size == 0 || size > LARGEST {
            return Err(ActionResult::OtherReason);
        }
        let blocks = size.div_ceil(BLOCK_SIZE) as usize;
        Ok(Self {
            identifier: identifier.into(),
            octets: vec![0; size as usize],
            come: vec![false; blocks],
            status: INITIATED,
            ..Self::default()
        })
    }

    /// image_block_transfer: a structure of number and octets. With `loses`, each seventh block is lost the first time.
    pub fn block(&mut self, parameters: &[u8], loses: bool) -> ActionResult {
        let Some((number, octets)) = block(parameters) else { return ActionResult::TypeUnmatched };
        let from = number as usize * BLOCK_SIZE as usize;
        let Some(place) = self.octets.get_mut(from..) else { return ActionResult::OtherReason };
        let length = place.len().min(BLOCK_SIZE as usize);
        if octets.len() != length || !matches!(self.status, INITIATED | NOT_VERIFIED) {
            return ActionResult::OtherReason;
        }
        if loses && number % 7 == 3 && !self.lost.contains(&number) {
            self.lost.push(number);
            return ActionResult::Success;
        }
        place[..length].copy_from_slice(octets);
        self.come[number as usize] = true;
        self.status = INITIATED;
        ActionResult::Success
    }

    /// image_verify: busy for a while, then whether it is good.
    pub fn verify(&mut self, now_s: i64) -> ActionResult {
        match self.status {
            INITIATED if !self.come.iter().all(|come| *come) => ActionResult::OtherReason,
            INITIATED => {
                (self.status, self.until_s) = (VERIFYING, now_s + BUSY_S);
                ActionResult::TemporaryFailure
            }
            VERIFYING => ActionResult::TemporaryFailure,
            VERIFIED => ActionResult::Success,
            _ => ActionResult::OtherReason,
        }
    }

    /// image_activate.
    pub fn activate(&mut self, now_s: i64) -> ActionResult {
        match self.status {
            VERIFIED => {
                (self.status, self.until_s) = (ACTIVATING, now_s + BUSY_S);
                ActionResult::Success
            }
            ACTIVATING => ActionResult::TemporaryFailure,
            _ => ActionResult::OtherReason,
        }
    }

    /// Let happen what was due; what runs from now on, if that is another version.
    pub fn settle(&mut self, now_s: i64) -> Option<Box<[u8]>> {
        match self.status {
            VERIFYING if now_s >= self.until_s => {
                self.status = if self.octets.starts_with(b"broken") { NOT_VERIFIED } else { VERIFIED };
            }
            ACTIVATING if now_s >= self.until_s => {
                self.status = ACTIVATED;
                return Some(self.identifier.clone());
            }
            _ => {}
        }
        None
    }
}

/// An attribute of the image transfer, with no image begun or with this one.
pub(super) fn attribute(image: Option<&Image>, number: i8, out: &mut Vec<u8>) {
    match number {
        2 => encode::double_long_unsigned(out, BLOCK_SIZE),
        3 => {
            let come = image.map_or(&[][..], |image| &image.come);
            out.push(4);
            length(out, come.len());
            out.extend(come.chunks(8).map(|eight| {
                eight.iter().enumerate().fold(0, |octet, (place, come)| octet | u8::from(*come) << (7 - place))
            }));
        }
        4 => {
            let first = image.map_or(0, |image| image.come.iter().position(|come| !come).unwrap_or(image.come.len()));
            encode::double_long_unsigned(out, first as u32);
        }
        5 => encode::boolean(out, true),
        6 => encode::enumeration(out, image.map_or(0, |image| image.status)),
        _ => {
            let done = image.filter(|image| image.status >= VERIFIED && image.status != NOT_VERIFIED);
            encode::array(out, usize::from(done.is_some()));
            if let Some(image) = done {
                encode::structure(out, 3);
                encode::double_long_unsigned(out, image.octets.len() as u32);
                encode::octet_string(out, &image.identifier);
                encode::octet_string(out, &Sha256::digest(&image.octets));
            }
        }
    }
}

/// Names, seasons, weeks and days of the active and the passive calendar, as A-XDR: attributes 2 to 9.
#[derive(Clone, Debug)]
pub(super) struct Calendar([Box<[u8]>; 8]);

impl Default for Calendar {
    fn default() -> Self {
        let name = |name: &[u8; 6]| [&[9, 6][..], name].concat().into_boxed_slice();
        let empty = || Box::from([1, 0]);
        Self([name(b"summer"), empty(), empty(), empty(), name(b"winter"), empty(), empty(), empty()])
    }
}

impl Calendar {
    /// One of the attributes 2 to 9.
    pub fn attribute(&self, number: i8, out: &mut Vec<u8>) {
        if let Some(value) = usize::try_from(number - 2).ok().and_then(|place| self.0.get(place)) {
            out.extend_from_slice(value);
        }
    }

    /// Write one of the passive calendar's, attributes 6 to 9.
    pub fn write(&mut self, number: i8, value: &[u8]) -> Result<(), DataAccessResult> {
        let wanted = if number == 6 { 9 } else { 1 };
        let sound = Data::from_octets(value, &Limits::default()).is_ok();
        if value.first() != Some(&wanted) || value.len() > 512 || !sound {
            return Err(DataAccessResult::TypeUnmatched);
        }
        let place = usize::try_from(number - 2).ok().and_then(|place| self.0.get_mut(place));
        *place.ok_or(DataAccessResult::ObjectUndefined)? = value.into();
        Ok(())
    }

    /// activate_passive_calendar.
    pub fn activate(&mut self) {
        let (active, passive) = self.0.split_at_mut(4);
        active.clone_from_slice(passive);
    }
}

/// A structure of two, of which the first is an octet string: that, and the second with its tag.
fn fields(parameters: &[u8]) -> Option<(&[u8], &[u8])> {
    let [2, 2, 9, rest @ ..] = parameters else { return None };
    let (length, rest) = taken_length(rest)?;
    rest.split_at_checked(length)
}

/// A structure of a double-long-unsigned and an octet string.
fn block(parameters: &[u8]) -> Option<(u32, &[u8])> {
    let [2, 2, 6, a, b, c, d, 9, rest @ ..] = parameters else { return None };
    let (length, octets) = taken_length(rest)?;
    (octets.len() == length).then(|| (u32::from_be_bytes([*a, *b, *c, *d]), octets))
}

fn taken_length(octets: &[u8]) -> Option<(usize, &[u8])> {
    match octets {
        [short @ 0..=127, rest @ ..] => Some((usize::from(*short), rest)),
        [0x81, length, rest @ ..] => Some((usize::from(*length), rest)),
        [0x82, high, low, rest @ ..] => Some((usize::from(u16::from_be_bytes([*high, *low])), rest)),
        _ => None,
    }
}

fn length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..=127) => out.push(short),
        Ok(long) => out.extend_from_slice(&[0x81, long]),
        Err(_) => {
            out.push(0x82);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(octets: &[u8]) -> Image {
        let mut parameters = vec![2, 2, 9, 3, b'v', b'-', b'2', 6];
        parameters.extend_from_slice(&(octets.len() as u32).to_be_bytes());
        Image::initiate(&parameters).unwrap()
    }

    fn send(image: &mut Image, octets: &[u8], number: u32, loses: bool) -> ActionResult {
        let from = number as usize * 128;
        let part = &octets[from..octets.len().min(from + 128)];
        let mut parameters = vec![2, 2, 6];
        parameters.extend_from_slice(&number.to_be_bytes());
        parameters.push(9);
        length(&mut parameters, part.len());
        parameters.extend_from_slice(part);
        image.block(&parameters, loses)
    }

    fn shown(image: &Image, number: i8) -> Vec<u8> {
        let mut out = Vec::new();
        attribute(Some(image), number, &mut out);
        out
    }

    #[test]
    fn image_goes_through_its_states_and_lost_blocks_are_told() {
        let octets = [7; 1_000];
        let mut image = begun(&octets);
        for number in 0..8 {
            assert_eq!(send(&mut image, &octets, number, true), ActionResult::Success);
        }
        assert_eq!(shown(&image, 3), [4, 8, 0b1110_1111]);
        assert_eq!(shown(&image, 4), [6, 0, 0, 0, 3]);
        assert_eq!(image.verify(10), ActionResult::OtherReason);
        assert_eq!(send(&mut image, &octets, 3, true), ActionResult::Success);
        assert_eq!(image.verify(10), ActionResult::TemporaryFailure);
        assert_eq!(image.settle(11), None);
        assert_eq!(image.verify(11), ActionResult::TemporaryFailure);
        image.settle(12);
        assert_eq!(image.verify(12), ActionResult::Success);
        assert!(shown(&image, 7).ends_with(&Sha256::digest(octets)));
        assert_eq!(image.activate(12), ActionResult::Success);
        assert_eq!(image.settle(13), None);
        assert_eq!(image.settle(14).as_deref(), Some(&b"v-2"[..]));
        assert_eq!(shown(&image, 6), [22, 6]);
    }

    #[test]
    fn broken_image_is_not_verified_and_not_activated() {
        let octets = *b"broken, whatever follows";
        let mut image = begun(&octets);
        assert_eq!(image.activate(1), ActionResult::OtherReason);
        send(&mut image, &octets, 0, false);
        image.verify(1);
        image.settle(3);
        assert_eq!(shown(&image, 6), [22, NOT_VERIFIED]);
        assert_eq!(image.activate(3), ActionResult::OtherReason);
        assert_eq!(image.verify(3), ActionResult::OtherReason);
    }

    #[test]
    fn passive_calendar_becomes_the_active_one() {
        let mut calendar = Calendar::default();
        calendar.write(6, b"\x09\x041927").unwrap();
        assert!(calendar.write(7, &[9, 0]).is_err());
        calendar.activate();
        let mut out = Vec::new();
        calendar.attribute(2, &mut out);
        assert_eq!(out, b"\x09\x041927");
    }
}
