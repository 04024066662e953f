// SPDX-License-Identifier: Apache-2.0
//
// What the judge and its helper process say to each other: one piece of shared memory, two futex words.
//
// The judge fills in a request and bumps `request`; the helper performs it, fills in the reply and stores the
// same number in `reply`. One request at a time. All that the helper reports lies in this memory, so it
// allocates nothing while a script runs.

#ifndef KERNEL_PROTOCOL_H
#define KERNEL_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

/// The windows of the helper's address space where scripts map.
enum { KP_HIGH = 0, KP_HEAP = 1, KP_LOW = 2, KP_WINDOWS = 3 };

/// Most mappings, and most pages, that one reply can list.
enum { KP_MAX_MAPPINGS = 6144, KP_MAX_PAGES = 6144 };

/// Requests. The arguments are those of the system call.
enum {
  KP_MMAP = 1,
  KP_MUNMAP = 2,
  KP_MPROTECT = 3,
  KP_MADVISE = 4,
  /// address, bytes (1, 2, 4, 8)
  KP_LOAD = 5,
  /// address, bytes, value
  KP_STORE = 6,
  /// start, end: lists mappings
  KP_LIST = 7,
  /// start, end: lists residency and contents of pages
  KP_PAGES = 8,
  /// Unmaps the windows; the result is the number of mappings outside them.
  KP_RESET = 9,
  KP_EXIT = 10,
};

/// `state`: the helper is starting, ready, or could not set itself up (`message` says why).
enum { KP_STARTING = 0, KP_READY = 1, KP_FAILED = 2 };

/// The result of a request that would have reached memory outside the windows: it was not performed.
static const int64_t KP_REFUSED = INT64_MIN;

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
};

/// What `mincore` says of a page.
enum { KP_UNMAPPED = 0, KP_ABSENT = 1, KP_RESIDENT = 2 };

struct kp_page {
  uint32_t state;
  uint32_t shared;
  /// `kp_hash` of a resident page.
  uint64_t hash;
};

struct kp_channel {
  uint32_t request;
  uint32_t reply;
  uint32_t state;
  uint32_t unused;

  uint64_t operation;
  uint64_t arguments[6];
  /// Mappings that many bytes around the call's range are listed after it; 0 = none are.
  uint64_t list_margin;

  /// The system call's result or -errno; a load's value.
  int64_t result;
  /// 0, or the signal that an access got, with si_code and si_addr.
  int32_t signal, code;
  uint64_t fault_address;
  uint32_t mapping_count, page_count;
  struct kp_window windows[KP_WINDOWS];
  char message[128];
  struct kp_mapping mappings[KP_MAX_MAPPINGS];
  struct kp_page pages[KP_MAX_PAGES];
};

// Swift imports no arrays of this length.
static inline const struct kp_mapping *kp_mappings(const struct kp_channel *channel) { return channel->mappings; }
static inline const struct kp_page *kp_pages(const struct kp_channel *channel) { return channel->pages; }

/// Stores `value` and wakes who sleeps on the word.
void kp_signal(uint32_t *word, uint32_t value);

/// Waits until the word is not `old`, at most `milliseconds`; returns the word.
uint32_t kp_wait(uint32_t *word, uint32_t old, int milliseconds);

/// The window that holds `address`; -1 = none.
int kp_window_of(const struct kp_window *windows, uint64_t address);

/// The range that is listed after a call: around what it worked on, inside one window. Returns 0 for none.
int kp_near(const struct kp_window *windows, uint64_t operation, uint64_t address, uint64_t length,
            int64_t result, uint64_t margin, struct kp_window *range);

/// Whether a call changes or touches nothing outside the windows, whatever becomes of it. Assumes that all
/// addresses outside are mapped but those below `vm.mmap_min_addr`.
int kp_is_harmless(const struct kp_window *windows, uint64_t operation, const uint64_t arguments[6]);

/// A hash of 4,096 bytes.
uint64_t kp_hash(const void *page);

/// Anonymous shared memory for a channel: a descriptor that is inherited, or -errno.
int kp_make_channel(void);

#endif
