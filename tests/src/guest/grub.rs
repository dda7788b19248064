use super::{Error, Result};

/// The title of the menu entry that boots the guest: what a picture of the menu is recognised by.
pub const MENU_TITLE: &str = "TENON LAB GUEST";

/// Bytes `grub.cfg` always has on the disk, so that another one can be written over it in place.
pub const CONFIG_SIZE: usize = 4096;

/// First line of every `grub.cfg`, by which it is found in an image.
pub(super) const HEADER: &str = "# tenon lab guest, GRUB configuration";

const GRAPHICAL: &str = "loadfont /EFI/debian/fonts/ascii.pf2\nset gfxmode=auto\nterminal_output gfxterm";

/// What GRUB shows and starts.
#[derive(Debug, Clone)]
pub struct GrubConfig {
    cmdline: String,
    seconds: u32,
    graphical: bool,
}

impl GrubConfig {
    /// Boots the guest's kernel with this command line after a menu of 2 seconds.
    pub fn new(cmdline: impl Into<String>) -> Self {
        Self {
            cmdline: cmdline.into(),
            seconds: 2,
            graphical: false,
        }
    }

    /// Shows the menu for so long. Zero shows none.
    #[must_use]
    pub fn menu_seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    /// Draws the menu with GRUB's own font instead of through the firmware's text console. Slow: each second of the menu
    /// takes several in an emulated machine.
    #[must_use]
    pub fn graphical(mut self) -> Self {
        self.graphical = true;
        self
    }

    /// The file, padded with line ends to [`CONFIG_SIZE`].
    ///
    /// # Errors
    /// [`Error::ConfigTooLong`].
    pub fn render(&self) -> Result<Vec<u8>> {
        let Self {
            cmdline,
            seconds,
            graphical,
        } = self;
        let terminal = if *graphical {
            GRAPHICAL
        } else {
            "terminal_output console"
        };
        let text = format!(
            "{HEADER}\n\
             search --file --set=root /tenon/vmlinuz\n\
             {terminal}\n\
             set timeout={seconds}\n\
             set default=0\n\
             menuentry '{MENU_TITLE}' {{\n\
             \x20 linux /tenon/vmlinuz {cmdline}\n\
             \x20 initrd /tenon/initrd.img\n\
             }}\n\
             menuentry 'TENON UEFI SETTINGS' {{\n\
             \x20 fwsetup\n\
             }}\n\
             menuentry 'TENON POWER OFF' {{\n\
             \x20 halt\n\
             }}\n"
        );
        if text.len() > CONFIG_SIZE {
            return Err(Error::ConfigTooLong { size: text.len() });
        }
        let mut bytes = text.into_bytes();
        bytes.resize(CONFIG_SIZE, b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{CONFIG_SIZE, GrubConfig};

    #[test]
    fn every_configuration_has_the_same_size() {
        let short = GrubConfig::new("quiet").render().unwrap();
        let long = GrubConfig::new("x".repeat(3000)).menu_seconds(0).render().unwrap();
        assert_eq!((short.len(), long.len()), (CONFIG_SIZE, CONFIG_SIZE));
        let error = GrubConfig::new("x".repeat(5000)).render().unwrap_err();
        assert!(error.to_string().contains("shorten the kernel command line"), "{error}");
    }
}
