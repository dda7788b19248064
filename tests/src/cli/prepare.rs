//! `cargo lab prepare`.

use std::process::ExitCode;

use tests::lab::product::Product;
use tests::lab::{Set, Store, initramfs};

use super::Outcome;

/// Fetches, unpacks and builds everything, and says where it is.
pub fn run() -> Outcome {
    let store = Store::open()?;
    for set in Set::ALL {
        let root = store.set(set)?;
        initramfs::base(&store, &root)?;
        println!(
            "{}: Linux {} and its firmware in {}",
            set.name(),
            root.kernel_release()?,
            root.path().display()
        );
    }
    let product = Product::build()?;
    println!("tenon: {}", product.tenon.display());
    Ok(ExitCode::SUCCESS)
}
