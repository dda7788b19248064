//! The smallest guest: a PVH kernel that halts for good. It holds a machine's devices and files and takes no time.

/// `cli; 1: hlt; jmp 1b`.
const CODE: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// Where it is loaded, and its place in the file, behind header, two program headers and the note.
const ADDRESS: u64 = 0x10_0000;
const OFFSET: u64 = 64 + 2 * 56 + 24;

/// The kernel's file: an ELF with its entry in a Xen note (`XEN_ELFNOTE_PHYS32_ENTRY`, 18).
pub fn kernel() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // Executable, x86-64, version 1; entry; program headers at 64, no sections; two program headers of 56 bytes.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend([ADDRESS, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, then PT_NOTE: type and flags, offset, virtual and physical address, size in file and memory, alignment.
    for (kind, offset, address, size) in [(1u32, OFFSET, ADDRESS, CODE.len() as u64), (4, OFFSET - 24, 0, 24)] {
        elf.extend([kind, 7].map(u32::to_le_bytes).concat());
        elf.extend([offset, address, address, size, size, 4].map(u64::to_le_bytes).concat());
    }
    elf.extend([4u32, 8, 18].map(u32::to_le_bytes).concat());
    elf.extend(b"Xen\0");
    elf.extend(ADDRESS.to_le_bytes());
    elf.extend(CODE);
    elf
}

#[cfg(test)]
mod tests {
    use super::{CODE, OFFSET, kernel};

    #[test]
    fn the_code_is_where_the_headers_say() {
        let elf = kernel();
        assert_eq!(elf.len() as u64, OFFSET + CODE.len() as u64);
        assert_eq!(elf[64 + 8..64 + 16], OFFSET.to_le_bytes());
    }
}
