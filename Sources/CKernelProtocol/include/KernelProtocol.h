// SPDX-License-Identifier: Apache-2.0
//
// What the judge and its helper process say to each other: one piece of shared memory, futex words.
//
// The judge fills in a request and bumps `request`; the helper performs it, fills in the reply and stores the
// same number in `reply`. One request at a time. All that the helper reports lies in this memory, so it
// allocates nothing while a script runs.
//
// A helper that forks serves several such pieces, one a process.

#ifndef KERNEL_PROTOCOL_H
#define KERNEL_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#include "SystemCalls.h"

/// The windows of the helper's address space where scripts map.
enum { KP_HIGH = 0, KP_HEAP = 1, KP_LOW = 2, KP_WINDOWS = 3 };

/// Most mappings, and most pages, that one reply can list.
enum { KP_MAX_MAPPINGS = 6144, KP_MAX_PAGES = 6144 };

/// Requests.
enum {
  /// The system call `number` with `arguments`. The judge has seen that it reaches nothing outside the windows.
  KP_SYSCALL = 1,
  /// address, bytes (1, 2, 4, 8)
  KP_LOAD = 2,
  /// address, bytes, value
  KP_STORE = 3,
  /// Tells the sizes.
  KP_SIZES = 4,
  /// Tells all: the sizes, then mappings with their flags, and pages of the windows, one window behind the other.
  KP_STATE = 5,
  /// Unmaps the windows; tells the sizes then. The result is the number of mappings outside them.
  KP_RESET = 6,
  /// Ends the process.
  KP_EXIT = 7,
  /// number of a member that is not there: makes it, a copy of the process that is asked
  KP_FORK = 8,
  /// 0 or 1: whether locks have no limit from now on (CAP_IPC_LOCK). The result is 0 or -errno.
  KP_PRIVILEGE = 9,
  /// 0 or 1 = process_vm_readv or process_vm_writev, number of the other member, numbers of both sides'
  /// pieces, flags. The buffer holds as many `struct iovec` of this process, then the other's.
  KP_TRANSFER = 10,
  /// mappings that the windows may have: makes so many others that these are left of vm.max_map_count. The result is 0 or
  /// -errno.
  KP_CROWD = 11,
};

/// Processes that one helper can be at a time, each with a channel of its own: the template, which makes the first
/// member and runs no script, and the members.
enum { KP_MEMBERS = 4, KP_PROCESSES = 1 + KP_MEMBERS };

/// `state`: the helper is starting, ready, or could not set itself up (`message` says why).
enum { KP_STARTING = 0, KP_READY = 1, KP_FAILED = 2 };

/// Mappings that no script comes to.
enum { KP_MANY_MAPPINGS = 1000 };

/// Most places whose mappings are listed after one call, and bytes around each that are listed too.
enum { KP_PLACES = 2, KP_MARGIN = 16 * 4096 };

/// Bytes of the buffer that a call can be given.
enum { KP_BUFFER = 8192 };

struct kp_window {
  uint64_t start, end;
};

struct kp_mapping {
  uint64_t start, end;
  /// PROT_ bits.
  uint32_t protection;
  /// 1 = shared.
  uint32_t shared;
  /// In bytes; 0 for private anonymous memory.
  uint64_t offset;
  /// Of what has one; 0 = none.
  uint64_t inode;
  /// `kp_flag` of each name of VmFlags, of a state only.
  uint64_t flags;
};

/// In pages; of `/proc/pid/status`, without the "Vm" and "Rss".
struct kp_sizes {
  uint64_t total, data, executable, stack, locked;
  uint64_t resident_anonymous, resident_shared, resident_file;
};

/// What `mincore` says of a page.
enum { KP_UNMAPPED = 0, KP_ABSENT = 1, KP_RESIDENT = 2 };

struct kp_page {
  uint32_t state;
  uint32_t shared;
  /// `kp_hash` of a resident page.
  uint64_t hash;
};

/// A place where mappings are listed after a call.
struct kp_place {
  /// Where it begins; if `follows_result` and the call succeeds, its result instead.
  uint64_t address, length;
  uint64_t follows_result;
};

struct kp_channel {
  uint32_t request, request_sleepers;
  uint32_t reply, reply_sleepers;
  uint32_t state, state_sleepers;
  /// Who serves the channel.
  int32_t process;
  /// Whether the helper may have CAP_IPC_LOCK.
  uint32_t may_lock;

  uint64_t operation;
  /// Of a system call.
  uint64_t number;
  uint64_t arguments[6];
  /// The argument that is replaced by the address of `buffer`; -1 = none.
  int32_t buffer_argument;
  uint32_t place_count;
  struct kp_place places[KP_PLACES];

  /// The system call's result or -errno; a load's value.
  int64_t result;
  /// 0, or the signal that an access got, with si_code and si_addr.
  int32_t signal, code;
  uint64_t fault_address;
  uint32_t mapping_count;
  /// Of a state: how many of the mappings are in each window. Pages are all told.
  uint32_t window_mappings[KP_WINDOWS];
  struct kp_sizes sizes;
  struct kp_window windows[KP_WINDOWS];
  char message[128];
  uint8_t buffer[KP_BUFFER];
  struct kp_mapping mappings[KP_MAX_MAPPINGS];
  struct kp_page pages[KP_MAX_PAGES];
};

// Swift imports no arrays of this length.
static inline const struct kp_mapping *kp_mappings(const struct kp_channel *channel) { return channel->mappings; }
static inline const struct kp_page *kp_pages(const struct kp_channel *channel) { return channel->pages; }

static inline void *kp_buffer(struct kp_channel *channel) { return channel->buffer; }

/// The channel of a member, by its number.
static inline struct kp_channel *kp_member(struct kp_channel *channels, uint64_t number) {
  return channels + 1 + number;
}

/// A bit for a two-letter name of VmFlags; one bit for all that are unknown, 0 for what is not compared.
uint64_t kp_flag(const char *name);

/// Stores `value` and wakes who sleeps on the word.
void kp_signal(uint32_t *word, uint32_t *sleepers, uint32_t value);

/// Waits until the word is not `old`, at most `milliseconds`; returns the word.
///
/// - sleepers: how many sleep on the word, 0 at first.
uint32_t kp_wait(uint32_t *word, uint32_t *sleepers, uint32_t old, int milliseconds);

/// A descriptor of a process, or -errno.
int kp_open_process(int32_t process);

/// Waits until a process has given up its address space, which it has done when it is no more than a status to be waited
/// for; at most `milliseconds`. 0, or -errno. Closes the descriptor.
int kp_wait_for_end(int descriptor, int milliseconds);

/// The window that holds `address`; -1 = none.
int kp_window_of(const struct kp_window *windows, uint64_t address);

/// The range that is listed after a call: around a place, inside one window. Returns 0 for none.
int kp_near(const struct kp_window *windows, const struct kp_place *place, int64_t result,
            struct kp_window *range);

/// A hash of 4,096 bytes.
uint64_t kp_hash(const void *page);

/// Where the helper is: beside the program that asks. 0, or -errno: it cannot be run there.
int kp_helper_path(char *path, size_t size);

/// Anonymous shared memory for KP_PROCESSES channels: a descriptor that is inherited, or -errno.
int kp_make_channel(void);

#endif
