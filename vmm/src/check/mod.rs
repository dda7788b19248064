//! What `tenon check` looks at besides the host: the needs of one guest.

mod guest;

pub use guest::Guest;
