//! What a program has stored under `MAP_SYNC` and flushed is found after a power failure, without any fsync; and a test that would
//! not notice if it were not.

use std::sync::Arc;

use lodefs_core::{Fallocate, Fs, NewInode, NewKind, Node, Result, SetAttr};
use lodefs_pmem::Domain;
use lodefs_testkit::crash::Call;
use lodefs_testkit::mapped::{Care, Play, Scope, Stage, Statistics, Timing};

const BLOCK: u64 = 4096;
const SIZE: u64 = 1 << 20;
const DOMAINS: [Domain; 2] = [Domain::MemoryController, Domain::CpuCache];

/// All images of a moment are made if they are not more than this.
const SCOPE: Scope = Scope { exhaustive_max: 10_000, seed: 5, granted: false };

/// What is pointed to: three words in two lines, when stored 56 bytes into a block.
const DATA: [u8; 24] = *b"data: of three words....";
const INTO: u64 = 56;
/// What points to it.
const POINTER: [u8; 8] = *b"pointer!";

type Outcome = std::result::Result<(), String>;

/// Something that a program does with files it has mapped.
struct Scenario {
    name: &'static str,
    /// What is there before.
    prepare: fn(&Arc<Fs>) -> Result<()>,
    act: fn(&mut Stage) -> Outcome,
}

fn create(fs: &Arc<Fs>, directory: &Node, name: &str, kind: NewKind<'_>) -> Result<Node> {
    fs.create(directory, name.as_bytes(), &NewInode { kind, perm: 0o755, umask: 0, uid: 0, gid: 0 })
}

fn resize(fs: &Arc<Fs>, file: &Node, blocks: u64) -> Result<()> {
    fs.set_attr(file, &SetAttr { size: Some(blocks * BLOCK), ..SetAttr::default() }).map(drop)
}

/// A file of so many blocks of hole.
fn hole(fs: &Arc<Fs>, name: &str, blocks: u64) -> Result<Node> {
    let file = create(fs, &fs.root()?, name, NewKind::File)?;
    resize(fs, &file, blocks)?;
    Ok(file)
}

/// The same, but the first block is there, all zero.
fn file(fs: &Arc<Fs>, blocks: u64) -> Result<Node> {
    let file = hole(fs, "f", blocks)?;
    fs.write(&file, 0, &[0; BLOCK as usize], false)?;
    Ok(file)
}

/// Data are stored, and what points to them.
fn chain(stage: &mut Stage, data: (&str, u64), pointer: (&str, u64), window: u64) -> Outcome {
    let at = stage.touch(data.0, data.1, window)?.plus(INTO);
    stage.store(&at, &DATA)?;
    let at = stage.touch(pointer.0, pointer.1, window)?;
    stage.store(&at, &POINTER)
}

/// The pointer is put elsewhere, with new data for each.
fn twice(stage: &mut Stage) -> Outcome {
    for (block, pointer) in [(1, 8), (3, 128)] {
        let data = stage.touch("f", block, 1)?.plus(INTO);
        stage.store(&data, &DATA)?;
        let at = stage.touch("f", 0, 1)?.plus(pointer);
        stage.store(&at, &POINTER)?;
    }
    Ok(())
}

/// Between fault and store, others make files, write them, and take blocks from this one.
fn others_between(stage: &mut Stage) -> Outcome {
    let file = stage.node("f")?;
    let data = stage.touch("f", 1, 1)?.plus(INTO);
    let pointer = stage.touch("f", 0, 1)?;
    stage.beside(|fs| hole(fs, "other", 9).map(drop))?;
    stage.store(&data, &DATA)?;
    stage.beside(|fs| {
        fs.fallocate(&file, Fallocate::PunchHole, 6 * BLOCK, BLOCK)?;
        let another = hole(fs, "another", 0)?;
        fs.write(&another, 0, &[8; 4096], false).map(drop)
    })?;
    stage.store(&pointer, &POINTER)
}

const SCENARIOS: [Scenario; 12] = [
    // The classic: block 0 is there, and points to block 1, which a fault allocates.
    Scenario {
        name: "one file",
        prepare: |fs| file(fs, 2).map(drop),
        act: |stage| chain(stage, ("f", 1), ("f", 0), 1),
    },
    Scenario {
        name: "both are holes",
        prepare: |fs| hole(fs, "f", 2).map(drop),
        act: |stage| chain(stage, ("f", 1), ("f", 0), 1),
    },
    // All is granted before anything is stored.
    Scenario {
        name: "granted first",
        prepare: |fs| hole(fs, "f", 2).map(drop),
        act: |stage| {
            let data = stage.touch("f", 1, 1)?.plus(INTO);
            let pointer = stage.touch("f", 0, 1)?;
            stage.store(&data, &DATA)?;
            stage.store(&pointer, &POINTER)
        },
    },
    Scenario { name: "twice", prepare: |fs| file(fs, 4).map(drop), act: twice },
    Scenario {
        name: "two files",
        prepare: |fs| hole(fs, "data", 3).and_then(|_| hole(fs, "pointer", 1)).map(drop),
        act: |stage| chain(stage, ("data", 2), ("pointer", 0), 1),
    },
    // One fault allocates several blocks, of which the touched one is in the middle.
    Scenario {
        name: "wide windows",
        prepare: |fs| file(fs, 16).map(drop),
        act: |stage| chain(stage, ("f", 13), ("f", 0), 8),
    },
    // Extents are joined, or become more than the inode has room for.
    Scenario {
        name: "between blocks",
        prepare: |fs| {
            let file = file(fs, 40)?;
            (2..40).step_by(4).try_for_each(|block| fs.write(&file, block * BLOCK, &[0; 8], false).map(drop))
        },
        act: |stage| chain(stage, ("f", 21), ("f", 3), 4),
    },
    Scenario {
        name: "made longer first",
        prepare: |fs| file(fs, 1).map(drop),
        act: |stage| {
            let file = stage.node("f")?;
            stage.beside(|fs| resize(fs, &file, 5))?;
            chain(stage, ("f", 4), ("f", 0), 1)
        },
    },
    // Around multiples of 2 MiB of the file, where a large page would end.
    Scenario {
        name: "at boundaries of 2 MiB",
        prepare: |fs| hole(fs, "f", 1025).map(drop),
        act: |stage| {
            chain(stage, ("f", 512), ("f", 511), 2)?;
            chain(stage, ("f", 1024), ("f", 1023), 16)
        },
    },
    Scenario {
        name: "others between",
        prepare: |fs| file(fs, 8).and_then(|file| fs.write(&file, 6 * BLOCK, &[0; 4096], false)).map(drop),
        act: others_between,
    },
    // All the room but a few blocks is taken, so that what was freed just before is used again.
    Scenario {
        name: "nearly full",
        prepare: |fs| {
            file(fs, 16)?;
            let filling = hole(fs, "filling", 0)?;
            let size = (fs.space().blocks_available - 3) * BLOCK;
            fs.write(&filling, 0, &vec![9; size as usize], false).map(drop)
        },
        act: |stage| {
            let filling = stage.node("filling")?;
            stage.beside(|fs| fs.fallocate(&filling, Fallocate::PunchHole, 2 * BLOCK, 4 * BLOCK))?;
            chain(stage, ("f", 9), ("f", 0), 8)
        },
    },
    // Directory and file are made when crashes are looked at already.
    Scenario {
        name: "all is new",
        prepare: |_| Ok(()),
        act: |stage| {
            stage.beside(|fs| {
                let directory = create(fs, &fs.root()?, "d", NewKind::Directory)?;
                let file = create(fs, &directory, "f", NewKind::File)?;
                resize(fs, &file, 2)
            })?;
            chain(stage, ("d/f", 1), ("d/f", 0), 1)
        },
    },
];

/// Whether the volume is closed and opened again when it is prepared: then nothing of that is on its way to the medium, and so
/// there are fewer images, and more of them are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Closed,
    Open,
}

impl Scenario {
    fn play(&self, domain: Domain, before: Before, care: Care, timing: Timing) -> Play {
        let prepare = |stage: &Stage| (self.prepare)(stage.fs());
        let stage = match before {
            Before::Closed => Stage::prepared(domain, SIZE, self.prepare),
            Before::Open => Stage::new(domain, SIZE).inspect(|stage| prepare(stage).unwrap()),
        };
        let mut stage = stage.unwrap().with(care, timing);
        let acted = stage.start().and_then(|()| (self.act)(&mut stage));
        acted.unwrap_or_else(|fault| panic!("{}, {domain}: {fault}", self.name));
        stage.finish()
    }

    /// As it should be.
    fn right(&self, domain: Domain, before: Before) -> Play {
        self.play(domain, before, Care::Whole, Timing::Committed)
    }
}

#[test]
fn what_was_flushed_is_found_without_fsync() {
    for before in [Before::Closed, Before::Open] {
        let mut all = Statistics::default();
        for (domain, scenario) in DOMAINS.iter().flat_map(|domain| SCENARIOS.iter().map(|it| (*domain, it))) {
            let judged = scenario.right(domain, before).judge(SCOPE, None);
            all += judged.unwrap_or_else(|fault| panic!("{}, {domain}, {before:?}: {fault}", scenario.name));
        }
        println!("{before:?}: {all:?}");
    }
}

/// From the grant on, each image that a crash can leave is made.
#[test]
fn no_image_is_left_out() {
    let every = Scope { exhaustive_max: usize::MAX, granted: true, ..SCOPE };
    let mut all = Statistics::default();
    // The others change something when it is granted already, with new blocks in which anything may be.
    let single = ["one file", "wide windows", "made longer first"];
    for scenario in SCENARIOS.iter().filter(|scenario| single.contains(&scenario.name)) {
        for domain in DOMAINS {
            let judged = scenario.right(domain, Before::Closed).judge(every, None);
            all += judged.unwrap_or_else(|fault| panic!("{}, {domain}: {fault}", scenario.name));
        }
    }
    assert_eq!(all.moments, all.exhaustive);
    println!("{all:?}");
}

/// What is lost, if anything.
fn lost(play: &Play, without: Option<Call>) -> Option<String> {
    play.judge(SCOPE, without).err()
}

#[test]
fn a_grant_before_the_commit_is_noticed() {
    for scenario in &SCENARIOS {
        // There, a second fault before the first store fences what the first one has not.
        if scenario.name != "granted first" {
            let early =
                scenario.play(Domain::MemoryController, Before::Closed, Care::Whole, Timing::TooEarly);
            let found = lost(&early, None);
            assert!(found.is_some_and(|fault| fault.contains("which was fenced, lost")), "{}", scenario.name);
        }
    }
}

#[test]
fn a_program_without_care_is_noticed() {
    for (care, domain, is_lost) in [
        (Care::NoFlush, Domain::MemoryController, true),
        (Care::NoFlush, Domain::CpuCache, false),
        (Care::NoFence, Domain::MemoryController, true),
        (Care::NoFence, Domain::CpuCache, true),
    ] {
        let found = lost(&SCENARIOS[0].play(domain, Before::Closed, care, Timing::Committed), None);
        assert_eq!(found.is_some(), is_lost, "{care:?}, {domain}: {found:?}");
    }
}

/// Each call of the engine that makes something of a fault durable is left out once.
#[test]
fn each_fence_of_a_fault_is_needed() {
    let mut noticed = 0;
    for (domain, scenario) in DOMAINS.iter().flat_map(|domain| SCENARIOS.iter().map(|it| (*domain, it))) {
        let play = scenario.right(domain, Before::Closed);
        for call in play.calls_of_faults() {
            let found = lost(&play, Some(call));
            // There, the fault finds no room for all its window, and zeroes the block once more: one fence of two is enough.
            let is_twice = scenario.name == "nearly full" && call.location.file().ends_with("tx.rs");
            let name = scenario.name;
            assert!(found.is_some() || is_twice, "{name}, {domain}, without {call}");
            noticed += usize::from(found.is_some());
        }
    }
    println!("{noticed} noticed");
}

/// What goes by way of a page cache is lost unless there is an fsync; and there, nothing can be mapped directly.
#[test]
fn buffered_files_need_fsync() {
    for fsyncs in [false, true] {
        let mut stage = Stage::prepared(Domain::Page, SIZE, |fs| file(fs, 2).map(drop)).unwrap();
        stage.start().unwrap();
        assert!(stage.map("f").is_err(), "it is not direct");
        stage.write("f", BLOCK + INTO, &DATA, fsyncs).unwrap();
        stage.write("f", 0, &POINTER, fsyncs).unwrap();
        let found = lost(&stage.finish(), None);
        assert_eq!(found.is_some_and(|fault| fault.contains("which was fenced, lost")), !fsyncs);
    }
}

/// What a program appends by itself.
const APPENDS: [Scenario; 6] = [
    Scenario {
        name: "appended to nothing",
        prepare: |fs| hole(fs, "f", 0).map(drop),
        act: |stage| {
            stage.append("f", &DATA)?;
            stage.append("f", &POINTER)
        },
    },
    Scenario {
        name: "appended across blocks",
        prepare: |fs| {
            let file = file(fs, 2)?;
            fs.write(&file, BLOCK, &[0; BLOCK as usize], false)?;
            fs.set_attr(&file, &SetAttr { size: Some(2 * BLOCK - 32), ..SetAttr::default() }).map(drop)
        },
        act: |stage| {
            stage.append("f", &DATA)?;
            stage.append("f", &DATA)?;
            stage.append("f", &POINTER)
        },
    },
    // Somebody else reads what was appended, which settles it, and the program goes on.
    Scenario {
        name: "read between",
        prepare: |fs| hole(fs, "f", 0).map(drop),
        act: |stage| {
            let file = stage.node("f")?;
            stage.append("f", &DATA)?;
            stage.beside(|fs| fs.read(&file, 0, &mut [0; 100]).map(drop))?;
            stage.append("f", &POINTER)?;
            stage.end_appends("f");
            stage.append("f", &DATA)
        },
    },
    Scenario {
        name: "two files",
        prepare: |fs| hole(fs, "data", 0).and_then(|_| hole(fs, "pointer", 0)).map(drop),
        act: |stage| {
            for _ in 0..2 {
                stage.append("data", &DATA)?;
                stage.append("pointer", &POINTER)?;
            }
            Ok(())
        },
    },
    // A word that said something about another file.
    Scenario {
        name: "a word is used again",
        prepare: |fs| hole(fs, "data", 0).and_then(|_| hole(fs, "pointer", 0)).map(drop),
        act: |stage| {
            stage.append("data", &DATA.repeat(10))?;
            stage.end_appends("data");
            stage.append("pointer", &POINTER)
        },
    },
    // More has to be reserved.
    Scenario {
        name: "more than was reserved",
        prepare: |fs| hole(fs, "f", 0).map(drop),
        act: |stage| {
            stage.append("f", &DATA.repeat(2730))?;
            stage.append("f", &DATA)?;
            stage.append("f", &POINTER)
        },
    },
];

#[test]
fn what_a_program_has_appended_is_found_whole() {
    for before in [Before::Closed, Before::Open] {
        let mut all = Statistics::default();
        for (domain, scenario) in DOMAINS.iter().flat_map(|domain| APPENDS.iter().map(|it| (*domain, it))) {
            let judged = scenario.right(domain, before).judge(SCOPE, None);
            all += judged.unwrap_or_else(|fault| panic!("{}, {domain}, {before:?}: {fault}", scenario.name));
        }
        println!("{before:?}: {all:?}");
    }
}

#[test]
fn a_size_before_the_bytes_is_noticed() {
    for care in [Care::NoFlush, Care::NoFence] {
        let found =
            lost(&APPENDS[0].play(Domain::MemoryController, Before::Closed, care, Timing::Committed), None);
        assert!(found.is_some(), "{care:?}");
    }
}
