// SPDX-License-Identifier: Apache-2.0
//
// The numbers of the system calls that an address space answers, those of x86-64.
//
// Source: Linux arch/x86/entry/syscalls/syscall_64.tbl.

/// A system call of Linux on x86-64 that works on an address space. The raw value is its number.
public enum LinuxCall: Int, CaseIterable, Sendable, Hashable {
  case mmap = 9
  case mprotect = 10
  case munmap = 11
  case brk = 12
  case mremap = 25
  case msync = 26
  case mincore = 27
  case madvise = 28
  case ftruncate = 77
  case mlock = 149
  case munlock = 150
  case mlockall = 151
  case munlockall = 152
  case prctl = 157
  case remapFilePages = 216
  case mbind = 237
  case setMempolicy = 238
  case getMempolicy = 239
  case processVMReadv = 310
  case processVMWritev = 311
  case mlock2 = 325
  case mseal = 462
}
