/* Made of the Rust source by tests/header.rs: do not edit. SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Direct access to the files of a mounted lodefs volume.
 *
 * A function returns 0, or minus an errno, unless it says otherwise. Where a file is direct and the process may attach to the mount,
 * loads and stores to a mapping reach the medium itself, and lodefs_persist makes them durable without a system call; reads and writes
 * of a lodefs_file copy from and to the medium.
 *
 * Threads: the library has some of its own. fork: the child's mappings stay good.
 */

#ifndef LODEFS_DIRECT_H
#define LODEFS_DIRECT_H

#include <stddef.h>
#include <stdint.h>

// To store to it. The file must be open for reading and writing then.
#define LODEFS_MAP_WRITABLE 1

// Only if what is flushed from user space needs no fsync, as with `MAP_SYNC`.
#define LODEFS_MAP_SYNC 2

// Loads and stores reach the medium.
#define LODEFS_DIRECT 1

// They reach the page cache of the kernel, or what a mapping of the kernel's reaches otherwise.
#define LODEFS_BUFFERED 2

// It takes effect when the last holder has gone.
#define LODEFS_DAX_PENDING 0

// -EBUSY, and no change, if it cannot take effect at once.
#define LODEFS_DAX_NOW 1

// Mappings by attached programs are taken back; -EBUSY, and no change, if that is not enough.
#define LODEFS_DAX_REVOKE 2

// A directory has no bytes of its own.
#define LODEFS_EFFECT_NONE 0

// The file is reached without a cache in between.
#define LODEFS_EFFECT_DIRECT 1

// It is reached perhaps through a cache.
#define LODEFS_EFFECT_BUFFERED 2

// The flag decided about that.
#define LODEFS_REASON_FLAG 0

// The mount option `dax` did.
#define LODEFS_REASON_OPTION 1

// The medium did.
#define LODEFS_REASON_MEDIUM 2

// Those who hold the file did: until they go, the effect stays what it was.
#define LODEFS_REASON_HOLDERS 3

// The medium.
#define LODEFS_RANGE_DIRECT 1

// A hole of a direct file: the zeroes that are seen there.
#define LODEFS_RANGE_HOLE 2

// The page cache of the kernel.
#define LODEFS_RANGE_BUFFERED 3

// Nothing yet: the first access decides.
#define LODEFS_RANGE_UNTOUCHED 4

// It lies beyond the end of the file, or there was no room for it: an access raises SIGBUS.
#define LODEFS_RANGE_FAILING 5

// Nothing makes stores durable.
#define LODEFS_DURABLE_BY_NOTHING 0

// A fence does.
#define LODEFS_DURABLE_BY_FENCE 1

// Writing cache lines back, and a fence.
#define LODEFS_DURABLE_BY_FLUSH 2

// `msync`.
#define LODEFS_DURABLE_BY_MSYNC 3

// `bytes_base` and `bytes_huge` are not known: the kernel is older than Linux 6.7.
#define LODEFS_PAGES_UNKNOWN UINT64_MAX

// An open file, which is read and written without system calls where it can be, and by the kernel else. Any number of threads may use it
// at a time, but for `lodefs_file_close`.
struct lodefs_file;

// A part of a file in memory. Any number of threads may use it at a time, but for `lodefs_unmap`.
struct lodefs_mapping;

// How a file is to be mapped.
struct lodefs_map_options {
  // Where the part begins in the file: a multiple of 4096.
  uint64_t offset;
  // Bytes; more than 0. What is beyond the end of the file raises SIGBUS, until the file is longer.
  size_t size;
  // `LODEFS_MAP_WRITABLE`, `LODEFS_MAP_SYNC`.
  uint32_t flags;
  // 0.
  uint32_t reserved;
};

// Whether a file is direct.
struct lodefs_dax_status {
  // 1 if the flag is set, else 0.
  uint32_t flag;
  // `LODEFS_EFFECT_...`: how the file is reached now.
  uint32_t effect;
  // `LODEFS_REASON_...`: what decided about that.
  uint32_t reason;
  // How many hold the file.
  uint32_t holders;
};

// Addresses that are one thing.
struct lodefs_range_status {
  // The first address.
  uint64_t start;
  // Behind the last one.
  uint64_t end;
  // Where it begins in the file.
  uint64_t offset;
  // `st_dev` of the file.
  uint64_t device;
  // `st_ino` of the file.
  uint64_t inode;
  // Bytes of it that the kernel has mapped in pages of the usual size.
  uint64_t bytes_base;
  // Bytes of it that the kernel has mapped in pages of 2 MiB.
  uint64_t bytes_huge;
  // `LODEFS_RANGE_...`: what it is.
  uint32_t kind;
  // `LODEFS_DURABLE_BY_...`: what makes stores to it durable.
  uint32_t durable_by;
  // 1 if it may be stored to, else 0.
  uint32_t writable;
  // 1 if what is flushed needs no fsync, as with `MAP_SYNC`, else 0.
  uint32_t sync;
  // 1 if system calls may touch it where nothing is mapped yet, 0 if they fail with EFAULT there.
  uint32_t serves_system_calls;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Maps a part of an open file: directly if it is direct and this process may attach, else as the kernel does. The descriptor may be
// closed afterwards.
//
// -EOPNOTSUPP if it should be `LODEFS_MAP_SYNC` and cannot; -EACCES if the file was not opened for what is to be done; -EINVAL for an
// offset, a size or flags that make no sense; -ENODEV if the file is direct and this process may not attach.
//
// Safety:
// `options` and `mapping` lead to what they say, or are null.
int lodefs_map(int fd,
               const struct lodefs_map_options *options,
               struct lodefs_mapping **mapping);

// Where it begins. It is good until `lodefs_unmap`. NULL if there is no mapping.
//
// Safety:
// `mapping` is one, or null.
void *lodefs_mapping_address(const struct lodefs_mapping *mapping);

// Its bytes, in whole pages. 0 if there is no mapping.
//
// Safety:
// `mapping` is one, or null.
size_t lodefs_mapping_size(const struct lodefs_mapping *mapping);

// What it is: `LODEFS_DIRECT` or `LODEFS_BUFFERED`. -EINVAL if there is no mapping.
//
// Safety:
// `mapping` is one, or null.
int lodefs_mapping_kind(const struct lodefs_mapping *mapping);

// Makes what was stored to these bytes durable, as far as the medium can: `lodefs_flush` and `lodefs_drain`. -EINVAL if they do not lie
// within the mapping, of which `offset` counts from the beginning.
//
// Safety:
// `mapping` is one, or null.
int lodefs_persist(const struct lodefs_mapping *mapping,
                   size_t offset,
                   size_t size);

// Starts the way of stored bytes to the medium. They have arrived after the next `lodefs_drain`. -EINVAL as for `lodefs_persist`.
//
// Safety:
// `mapping` is one, or null.
int lodefs_flush(const struct lodefs_mapping *mapping,
                 size_t offset,
                 size_t size);

// Waits until what this thread has flushed is durable, as far as the medium can.
//
// Safety:
// `mapping` is one, or null.
int lodefs_drain(const struct lodefs_mapping *mapping);

// Makes all that was stored durable, and lets it show in the times of the file.
//
// Safety:
// `mapping` is one, or null.
int lodefs_sync(const struct lodefs_mapping *mapping);

// Unmaps it, and makes `*mapping` NULL. What was stored stays, but is durable only as it has been made so. -EINVAL if there is no
// mapping.
//
// Safety:
// `mapping` leads to a pointer or is null; the pointer is from `lodefs_map` or null. Nobody uses the mapping, or its memory, any more.
int lodefs_unmap(struct lodefs_mapping **mapping);

// Makes one of a descriptor, which is duplicated, and may be closed afterwards. Its flags are not to be changed as long as the file is
// used.
//
// Safety:
// `opened` leads to room for a pointer, or is null.
int lodefs_file_open(int fd,
                     struct lodefs_file **opened);

// Reads, as pread does. Returns how many bytes were read, or minus an errno.
//
// Safety:
// `file` is one, or null; `bytes` leads to `size` bytes that nobody else uses meanwhile.
ptrdiff_t lodefs_file_read(const struct lodefs_file *file,
                           void *bytes,
                           size_t size,
                           uint64_t offset);

// Writes, as pwrite does. Returns how many bytes were written, or minus an errno. In a direct file they are durable then, as far as the
// medium can.
//
// Safety:
// `file` is one, or null; `bytes` leads to `size` bytes that nobody changes meanwhile.
ptrdiff_t lodefs_file_write(const struct lodefs_file *file,
                            const void *bytes,
                            size_t size,
                            uint64_t offset);

// Has no more use for a file, and makes it NULL. Nothing if it is that already.
//
// Safety:
// `file` leads to a file that `lodefs_file_open` has made and nobody uses any more, or to NULL, or is null.
int lodefs_file_close(struct lodefs_file **file);

// Asks about an open file or directory of a mount. The file that is asked by is not among the holders.
//
// -ENOTTY if it is not on a mounted lodefs volume, -EINVAL if it is neither a regular file nor a directory.
//
// Safety:
// `status` leads to one, or is null.
int lodefs_dax_status(int fd,
                      struct lodefs_dax_status *status);

// Sets (`on` is not 0) or clears the DAX flag of an open file or directory of a mount. `how` says what to do if it cannot take effect
// at once: `LODEFS_DAX_PENDING`, `LODEFS_DAX_NOW`, `LODEFS_DAX_REVOKE`. Once it has taken effect, the descriptor reaches no data of the volume
// any more (ESTALE): close it, and open the file again.
//
// -EBUSY; -EPERM if the caller is neither the owner nor root, or the file is immutable; -EROFS; -EINVAL for another `how`; -ENOTTY
// and -EINVAL as for `lodefs_dax_status`.
int lodefs_dax_set(int fd,
                   int on,
                   int how);

// Tells what this process has mapped with `lodefs_map`, at one moment, by address: the first `max` ranges in `ranges`, and in `count` how
// many there are, which may be more.
//
// -EINVAL without a place for what is told.
//
// Safety:
// `ranges` leads to `max` ranges, or `max` is 0; `count` leads to a number, or is null.
int lodefs_ranges(struct lodefs_range_status *ranges,
                  size_t max,
                  size_t *count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LODEFS_DIRECT_H */
