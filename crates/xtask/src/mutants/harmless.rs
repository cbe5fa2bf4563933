//! What can be switched off without anything becoming wrong, and why.

use anyhow::ensure;

use super::instrument::Mutant;
use super::sites::Kind;

/// Code that may be left out, or decided in one way, and the reason.
struct Harmless {
    file: &'static str,
    function: &'static str,
    kind: Kind,
    text: &'static str,
    why: &'static str,
}

const HARMLESS: [Harmless; 17] = [
    Harmless {
        file: "pmem/src/medium.rs",
        function: "zero",
        kind: Kind::False,
        text: "size >= HOST_ZEROES_FROM && self.zero_by_host(at, size)?",
        why: "zeroes are then stored, which is slower and leaves the same bytes",
    },
    Harmless {
        file: "pmem/src/medium.rs",
        function: "check_kept",
        kind: Kind::True,
        text: "self.losses.any()",
        why: "only whether the question is asked at all depends on it: which bytes are lost is asked next",
    },
    Harmless {
        file: "pmem/src/medium.rs",
        function: "find_fault",
        kind: Kind::True,
        text: "host.f_blocks > 0 && host.f_bfree == 0",
        why: "it chooses between two messages; `failing_host` of lodefs-fuse, which is not run here, compares them",
    },
    Harmless {
        file: "pmem/src/medium.rs",
        function: "check_still_whole",
        kind: Kind::False,
        text: "!self.is_file()",
        why: "it is about devices, which are not there where mutants are tried",
    },
    Harmless {
        file: "pmem/src/store.rs",
        function: "zero_by_host",
        kind: Kind::False,
        text: "self.report.kind == MediumKind::File && self.report.domain == Domain::Page",
        why: "zeroes are then stored, which is slower and leaves the same bytes",
    },
    Harmless {
        file: "pmem/src/store.rs",
        function: "zero_by_host",
        kind: Kind::True,
        text: "!is_cached_file",
        why: "zeroes are then stored, which is slower and leaves the same bytes",
    },
    Harmless {
        file: "pmem/src/overlay.rs",
        function: "without",
        kind: Kind::False,
        text: "hole + hole_size <= start",
        why: "holes before the run are then looked at one by one, and take nothing from it",
    },
    Harmless {
        file: "pmem/src/evidence.rs",
        function: "and",
        kind: Kind::True,
        text: "self.pending || other.pending",
        why: "a fence more",
    },
    Harmless {
        file: "pmem/src/losses.rs",
        function: "any",
        kind: Kind::Statement,
        text: "fence(Ordering::Acquire);",
        why: "this processor keeps the order of loads by itself, and the compiler has no reason to move these",
    },
    Harmless {
        file: "core/src/journal/mod.rs",
        function: "commit",
        kind: Kind::Statement,
        text: "self.checkpoint_unless_busy(volume, generation)?;",
        why: "the half then fills up, and whoever finds it full asks for the checkpoint",
    },
    Harmless {
        file: "core/src/journal/mod.rs",
        function: "note_activity",
        kind: Kind::True,
        text: "volume.medium.domain() == Domain::Page",
        why: "something is counted that nobody asks for",
    },
    Harmless {
        file: "core/src/journal/mod.rs",
        function: "checkpoint_locked",
        kind: Kind::False,
        text: "keeper.state.generation.get() > generation",
        why: "a checkpoint more",
    },
    Harmless {
        file: "core/src/journal/mod.rs",
        function: "move_home",
        kind: Kind::True,
        text: "keeper.state.is_gated()",
        why: "recovery asks for that number only where the state is gated",
    },
    Harmless {
        file: "core/src/journal/mod.rs",
        function: "sync",
        kind: Kind::False,
        text: "volume.medium.domain() != Domain::Page",
        why: "nothing is counted there, so the next question ends it",
    },
    Harmless {
        file: "core/src/journal/mod.rs",
        function: "sync",
        kind: Kind::False,
        text: "keeper.synced_activity >= wanted",
        why: "a sync more",
    },
    Harmless {
        file: "core/src/journal/mod.rs",
        function: "sync_records",
        kind: Kind::True,
        text: "keeper.state.committed_seq.get() != seq",
        why: "the same state once more",
    },
    Harmless {
        file: "core/src/fs.rs",
        function: "open",
        kind: Kind::Lock,
        text: "fs.committer.lock()",
        why: "nobody else knows the volume yet",
    },
];

impl Harmless {
    fn is(&self, mutant: &Mutant) -> bool {
        let Mutant { file, site, .. } = mutant;
        file.ends_with(self.file)
            && site.function == self.function
            && site.kind == self.kind
            && site.text == self.text
    }
}

/// Why a mutant changes nothing that matters, if that is known.
pub(crate) fn why(mutant: &Mutant) -> Option<&'static str> {
    HARMLESS.iter().find(|harmless| harmless.is(mutant)).map(|harmless| harmless.why)
}

/// That each entry is about code that is there.
pub(crate) fn check(mutants: &[Mutant]) -> anyhow::Result<()> {
    for harmless in &HARMLESS {
        let Harmless { file, function, text, .. } = harmless;
        let is_there = mutants.iter().any(|mutant| harmless.is(mutant));
        ensure!(is_there, "{file}, {function}: there is no `{text}` any more that could be harmless");
    }
    Ok(())
}
