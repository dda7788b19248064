//! The state a vCPU enters a kernel in: 32-bit protected mode, flat segments, no paging. The Linux 32-bit boot protocol
//! (Documentation/arch/x86/boot.rst) and PVH (Xen docs/misc/pvh.pandoc) ask for the same, but for one register.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Error, layout};

/// `__BOOT_CS` of the 32-bit boot protocol.
const CODE_SELECTOR: u16 = 0x10;
/// `__BOOT_DS` of the 32-bit boot protocol.
const DATA_SELECTOR: u16 = 0x18;
/// A task segment must be loaded; this one is never switched to.
const TASK_SELECTOR: u16 = 0x20;
/// Segment types (Intel SDM vol. 3A §3.4.5.1 and §3.5).
const CODE_EXECUTE_READ_ACCESSED: u8 = 0xb;
const DATA_READ_WRITE_ACCESSED: u8 = 0x3;
const TASK_32BIT_BUSY: u8 = 0xb;
/// Limit of the smallest 32-bit task segment, as PVH asks for.
const TASK_LIMIT: u32 = 0x67;

/// Protected mode, and the bit that is always one (Intel SDM vol. 3A §2.5).
const CR0_PE_ET: u64 = 0x11;
/// Bit 1 is always one; interrupts are off.
const RFLAGS: u64 = 0x2;

/// Where and how a vCPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Physical address of the first instruction.
    pub rip: u64,
    /// Address of `boot_params` for a bzImage, otherwise 0.
    pub rsi: u64,
    /// Address of `hvm_start_info` for PVH, otherwise 0.
    pub rbx: u64,
    /// Top of a small stack.
    pub rsp: u64,
    /// Guest physical address of the descriptor table.
    pub gdt: u64,
}

impl EntryState {
    /// Puts the state into the boot processor's registers. Whatever `sregs` holds of the APIC stays.
    pub fn apply(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        *regs = kvm_regs {
            rip: self.rip,
            rsi: self.rsi,
            rbx: self.rbx,
            rsp: self.rsp,
            rflags: RFLAGS,
            ..Default::default()
        };
        let data = data_segment();
        sregs.cs = code_segment();
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        sregs.tr = task_segment();
        sregs.ldt = kvm_segment {
            unusable: 1,
            ..Default::default()
        };
        sregs.gdt = kvm_dtable {
            base: self.gdt,
            limit: (size_of_val(&descriptors()) - 1) as u16,
            ..Default::default()
        };
        sregs.idt = kvm_dtable::default();
        sregs.cr0 = CR0_PE_ET;
        (sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0, 0);
    }
}

/// Writes the descriptor table the segments were loaded from; kernels reload them before they make their own.
pub(super) fn write_gdt(memory: &GuestMemoryMmap) -> Result<(), Error> {
    let bytes: Vec<u8> = descriptors()
        .iter()
        .flat_map(|descriptor| descriptor.to_le_bytes())
        .collect();
    memory
        .write_slice(&bytes, GuestAddress(layout::GDT))
        .map_err(|source| Error::Memory {
            what: "the descriptor table",
            source,
        })
}

fn descriptors() -> [u64; 5] {
    [
        0,
        0,
        descriptor(&code_segment()),
        descriptor(&data_segment()),
        descriptor(&task_segment()),
    ]
}

fn code_segment() -> kvm_segment {
    flat_segment(CODE_SELECTOR, CODE_EXECUTE_READ_ACCESSED)
}

fn data_segment() -> kvm_segment {
    flat_segment(DATA_SELECTOR, DATA_READ_WRITE_ACCESSED)
}

/// All 4 GiB, 32-bit.
fn flat_segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        selector,
        type_,
        limit: u32::MAX,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    }
}

fn task_segment() -> kvm_segment {
    kvm_segment {
        selector: TASK_SELECTOR,
        type_: TASK_32BIT_BUSY,
        limit: TASK_LIMIT,
        present: 1,
        ..Default::default()
    }
}

/// A segment as the table holds it (Intel SDM vol. 3A figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = segment.type_ | segment.s << 4 | segment.dpl << 5 | segment.present << 7;
    let flags = segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3;
    let base = segment.base;
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(access) << 40
        | (limit >> 16 & 0xf) << 48
        | u64::from(flags) << 52
        | (base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_usual_flat_ones() {
        assert_eq!(descriptor(&code_segment()), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data_segment()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task_segment()), 0x0000_8b00_0000_0067);
        assert_eq!(usize::from(CODE_SELECTOR) / 8, 2);
    }

    #[test]
    fn entry_is_protected_mode_without_paging() {
        let entry = EntryState {
            rip: 0x10_0000,
            rsi: 0x7000,
            rbx: 0,
            rsp: 0x5ff0,
            gdt: 0x500,
        };
        let mut regs = kvm_regs {
            rax: 1,
            rbp: 2,
            rdi: 3,
            ..Default::default()
        };
        let mut sregs = kvm_sregs {
            cr0: 1 << 31,
            cr4: 0x20,
            efer: 0x500,
            apic_base: 0xfee0_0900,
            ..Default::default()
        };
        entry.apply(&mut regs, &mut sregs);
        assert_eq!(
            (regs.rip, regs.rsi, regs.rax, regs.rbp, regs.rdi, regs.rflags),
            (0x10_0000, 0x7000, 0, 0, 0, 2)
        );
        assert_eq!(
            (sregs.cr0, sregs.cr4, sregs.efer, sregs.apic_base),
            (0x11, 0, 0, 0xfee0_0900)
        );
        assert_eq!((sregs.gdt.base, sregs.gdt.limit), (0x500, 39));
        assert_eq!((sregs.cs.selector, sregs.ss.selector), (0x10, 0x18));
    }
}
