// SPDX-License-Identifier: Apache-2.0
//
// What a recorded program did and this version has no call for, applied by its effect on the layout.
//
// Range: the pages whose mapping changes, for writing.

import SystemPackage

extension AddressSpace {
  /// Maps a range as a recorded call left it, replacing what is there: a file mapping, the heap, a stack,
  /// the target of a move.
  ///
  /// A file mapping keeps the file's identity and offset, so it splits and merges as Linux's does; its
  /// pages read as zeros. Takes the space lock for writing over the range.
  ///
  /// - Parameters:
  ///   - range: page aligned, inside the space.
  ///   - protection: the rights of its pages.
  ///   - sharing: who sees writes to it.
  ///   - file: the number by which the caller knows the file; `nil` = anonymous memory. Private mappings of
  ///     one file merge where their offsets continue.
  ///   - pageOffset: of `range.start` in the file, in pages.
  ///   - growsDown: a stack: counted as one, and nothing is placed close below it.
  /// - Throws: `EINVAL` for an unaligned range; `ENOMEM` for one that leaves the space, or without memory.
  public func substituteMapping(
    _ range: AddressRange, protection: Protection, sharing: Sharing, file: UInt64? = nil,
    pageOffset: UInt64 = 0, growsDown: Bool = false
  ) throws(Errno) {
    let before = LockMap.enter(.substitute)
    defer { LockMap.leave(before) }
    guard range.start.isPageAligned, range.end.isPageAligned else { throw .invalidArgument }
    guard range.end <= Address.spaceEnd else { throw .noMemory }
    let context = reclaimer.context()
    defer { settleFiles(context) }
    var attributes = VMAAttributes(flags: VMAFlags(protection, sharing))
    if growsDown { attributes.flags.insert(.growsDown) }
    if let file {
      attributes.backing = try fileMapping(file, range, pageOffset, context)
      attributes.pageOffset = pageOffset
    } else if sharing == .shared {
      attributes.backing = try makeMapping(
        .sharedAnonymous, identity: 0, lastPage: range.length.pageNumber - 1, context)
      attributes.pageOffset = 0
    }
    defer { attributes.backing?.release(context) }
    _ = try mapFixed(range, attributes, replacing: true, .substitute, context)
  }

  /// Removes the mappings of a range as a recorded call did: a shrinking heap, the source of a move.
  ///
  /// - Throws: as `unmap`.
  public func substituteUnmapping(_ range: AddressRange) throws(Errno) {
    let before = LockMap.enter(.substitute)
    defer { LockMap.leave(before) }
    let range = try Self.unmapRange(range.start, range.length)
    defer { settleFiles(reclaimer.context()) }
    try removeAll(range, lock.write(range, .substitute))
  }

  /// A mapping of file `number` that stands at `range`, with one reference.
  private func fileMapping(
    _ number: UInt64, _ range: AddressRange, _ pageOffset: UInt64, _ context: Context
  ) throws(Errno) -> MappingRef {
    guard let object = files.object(number, arena, context) else { throw .noMemory }
    let mapping = ObjectMapping.make(
      object, space: identity, place: place, deltaPages: range.start.pageNumber &- pageOffset,
      context)
    object.release(context)
    guard let mapping else { throw .noMemory }
    return mapping
  }
}
