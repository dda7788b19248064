//! What the firmware reads: OVMF images, the memory map, ACPI, SMBIOS and fw_cfg files. Pure: imports nothing of ours.
