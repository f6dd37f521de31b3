//! The six octets that name a COSEM object: an OBIS code, A-B:C.D.E*F (Blue Book, "OBIS").

use std::fmt;
use std::str::FromStr;

use ipss_session::ProtocolError;

/// A logical name. Text forms read: `1.0.1.8.0.255`, `1-0:1.8.0*255`, `1-0:1.8.0.255` and `1-0:1.8.0` (F = 255).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogicalName(pub [u8; 6]);

impl LogicalName {
    /// The current association (Blue Book: 0-0:40.0.0*255).
    pub const CURRENT_ASSOCIATION: Self = Self([0, 0, 40, 0, 0, 255]);
    /// The clock (0-0:1.0.0*255).
    pub const CLOCK: Self = Self([0, 0, 1, 0, 0, 255]);
    /// The logical device name (0-0:42.0.0*255).
    pub const LOGICAL_DEVICE_NAME: Self = Self([0, 0, 42, 0, 0, 255]);
    /// The SAP assignment (0-0:41.0.0*255).
    pub const SAP_ASSIGNMENT: Self = Self([0, 0, 41, 0, 0, 255]);
}

/// Six numbers with dots: `1.0.1.8.0.255`.
impl fmt::Display for LogicalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a}.{b}.{c}.{d}.{e}.{last}")
    }
}

impl fmt::Debug for LogicalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogicalName {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let wrong = || {
            ProtocolError::local(
                "cosem",
                "bad-logical-name",
                format!("'{text}' is not a logical name: six numbers 0 to 255 as 1.0.1.8.0.255 or 1-0:1.8.0*255"),
            )
        };
        let mut octets = [255; 6];
        let mut count = 0;
        for part in text.trim().split(['.', '-', ':', '*', '&']) {
            let octet = part.parse::<u8>().map_err(|_| wrong())?;
            *octets.get_mut(count).ok_or_else(wrong)? = octet;
            count += 1;
        }
        if count < 5 || (count == 5 && !text.contains(':')) {
            return Err(wrong());
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_name_the_same_object() {
        let energy = LogicalName([1, 0, 1, 8, 0, 255]);

        for text in ["1.0.1.8.0.255", "1-0:1.8.0*255", "1-0:1.8.0.255", "1-0:1.8.0", " 1.0.1.8.0.255 "] {
            assert_eq!(text.parse::<LogicalName>().unwrap(), energy, "{text}");
        }
        assert_eq!(energy.to_string(), "1.0.1.8.0.255");
    }

    #[test]
    fn what_is_no_logical_name_is_refused_by_name() {
        for text in ["", "1.8.0", "1.0.1.8.0", "1.0.1.8.0.256", "1.0.1.8.0.255.1", "1-0:1.8.x", "a", "1..1.8.0.255"] {
            let error = text.parse::<LogicalName>().unwrap_err();
            assert_eq!(error.code, "bad-logical-name", "{text}");
        }
    }
}
