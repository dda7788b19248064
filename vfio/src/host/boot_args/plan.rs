//! What makes the assignment of devices permanent on a host: the kernel's arguments, the files, the commands.

use serde::Serialize;

use super::super::survey::{Survey, Use};
use super::super::{Bdf, HostFunction, HostTree, SysfsError};
use super::arguments::{self, WrongArgument};
use super::claim::{self, BuiltIn, Claim, Claimed};
use super::early;
use super::journal::Journal;
use super::notes;
use super::place::Place;
use super::processor::Processor;
use super::program::{Told, rpm_ostree_initramfs};
use super::system::{Arguments, Family, Initramfs, System};
use super::words;

/// A program to run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Command {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// What it does.
    pub why: &'static str,
}

impl Command {
    /// A command whose words have no spaces in them.
    pub(super) fn new(text: &str, why: &'static str) -> Self {
        Self::of(&text.split(' ').collect::<Vec<_>>(), why)
    }

    pub(super) fn of(words: &[&str], why: &'static str) -> Self {
        let words = words.iter().map(ToString::to_string).collect();
        Self { words, why }
    }

    /// As a shell takes it.
    pub fn line(&self) -> String {
        let quoted = |word: &String| match word.contains([' ', '"', '$', '\\']) {
            true => format!("'{word}'"),
            false => word.clone(),
        };
        self.words.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// One file to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// Words are added to a file that is the user's or the distribution's.
    Words {
        /// The file.
        path: String,
        /// Where in it.
        place: Place,
        /// The words; those that are there already are not added.
        words: Vec<String>,
    },
    /// A file of tenon's own.
    File {
        /// The file.
        path: String,
        /// All of it.
        text: String,
        /// Whether it is run.
        executable: bool,
    },
}

impl Change {
    /// Which file.
    pub fn path(&self) -> &str {
        match self {
            Self::Words { path, .. } | Self::File { path, .. } => path,
        }
    }

    pub(super) fn file(path: &str, text: &str) -> Self {
        Self::File {
            path: path.to_owned(),
            text: text.to_owned(),
            executable: false,
        }
    }

    pub(super) fn script(path: &str, text: &str) -> Self {
        Self::File {
            path: path.to_owned(),
            text: text.to_owned(),
            executable: true,
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The host cannot be surveyed.
    #[error(transparent)]
    Host(#[from] SysfsError),
    /// A bridge was named.
    #[error("{0} is a bridge; a bridge stays with the host: name the functions behind it")]
    Bridge(Box<HostFunction>),
}

/// Something the host would lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The function and what the host uses it for.
    pub what: String,
    /// What happens.
    pub consequence: &'static str,
    /// What to do so that it does not.
    pub remedy: Option<String>,
    /// Whether the owner may well want that: the only display.
    pub may_be_wanted: bool,
}

/// See the module's own words.
#[derive(Debug, Clone, Serialize)]
pub struct BootPlan {
    /// The distribution.
    pub system: System,
    /// Whose processor it is.
    pub processor: Processor,
    /// The functions taken at boot, by address.
    pub functions: Vec<Claimed>,
    /// The arguments the kernel is to be started with.
    pub arguments: Vec<String>,
    /// Arguments it was started with that do not fit these.
    pub wrong: Vec<WrongArgument>,
    /// What the host would lose.
    pub losses: Vec<Loss>,
    /// The files to change.
    pub changes: Vec<Change>,
    /// What to run afterwards.
    pub commands: Vec<Command>,
    /// What else there is to know.
    pub notes: Vec<String>,
    /// Which of the arguments the running kernel was not started with.
    pub pending: Vec<String>,
    /// What the kernel was started with.
    #[serde(skip)]
    pub(super) in_force: Vec<String>,
    /// What a program is told that keeps the arguments instead of a file.
    #[serde(skip)]
    pub(super) told: Told,
    /// Whether claims by ID that stand there are replaced, and what turns the IOMMU off.
    #[serde(skip)]
    pub(super) replace: bool,
}

impl BootPlan {
    /// The plan for these functions and everything that goes with them; for none, that of the IOMMU alone.
    ///
    /// # Errors
    /// A named function does not exist or is a bridge, or the host cannot be surveyed.
    pub fn of(tree: &HostTree, named: &[Bdf]) -> Result<Self, PlanError> {
        Self::for_system(tree, tree, named, false)
    }

    /// The plan for the devices of one tree and the distribution of another, such as one that is mounted to be mended.
    /// With `replace` other claims by ID, and arguments that turn the IOMMU off, are taken away.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn for_system(host: &HostTree, system: &HostTree, named: &[Bdf], replace: bool) -> Result<Self, PlanError> {
        let survey = Survey::of(host)?;
        for bdf in named {
            let function = match survey.get(*bdf) {
                Some(function) => function.facts.clone(),
                None => super::super::Sysfs::of(host.clone()).function(*bdf)?,
            };
            if function.is_bridge() {
                return Err(PlanError::Bridge(Box::new(function)));
            }
        }
        // The kernel that will be started is the one of the system.
        let drivers = BuiltIn::of(system);
        let built_in = drivers.has("vfio_pci");
        let mut plan = Self {
            system: System::of(system),
            processor: Processor::of(host),
            functions: claim::claims(host, &survey, named, &drivers),
            arguments: Vec::new(),
            wrong: Vec::new(),
            losses: Vec::new(),
            changes: Vec::new(),
            commands: Vec::new(),
            notes: Vec::new(),
            pending: Vec::new(),
            in_force: words::split(&host.text("/proc/cmdline").unwrap_or_default()),
            told: Told::default(),
            replace,
        };
        plan.losses = plan
            .functions
            .iter()
            .flat_map(|function| losses(&survey, function))
            .collect();
        plan.arguments = plan.kernel_arguments(built_in);
        let facts: Vec<&HostFunction> = survey.facts().collect();
        plan.wrong = arguments::wrong(&plan.in_force, &plan.functions, &facts);
        plan.pending = arguments::missing(&plan.in_force, &plan.arguments);
        // One that cannot be read stops the writing; what is shown needs none.
        let before = Journal::of(system).unwrap_or_default().told;
        plan.fill(system, &before, built_in);
        plan.notes = notes::notes(&plan, &survey, host, built_in);
        Ok(plan)
    }

    /// The arguments on one line, as they stand on the kernel's command line.
    pub fn argument_line(&self) -> String {
        self.arguments.join(" ")
    }

    fn kernel_arguments(&self, built_in: bool) -> Vec<String> {
        let mut all: Vec<String> = self
            .processor
            .iommu_arguments()
            .iter()
            .map(ToString::to_string)
            .collect();
        if self.functions.is_empty() {
            return all;
        }
        let dracut = matches!(self.system.initramfs, Initramfs::Dracut | Initramfs::RpmOstree);
        if dracut && !built_in {
            all.push("rd.driver.pre=vfio-pci".into());
        }
        let mut ids: Vec<String> = Vec::new();
        for function in self.functions.iter().filter(|function| function.claim == Claim::ById) {
            let id = function.id();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        if !ids.is_empty() {
            all.push(format!("vfio-pci.ids={}", ids.join(",")));
        }
        all
    }

    /// Where the arguments go, the files for the initramfs, and the commands that make both take effect.
    fn fill(&mut self, tree: &HostTree, before: &Told, built_in: bool) {
        for arguments in self.system.arguments.clone() {
            match arguments {
                Arguments::Edit { path, place } => self.changes.push(Change::Words {
                    path,
                    place,
                    words: self.arguments.clone(),
                }),
                Arguments::ShellDropIn { path, variable, read } => {
                    let missing = self.missing_beside(tree, &read, &shell_place());
                    let text = format!("{}{variable}=\"${variable} {}\"\n", early::HEADER, missing.join(" "));
                    self.changes
                        .extend((!missing.is_empty()).then(|| Change::file(&path, &text)));
                }
                Arguments::LineDropIn { path, read } => {
                    let missing = self.missing_beside(tree, &read, &Place::Line);
                    let text = format!("{}\n", missing.join(" "));
                    self.changes
                        .extend((!missing.is_empty()).then(|| Change::file(&path, &text)));
                }
                Arguments::Kept(program) => {
                    self.told = Told::for_arguments(&self.in_force, &self.arguments, before, self.replace);
                    self.commands.extend(program.commands(&self.told.after(before)));
                }
            }
        }
        if self.system.family == Family::Fedora && self.system.arguments.is_empty() {
            self.commands.push(grubby(&self.arguments, &self.wrong));
        }
        if self.system.initramfs == Initramfs::RpmOstree {
            self.commands.extend(rpm_ostree_initramfs(&self.functions, built_in));
        }
        let files = early::files(self.system.initramfs, &self.functions, built_in);
        self.commands.extend(self.system.refresh_commands(!files.is_empty()));
        self.changes.extend(files);
    }

    /// What a file of ours has to add to those of others, which are looked through for what would undo it.
    fn missing_beside(&mut self, tree: &HostTree, files: &[String], place: &Place) -> Vec<String> {
        let mut there = Vec::new();
        for path in files {
            let words = tree.bytes(path).ok().and_then(|bytes| place.arguments(&bytes).ok());
            let words = words.unwrap_or_default();
            let suspect = |word: &String| arguments::replaced(word, &self.arguments);
            if words.iter().any(suspect) {
                self.changes.push(Change::Words {
                    path: path.clone(),
                    place: place.clone(),
                    words: Vec::new(),
                });
            }
            there.extend(words.into_iter().filter(|word| !(self.replace && suspect(word))));
        }
        arguments::missing(&there, &self.arguments)
    }

    /// Whether grubby is named, where no file is there to be edited.
    pub(super) fn has_grubby(&self) -> bool {
        let mut programs = self.commands.iter().filter_map(|command| command.words.first());
        programs.any(|program| program == "grubby")
    }

    /// Why the plan cannot be carried out by tenon; `None` where it can.
    pub fn obstacle(&self) -> Option<String> {
        if self.system.family == Family::Unknown {
            return Some(format!(
                "tenon does not know how {} keeps its kernel arguments; add the arguments shown to the boot loader's \
                 configuration by hand",
                self.system.name
            ));
        }
        if self.system.arguments.is_empty() {
            return Some(format!(
                "none of the boot loaders that {} comes with is set up here: there is no file with kernel arguments \
                 where it keeps them; add the arguments shown to the boot loader's configuration by hand",
                self.system.name
            ));
        }
        None
    }
}

/// The variables of `/etc/default/grub`: those for all entries come first, then those for normal ones.
fn shell_place() -> Place {
    Place::Shell {
        variable: "GRUB_CMDLINE_LINUX_DEFAULT".into(),
        others: vec!["GRUB_CMDLINE_LINUX".into()],
    }
}

/// For a tree that holds no boot loader's files, as most captures.
fn grubby(arguments: &[String], wrong: &[WrongArgument]) -> Command {
    let mut words = vec!["grubby".to_owned(), "--update-kernel=ALL".to_owned()];
    let defeating: Vec<&str> = wrong
        .iter()
        .filter(|wrong| wrong.defeats)
        .map(|wrong| wrong.argument.as_str())
        .collect();
    if !defeating.is_empty() {
        words.push(format!("--remove-args={}", defeating.join(" ")));
    }
    words.push(format!("--args={}", arguments.join(" ")));
    let why = "sets the arguments of every boot entry";
    Command { words, why }
}

/// What the host would miss after the reboot, or could not start without. What another guest has now is no matter then.
fn losses(survey: &Survey, function: &Claimed) -> Vec<Loss> {
    let uses = survey
        .get(function.bdf)
        .map(|found| found.uses.as_slice())
        .unwrap_or_default();
    let lasting = |found: &&Use| found.forbids() && !matches!(found, Use::Vm { .. } | Use::VirtualFunctions(_));
    uses.iter()
        .filter(lasting)
        .map(|found| Loss {
            what: format!("{} {found}", function.bdf),
            consequence: found.consequence(),
            remedy: found.remedy(function.bdf),
            may_be_wanted: matches!(found, Use::OnlyDisplay),
        })
        .collect()
}
