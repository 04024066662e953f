// SPDX-License-Identifier: Apache-2.0
//
// Calls for files: variadic ones, and structures whose fields are macros.

#define _GNU_SOURCE
#include "CRangeland.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>

enum { PAGE = 4096, MOST_PAGES = 64 };

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

static unsigned vectors(struct iovec *v, void *const *pages, unsigned count, size_t bytes) {
  unsigned n = 0;
  for (; n < count && n < MOST_PAGES && bytes > 0; n++) {
    v[n].iov_base = pages[n];
    v[n].iov_len = bytes < PAGE ? bytes : PAGE;
    bytes -= v[n].iov_len;
  }
  return n;
}

long rl_preadv(int fd, void *const *pages, unsigned count, size_t bytes, uint64_t offset) {
  struct iovec v[MOST_PAGES];
  unsigned n = vectors(v, pages, count, bytes);
  long r = syscall(SYS_preadv2, fd, v, (unsigned long)n, (unsigned long)offset, (unsigned long)(offset >> 32 >> 32), 0);
  return r < 0 ? -errno : r;
}

long rl_pwritev(int fd, void *const *pages, unsigned count, size_t bytes, uint64_t offset) {
  struct iovec v[MOST_PAGES];
  unsigned n = vectors(v, pages, count, bytes);
  int flags = 0;
  // A duplicated descriptor may append, whatever the offset is (Linux 6.9 has a word against it).
  if (fcntl(fd, F_GETFL) & O_APPEND) flags = RWF_NOAPPEND;
  long r = syscall(SYS_pwritev2, fd, v, (unsigned long)n, (unsigned long)offset, (unsigned long)(offset >> 32 >> 32),
                   flags);
  return r < 0 ? -errno : r;
}

int rl_file_status(int fd, struct rl_file *file) {
  struct stat s;
  struct statfs f;
  struct statvfs v;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  if (fstat(fd, &s) != 0) return -errno;
  file->flags = flags;
  file->device = s.st_dev;
  file->inode = s.st_ino;
  file->size = (uint64_t)s.st_size;
  file->is_regular = S_ISREG(s.st_mode);
  file->is_unlinked = s.st_nlink == 0;
  file->is_shared_memory = fstatfs(fd, &f) == 0 && f.f_type == TMPFS_MAGIC;
  file->forbids_execution = fstatvfs(fd, &v) == 0 && (v.f_flag & ST_NOEXEC) != 0;
  return 0;
}

int rl_reopen(int fd, int writable) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int fresh = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY);
  if (fresh < 0) fresh = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return fresh < 0 ? -errno : fresh;
}

int rl_close(int fd) { return close(fd) < 0 ? -errno : 0; }

int rl_fsync(int fd) { return fsync(fd) < 0 ? -errno : 0; }

int rl_ftruncate(int fd, uint64_t size) { return ftruncate(fd, (off_t)size) < 0 ? -errno : 0; }

int rl_punch_hole(int fd, uint64_t offset, uint64_t bytes) {
  int r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
  return r < 0 ? -errno : 0;
}

long rl_descriptor_path(int fd, char *path, size_t room) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, room);
  return n < 0 ? -errno : n;
}
