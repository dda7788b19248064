//! Kernel, processor, memory, modules and distribution.

use std::fmt::Write;

use vfio::host::capture::KERNEL_LOG;

use super::source::{Host, listed};
use super::{HostError, Tree};

pub(super) fn put(host: &Host, tree: &mut Tree) -> Result<(), HostError> {
    kernel(host, tree)?;
    modules(host, tree)?;
    machine(host, tree)?;
    limits(tree)?;
    for (path, content) in &host.files {
        tree.file(path.trim_start_matches('/'), content.as_str())?;
    }
    Ok(())
}

fn kernel(host: &Host, tree: &mut Tree) -> Result<(), HostError> {
    let kernel = &host.kernel;
    tree.file("proc/cmdline", format!("{}\n", kernel.cmdline))?;
    tree.file("proc/sys/kernel/osrelease", format!("{}\n", kernel.release))?;
    tree.file("etc/os-release", host.os.as_str())?;
    if let Some(lockdown) = &kernel.lockdown {
        tree.file("sys/kernel/security/lockdown", format!("{lockdown}\n"))?;
    }
    tree.file(KERNEL_LOG.trim_start_matches('/'), kernel.log.as_str())
}

fn modules(host: &Host, tree: &mut Tree) -> Result<(), HostError> {
    let kernel = &host.kernel;
    let mut table = String::new();
    for name in &kernel.loaded {
        let _ = writeln!(table, "{name} 65536 0 - Live 0x0000000000000000");
        tree.file(format!("sys/module/{name}/initstate"), "live\n")?;
    }
    tree.file("proc/modules", table)?;
    for name in &kernel.builtin {
        tree.directory(format!("sys/module/{name}"))?;
    }
    for (name, value) in &kernel.parameters {
        let (module, parameter) = name
            .split_once('.')
            .ok_or_else(|| HostError::Wrong(format!("parameter {name}")))?;
        tree.file(
            format!("sys/module/{module}/parameters/{parameter}"),
            format!("{value}\n"),
        )?;
    }

    let folder = format!("lib/modules/{}", kernel.release);
    let mut aliases = String::from("# Aliases extracted from modules themselves.\n");
    let mut files: Vec<&String> = kernel.loaded.iter().chain(&kernel.loadable).collect();
    for function in &host.functions {
        let facts = listed(&function.lspci)?;
        for module in &function.modules {
            let line = format!(
                "alias pci:v{:08X}d{:08X}sv*sd*bc*sc*i* {module}\n",
                facts.vendor, facts.device
            );
            if !aliases.contains(&line) {
                aliases += &line;
            }
            if !kernel.builtin.contains(module) {
                files.push(module);
            }
        }
    }
    files.sort_unstable();
    files.dedup();
    let listing = |names: &[&String], after: &str| -> String {
        names
            .iter()
            .map(|name| format!("kernel/drivers/{name}.ko{after}\n"))
            .collect()
    };
    let builtin: Vec<&String> = kernel.builtin.iter().collect();
    tree.file(format!("{folder}/modules.alias"), aliases)?;
    tree.file(format!("{folder}/modules.dep"), listing(&files, ":"))?;
    tree.file(format!("{folder}/modules.builtin"), listing(&builtin, ""))
}

fn machine(host: &Host, tree: &mut Tree) -> Result<(), HostError> {
    let machine = &host.machine;
    let vendor = if machine.flags.split_whitespace().any(|flag| flag == "svm") {
        "AuthenticAMD"
    } else {
        "GenuineIntel"
    };
    let mut processors = String::new();
    for index in 0..machine.threads {
        let _ = writeln!(
            processors,
            "processor\t: {index}\nvendor_id\t: {vendor}\nmodel name\t: {}\nflags\t\t: {}\n",
            machine.processor, machine.flags
        );
        tree.file(
            format!("sys/devices/system/cpu/cpu{index}/topology/core_id"),
            format!("{index}\n"),
        )?;
    }
    tree.file("proc/cpuinfo", processors)?;
    let all = format!("0-{}\n", machine.threads.saturating_sub(1));
    tree.file("sys/devices/system/cpu/online", all.as_str())?;
    tree.file("sys/devices/system/cpu/present", all)?;

    let total = machine.memory << 20;
    let pages = machine.huge_pages;
    tree.file(
        "proc/meminfo",
        format!(
            "MemTotal:       {total} kB\nMemFree:        {free} kB\nMemAvailable:   {free} kB\n\
             HugePages_Total:   {pages}\nHugePages_Free:    {pages}\nHugepagesize:       2048 kB\n",
            free = (total / 4 * 3).saturating_sub(pages * 2048),
        ),
    )?;
    let huge = "sys/kernel/mm/hugepages/hugepages-2048kB";
    for name in ["nr_hugepages", "free_hugepages"] {
        tree.file(format!("{huge}/{name}"), format!("{pages}\n"))?;
    }

    let dmi = "sys/devices/virtual/dmi/id";
    tree.link("sys/class/dmi/id", dmi)?;
    for (name, value) in [
        ("sys_vendor", machine.vendor.as_str()),
        ("board_vendor", &machine.vendor),
        ("product_name", &machine.board),
        ("board_name", &machine.board),
        ("chassis_type", &machine.chassis.to_string()),
    ] {
        tree.file(format!("{dmi}/{name}"), format!("{value}\n"))?;
    }
    Ok(())
}

/// Of the process that looks: an ordinary user's.
fn limits(tree: &mut Tree) -> Result<(), HostError> {
    tree.file(
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max locked memory         8388608              8388608              bytes     \n",
    )?;
    tree.file("proc/self/status", "VmLck:\t       0 kB\nCapEff:\t0000000000000000\n")
}
