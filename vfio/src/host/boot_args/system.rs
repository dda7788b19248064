//! Which distribution it is, how it gives its kernel arguments, and what makes its initramfs. Known by os-release and
//! by the files that are there; what decided is kept, to be shown.

mod loaders;

use serde::Serialize;

use super::super::HostTree;
use super::early;
use super::edits::Edits;
use super::plan::Command;
pub(super) use loaders::Arguments;

/// A distribution that tenon knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Fedora, RHEL and what is made from them.
    Fedora,
    /// Fedora's image-based editions: rpm-ostree.
    FedoraAtomic,
    /// Debian, Ubuntu and what is made from them.
    Debian,
    /// Pop!_OS: kernelstub.
    Pop,
    /// Proxmox VE.
    Proxmox,
    /// Arch and what is made from it.
    Arch,
    /// openSUSE and SLE.
    Suse,
    /// Another one.
    Unknown,
}

/// What makes the initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initramfs {
    /// dracut.
    Dracut,
    /// mkinitcpio.
    Mkinitcpio,
    /// initramfs-tools.
    InitramfsTools,
    /// rpm-ostree, which runs dracut with arguments of its own.
    RpmOstree,
    /// Not known.
    Unknown,
}

/// The distribution and how it boots.
#[derive(Debug, Clone, Serialize)]
pub struct System {
    /// What os-release calls it.
    pub name: String,
    /// Which of those that tenon knows.
    pub family: Family,
    /// What makes its initramfs.
    pub initramfs: Initramfs,
    /// What told so.
    pub evidence: Vec<String>,
    #[serde(skip)]
    pub(super) arguments: Vec<Arguments>,
    /// What brings changed arguments to the boot loader.
    #[serde(skip)]
    pub(super) refresh: Vec<Command>,
}

impl System {
    /// What a tree says of itself.
    pub fn of(tree: &HostTree) -> Self {
        let release = Release::of(tree);
        let mut evidence = vec![release.evidence()];
        let family = family(tree, &release, &mut evidence);
        let initramfs = initramfs(tree, family, &mut evidence);
        let mut system = Self {
            name: match family {
                Family::Proxmox => format!("Proxmox VE on {}", release.name()),
                _ => release.name(),
            },
            family,
            initramfs,
            evidence,
            arguments: Vec::new(),
            refresh: Vec::new(),
        };
        loaders::find(tree, &mut system);
        system
    }

    /// What to run after files have changed. The initramfs comes first: what copies it to a boot partition comes after.
    pub(super) fn refresh_commands(&self, initramfs_changed: bool) -> Vec<Command> {
        // A unified image holds the arguments too.
        let holds_arguments = self.family == Family::Arch && self.initramfs == Initramfs::Mkinitcpio;
        let rebuild = (initramfs_changed || holds_arguments)
            .then(|| self.initramfs_command())
            .flatten();
        rebuild.into_iter().chain(self.refresh.clone()).collect()
    }

    /// What to run after everything was taken back. What a program was told is taken back by telling it so.
    pub fn commands_after_removal(&self, edits: &Edits) -> Vec<Command> {
        let told = &edits.told;
        let back = told.reversed();
        let initramfs_changed = edits.files.iter().any(|edit| early::is_in_initramfs(&edit.path));
        let programs = self.arguments.iter().filter_map(|arguments| match arguments {
            Arguments::Kept(program) => Some(program.commands(&back)),
            _ => None,
        });
        let own_initramfs = (self.initramfs == Initramfs::RpmOstree && !told.is_empty()).then(|| {
            let why = "goes back to the initramfs of the image, if nothing else needs one of its own";
            Command::new("rpm-ostree initramfs --disable", why)
        });
        let rest = own_initramfs
            .into_iter()
            .chain(self.refresh_commands(initramfs_changed));
        programs.flatten().chain(rest).collect()
    }

    fn initramfs_command(&self) -> Option<Command> {
        let by_sdbootutil = self
            .refresh
            .iter()
            .any(|command| command.words.iter().any(|word| word == "sdbootutil"));
        let why = "makes the initramfs of every kernel anew";
        let command = match self.initramfs {
            // It copies the initramfs beside the boot entries, which dracut alone does not.
            Initramfs::Dracut if by_sdbootutil => "sdbootutil mkinitrd",
            Initramfs::Dracut => "dracut --force --regenerate-all",
            Initramfs::Mkinitcpio => "mkinitcpio -P",
            Initramfs::InitramfsTools => "update-initramfs -u -k all",
            Initramfs::RpmOstree | Initramfs::Unknown => return None,
        };
        Some(Command::new(command, why))
    }
}

/// os-release(5).
struct Release {
    path: &'static str,
    text: String,
}

impl Release {
    fn of(tree: &HostTree) -> Self {
        ["/etc/os-release", "/usr/lib/os-release"]
            .into_iter()
            .find_map(|path| tree.text(path).ok().map(|text| Self { path, text }))
            .unwrap_or(Self {
                path: "",
                text: String::new(),
            })
    }

    fn get(&self, key: &str) -> Option<&str> {
        let line = self
            .text
            .lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches(['"', '\'']))
    }

    fn name(&self) -> String {
        let name = ["PRETTY_NAME", "NAME", "ID"].into_iter().find_map(|key| self.get(key));
        name.unwrap_or("an unknown distribution").to_owned()
    }

    fn ids(&self) -> Vec<&str> {
        let like = self.get("ID_LIKE").unwrap_or_default().split_whitespace();
        self.get("ID").into_iter().chain(like).collect()
    }

    fn evidence(&self) -> String {
        match (self.path, self.get("ID")) {
            ("", _) => "there is no /etc/os-release".into(),
            (path, None) => format!("{path} names no ID"),
            (path, Some(id)) => match self.get("ID_LIKE") {
                Some(like) => format!("{path}: ID={id}, ID_LIKE={like}"),
                None => format!("{path}: ID={id}"),
            },
        }
    }
}

fn family(tree: &HostTree, release: &Release, evidence: &mut Vec<String>) -> Family {
    let mut there = |path: &str| {
        let is = tree.exists(path);
        if is {
            evidence.push(format!("{path} is there"));
        }
        is
    };
    for id in release.ids() {
        let found = match id {
            "fedora" | "rhel" | "centos" => {
                let image_based = release.get("OSTREE_VERSION").is_some();
                match image_based || there("/run/ostree-booted") || there("/sysroot/ostree") {
                    true => Family::FedoraAtomic,
                    false => Family::Fedora,
                }
            }
            "pop" => Family::Pop,
            "debian" | "ubuntu" if there("/usr/bin/pveversion") || there("/etc/pve") => Family::Proxmox,
            "debian" | "ubuntu" => Family::Debian,
            "arch" | "archlinux" => Family::Arch,
            "opensuse" | "suse" | "sles" => Family::Suse,
            id if id.starts_with("opensuse-") || id.starts_with("sle-") => Family::Suse,
            _ => continue,
        };
        return found;
    }
    Family::Unknown
}

fn initramfs(tree: &HostTree, family: Family, evidence: &mut Vec<String>) -> Initramfs {
    let candidates: &[(&str, Initramfs)] = match family {
        Family::Fedora | Family::Suse | Family::FedoraAtomic => return usual(family),
        Family::Debian | Family::Pop | Family::Proxmox => &[
            ("/etc/initramfs-tools/initramfs.conf", Initramfs::InitramfsTools),
            ("/usr/bin/dracut", Initramfs::Dracut),
            ("/etc/dracut.conf.d", Initramfs::Dracut),
        ],
        Family::Arch | Family::Unknown => &[
            ("/etc/mkinitcpio.conf", Initramfs::Mkinitcpio),
            ("/etc/initramfs-tools/initramfs.conf", Initramfs::InitramfsTools),
            ("/etc/dracut.conf.d", Initramfs::Dracut),
            ("/etc/dracut.conf", Initramfs::Dracut),
        ],
    };
    match candidates.iter().find(|(path, _)| tree.exists(path)) {
        Some((path, initramfs)) => {
            evidence.push(format!("{path} is there"));
            *initramfs
        }
        None => usual(family),
    }
}

/// What the distribution comes with. A capture may hold no file of it.
fn usual(family: Family) -> Initramfs {
    match family {
        Family::Debian | Family::Pop | Family::Proxmox => Initramfs::InitramfsTools,
        Family::Arch => Initramfs::Mkinitcpio,
        Family::Fedora | Family::Suse => Initramfs::Dracut,
        Family::FedoraAtomic => Initramfs::RpmOstree,
        Family::Unknown => Initramfs::Unknown,
    }
}
