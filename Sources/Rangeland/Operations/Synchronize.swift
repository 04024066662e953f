// SPDX-License-Identifier: Apache-2.0
//
// Writing back what was written to mappings of files.
//
// Range: [start, end), for reading, from one mapping to the next; nothing is held while a file is written.
// Linux: mm/msync.c.

import SystemPackage

/// What is asked of `AddressSpace.synchronize` (Linux `MS_*`).
public struct SynchronizeOptions: OptionSet, Sendable, Hashable {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Soon, by the thread in the background (`MS_ASYNC`).
  @inlinable public static var later: SynchronizeOptions { SynchronizeOptions(rawValue: 1) }
  /// Other copies of the data are to be thrown away (`MS_INVALIDATE`): there are none, but locked mappings refuse.
  @inlinable public static var invalidate: SynchronizeOptions { SynchronizeOptions(rawValue: 2) }
  /// Before the call returns (`MS_SYNC`).
  @inlinable public static var now: SynchronizeOptions { SynchronizeOptions(rawValue: 4) }
}

extension AddressSpace {
  /// Writes back the pages of a range that shared mappings of files were written through, and makes the files
  /// durable: with `.now` the data, and then an fsync, have reached the kernel when it returns.
  ///
  /// Takes the space lock for reading over the range, and holds nothing while a file is written.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  ///   - options: `.now` unless said otherwise.
  /// - Throws: `EINVAL` for an option that does not exist, an unaligned start, or `.now` with `.later`; `ENOMEM` for a
  ///   length that wraps, and when a part of the range is not mapped, after all that is mapped was done;
  ///   `EBUSY` for `.invalidate` of a locked mapping; with `.now` the error of a write-back (`EIO`, `ENOSPC`, what a
  ///   pager threw) since the file was mapped or an error was last reported for the mapping, by whomever it was done.
  ///   Pages that could not be written stay dirty; the next call tries again.
  public func synchronize(
    at start: Address, length: UInt64, _ options: SynchronizeOptions = .now
  ) throws(Errno) {
    let before = LockMap.enter(.synchronize)
    defer { LockMap.leave(before) }
    guard options.rawValue & ~7 == 0, start.isPageAligned, !options.isSuperset(of: [.now, .later])
    else { throw .invalidArgument }
    let rounded = (length &+ 4095) & ~4095
    let (end, overflow) = start.addingReportingOverflow(rounded)
    if overflow { throw .noMemory }
    if end == start { return }
    if options.contains(.later) { memory.files.writer.kick() }
    guard start < Address.spaceEnd else { throw .noMemory }
    let range = AddressRange(start: start, end: min(end, Address.spaceEnd))
    let context = reclaimer.context()
    defer { settleFiles(context) }
    var position = range.start
    var isComplete = true
    while true {
      switch try nextFile(
        from: &position, range, options, reachesBeyond: end > range.end, &isComplete, context)
      {
      case .file(let mapping, let pages):
        let failure = write(mapping, pages, context)
        mapping.release(context)
        if let failure { throw failure }
        if position >= end { return try finish(isComplete) }
      case .end: return try finish(isComplete)
      }
    }
  }

  private func finish(_ isComplete: Bool) throws(Errno) {
    if !isComplete { throw .noMemory }
  }

  private enum Found {
    /// A mapping, with a reference, and pages of its object.
    case file(MappingRef, Range<UInt64>)
    case end
  }

  /// Goes on to the next shared mapping of a file, under the lock.
  private func nextFile(
    from position: inout Address, _ range: AddressRange, _ options: SynchronizeOptions,
    reachesBeyond: Bool, _ isComplete: inout Bool, _ context: Context
  ) throws(Errno) -> Found {
    if position >= range.end { throw .noMemory }
    let hold = lock.read(AddressRange(start: position, end: range.end), .synchronize)
    context.pin()
    defer { context.unpin() }
    park.pass(.synchronize)
    LockMap.observe(.layout, hold, hold.range)
    while true {
      guard let record = layout.pointee.findNext(position) else { throw .noMemory }
      if position < record.pointee.start {
        // As Linux: who only announces is told at once.
        if options == .later { throw .noMemory }
        position = record.pointee.start
        if position >= range.end { throw .noMemory }
        isComplete = false
      }
      LockMap.observe(.vmaFlags, hold, AddressRange(pageOf: position))
      if options.contains(.invalidate) && record.pointee.flags.contains(.locked) {
        throw .resourceBusy
      }
      let from = position
      position = record.pointee.end
      if options.contains(.now), record.pointee.flags.contains(.shared),
        let backing = record.pointee.backing, backing.pointee.object.pointee.file != nil
      {
        backing.retain()
        let last = min(range.end, record.pointee.end) - 1
        return .file(backing, backing.pageIndex(from)..<backing.pageIndex(last) + 1)
      }
      if position >= range.end {
        if reachesBeyond { throw .noMemory }
        return .end
      }
    }
  }

  /// Writes back, and makes durable; what was reported for the mapping is not reported again.
  private func write(
    _ mapping: MappingRef, _ pages: Range<UInt64>, _ context: Context
  ) -> Errno? {
    let object = mapping.pointee.object
    _ = object.writeBack(pages, context)
    _ = object.synchronizeSource()
    return object.pointee.file.unsafelyUnwrapped.pointee.errors.check(mapping.pointee.errorCursor)
  }
}
