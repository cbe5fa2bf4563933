//! The log of a recorded medium says what the processor did: every line that is written back, every fence, every streamed
//! store. A program does the same things twice, on a recorded medium and, one instruction after the other, on another.
#![cfg(target_arch = "x86_64")]

use lodefs_pmem::{DirtyRanges, Domain, Medium, What};
use lodefs_testkit::stepper::{self, Code, Stop};

const SIZE: u64 = 64 << 10;
const LINE: u64 = 64;

/// What the program is to do it on: the name of a domain.
const TASK: &str = "LODEFS_INSTRUCTIONS_TASK";

/// Instructions that make durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    lines_written_back: u64,
    fences: u64,
    /// Bytes of streamed stores.
    bytes_streamed: u64,
}

/// Everything that makes something durable.
fn operate(medium: &Medium) {
    let mut flushed = medium.write(100, &[1; 5]).unwrap();
    flushed = flushed.and(medium.write(4096, &[2; 4096]).unwrap());
    flushed = flushed.and(medium.write(9000, &[3; 200]).unwrap());
    flushed = flushed.and(medium.zero(20_000, 5000).unwrap());
    let ordered = medium.fence(flushed).unwrap();
    let mut dirty = DirtyRanges::default();
    dirty.push(medium.store_meta(30_000, &[4; 100], &ordered).unwrap());
    dirty.push(medium.store_meta(40_000, &[5; 8], &ordered).unwrap());
    let durable = medium.sync(medium.write(50_000, &[6; 32]).unwrap()).unwrap();
    let (settled, _durable) = medium.settle(medium.stage(dirty), &durable).unwrap();
    medium.release(settled, &DirtyRanges::default());
}

/// What the log says of it.
fn logged(domain: Domain) -> Counts {
    let (medium, recording) = Medium::recording(SIZE, domain).unwrap();
    operate(&medium);
    let mut counts = Counts::default();
    for event in recording.take() {
        match event.what {
            What::Flush { at, size, .. } => {
                counts.lines_written_back += (at + size).div_ceil(LINE) - at / LINE;
            }
            What::Fence { .. } => counts.fences += 1,
            What::Store { bytes, non_temporal: true, .. } => counts.bytes_streamed += bytes.len() as u64,
            _ => {}
        }
    }
    counts
}

/// The part of an instruction behind its prefixes, and whether it has prefix 66.
fn without_prefixes(code: &Code) -> (&[u8], bool) {
    let is_prefix = |byte: &&u8| matches!(**byte, 0x66 | 0x40..=0x4f);
    let count = code.iter().take_while(is_prefix).count();
    (&code[count..], code[..count].contains(&0x66))
}

/// What an instruction is, by the manual of the processor. `movnti` takes 4 bytes or, with its longer operand, 8.
fn seen(counts: &mut Counts, code: Code) {
    let (code, has_66) = without_prefixes(&code);
    let extension = |byte: u8| byte >> 3 & 7;
    match *code {
        [0x0f, 0xae, 0xf8, ..] => counts.fences += 1,
        // clwb, or clflushopt.
        [0x0f, 0xae, form, ..] if has_66 && form < 0xc0 && matches!(extension(form), 6 | 7) => {
            counts.lines_written_back += 1;
        }
        // clflush.
        [0x0f, 0xae, form, ..] if form < 0xc0 && extension(form) == 7 => counts.lines_written_back += 1,
        [0x0f, 0xc3, ..] => counts.bytes_streamed += 8,
        // movntdq, movntps or movntpd.
        [0x0f, 0xe7 | 0x2b, ..] => counts.bytes_streamed += 16,
        _ => {}
    }
}

#[test]
#[ignore = "a process of its own"]
fn program() {
    let domain = std::env::var(TASK).expect("started by the test").parse().unwrap();
    let medium = Medium::anonymous(SIZE, domain).unwrap();
    stepper::between_stops(|| operate(&medium));
}

#[test]
fn the_log_says_what_the_processor_did() {
    for domain in Domain::ALL {
        let mut counts = Counts::default();
        let stepped = stepper::watch("program", TASK, domain.name(), &mut |code| seen(&mut counts, code));
        assert_eq!(stepped.stop, Stop::Returned);
        let logged = logged(domain);
        assert_eq!(
            (counts.lines_written_back, counts.fences),
            (logged.lines_written_back, logged.fences),
            "{domain}"
        );
        // The units at the ends of a range may overlap.
        let (least, most) = (logged.bytes_streamed, logged.bytes_streamed + logged.bytes_streamed / 10);
        assert!((least..=most).contains(&counts.bytes_streamed), "{domain}: {counts:?}, logged {logged:?}");
    }
}
