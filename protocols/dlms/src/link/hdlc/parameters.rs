//! What both ends agree on in SNRM and UA (Green Book, "HDLC parameter negotiation during the connection phase").

/// Sizes and windows of one end, seen from that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// Octets of information in a frame that it sends, at most; up to [`LARGEST`].
    pub information_transmit: u16,
    /// Octets of information in a frame that it takes.
    pub information_receive: u16,
    /// Frames that it sends before it waits for an acknowledgement, 1 to 7.
    pub window_transmit: u8,
    /// Frames that it takes before it acknowledges, 1 to 7.
    pub window_receive: u8,
}

/// The most that the frame's length of 11 bits has room for.
pub const LARGEST: u16 = 2030;

impl Parameters {
    /// What holds if nobody says otherwise.
    pub const DEFAULT: Self =
        Self { information_transmit: 128, information_receive: 128, window_transmit: 1, window_receive: 1 };

    /// As this end's SNRM or UA says it; nothing where the defaults are meant.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if *self == Self::DEFAULT {
            return;
        }
        let start = out.len();
        out.extend_from_slice(&[FORMAT, GROUP, 0]);
        for (id, value) in [(5, self.information_transmit), (6, self.information_receive)] {
            // The shortest form: a meter that knows two-octet values knows one-octet values.
            match u8::try_from(value) {
                Ok(value) => out.extend_from_slice(&[id, 1, value]),
                Err(_) => {
                    out.extend_from_slice(&[id, 2]);
                    out.extend_from_slice(&value.to_be_bytes());
                }
            }
        }
        for (id, window) in [(7, self.window_transmit), (8, self.window_receive)] {
            out.extend_from_slice(&[id, 4, 0, 0, 0, window]);
        }
        let length = out.len() - start - 3;
        if let Some(place) = out.get_mut(start + 2) {
            *place = length as u8;
        }
    }

    /// What the other end says of itself, seen from there. Values have one to four octets; what is missing is the
    /// default; what cannot be read is missing.
    pub fn decode(information: &[u8]) -> Self {
        let mut found = Self::DEFAULT;
        let [FORMAT, GROUP, length, rest @ ..] = information else { return found };
        let mut rest = rest.get(..usize::from(*length)).unwrap_or(rest);
        while let [id, length, more @ ..] = rest {
            let length = usize::from(*length);
            let Some(octets) = more.get(..length) else { break };
            rest = &more[length..];
            let value =
                octets.iter().fold(0u32, |value, octet| value.saturating_mul(256).saturating_add((*octet).into()));
            if value == 0 || length == 0 {
                continue;
            }
            match id {
                5 => found.information_transmit = value.min(u32::from(LARGEST)) as u16,
                6 => found.information_receive = value.min(u32::from(LARGEST)) as u16,
                7 => found.window_transmit = value.min(7) as u8,
                8 => found.window_receive = value.min(7) as u8,
                _ => {}
            }
        }
        found
    }

    /// What holds for this end, given what the other end says of itself: nobody sends more than the other takes.
    #[must_use]
    pub fn agree(&self, other: &Self) -> Self {
        Self {
            information_transmit: self.information_transmit.min(other.information_receive).max(1),
            information_receive: self.information_receive.min(other.information_transmit).max(1),
            window_transmit: self.window_transmit.min(other.window_receive).max(1),
            window_receive: self.window_receive.min(other.window_transmit).max(1),
        }
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const FORMAT: u8 = 0x81;
const GROUP: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_two_and_four_octets_and_asymmetric_limits_are_read() {
        // An E650: it sends 128 and takes 62; one octet each.
        let short = [0x81, 0x80, 0x12, 5, 1, 0x80, 6, 1, 0x3E, 7, 4, 0, 0, 0, 1, 8, 4, 0, 0, 0, 1];
        let mut meant = Parameters { information_receive: 62, ..Parameters::DEFAULT };
        assert_eq!(Parameters::decode(&short), meant);
        // The same as two-octet and four-octet values.
        let long = [0x81, 0x80, 0x16, 5, 2, 0, 0x80, 6, 4, 0, 0, 0, 0x3E, 7, 4, 0, 0, 0, 1, 8, 4, 0, 0, 0, 3];
        meant.window_receive = 3;
        assert_eq!(Parameters::decode(&long), meant);
    }

    #[test]
    fn written_parameters_read_back_and_defaults_take_no_octets() {
        let large =
            Parameters { information_transmit: 2030, information_receive: 255, window_transmit: 7, window_receive: 2 };
        let mut out = Vec::new();
        large.encode(&mut out);
        assert_eq!(Parameters::decode(&out), large);
        for end in 0..out.len() {
            let _ = Parameters::decode(&out[..end]);
        }
        out.clear();
        Parameters::DEFAULT.encode(&mut out);
        assert!(out.is_empty());
        assert_eq!(Parameters::decode(&[]), Parameters::DEFAULT);
    }

    #[test]
    fn numbers_beyond_four_octets_are_as_large_as_numbers_get() {
        let long = [0x81, 0x80, 8, 5, 6, 255, 255, 255, 255, 255, 255];
        assert_eq!(Parameters::decode(&long).information_transmit, LARGEST);
    }

    #[test]
    fn nobody_sends_more_than_the_other_takes() {
        let ours =
            Parameters { information_transmit: 2030, information_receive: 512, window_transmit: 7, window_receive: 1 };
        let theirs =
            Parameters { information_transmit: 128, information_receive: 62, window_transmit: 3, window_receive: 2 };
        assert_eq!(
            ours.agree(&theirs),
            Parameters { information_transmit: 62, information_receive: 128, window_transmit: 2, window_receive: 1 }
        );
    }
}
