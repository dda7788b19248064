//! A device at fixed ports.

use std::sync::Arc;

use crate::{Backing, BusDevice, Region, Space};

/// The region of `count` ports from `base`, the first of them offset 0 to `device`.
pub(crate) fn ports(base: u16, count: u64, device: Arc<dyn BusDevice>) -> Region {
    Region {
        space: Space::Port,
        base: u64::from(base),
        size: count,
        backing: Backing::Device { device, offset: 0 },
    }
}
