// SPDX-License-Identifier: Apache-2.0
//
// Numbers of system calls: Swift does not see the macros.

#ifndef KERNEL_SYSTEM_CALLS_H
#define KERNEL_SYSTEM_CALLS_H

#include <sys/syscall.h>

// Headers older than Linux 6.10 lack it; the number is the same on all architectures.
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

enum {
  KP_SYS_brk = SYS_brk,
  KP_SYS_ftruncate = SYS_ftruncate,
  KP_SYS_get_mempolicy = SYS_get_mempolicy,
  KP_SYS_madvise = SYS_madvise,
  KP_SYS_mbind = SYS_mbind,
  KP_SYS_mincore = SYS_mincore,
  KP_SYS_mlock = SYS_mlock,
  KP_SYS_mlock2 = SYS_mlock2,
  KP_SYS_mlockall = SYS_mlockall,
  KP_SYS_mmap = SYS_mmap,
  KP_SYS_mprotect = SYS_mprotect,
  KP_SYS_mremap = SYS_mremap,
  KP_SYS_msync = SYS_msync,
  KP_SYS_remap_file_pages = SYS_remap_file_pages,
  KP_SYS_mseal = SYS_mseal,
  KP_SYS_munlock = SYS_munlock,
  KP_SYS_munlockall = SYS_munlockall,
  KP_SYS_munmap = SYS_munmap,
  KP_SYS_prctl = SYS_prctl,
  KP_SYS_set_mempolicy = SYS_set_mempolicy,
  KP_SYS_setrlimit = SYS_setrlimit,
};

#endif
