//! The table, a file for each part of the machine that the failures come from.

mod bars;
mod device;
mod dma;
mod groups;
mod guest;
mod host;
mod iommu;
mod reset;

use super::Symptom;

const PARTS: [&[Symptom]; 8] = [
    host::SYMPTOMS,
    iommu::SYMPTOMS,
    groups::SYMPTOMS,
    dma::SYMPTOMS,
    device::SYMPTOMS,
    bars::SYMPTOMS,
    reset::SYMPTOMS,
    guest::SYMPTOMS,
];

/// All symptoms there are.
pub fn all() -> impl Iterator<Item = &'static Symptom> {
    PARTS.into_iter().flatten()
}

/// The symptom of that name.
pub fn find(id: &str) -> Option<&'static Symptom> {
    all().find(|symptom| symptom.id == id)
}
