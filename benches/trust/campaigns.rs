//! What there is to run: each campaign numbers its cases, and checks one by its number.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tallystone::testing::trust::calls::{self, FAULTS, Injection};
use tallystone::testing::trust::crash::record;
use tallystone::testing::trust::damage::{Target, small_store, store_of, targets};
use tallystone::testing::trust::{Verdict, guarded};

use crate::{catalog, fuzz, kill, power, processes, soak};

/// A campaign by its name.
pub(crate) struct Campaign {
    pub(crate) name: &'static str,
    /// What is counted.
    pub(crate) what: &'static str,
    /// Cases of a quick look.
    pub(crate) quick: u64,
    /// Why it cannot run here.
    pub(crate) missing: fn() -> Option<String>,
    pub(crate) begin: fn() -> Verdict<Box<dyn Trial>>,
}

/// A campaign under way.
pub(crate) trait Trial {
    /// Checks one case; returns what it counted.
    fn check(&mut self, case: u64) -> Verdict<u64>;

    /// Number of cases, where there is an end to them.
    fn total(&self) -> Option<u64> {
        None
    }

    /// Whether the last case was the last there is.
    fn is_done(&self) -> bool {
        false
    }
}

/// Cases that know nothing of each other, and have no end.
impl<F: FnMut(u64) -> Verdict<u64>> Trial for F {
    fn check(&mut self, case: u64) -> Verdict<u64> {
        guarded(|| self(case))
    }
}

fn nothing() -> Option<String> {
    None
}

fn seeded(check: impl FnMut(u64) -> Verdict<u64> + 'static) -> Verdict<Box<dyn Trial>> {
    Ok(Box::new(check))
}

/// All of them, in the order in which a quick look runs them.
pub(crate) const CAMPAIGNS: &[Campaign] = &[
    Campaign {
        name: "crash",
        what: "distinct crash images",
        quick: 60,
        missing: nothing,
        begin: || seeded(|case| Ok(record(case, 40)?.check_every_crash(24)?.distinct)),
    },
    Campaign {
        name: "crash-in-recovery",
        what: "distinct images of a crash in recovery",
        quick: 6,
        missing: nothing,
        begin: || {
            seeded(|case| Ok(record(case, 30)?.check_crashes_of_recovery(12, 16, 6)?.distinct))
        },
    },
    Campaign {
        name: "kill-simulated",
        what: "distinct images of a kill",
        quick: 4,
        missing: nothing,
        begin: || seeded(|case| Ok(record(case, 60)?.check_every_kill()?.distinct)),
    },
    Campaign {
        name: "kill",
        what: "kills of a process",
        quick: 30,
        missing: nothing,
        begin: || {
            seeded(|case| {
                let place = tempfile::tempdir_in(catalog::scratch()).unwrap();
                let store = place.path().join("store");
                let rounds = case * 10..case * 10 + 10;
                Ok(kill::kill_again_and_again(&["child"], &store, rounds)?.kills)
            })
        },
    },
    Campaign {
        name: "kill-processes",
        what: "looks of readers",
        quick: 4,
        missing: nothing,
        begin: || {
            seeded(|case| {
                let place = tempfile::tempdir_in(catalog::scratch()).unwrap();
                let takes = Duration::from_secs(8);
                let seen = processes::read_beside_writers(&["child"], place.path(), takes, case)?;
                println!("  case {case}: {seen}");
                Ok(seen.looks)
            })
        },
    },
    Campaign {
        name: "flip",
        what: "bits flipped",
        quick: 200_000,
        missing: nothing,
        begin: || Ok(Box::new(Damaged::new(|target| target.bytes.len() * 8, Target::check_flip)?)),
    },
    Campaign {
        name: "truncate",
        what: "files cut",
        quick: 68_000,
        missing: nothing,
        begin: || Ok(Box::new(Damaged::new(|target| target.bytes.len(), Target::check_cut)?)),
    },
    Campaign {
        name: "truncate-extend",
        what: "files made longer",
        quick: 1_000,
        missing: nothing,
        begin: || Ok(Box::new(Damaged::new(|_| 4 * TAIL_BYTES_MAX, extend)?)),
    },
    Campaign {
        name: "flip-misplaced",
        what: "frames written over others",
        quick: 1,
        missing: nothing,
        begin: || {
            Ok(Box::new(Damaged::new(
                |_| 1,
                |target, _| {
                    let count = target.check_misplaced()?;
                    Ok(count)
                },
            )?))
        },
    },
    Campaign {
        name: "syscall",
        what: "failing calls",
        quick: 60,
        missing: nothing,
        begin: || Ok(Box::new(Calls::default())),
    },
    Campaign {
        name: "syscall-full-disk",
        what: "full disks",
        quick: 25,
        missing: nothing,
        begin: || {
            seeded(|case| {
                calls::check_full_disk(case)?;
                calls::check_reserve(case)?;
                Ok(2)
            })
        },
    },
    Campaign {
        name: "catalog",
        what: "catalogs lost",
        quick: 200,
        missing: nothing,
        begin: || {
            let mut bases = catalog::Bases::default();
            seeded(move |case| bases.check(case).map(|()| 1))
        },
    },
    Campaign {
        name: "power",
        what: "power cuts of a file system",
        quick: 30,
        missing: power::missing,
        begin: || seeded(power::cut_again_and_again),
    },
    #[cfg(target_os = "linux")]
    Campaign {
        name: "power-replay",
        what: "images of a disk that lost what it had not flushed",
        quick: 10,
        missing: crate::replay::missing,
        begin: || seeded(crate::replay::replay),
    },
    Campaign {
        name: "fuzz",
        what: "executions of fuzz targets",
        quick: 0,
        missing: || {
            fuzz::targets().is_empty().then(|| "no target is built: `.ci/run fuzz`".to_owned())
        },
        begin: || {
            let targets = fuzz::targets();
            seeded(move |case| fuzz::run(&targets, case))
        },
    },
    Campaign {
        name: "fuzz-texts",
        what: "executions of fuzz targets of text",
        quick: 0,
        missing: || {
            let how = "no target is built without a sanitizer: `FUZZ_SANITIZER=none .ci/run fuzz`";
            fuzz::texts().is_empty().then(|| how.to_owned())
        },
        begin: || {
            let targets = fuzz::texts();
            seeded(move |case| fuzz::run(&targets, case))
        },
    },
    Campaign {
        name: "soak",
        what: "minutes",
        quick: 0,
        missing: soak::missing,
        begin: || Ok(Box::new(soak::Soak::begin()?)),
    },
];

/// Most bytes that are added to a file.
const TAIL_BYTES_MAX: usize = 8_192;

/// Makes a file longer by so many zeros, ones, bytes of its own head, or of its own end.
fn extend(target: &Target, number: usize) -> Verdict<u64> {
    let len = number / 4 + 1;
    let tail: Vec<u8> = match number % 4 {
        0 => vec![0; len],
        1 => vec![0xFF; len],
        2 => target.bytes.iter().copied().cycle().take(len).collect(),
        _ => target.bytes.iter().copied().rev().take(len).rev().collect(),
    };
    target.check_longer(&tail).map(|_| 1)
}

/// Does to a target what the number says; returns what it counted.
type CheckTarget = dyn Fn(&Target, usize) -> Verdict<u64>;

/// Every file of the golden stores and of a small store of today, and each thing that can be
/// done to it.
struct Damaged {
    targets: Vec<Target>,
    /// Cases before each target, and of all.
    before: Vec<usize>,
    check: Box<CheckTarget>,
}

impl Damaged {
    fn new<T: Counted>(
        cases: impl Fn(&Target) -> usize,
        check: impl Fn(&Target, usize) -> Verdict<T> + 'static,
    ) -> Verdict<Self> {
        let (fs, options) = small_store()?;
        let mut all = targets(&fs, &options)?;
        for store in ["v0.1", "v0.1-aged"] {
            let (fs, options) = store_of(&golden(store))?;
            all.extend(targets(&fs, &options)?);
        }
        let mut before = vec![0];
        for target in &all {
            before.push(before.last().copied().unwrap_or(0) + cases(target));
        }
        let check = move |target: &Target, case: usize| check(target, case).map(Counted::count);
        Ok(Self { targets: all, before, check: Box::new(check) })
    }
}

/// What a case counts.
trait Counted {
    fn count(self) -> u64;
}

impl Counted for u64 {
    fn count(self) -> u64 {
        self
    }
}

impl Counted for tallystone::testing::trust::damage::Loss {
    fn count(self) -> u64 {
        1
    }
}

impl Trial for Damaged {
    fn check(&mut self, case: u64) -> Verdict<u64> {
        let case = usize::try_from(case).unwrap_or(usize::MAX);
        let index = self.before.partition_point(|before| *before <= case) - 1;
        guarded(|| (self.check)(&self.targets[index], case - self.before[index]))
    }

    fn total(&self) -> Option<u64> {
        self.before.last().map(|total| *total as u64)
    }
}

/// The files of a golden store: paths below it, and bytes.
fn golden(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let mut files = Vec::new();
    let mut waiting = vec![root.clone()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let relative = path.strip_prefix(&root).unwrap().to_path_buf();
                files.push((relative, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Each call of a workload, with each error that fits, once and for ever. A case is a call.
#[derive(Default)]
struct Calls {
    is_done: bool,
}

impl Trial for Calls {
    fn check(&mut self, call: u64) -> Verdict<u64> {
        let mut count = 0;
        for (_, fault) in FAULTS {
            for forever in [false, true] {
                count += u64::from(calls::check(Injection { call, kind: None, fault, forever })?);
            }
        }
        // The workload was over before the call.
        self.is_done = count == 0;
        Ok(count)
    }

    fn is_done(&self) -> bool {
        self.is_done
    }
}
