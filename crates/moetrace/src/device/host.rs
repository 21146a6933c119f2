//! The host's memory: what there is, and what a run may page-lock of it.

use std::path::{Path, PathBuf};

/// What is left to everything else at least.
const LEFT: u64 = 1_000_000_000;

/// The host's memory; on systems that do not tell, without bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostMemory {
    /// Bytes in all, of the machine or of the control group that we are in.
    pub(crate) total: u64,
    /// Bytes that can be had.
    pub(crate) available: u64,
}

impl HostMemory {
    /// As Linux tells it, in `/proc` and `/sys/fs/cgroup` below `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut memory = of_machine(root).unwrap_or(Self { total: u64::MAX, available: u64::MAX });
        for group in groups(root) {
            if let Some(limit) = of_group(&group) {
                memory.total = memory.total.min(limit.total);
                memory.available = memory.available.min(limit.available);
            }
        }
        memory
    }

    /// What a run takes at most where nobody says more: a tenth of what can be had is left, and 1 GB at least. What is
    /// page-locked is not swapped out, so that a host filled to the brim would stop others first.
    pub(crate) fn usable(self) -> u64 {
        self.available - (self.available / 10).max(LEFT).min(self.available)
    }
}

/// `MemTotal` and `MemAvailable`.
fn of_machine(root: &Path) -> Option<HostMemory> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(HostMemory { total: of("MemTotal:")?, available: of("MemAvailable:")? })
}

/// The control group of this process (version 2) and those around it.
fn groups(root: &Path) -> Vec<PathBuf> {
    let all = root.join("sys/fs/cgroup");
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // In a container the name is that outside it, and what is mounted here is the group itself.
    let inner = all.join(name);
    let around = inner.ancestors().take_while(|group| group.starts_with(&all));
    around.map(Path::to_owned).collect()
}

/// What a group with a limit has left. Pages of files that were read are taken back where memory is short.
fn of_group(group: &Path) -> Option<HostMemory> {
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let (total, used) = (number("memory.max")?, number("memory.current")?);
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    let used = used.saturating_sub(files.unwrap_or(0));
    Some(HostMemory { total, available: total.saturating_sub(used) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       65000000 kB\nMemFree: 1 kB\nMemAvailable:   50000000 kB\n");

    #[test]
    fn a_tenth_and_a_gigabyte_at_least_are_left_to_others() {
        let root = root(&[MEMINFO]);
        let memory = HostMemory::read(root.path());
        assert_eq!(memory, HostMemory { total: 65_000_000 << 10, available: 50_000_000 << 10 });
        assert_eq!(memory.usable(), memory.available / 10 * 9);
        let of = |available| HostMemory { total: 1 << 40, available }.usable();
        assert_eq!((of(5_000_000_000), of(500_000_000), of(0)), (4_000_000_000, 0, 0));
    }

    #[test]
    fn a_control_group_and_those_around_it_bound_what_can_be_had() {
        let group = "sys/fs/cgroup/user/job";
        let files = |name: &str, text| (format!("{group}/{name}"), text);
        let inner = [
            files("memory.max", "8000000000\n"),
            files("memory.current", "3000000000\n"),
            files("memory.stat", "anon 1\ninactive_file 1000000000\n"),
        ];
        let mut all = vec![MEMINFO, ("proc/self/cgroup", "0::/user/job\n")];
        all.extend(inner.iter().map(|(path, text)| (path.as_str(), *text)));
        let limited = HostMemory::read(root(&all).path());
        assert_eq!(limited, HostMemory { total: 8_000_000_000, available: 6_000_000_000 });
        all.extend([
            ("sys/fs/cgroup/user/memory.max", "4000000000"),
            ("sys/fs/cgroup/user/memory.current", "0"),
        ]);
        assert_eq!(HostMemory::read(root(&all).path()).total, 4_000_000_000);
        all.push(("sys/fs/cgroup/user/memory.max", "max"));
        assert_eq!(HostMemory::read(root(&all).path()), limited);
    }

    #[test]
    fn a_system_that_does_not_tell_sets_no_bounds() {
        let memory = HostMemory::read(root(&[("proc/meminfo", "MemTotal: lots\n")]).path());
        assert_eq!((memory.total, memory.available), (u64::MAX, u64::MAX));
    }
}
