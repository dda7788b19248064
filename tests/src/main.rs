//! `cargo lab`: see README.md.

use tests::lab::{Set, Store};

fn main() {
    let store = Store::open().unwrap();
    for set in Set::ALL {
        let r = store.set(set).unwrap();
        println!("{:?} {:?}", r.path(), r.kernel());
    }
}
