// SPDX-License-Identifier: Apache-2.0
//
// What the files of the helper share.

#ifndef HELPER_H
#define HELPER_H

#include "KernelProtocol.h"

#include <setjmp.h>
#include <signal.h>

#define PAGE 4096u

// struct procmap_query and PROCMAP_QUERY, here because headers older than Linux 6.11 lack them.
struct query {
  uint64_t size, query_flags, query_address;
  uint64_t start, end, flags, page_size, offset, inode;
  uint32_t device_major, device_minor, name_size, build_id_size;
  uint64_t name_address, build_id_address;
};
_Static_assert(sizeof(struct query) == 104, "struct procmap_query has 104 bytes");
#define QUERY _IOWR('f', 17, struct query)
enum { QUERY_READABLE = 1, QUERY_SHARED = 8, QUERY_COVERING_OR_NEXT = 0x10 };

/// Those of all processes, and this one's.
extern struct kp_channel *channels, *channel;

/// Where a signal continues while `is_accessing`; its number, code and address are then in the channel.
extern sigjmp_buf recovery;
extern volatile sig_atomic_t is_accessing;

/// Says why the helper cannot run, and ends it.
void fail(const char *what);

/// The files that tell about this process.
void open_files(void);
void close_files(void);
/// Touches what reports need once.
void touch_reports(void);

/// The mapping that ends above `address`; 0 = none, -1 = the kernel cannot be asked.
int find(uint64_t address, struct query *found);
/// Adds the mappings of a range to the list.
void list(uint64_t start, uint64_t end);
/// Fills in the sizes; 0 or -errno.
int64_t report_sizes(void);
/// Fills in sizes, mappings with their flags, and pages of all windows; 0 or -errno.
int64_t report_state(void);

/// A number that the system is set to; `otherwise` where it does not say.
uint64_t setting(const char *path, unsigned long otherwise);
/// Asks how many mappings there may be; to be called before nothing may be allocated any more.
void read_most_mappings(void);
/// Tells how many mappings there are outside the windows, without those of `set_crowd`.
void note_outside(uint64_t count);
/// Adds or takes mappings outside the windows until the windows have `left` of those that there may be; 0 or -errno.
int64_t set_crowd(uint64_t left);
/// If there are any, takes those that keep a script from `KP_MANY_MAPPINGS`: to make them takes as long as some scripts, so
/// the others stay. 0 or -errno.
int64_t thin_crowd(void);
/// Where mappings that are no part of them go on from `address`, when the windows are empty.
uint64_t behind_crowd(uint64_t address);

#endif
