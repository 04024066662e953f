// SPDX-License-Identifier: Apache-2.0
//
// Mappings beside the windows, so many that the windows come to vm.max_map_count with a few of their own.
//
// Guarantee: they are shared memory without rights, where nothing is ever brought in, and behind the last window, so that
//   no report reads them.
// Source: Linux mm/vma.c `split_vma`; mm/madvise.c `madvise_vma_behavior`.

#define _GNU_SOURCE
#include "Helper.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

/// Most mappings that there may be; mappings outside the windows at the last reset, and those that were added since.
static uint64_t most_mappings, outside, crowd;

/// A page of what fills the gap behind the high window: whether it is a mapping of its own. It keeps its lack of rights, so
/// that nothing is ever brought in there; it is behind all that a report of flags reads.
static int set_apart(uint64_t page, int is_apart) {
  void *start = (void *)(channel->windows[KP_HIGH].end + page * PAGE);
  return madvise(start, PAGE, is_apart ? MADV_DONTDUMP : MADV_DODUMP);
}

/// Every other page from the second on makes two more, the first one more.
int64_t set_crowd(uint64_t left) {
  if (left + outside > most_mappings) return -EINVAL;
  uint64_t wanted = most_mappings - left - outside;
  if (crowd % 2) {
    if (set_apart(0, 0) != 0) return -errno;
    crowd--;
  }
  for (; crowd > wanted; crowd -= 2)
    if (set_apart(crowd, 0) != 0) return -errno;
  for (; crowd + 2 <= wanted; crowd += 2)
    if (set_apart(crowd + 2, 1) != 0) return -errno;
  if (crowd < wanted) {
    if (set_apart(0, 1) != 0) return -errno;
    crowd++;
  }
  return 0;
}

int64_t thin_crowd(void) { return crowd == 0 ? 0 : set_crowd(KP_MANY_MAPPINGS); }

uint64_t behind_crowd(uint64_t address) {
  const struct kp_window *last = &channel->windows[KP_HIGH];
  return address >= last->start && address <= last->end ? last->end + (crowd + 2) * PAGE : address;
}

void note_outside(uint64_t count) { outside = count; }

uint64_t setting(const char *path, unsigned long otherwise) {
  unsigned long value = otherwise;
  FILE *file = fopen(path, "re");
  if (file) {
    if (fscanf(file, "%lu", &value) != 1) value = otherwise;
    fclose(file);
  }
  return value;
}

void read_most_mappings(void) { most_mappings = setting("/proc/sys/vm/max_map_count", 0); }
