// SPDX-License-Identifier: Apache-2.0
//
// `mincore` with raw arguments.
//
// Source: Linux mm/mincore.c.

import SystemPackage

extension AddressSpace {
  /// address, length, address of a vector of one byte for each page.
  func linuxResidency(_ arguments: LinuxArguments) throws(Errno) {
    let (start, length, vector) = (arguments.first, arguments.second, arguments.third)
    guard start.isPageAligned else { throw .invalidArgument }
    guard start <= Address.spaceEnd, length <= Address.spaceEnd - start else { throw .noMemory }
    let pages = (length >> 12) + (length & 4095 != 0 ? 1 : 0)
    guard vector <= Address.spaceEnd, pages <= Address.spaceEnd - vector else { throw .badAddress }
    // As the kernel: a page of answers at a time, and those before an error are written.
    var done: UInt64 = 0
    while done < pages {
      let count = min(pages - done, 4096)
      var isWritten = false
      let failure = withResidency(at: start + done << 12, length: count << 12) { bytes in
        do throws(AccessFault) {
          try write(bytes, at: vector + done)
          isWritten = true
        } catch {}
      }
      if !isWritten { throw .badAddress }
      if let failure { throw failure }
      done += count
    }
  }
}
