//! Where a run is refused: the command that lists all that is in its way.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::config::RunConfig;
use crate::exit::{ExitStatus, Failure};

/// The command that looks at all of one guest's needs.
#[derive(Debug, Clone)]
pub(super) struct Advice(String);

impl Advice {
    /// By the guest's configuration file, or by what was named on the command line.
    pub(super) fn new(file: Option<PathBuf>, config: &RunConfig) -> Self {
        let mut command = "tenon check".to_owned();
        match file {
            Some(path) => command += &format!(" --config {}", path.display()),
            None => {
                for device in &config.devices {
                    command += &format!(" --device {}", device.address);
                }
                command += &format!(" --memory {}M", config.memory >> 20);
            }
        }
        Self(command)
    }

    /// The error with this advice, where it is the host that refused and the error has none of its own.
    pub(super) fn on(&self, error: Box<dyn Failure>) -> Box<dyn Failure> {
        match (error.status(), error.hint()) {
            (ExitStatus::Host, None) => Box::new(Refused {
                error,
                hint: format!("`{}` lists all that is in the way", self.0),
            }),
            _ => error,
        }
    }
}

/// An error of the host's, with advice.
#[derive(Debug)]
struct Refused {
    error: Box<dyn Failure>,
    hint: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Failure for Refused {
    fn status(&self) -> ExitStatus {
        self.error.status()
    }

    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::machine::error::Error as MachineError;

    fn no_iommu() -> Box<dyn Failure> {
        let bdf = "01:00.0".parse().unwrap();
        MachineError::from(vfio::SelectionError::NoIommu(bdf)).into()
    }

    #[test]
    fn a_refusal_of_the_host_names_the_command() {
        let config = Config {
            kernel: Some("/proc/version".into()),
            devices: vec!["01:00.0".parse().unwrap()],
            ..Config::default()
        };
        let config = config.validate().unwrap();
        let flags = Advice::new(None, &config).on(no_iommu());
        assert_eq!(
            flags.hint().unwrap(),
            "`tenon check --device 0000:01:00.0 --memory 2048M` lists all that is in the way"
        );
        assert!(flags.to_string().contains("no IOMMU is active"), "{flags}");
        assert_eq!(flags.status(), ExitStatus::Host);
        let file = Advice::new(Some("gaming.toml".into()), &config).on(no_iommu());
        assert!(file.hint().unwrap().contains("`tenon check --config gaming.toml`"));

        let twice = vfio::SelectionError::Twice("01:00.0".parse().unwrap());
        let own_fault = Advice::new(None, &config).on(MachineError::from(twice).into());
        assert_eq!(
            (own_fault.status(), own_fault.hint()),
            (ExitStatus::Configuration, None)
        );
    }
}
