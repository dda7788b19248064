//! Everything emulated. Knows no KVM and no VFIO.
