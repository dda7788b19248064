//! Guest memory: locking it, finding it, mapping it.

use crate::host::symptom::Symptom;

pub(super) const SYMPTOMS: &[Symptom] = &[
    Symptom {
        id: "memlock",
        title: "the process may not lock as much memory as the guest has",
        signs: &[
            r"vfio_pin_pages?_(remote|external): .*RLIMIT_MEMLOCK \(\d+\) exceeded",
            r"VFIO_MAP_DMA (failed: )?.*Cannot allocate memory",
            r"(vfio_container_dma_map|vfio_dma_map)\(.*\) = -12 ",
            r"assigned devices need .* of guest memory locked, but this process may lock only",
            r"cannot map guest RAM at .* for the devices: Cannot allocate memory",
        ],
        context: None,
        cause: "Devices may write to any of the guest's memory at any time, so all of it is locked and counts against \
                RLIMIT_MEMLOCK, once for each container.",
        remedy: "Raise the limit to the guest's memory and 1 GiB more: `LimitMEMLOCK=infinity` in a unit, a `memlock` line in \
                 /etc/security/limits.d, or `ulimit -l unlimited` as root.",
        source: "github.com/cloud-hypervisor/cloud-hypervisor/issues/165; github.com/kubevirt/kubevirt/issues/8472",
    },
    Symptom {
        id: "hugepages",
        title: "there are fewer huge pages than the guest wants",
        signs: &[
            r"unable to map backing store for guest RAM: Cannot allocate memory",
            r"(os_mem_prealloc|qemu_prealloc_mem): (preallocating memory failed|Insufficient free host memory pages available)",
            r"HugeTLB: allocating \d+ of page size .* failed\.\s+Only allocated \d+ hugepages",
        ],
        context: None,
        cause: "Memory is fragmented once the machine has run for a while, and the kernel found fewer whole pages than asked for.",
        remedy: "Reserve them at boot: hugepagesz=1G hugepages=N, or hugepages=N for 2 MiB ones. Without a reboot: \
                 `echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory`, then set nr_hugepages again.",
        source: "QEMU system/physmem.c; Linux mm/hugetlb.c",
    },
    Symptom {
        id: "dma-entries",
        title: "too many mappings for one container",
        signs: &[
            r"VFIO_MAP_DMA (failed: )?.*No space left on device",
            r"(vfio_container_dma_map|vfio_dma_map)\(.*\) = -28 ",
            r"cannot map guest RAM at .* for the devices: No space left on device",
        ],
        context: None,
        cause: "The type1 driver takes dma_entry_limit mappings, 65535 unless told; guests with a virtual IOMMU or very many \
                pieces of memory need more.",
        remedy: "Load vfio_iommu_type1 with a higher dma_entry_limit (vfio_iommu_type1.dma_entry_limit=1000000).",
        source: "Linux drivers/vfio/vfio_iommu_type1.c; github.com/cloud-hypervisor/cloud-hypervisor/issues/165",
    },
];
