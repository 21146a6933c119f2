//! The driver and CUDA's libraries: which versions are here, and which of them work together.

use moetrace_cuda::{CudaError, Driver, Version};

use super::{Check, State};

/// The one driver that GPU tests and benches ran with, on H100 and H200, and the CUDA that it knows.
const TESTED_RELEASE: &str = "580.159.04";
const TESTED: Version = Version { major: 13, minor: 0 };

/// The first release of the driver that knows [`Driver::LEAST`] (NVIDIA, CUDA 12.8 release notes).
const LEAST_RELEASE: &str = "570.26";

/// The oldest CUDA whose libraries are known to have what is used; `Libraries` opens them and newer ones by path.
const OLDEST: i32 = 12;

/// What is known of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DriverFacts {
    /// The newest CUDA that it knows.
    pub(super) version: Version,
    /// Its release, where NVIDIA's management library tells it.
    pub(super) release: Option<String>,
}

impl DriverFacts {
    pub(super) fn of(driver: Driver) -> Result<Self, CudaError> {
        Ok(Self { version: driver.version()?, release: driver.release() })
    }

    fn shown(&self) -> String {
        match &self.release {
            Some(release) => format!("{release}, for CUDA {} and older", self.version),
            None => format!("for CUDA {} and older", self.version),
        }
    }
}

/// The driver's line; `missing` is how bad it is not to have it.
pub(super) fn driver(found: &Result<DriverFacts, String>, missing: State) -> Check {
    let least = Driver::LEAST;
    let newer = format!(
        "install NVIDIA's driver {LEAST_RELEASE} or newer (https://www.nvidia.com/drivers; Ubuntu: sudo ubuntu-drivers \
         install), or compute on the processor: --device cpu"
    );
    let needs = format!(
        "CUDA {least} or newer, for passes are timed by a function that drivers have from it on: CUDA 11.8 is not enough"
    );
    match found {
        Err(why) => Check::not_ok("driver", missing, why, newer).needing(needs),
        Ok(facts) if facts.version < least => {
            Check::not_ok("driver", missing, facts.shown(), newer).needing(needs)
        }
        Ok(facts) if facts.version < TESTED => {
            let found = format!("{}: older than what was tested", facts.shown());
            let fix =
                format!("if a GPU does not work as it should, install driver {TESTED_RELEASE} or newer");
            Check::not_ok("driver", State::Note, found, fix).needing(needs)
        }
        Ok(facts) => Check::ok("driver", facts.shown()).needing(format!(
            "CUDA {least} or newer; tested with {TESTED_RELEASE} (CUDA {TESTED}) and no older one"
        )),
    }
}

/// NVRTC's line. What a newer NVRTC makes, a driver does not load.
pub(super) fn nvrtc(found: &Result<Version, String>, driver: Option<Version>, missing: State) -> Check {
    let fix = pip("nvidia-cuda-nvrtc", driver);
    let most =
        driver.map_or_else(String::new, |driver| format!(", and none newer than the driver's {driver}"));
    let needs = format!("NVRTC of CUDA 12 or 13{most}");
    match found {
        Err(why) => Check::not_ok("nvrtc", missing, why, fix).needing(needs),
        Ok(version) if driver.is_some_and(|driver| *version > driver) => {
            let found =
                format!("{version}, whose code a driver for CUDA {} does not load", or_unknown(driver));
            Check::not_ok("nvrtc", missing, found, fix).needing(needs)
        }
        Ok(version) if version.major < OLDEST => {
            let found = format!("{version}: older than any that is known to have what is used");
            Check::not_ok("nvrtc", State::Note, found, fix).needing(needs)
        }
        Ok(version) => Check::ok("nvrtc", version.to_string()).needing(needs),
    }
}

/// cuBLASLt's line.
pub(super) fn cublas(found: &Result<Version, String>, driver: Option<Version>, missing: State) -> Check {
    let needs = "cuBLASLt of CUDA 12 or 13";
    match found {
        Err(why) => Check::not_ok("cublas", missing, why, pip("nvidia-cublas", driver)).needing(needs),
        Ok(version) if version.major < OLDEST => {
            let found = format!("{version}: older than any that is known to have what is used");
            Check::not_ok("cublas", State::Note, found, pip("nvidia-cublas", driver)).needing(needs)
        }
        Ok(version) => Check::ok("cublas", version.to_string()).needing(needs),
    }
}

fn or_unknown(version: Option<Version>) -> String {
    version.map_or_else(|| "unknown".to_owned(), |version| version.to_string())
}

/// What brings a library that the driver can work with, into a Python environment that has to be active; where the driver
/// is yet to come, one that the least of those that will do can work with. Packages of CUDA 12 have that in their names; those
/// of cuBLAS have numbers of their own.
fn pip(package: &str, driver: Option<Version>) -> String {
    let driver = driver.filter(|driver| *driver >= Driver::LEAST).unwrap_or(Driver::LEAST);
    let name = if driver.major == 12 { format!("{package}-cu12") } else { package.to_owned() };
    let wanted = if package.ends_with("cublas") {
        format!("'{name}=={}.*'", driver.major)
    } else {
        format!("'{name}=={driver}.*'")
    };
    format!(
        "python3 -m venv .venv && . .venv/bin/activate && pip install {wanted}, or name a toolkit with CUDA_HOME"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: i32, minor: i32) -> Version {
        Version { major, minor }
    }

    fn facts(major: i32, minor: i32) -> DriverFacts {
        DriverFacts { version: version(major, minor), release: Some("1.2.3".into()) }
    }

    #[test]
    fn a_driver_is_held_to_the_least_that_works_and_to_the_least_that_was_tested() {
        let state = |found: &Result<DriverFacts, String>| driver(found, State::Fails).state;
        assert_eq!(state(&Ok(facts(11, 8))), State::Fails);
        assert_eq!(state(&Ok(facts(12, 6))), State::Fails);
        assert_eq!(state(&Ok(facts(12, 8))), State::Note);
        assert_eq!(state(&Ok(facts(13, 0))), State::Ok);
        assert_eq!(state(&Err("none".into())), State::Fails);
        assert_eq!(driver(&Err("none".into()), State::Note).state, State::Note);
        let old = driver(&Ok(facts(11, 8)), State::Fails);
        assert!(old.needs.unwrap().contains("CUDA 11.8 is not enough") && old.found.contains("1.2.3"));
        assert!(driver(&Ok(facts(13, 0)), State::Fails).needs.unwrap().contains("580.159.04"));
    }

    #[test]
    fn nvrtc_may_not_be_newer_than_the_driver_and_the_fix_is_one_that_is_not() {
        let line = |nvrtc_: (i32, i32), driver| nvrtc(&Ok(version(nvrtc_.0, nvrtc_.1)), driver, State::Fails);
        assert_eq!(line((13, 0), Some(version(13, 0))).state, State::Ok);
        assert_eq!(line((12, 9), Some(version(13, 0))).state, State::Ok);
        let newer = line((13, 5), Some(version(13, 0)));
        assert_eq!(newer.state, State::Fails);
        assert!(newer.fix.unwrap().contains("'nvidia-cuda-nvrtc==13.0.*'"));
        let of_12 = line((13, 0), Some(version(12, 8)));
        assert!(of_12.fix.unwrap().contains("'nvidia-cuda-nvrtc-cu12==12.8.*'"));
        assert_eq!(line((13, 5), None).state, State::Ok);
        assert_eq!(line((11, 8), None).state, State::Note);
        // A driver that is yet to be installed may be the least that will do.
        for driver in [None, Some(version(11, 8)), Some(version(12, 6))] {
            let fix = nvrtc(&Err("not found".into()), driver, State::Note).fix.unwrap();
            assert!(fix.contains("'nvidia-cuda-nvrtc-cu12==12.8.*'"), "{fix}");
        }
        assert_eq!(cublas(&Ok(version(13, 0)), None, State::Fails).state, State::Ok);
        assert_eq!(cublas(&Ok(version(11, 8)), None, State::Fails).state, State::Note);
        let missing = cublas(&Err("not found".into()), Some(version(12, 9)), State::Note);
        assert!(missing.state == State::Note && missing.fix.unwrap().contains("'nvidia-cublas-cu12==12.*'"));
    }
}
