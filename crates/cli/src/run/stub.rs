//! A library without content for programs of 32 bits, which cannot load the one of 64 bits: their dynamic linker would
//! print an error at each start.

/// Bytes of the ELF header, of a program header, and of an entry of the dynamic section.
const HEADER: u32 = 52;
const PROGRAM_HEADER: u32 = 32;
const ENTRY: u32 = 8;

/// What it consists of: one segment with everything, the dynamic section in it, and a stack that is not executable.
const PROGRAM_HEADERS: u32 = 3;
const TABLE: u32 = HEADER + PROGRAM_HEADERS * PROGRAM_HEADER;
const ENTRIES_COUNT: u32 = 6;
/// `DT_HASH`, `DT_STRTAB`, `DT_SYMTAB`, `DT_STRSZ`, `DT_SYMENT`, `DT_NULL`.
const ENTRIES: [(u32, u32); ENTRIES_COUNT as usize] =
    [(4, HASH), (5, STRINGS), (6, SYMBOLS), (10, STRINGS_SIZE), (11, SYMBOL), (0, 0)];
const SYMBOLS: u32 = TABLE + ENTRIES_COUNT * ENTRY;
/// The one symbol is that which every table begins with.
const SYMBOL: u32 = 16;
const HASH: u32 = SYMBOLS + SYMBOL;
/// One bucket, one symbol, an empty bucket, the end of a chain.
const HASH_WORDS: [u32; 4] = [1, 1, 0, 0];
const STRINGS: u32 = HASH + 16;
const STRINGS_SIZE: u32 = 4;
const END: u32 = STRINGS + STRINGS_SIZE;

/// The file, for the i386.
pub(super) fn library() -> Vec<u8> {
    let mut file = Vec::new();
    // Class 32, least significant byte first, version 1.
    file.extend(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_DYN for EM_386.
    half_words(&mut file, &[3, 3]);
    words(&mut file, &[1, 0, HEADER, 0, 0]);
    half_words(&mut file, &[HEADER as u16, PROGRAM_HEADER as u16, PROGRAM_HEADERS as u16, 40, 0, 0]);
    let dynamic_size = ENTRIES_COUNT * ENTRY;
    // PT_LOAD, PT_DYNAMIC, PT_GNU_STACK: offset, addresses, sizes, flags, alignment.
    words(&mut file, &[1, 0, 0, 0, END, END, 4, 0x1000]);
    words(&mut file, &[2, TABLE, TABLE, TABLE, dynamic_size, dynamic_size, 4, 4]);
    words(&mut file, &[0x6474_e551, 0, 0, 0, 0, 0, 6, 4]);
    for (tag, value) in ENTRIES {
        words(&mut file, &[tag, value]);
    }
    words(&mut file, &[0; 4]);
    words(&mut file, &HASH_WORDS);
    words(&mut file, &[0]);
    file
}

fn words(file: &mut Vec<u8>, words: &[u32]) {
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn half_words(file: &mut Vec<u8>, words: &[u16]) {
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_where_they_are_said_to_be() {
        let file = library();
        assert_eq!(file.len(), END as usize);
        assert_eq!(file[HASH as usize..][..16], [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(file[TABLE as usize], 4, "the first entry");
    }
}
