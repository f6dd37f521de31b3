//! The meter's own *no*, and its *yes* (Green Book, Data-Access-Result and Action-Result).

macro_rules! results {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_meta])* $variant = $number,)* }

        impl $name {
            /// The result for its number on the wire, if the standard has one.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The standard's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

results! {
    /// Answer to a GET or SET.
    DataAccessResult {
        /// Done.
        Success = 0 "success",
        /// The device is broken.
        HardwareFault = 1 "hardware-fault",
        /// For now.
        TemporaryFailure = 2 "temporary-failure",
        /// The association's rights do not allow it.
        ReadWriteDenied = 3 "read-write-denied",
        /// No such object.
        ObjectUndefined = 4 "object-undefined",
        /// The object has another class.
        ObjectClassInconsistent = 9 "object-class-inconsistent",
        /// The object cannot be reached.
        ObjectUnavailable = 11 "object-unavailable",
        /// The value has the wrong type.
        TypeUnmatched = 12 "type-unmatched",
        /// Outside the scope of access.
        ScopeOfAccessViolated = 13 "scope-of-access-violated",
        /// The block cannot be given.
        DataBlockUnavailable = 14 "data-block-unavailable",
        /// A long GET was ended.
        LongGetAborted = 15 "long-get-aborted",
        /// There is no long GET to go on with.
        NoLongGetInProgress = 16 "no-long-get-in-progress",
        /// A long SET was ended.
        LongSetAborted = 17 "long-set-aborted",
        /// There is no long SET to go on with.
        NoLongSetInProgress = 18 "no-long-set-in-progress",
        /// The block's number is not the expected one.
        DataBlockNumberInvalid = 19 "data-block-number-invalid",
        /// Something else.
        OtherReason = 250 "other-reason",
    }
}

results! {
    /// Answer to an ACTION.
    ActionResult {
        /// Done.
        Success = 0 "success",
        /// The device is broken.
        HardwareFault = 1 "hardware-fault",
        /// For now.
        TemporaryFailure = 2 "temporary-failure",
        /// The association's rights do not allow it.
        ReadWriteDenied = 3 "read-write-denied",
        /// No such object.
        ObjectUndefined = 4 "object-undefined",
        /// The object has another class.
        ObjectClassInconsistent = 9 "object-class-inconsistent",
        /// The object cannot be reached.
        ObjectUnavailable = 11 "object-unavailable",
        /// The parameter has the wrong type.
        TypeUnmatched = 12 "type-unmatched",
        /// Outside the scope of access.
        ScopeOfAccessViolated = 13 "scope-of-access-violated",
        /// The block cannot be given.
        DataBlockUnavailable = 14 "data-block-unavailable",
        /// A long ACTION was ended.
        LongActionAborted = 15 "long-action-aborted",
        /// There is no long ACTION to go on with.
        NoLongActionInProgress = 16 "no-long-action-in-progress",
        /// Something else.
        OtherReason = 250 "other-reason",
    }
}
