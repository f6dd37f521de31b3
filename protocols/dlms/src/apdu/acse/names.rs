//! What the association's APDUs name by number: contexts, mechanisms, diagnostics (Green Book, "ACSE APDUs").

/// How objects are referenced, and whether ciphered APDUs may be used (Green Book, application context names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApplicationContext {
    /// 1
    LogicalName,
    /// 2
    ShortName,
    /// 3
    LogicalNameCiphered,
    /// 4
    ShortNameCiphered,
    /// None that the Green Book has; the last octet of the name.
    Other(u8),
}

/// How a client proves who it is (Green Book, mechanism names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// 0: not at all.
    Lowest,
    /// 1: a password (LLS).
    Low,
    /// 2: a procedure of the manufacturer's.
    High,
    /// 3: MD5 over challenge and secret.
    HighMd5,
    /// 4: SHA-1 over challenge and secret.
    HighSha1,
    /// 5: GMAC.
    HighGmac,
    /// 6: SHA-256 over secret, titles and challenges.
    HighSha256,
    /// 7: ECDSA signatures.
    HighEcdsa,
    /// None that the Green Book has; the last octet of the name.
    Other(u8),
}

impl ApplicationContext {
    /// The context for the last octet of its name.
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::LogicalName,
            2 => Self::ShortName,
            3 => Self::LogicalNameCiphered,
            4 => Self::ShortNameCiphered,
            other => Self::Other(other),
        }
    }

    /// The last octet of the name.
    pub fn number(self) -> u8 {
        match self {
            Self::LogicalName => 1,
            Self::ShortName => 2,
            Self::LogicalNameCiphered => 3,
            Self::ShortNameCiphered => 4,
            Self::Other(other) => other,
        }
    }

    /// Whether ciphered APDUs may be used.
    pub fn is_ciphered(self) -> bool {
        matches!(self, Self::LogicalNameCiphered | Self::ShortNameCiphered)
    }
}

impl Mechanism {
    /// The mechanism for the last octet of its name.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Lowest,
            1 => Self::Low,
            2 => Self::High,
            3 => Self::HighMd5,
            4 => Self::HighSha1,
            5 => Self::HighGmac,
            6 => Self::HighSha256,
            7 => Self::HighEcdsa,
            other => Self::Other(other),
        }
    }

    /// The last octet of the name.
    pub fn number(self) -> u8 {
        match self {
            Self::Lowest => 0,
            Self::Low => 1,
            Self::High => 2,
            Self::HighMd5 => 3,
            Self::HighSha1 => 4,
            Self::HighGmac => 5,
            Self::HighSha256 => 6,
            Self::HighEcdsa => 7,
            Self::Other(other) => other,
        }
    }
}

/// Whose diagnostic it is, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// acse-service-user.
    User(u8),
    /// acse-service-provider.
    Provider(u8),
}

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Self = Self::User(0);
    /// The context is not supported.
    pub const APPLICATION_CONTEXT_NAME_NOT_SUPPORTED: Self = Self::User(2);
    /// The client's system title is not known.
    pub const CALLING_AP_TITLE_NOT_RECOGNIZED: Self = Self::User(3);
    /// The mechanism is not known.
    pub const AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED: Self = Self::User(11);
    /// A mechanism is wanted.
    pub const AUTHENTICATION_MECHANISM_NAME_REQUIRED: Self = Self::User(12);
    /// The password or proof is wrong.
    pub const AUTHENTICATION_FAILURE: Self = Self::User(13);
    /// The second half of HLS is still to come.
    pub const AUTHENTICATION_REQUIRED: Self = Self::User(14);

    /// The number alone.
    pub fn number(self) -> u8 {
        match self {
            Self::User(number) | Self::Provider(number) => number,
        }
    }

    /// The standard's name.
    pub fn name(self) -> Option<&'static str> {
        let (names, number): (&[&str], _) = match self {
            Self::User(number) => (
                &[
                    "null",
                    "no-reason-given",
                    "application-context-name-not-supported",
                    "calling-AP-title-not-recognized",
                    "calling-AP-invocation-identifier-not-recognized",
                    "calling-AE-qualifier-not-recognized",
                    "calling-AE-invocation-identifier-not-recognized",
                    "called-AP-title-not-recognized",
                    "called-AP-invocation-identifier-not-recognized",
                    "called-AE-qualifier-not-recognized",
                    "called-AE-invocation-identifier-not-recognized",
                    "authentication-mechanism-name-not-recognised",
                    "authentication-mechanism-name-required",
                    "authentication-failure",
                    "authentication-required",
                ],
                number,
            ),
            Self::Provider(number) => (&["null", "no-reason-given", "no-common-acse-version"], number),
        };
        names.get(usize::from(number)).copied()
    }
}
