// SPDX-License-Identifier: Apache-2.0
//
// Calls on files with raw arguments: `mmap` of a descriptor, `msync`, `remap_file_pages`, `ftruncate`. Descriptors are
// numbers of this process.
//
// Source: Linux mm/mmap.c `ksys_mmap_pgoff`, `do_mmap`; fs/open.c `do_sys_ftruncate`.

import CRangeland
import SystemPackage

extension AddressSpace {
  /// `mmap` without MAP_ANONYMOUS. The offset is aligned.
  func linuxMapFile(
    _ arguments: LinuxArguments, _ address: MapAddress
  ) throws(Errno) -> Address {
    let flags = arguments.fourth
    let access = try FileAccess(
      FileDescriptor(rawValue: Int32(truncatingIfNeeded: arguments.fifth)))
    if flags & LinuxMapFlags.huge != 0 { throw .invalidArgument }
    var sharing = Sharing.shared
    var refusal: Errno?
    switch flags & LinuxMapFlags.typeMask {
    case LinuxMapFlags.shared: break
    case LinuxMapFlags.private: sharing = .private
    case LinuxMapFlags.sharedValidate:
      if flags & ~LinuxMapFlags.validated != 0 { refusal = .notSupported }
    default: refusal = .invalidArgument
    }
    // Whose file it is decides about merging: a descriptor of this process is the nearest thing to Linux's open file.
    let opener =
      (UInt64(UInt32(bitPattern: access.descriptor)) << 2 | (access.isWritable ? 1 : 0)
        | (access.isReadable ? 2 : 0)) & (1 << 63 - 1)
    return try mapFile(
      access, opener, arguments.sixth, arguments.second, address,
      // Rights that do not exist are ignored.
      Protection(rawValue: UInt32(truncatingIfNeeded: arguments.third & 7)), sharing,
      LinuxMapFlags.options(flags), type: refusal,
      isSynchronous: flags & LinuxMapFlags.synchronous != 0
    ) { () throws(Errno) in
      try FileObject(access, opener: opener, memory: memory, released: nil)
    }
  }

  /// address, length, `MS_*`.
  func linuxSynchronize(_ arguments: LinuxArguments) throws(Errno) {
    try synchronize(
      at: arguments.first, length: arguments.second,
      SynchronizeOptions(rawValue: UInt32(truncatingIfNeeded: arguments.third)))
  }

  /// address, length, `PROT_*`, page offset, flags.
  func linuxRemapPages(_ arguments: LinuxArguments) throws(Errno) {
    // MAP_NONBLOCK is the one flag that means something, and here it means nothing.
    if arguments.third != 0 { throw .invalidArgument }
    try remapPages(
      at: arguments.first, length: arguments.second, pageOffset: arguments.fourth)
  }

  /// descriptor, size.
  func linuxTruncate(_ arguments: LinuxArguments) throws(Errno) {
    if Int64(bitPattern: arguments.second) < 0 { throw .invalidArgument }
    let access = try FileAccess(
      FileDescriptor(rawValue: Int32(truncatingIfNeeded: arguments.first)))
    guard access.isRegular, access.isWritable else { throw .invalidArgument }
    // Through the object even if nothing of it is mapped: then it costs nothing more.
    var readable = access
    readable.isReadable = true
    try FileObject(readable, opener: 0, memory: memory, released: nil).truncate(
      to: arguments.second)
  }
}
