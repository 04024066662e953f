// SPDX-License-Identifier: Apache-2.0
//
// Which pages are in memory.
//
// Range: [start, end), for reading: what is told of a page is true of the mapping that was there.
// Linux: mm/mincore.c `do_mincore`, `mincore_pte_range`, `__mincore_unmapped_range`.

import SystemPackage

extension AddressSpace {
  /// Tells of each page whether an access would find it in memory (`mincore`): private pages that the space
  /// maps, the shared page of zeros included; pages of a shared object that anybody has touched.
  ///
  /// Takes the space lock for reading over 4,096 pages at a time. The answer may be old when it arrives, as Linux's.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages.
  /// - Returns: one value for each page.
  /// - Throws: `EINVAL` for an unaligned start; `ENOMEM` for a range beyond the space or with a hole.
  public func residency(at start: Address, length: UInt64) throws(Errno) -> [Bool] {
    guard start.isPageAligned else { throw .invalidArgument }
    guard start <= Address.spaceEnd, length <= Address.spaceEnd - start else { throw .noMemory }
    var result: [Bool] = []
    var done: UInt64 = 0
    repeat {
      // The last one as long as the caller says, so that all is checked.
      let piece = length - done > 4096 << 12 ? 4096 << 12 : length - done
      let failure = withResidency(at: start &+ done, length: piece) { bytes in
        for byte in bytes { result.append(byte != 0) }
      }
      if let failure { throw failure }
      done += piece
    } while done < length
    return result
  }

  /// The same of 4,096 pages at most. Nothing is held when `body` runs, and nothing is allocated before.
  ///
  /// - Parameter body: gets a byte for each page, 1 for one in memory, of those before a hole.
  /// - Returns: the error.
  func withResidency(
    at start: Address, length: UInt64, _ body: (UnsafeRawBufferPointer) -> Void
  ) -> Errno? {
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
      var count = 0
      var failure: Errno?
      do throws(Errno) {
        try forEachResidency(at: start, length: length) {
          buffer[count] = $0 ? 1 : 0
          count += 1
        }
      } catch {
        failure = error
      }
      body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      return failure
    }
  }

  /// The same, page by page; those before a hole are told before the error is thrown.
  private func forEachResidency(
    at start: Address, length: UInt64, _ body: (Bool) -> Void
  ) throws(Errno) {
    let before = LockMap.enter(.residency)
    defer { LockMap.leave(before) }
    guard start.isPageAligned else { throw .invalidArgument }
    guard start <= Address.spaceEnd, length <= Address.spaceEnd - start,
      let rounded = length.roundedUpToPage
    else { throw .noMemory }
    if rounded == 0 { return }
    let range = AddressRange(start: start, end: start + rounded)
    let hold = lock.read(range, .residency)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    park.pass(.residency)
    LockMap.observe(.layout, hold, range)
    LockMap.observe(.pageTableEntry, hold, range)
    var position = range.start
    while position < range.end {
      guard let record = layout.pointee.find(position) else { throw .noMemory }
      let piece = AddressRange(start: position, end: min(range.end, record.pointee.end))
      tellResidency(piece, record, context, body)
      position = piece.end
    }
  }

  private func tellResidency(
    _ piece: AddressRange, _ record: RecordRef, _ context: Context, _ body: (Bool) -> Void
  ) {
    var object: MappingRef?
    if let backing = record.pointee.backing, backing.pointee.object.pointee.kind != .special {
      object = backing
    }
    var told = piece.start
    func tellAbsent(to end: Address) {
      while told < end {
        // Not in the page tables: in memory if the object has it.
        body(object.map { $0.pointee.object.hasPage($0.pageIndex(told)) } ?? false)
        told += Address.pageSize
      }
    }
    tables.forEachEntry(in: piece, context) { address, entry in
      guard entry.isPresent else { return }
      tellAbsent(to: address)
      body(true)
      told = address + Address.pageSize
    }
    tellAbsent(to: piece.end)
  }

  /// The pages of `range` that the page tables map, ascending, the shared page of zeros included, whatever
  /// their rights. Each is told as it was at some instant of the call. For the verifier.
  package func presentPages(in range: AddressRange) -> [Address] {
    var result: [Address] = []
    tables.forEachEntry(in: range, reclaimer.context()) { address, entry in
      if entry.isPresent { result.append(address) }
    }
    return result
  }

  /// The pages of `range` that are files' on disks, and present: not the copies that private mappings have of them. For the
  /// verifier, which compares it with what is counted.
  package func residentFilePages(in range: AddressRange) -> Int {
    var count = 0
    tables.forEachEntry(in: range, reclaimer.context()) { _, entry in
      if entry.isPresent && entry.kind == .file { count += 1 }
    }
    return count
  }
}
