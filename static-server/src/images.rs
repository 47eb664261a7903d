//! Pictures in smaller forms: which one a request gets, and how it is made.
//!
//! [`choice`] decides, without I/O.

pub mod choice;
