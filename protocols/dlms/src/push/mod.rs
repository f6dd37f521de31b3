//! Readings out of what a meter says unasked: which object each value of a push belongs to, with scaler and unit.
//!
//! Some pushes say it themselves (logical names beside values, a push object list in front of them); others are bare
//! lists, and a [`Companion`] profile has their layout. [`Finder`] walks along with a value and names what it finds;
//! [`read`] takes a whole notification apart for whoever stores it; [`learn`] makes a layout of an object list or of a
//! labelled sample.

pub mod companion;
pub mod finder;
pub mod layout;
pub mod learn;
pub mod notification;
pub mod time_rules;
pub mod untagged;

#[cfg(test)]
mod tests;

pub use companion::{Companion, companion};
pub use finder::{Finder, Found};
pub use layout::{Column, Layout, Shape};
pub use notification::{Notification, Pushed, PushedValue, read};
pub use time_rules::TimeRules;
