// SPDX-License-Identifier: Apache-2.0
//
// What the helper tells about itself: mappings and their flags, residency and contents of pages, sizes.
//
// Guarantee: a report changes nothing that another one tells, but that the kernel may map pages of shared memory that
//   exist ahead of their first access. Nothing is allocated.
// Source: Linux fs/proc/task_mmu.c `do_procmap_query`, `task_mem`, `show_smap_vma_flags`.

#define _GNU_SOURCE
#include "Helper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int maps, memory, status, smaps;
static unsigned char page_buffer[PAGE] __attribute__((aligned(4096)));
static unsigned char residency[KP_MAX_PAGES];
static char status_text[2 * PAGE];
/// A piece of smaps; its longest line has a path.
static char smaps_text[16 * PAGE];

void open_files(void) {
  maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  smaps = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
  if (maps < 0 || memory < 0 || status < 0 || smaps < 0) fail("/proc/self");
}

void close_files(void) {
  close(maps);
  close(memory);
  close(status);
  close(smaps);
}

void touch_reports(void) {
  memset(page_buffer, 1, sizeof page_buffer);
  memset(residency, 1, sizeof residency);
  memset(status_text, 1, sizeof status_text);
  memset(smaps_text, 1, sizeof smaps_text);
}

/// The mapping that ends above `address`; 0 = none, -1 = the kernel cannot be asked.
int find(uint64_t address, struct query *found) {
  memset(found, 0, sizeof *found);
  found->size = sizeof *found;
  found->query_flags = QUERY_COVERING_OR_NEXT;
  found->query_address = address;
  if (ioctl(maps, QUERY, found) == 0) return 1;
  return errno == ENOENT ? 0 : -1;
}

void list(uint64_t start, uint64_t end) {
  uint32_t n = channel->mapping_count;
  struct query found;
  while (start < end && n < KP_MAX_MAPPINGS && find(start, &found) == 1 && found.start < end) {
    channel->mappings[n++] = (struct kp_mapping){
        .start = found.start, .end = found.end, .protection = (uint32_t)(found.flags & 7),
        .shared = (found.flags & QUERY_SHARED) != 0, .offset = found.offset, .inode = found.inode};
    start = found.end;
  }
  channel->mapping_count = n;
}

// ---- sizes ------------------------------------------------------------------------------------

/// The number behind a name that begins a line, in pages; 0 = there is no such line.
static uint64_t size_of(const char *name) {
  const char *found = strstr(status_text, name);
  if (!found) return 0;
  uint64_t kilobytes = 0;
  for (found += strlen(name); *found && *found != '\n'; found++)
    if (*found >= '0' && *found <= '9') kilobytes = kilobytes * 10 + (uint64_t)(*found - '0');
  return kilobytes / 4;
}

int64_t report_sizes(void) {
  ssize_t count = pread(status, status_text, sizeof status_text - 1, 0);
  if (count < 0) return -errno;
  status_text[count] = 0;
  channel->sizes = (struct kp_sizes){
      .total = size_of("\nVmSize:"), .data = size_of("\nVmData:"),
      .executable = size_of("\nVmExe:") + size_of("\nVmLib:"), .stack = size_of("\nVmStk:"),
      .locked = size_of("\nVmLck:"), .resident_anonymous = size_of("\nRssAnon:"),
      .resident_shared = size_of("\nRssShmem:"), .resident_file = size_of("\nRssFile:")};
  return channel->sizes.total != 0 ? 0 : -EIO;
}

// ---- flags ------------------------------------------------------------------------------------

/// The mapping of the list that a line of smaps begins, the next one after `last` most often; `NULL` = none.
static struct kp_mapping *mapping_of(const char *line, uint32_t *last) {
  uint64_t start = 0;
  for (; *line != '-'; line++) {
    int digit = *line >= 'a' ? *line - 'a' + 10 : *line - '0';
    if (digit < 0 || digit > 15) return NULL;
    start = start * 16 + (uint64_t)digit;
  }
  if (kp_window_of(channel->windows, start) < 0) return NULL;
  for (uint32_t n = channel->mapping_count, i = 0; i < n; i++) {
    uint32_t at = (*last + 1 + i) % n;
    if (channel->mappings[at].start == start) {
      *last = at;
      return &channel->mappings[at];
    }
  }
  return NULL;
}

/// Fills in the flags of the mappings that are listed. What smaps has behind the last of them is not asked for: the
/// kernel walks the page tables of every mapping that it tells.
static int64_t report_flags(void) {
  size_t filled = 0;
  off_t offset = 0;
  struct kp_mapping *mapping = NULL;
  uint32_t last = 0, told = 0;
  while (told < channel->mapping_count) {
    ssize_t count = pread(smaps, smaps_text + filled, sizeof smaps_text - filled, offset);
    if (count < 0) return -errno;
    if (count == 0) break;
    offset += count;
    filled += (size_t)count;
    char *line = smaps_text, *end = smaps_text + filled, *stop;
    for (; (stop = memchr(line, '\n', (size_t)(end - line))); line = stop + 1) {
      // Everything but the first line of a mapping begins with a capital.
      if (*line < 'A' || *line > 'Z') {
        mapping = mapping_of(line, &last);
      } else if (mapping && stop - line > 8 && memcmp(line, "VmFlags:", 8) == 0) {
        for (const char *name = line + 9; name + 1 < stop; name += 3) mapping->flags |= kp_flag(name);
        told++;
      }
    }
    filled = (size_t)(end - line);
    memmove(smaps_text, line, filled);
  }
  return told == channel->mapping_count ? 0 : -EIO;
}

// ---- pages ------------------------------------------------------------------------------------

/// The hash of a page where it is. Returns 0 when it refuses to be read.
static int hash_in_place(uint64_t page, uint64_t *hash) {
  if (sigsetjmp(recovery, 0) == 0) {
    is_accessing = 1;
    *hash = kp_hash((const void *)page);
    is_accessing = 0;
    return 1;
  }
  is_accessing = 0;
  channel->signal = channel->code = 0;
  return 0;
}

/// A page that `mincore` says is resident.
static int64_t report_page(uint64_t page, const struct query *mapping, struct kp_page *report) {
  report->state = KP_RESIDENT;
  // Without copying it, where this process may read it.
  if ((mapping->flags & QUERY_READABLE) && hash_in_place(page, &report->hash)) return 0;
  // Whatever its rights are; a page that is there is not changed by it.
  if (pread(memory, page_buffer, PAGE, (off_t)page) == PAGE) {
    report->hash = kp_hash(page_buffer);
    return 0;
  }
  // A guard over a page that the shared object has: nobody reads it here.
  if (errno != EIO || (!report->shared && mapping->inode == 0)) return -errno;
  report->state = KP_ABSENT;
  return 0;
}

/// Pages of a window, from `reports` on.
static int64_t report_pages(const struct kp_window *window, struct kp_page *reports) {
  uint64_t start = window->start, end = window->end;
  struct query found;
  for (uint64_t at = start; at < end && find(at, &found) == 1 && found.start < end; at = found.end) {
    uint64_t from = found.start > start ? found.start : start;
    uint64_t to = found.end < end ? found.end : end;
    if (mincore((void *)from, to - from, residency) != 0) return -errno;
    for (uint64_t page = from; page < to; page += PAGE) {
      struct kp_page *report = &reports[(page - start) / PAGE];
      report->shared = (found.flags & QUERY_SHARED) != 0;
      report->state = KP_ABSENT;
      if ((residency[(page - from) / PAGE] & 1) == 0) continue;
      int64_t failure = report_page(page, &found, report);
      if (failure != 0) return failure;
    }
  }
  return 0;
}

int64_t report_state(void) {
  // Sizes first: what is read below may be mapped by it.
  int64_t failure = report_sizes();
  if (failure != 0) return failure;
  uint64_t count = 0;
  for (int i = 0; i < KP_WINDOWS; i++) {
    const struct kp_window *window = &channel->windows[i];
    uint64_t pages = (window->end - window->start) / PAGE;
    if (pages > KP_MAX_PAGES - count) return -E2BIG;
    uint32_t before = channel->mapping_count;
    list(window->start, window->end);
    channel->window_mappings[i] = channel->mapping_count - before;
    count += pages;
  }
  if ((failure = report_flags()) != 0) return failure;
  memset(channel->pages, 0, count * sizeof channel->pages[0]);
  struct kp_page *reports = channel->pages;
  for (int i = 0; i < KP_WINDOWS; i++) {
    failure = report_pages(&channel->windows[i], reports);
    if (failure != 0) return failure;
    reports += (channel->windows[i].end - channel->windows[i].start) / PAGE;
  }
  return 0;
}
