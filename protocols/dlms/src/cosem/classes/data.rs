//! Data, class 1: one value of any type.
