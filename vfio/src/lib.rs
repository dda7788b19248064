//! Everything assigned: discovery, DMA mapping, config space, BARs, interrupts and resets of VFIO devices.
