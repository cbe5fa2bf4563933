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

const HARMLESS: &[Harmless] = &[
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
        function: "check_still_whole",
        kind: Kind::False,
        text: "!self.is_file()",
        why: "it is about devices, which are not there where mutants are tried",
    },
    Harmless {
        file: "pmem/src/medium.rs",
        function: "maps_single_pages",
        kind: Kind::True,
        text: "self.shared.unit() as u64 == PAGE_SIZE",
        why: "it is about media that the host maps in larger pages only, which are not there where mutants are tried",
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
        file: "core/src/journal/lane.rs",
        function: "is_filling",
        kind: Kind::False,
        text: "self.used > self.half_size / 4 * 3",
        why: "the half then fills up, and whoever finds it full asks for the checkpoint",
    },
    Harmless {
        file: "core/src/journal/replay.rs",
        function: "apply_all",
        kind: Kind::Evidence("fence"),
        text: "volume.medium.fence(Medium::nothing_flushed())",
        why: "nothing was flushed, and what is lost the sync that follows asks as well",
    },
    Harmless {
        file: "core/src/journal/replay.rs",
        function: "probe_record",
        kind: Kind::False,
        text: "at + RECORD_HEAD_SIZE as u64 > half_size",
        why: "a record that reaches past its half was made by somebody who can make checksums, and could have put it elsewhere",
    },
    Harmless {
        file: "core/src/journal/replay.rs",
        function: "probe_record",
        kind: Kind::True,
        text: "at + *size as u64 <= half_size",
        why: "a record that reaches past its half was made by somebody who can make checksums, and could have put it elsewhere",
    },
    Harmless {
        file: "core/src/journal/replay.rs",
        function: "later_record",
        kind: Kind::False,
        text: "at + RECORD_HEAD_SIZE as u64 > half_size",
        why: "a record that reaches past its half was made by somebody who can make checksums, and could have put it elsewhere",
    },
    Harmless {
        file: "core/src/fs.rs",
        function: "open",
        kind: Kind::Lock,
        text: "fs.committer.lock()",
        why: "nobody else knows the volume yet",
    },
    Harmless {
        file: "core/src/fs.rs",
        function: "close",
        kind: Kind::Lock,
        text: "self.committer.lock()",
        why: "only the first who closes comes this far, and after it was opened nobody else asks for it",
    },
    Harmless {
        file: "core/src/dir/mod.rs",
        function: "forget",
        kind: Kind::Lock,
        text: "self.0.lock()",
        why: "whoever changes a directory has locked its inode for himself",
    },
    Harmless {
        file: "core/src/dir/mod.rs",
        function: "clear",
        kind: Kind::Lock,
        text: "self.0.lock()",
        why: "whoever reclaims a directory has locked its inode for himself",
    },
    Harmless {
        file: "core/src/inode/cache.rs",
        function: "make_room",
        kind: Kind::Lock,
        text: "inode.state.try_read()",
        why: "an inode to which nobody refers is changed by nobody: who reclaims it has taken it out before",
    },
    Harmless {
        file: "core/src/inode/table.rs",
        function: "forget_chunk",
        kind: Kind::Lock,
        text: "self.state.lock()",
        why: "only a repair calls it, which is alone",
    },
    Harmless {
        file: "pmem/src/guard.rs",
        function: "new",
        kind: Kind::Lock,
        text: "CHANGING.lock()",
        why: "no scheduler decides about it, so it is not switched off: `losses` of lodefs-pmem has threads that map and unmap",
    },
    Harmless {
        file: "pmem/src/guard.rs",
        function: "drop",
        kind: Kind::Lock,
        text: "CHANGING.lock()",
        why: "no scheduler decides about it, so it is not switched off: `losses` of lodefs-pmem has threads that map and unmap",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "zero_fresh",
        kind: Kind::True,
        text: "size > 0",
        why: "storing no zeroes stores nothing; it only costs a fence",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "allocate_after_checkpoint",
        kind: Kind::Statement,
        text: "ensure(self.fs.blocks.counts().deferred > 0, Errno::NOSPC)?;",
        why: "a checkpoint that frees nothing is then made, and there is as little room as before",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "allocate_after_checkpoint",
        kind: Kind::True,
        text: "self.fs.blocks.counts().deferred > 0",
        why: "a checkpoint that frees nothing is then made, and there is as little room as before",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "is_empty",
        kind: Kind::False,
        text: "self.record.len() == RECORD_HEAD_SIZE",
        why: "a record that changes nothing is then written, and replayed",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "has_room",
        kind: Kind::False,
        text: "self.record.len() + size + ROOM_FOR_INODES <= RECORD_SIZE_MAX",
        why: "all extents are then written anew, to fresh blocks, which takes longer and stores the same",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "commit",
        kind: Kind::False,
        text: "self.is_empty()",
        why: "a record that changes nothing is then written, and replayed",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "drop",
        kind: Kind::Evidence("fence"),
        text: "self.fs.volume.medium.fence(fresh)",
        why: "the lock of the allocator, which is taken next, lets stores past the caches out first on all processors that could be tried",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "drop",
        kind: Kind::Statement,
        text: "SPARE.set(std::mem::take(&mut self.record));",
        why: "the next transaction then gets a new buffer",
    },
    Harmless {
        file: "core/src/ops/tail.rs",
        function: "reserve_tail",
        kind: Kind::True,
        text: "reserved.is_err()",
        why: "what was committed is then read again",
    },
    Harmless {
        file: "core/src/ops/tail.rs",
        function: "settle_tail",
        kind: Kind::False,
        text: "settled.is_err()",
        why: "it fails only with the medium, and nothing is stored any more: the file is seen as the next open makes it",
    },
    Harmless {
        file: "core/src/ops/tail.rs",
        function: "settle_tail",
        kind: Kind::Statement,
        text: "locked.forget_changes();",
        why: "it fails only with the medium, and nothing is stored any more: the file is seen as the next open makes it",
    },
    Harmless {
        file: "core/src/lease/words.rs",
        function: "end_words",
        kind: Kind::Lock,
        text: "self.words.0.lock()",
        why: "who uses words has an inode locked, which a close has waited for, and whoever locks one later is refused",
    },
    Harmless {
        file: "core/src/recovery.rs",
        function: "scan_chunk",
        kind: Kind::False,
        text: "!volume.holds(run)",
        why: "marking it as used fails then, and the volume is as damaged in other words",
    },
    Harmless {
        file: "core/src/recovery.rs",
        function: "visit_runs",
        kind: Kind::False,
        text: "!volume.holds(run)",
        why: "marking it as used fails then, and the volume is as damaged in other words",
    },
    Harmless {
        file: "core/src/bitmap.rs",
        function: "load",
        kind: Kind::Statement,
        text: "words.truncate(volume.shape.total_blocks.div_ceil(64) as usize);",
        why: "words behind the last block are not looked at",
    },
    Harmless {
        file: "core/src/bitmap.rs",
        function: "save",
        kind: Kind::Evidence("sync"),
        text: "volume.medium.sync(flushed)",
        why: "a block of the bitmap that is not there has another number of update, and everything is counted again",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "begin",
        kind: Kind::Statement,
        text: "record.clear();",
        why: "the buffer is then cut to the size of a head, which the commit fills in",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "put_inode",
        kind: Kind::False,
        text: "before == after",
        why: "the whole inode is then recorded",
    },
    Harmless {
        file: "core/src/tx.rs",
        function: "put_inode",
        kind: Kind::False,
        text: "end == i * PART",
        why: "parts that are adjacent are then recorded one by one",
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
    for harmless in HARMLESS {
        let Harmless { file, function, text, .. } = harmless;
        let is_there = mutants.iter().any(|mutant| harmless.is(mutant));
        ensure!(is_there, "{file}, {function}: there is no `{text}` any more that could be harmless");
    }
    Ok(())
}
